"""Sessions of very many slots: what is remembered, what is stored, and what a crash leaves."""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from tests.support.cores import ALICE, BOB, OTHER, plan, records
from tests.support.long_runs import End, LongRun

from bellhop.hal.operations import Heralded, NodeName
from bellhop.stack.core import Order, Tell
from bellhop.stack.diqkd.parameters import ROUNDS_MAX
from bellhop.stack.diqkd.record import Record, restore
from bellhop.stack.link.block import Span
from bellhop.stack.link.machine import PAGE_ROUNDS, REACH_WINDOWS, BlockExchange, MeasureDirectly
from bellhop.stack.link.slots import Slots
from bellhop.stack.messages import POSITION_AHEAD_MAX, BlockHeralded

ARRAYS = ("tests", "settings", "outcomes", "patterns", "flips")


def same_rounds(one: Record, other: Record) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)


def restored(end: End) -> Record:
    (record,) = restore(end.record.own, end.facts)
    return record


# --- slots ----------------------------------------------------------------------------------------


def test_slots_are_a_set() -> None:
    chance = np.random.default_rng(3)
    slots, twin = Slots(60), set[int]()
    for slot in chance.integers(0, 60, 200).tolist():
        run = range(slot, min(60, slot + int(chance.integers(0, 4))))
        slots.add_run(run.start, run.stop)
        twin |= set(run)
        assert [k for k in range(-3, 70) if k in slots] == sorted(twin)
        assert slots.count == len(twin) and slots.all() == (len(twin) == 60)
        assert slots.first == next((k for k in range(60) if k not in twin), 60)
        assert slots.end == max(twin, default=-1) + 1
        assert slots.any() == bool(twin)
        assert np.flatnonzero(slots.flags(7, 50)).tolist() == [k - 7 for k in sorted(twin)
                                                               if 7 <= k < 50]  # fmt: skip


@pytest.mark.parametrize("run", [(-1, 0), (3, 2), (59, 61), (60, 61)])
def test_slots_that_are_none_are_refused(run: tuple[int, int]) -> None:
    with pytest.raises(IndexError):
        Slots(60).add_run(*run)


# --- single pairs ---------------------------------------------------------------------------------

ROUNDS = 2 * PAGE_ROUNDS + 300


@pytest.fixture(scope="module")
def finished() -> LongRun:
    """Three pages of single rounds, without a fault."""
    run = LongRun(ROUNDS)
    run.run(ROUNDS)
    return run


