"""Bytes into the wire decoder: an envelope or a PeerError, nothing else."""

from hypothesis import given
from hypothesis import strategies as st
from tests.support.envelopes import envelopes

from bellhop.hal.errors import PeerError
from bellhop.node.envelope import Envelope
from bellhop.node.wire import decode, encode
from bellhop.v1 import peer_pb2 as pb
from bellhop.v1 import types_pb2

_MEMBERS = [field.name for field in pb.Envelope.DESCRIPTOR.oneofs_by_name["message"].fields]


def envelope_or_refusal(data: bytes) -> None:
    try:
        envelope = decode(data)
    except PeerError as error:
        assert error.message
        return
    if envelope.message is not None:  # what was let in keeps every bound that we keep ourselves
        encode(envelope)


@given(st.binary(max_size=2000))
def test_random_bytes(data: bytes) -> None:
    envelope_or_refusal(data)


@given(envelopes, st.data())
def test_mutated_envelopes(envelope: Envelope, data: st.DataObject) -> None:
    mutated = bytearray(encode(envelope))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(mutated)))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "double"])):
            case "flip" if place < len(mutated):
                mutated[place] ^= data.draw(st.integers(1, 255))
            case "cut":
                del mutated[place : place + data.draw(st.integers(1, 20))]
            case "insert":
                mutated[place:place] = data.draw(st.binary(min_size=1, max_size=20))
            case _:
                mutated[place:place] = mutated[: data.draw(st.integers(1, 40))]
    envelope_or_refusal(bytes(mutated))


@given(st.sampled_from(_MEMBERS), st.binary(max_size=300), st.integers(1, 3))
def test_every_message_with_a_random_body(member: str, body: bytes, version: int) -> None:
    """A valid head, so that the bytes reach the message's own reading."""
    number = pb.Envelope.DESCRIPTOR.fields_by_name[member].number
    head = pb.Envelope(version=version, sequence=1, sender="alice", recipient="bob")
    head.time.nanoseconds = 1
    head.time.clock = types_pb2.CLOCK_REAL
    field = _two_byte_varint(number << 3 | 2) + _two_byte_varint(len(body)) + body
    envelope_or_refusal(head.SerializeToString() + field)


def _two_byte_varint(value: int) -> bytes:
    assert value < 1 << 14
    return bytes([value & 0x7F | 0x80, value >> 7])
