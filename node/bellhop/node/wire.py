"""The peer stream's envelopes as bytes: total and strict, both ways.

Rules.  What cannot be read, or breaks a bound, is a `PeerError` with a reason, never any other
exception.  A message or a field that this version does not know is survived.  One validator serves
both directions, so that a node never sends what it would refuse.
"""

from typing import assert_never

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from bellhop.hal.errors import PeerError
from bellhop.hal.operations import BLOCK_ROUNDS_MAX, LinkName, NodeName, RequestId
from bellhop.node.clock import Clock, ClockReading
from bellhop.node.envelope import (
    ENVELOPE_BYTES_MAX,
    KEY_SLOTS_MAX,
    Envelope,
    Greeting,
    Heartbeat,
    Word,
    check,
    check_count,
    check_envelope,
    refuse,
)
from bellhop.stack.ids import KeyId, SaeId, SessionId
from bellhop.stack.messages import (
    ALLOCATIONS_MAX,
    CALIBRATION_ROUNDS_MAX,
    CALIBRATION_SETTINGS,
    POSITION_AHEAD_MAX,
    Abort,
    Accept,
    Allocation,
    AllocationsRecorded,
    BlockHeralded,
    BlockStored,
    CalibrationData,
    CalibrationResult,
    Decoded,
    KeysAllocated,
    Paused,
    Position,
    Propose,
    SlotDone,
    Stage,
    SyndromeExtra,
    SyndromeWanted,
    Tagged,
    TestRounds,
    reason_told,
)
from bellhop.v1 import peer_pb2 as pb
from bellhop.v1 import types_pb2

VERSION = 1
"""Of peer.proto.  A peer of a newer one may mean what we would misunderstand."""


_CLOCKS = {
    Clock.REAL: types_pb2.CLOCK_REAL,
    Clock.SCALED: types_pb2.CLOCK_SCALED,
    Clock.VIRTUAL: types_pb2.CLOCK_VIRTUAL,
}
_CLOCKS_BACK = {number: clock for clock, number in _CLOCKS.items()}

_STAGES = {stage: pb.Stage.Value(f"STAGE_{stage.name}") for stage in Stage}
_STAGES_BACK = {number: stage for stage, number in _STAGES.items()}


def encode(envelope: Envelope) -> bytes:
    """The bytes of `envelope`.  What breaks a bound is our own nonsense: an AssertionError."""
    assert envelope.message is not None, "an unknown message is never sent on"
    message = _sendable(envelope.message)
    try:
        check_envelope(envelope)
        check(message)
    except PeerError as error:
        raise AssertionError(f"own {type(message).__name__}: {error.message}") from error
    wire = pb.Envelope(
        version=VERSION,
        sequence=envelope.sequence,
        sender=envelope.sender,
        recipient=envelope.recipient,
        time=types_pb2.Time(
            nanoseconds=envelope.time.nanoseconds, clock=_CLOCKS[envelope.time.clock]
        ),
    )
    _put(wire, message)
    return wire.SerializeToString()


def _sendable(message: Word) -> Word:
    """`message` with a reason that fits: one is often made around the words of a peer."""
    if not isinstance(message, Abort):
        return message
    return Abort(message.session, reason_told(message.reason))


def decode(data: bytes) -> Envelope:
    """The envelope in `data`.  Raises PeerError, and nothing else, for whatever it is not."""
    if len(data) > ENVELOPE_BYTES_MAX:
        refuse("oversized envelope", size=len(data), size_max=ENVELOPE_BYTES_MAX)
    wire = pb.Envelope()
    try:
        wire.ParseFromString(data)
    except DecodeError as error:
        raise PeerError("malformed protobuf") from error
    if wire.version > VERSION:
        refuse("newer version of the peer protocol", version=wire.version, version_max=VERSION)
    if wire.version == 0:
        refuse("no version of the peer protocol")
    if wire.time.clock not in _CLOCKS_BACK:
        refuse("unknown clock", clock=wire.time.clock)
    envelope = Envelope(
        wire.sequence,
        NodeName(wire.sender),
        NodeName(wire.recipient),
        ClockReading(wire.time.nanoseconds, _CLOCKS_BACK[wire.time.clock]),
        _taken(wire),
    )
    check_envelope(envelope)
    if envelope.message is not None:
        check(envelope.message)
    return envelope


