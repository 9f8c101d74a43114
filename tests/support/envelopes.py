"""Strategies for envelopes of the peer stream, and what it means that two are equal."""

import dataclasses

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from bellhop.hal.operations import LinkName, NodeName, RequestId
from bellhop.node.clock import Clock, ClockReading
from bellhop.node.envelope import (
    BATCH_CHARACTERS_MAX,
    BLOCKS_MAX,
    DIGEST_BYTES_MAX,
    KEY_BITS_MAX,
    KEY_SLOT_INDEX_MAX,
    MASK_NUMBER_MAX,
    NAME_CHARACTERS_MAX,
    SEQUENCE_MAX,
    SLOTS_MAX,
    TAG_BYTES_MAX,
    TIME_MAX_NS,
    Envelope,
    Greeting,
    Heartbeat,
)
from bellhop.stack.ids import KeyId, SaeId, SessionId
from bellhop.stack.messages import (
    ENDORSEMENT_BYTES_MAX,
    EXTRA_STEPS_MAX,
    POSITION_AHEAD_MAX,
    REASON_CHARACTERS_MAX,
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
    Message,
    Paused,
    Position,
    Propose,
    SlotDone,
    Stage,
    SyndromeExtra,
    SyndromeWanted,
    Tagged,
    TestRounds,
)


def same(one: object, other: object) -> bool:
    """Equality by value, arrays included, whatever the classes say about comparison."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        return type(one) is type(other) and all(
            same(getattr(one, field.name), getattr(other, field.name))
            for field in dataclasses.fields(one)
        )
    return one == other


def _text(length_max: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8"), min_size=1, max_size=length_max).filter(
        str.isprintable
    )


def _bits(low: int, high: int) -> st.SearchStrategy[NDArray[np.bool_]]:
    sizes = st.one_of(st.integers(low, 40), st.integers(low, high))
    return st.builds(_drawn, sizes, st.integers(0, 2**32))


def _drawn(size: int, seed: int) -> NDArray[np.bool_]:
    """Seeded: Hypothesis draws two numbers instead of thousands of bits."""
    return np.random.default_rng(seed).integers(0, 2, size=(size,)).astype(np.bool_)


def _calibration_data(session: SessionId, size: int, seed: int) -> CalibrationData:
    return CalibrationData(session, _drawn(size, seed), _drawn(size, seed + 1))


def _calibration_result(session: SessionId, counts: list[tuple[int, int]]) -> CalibrationResult:
    rounds = tuple(max(pair) for pair in counts)
    return CalibrationResult(session, rounds, tuple(min(pair) for pair in counts))


_names = _text(NAME_CHARACTERS_MAX)
_hexadecimal = st.binary(min_size=16, max_size=16).map(bytes.hex)
_sessions = _hexadecimal.map(SessionId)
_slots = st.integers(0, SLOTS_MAX - 1)
_key_ids = st.uuids().map(lambda uuid: KeyId(str(uuid)))
_saes = _names.map(SaeId)
_allocations = st.builds(
    Allocation,
    _sessions,
    _key_ids,
    st.lists(st.integers(0, KEY_SLOT_INDEX_MAX), min_size=1, max_size=5, unique=True).map(tuple),
    st.integers(1, KEY_BITS_MAX),
    _saes,
    _saes,
)

messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        BlockHeralded,
        _names.map(LinkName),
        _hexadecimal.map(RequestId),
        st.integers(0, BLOCKS_MAX),
        st.binary(max_size=DIGEST_BYTES_MAX),
    ),
    st.builds(Propose, _sessions, st.binary(min_size=1, max_size=300)),
    st.builds(Accept, _sessions, st.binary(max_size=DIGEST_BYTES_MAX)),
    st.builds(TestRounds, _sessions, _slots, _bits(1, 65_536)),
    st.builds(SlotDone, _sessions, _slots),
    st.builds(
        Tagged,
        _sessions,
        st.sampled_from(Stage),
        st.binary(max_size=300),
        _text(BATCH_CHARACTERS_MAX),
        st.integers(0, MASK_NUMBER_MAX),
        st.binary(min_size=1, max_size=TAG_BYTES_MAX),
    ),
    st.builds(Decoded, _sessions),
    st.builds(
        Position,
        _sessions,
        st.integers(0, SLOTS_MAX),
        _bits(0, POSITION_AHEAD_MAX),
        st.lists(st.sampled_from(Stage), unique=True).map(tuple),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(Abort, _sessions, _text(REASON_CHARACTERS_MAX)),
    st.builds(
        BlockStored, _sessions, st.booleans(), st.binary(max_size=min(300, ENDORSEMENT_BYTES_MAX))
    ),
    st.builds(SyndromeWanted, _sessions, st.integers(1, EXTRA_STEPS_MAX)),
    st.builds(
        SyndromeExtra,
        _sessions,
        st.integers(1, EXTRA_STEPS_MAX),
        st.binary(min_size=1, max_size=300),
    ),
    st.builds(Paused, _sessions, st.booleans()),
    st.builds(_calibration_data, _sessions, st.integers(1, 65_536), st.integers(0, 2**32)),
    st.builds(
        _calibration_result,
        _sessions,
        st.lists(
            st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)), min_size=5, max_size=5
        ),
    ),
    st.builds(
        KeysAllocated,
        st.lists(_allocations, min_size=1, max_size=4, unique_by=lambda a: a.key_id).map(tuple),
    ),
    st.builds(
        AllocationsRecorded, st.lists(_key_ids, min_size=1, max_size=9, unique=True).map(tuple)
    ),
)

envelopes: st.SearchStrategy[Envelope] = st.builds(
    Envelope,
    st.integers(1, SEQUENCE_MAX),
    _names.map(NodeName),
    _names.map(NodeName),
    st.builds(ClockReading, st.integers(0, TIME_MAX_NS), st.sampled_from(Clock)),
    st.one_of(messages, st.builds(Greeting, _names), st.builds(Heartbeat)),
)
