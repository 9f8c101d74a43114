"""What a peer may have done for it: bounded, whatever it says and however often."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.asked_cores import reasons, running, said, session_of
from tests.support.cores import facts_of, told
from tests.support.two_cores import ALICE, BOB, OTHER, POLICY, TwoCores

from bellhop.hal.operations import NodeName
from bellhop.stack.core import Refuse
from bellhop.stack.diqkd.holds import CHANGE_NS, CHANGES_BURST
from bellhop.stack.diqkd.pace import Pace
from bellhop.stack.diqkd.session import RETOLD_BURST
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import BlockStored, Paused, Position, Stage, SyndromeWanted, Tagged

MONTH_NS = 30 * 86_400 * 10**9


# --- the measure ----------------------------------------------------------------------------------


@given(
    every_ns=st.integers(1, 10**10),
    burst=st.integers(1, 8),
    begun_ns=st.integers(0, 2**62),
    steps=st.lists(st.integers(0, 10**10), min_size=1, max_size=60),
)
def test_a_burst_and_then_one_an_interval(
    every_ns: int, burst: int, begun_ns: int, steps: list[int]
) -> None:
    pace, now_ns, taken = Pace(every_ns, burst), begun_ns, list[int]()
    for step in steps:
        now_ns += step
        if pace.take(now_ns):
            taken.append(now_ns)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            most = burst + (taken[last] - taken[first]) // every_ns + 1
            assert last - first + 1 <= most
    assert taken[0] == begun_ns + steps[0], "the first is done"
    assert pace.take(now_ns + every_ns), "whoever waits is served"


def test_a_clock_that_is_set_back_delays_nothing_for_long() -> None:
    pace = Pace(1_000)
    assert pace.take(MONTH_NS)
    assert not pace.take(0)
    assert pace.take(1_000)


# --- positions ------------------------------------------------------------------------------------


def after_the_rounds() -> tuple[TwoCores, SessionId]:
    two = running()
    id_ = session_of(two, ALICE)
    two.go_on(lambda: any(isinstance(m, Tagged) and m.stage is Stage.SYNDROME
                          for m in two.mail[BOB]))  # fmt: skip
    return two, id_


def nothing_heard(id_: SessionId) -> Position:
    return Position(id_, 0, np.zeros(0, np.bool_))


@pytest.mark.parametrize("name", [ALICE, BOB])
def test_however_often_a_peer_asks_it_is_told_again_once_a_retry(name: NodeName) -> None:
    two, id_ = after_the_rounds()
    answered = [bool(told(said(two, name, nothing_heard(id_)))) for _ in range(200)]
    assert answered == [k < RETOLD_BURST for k in range(200)]
    for _ in range(3):
        two.now_ns += POLICY.retry_ns
        assert told(said(two, name, nothing_heard(id_))) != []
        assert told(said(two, name, nothing_heard(id_))) == []


def test_an_end_that_has_stored_says_its_seed_again_as_seldom() -> None:
    two = running()
    id_ = session_of(two, ALICE)
    two.go_on(lambda: bool(two.store[ALICE].held))
    again = [told(said(two, ALICE, nothing_heard(id_))) for _ in range(50)]
    assert sum(map(bool, again)) <= RETOLD_BURST and again[0] != []


def test_what_a_position_says_is_learnt_even_if_nothing_is_told_again() -> None:
    two, id_ = after_the_rounds()
    for _ in range(50):
        said(two, ALICE, nothing_heard(id_))
    two = running()
    id_ = session_of(two, ALICE)
    for _ in range(50):
        said(two, BOB, nothing_heard(id_))
    away = replace(nothing_heard(id_), device_away=True, paused=True)
    said(two, BOB, away)
    (session,) = two.core[BOB].snapshot()["sessions"]
    assert session["devices_away"] == [ALICE] == session["paused_by"]


def test_steps_that_were_given_are_told_again_as_seldom() -> None:
    two, id_ = after_the_rounds()
    said(two, ALICE, SyndromeWanted(id_, 2))
    two.work(ALICE)
    again = [told(said(two, ALICE, SyndromeWanted(id_, 1))) for _ in range(50)]
    assert [bool(messages) for messages in again] == [k < RETOLD_BURST for k in range(50)]


# --- pauses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ALICE, BOB])
def test_a_pause_that_changes_nothing_costs_nothing(name: NodeName) -> None:
    two = running()
    id_ = session_of(two, name)
    assert said(two, name, Paused(id_, False)) == []
    assert facts_of(said(two, name, Paused(id_, True)))
    for _ in range(1_000):
        assert said(two, name, Paused(id_, True)) == []


@pytest.mark.parametrize("how", ["word", "position"])
def test_a_peer_that_cannot_make_up_its_mind_writes_to_the_disk_once_a_second(how: str) -> None:
    two = running()
    id_ = session_of(two, ALICE)
    written, seconds = 0, 10
    for k in range(200 * seconds):
        two.now_ns += CHANGE_NS // 200
        paused = k % 2 == 0
        word = Paused(id_, paused)
        position = replace(nothing_heard(id_), paused=paused)
        written += len(facts_of(said(two, ALICE, word if how == "word" else position)))
    assert seconds - 1 <= written <= seconds + CHANGES_BURST


def test_what_was_passed_over_the_next_position_says() -> None:
    two = running()
    id_ = session_of(two, ALICE)
    for k in range(50):
        said(two, ALICE, Paused(id_, k % 2 == 0))
    two.now_ns += 2 * CHANGE_NS
    said(two, ALICE, replace(nothing_heard(id_), paused=True))
    (session,) = two.core[ALICE].snapshot()["sessions"]
    assert session["paused_by"] == [BOB]


# --- words on receipts ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ALICE, BOB])
def test_wrong_words_on_a_receipt_are_looked_at_once_a_retry(name: NodeName) -> None:
    two = running()
    id_ = session_of(two, name)
    two.go_on(lambda: bool(two.store[ALICE].held and two.store[BOB].held))
    right = [m for m in told(two.actions) if isinstance(m, BlockStored)][name == ALICE]
    wrong = BlockStored(id_, confirmed=False, endorsement=b"{}")
    refused = [reasons(said(two, name, wrong)) for _ in range(100)]
    assert refused == [["endorsement_malformed"]] * 2 + [[]] * 98
    assert not any(isinstance(a, Refuse) for a in said(two, name, right)), "passed over"
    assert not two.keys(name)
    two.now_ns += POLICY.retry_ns
    said(two, name, right)
    assert two.keys(name) and OTHER[name] in two.core[name].snapshot()["peers"]