# --- dataclass to protobuf ------------------------------------------------------------------------


def _put(wire: pb.Envelope, message: Word) -> None:  # noqa: C901, PLR0912 - a table
    match message:
        case Greeting(software):
            wire.greeting.software = software
        case Heartbeat():
            wire.heartbeat.SetInParent()
        case BlockHeralded(link, request, block, digest):
            wire.block_heralded.MergeFrom(
                pb.BlockHeralded(link=link, request=request, block=block, digest=digest)
            )
        case Propose(session, parameters):
            wire.propose.MergeFrom(pb.Propose(session=session, parameters=parameters))
        case Accept(session, digest):
            wire.accept.MergeFrom(pb.Accept(session=session, digest=digest))
        case TestRounds(session, slot, tests):
            wire.test_rounds.MergeFrom(
                pb.TestRounds(session=session, slot=slot, rounds=len(tests), tests=_packed(tests))
            )
        case SlotDone(session, slot):
            wire.slot_done.MergeFrom(pb.SlotDone(session=session, slot=slot))
        case Tagged():
            wire.tagged.MergeFrom(
                pb.Tagged(
                    session=message.session,
                    stage=_STAGES[message.stage],
                    body=message.body,
                    batch=message.batch,
                    number=message.number,
                    tag=message.tag,
                )
            )
        case Decoded(session):
            wire.decoded.session = session
        case Position():
            wire.position.MergeFrom(
                pb.Position(
                    session=message.session,
                    first=message.first,
                    slots=len(message.ahead),
                    ahead=_packed(message.ahead),
                    heard=[_STAGES[stage] for stage in message.heard],
                    accepted=message.accepted,
                    decoded=message.decoded,
                    paused=message.paused,
                    device_away=message.device_away,
                )
            )
        case Abort(session, reason):
            wire.abort.MergeFrom(pb.Abort(session=session, reason=reason))
        case BlockStored(session, confirmed, endorsement):
            wire.block_stored.MergeFrom(
                pb.BlockStored(session=session, confirmed=confirmed, endorsement=endorsement)
            )
        case SyndromeWanted(session, steps):
            wire.syndrome_wanted.MergeFrom(pb.SyndromeWanted(session=session, steps=steps))
        case SyndromeExtra(session, steps, bits):
            wire.syndrome_extra.MergeFrom(pb.SyndromeExtra(session=session, steps=steps, bits=bits))
        case Paused(session, paused):
            wire.paused.MergeFrom(pb.Paused(session=session, paused=paused))
        case CalibrationData(session, settings, outcomes):
            wire.calibration_data.MergeFrom(
                pb.CalibrationData(
                    session=session,
                    rounds=len(settings),
                    settings=_packed(settings),
                    outcomes=_packed(outcomes),
                )
            )
        case CalibrationResult(session, rounds, unequal):
            wire.calibration_result.MergeFrom(
                pb.CalibrationResult(session=session, rounds=rounds, unequal=unequal)
            )
        case KeysAllocated(keys):
            wire.keys_allocated.keys.extend(_allocation_put(key) for key in keys)
        case AllocationsRecorded(key_ids):
            wire.allocations_recorded.key_ids.extend(key_ids)
        case _:
            assert_never(message)


def _allocation_put(key: Allocation) -> pb.Allocation:
    return pb.Allocation(
        session=key.session,
        key_id=key.key_id,
        slots=key.slots,
        size_bits=key.size_bits,
        master=key.master,
        slave=key.slave,
    )


def _packed(bits: NDArray[np.bool_]) -> bytes:
    return np.packbits(bits, bitorder="little").tobytes()


# --- protobuf to dataclass ------------------------------------------------------------------------


