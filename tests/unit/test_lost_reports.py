"""What a node does when its device forgets: no end waits for a report that never comes."""

from tests.support.two_cores import ALICE, BOB, TwoCores

from bellhop.hal.operations import Heralded, Measured
from bellhop.stack.core import Note, PeerSaid
from bellhop.stack.messages import BlockHeralded, SlotDone, TestRounds


def agreed() -> TwoCores:
    """Two nodes that have agreed on a session; nothing of its first blocks is reported yet."""
    two = TwoCores()
    two.meet()
    two.ask(ALICE)
    two.work(ALICE)
    two.hear(BOB)
    two.hear(ALICE)
    return two


def test_a_herald_told_twice_and_never_reported_here_is_given_up() -> None:
    two = agreed()
    for name in (ALICE, BOB):
        two.jobs[name].clear()
    report = two.reports[ALICE][0].report
    assert isinstance(report, Heralded)
    two.report(ALICE)
    two.reports[BOB].clear()  # Bob's device died with its reports, and knows nothing any more
    told = [m for m in two.mail[BOB] if isinstance(m, BlockHeralded)]
    for message in told:
        two.feed(BOB, PeerSaid(ALICE, message))
    assert not two.mail[ALICE], "Bob may still get the report"
    for message in told:
        two.feed(BOB, PeerSaid(ALICE, message))
    lost = [m for m in two.mail[ALICE] if isinstance(m, BlockHeralded)]
    assert [m.block for m in lost] == [m.block for m in told]
    assert all(m.digest == b"" for m in lost)
    two.hear(ALICE)
    voids = [a for a in two.actions if isinstance(a, Note) and a.name == "block_void"]
    assert len(voids) == 2 * len(told), "both ends take the slots' next blocks"


def test_what_is_in_the_hands_of_a_device_that_comes_back_is_lost() -> None:
    two = agreed()
    two.go_on(until=lambda: bool(two.reports[ALICE]) and is_measured(two))
    slot = 0
    two.reports[ALICE].clear()
    two.attach(ALICE)  # a reconnection, without word that the device was gone
    tests = [m for m in two.mail[BOB] if isinstance(m, TestRounds)]
    assert slot in [m.slot for m in tests], "its outcomes count as 0, and the slot goes on"


def is_measured(two: TwoCores) -> bool:
    return isinstance(two.reports[ALICE][0].report, Measured)


def test_slots_below_none_are_refused() -> None:
    two = agreed()
    session = next(iter(two.core[ALICE].snapshot()["sessions"]))["session"]
    two.go_on(until=lambda: any(isinstance(m, SlotDone) for m in two.mail[ALICE]))
    refused = two.feed(ALICE, PeerSaid(BOB, SlotDone(session, -1)))
    assert "slot_done_unexpected" in repr(refused)
