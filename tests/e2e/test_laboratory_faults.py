"""A laboratory's service over gRPC: nodes that misbehave, drivers that fail, and its end."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from tests.support.certificates import Authority, issue, make_authority
from tests.support.scripted_laboratory import FIBRE, Lab

from bellhop.hal.door import Door
from bellhop.hal.errors import ConfigError
from bellhop.hal.laboratory import LaboratoryError, LabPort
from bellhop.hal.memory_client import MemoryServiceAccess, MemoryServiceClient
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    Attempt,
    DeviceGone,
    Heralded,
    LinkName,
    NodeName,
    Ready,
    Report,
    RequestId,
    Side,
)
from bellhop.hal.serve import serve
from bellhop.hal.serve_rules import DriverFault, Limits
from bellhop.v1 import memory_pb2

pytestmark = pytest.mark.e2e

ALICE = NodeName("alice")
REQUEST = RequestId("0f" * 16)
SERVER_NAME = "trap.emulator.bellhop"
PATIENCE_SECONDS = 20.0
LIMITS = Limits(herald_seconds=60.0, measure_seconds=60.0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = make_authority(tmp_path_factory.mktemp("pki"))
    issue(made, "emulator", "trap")
    issue(made, "node", "alice")
    return made


def door(authority: Authority, listen: str = "127.0.0.1:0") -> Door:
    stem = authority.folder / "emulator-trap"
    return Door(
        "service", listen, stem.with_suffix(".crt"), stem.with_suffix(".key"),
        authority.certificate_file,
    )  # fmt: skip


@asynccontextmanager
async def serving(authority: Authority, lab: Lab) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The address of a service that runs meanwhile, and what stops it."""
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve({ALICE: lab}, door(authority), LIMITS, listening.set_result, stop)
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield await listening, stop
    finally:
        stop.set()
        await task
    assert lab.log[-1] == "close"


def pem(authority: Authority) -> tuple[bytes, bytes, bytes]:
    stem = authority.folder / "node-alice"
    files = (stem.with_suffix(".crt"), authority.certificate_file, stem.with_suffix(".key"))
    certificate, root, key = (file.read_bytes() for file in files)
    return certificate, root, key


def client(authority: Authority, address: str) -> MemoryServiceClient:
    return MemoryServiceClient(MemoryServiceAccess(address, SERVER_NAME, *pem(authority)))


@asynccontextmanager
async def calling(authority: Authority, address: str) -> AsyncIterator[Any]:
    """A bare stream, for saying what a client would not."""
    certificate, root, key = pem(authority)
    credentials = grpc.ssl_channel_credentials(root, key, certificate)
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    async with aio.secure_channel(address, credentials, options=options) as channel:
        yield channel.stream_stream("/bellhop.v1.MemoryService/Operate")()


async def following(reports: AsyncIterator[Report]) -> Report:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await anext(reports)