def _taken(wire: pb.Envelope) -> Word | None:  # noqa: C901, PLR0911, PLR0912 - a table
    match wire.WhichOneof("message"):
        case None:
            return None
        case "greeting":
            return Greeting(wire.greeting.software)
        case "heartbeat":
            return Heartbeat()
        case "block_heralded":
            heralded = wire.block_heralded
            return BlockHeralded(
                LinkName(heralded.link),
                RequestId(heralded.request),
                heralded.block,
                heralded.digest,
            )
        case "propose":
            return Propose(SessionId(wire.propose.session), wire.propose.parameters)
        case "accept":
            return Accept(SessionId(wire.accept.session), wire.accept.digest)
        case "test_rounds":
            tests = wire.test_rounds
            bits = _unpacked(tests.tests, tests.rounds, BLOCK_ROUNDS_MAX, "rounds")
            return TestRounds(SessionId(tests.session), tests.slot, bits)
        case "slot_done":
            return SlotDone(SessionId(wire.slot_done.session), wire.slot_done.slot)
        case "tagged":
            return _tagged_taken(wire.tagged)
        case "decoded":
            return Decoded(SessionId(wire.decoded.session))
        case "position":
            return _position_taken(wire.position)
        case "abort":
            return Abort(SessionId(wire.abort.session), wire.abort.reason)
        case "block_stored":
            stored = wire.block_stored
            return BlockStored(SessionId(stored.session), stored.confirmed, stored.endorsement)
        case "syndrome_wanted":
            wanted = wire.syndrome_wanted
            return SyndromeWanted(SessionId(wanted.session), wanted.steps)
        case "syndrome_extra":
            extra = wire.syndrome_extra
            return SyndromeExtra(SessionId(extra.session), extra.steps, extra.bits)
        case "paused":
            return Paused(SessionId(wire.paused.session), wire.paused.paused)
        case "calibration_data":
            return _calibration_taken(wire.calibration_data)
        case "calibration_result":
            return _calibration_result_taken(wire.calibration_result)
        case "keys_allocated":
            check_count(len(wire.keys_allocated.keys), 1, ALLOCATIONS_MAX, "allocations")
            return KeysAllocated(tuple(_allocation_taken(k) for k in wire.keys_allocated.keys))
        case "allocations_recorded":
            check_count(len(wire.allocations_recorded.key_ids), 1, ALLOCATIONS_MAX, "allocations")
            return AllocationsRecorded(
                tuple(KeyId(key_id) for key_id in wire.allocations_recorded.key_ids)
            )


def _tagged_taken(wire: pb.Tagged) -> Tagged:
    return Tagged(
        SessionId(wire.session),
        _stage(wire.stage),
        wire.body,
        wire.batch,
        wire.number,
        wire.tag,
    )


def _position_taken(wire: pb.Position) -> Position:
    check_count(len(wire.heard), 0, len(Stage), "stages heard")
    return Position(
        SessionId(wire.session),
        wire.first,
        _unpacked(wire.ahead, wire.slots, POSITION_AHEAD_MAX, "slots"),
        tuple(_stage(number) for number in wire.heard),
        wire.accepted,
        wire.decoded,
        wire.paused,
        wire.device_away,
    )


def _calibration_taken(wire: pb.CalibrationData) -> CalibrationData:
    rounds, most = wire.rounds, CALIBRATION_ROUNDS_MAX
    return CalibrationData(
        SessionId(wire.session),
        _unpacked(wire.settings, rounds, most, "rounds"),
        _unpacked(wire.outcomes, rounds, most, "rounds"),
    )


def _calibration_result_taken(wire: pb.CalibrationResult) -> CalibrationResult:
    for counts in (wire.rounds, wire.unequal):
        check_count(len(counts), CALIBRATION_SETTINGS, CALIBRATION_SETTINGS, "counts")
    return CalibrationResult(SessionId(wire.session), tuple(wire.rounds), tuple(wire.unequal))


def _allocation_taken(wire: pb.Allocation) -> Allocation:
    check_count(len(wire.slots), 1, KEY_SLOTS_MAX, "slots of a key")
    return Allocation(
        SessionId(wire.session),
        KeyId(wire.key_id),
        tuple(wire.slots),
        wire.size_bits,
        SaeId(wire.master),
        SaeId(wire.slave),
    )


def _stage(number: pb.Stage.ValueType) -> Stage:
    if number not in _STAGES_BACK:
        refuse("unknown stage", stage=number)
    return _STAGES_BACK[number]


def _unpacked(packed: bytes, count: int, count_max: int, what: str) -> NDArray[np.bool_]:
    """`count` bits.  Unused bits must be 0: one value has one spelling."""
    check_count(count, 0, count_max, what)
    if len(packed) != (count + 7) // 8:
        refuse(f"bits of another length than the {what}", size=len(packed), count=count)
    if count % 8 and packed[-1] >> (count % 8):
        refuse(f"unused bits set behind the {what}")
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=count, bitorder="little")
    return bits.astype(np.bool_)
