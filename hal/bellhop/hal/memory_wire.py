"""The memory service's messages to and from operations and reports, strictly checked.

Whatever does not fit raises HardwareError: at a node it is the device's nonsense, at a device it is
what it refuses.
"""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.errors import HardwareError
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    SETTINGS_MAX,
    Attempt,
    DeviceGone,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    NodeName,
    Operation,
    Port,
    Ready,
    Release,
    Report,
    RequestId,
    Side,
    Source,
)
from bellhop.v1 import memory_pb2

MESSAGE_BYTES_MAX = 10 * BLOCK_ROUNDS_MAX + 65_536
"""The longest message is a heralded block: 8 1/4 bytes a round."""

PORTS_MAX = 1_024
"""No device has more ports."""

TEXT_CHARACTERS_MAX = 256
"""No name, reason or description on the wire is longer."""

REQUEST_DIGITS = 32
OPERATIONS_LOST = ("attempt", "measure")

_HEXADECIMAL = frozenset("0123456789abcdef")
_SIDES = {memory_pb2.PORT_SIDE_A: Side.A, memory_pb2.PORT_SIDE_B: Side.B}
_SIDE_NUMBERS = {side: number for number, side in _SIDES.items()}
_SOURCES = {
    memory_pb2.OUTCOME_SOURCE_EMULATED: Source.EMULATED,
    memory_pb2.OUTCOME_SOURCE_HARDWARE: Source.HARDWARE,
}
_SOURCE_NUMBERS = {source: number for number, source in _SOURCES.items()}


# Operations


def operation_to_wire(operation: Operation) -> memory_pb2.MemoryOperation:
    """Raises HardwareError if the operation itself is malformed."""
    message = memory_pb2.MemoryOperation()
    match operation:
        case Attempt():
            _check_block(operation.link, operation.request, operation.block)
            message.attempt.link = operation.link
            message.attempt.request = operation.request
            message.attempt.block = operation.block
            message.attempt.rounds = _rounds(operation.rounds)
        case Measure():
            _check_block(operation.link, operation.request, operation.block)
            settings = _one_a_round(operation.settings, np.dtype(np.uint8), SETTINGS_MAX - 1)
            message.measure.link = operation.link
            message.measure.request = operation.request
            message.measure.block = operation.block
            message.measure.rounds = len(settings)
            message.measure.settings = _pack(settings, 4)
        case Release():
            _check_block(operation.link, operation.request, 0)
            message.release.link = operation.link
            message.release.request = operation.request
        case _:
            assert_never(operation)
    return message


def operation_from_wire(message: memory_pb2.MemoryOperation) -> Operation:
    match message.WhichOneof("operation"):
        case "attempt":
            attempt = message.attempt
            ids = _ids(attempt.link, attempt.request, attempt.block)
            return Attempt(*ids, _rounds(attempt.rounds))
        case "measure":
            measure = message.measure
            ids = _ids(measure.link, measure.request, measure.block)
            return Measure(*ids, _unpack(measure.settings, 4, _rounds(measure.rounds), "settings"))
        case "release":
            link, request, _ = _ids(message.release.link, message.release.request, 0)
            return Release(link, request)
        case _:
            raise HardwareError("an operation this service does not know")


def refusal_of(message: memory_pb2.MemoryOperation, reason: str) -> MemoryLost | None:
    """The answer to an operation that is malformed; None if none can name what was meant."""
    name = message.WhichOneof("operation")
    if name not in OPERATIONS_LOST:
        return None
    order = message.attempt if name == "attempt" else message.measure
    link, request = printable(order.link), printable(order.request)
    return MemoryLost(LinkName(link), RequestId(request), order.block, name, reason)


# Reports


