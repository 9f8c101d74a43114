"""A laboratory's service as it begins and ends, whatever its drivers and its file do."""

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from tests.e2e.test_laboratory_faults import (
    ALICE,
    LIMITS,
    PATIENCE_SECONDS,
    REQUEST,
    client,
    door,
    following,
)
from tests.support.certificates import Authority, issue, make_authority
from tests.support.scripted_laboratory import FIBRE, Lab
from tests.support.waiting import until

from bellhop.hal.door import Door
from bellhop.hal.errors import ConfigError
from bellhop.hal.laboratory import LabPort
from bellhop.hal.memory_client import MemoryServiceAccess, MemoryServiceClient
from bellhop.hal.memory_wire import operation_to_wire
from bellhop.hal.operations import Attempt, Heralded, LinkName, NodeName, Ready, RequestId
from bellhop.hal.serve import LaboratoryService, serve
from bellhop.hal.serve_rules import Limits
from bellhop.hal.serve_shell import Context
from bellhop.node.loopback import COMMAND
from bellhop.v1 import memory_pb2

pytestmark = pytest.mark.e2e

CAROL = NodeName("carol")
SHORT = Limits(60.0, 60.0, close_seconds=0.05, grace_seconds=0.05)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = make_authority(tmp_path_factory.mktemp("pki"))
    issue(made, "emulator", "trap")
    for name in ("alice", "carol"):
        issue(made, "node", name)
    return made


async def stopped(labs: dict[NodeName, Lab], at: Door, limits: Limits) -> None:
    """Serve, and stop as soon as nodes could connect."""
    stop = asyncio.Event()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await serve(labs, at, limits, lambda _: stop.set(), stop)


class Unclosed(Lab):
    """`hang`: a close that does not end."""

    async def close(self) -> None:
        await super().close()
        await self._may("close")


FAULTS: dict[str, Callable[[], Lab]] = {
    "a fault": lambda: Unclosed(fail={"close": ValueError("in a driver")}),
    "a cancellation": lambda: Unclosed(fail={"close": asyncio.CancelledError()}),  # type: ignore[dict-item]
    "silence": lambda: Unclosed(hang="close"),
}


@pytest.mark.parametrize("what", FAULTS)
async def test_a_laboratory_that_does_not_close_keeps_none_of_the_others_open(
    what: str, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    broken, other = FAULTS[what](), Lab()
    for labs in ({ALICE: broken, CAROL: other}, {CAROL: other, ALICE: broken}):
        other.log.clear()
        caplog.clear()
        await stopped(labs, door(authority), SHORT)
        assert broken.log[-1] == "close" and other.log == ["close"]
        errors = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert len(errors) == 1 and "node alice" in errors[0].getMessage()


async def test_a_service_can_be_stopped_while_a_laboratory_opens(authority: Authority) -> None:
    class Opening(Lab):
        async def open(self) -> tuple[LabPort, ...]:
            await self._may("open")
            return await super().open()

    lab, stop = Opening(hang="open"), asyncio.Event()
    serving = asyncio.create_task(serve({ALICE: lab}, door(authority), SHORT, stop=stop))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await lab.hanging.wait()
        stop.set()
        await serving
    assert lab.log == ["close"]


class Slow(Lab):
    """A release that takes until `go`."""

    may_release: asyncio.Event

    async def release(self, link: LinkName, request: RequestId) -> None:
        await super().release(link, request)
        await self.may_release.wait()
        self.log.append("released")


def carol(authority: Authority, address: str) -> MemoryServiceClient:
    stem = authority.folder / "node-carol"
    files = (stem.with_suffix(".crt"), authority.certificate_file, stem.with_suffix(".key"))
    certificate, root, key = (file.read_bytes() for file in files)
    access = MemoryServiceAccess(address, "trap.emulator.bellhop", certificate, root, key)
    return MemoryServiceClient(access)


async def test_a_node_that_comes_back_waits_until_all_is_given_up(authority: Authority) -> None:
    """Also if its call was cancelled, as it is when the node dies."""
    lab, stop = Slow(), asyncio.Event()
    lab.may_release = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    labs = {ALICE: lab, CAROL: Lab()}
    task = asyncio.create_task(serve(labs, door(authority), LIMITS, listening.set_result, stop))
    address = await listening
    first = client(authority, address)
    reports = aiter(first.reports())
    assert isinstance(await following(reports), Ready)
    await first.submit(Attempt(FIBRE, REQUEST, 0, 4))
    assert isinstance(await following(reports), Heralded)
    await first.close()
    await until(lambda: "release" in lab.log)
    second = client(authority, address)
    again = asyncio.ensure_future(following(aiter(second.reports())))
    # Long enough for another node to come, be served and go a few times.
    for _ in range(3):
        other = carol(authority, address)
        assert isinstance(await following(aiter(other.reports())), Ready)
        await other.close()
    assert not again.done() and "released" not in lab.log
    lab.may_release.set()
    assert isinstance(await again, Ready) and "released" in lab.log
    await second.close()
    stop.set()
    await task


class Caller:
    """What a service asks of the context of alice's call."""

    def auth_context(self) -> dict[str, tuple[bytes, ...]]:
        names = (b"bellhop:node:alice",)
        return {"transport_security_type": (b"ssl",), "x509_subject_alternative_name": names}


async def test_a_call_that_is_cancelled_twice_does_not_hand_its_turn_on_early() -> None:
    """As when a node dies while the service stops its calls."""
    lab = Slow()
    lab.may_release = asyncio.Event()
    service = LaboratoryService({ALICE: (lab, (lab.port,))}, LIMITS)

    async def ordering() -> AsyncIterator[memory_pb2.MemoryOperation]:
        yield operation_to_wire(Attempt(FIBRE, REQUEST, 0, 4))
        await asyncio.get_running_loop().create_future()

    async def calling() -> None:
        async for _ in service.Operate(ordering(), cast(Context, Caller())):
            pass

    first = asyncio.create_task(calling())
    await until(lambda: "attempt 0" in lab.log)
    for _ in range(2):
        first.cancel()
        await until(lambda: "release" in lab.log)
    await asyncio.wait({first}, timeout=PATIENCE_SECONDS)
    assert first.done() and "released" not in lab.log
    second = aiter(service.Operate(ordering(), cast(Context, Caller())))
    assert isinstance(second, AsyncGenerator)
    ready = asyncio.ensure_future(anext(second))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not ready.done()
    lab.may_release.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await ready).WhichOneof("report") == "ready" and "released" in lab.log
        await second.aclose()


