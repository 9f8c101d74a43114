"""The emulator over gRPC with mutual TLS: what it gives a node, and what it refuses."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio
from tests.support.certificates import Authority, PartyFiles, issue, make_authority

from bellhop.hal import conformance
from bellhop.hal.conformance.statistical_checks import outcomes_violate_chsh
from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.nature import Delivery, Nature
from bellhop.hal.emulator.server import MemoryService, serve
from bellhop.hal.emulator.topology import Topology, parse_topology, read_topology
from bellhop.hal.errors import ConfigError, HardwareError
from bellhop.hal.memory_client import MemoryServiceAccess, MemoryServiceClient
from bellhop.hal.memory_wire import operation_to_wire
from bellhop.hal.operations import (
    Attempt,
    DeviceGone,
    Heralded,
    LinkName,
    Measure,
    MemoryLost,
    NodeName,
    Operation,
    Ready,
    Release,
    Report,
    RequestId,
)
from bellhop.hal.serve_shell import KEEPALIVE_MS, keep_open
from bellhop.v1 import memory_pb2, memory_pb2_grpc

pytestmark = pytest.mark.e2e

FIBRE = LinkName("fibre")
REQUEST = RequestId("0123456789abcdef" * 2)
WAIT_SECONDS = 20.0
SERVER_NAME = "emulator-1.emulator.bellhop"
TOPOLOGY = """
[emulator]
listen = "127.0.0.1:0"
clock = {clock}
port_file = "emulator.port"

[emulator.tls]
certificate = "emulator-emulator-1.crt"
key = "emulator-emulator-1.key"
authority = "authority.crt"