def report_to_wire(report: Report) -> memory_pb2.MemoryReport:
    """`DeviceGone` is a client's own and never travels.  The caller sets the time."""
    message = memory_pb2.MemoryReport()
    match report:
        case Ready():
            message.ready.ports.extend(_port_to_wire(port) for port in report.ports)
        case Heralded():
            message.heralded.link = report.link
            message.heralded.request = report.request
            message.heralded.block = report.block
            message.heralded.rounds = len(report.attempts)
            message.heralded.attempts = report.attempts.astype("<i8").tobytes()
            message.heralded.patterns = _pack(report.patterns, 2)
            message.heralded.begun_ns = report.begun_ns
            message.heralded.ended_ns = report.ended_ns
        case Measured():
            message.measured.link = report.link
            message.measured.request = report.request
            message.measured.block = report.block
            message.measured.rounds = len(report.outcomes)
            message.measured.outcomes = _pack(report.outcomes, 1)
            message.measured.answered = _pack(report.answered.view(np.uint8), 1)
        case MemoryLost():
            message.lost.link = report.link
            message.lost.request = report.request
            message.lost.block = report.block
            message.lost.operation = report.operation
            message.lost.reason = report.reason
        case DeviceGone():
            raise AssertionError("a client reports that its device is gone, a device cannot")
        case _:
            assert_never(report)
    return message


def report_from_wire(message: memory_pb2.MemoryReport) -> Report:
    match message.WhichOneof("report"):
        case "ready":
            return _ready(message.ready)
        case "heralded":
            return _heralded(message.heralded)
        case "measured":
            return _measured(message.measured)
        case "lost":
            lost = message.lost
            if lost.operation not in OPERATIONS_LOST:
                raise HardwareError("the device lost an operation it was never asked for")
            ids = _ids(lost.link, lost.request, lost.block)
            return MemoryLost(*ids, lost.operation, printable(lost.reason))
        case _:
            raise HardwareError("a report this node does not know")


def _ready(message: memory_pb2.ReadyReport) -> Ready:
    if len(message.ports) > PORTS_MAX:
        raise HardwareError(f"the device has more than {PORTS_MAX} ports")
    ports = tuple(_port_from_wire(port) for port in message.ports)
    if len({port.link for port in ports}) != len(ports):
        raise HardwareError("the device has two ports on one link")
    return Ready(ports)


def _port_to_wire(port: Port) -> memory_pb2.MemoryPort:
    return memory_pb2.MemoryPort(
        link=port.link,
        side=_SIDE_NUMBERS[port.side],
        peer=port.peer,
        settings=port.settings,
        source=_SOURCE_NUMBERS[port.source],
        description=port.description[:TEXT_CHARACTERS_MAX],
        idealisations=port.idealisations,
        rounds_max=port.rounds_max,
        herald_is_measurement=port.herald_is_measurement,
    )


def _port_from_wire(message: memory_pb2.MemoryPort) -> Port:
    side = _SIDES.get(message.side)
    source = _SOURCES.get(message.source)
    if side is None or source is None:
        raise HardwareError("a port without its side or its source")
    if not 1 <= message.settings <= SETTINGS_MAX:
        raise HardwareError(f"a port has 1 to {SETTINGS_MAX} settings, not {message.settings}")
    if len(message.idealisations) > SETTINGS_MAX:
        raise HardwareError("a port with too many idealisations")
    if message.rounds_max > BLOCK_ROUNDS_MAX:
        raise HardwareError(f"a port has blocks of at most {BLOCK_ROUNDS_MAX} rounds")
    return Port(
        link=LinkName(_name(message.link)),
        side=side,
        peer=NodeName(_name(message.peer)),
        settings=message.settings,
        source=source,
        description=printable(message.description),
        idealisations=tuple(printable(text) for text in message.idealisations),
        rounds_max=message.rounds_max or BLOCK_ROUNDS_MAX,
        herald_is_measurement=message.herald_is_measurement,
    )