async def test_bytes_that_are_no_order_end_that_stream_alone(authority: Authority) -> None:
    nothing = memory_pb2.MemoryOperation().SerializeToString()
    async with serving(authority, Lab()) as (address, _):
        for garbage in (b"\xff" * 20, nothing):
            async with calling(authority, address) as call:
                await call.read()
                await call.write(garbage)
                with pytest.raises(aio.AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        alice = client(authority, address)
        assert isinstance(await following(aiter(alice.reports())), Ready)
        await alice.close()


async def test_malformed_orders_are_refused_and_the_stream_goes_on(authority: Authority) -> None:
    wrong = memory_pb2.AttemptOperation(link=FIBRE, request="short", rounds=4)
    right = memory_pb2.AttemptOperation(link=FIBRE, request=REQUEST, rounds=4)
    async with serving(authority, Lab()) as (address, _), calling(authority, address) as call:
        await call.read()
        kinds = []
        for order in (wrong, right):
            await call.write(memory_pb2.MemoryOperation(attempt=order).SerializeToString())
            report = memory_pb2.MemoryReport.FromString(await call.read())
            kinds.append(report.WhichOneof("report"))
        assert kinds == ["lost", "heralded"]


async def test_a_driver_that_fails_is_named_and_the_next_stream_served(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    lab = Lab(fail={"attempt": ZeroDivisionError("in a driver")})
    async with serving(authority, lab) as (address, _):
        alice = client(authority, address)
        reports = aiter(alice.reports())
        await following(reports)
        await alice.submit(Attempt(FIBRE, REQUEST, 0, 4))
        gone = await following(reports)
        assert isinstance(gone, DeviceGone)
        assert "INTERNAL" in gone.reason and "whoever wrote it" in gone.reason
        lab.fail.clear()
        assert isinstance(await following(reports), Ready)
        await alice.submit(Attempt(FIBRE, REQUEST, 0, 4))
        assert isinstance(await following(reports), Heralded)
        await alice.close()
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failed) == 1 and failed[0].exc_info is not None, "the traceback is in the log"


async def test_a_later_stream_waits_until_the_earlier_has_given_up_all(
    authority: Authority,
) -> None:
    lab = Lab(hang="attempt")
    async with serving(authority, lab) as (address, _):
        first, second = client(authority, address), client(authority, address)
        reports = aiter(first.reports())
        await following(reports)
        await first.submit(Attempt(FIBRE, REQUEST, 0, 4))
        await lab.hanging.wait()
        later = aiter(second.reports())
        assert isinstance(await following(later), Ready)
        assert lab.given_up == [0] and lab.log[-1] == "release", "before it was ready"
        assert isinstance(await following(reports), DeviceGone)
        for one in (first, second):
            await one.close()


async def test_a_service_that_stops_says_so_and_leaves_nothing_under_way(
    authority: Authority,
) -> None:
    lab = Lab(hang="attempt")
    async with serving(authority, lab) as (address, stop):
        alice = client(authority, address)
        reports = aiter(alice.reports())
        await following(reports)
        await alice.submit(Attempt(FIBRE, REQUEST, 0, 4))
        await lab.hanging.wait()
        stop.set()
        gone = await following(reports)
        assert isinstance(gone, DeviceGone) and "stops" in gone.reason
        await alice.close()
    assert lab.log[-2:] == ["release", "close"]


async def test_a_device_that_holds_more_than_any_block_is_as_good_as_the_longest(
    authority: Authority,
) -> None:
    async with serving(authority, Lab(ions=10 * BLOCK_ROUNDS_MAX)) as (address, _):
        alice = client(authority, address)
        ready = await following(aiter(alice.reports()))
        assert isinstance(ready, Ready) and ready.ports[0].rounds_max == BLOCK_ROUNDS_MAX
        assert not ready.ports[0].herald_is_measurement
        await alice.close()


async def test_a_herald_that_is_the_measurement_is_told(authority: Authority) -> None:
    class Detectors(Lab):
        async def open(self) -> tuple[LabPort, ...]:
            return (replace(self.port, herald_is_measurement=True),)

    async with serving(authority, Detectors()) as (address, _):
        alice = client(authority, address)
        ready = await following(aiter(alice.reports()))
        assert isinstance(ready, Ready) and ready.ports[0].herald_is_measurement
        await alice.close()


PORT = Lab().port
WRONG_PORTS: dict[str, tuple[tuple[LabPort, ...], str]] = {
    "none": ((), "no port"),
    "nothing": (None, "must answer a tuple of LabPort"),  # type: ignore[dict-item]  # the fault
    "no ports": ((1,), "must answer a tuple of LabPort"),  # type: ignore[dict-item]  # the fault
    "two on a link": ((PORT, PORT), "two on one link"),
    "too few settings": ((replace(PORT, side=Side.B),), "3 to 16 settings, not 2"),
    "no pair": ((replace(PORT, pairs_held_max=0),), "at least one pair"),
    "no name": ((replace(PORT, link=LinkName(FIBRE * 20)),), "1 to 64 printable"),
    "no node": ((replace(PORT, peer=NodeName("Bob!")),), "no name of a node"),
    "itself": ((replace(PORT, peer=ALICE),), "to itself"),
    "a book": ((replace(PORT, idealisations=("x",) * 17),), "at most 16 idealisations"),
}


WRONG_TYPES: dict[str, Any] = {
    "link": 7,
    "side": "a",
    "peer": None,
    "settings": "2",
    "description": None,
    "idealisations": "none at all",
    "pairs_held_max": 2.5,
    "source": "hardware",
    "herald_is_measurement": "no",
}


@pytest.mark.parametrize("name", WRONG_TYPES)
async def test_a_port_of_another_type_is_told_by_its_field(authority: Authority, name: str) -> None:
    class Wrong(Lab):
        async def open(self) -> tuple[LabPort, ...]:
            return (replace(PORT, **{name: WRONG_TYPES[name]}),)

    with pytest.raises(
        DriverFault, match=f"a LabPort's {name} is {type(WRONG_TYPES[name]).__name__}"
    ):
        await serve({ALICE: Wrong()}, door(authority), LIMITS)


@pytest.mark.parametrize("what", WRONG_PORTS)
async def test_ports_that_no_node_could_use_are_the_drivers_fault(
    authority: Authority, what: str
) -> None:
    ports, words = WRONG_PORTS[what]

    class Wrong(Lab):
        async def open(self) -> tuple[LabPort, ...]:
            return ports

    lab = Wrong()
    with pytest.raises(DriverFault, match=words):
        await serve({ALICE: lab}, door(authority), LIMITS)
    assert lab.log == ["close"]


async def test_a_laboratory_is_closed_whatever_keeps_it_from_serving(
    authority: Authority, tmp_path: Path
) -> None:
    class Cold(Lab):
        async def open(self) -> tuple[LabPort, ...]:
            raise LaboratoryError("the oven is cold")

    lab = Cold()
    with pytest.raises(LaboratoryError, match="oven"):
        await serve({ALICE: lab}, door(authority), LIMITS)
    taken = Lab()
    with pytest.raises(ConfigError) as caught:
        await serve({ALICE: taken}, door(authority, "192.0.2.1:1"), LIMITS)
    assert caught.value.field == "service.listen"
    assert lab.log == ["close"] and taken.log == ["close"]