[[link]]
name = "fibre"
a = "alice"
b = "bob"
preset = "oxford"
{more}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority, the emulator and two nodes, in one folder."""
    made = make_authority(tmp_path_factory.mktemp("pki"))
    issue(made, "emulator", "emulator-1")
    for name in ("alice", "bob"):
        issue(made, "node", name)
    return made


def topology(authority: Authority, clock: str = '"fast"', more: str = "") -> Topology:
    text = TOPOLOGY.format(clock=clock, more=more)
    return parse_topology(text, authority.folder / "topology.toml")


def access(address: str, files: PartyFiles) -> MemoryServiceAccess:
    return MemoryServiceAccess(
        address,
        SERVER_NAME,
        certificate=files.certificate.read_bytes(),
        authority=files.authority.read_bytes(),
        key=files.key.read_bytes(),
    )


def party(authority: Authority, name: str) -> PartyFiles:
    stem = authority.folder / f"node-{name}"
    return PartyFiles(
        stem.with_suffix(".crt"), stem.with_suffix(".key"), authority.certificate_file
    )


def client(
    authority: Authority, address: str, name: str, keepalive_ms: int = KEEPALIVE_MS
) -> MemoryServiceClient:
    return MemoryServiceClient(access(address, party(authority, name)), keepalive_ms)


@asynccontextmanager
async def serving(wanted: Topology, keepalive_ms: int = KEEPALIVE_MS) -> AsyncIterator[str]:
    """The address of a service that runs meanwhile."""
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(wanted, listening.set_result, stop, keepalive_ms))
    either: set[asyncio.Future[Any]] = {task, listening}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield await listening
    finally:
        stop.set()
        await task


@asynccontextmanager
async def channel(address: str, files: PartyFiles) -> AsyncIterator[aio.Channel]:
    """A bare channel, for saying what a client would not."""
    credentials = grpc.ssl_channel_credentials(
        files.authority.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    async with aio.secure_channel(address, credentials, options=options) as made:
        yield made


async def following(reports: AsyncIterator[Report]) -> Report:
    async with asyncio.timeout(WAIT_SECONDS):
        return await anext(reports)


@asynccontextmanager
async def attached(authority: Authority, address: str) -> AsyncIterator[conformance.Bench]:
    """Both ends of the link, through the client."""
    ends = connecting(authority, address)
    bench = await conformance.attach(ends.a, ends.b, FIBRE, np.random.default_rng(1), WAIT_SECONDS)
    yield bench
    await bench.close()


def connecting(authority: Authority, address: str) -> conformance.Device:
    return conformance.Device(
        FIBRE,
        lambda: client(authority, address, "alice"),
        lambda: client(authority, address, "bob"),
    )


async def test_the_emulator_conforms(authority: Authority) -> None:
    async with serving(topology(authority)) as address:
        verdicts = await conformance.run_suite(
            connecting(authority, address), np.random.default_rng(1), wait_seconds=WAIT_SECONDS
        )
    wrong = {v.check.name: v.seen for v in verdicts if v.outcome in ("failed", "not run")}
    assert wrong == {}
    ran = [v.check.name for v in verdicts if v.outcome == "passed"]
    assert len(ran) == len(conformance.CHECKS) - 1, "all but the one for devices that hold few"


async def test_a_degraded_link_does_not_conform(authority: Authority) -> None:
    """The CHSH check can fail: half of the pairs are noise here."""
    more = 'set = { "noise.white" = 0.5 }'
    async with (
        serving(topology(authority, more=more)) as address,
        attached(authority, address) as bench,
    ):
        assert "noise.white=0.5" in bench.a.port.description
        with pytest.raises(conformance.NotConforming, match="S is"):
            await outcomes_violate_chsh(bench)


async def test_a_scaled_clock_spaces_heralds_in_time(authority: Authority) -> None:
    # Reloads come by chance: 37 % of the time, in pauses of 18 s.
    at_once = 'set = { "device.reload_ns" = 0.0 }'
    async with (
        serving(topology(authority, clock="{ scaled = 1000 }", more=at_once)) as address,
        attached(authority, address) as bench,
    ):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        herald = await bench.herald(bench.request(), 0, 20_000)
        # Two hundred emulated seconds are a fifth of a second.
        took_ns = (herald.ended_ns - herald.begun_ns) / 1_000
        assert took_ns == pytest.approx(0.2e9, rel=0.05)
        assert loop.time() - begun >= took_ns / 1e9


async def test_heralds_of_a_released_request_do_not_come(authority: Authority) -> None:
    async with (
        serving(topology(authority, clock='"real"')) as address,
        attached(authority, address) as bench,
    ):
        order = Attempt(FIBRE, REQUEST, 0, 60_000)  # Ten minutes.
        await bench.a.order(order)
        await bench.b.order(order)
        # A refusal comes back after the order above was taken.
        await bench.b.refused(order)
        await bench.a.order(Release(FIBRE, REQUEST))
        lost = await bench.b.expect(MemoryLost)
        assert (lost.operation, lost.block) == ("attempt", 0)
        await bench.b.order(Release(FIBRE, REQUEST))
        await bench.herald(bench.request(), 0, 1)


async def test_bytes_that_are_no_message_end_that_stream_alone(authority: Authority) -> None:
    async with (
        serving(topology(authority)) as address,
        channel(address, party(authority, "alice")) as made,
    ):
        for garbage in (b"\xff" * 20, b"\x0a\xff\xff\xff\xff\x0f", bytes(2_000_000)):
            raw: Any = made.stream_stream("/bellhop.v1.MemoryService/Operate")()
            await raw.read()
            await raw.write(garbage)
            with pytest.raises(aio.AioRpcError):
                await raw.read()
        alice = client(authority, address, "alice")
        assert isinstance(await following(aiter(alice.reports())), Ready)
        await alice.close()


class Faulty(Nature):
    """An error that nobody thought of, in the last order of all."""

    def step(self, now_ns: int, node: NodeName, operation: Operation) -> list[Delivery]:
        if isinstance(operation, Release):
            raise ZeroDivisionError("an amplitude of zero")
        return super().step(now_ns, node, operation)


async def test_an_error_in_the_emulator_is_told_and_logged(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the node would wait for answers for as long as it lives."""
    wanted = topology(authority)
    clock = Clock(fast=True)
    service = MemoryService(Faulty(wanted.links, np.random.default_rng(1), clock), clock)
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    door = replace(wanted.door, port_file=None)
    log = logging.getLogger("faulty")
    serving_it = asyncio.create_task(
        keep_open(door, service, service.end, listening.set_result, stop, log, KEEPALIVE_MS)
    )
    async with channel(await listening, party(authority, "alice")) as made:
        call = memory_pb2_grpc.MemoryServiceStub(made).Operate()
        await call.read()
        await call.write(operation_to_wire(Release(FIBRE, REQUEST)))
        with pytest.raises(aio.AioRpcError) as caught:
            async with asyncio.timeout(WAIT_SECONDS):
                await call.read()
        assert caught.value.code() is grpc.StatusCode.INTERNAL
    stop.set()
    await serving_it
    assert "an amplitude of zero" in caplog.text, "the operator learns what it was"
    assert "amplitude" not in (caught.value.details() or ""), "the node does not"