def _heralded(message: memory_pb2.HeraldedReport) -> Heralded:
    rounds = _rounds(message.rounds)
    if len(message.attempts) != 8 * rounds:
        raise HardwareError(f"attempts of {rounds} rounds take {8 * rounds} bytes")
    attempts = np.frombuffer(message.attempts, dtype="<i8").astype(np.int64)
    if attempts[0] < 0 or np.any(attempts[1:] <= attempts[:-1]):
        raise HardwareError("attempts do not rise")
    if not 0 <= message.begun_ns <= message.ended_ns:
        raise HardwareError("a block that ended before it began")
    return Heralded(
        *_ids(message.link, message.request, message.block),
        attempts=_frozen(attempts),
        patterns=_unpack(message.patterns, 2, rounds, "patterns"),
        begun_ns=message.begun_ns,
        ended_ns=message.ended_ns,
    )


def _measured(message: memory_pb2.MeasuredReport) -> Measured:
    rounds = _rounds(message.rounds)
    outcomes = _unpack(message.outcomes, 1, rounds, "outcomes")
    answered = _unpack(message.answered, 1, rounds, "answered").view(np.bool_)
    if np.any(outcomes.view(np.bool_) & ~answered):
        raise HardwareError("an outcome of a round that was not answered")
    return Measured(*_ids(message.link, message.request, message.block), outcomes, answered)


# Parts


def printable(text: str) -> str:
    """What the other side wrote, made fit for a log: bounded, and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:TEXT_CHARACTERS_MAX])


def _name(text: str) -> str:
    if not 0 < len(text) <= TEXT_CHARACTERS_MAX or not text.isprintable():
        raise HardwareError(f"a name has 1 to {TEXT_CHARACTERS_MAX} printable characters")
    return text


def _check_block(link: str, request: str, block: int) -> None:
    _name(link)
    if len(request) != REQUEST_DIGITS or not _HEXADECIMAL.issuperset(request):
        raise HardwareError(f"a request is named by {REQUEST_DIGITS} hexadecimal digits")
    if not 0 <= block < 2**32:
        raise HardwareError("a block's number has 32 bits")


def _ids(link: str, request: str, block: int) -> tuple[LinkName, RequestId, int]:
    _check_block(link, request, block)
    return LinkName(link), RequestId(request), block


def _rounds(rounds: int) -> int:
    if not 1 <= rounds <= BLOCK_ROUNDS_MAX:
        raise HardwareError(f"a block has 1 to {BLOCK_ROUNDS_MAX} rounds, not {rounds}")
    return rounds


def _one_a_round(
    values: NDArray[np.uint8], dtype: np.dtype[np.uint8], greatest: int
) -> NDArray[np.uint8]:
    if values.ndim != 1 or values.dtype != dtype:
        raise HardwareError("settings are bytes, one a round")
    _rounds(len(values))
    if int(values.max()) > greatest:
        raise HardwareError(f"settings are from 0 to {greatest}")
    return values


def _frozen(values: NDArray[np.int64]) -> NDArray[np.int64]:
    values.flags.writeable = False
    return values


def _pack(values: NDArray[np.uint8], bits: int) -> bytes:
    """`bits` (1, 2 or 4) a value, the low ones of a byte first."""
    if bits == 1:
        return np.packbits(values, bitorder="little").tobytes()
    share = 8 // bits
    padded = np.zeros(-(-len(values) // share) * share, dtype=np.uint8)
    padded[: len(values)] = values
    packed = padded[::share].copy()
    for place in range(1, share):
        packed |= padded[place::share] << np.uint8(bits * place)
    return packed.tobytes()


def _unpack(packed: bytes, bits: int, count: int, what: str) -> NDArray[np.uint8]:
    """The inverse of `_pack`; the length must be right and the bits after the last value 0."""
    share = 8 // bits
    length = -(-count // share)
    if len(packed) != length:
        raise HardwareError(f"{what} of {count} rounds take {length} bytes, not {len(packed)}")
    data = np.frombuffer(packed, dtype=np.uint8)
    spread = np.empty(length * share, dtype=np.uint8)
    for place in range(share):
        spread[place::share] = (data >> np.uint8(bits * place)) & np.uint8(2**bits - 1)
    if np.any(spread[count:]):
        raise HardwareError(f"{what} has bits after its last round")
    values = spread[:count]
    values.flags.writeable = False
    return values
