"""The server kit of a laboratory: the memory service over a `Laboratory`, one for each node.

    asyncio.run(serve({NodeName("alice"): MyTrap()}, door, Limits()))

or `bellhop hal serve FILE`, which finds the laboratory by its driver's name.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from bellhop.hal.door import Door
from bellhop.hal.errors import HardwareError
from bellhop.hal.laboratory import Laboratory, LabPort
from bellhop.hal.memory_wire import operation_from_wire, refusal_of, report_to_wire
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    NodeName,
    Port,
    Ready,
    Report,
)
from bellhop.hal.serve_calls import Patience, awaited, called
from bellhop.hal.serve_orders import Orders
from bellhop.hal.serve_rules import Limits, check_ports
from bellhop.hal.serve_shell import KEEPALIVE_MS, Context, admit, check_door, keep_open
from bellhop.v1 import memory_pb2, memory_pb2_grpc, types_pb2

STRANGER = (
    "is served by no laboratory here: the operator of the laboratory must name it in the file, or"
    " of the node connect elsewhere"
)
TAKEN = "a later stream of this node took its place"
DRIVER_FAILED = "the laboratory's driver failed: whoever wrote it must look at the service's log"

log = logging.getLogger(__name__)


class _Ended(Exception):
    """The stream is to end, with this status."""

    def __init__(self, code: grpc.StatusCode, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


@dataclass(slots=True, eq=False)
class _Desk:
    """One node's laboratory.  `turn`: one stream at a time gives it orders; `end` ends that one.
    `streams` ever opened: only the last of them has business here.  `closing`: what gives up the
    orders of a stream that is over; it outlives the call."""

    laboratory: Laboratory
    ports: tuple[LabPort, ...]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    end: asyncio.Future[None] | None = None
    streams: int = 0
    closing: asyncio.Task[None] | None = None

    def finish(self, code: grpc.StatusCode, why: str) -> None:
        if self.end is not None and not self.end.done():
            self.end.set_exception(_Ended(code, why))


class LaboratoryService(memory_pb2_grpc.MemoryServiceServicer):
    """Serves opened laboratories: `ports` is what each said when it was opened."""

    def __init__(
        self,
        laboratories: Mapping[NodeName, tuple[Laboratory, tuple[LabPort, ...]]],
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._desks = {node: _Desk(*opened) for node, opened in laboratories.items()}

    async def Operate(
        self, request_iterator: AsyncIterator[memory_pb2.MemoryOperation], context: Context
    ) -> AsyncIterator[memory_pb2.MemoryReport]:
        node = await admit(context, self._desks.keys(), STRANGER, log)
        desk = self._desks[node]
        desk.finish(grpc.StatusCode.ABORTED, TAKEN)
        desk.streams = number = desk.streams + 1
        ended: _Ended | None = None
        async with desk.turn:
            if desk.closing is not None:
                await asyncio.shield(desk.closing)
            if desk.streams != number:
                await context.abort(grpc.StatusCode.ABORTED, TAKEN)
            try:
                async with aclosing(self._reports(node, desk, request_iterator)) as reports:
                    async for report in reports:
                        yield report
            except _Ended as end:
                ended = end
        if ended is not None and ended.code is not grpc.StatusCode.OK:
            await context.abort(ended.code, ended.why)

    def end(self) -> None:
        """End all streams, as the service stops."""
        for desk in self._desks.values():
            desk.finish(grpc.StatusCode.UNAVAILABLE, "the laboratory's service stops")

    async def closed(self) -> None:
        """Wait until all that streams ordered is given up."""
        closing = [desk.closing for desk in self._desks.values() if desk.closing is not None]
        await asyncio.gather(*closing)

    async def _reports(
        self, node: NodeName, desk: _Desk, operations: AsyncIterator[memory_pb2.MemoryOperation]
    ) -> AsyncGenerator[memory_pb2.MemoryReport, None]:
        """All reports of one stream, ready first.  Raises _Ended at its end."""
        end = desk.end = asyncio.get_running_loop().create_future()
        orders = Orders(desk.laboratory, desk.ports, self._limits)
        reading = asyncio.ensure_future(_read(node, orders, operations))
        log.info("node %s is attached", node)
        try:
            yield _stamped(Ready(tuple(_port(port) for port in desk.ports)))
            while True:
                saying = asyncio.ensure_future(orders.next_report())
                try:
                    await asyncio.wait((saying, reading, end), return_when=asyncio.FIRST_COMPLETED)
                    if end.done() or (reading.done() and not saying.done()):
                        _end_of(end, reading)
                    yield _stamped(await saying)
                finally:
                    saying.cancel()
                    await asyncio.gather(saying, return_exceptions=True)
        except _Ended:
            raise
        except Exception as error:
            log.exception("node %s: the laboratory's driver failed", node)
            raise _Ended(grpc.StatusCode.INTERNAL, DRIVER_FAILED) from error
        finally:
            desk.end = None
            if end.done():
                end.exception()  # Seen.
            desk.closing = asyncio.ensure_future(_close(node, orders, reading))
            await asyncio.shield(desk.closing)


async def _close(node: NodeName, orders: Orders, reading: asyncio.Task[None]) -> None:
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    try:
        await orders.close()
    except Exception:
        log.exception("node %s: the laboratory's driver failed to release", node)
    log.info("node %s is gone", node)


def _end_of(end: asyncio.Future[None], reading: asyncio.Task[None]) -> None:
    """Raises why a stream is over."""
    if end.done():
        end.result()
    reading.result()
    raise _Ended(grpc.StatusCode.OK, "")


async def _read(
    node: NodeName, orders: Orders, operations: AsyncIterator[memory_pb2.MemoryOperation]
) -> None:
    """Carry out a node's orders one after the other, until it has no more."""
    try:
        async for message in operations:
            await _take(node, orders, message)
    except aio.AioRpcError as error:
        log.info("node %s: its stream broke: %s", node, error.code())
    except DecodeError:
        log.warning("node %s: sent bytes that are no operation", node)
        why = "bytes that are no operation"
        raise _Ended(grpc.StatusCode.INVALID_ARGUMENT, why) from None


