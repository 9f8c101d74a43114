"""The emulator process: one nature, stepped on a clock for many nodes over gRPC with mutual TLS."""

import asyncio
import heapq
import itertools
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from grpc import aio

from bellhop.hal.configuration import read_text
from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.ledger import BLOCKS_HELD_MAX
from bellhop.hal.emulator.nature import Delivery, Nature
from bellhop.hal.emulator.topology import Topology, read_topology
from bellhop.hal.errors import ConfigError, HardwareError, PeerError
from bellhop.hal.identity import peer_identity
from bellhop.hal.memory_wire import (
    MESSAGE_BYTES_MAX,
    operation_from_wire,
    refusal_of,
    report_to_wire,
)
from bellhop.hal.operations import Heralded, NodeName, Release, Report
from bellhop.v1 import memory_pb2, memory_pb2_grpc, types_pb2

REPORTS_WAITING_MAX = 1_024
"""Answers that may wait for a node to read them, beside the heralds of its links."""

STOP_GRACE_SECONDS = 1.0
KEEPALIVE_MS = 20_000

log = logging.getLogger(__name__)

Context = aio.ServicerContext[
    AsyncIterator[memory_pb2.MemoryOperation], AsyncIterator[memory_pb2.MemoryReport]
]


@dataclass(slots=True, eq=False)
class _Stream:
    """One node's connection: what it is still to be told, by when it is due."""

    capacity: int
    waiting: list[tuple[int, int, Delivery]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    end: tuple[grpc.StatusCode, str] | None = None

    def finish(self, code: grpc.StatusCode, why: str) -> None:
        self.end = self.end or (code, why)
        self.changed.set()
        self.room.set()


class MemoryService(memory_pb2_grpc.MemoryServiceServicer):
    """Serves a `Nature`, all of it on one event loop: nature is stepped by one at a time."""

    def __init__(self, nature: Nature, clock: Clock) -> None:
        self._nature = nature
        self._clock = clock
        self._streams: dict[NodeName, _Stream] = {}
        self._sequence = itertools.count()

    async def Operate(
        self, request_iterator: AsyncIterator[memory_pb2.MemoryOperation], context: Context
    ) -> AsyncIterator[memory_pb2.MemoryReport]:
        node = await self._admit(context)
        stream = self._open(node)
        reader = asyncio.create_task(self._read(node, stream, request_iterator))
        try:
            async for report in self._due_reports(stream):
                yield self._stamped(report)
        finally:
            reader.cancel()
            self._close(node, stream)
        assert stream.end is not None, "reports end for a reason"
        if stream.end[0] is not grpc.StatusCode.OK:
            await context.abort(*stream.end)

    def end(self) -> None:
        """End all streams, as the emulator stops."""
        for stream in self._streams.values():
            stream.finish(grpc.StatusCode.UNAVAILABLE, "the emulator stops")

    async def _admit(self, context: Context) -> NodeName:
        """The node of the client's certificate; ends the call if it has no business here."""
        try:
            identity = peer_identity(context.auth_context())
        except PeerError as error:
            log.warning("refused %s: %s", context.peer(), error.message)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, error.message)
        if identity.kind != "node" or identity.name not in self._nature.nodes:
            message = (
                f"{identity.kind} {identity.name} is at no end of a link of this emulator: the"
                " operator of the emulator must name it in the topology, or of the node connect"
                " elsewhere"
            )
            log.warning("refused %s: %s", context.peer(), message)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, message)
        return NodeName(identity.name)

    def _open(self, node: NodeName) -> _Stream:
        now_ns = time.monotonic_ns()
        earlier = self._streams.get(node)
        if earlier is not None:
            earlier.finish(grpc.StatusCode.ABORTED, "a later stream of this node took its place")
        deliveries = self._nature.attach(now_ns, node)
        capacity = REPORTS_WAITING_MAX + BLOCKS_HELD_MAX * self._nature.degree(node)
        stream = self._streams[node] = _Stream(capacity)
        self._hand_out(deliveries)
        log.info("node %s is attached", node)
        return stream

    def _close(self, node: NodeName, stream: _Stream) -> None:
        if self._streams.get(node) is not stream:
            return  # A later stream has the node, and ended what was ordered on this one.
        del self._streams[node]
        self._hand_out(self._nature.forget(time.monotonic_ns(), node))
        log.info("node %s is gone", node)

    async def _read(
        self,
        node: NodeName,
        stream: _Stream,
        operations: AsyncIterator[memory_pb2.MemoryOperation],
    ) -> None:
        """Carry out the node's orders one after the other, as long as there is room for answers."""
        try:
            async for message in operations:
                while stream.end is None and len(stream.waiting) >= stream.capacity:
                    self._drop_void(stream)
                    if len(stream.waiting) < stream.capacity:
                        break
                    stream.room.clear()
                    await stream.room.wait()
                if stream.end is not None:
                    return
                self._carry_out(node, stream, message)
        except aio.AioRpcError as error:
            log.info("node %s: its stream broke: %s", node, error.code())
        except DecodeError:
            log.warning("node %s: sent bytes that are no operation", node)
            stream.finish(grpc.StatusCode.INVALID_ARGUMENT, "bytes that are no operation")
        finally:
            stream.finish(grpc.StatusCode.OK, "")

    def _carry_out(
        self, node: NodeName, stream: _Stream, message: memory_pb2.MemoryOperation
    ) -> None:
        now_ns = time.monotonic_ns()
        try:
            operation = operation_from_wire(message)
        except HardwareError as error:
            refusal = refusal_of(message, error.message)
            log.warning("node %s: refused an operation: %s", node, error.message)
            if refusal is None:
                stream.finish(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            else:
                self._hand_out([self._nature.deliver(now_ns, node, refusal)])
            return
        deliveries = self._nature.step(now_ns, node, operation)
        if isinstance(operation, Release):
            # Heralds that will not come may be due in hours, and are long.
            for one in {node, *(delivery.node for delivery in deliveries)} & self._streams.keys():
                self._drop_void(self._streams[one])
        self._hand_out(deliveries)

    def _hand_out(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            stream = self._streams.get(delivery.node)
            if stream is None:
                continue
            if len(stream.waiting) >= 2 * stream.capacity:
                self._make_room(delivery.node, stream)
            heapq.heappush(stream.waiting, (delivery.due_ns, next(self._sequence), delivery))
            stream.changed.set()

    def _make_room(self, node: NodeName, stream: _Stream) -> None:
        """Drop what is void by now; a node that still has too much to read is cut off."""
        self._drop_void(stream)
        if len(stream.waiting) >= 2 * stream.capacity:
            log.warning("node %s does not read its reports: its connection is ended", node)
            stream.waiting.clear()
            stream.finish(grpc.StatusCode.RESOURCE_EXHAUSTED, "reports were not read in time")

    def _drop_void(self, stream: _Stream) -> None:
        stream.waiting = [entry for entry in stream.waiting if self._nature.current(entry[2])]
        heapq.heapify(stream.waiting)

    async def _due_reports(self, stream: _Stream) -> AsyncIterator[Report]:
        """What has become due, in order, until the stream ends."""
        while stream.end is None:
            stream.changed.clear()
            now_ns = time.monotonic_ns()
            if stream.waiting and stream.waiting[0][0] <= now_ns:
                _, _, delivery = heapq.heappop(stream.waiting)
                stream.room.set()
                if self._nature.current(delivery):
                    yield delivery.report
                continue
            wait = (stream.waiting[0][0] - now_ns) / 1e9 if stream.waiting else None
            try:
                async with asyncio.timeout(wait):
                    await stream.changed.wait()
            except TimeoutError:
                pass  # The next report is due.

    def _stamped(self, report: Report) -> memory_pb2.MemoryReport:
        message = report_to_wire(report)
        if self._clock.real:
            message.time.clock = types_pb2.CLOCK_REAL
            message.time.nanoseconds = time.time_ns()
            return message
        message.time.clock = types_pb2.CLOCK_SCALED
        now_ns = self._clock.emulated_ns(time.monotonic_ns())
        message.time.nanoseconds = report.ended_ns if isinstance(report, Heralded) else now_ns
        return message


def server_options(keepalive_ms: int = KEEPALIVE_MS) -> list[tuple[str, int]]:
    """Limits of every memory service, in gRPC's own names.

    A node may ping four times as often as the service does, with nothing else to say: by default
    the core expects five minutes between pings, and ends an idle connection at the fifth.
    """
    return [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_concurrent_streams", 8),
        ("grpc.so_reuseport", 0),  # A second emulator on one port is a mistake.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 4),
        ("grpc.http2.max_pings_without_data", 0),
    ]


async def serve(
    topology: Topology,
    on_listening: Callable[[str], None] = lambda _: None,
    stop: asyncio.Event | None = None,
    keepalive_ms: int = KEEPALIVE_MS,
) -> None:
    """Serve until `stop` is set.  `on_listening` gets HOST:PORT once nodes can connect.

    Chance is the operating system's: a seeded nature is for simulations.  Raises ConfigError.
    """
    clock = Clock(topology.clock.scale, topology.clock.fast, time.monotonic_ns())
    nature = Nature(topology.links, np.random.default_rng(), clock)
    server = aio.server(options=server_options(keepalive_ms))
    service = MemoryService(nature, clock)
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(service, server)
    credentials = _credentials(topology)
    if topology.port_file:
        topology.port_file.unlink(missing_ok=True)
    try:
        port = server.add_secure_port(topology.listen, credentials)
    except RuntimeError as error:
        message = f"emulator.listen: cannot listen on {topology.listen}"
        raise ConfigError(message, "emulator.listen") from error
    await server.start()
    address = f"{topology.listen.rpartition(':')[0]}:{port}"
    log.info("listening on %s", address)
    try:
        if topology.port_file:
            _write_port_file(topology.port_file, address)
        on_listening(address)
        await (stop or asyncio.Event()).wait()
    finally:
        if topology.port_file:
            topology.port_file.unlink(missing_ok=True)
        service.end()
        await server.stop(STOP_GRACE_SECONDS)


def run_emulator(path: Path, on_listening: Callable[[str], None] = lambda _: None) -> None:
    """Serve the topology file at `path` until SIGTERM or SIGINT.  Raises ConfigError."""
    topology = read_topology(path)

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(topology, on_listening, stop)

    asyncio.run(until_signalled())


def _credentials(topology: Topology) -> grpc.ServerCredentials:
    certificate = read_text(topology.certificate).encode()
    key = read_text(topology.key).encode()
    authority = read_text(topology.authority).encode()
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


def _write_port_file(path: Path, address: str) -> None:
    """Atomically, so that whoever sees the file sees all of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(f"{address}\n", encoding="utf-8")
    temporary.replace(path)