def test_slots_of_single_rounds_leave_a_few_pages(finished: LongRun) -> None:
    pages = -(-ROUNDS // PAGE_ROUNDS)
    for end in finished.ends.values():
        assert end.measuring.all_done()
        assert len(end.facts) == pages + 1  # and the parameters
        beyond = 2 * REACH_WINDOWS * finished.parameters.window
        assert end.most_facts <= 3 * (PAGE_ROUNDS + beyond) + pages + 1


def test_what_the_pages_say_is_what_was_measured(finished: LongRun) -> None:
    for end in finished.ends.values():
        again = restored(end)
        assert same_rounds(again, end.record)
        assert again.drawn.all() and again.measured.all() and again.answered.all()
        assert again.span == end.record.span == Span(0, ROUNDS)
        assert again.fold() == []
        assert 0 < np.count_nonzero(end.record.settings) < ROUNDS
    alice, bob = (finished.ends[own].record for own in (ALICE, BOB))
    assert np.array_equal(alice.tests, bob.tests) and np.array_equal(alice.patterns, bob.patterns)


@pytest.mark.parametrize("names", [(ALICE,), (BOB,), (ALICE, BOB)])
def test_restarts_anywhere_lose_only_what_was_in_hand(names: tuple[NodeName, ...]) -> None:
    run = LongRun(PAGE_ROUNDS + 200)
    for slots in (100, PAGE_ROUNDS - 1, PAGE_ROUNDS + 100, PAGE_ROUNDS + 200):
        run.run(slots)
        run.restart(*names)
    for end in run.ends.values():
        assert end.measuring.all_done() and same_rounds(restored(end), end.record)
    alice, bob = (run.ends[own].record for own in (ALICE, BOB))
    assert np.array_equal(alice.tests, bob.tests) and np.array_equal(alice.patterns, bob.patterns)


def crash_points() -> Iterator[int]:
    whole = LongRun(20 * 512, 512)
    whole.run(20)
    yield from range(1, whole.actions + 1)


@pytest.mark.parametrize("part", range(4))
def test_a_crash_after_any_action_is_survived(part: int) -> None:
    """Pages of eight slots: two and a half of them, so that their borders are struck too."""
    for number in list(crash_points())[part::4]:
        run = LongRun(20 * 512, 512, crash_after=number)
        run.run(20)
        run.run(20)
        alice, bob = (run.ends[own].record for own in (ALICE, BOB))
        assert np.array_equal(alice.tests, bob.tests), number
        for end in run.ends.values():
            assert same_rounds(restored(end), end.record), number
            assert len(end.facts) == 1 + 3, number


# --- the link alone -------------------------------------------------------------------------------


def test_two_hundred_thousand_slots_are_held_in_a_few_windows() -> None:
    slots, window = 200_000, 3
    p = plan()
    request = MeasureDirectly(p.link, OTHER[ALICE], p.request, slots, 1, window)
    exchange = BlockExchange(request, {}, device_away=False)
    ordered, most = [a for a in exchange.fill() if isinstance(a, Order)], 0
    attempts, patterns = np.zeros(1, np.int64), np.zeros(1, np.uint8)
    for slot in range(slots):
        report = Heralded(p.link, p.request, slot, attempts, patterns, 0, 1)
        (_, word), _ = exchange.heralded(report)
        assert isinstance(word, Tell) and isinstance(word.message, BlockHeralded)
        _, delivered = exchange.told(0, word.message)
        assert len(delivered) == 1
        most = max(most, exchange.held)
        ordered += [a for a in exchange.finish([slot]) if isinstance(a, Order)]
    assert len(ordered) == slots
    assert most <= window and exchange.held == 0


# --- a million ------------------------------------------------------------------------------------


def test_a_session_of_millions_of_slots_steps_as_fast_as_a_small_one() -> None:
    """What 26 days have made, restored; then a few hundred rounds."""
    run = LongRun(ROUNDS_MAX)
    done = ROUNDS_MAX - 400
    for own, end in run.ends.items():
        record = records(run.parameters)[own]
        record.span = Span(0, 1)
        for slots in (record.drawn, record.measured, record.peer_done):
            slots.add_run(0, done)
        for persist in record.fold():
            end.persist(persist)
        left = record.pages * PAGE_ROUNDS
        assert done - left < PAGE_ROUNDS and len(end.facts) == record.pages + 1
    begun = time.process_time()
    run.restart(ALICE, BOB)
    restarted = time.process_time() - begun
    run.run(run.ends[ALICE].record.peer_done.count + 500)
    stepped = time.process_time() - begun - restarted
    assert restarted < 5.0
    assert stepped / 500 < 0.05, "seconds for a slot at both ends"
    first, ahead = run.ends[ALICE].measuring.position()
    assert first > done - PAGE_ROUNDS and len(ahead) <= POSITION_AHEAD_MAX


def test_what_is_remembered_of_a_slot_is_small() -> None:
    """Eight bytes of a round that is a slot of its own, and one in the link's set."""
    p = replace(plan(), rounds=ROUNDS_MAX, block_rounds=1)
    record = records(p)[ALICE]
    sizes = [getattr(record, name).nbytes for name in ARRAYS]
    sets = [record.drawn, record.measured, record.peer_done]
    assert sum(sizes) + sum(s.size for s in sets) == 8 * ROUNDS_MAX