async def _take(node: NodeName, orders: Orders, message: memory_pb2.MemoryOperation) -> None:
    try:
        operation = operation_from_wire(message)
    except HardwareError as error:
        log.warning("node %s: refused an operation: %s", node, error.message)
        refusal = refusal_of(message, error.message)
        if refusal is None:
            raise _Ended(grpc.StatusCode.INVALID_ARGUMENT, error.message) from error
        await orders.say(refusal)
        return
    await orders.carry_out(operation)


def _stamped(report: Report) -> memory_pb2.MemoryReport:
    message = report_to_wire(report)
    message.time.clock = types_pb2.CLOCK_REAL
    message.time.nanoseconds = time.time_ns()
    return message


def _port(port: LabPort) -> Port:
    return Port(
        link=port.link,
        side=port.side,
        peer=port.peer,
        settings=port.settings,
        source=port.source,
        description=port.description,
        idealisations=port.idealisations,
        rounds_max=min(port.pairs_held_max, BLOCK_ROUNDS_MAX),
        herald_is_measurement=port.herald_is_measurement,
    )


async def serve(
    laboratories: Mapping[NodeName, Laboratory],
    door: Door,
    limits: Limits,
    on_listening: Callable[[str], None] = lambda _: None,
    stop: asyncio.Event | None = None,
    keepalive_ms: int = KEEPALIVE_MS,
) -> None:
    """Open the laboratories and serve their nodes until `stop` is set; then close them.

    `on_listening` gets HOST:PORT once nodes can connect.  Raises ConfigError for the door, and
    LaboratoryError or DriverFault for a laboratory that does not open.
    """
    check_door(door)  # Before any device is touched.
    stop = stop or asyncio.Event()
    touched: dict[NodeName, Laboratory] = {}
    opened: dict[NodeName, tuple[Laboratory, tuple[LabPort, ...]]] = {}
    try:
        for node, laboratory in laboratories.items():
            touched[node] = laboratory
            ports = await _opened(laboratory, limits, stop)
            if stop.is_set():
                log.info("stopped before node %s's laboratory was open", node)
                return
            opened[node] = (laboratory, check_ports(node, ports))
        service = LaboratoryService(opened, limits)
        await keep_open(door, service, service.end, on_listening, stop, log, keepalive_ms)
        await service.closed()
    finally:
        await asyncio.gather(*(_left_safe(*one, limits) for one in touched.items()))


async def _opened(laboratory: Laboratory, limits: Limits, stop: asyncio.Event) -> object:
    """What `open` answers, which may take as long as it likes; given up if `stop` is set."""
    patience = Patience(None, limits.grace_seconds)
    opening = asyncio.ensure_future(called("open", awaited(laboratory.open()), patience))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
        return await opening if opening.done() else None
    finally:
        for task in (opening, stopping):
            task.cancel()
        await asyncio.gather(opening, stopping, return_exceptions=True)


async def _left_safe(node: NodeName, laboratory: Laboratory, limits: Limits) -> None:
    """Close one laboratory; nothing it does keeps the others from being closed."""
    late = f"it did not close within {limits.close_seconds:g} seconds: look at the device itself"
    patience = Patience(limits.close_seconds, limits.grace_seconds, late)
    try:
        await called("close", awaited(laboratory.close()), patience)
    except HardwareError as error:
        log.error("node %s: the laboratory did not close: %s", node, error.message)
    except Exception:
        log.exception("node %s: the laboratory's driver failed to close", node)
