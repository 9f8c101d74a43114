"""What a node does when its device forgets: no end waits for a report that never comes."""

from tests.support.two_cores import ALICE, BOB, SECOND_NS, TwoCores

from bellhop.hal.operations import Heralded, Measured
from bellhop.stack.core import Note, PeerSaid
from bellhop.stack.link.machine import HERALD_LATE_NS
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


def without_bobs_reports() -> tuple[TwoCores, list[BlockHeralded]]:
    """Bob's device died with its reports and knows nothing any more; what Alice has told him."""
    two = agreed()
    for name in (ALICE, BOB):
        two.work(name)
    assert isinstance(two.reports[ALICE][0].report, Heralded)
    two.report(ALICE)
    two.reports[BOB].clear()
    told = [m for m in two.mail[BOB] if isinstance(m, BlockHeralded)]
    two.hear(BOB)
    return two, told


def test_a_herald_that_never_comes_here_is_given_up_and_the_session_goes_on() -> None:
    two, told = without_bobs_reports()
    for message in told:
        two.feed(BOB, PeerSaid(ALICE, message))
    assert not two.mail[ALICE], "Bob may still get the report, however often he hears of it"
    two.pass_time(HERALD_LATE_NS / SECOND_NS)
    lost = [m for m in two.mail[ALICE] if isinstance(m, BlockHeralded)]
    assert [m.block for m in lost] == [m.block for m in told]
    assert all(m.digest == b"" for m in lost)
    two.settle()
    voids = [a for a in two.actions if isinstance(a, Note) and a.name == "block_void"]
    assert len(voids) == 2 * len(told), "both ends take the slots' next blocks"
    assert two.keys(ALICE) == two.keys(BOB) != {}


def test_everything_said_twice_to_a_slow_device_voids_no_block() -> None:
    two = agreed()
    for name in (ALICE, BOB):
        two.work(name)
    two.report(ALICE)
    for message in list(two.mail[BOB]) * 2:
        two.feed(BOB, PeerSaid(ALICE, message))
    two.pass_time(HERALD_LATE_NS / SECOND_NS - 1)
    two.settle()
    assert not [a for a in two.actions if isinstance(a, Note) and a.name == "block_void"]
    assert two.keys(ALICE) == two.keys(BOB) != {}


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
