"""The rounds of a session at one end: the order of a round, lost outcomes, restarts, nonsense."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tests.support.cores import ALICE, BOB, REQUEST, SESSION, facts_of, kinds, records, told
from tests.support.measuring import (
    LINK,
    SLOTS,
    OneEnd,
    P,
    alice_measuring,
    announced,
    finished_alice,
    herald,
    orders,
    outcome,
    position,
    reasons,
    rounds_of,
)

from bellhop.hal.operations import Attempt, Measure, MemoryLost, NodeName
from bellhop.stack.core import Action, Note, Persist
from bellhop.stack.diqkd.measure import ANNOUNCED_WINDOWS, RETOLD_WINDOWS
from bellhop.stack.diqkd.rounds import KEY_SETTING_BOB
from bellhop.stack.link.machine import RETRIES_MAX
from bellhop.stack.messages import BlockHeralded, SlotDone, Stage, Tagged, TestRounds

# --- the order of a round -------------------------------------------------------------------------


def test_alice_draws_and_persists_before_her_device_sees_a_setting() -> None:
    alice = OneEnd(ALICE)
    alice.begin()
    actions = alice.agree(0)
    assert kinds(actions) == ["Persist", "Order"]
    assert [fact.name for fact in facts_of(actions)] == [f"session/{SESSION}/drawn/0/0"]
    (order,) = orders(actions)
    assert isinstance(order, Measure) and order.block == 0
    span = alice.record.request.span(0)
    np.testing.assert_array_equal(order.settings, alice.record.settings[span])


def test_nothing_is_drawn_before_both_ends_agree_on_the_block() -> None:
    alice = OneEnd(ALICE)
    alice.begin()
    actions = alice.keep(alice.measuring.heralded(herald(0)))
    assert orders(actions) == [] and not alice.record.drawn.any()


def test_tests_are_announced_after_her_device_answered_and_the_answer_is_kept() -> None:
    alice = alice_measuring()
    actions = alice.keep(alice.measuring.measured(outcome(0)))
    assert kinds(actions) == ["Persist", "Tell"]
    assert [fact.name for fact in facts_of(actions)] == [f"session/{SESSION}/outcomes/0/0"]
    (message,) = told(actions)
    assert isinstance(message, TestRounds) and message.slot == 0
    np.testing.assert_array_equal(message.tests, alice.record.tests[alice.record.request.span(0)])


def test_tests_leave_by_no_other_way_before_that() -> None:
    alice = alice_measuring()
    said = [m for first in (0, SLOTS) for m in told(alice.measuring.retell(position(first)))]
    assert not [m for m in said if isinstance(m, TestRounds)]
    assert reasons(alice.measuring.hear_done(SlotDone(SESSION, 0))) == ["slot_done_unexpected"]


@pytest.mark.parametrize("first", ["pairs", "tests"])
def test_bob_draws_only_when_pairs_are_agreed_and_tests_announced(first: str) -> None:
    bob = OneEnd(BOB)
    bob.begin()
    if first == "pairs":
        assert orders(bob.agree(0)) == []
        actions = bob.keep(bob.measuring.hear_tests(announced(0)))
    else:
        assert bob.measuring.hear_tests(announced(0)) == []
        actions = bob.agree(0)
    assert kinds(actions) == ["Persist", "Order"]
    (order,) = orders(actions)
    assert isinstance(order, Measure)
    np.testing.assert_array_equal(order.settings != KEY_SETTING_BOB, announced(0).tests)


def test_bob_says_a_slot_is_done_after_it_is_kept_and_orders_the_next() -> None:
    bob = OneEnd(BOB)
    bob.begin()
    bob.agree(0)
    bob.measuring.hear_tests(announced(0))
    actions = bob.keep(bob.measuring.measured(outcome(0)))
    assert kinds(actions)[:2] == ["Persist", "Tell"]
    assert told(actions) == [SlotDone(SESSION, 0)]


# --- every round counts ---------------------------------------------------------------------------


def test_a_round_without_an_answer_counts_as_0() -> None:
    alice = alice_measuring()
    report = outcome(0)
    answered = np.arange(rounds_of(0)) % 3 != 0
    outcomes = report.outcomes.copy()
    outcomes[1] = 7  # no outcome at all
    actions = alice.measuring.measured(replace(report, outcomes=outcomes, answered=answered))
    expected = np.where(answered, report.outcomes, 0)
    expected[1] = 0
    np.testing.assert_array_equal(alice.record.outcomes[: rounds_of(0)], expected)
    assert not [a for a in actions if isinstance(a, Note)], "nothing is said of it in the run"
    (note,) = alice.measuring.losses()
    missing = int(np.count_nonzero(~answered)) + 1
    assert note == Note("no_answer", {"session": SESSION, "rounds": missing})
    assert alice.measuring.losses() == [], "once"


DEVICE_TEXT = "0110100110010110"


@pytest.mark.parametrize("own", [ALICE, BOB])
def test_what_was_lost_is_noted_in_sum_after_the_last_round_and_without_the_devices_words(
    own: NodeName,
) -> None:
    end, actions = OneEnd(own), list[Action]()
    end.begin()
    for slot in range(SLOTS):
        assert not [a for a in actions if isinstance(a, Note)]
        actions += end.agree(slot)
        if own == BOB:
            actions += end.keep(end.measuring.hear_tests(announced(slot)))
        lost = MemoryLost(LINK, REQUEST, slot, "measure", DEVICE_TEXT)
        actions += end.keep(end.measuring.lost(lost))
        if own == ALICE and slot < SLOTS - 1:
            actions += end.keep(end.measuring.hear_done(SlotDone(SESSION, slot)))
    (note,) = [a for a in actions if isinstance(a, Note)]
    assert note == Note("outcomes_lost", {"session": SESSION, "blocks": SLOTS, "rounds": P.rounds})
    assert DEVICE_TEXT not in repr(actions)


@pytest.mark.parametrize("loss", ["lost", "gone", "ready", "short", "answered", "shape"])
def test_lost_outcomes_count_as_0_and_are_never_measured_again(loss: str) -> None:
    alice = alice_measuring()
    report = outcome(0)
    cases: dict[str, Callable[[], list[Action]]] = {
        "lost": lambda: alice.measuring.lost(MemoryLost(LINK, REQUEST, 0, "measure", "x")),
        "gone": alice.measuring.device_gone,
        "ready": alice.measuring.device_ready,
        "short": lambda: alice.measuring.measured(replace(report, outcomes=report.outcomes[1:])),
        "answered": lambda: alice.measuring.measured(replace(report, answered=report.answered[1:])),
        "shape": lambda: alice.measuring.measured(
            replace(report, outcomes=report.outcomes[None], answered=report.answered[None])
        ),
    }
    actions = cases[loss]()
    alice.keep(actions)
    assert [m.slot for m in told(actions) if isinstance(m, TestRounds)] == [0]
    assert 0 in alice.record.measured and not alice.record.outcomes.any()
    assert not [o for o in orders(actions) if isinstance(o, Measure)]
    assert alice.measuring.measured(report) == [], "too late"
    assert not alice.record.outcomes.any()


def test_what_was_in_the_devices_hands_at_a_restart_is_lost() -> None:
    alice = alice_measuring()
    tests = alice.record.tests.copy()
    again = alice.restart()
    actions = again.begin()
    assert [m.slot for m in told(actions) if isinstance(m, TestRounds)] == [0]
    assert [f.name for f in facts_of(actions)] == [f"session/{SESSION}/outcomes/0/0"]
    np.testing.assert_array_equal(again.record.tests, tests)
    assert not again.record.outcomes.any() and 0 in again.record.measured
    assert not [o for o in orders(actions) if isinstance(o, Measure)]


def test_settings_are_never_drawn_twice() -> None:
    alice = alice_measuring()
    with pytest.raises(AssertionError):
        alice.record.draw(
            0,
            np.zeros(rounds_of(0), np.bool_),
            np.zeros(rounds_of(0), np.uint8),
            np.zeros(rounds_of(0), np.uint8),
        )
    again = alice.restart()
    again.begin()
    assert again.keep(again.measuring.hear_block(0, _word(0))) == []


def test_a_drawn_slot_that_was_not_persisted_is_drawn_anew() -> None:
    """Nobody has seen the first draw: the order to the device stands behind the fact."""
    alice = OneEnd(ALICE)
    alice.begin()
    alice.keep(alice.measuring.heralded(herald(0)))
    alice.measuring.hear_block(0, _word(0))  # and the node stops before it has persisted
    again = alice.restart()
    again.begin()
    actions = again.measuring.hear_block(0, _word(0))
    assert kinds(actions) == ["Persist", "Order"]


def _word(block: int) -> BlockHeralded:
    one = OneEnd(ALICE)
    one.begin()
    actions = one.measuring.heralded(herald(block))
    return next(m for m in told(actions) if isinstance(m, BlockHeralded))


def test_alice_who_has_spoken_knows_after_a_restart_that_all_rounds_are_done() -> None:
    """Bob may have stored the key and forgotten his rounds: he could not tell her any more."""
    alice = finished_alice()
    assert alice.measuring.all_done()
    silent = alice.restart()
    silent.begin()
    assert not silent.measuring.all_done(), "Bob tells her with his position"
    message = Tagged(SESSION, Stage.TRANSCRIPT_A, b"", "provisioned", 0, bytes(8))
    alice.keep([Persist((alice.record.say(message),))])
    again = alice.restart()
    assert orders(again.begin()) == []
    assert again.measuring.all_done()


# --- the device's nonsense ------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, SLOTS, -SLOTS, -1, 10**12])
def test_an_answer_for_another_block_is_passed_over(block: int) -> None:
    """A slot has many blocks: only the one whose settings were shown can be answered."""
    alice = alice_measuring()
    report = replace(outcome(0), block=block)
    assert alice.measuring.measured(report) == []
    assert alice.measuring.lost(MemoryLost(LINK, REQUEST, block, "measure", "x")) == []
    assert not alice.record.measured.any()


def test_a_second_answer_changes_nothing() -> None:
    alice = alice_measuring()
    alice.measuring.measured(outcome(0))
    before = alice.record.outcomes.copy()
    assert alice.measuring.measured(outcome(0, seed=2)) == []
    np.testing.assert_array_equal(alice.record.outcomes, before)


def test_a_link_that_loses_every_block_fails_the_session() -> None:
    alice = OneEnd(ALICE)
    alice.begin()
    for retry in range(RETRIES_MAX + 1):
        assert alice.measuring.failure is None
        block = retry * SLOTS
        alice.measuring.lost(MemoryLost(LINK, REQUEST, block, "attempt", "cut"))
        alice.measuring.hear_block(0, BlockHeralded(LINK, REQUEST, block, b""))
    assert alice.measuring.failure == (
        "link failed: 9 blocks in a row were lost: check devices and fibre, run again"
    )


# --- the peer's nonsense --------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [-1, -SLOTS, SLOTS, 10**9])
def test_slots_that_are_not_are_refused(slot: int) -> None:
    bob = OneEnd(BOB)
    bob.begin()
    message = TestRounds(SESSION, slot, np.zeros(P.block_rounds, np.bool_))
    assert reasons(bob.measuring.hear_tests(message)) == ["tests_unexpected"]
    alice = alice_measuring()
    assert reasons(alice.measuring.hear_done(SlotDone(SESSION, slot))) == ["slot_done_unexpected"]


def test_tests_of_another_length_or_to_alice_are_refused() -> None:
    bob = OneEnd(BOB)
    bob.begin()
    short = TestRounds(SESSION, 0, np.zeros(3, np.bool_))
    assert reasons(bob.measuring.hear_tests(short)) == ["tests_length"]
    assert reasons(alice_measuring().measuring.hear_tests(announced(0))) == ["tests_unexpected"]
    assert reasons(bob.measuring.hear_done(SlotDone(SESSION, 0))) == ["slot_done_unexpected"]


@pytest.mark.parametrize("when", ["announced", "drawn"])
def test_tests_do_not_change(when: str) -> None:
    bob = OneEnd(BOB)
    bob.begin()
    bob.measuring.hear_tests(announced(0))
    if when == "drawn":
        bob.agree(0)
    other = TestRounds(SESSION, 0, ~announced(0).tests)
    assert reasons(bob.measuring.hear_tests(other)) == ["tests_changed"]
    assert bob.measuring.hear_tests(announced(0)) == []


def test_repeated_words_are_nothing_new() -> None:
    """Else a peer that repeats itself keeps a session from stalling for ever."""
    bob = OneEnd(BOB)
    bob.begin()
    bob.measuring.hear_tests(announced(0))
    assert bob.measuring.moved
    bob.measuring.moved = False
    bob.measuring.hear_tests(announced(0))
    assert not bob.measuring.moved
    alice = finished_alice()
    alice.measuring.moved = False
    assert alice.measuring.hear_done(SlotDone(SESSION, 0)) == []
    assert not alice.measuring.moved


def test_bob_who_hears_again_says_again_that_he_is_done() -> None:
    bob = OneEnd(BOB)
    bob.begin()
    bob.agree(0)
    bob.measuring.hear_tests(announced(0))
    bob.measuring.measured(outcome(0))
    assert told(bob.measuring.hear_tests(announced(0))) == [SlotDone(SESSION, 0)]


# --- bounds ---------------------------------------------------------------------------------------


def many_slots(own: NodeName) -> OneEnd:
    few = replace(P, block_rounds=40)
    return OneEnd(own, records(few)[own])


def test_tests_announced_ahead_are_bounded() -> None:
    bob = many_slots(BOB)
    bob.begin()
    bound = ANNOUNCED_WINDOWS * P.window
    tests = np.zeros(40, np.bool_)
    refused = [
        reasons(bob.measuring.hear_tests(TestRounds(SESSION, slot, tests)))
        for slot in range(bound + 5)
    ]
    assert refused == [[]] * bound + [["tests_window"]] * 5
    assert bob.measuring.hear_tests(TestRounds(SESSION, 0, tests)) == [], "a repetition is none"


def test_one_position_asks_for_few_slots() -> None:
    alice = many_slots(ALICE)
    record = alice.record
    for slots in (record.drawn, record.measured):
        slots.add_run(0, record.request.slots)
    said = alice.measuring.retell(position(0))
    asked = RETOLD_WINDOWS * P.window
    assert [m.slot for m in told(said) if isinstance(m, TestRounds)] == list(range(asked))


def test_alice_learns_from_a_position_what_bob_has_done() -> None:
    alice = alice_measuring()
    alice.measuring.measured(outcome(0))
    actions = alice.measuring.learn(position(SLOTS))
    assert [slot in alice.record.peer_done for slot in range(SLOTS)] == [True, False, False]
    assert [o.block for o in orders(actions) if isinstance(o, Attempt)] == []
