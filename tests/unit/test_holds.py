"""A session that gets no new pairs: since when, who sees it, and how long that may last."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.support.asked_cores import session_of
from tests.support.cores import told
from tests.support.two_cores import ALICE, BOB, OTHER, POLICY, SECOND_NS, TwoCores

from bellhop.hal.operations import DeviceGone, NodeName
from bellhop.stack.core import Note, PeerJoined, PeerLost, Reported
from bellhop.stack.diqkd.endings import abort_kind
from bellhop.stack.diqkd.parameters import SessionPolicy
from bellhop.stack.messages import Abort

LIMIT_S = 1_000
HELD_POLICY = replace(POLICY, block_rounds=500, pause_limit_ns=LIMIT_S * SECOND_NS)


def amid() -> TwoCores:
    two = TwoCores(policy=HELD_POLICY)
    two.now_ns = 10**18  # as the time of a node's clock is
    two.meet()
    two.ask(ALICE)
    two.go_on(lambda: bool(two.core[BOB].snapshot()["sessions"]) and done(two) >= 5_000, steps=5000)
    return two


def session(two: TwoCores, name: NodeName) -> dict[str, object]:
    (one,) = two.core[name].snapshot()["sessions"]
    assert isinstance(one, dict)
    return one


def done(two: TwoCores) -> int:
    return int(str(session(two, ALICE)["rounds_done"]))


def notes(two: TwoCores, name: str) -> list[Note]:
    return [a for a in two.actions if isinstance(a, Note) and a.name == name]


def wait(two: TwoCores, seconds: int, step_s: int = 10) -> None:
    for _ in range(seconds // step_s):
        two.pass_time(step_s)
        two.go_on()


def unplug(two: TwoCores, name: NodeName) -> None:
    two._deliver(two.nature.forget(two.now_ns, name))
    two.feed(name, Reported(DeviceGone("pulled")))
    two.reports[name].clear()


HOLDS: dict[str, Callable[[TwoCores], object]] = {
    "paused": lambda two: two.pause(BOB),
    "away": lambda two: unplug(two, BOB),
}
WORDS = {"paused": "bob is paused", "away": "bob has no device"}


def over(two: TwoCores) -> bool:
    return not any(two.core[name].snapshot()["sessions"] for name in (ALICE, BOB))


@pytest.mark.parametrize("hold", HOLDS)
def test_a_session_that_is_held_for_ever_ends_and_says_what_to_do(hold: str) -> None:
    two = amid()
    HOLDS[hold](two)
    two.go_on()
    since_ns = two.now_ns
    wait(two, LIMIT_S - 30)
    for name in (ALICE, BOB):
        seen = int(str(session(two, name)["held_since_ns"]))
        assert since_ns <= seen <= since_ns + 25 * SECOND_NS
    wait(two, 80)
    assert over(two)
    ends = [two.core[name].snapshot()["last_session"] for name in (ALICE, BOB)]
    reason = min((str(end["reason"]) for end in ends), key=len)
    assert reason.startswith(f"paused too long: {WORDS[hold]}, 0.0116 days without new rounds")
    assert "diqkd.pause_limit at both nodes" in reason
    assert abort_kind(reason) == "paused"


@pytest.mark.parametrize("hold", HOLDS)
def test_notes_say_when_a_hold_begins_and_when_it_is_over(hold: str) -> None:
    two = amid()
    HOLDS[hold](two)
    two.go_on()
    wait(two, 20)
    held = notes(two, "session_held")
    assert sorted(str(note.fields["peer"]) for note in held) == [ALICE, BOB]
    assert all(WORDS[hold] in str(note.fields["why"]) for note in held)
    assert all(int(note.fields["since_ns"]) >= 10**18 for note in held)
    assert notes(two, "session_goes_on") == []
    two.pause(BOB, paused=False)
    if hold == "away":
        two.attach(BOB)
    wait(two, 10)
    assert len(notes(two, "session_held")) == 2 == len(notes(two, "session_goes_on"))


def test_an_end_while_it_is_held_is_noted_as_the_end_of_the_hold() -> None:
    two = amid()
    two.pause(BOB)
    two.go_on()
    wait(two, LIMIT_S + 50)
    assert over(two) and len(notes(two, "session_goes_on")) == 2


def test_a_hold_is_counted_across_restarts() -> None:
    two = amid()
    two.pause(BOB)
    two.go_on()
    since_ns = two.now_ns
    for name in (ALICE, BOB, ALICE):
        wait(two, 300)
        assert not over(two)
        two.restart(name)
        two.go_on()
        assert int(str(session(two, ALICE)["held_since_ns"])) <= since_ns + 15 * SECOND_NS
    wait(two, 130)
    assert over(two)


def test_a_hold_is_counted_while_the_peer_is_away() -> None:
    two = amid()
    two.pause(BOB)
    two.go_on()
    wait(two, 20)
    for name in (ALICE, BOB):
        two.feed(name, PeerLost(OTHER[name]))
    for _ in range(LIMIT_S // 10):
        two.pass_time(10)
    assert over(two)
    for name in (ALICE, BOB):
        two.feed(name, PeerJoined(OTHER[name]))
    assert all(not isinstance(m, Abort) or "paused" in m.reason for m in told(two.actions))


def test_resuming_for_a_moment_buys_no_time() -> None:
    two = amid()
    two.pause(BOB)
    two.go_on()
    wait(two, LIMIT_S - 100)
    two.pause(BOB, paused=False)
    for name in (ALICE, BOB):  # nothing comes of it
        two.mail[name].clear()
        two.reports[name].clear()
    two.pause(BOB)
    two.go_on()
    wait(two, 150)
    assert over(two)


def test_rounds_begin_the_time_anew() -> None:
    two = amid()
    for _ in range(3):
        two.pause(BOB)
        two.go_on()
        wait(two, LIMIT_S - 100)
        before = done(two)
        two.pause(BOB, paused=False)
        two.now_ns += SECOND_NS
        two.go_on(lambda before=before: done(two) >= before + 3_000, steps=5000)  # type: ignore[misc] # typed
        two.pass_time(3)
        two.go_on(lambda before=before: done(two) >= before + 4_000, steps=5000)  # type: ignore[misc] # typed
    assert not over(two)
    assert session(two, ALICE)["held_since_ns"] == session(two, BOB)["held_since_ns"] == 0


def test_after_the_last_round_nothing_is_held() -> None:
    two = TwoCores(policy=HELD_POLICY)
    two.meet()
    two.ask(ALICE)
    two.go_on(lambda: any(s["rounds_done"] == s["rounds"]
                          for s in two.core[BOB].snapshot()["sessions"]), steps=5000)  # fmt: skip
    unplug(two, BOB)
    assert session(two, BOB)["devices_away"] == [] and session(two, BOB)["held_since_ns"] == 0
    two.go_on(steps=5000)
    two.settle()
    assert two.keys(ALICE) == two.keys(BOB) != {}


def test_of_a_session_that_is_stored_nothing_is_held() -> None:
    two = amid()
    two.go_on(lambda: bool(two.store[ALICE].held), steps=9000)
    two.mail[ALICE].clear()
    two.restart(ALICE)
    two.feed(ALICE, Reported(DeviceGone("pulled")))
    assert session(two, ALICE)["devices_away"] == [] and session(two, ALICE)["held_since_ns"] == 0


def test_a_pause_of_an_earlier_version_is_read() -> None:
    two = amid()
    two.pause(BOB)
    two.go_on()
    id_ = session_of(two, BOB)
    name = f"session/{id_}/paused"
    two.store[BOB].facts[name] = two.store[BOB].facts[name][:1]
    two.restart(BOB)
    assert session(two, BOB)["paused_by"] == [BOB] and session(two, BOB)["held_since_ns"] == 0
    two.pass_time(3)
    assert session(two, BOB)["held_since_ns"] == two.now_ns


def test_maintenance_of_days_fits_the_usual_limit() -> None:
    assert SessionPolicy().pause_limit_ns == 7 * 86_400 * SECOND_NS
