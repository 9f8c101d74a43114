"""What the peer stream refuses, what it survives, and that each refusal has its reason."""

from collections.abc import Callable

import numpy as np
import pytest

from bellhop.hal.errors import PeerError
from bellhop.hal.operations import BLOCK_ROUNDS_MAX, NodeName
from bellhop.node.clock import Clock, ClockReading
from bellhop.node.envelope import ENVELOPE_BYTES_MAX, SLOTS_MAX, Envelope, Greeting
from bellhop.node.wire import VERSION, decode, encode
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import (
    STAGE_BODY_BYTES_MAX,
    Abort,
    Message,
    SlotDone,
    Stage,
    Tagged,
    TestRounds,
)
from bellhop.v1 import peer_pb2 as pb

SESSION = SessionId("0123456789abcdef" * 2)


def envelope(message: Message | Greeting) -> Envelope:
    time = ClockReading(1_700_000_000_000_000_000, Clock.REAL)
    return Envelope(7, NodeName("alice"), NodeName("bob"), time, message)


def wire(message: Message | Greeting) -> pb.Envelope:
    return pb.Envelope.FromString(encode(envelope(message)))


def wire_of_tests() -> pb.Envelope:
    return wire(TestRounds(SESSION, 3, np.array([True, False, True])))


def allocated_wire() -> pb.Envelope:
    result = wire(SlotDone(SESSION, 1))
    result.keys_allocated.keys.add(
        session=SESSION,
        key_id="00000000-0000-8000-8000-000000000000",
        slots=[4, 6],
        size_bits=512,
        master="sae-a",
        slave="sae-b",
    )
    return result


def test_an_unknown_message_is_survived() -> None:
    unknown = wire(SlotDone(SESSION, 1))
    unknown.ClearField("slot_done")
    number, length_delimited = 999, 2
    key = number << 3 | length_delimited
    field = bytes([key & 0x7F | 0x80, key >> 7, 3]) + b"new"
    assert decode(unknown.SerializeToString() + field).message is None


def test_an_unknown_field_is_survived() -> None:
    known = wire(SlotDone(SESSION, 1))
    inner = known.slot_done.SerializeToString() + bytes([15 << 3, 1])
    known.slot_done.ParseFromString(inner)
    assert decode(known.SerializeToString()).message == SlotDone(SESSION, 1)


def test_bits_are_packed_little_end_first() -> None:
    assert wire_of_tests().test_rounds.tests == bytes([0b101])


def test_the_longest_messages_fit() -> None:
    largest = Tagged(SESSION, Stage.SYNDROME, bytes(STAGE_BODY_BYTES_MAX), "pool", 5, bytes(8))
    data = encode(envelope(largest))
    assert len(data) <= ENVELOPE_BYTES_MAX
    assert decode(data).message == largest
    rounds = TestRounds(SESSION, 0, np.ones(BLOCK_ROUNDS_MAX, np.bool_))
    taken = decode(encode(envelope(rounds))).message
    assert isinstance(taken, TestRounds) and taken.tests.all()


@pytest.mark.parametrize(
    "message",
    [
        SlotDone(SessionId("short"), 1),
        SlotDone(SESSION, SLOTS_MAX),
        TestRounds(SESSION, 0, np.zeros(0, np.bool_)),
        Tagged(SESSION, Stage.SYNDROME, bytes(STAGE_BODY_BYTES_MAX + 1), "pool", 0, bytes(8)),
        Greeting("tab\t"),
    ],
)
def test_our_own_nonsense_is_an_assertion(message: Message | Greeting) -> None:
    with pytest.raises(AssertionError):
        encode(envelope(message))


@pytest.mark.parametrize(
    ("reason", "sent"), [("x" * 1000, "x" * 256), ("", "no reason given"), ("a\nb", "a?b")]
)
def test_a_reason_is_made_to_fit(reason: str, sent: str) -> None:
    taken = decode(encode(envelope(Abort(SESSION, reason)))).message
    assert taken == Abort(SESSION, sent)


def set_field(path: str, value: object) -> Callable[[pb.Envelope], None]:
    def change(target: pb.Envelope) -> None:
        *parents, last = path.split(".")
        inner = target
        for parent in parents:
            inner = getattr(inner, parent)
        setattr(inner, last, value)

    return change


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("version", VERSION + 1, "newer version"),
        ("version", 0, "no version"),
        ("sequence", 0, "sequence out of bounds"),
        ("sender", "", "length of the sender"),
        ("sender", "a\nb", "sender not printable"),
        ("recipient", "b" * 65, "length of the recipient"),
        ("time.clock", 0, "unknown clock"),
        ("time.clock", 77, "unknown clock"),
        ("time.nanoseconds", -1, "time out of bounds"),
        ("test_rounds.session", SESSION.upper(), "hexadecimal"),
        ("test_rounds.slot", SLOTS_MAX, "slot out of bounds"),
        ("test_rounds.rounds", 0, "another length"),
        ("test_rounds.rounds", 17, "another length"),
        ("test_rounds.rounds", 2, "unused bits"),
        ("test_rounds.rounds", BLOCK_ROUNDS_MAX + 1, "rounds out of bounds"),
        ("test_rounds.rounds", 2**32 - 1, "rounds out of bounds"),
    ],
)
def test_refusals(path: str, value: object, reason: str) -> None:
    bad = wire_of_tests()
    set_field(path, value)(bad)
    with pytest.raises(PeerError, match=reason):
        decode(bad.SerializeToString())


def test_an_unknown_stage_is_refused() -> None:
    bad = wire(Tagged(SESSION, Stage.DECISION, b"body", "pool", 0, bytes(8)))
    bad.tagged.stage = 99  # type: ignore[assignment] # what a newer peer may send
    with pytest.raises(PeerError, match="unknown stage"):
        decode(bad.SerializeToString())


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("key_id", "00000000-0000-8000-8000-00000000000g", "not a UUID"),
        ("key_id", "{00000000-0000-8000-8000-0000000000}", "not a UUID"),
        ("size_bits", 0, "size of a key"),
        ("master", "", "length of the master"),
    ],
)
def test_refused_allocations(field: str, value: object, reason: str) -> None:
    decode(allocated_wire().SerializeToString())
    bad = allocated_wire()
    setattr(bad.keys_allocated.keys[0], field, value)
    with pytest.raises(PeerError, match=reason):
        decode(bad.SerializeToString())


def test_a_slot_or_a_key_named_twice_is_refused() -> None:
    bad = allocated_wire()
    bad.keys_allocated.keys[0].slots.append(4)
    with pytest.raises(PeerError, match="slots of a key repeated"):
        decode(bad.SerializeToString())
    bad = allocated_wire()
    bad.keys_allocated.keys.append(bad.keys_allocated.keys[0])
    with pytest.raises(PeerError, match="key ids repeated"):
        decode(bad.SerializeToString())


def test_an_oversized_envelope_is_refused_unread() -> None:
    with pytest.raises(PeerError, match="oversized"):
        decode(bytes(ENVELOPE_BYTES_MAX + 1))


def test_what_is_no_protobuf_is_refused() -> None:
    with pytest.raises(PeerError, match="malformed"):
        decode(b"\xff\xff\xff")
