"""Any state times any message: a core takes it or refuses it, and never raises.

A session runs between honest nodes; at any moments messages of any kind come in between, made up
or made of ones that were told, with fields changed.  The peer that tells them is authenticated: it
may end a session, but a message that no honest node would say must not end anything badly.
"""

import json
import operator
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.two_cores import ALICE, BOB, LINK, OTHER, TwoCores

from bellhop.hal.operations import LinkName, NodeName, RequestId
from bellhop.stack.core import Action, Ask, Asked, CalibrateLink, Note, PeerSaid, Refuse, Tell
from bellhop.stack.diqkd.calibrate import Calibrations
from bellhop.stack.ids import AskNumber, KeyId, SaeId, SessionId
from bellhop.stack.messages import (
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

BOUNDED = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

UNKNOWN = SessionId("e" * 32)
COUNTS = st.one_of(st.integers(0, 20), st.sampled_from([255, 2**31, 2**32 - 1, 2**63 - 1]))
FIVE_COUNTS = st.tuples(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
BYTES = st.one_of(st.binary(max_size=40), st.sampled_from([bytes(32), bytes(8), b"{}", b"[" * 999]))
FLAGS = st.one_of(
    st.integers(0, 12), st.sampled_from([8_000, 7_999, 8_001, 24_000, 65_536])
).map(lambda size: np.arange(size) % 3 == 0)  # fmt: skip
ODD: st.SearchStrategy[object] = st.sampled_from(
    [0, -1, 1, 24_001, 2**70, 0.0, 1.5, -1e308, float("nan"), float("inf"), "", "x", "1/0", "1/3",
     "1e99999999", "3/32 ", None, True, [], [[]], [1, 2], {}]
)  # fmt: skip
"""Values that a field of a proposal should not have."""

TEXTS = st.text(max_size=20)


def made_up(sessions: st.SearchStrategy[SessionId]) -> st.SearchStrategy[Message]:
    """Messages of every type, with any content the wire can carry."""
    requests = sessions.map(RequestId)
    key_ids = st.text("0123456789abcdef-", max_size=36).map(KeyId)
    links = st.sampled_from([LinkName("fibre"), LinkName("another")])
    stages = st.sampled_from(list(Stage))
    saes = st.just(SaeId("somebody"))
    allocations = st.builds(
        Allocation, sessions, key_ids, st.tuples(COUNTS), st.integers(8, 512), saes, saes
    )
    return st.one_of(
        st.builds(BlockHeralded, links, requests, COUNTS, BYTES),
        st.builds(Propose, sessions, BYTES),
        st.builds(Accept, sessions, BYTES),
        st.builds(TestRounds, sessions, COUNTS, FLAGS),
        st.builds(SlotDone, sessions, COUNTS),
        st.builds(Tagged, sessions, stages, BYTES, TEXTS, COUNTS, BYTES),
        st.builds(Decoded, sessions),
        st.builds(SyndromeWanted, sessions, COUNTS),
        st.builds(SyndromeExtra, sessions, COUNTS, BYTES),
        st.builds(Paused, sessions, st.booleans()),
        st.builds(CalibrationData, sessions, FLAGS, FLAGS),
        st.builds(CalibrationResult, sessions, FIVE_COUNTS, FIVE_COUNTS),
        st.builds(Position, sessions, COUNTS, FLAGS, st.lists(stages).map(tuple)),
        st.builds(Abort, sessions, TEXTS),
        st.builds(BlockStored, sessions, st.booleans(), BYTES),
        st.builds(KeysAllocated, st.lists(allocations, min_size=1, max_size=3).map(tuple)),
        st.builds(AllocationsRecorded, st.lists(key_ids, min_size=1, max_size=3).map(tuple)),
    )


def odd_design(data: st.DataObject, parameters: bytes) -> bytes:
    """A proposal with one field, or one of a part, that is odd."""
    content = json.loads(parameters)
    design = content["design"]  # a calibration's has another part
    parts = [content, content["code"], design, design.get("design") or design["choice"]]
    part = data.draw(st.sampled_from(parts))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(ODD)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def mutated(data: st.DataObject, told: list[Any], sessions: list[SessionId]) -> Message:
    """A message that was told, again or with one field otherwise."""
    message: Any = data.draw(st.sampled_from(told), label="told")
    name = data.draw(st.sampled_from([f.name for f in fields(message)]), label="field")
    known = getattr(message, name)
    values: dict[type, st.SearchStrategy[Any]] = {
        int: COUNTS,
        bytes: st.one_of(BYTES, st.just(known), st.just(known[:-1] if known else b"x"))
        if isinstance(known, bytes) else BYTES,
        np.ndarray: FLAGS,
        bool: st.booleans(),
        Stage: st.sampled_from(list(Stage)),
    }  # fmt: skip
    if name in ("session", "request"):
        values[str] = st.sampled_from(sessions)
    if name == "parameters":
        values[bytes] = st.just(odd_design(data, known))
    if type(known) in values:
        message = replace(message, **{name: data.draw(values[type(known)])})
    told_otherwise: Message = message
    return told_otherwise


def told_so_far(two: TwoCores) -> list[Message]:
    return [action.message for action in two.actions if isinstance(action, Tell)]


def sessions_of(two: TwoCores) -> list[SessionId]:
    proposed = [m.session for m in told_so_far(two) if isinstance(m, Propose)]
    return [*dict.fromkeys(proposed), UNKNOWN]


def interrupt(two: TwoCores, data: st.DataObject, honest_end: Callable[[Message], bool]) -> None:
    """Some messages come in at one node."""
    name = data.draw(st.sampled_from([ALICE, BOB]), label="to")
    for _ in range(data.draw(st.integers(1, 4), label="messages")):
        sessions = sessions_of(two)
        told: list[Any] = list(told_so_far(two))
        again: bool = data.draw(st.booleans(), label="mutated")
        message: Message
        if told and again:
            message = mutated(data, told, sessions)
        else:
            message = data.draw(made_up(st.sampled_from(sessions)))
        if honest_end(message):
            check(name, message, two.feed(name, PeerSaid(OTHER[name], message)))


def check(name: NodeName, message: Message, actions: list[Action]) -> None:
    """What a node does about a message is bounded, and a refusal names the one who said it."""
    assert len(actions) < 500, f"{type(message).__name__} costs {name} {len(actions)} actions"
    for action in actions:
        if isinstance(action, Refuse):
            assert action.peer == OTHER[name] and len(action.detail) < 300
        if isinstance(action, Note):
            assert len(repr(action.fields)) < 2_000


def run_interrupted(
    data: st.DataObject, honest_end: Callable[[Message], bool], ask: Ask | None = None
) -> TwoCores:
    moments = data.draw(st.lists(st.integers(0, 110), min_size=1, max_size=8), label="moments")
    two = TwoCores(seed=data.draw(st.integers(0, 3), label="seed"))
    two.meet()
    if ask is None:
        two.ask(ALICE)
    else:
        two.feed(ALICE, Asked(AskNumber(1), ask))
    steps = 0

    def due() -> bool:
        nonlocal steps
        steps += 1
        return steps - 1 in moments

    for _ in moments:
        two.go_on(until=due)
        interrupt(two, data, honest_end)
    return two


def says_no_end(message: Message) -> bool:
    """Not one of those by which an authenticated peer ends a session as it likes."""
    return not isinstance(message, Abort | BlockStored)


@BOUNDED
@given(st.data())
def test_a_session_ends_well_whatever_else_is_said(data: st.DataObject) -> None:
    two = run_interrupted(data, says_no_end)
    two.settle()
    assert two.keys(ALICE) == two.keys(BOB)
    for store in two.store.values():
        assert not store.held
        assert not [name for name in store.facts if name.startswith(("session/", "link/"))]


@BOUNDED
@given(st.data())
def test_no_message_raises_or_makes_keys_differ(data: st.DataObject) -> None:
    two = run_interrupted(data, lambda _message: True)
    for _ in range(5):
        two.go_on()
        two.pass_time(3)
    ours, theirs = two.keys(ALICE), two.keys(BOB)
    assert all(ours[key_id] == theirs[key_id] for key_id in ours.keys() & theirs.keys())


@BOUNDED
@given(st.data())
def test_a_calibration_ends_well_whatever_else_is_said(data: st.DataObject) -> None:
    two = run_interrupted(data, says_no_end, CalibrateLink(BOB, 20_000))
    two.settle()
    assert not two.keys(ALICE) and not two.keys(BOB)
    for store in two.store.values():
        assert not [name for name in store.facts if name.startswith(("session/", "link/"))]
        for kept in Calibrations(store.facts).of(LINK.name):
            assert kept.counts.total == sum(kept.counts.rounds) and min(kept.counts.rounds) > 0
            assert all(map(operator.le, kept.counts.unequal, kept.counts.rounds))
