"""Sessions as a node's operators see them: given up, counted, answered."""

import json

from tests.support.two_cores import ALICE, BOB, TwoCores, pool_file

from bellhop.stack.core import AbortSession, Answer, Asked, Persist
from bellhop.stack.ids import AskNumber
from bellhop.stack.messages import Abort


def receipt_counts(two: TwoCores) -> list[int]:
    """How often the device was used before each session, by Alice's receipts and by Bob's."""
    receipts = [
        json.loads(block.receipt)
        for name in (ALICE, BOB)
        for block in two.store[name].deliverable.values()
    ]
    return [receipt["device_sessions_before"] for receipt in receipts]


def test_a_restart_between_store_and_confirmation_counts_the_device_once() -> None:
    two = TwoCores(seed=3)
    two.meet()
    two.ask(ALICE)
    two.go_on(until=lambda: bool(two.store[BOB].held))
    two.restart(BOB)
    two.go_on()
    assert len(two.keys(ALICE)) > 0 and two.keys(ALICE) == two.keys(BOB)
    two.ask(ALICE)
    two.go_on()
    assert receipt_counts(two) == [0, 1, 0, 1]


def test_an_operator_gives_up_what_is_proposed_and_not_answered() -> None:
    two = TwoCores()
    two.meet()
    two.ask(ALICE)
    two.work(ALICE)
    actions = two.feed(ALICE, Asked(AskNumber(9), AbortSession(BOB)))
    answers = {a.number: a.outcome for a in actions if isinstance(a, Answer)}
    assert answers == {1: "aborted", 9: "aborted"}
    assert isinstance(two.mail[BOB][-1], Abort), "the peer may have agreed meanwhile"
    two.go_on()
    assert two.core[ALICE].idle and two.core[BOB].idle


def test_pools_that_differ_are_found_before_a_session_begins() -> None:
    """One node was given another pool: its operator and the other's are told at once."""
    two = TwoCores()
    two.meet()
    two.store[BOB].perform(Persist(pool_file(seed=2).facts(BOB, ALICE), (f"pool/{ALICE}/",)))
    two.restart(BOB)
    before = two.core[ALICE].snapshot()["peers"]
    two.ask(ALICE)
    two.go_on()
    (answer,) = [a for a in two.actions if isinstance(a, Answer)]
    assert answer.outcome == "refused"
    why = "the authentication pools differ: bellhop pool provision at both nodes"
    assert answer.fields["reason"] == f"declined by bob: {why}"
    assert two.core[ALICE].snapshot()["peers"] == before, "no mask is spent"
    assert two.core[ALICE].idle and two.core[BOB].idle
