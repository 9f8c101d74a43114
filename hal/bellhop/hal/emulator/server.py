"""The emulator process: one nature, stepped on a clock for many nodes over gRPC with mutual TLS."""

import asyncio
import heapq
import itertools
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from grpc import aio

from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.ledger import BLOCKS_HELD_MAX
from bellhop.hal.emulator.nature import Delivery, Nature
from bellhop.hal.emulator.topology import Topology, read_topology
from bellhop.hal.errors import HardwareError
from bellhop.hal.memory_wire import operation_from_wire, refusal_of, report_to_wire
from bellhop.hal.operations import Heralded, NodeName, Release, Report
from bellhop.hal.serve_shell import KEEPALIVE_MS, Context, admit, keep_open
from bellhop.v1 import memory_pb2, memory_pb2_grpc, types_pb2

REPORTS_WAITING_MAX = 1_024
"""Answers that may wait for a node to read them, beside the heralds of its links."""

STRANGER = (
    "is at no end of a link of this emulator: the operator of the emulator must name it in the"
    " topology, or of the node connect elsewhere"
)

log = logging.getLogger(__name__)


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
        node = await admit(context, self._nature.nodes, STRANGER, log)
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
        except Exception:  # The top of a task: else the node would wait for answers for ever.
            log.exception("node %s: an operation failed in the emulator", node)
            stream.finish(grpc.StatusCode.INTERNAL, "an operation failed in the emulator")
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
    service = MemoryService(nature, clock)
    await keep_open(
        topology.door,
        service,
        service.end,
        on_listening,
        stop or asyncio.Event(),
        log,
        keepalive_ms,
    )


def run_emulator(path: Path, on_listening: Callable[[str], None] = lambda _: None) -> None:
    """Serve the topology file at `path` until SIGTERM or SIGINT.  Raises ConfigError."""
    topology = read_topology(path)

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(topology, on_listening, stop)

    asyncio.run(until_signalled())