async def test_orders_without_end_are_all_answered(authority: Authority) -> None:
    """More than the service keeps for a node at once: it reads on as the node reads."""
    count = 3_000
    async with (
        serving(topology(authority)) as address,
        channel(address, party(authority, "alice")) as made,
    ):
        call = memory_pb2_grpc.MemoryServiceStub(made).Operate()
        await call.read()

        async def order() -> None:
            for block in range(count):
                wrong = memory_pb2.MeasureOperation(
                    link="fibre", request=REQUEST, block=block, rounds=1, settings=b"\x00"
                )
                await call.write(memory_pb2.MemoryOperation(measure=wrong))

        ordering = asyncio.create_task(order())
        for block in range(count):
            answer = await call.read()
            assert isinstance(answer, memory_pb2.MemoryReport)
            assert answer.lost.block == block
        await ordering


async def test_an_idle_node_stays_attached(authority: Authority) -> None:
    """Six pings with nothing else said either way; the core sends one a second, not more."""
    async with serving(topology(authority), keepalive_ms=1_000) as address:
        alice = client(authority, address, "alice", keepalive_ms=1_000)
        reports = aiter(alice.reports())
        assert isinstance(await following(reports), Ready)
        answer = asyncio.ensure_future(anext(reports))
        done, _ = await asyncio.wait([answer], timeout=7.0)
        assert not done, answer.result()
        await alice.submit(Attempt(LinkName("elsewhere"), REQUEST, 0, 1))
        refused = await asyncio.wait_for(answer, WAIT_SECONDS)
        assert isinstance(refused, MemoryLost), refused
        await alice.close()


async def test_a_node_that_pings_too_often_is_cut_off(authority: Authority) -> None:
    """So the wait of the test above is long enough: a service that expects few pings ends it."""
    async with serving(topology(authority)) as address:
        alice = client(authority, address, "alice", keepalive_ms=1_000)
        reports = aiter(alice.reports())
        assert isinstance(await following(reports), Ready)
        async with asyncio.timeout(7.0):
            gone = await anext(reports)
        assert isinstance(gone, DeviceGone)
        assert "too many pings" in gone.reason.lower()
        await alice.close()


async def test_a_later_stream_of_a_node_ends_the_earlier(authority: Authority) -> None:
    async with (
        serving(topology(authority)) as address,
        channel(address, party(authority, "alice")) as first,
        channel(address, party(authority, "alice")) as second,
    ):
        earlier = memory_pb2_grpc.MemoryServiceStub(first).Operate()
        await earlier.read()
        later = memory_pb2_grpc.MemoryServiceStub(second).Operate()
        assert isinstance(await later.read(), memory_pb2.MemoryReport)
        with pytest.raises(aio.AioRpcError) as caught:
            await earlier.read()
        assert caught.value.code() is grpc.StatusCode.ABORTED
        # The later one has the node: what it orders is answered.
        unknown = Attempt(LinkName("elsewhere"), REQUEST, 0, 1)
        await later.write(operation_to_wire(unknown))
        answer = await later.read()
        assert isinstance(answer, memory_pb2.MemoryReport)
        assert answer.lost.reason == "no such link at this node"


