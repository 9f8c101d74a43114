"""A session paused by either end, across restarts and lost words, and what a stall is."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.support.asked_cores import answers, reasons, said, session_of
from tests.support.cores import told
from tests.support.two_cores import ALICE, BOB, OTHER, POLICY, ROUNDS, TwoCores

from bellhop.hal.operations import Attempt, DeviceGone, NodeName
from bellhop.stack.core import AbortSession, Action, Asked, Order, PeerJoined, PeerLost, Reported
from bellhop.stack.ids import AskNumber
from bellhop.stack.messages import Abort, Paused, Position, TestRounds

SMALL_BLOCKS = replace(POLICY, block_rounds=500, pair_ns=10_000_000)
STALL_S = POLICY.stall_ns / 1e9
PAIRS_S = 500 * 0.01
"""What a block of 500 pairs may take: a session may wait for it so long beside the rest."""


def amid(rounds: int = ROUNDS // 3) -> TwoCores:
    """A session of 48 blocks, some of them done."""
    two = TwoCores(policy=SMALL_BLOCKS)
    two.meet()
    two.ask(ALICE)
    two.go_on(lambda: done(two, ALICE) >= rounds, steps=5000)
    return two


def snapshot(two: TwoCores, name: NodeName) -> dict[str, object]:
    (session,) = two.core[name].snapshot()["sessions"]
    assert isinstance(session, dict)
    return session


def done(two: TwoCores, name: NodeName) -> int:
    sessions = two.core[name].snapshot()["sessions"]
    return int(sessions[0]["rounds_done"]) if sessions else 0


def paused_by(two: TwoCores) -> tuple[object, object]:
    return tuple(snapshot(two, name)["paused_by"] for name in (ALICE, BOB))  # type: ignore[return-value] # two


def attempts(actions: list[Action]) -> list[int]:
    orders = [a.operation for a in actions if isinstance(a, Order)]
    return [order.block for order in orders if isinstance(order, Attempt)]


def ended_in_a_key(two: TwoCores) -> bool:
    two.go_on(steps=9000)
    two.settle()
    return two.keys(ALICE) == two.keys(BOB) != {}


# --- pauses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ALICE, BOB])
def test_a_paused_session_drains_and_holds_and_goes_on(name: NodeName) -> None:
    two = amid()
    two.pause(name)
    assert two.actions and [Paused(session_of(two, name), True)] == told(two.actions)[-1:]
    seen = len(two.actions)
    two.go_on()
    assert paused_by(two) == ([name], [name])
    assert done(two, ALICE) == done(two, BOB) < ROUNDS
    assert snapshot(two, ALICE)["blocks_under_way"] == snapshot(two, BOB)["blocks_under_way"] == 0
    quiet = done(two, ALICE)
    for _ in range(20):
        two.pass_time(STALL_S)
        two.go_on()
    assert done(two, ALICE) == quiet
    # The peer may order until it hears of the pause; the window bounds what that can be.
    assert len(attempts(two.actions[seen:])) <= 2 * SMALL_BLOCKS.window
    assert len(told_of(two, seen, Abort)) == 0
    two.pause(name, paused=False)
    assert ended_in_a_key(two)


def told_of(two: TwoCores, since: int, kind: type) -> list[object]:
    return [message for message in told(two.actions[since:]) if isinstance(message, kind)]


def test_each_end_resumes_its_own_pause() -> None:
    two = amid()
    two.pause(ALICE)
    two.pause(BOB)
    two.go_on()
    assert paused_by(two) == ([ALICE, BOB], [BOB, ALICE])
    quiet = done(two, ALICE)
    two.pause(ALICE, paused=False)
    two.go_on()
    assert paused_by(two) == ([BOB], [BOB]) and done(two, ALICE) == quiet
    two.pause(BOB, paused=False)
    assert ended_in_a_key(two)


def test_a_pause_outlives_restarts_of_both() -> None:
    two = amid()
    two.pause(BOB)
    two.go_on()
    quiet = done(two, ALICE)
    for name in (ALICE, BOB, ALICE):
        two.restart(name)
        two.go_on()
        two.pass_time(3)
        two.go_on()
    assert paused_by(two) == ([BOB], [BOB])
    assert done(two, ALICE) == done(two, BOB) == quiet
    two.pause(BOB, paused=False)
    assert ended_in_a_key(two)


@pytest.mark.parametrize("paused", [True, False])
def test_a_word_of_a_pause_that_is_lost_is_made_up_by_a_position(paused: bool) -> None:
    two = amid()
    if not paused:
        two.pause(ALICE)
        two.go_on()
    two.pause(ALICE, paused=paused)
    two.mail[BOB].clear()
    two.reports[BOB].clear()
    for _ in range(3):
        two.pass_time(3)
        two.go_on()
    if paused:
        assert paused_by(two) == ([ALICE], [ALICE])
    assert two.core[BOB].idle or snapshot(two, BOB)["paused_by"] == [ALICE] * paused


def test_pausing_again_or_nothing_changes_nothing() -> None:
    two = amid()
    two.pause(ALICE)
    before = len(two.actions)
    again = two.pause(ALICE)
    assert told(again) == [] and [a[0] for a in answers(again).values()] == ["paused"]
    assert len(two.actions) == before + 1
    other = two.pause(BOB, paused=False)
    assert told(other) == [] and [a[0] for a in answers(other).values()] == ["resumed"]


def test_what_cannot_be_paused() -> None:
    two = TwoCores()
    two.meet()
    refused = answers(two.pause(ALICE))
    assert list(refused.values()) == [("refused", "no session is under way")]
    two.ask(ALICE)
    two.go_on(lambda: done(two, ALICE) == done(two, BOB) == ROUNDS)
    ((outcome, why),) = answers(two.pause(ALICE)).values()
    assert outcome == "refused" and "all its pairs" in str(why)
    assert ended_in_a_key(two)


def test_a_paused_session_can_be_given_up() -> None:
    two = amid()
    two.pause(ALICE)
    two.go_on()
    two.feed(ALICE, Asked(AskNumber(99), AbortSession(BOB)))
    two.go_on()
    assert two.core[ALICE].idle and two.core[BOB].idle
    assert not any(n.startswith(("session/", "link/")) for n in two.store[ALICE].facts)


def test_a_peer_cannot_pause_what_is_not() -> None:
    two = amid()
    id_ = session_of(two, ALICE)
    two.feed(ALICE, Asked(AskNumber(99), AbortSession(BOB)))
    (end,) = told(said(two, ALICE, Paused(id_, True)))
    assert isinstance(end, Abort)
    strange = type(id_)("ee" * 16)
    assert reasons(said(two, ALICE, Paused(strange, True))) == ["session_unknown"]


# --- stalls ---------------------------------------------------------------------------------------


def silent(two: TwoCores, seconds: float, alive: Callable[[], bool]) -> bool:
    """Time passes at Alice's; what Bob and the devices say is lost.  Whether it stalls."""
    passed = 0.0
    while passed < seconds and alive():
        two.pass_time(3)
        passed += 3
        two.mail[ALICE].clear()
        two.mail[BOB].clear()
    return not alive()