async def test_what_is_wrong_at_the_door_names_the_field_and_touches_no_device(
    authority: Authority, tmp_path: Path
) -> None:
    node = authority.folder / "node-alice"
    noise = tmp_path / "noise.pem"
    noise.write_text("no certificate")
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("service.tls.key", {"key": node.with_suffix(".key")}, "is not the unencrypted key of"),
        ("service.tls.key", {"key": noise}, "is not the unencrypted key of"),
        ("service.tls.authority", {"authority": noise}, "holds no certificate"),
        ("service.tls.certificate", {"certificate": noise}, "holds no certificate"),
        (
            "service.tls.certificate",
            {"certificate": node.with_suffix(".crt"), "key": node.with_suffix(".key")},
            "is that of node alice",
        ),
        ("service.port_file", {"port_file": tmp_path / "no" / "port"}, "No such file"),
        ("service.port_file", {"port_file": tmp_path}, "cannot be written"),
    ]
    for field, changed, words in wrong:
        lab = Lab()
        with pytest.raises(ConfigError, match=words) as caught:
            await stopped({ALICE: lab}, replace(door(authority), **changed), LIMITS)
        assert caught.value.field == field and lab.log == []


DRIVER = """
import asyncio
from bellhop.hal.examples.two_traps import Trap as Base

class Trap(Base):
    async def open(self):
        print("opening", flush=True)
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
    close = open
"""

FILE = """
[service]
listen = "127.0.0.1:0"
tls = {{ certificate = "{0}.crt", key = "{0}.key", authority = "{1}" }}

[limits]
close_seconds = 0.1

[[laboratory]]
node = "alice"
driver = "stubborn:Trap"
options = {{ table = "127.0.0.1:1", link = "fibre", side = "a", peer = "bob" }}
"""


def test_a_driver_that_cannot_be_cancelled_does_not_keep_the_process(
    authority: Authority, tmp_path: Path
) -> None:
    """SIGTERM while it opens: open and close are left behind, and said to be."""
    (tmp_path / "stubborn.py").write_text(DRIVER)
    file = tmp_path / "alice.toml"
    file.write_text(FILE.format(authority.folder / "emulator-trap", authority.certificate_file))
    with subprocess.Popen(
        [*COMMAND, "hal", "serve", str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as service:  # fmt: skip
        assert service.stdout is not None
        try:
            assert service.stdout.readline() == "opening\n"
            service.send_signal(signal.SIGTERM)
            _, log = service.communicate(timeout=PATIENCE_SECONDS)
        finally:
            service.kill()
    assert service.returncode == 0, log
    assert "open did not end" in log and "close did not end" in log