@pytest.mark.parametrize(
    ("kind", "name", "uris", "code"),
    [
        ("node", "mallory", None, grpc.StatusCode.PERMISSION_DENIED),
        ("sae", "alice", None, grpc.StatusCode.PERMISSION_DENIED),
        ("node", "nobody", (), grpc.StatusCode.UNAUTHENTICATED),
        (
            "node",
            "both",
            ("bellhop:node:alice", "bellhop:node:bob"),
            grpc.StatusCode.UNAUTHENTICATED,
        ),
        ("node", "odd", ("bellhop:king:alice",), grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_certificates_without_business_here_are_refused(
    authority: Authority,
    kind: str,
    name: str,
    uris: tuple[str, ...] | None,
    code: grpc.StatusCode,
) -> None:
    files = issue(authority, kind, name, uris=uris, label=f"refused-{kind}-{name}")
    async with serving(topology(authority)) as address, channel(address, files) as made:
        call = memory_pb2_grpc.MemoryServiceStub(made).Operate()
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is code
    assert "must" in (caught.value.details() or "")


async def test_certificates_of_another_authority_are_refused(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = issue(make_authority(tmp_path, "another"), "node", "alice")
    files = PartyFiles(stranger.certificate, stranger.key, authority.certificate_file)
    async with serving(topology(authority)) as address, channel(address, files) as made:
        call = memory_pb2_grpc.MemoryServiceStub(made).Operate()
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_malformed_operations_are_refused_and_the_service_goes_on(
    authority: Authority,
) -> None:
    attempt = memory_pb2.AttemptOperation(link="fibre", request="short", rounds=4)
    measure = memory_pb2.MeasureOperation(
        link="fibre", request=REQUEST, rounds=4, settings=b"\x00\x00\x00"
    )
    too_long = memory_pb2.AttemptOperation(link="fibre", request=REQUEST, rounds=1 << 31)
    messages = (
        memory_pb2.MemoryOperation(attempt=attempt),
        memory_pb2.MemoryOperation(measure=measure),
        memory_pb2.MemoryOperation(attempt=too_long),
    )
    async with serving(topology(authority)) as address:
        async with channel(address, party(authority, "alice")) as made:
            call = memory_pb2_grpc.MemoryServiceStub(made).Operate()
            await call.read()
            for message in messages:
                await call.write(message)
                answer = await call.read()
                assert isinstance(answer, memory_pb2.MemoryReport)
                assert answer.WhichOneof("report") == "lost"
                assert answer.lost.operation == message.WhichOneof("operation")
            await call.write(memory_pb2.MemoryOperation())
            with pytest.raises(aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        alice = client(authority, address, "alice")
        assert isinstance(await following(aiter(alice.reports())), Ready)
        await alice.close()


async def test_a_node_that_drops_loses_its_halves_and_its_peer_keeps_them(
    authority: Authority,
) -> None:
    async with serving(topology(authority)) as address:
        ends = connecting(authority, address)
        generator = np.random.default_rng(1)
        bench = await conformance.attach(ends.a, ends.b, FIBRE, generator, WAIT_SECONDS)
        herald = await bench.herald(REQUEST, 0, 100)
        await bench.a.close()
        alice = client(authority, address, "alice")
        reports = aiter(alice.reports())
        assert isinstance(await following(reports), Ready)
        await alice.submit(Measure(FIBRE, REQUEST, 0, np.zeros(100, dtype=np.uint8)))
        report = await following(reports)
        assert isinstance(report, MemoryLost)
        assert "connection ended" in report.reason
        await bench.measure(bench.b, herald, np.full(100, 2, dtype=np.uint8))
        await alice.close()
        await bench.b.close()


async def test_a_client_says_that_its_device_is_gone_and_finds_it_again(
    authority: Authority,
) -> None:
    wanted = topology(authority)
    async with serving(wanted) as address:
        alice = client(authority, address, "alice")
        reports = aiter(alice.reports())
        assert isinstance(await following(reports), Ready)
        await alice.submit(Attempt(FIBRE, REQUEST, 0, 4))
    assert isinstance(await following(reports), DeviceGone)
    await alice.submit(Attempt(FIBRE, REQUEST, 1, 4))  # Lost, as the device is away.
    again = parse_topology(
        TOPOLOGY.format(clock='"fast"', more="").replace("127.0.0.1:0", address),
        authority.folder / "topology.toml",
    )
    async with serving(again):
        assert isinstance(await following(reports), Ready)
        bob = client(authority, address, "bob")
        theirs = aiter(bob.reports())
        assert isinstance(await following(theirs), Ready)
        # Neither order above is under way: the third block is the first heralded.
        for end in (alice, bob):
            await end.submit(Attempt(FIBRE, REQUEST, 2, 4))
        heralded = await following(reports)
        assert isinstance(heralded, Heralded)
        assert heralded.block == 2
        await bob.close()
        assert [report async for report in theirs if isinstance(report, DeviceGone)] == []
        await alice.close()
    assert [report async for report in reports] == []


async def test_a_client_survives_a_service_that_sends_nonsense(authority: Authority) -> None:
    """Bytes, a herald before it is ready, ready twice; each connection ends, the next is tried."""
    ready = memory_pb2.MemoryReport(ready=memory_pb2.ReadyReport()).SerializeToString()
    lost = memory_pb2.MemoryReport(lost=memory_pb2.LostReport()).SerializeToString()
    connections = iter([(b"\xff" * 20,), (lost,), (ready, ready), (ready, b"\xff" * 20)])

    async def operate(_: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        for message in next(connections):
            yield message
        await context.abort(grpc.StatusCode.UNAVAILABLE, "done")

    files = PartyFiles(
        authority.folder / "emulator-emulator-1.crt",
        authority.folder / "emulator-emulator-1.key",
        authority.certificate_file,
    )
    pair = (files.key.read_bytes(), files.certificate.read_bytes())
    server = aio.server()
    operations: dict[str, Any] = {"Operate": grpc.stream_stream_rpc_method_handler(operate)}
    handler = grpc.method_handlers_generic_handler("bellhop.v1.MemoryService", operations)
    server.add_generic_rpc_handlers((handler,))
    credentials = grpc.ssl_server_credentials([pair], files.authority.read_bytes(), True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    alice = client(authority, f"127.0.0.1:{port}", "alice")
    reports = aiter(alice.reports())
    for reason in ("ready first, and once", "bytes that are no report"):
        assert isinstance(await following(reports), Ready)
        gone = await following(reports)
        assert isinstance(gone, DeviceGone)
        assert reason in gone.reason
    await alice.close()
    await server.stop(0)


async def test_a_client_refuses_its_callers_mistakes(authority: Authority) -> None:
    alice = client(authority, "127.0.0.1:1", "alice")
    wrong = (
        Attempt(FIBRE, REQUEST, 0, 0),
        Attempt(FIBRE, RequestId("no"), 0, 1),
        Attempt(LinkName(""), REQUEST, 0, 1),
        Measure(FIBRE, REQUEST, -1, np.zeros(1, dtype=np.uint8)),
        Measure(FIBRE, REQUEST, 0, np.full(1, 16, dtype=np.uint8)),
        Measure(FIBRE, REQUEST, 0, np.zeros((1, 1), dtype=np.uint8)),
        Release(FIBRE, RequestId("G" * 32)),
    )
    for operation in wrong:
        with pytest.raises(HardwareError):
            await alice.submit(operation)
    await alice.submit(Attempt(FIBRE, REQUEST, 0, 1))  # Well formed; there is no device.
    await alice.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_says_where_it_listens_and_stops_when_told(
    authority: Authority, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "topology.toml"
    text = TOPOLOGY.format(clock='"fast"', more="")
    for name in ("emulator-emulator-1.crt", "emulator-emulator-1.key", "authority.crt"):
        text = text.replace(f'"{name}"', f'"{authority.folder / name}"')
    file.write_text(text)
    program = (
        "import pathlib, sys; from bellhop.hal.emulator.server import run_emulator;"
        " run_emulator(pathlib.Path(sys.argv[1]), lambda a: print(a, flush=True))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(file), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        assert (tmp_path / "emulator.port").read_text() == f"{address}\n"
        alice = client(authority, address, "alice")
        reports = aiter(alice.reports())
        assert isinstance(await following(reports), Ready)
        process.send_signal(number)
        assert isinstance(await following(reports), DeviceGone)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await process.wait() == 0
        assert not (tmp_path / "emulator.port").exists()
        await alice.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_port_in_use_is_the_operators_to_change(authority: Authority) -> None:
    async with serving(topology(authority)) as address:
        text = TOPOLOGY.format(clock='"real"', more="").replace("127.0.0.1:0", address)
        taken = parse_topology(text.replace("emulator.port", "second.port"), authority.folder / "t")
        with pytest.raises(ConfigError) as caught:
            await serve(taken)
    assert caught.value.field == "emulator.listen"


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"127.0.0.1:0"', '"127.0.0.1"', "emulator.listen"),
        ('"127.0.0.1:0"', '"127.0.0.1:65536"', "emulator.listen"),
        ('clock = "real"', "clock = { scaled = 0 }", "emulator.clock.scaled"),
        ('clock = "real"', 'clock = "slow"', "emulator.clock"),
        ('clock = "real"', "colour = 1", "emulator.colour"),
        ('a = "alice"', 'a = "Alice"', "link[0].a"),
        ('a = "alice"', 'a = "bob"', "link[0].b"),
        ('preset = "oxford"', "", "link[0].preset"),
        ('preset = "oxford"', 'preset = "cambridge"', "link[0].preset"),
        (
            'preset = "oxford"',
            'preset = "oxford"\nset = { "noise.white" = 2.0 }',
            "link[0].set.noise.white",
        ),
        (
            'preset = "oxford"',
            'preset = "oxford"\n[[link]]\nname = "fibre"\na = "c"\nb = "d"\npreset = "oxford"',
            "link[1].name",
        ),
    ],
)
def test_a_topology_that_is_wrong_names_the_field(
    tmp_path: Path, old: str, new: str, field: str
) -> None:
    text = TOPOLOGY.format(clock='"real"', more="")
    assert old in text
    file = tmp_path / "topology.toml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_topology(file)
    assert caught.value.field == field