def runs(two: TwoCores, name: NodeName) -> Callable[[], bool]:
    return lambda: bool(two.core[name].snapshot()["sessions"])


def test_a_session_whose_peer_is_there_and_gives_nothing_stalls() -> None:
    two = amid()
    two.reports[ALICE].clear()
    assert silent(two, STALL_S + PAIRS_S + 10, runs(two, ALICE))
    assert "stalled" in str(two.core[ALICE].snapshot()["last_session"]["reason"])


def test_a_peer_that_is_away_for_a_month_ends_no_run() -> None:
    two = amid()
    for name in (ALICE, BOB):
        two.feed(name, PeerLost(OTHER[name]))
    for _ in range(300):
        two.pass_time(8_640)
    for name in (ALICE, BOB):
        two.mail[name].clear()
        two.feed(name, PeerJoined(OTHER[name]))
    assert ended_in_a_key(two)


@pytest.mark.parametrize("name", [ALICE, BOB])
def test_a_device_that_is_away_for_long_ends_no_run(name: NodeName) -> None:
    """The other end hears that it is away; its own device is there and gives nothing."""
    two = amid()
    two._deliver(two.nature.forget(two.now_ns, name))
    two.feed(name, Reported(DeviceGone("pulled")))
    two.reports[name].clear()
    for _ in range(100):
        two.pass_time(10)  # a small part of what a session waits
        two.go_on()
    assert done(two, ALICE) < ROUNDS
    two.attach(name)
    two.go_on(steps=9000)
    two.settle()
    ends = [two.core[own].snapshot()["last_session"] for own in (ALICE, BOB)]
    # What the device had in hand counts as 0: with so few rounds that may cost the key.
    assert all("stalled" not in str(end["reason"]) for end in ends), ends


def test_a_device_that_owes_pairs_is_waited_for_as_long_as_they_may_take() -> None:
    two = TwoCores(policy=SMALL_BLOCKS)
    two.meet()
    two.ask(ALICE)
    two.go_on(lambda: len(attempts(two.actions)) == 2 * SMALL_BLOCKS.window)
    two.reports[ALICE].clear()
    alive = runs(two, ALICE)
    assert not silent(two, STALL_S + PAIRS_S - 6, alive)
    assert silent(two, 20, alive)


def test_positions_say_that_a_device_is_away_and_an_end_paused() -> None:
    two = amid()
    two.pause(ALICE)
    two.feed(ALICE, Reported(DeviceGone("pulled")))
    two.pass_time(3)
    positions = [m for m in told(two.actions) if isinstance(m, Position)]
    of_alice = [m for m in positions if m.paused]
    assert of_alice and of_alice[-1].device_away
    assert any(isinstance(m, TestRounds) for m in told(two.actions))
