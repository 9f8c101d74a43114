"""Sessions as a node's operators see them: given up, counted, answered."""

import json
from dataclasses import replace

from tests.support.two_cores import ALICE, BOB, TwoCores, pool_file

from bellhop.stack.core import AbortSession, Answer, Asked, Computed, Note, PeerSaid, Persist
from bellhop.stack.diqkd.jobs import Encode, Encoded
from bellhop.stack.ids import AskNumber
from bellhop.stack.messages import Abort, BlockStored, Propose


def receipt_counts(two: TwoCores) -> list[int]:
    """How often the device was used before each session, by Alice's receipts and by Bob's."""
    receipts = [
        json.loads(block.receipt)
        for name in (ALICE, BOB)
        for block in two.store[name].deliverable.values()
    ]
    ends = ("alice",) * len(two.store[ALICE].deliverable) + ("bob",) * len(receipts)
    return [
        receipt["ends"][end]["statement"]["device"]["sessions_before"]
        for end, receipt in zip(ends, receipts, strict=False)
    ]


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


def test_codes_that_differ_leave_no_key() -> None:
    """Alice has built another matrix than Bob: her syndrome says so, and nothing is decoded."""
    two = TwoCores()
    two.meet()
    two.ask(ALICE)
    two.go_on(until=lambda: bool(two.jobs[ALICE]) and isinstance(two.jobs[ALICE][0].work, Encode))
    order = two.jobs[ALICE].popleft()
    encoded = order.work.run()
    assert isinstance(encoded, Encoded)
    two.feed(ALICE, Computed(order.job, replace(encoded, code_digest=bytes(32))))
    two.settle()
    aborted = [a for a in two.actions if isinstance(a, Note) and a.name == "session_aborted"]
    why = (
        "reconciliation failed: the two ends built different codes: run the same version of bellhop"
        " at both"
    )
    assert [note.fields["reason"] for note in aborted] == [why, f"by bob: {why}"]
    for name in (ALICE, BOB):
        assert two.keys(name) == {} and not two.store[name].held
        assert not any(
            "batch/" in fact and "provisioned" not in fact for fact in two.store[name].facts
        )


def test_a_refused_request_is_not_the_last_session() -> None:
    two = TwoCores()
    two.meet()
    two.ask(ALICE)
    two.settle()
    last = two.core[ALICE].snapshot()["last_session"]
    assert last["outcome"] == "stored" and two.core[ALICE].snapshot()["last_refusal"] == {}
    two.ask(ALICE, rounds=1_000)
    two.settle()
    shown = two.core[ALICE].snapshot()
    assert shown["last_session"] == last
    assert shown["last_refusal"]["outcome"] == "refused" and shown["last_refusal"]["reason"]


def test_a_proposal_that_comes_again_late_does_not_void_what_both_have_stored() -> None:
    """Bob has yet to hear that Alice has the keys too, and she hands them out already."""
    two = TwoCores()
    two.meet()
    two.ask(BOB)
    two.go_on(until=lambda: bool(two.mail[ALICE]))
    proposal = two.mail[ALICE][0]
    assert isinstance(proposal, Propose)
    two.go_on(until=lambda: bool(two.keys(ALICE)))
    assert two.store[BOB].held and not two.keys(BOB)
    two.mail[BOB].clear()  # with her word of it
    two.feed(ALICE, PeerSaid(BOB, proposal))
    two.settle()
    assert two.keys(ALICE) == two.keys(BOB) != {}


def test_no_abort_takes_back_what_both_have_stored() -> None:
    """Alice's word that she has stored comes before Bob has: his keys are out as he stores them."""
    two = TwoCores()
    two.meet()
    two.ask(ALICE)
    two.go_on(until=lambda: bool(two.store[ALICE].held))
    (session,) = two.store[ALICE].held
    assert not two.store[BOB].held and not two.keys(BOB)
    two.feed(BOB, PeerSaid(ALICE, BlockStored(session, confirmed=False)))
    two.go_on(until=lambda: bool(two.keys(BOB)))
    assert two.feed(BOB, PeerSaid(ALICE, Abort(session, "late"))) == []
    two.settle()
    assert two.keys(ALICE) == two.keys(BOB) != {}
