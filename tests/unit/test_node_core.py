"""A node's core: hostile and crossing proposals, the ends of sessions, a device's nonsense."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from tests.support.asked_cores import (
    CAROL,
    OTHER_ID,
    STALL_S,
    answers,
    met,
    own_plan,
    proposal_of,
    proposed,
    reasons,
    running,
    said,
    session_of,
    stage_of,
)
from tests.support.cores import POLICY, kinds, told
from tests.support.two_cores import ALICE, BOB, OTHER, ROUNDS, TwoCores

from bellhop.hal.operations import DeviceGone, NodeName
from bellhop.stack.core import (
    AbortSession,
    Asked,
    ComputeFailed,
    ConfirmKeys,
    PeerJoined,
    PeerLost,
    Persist,
    Reported,
    RunSession,
    VoidKeys,
)
from bellhop.stack.diqkd import endings
from bellhop.stack.diqkd.endings import Past
from bellhop.stack.ids import AskNumber, SessionId
from bellhop.stack.messages import (
    REASON_CHARACTERS_MAX,
    Abort,
    Accept,
    BlockStored,
    Decoded,
    Message,
    Position,
    Propose,
    Stage,
    Tagged,
)

# --- asking ---------------------------------------------------------------------------------------


def test_a_session_asked_for_is_answered_once_both_have_the_keys() -> None:
    two = met()
    two.ask(BOB)
    two.go_on()
    assert answers(two.actions) == {1: ("stored", "")}
    assert two.keys(ALICE) == two.keys(BOB) and len(two.keys(ALICE)) > 0
    assert two.core[ALICE].idle and two.core[BOB].idle


@pytest.mark.parametrize(
    ("rounds", "peer", "why"),
    [
        (0, BOB, "a session has 1 to"),
        (-1, BOB, "a session has 1 to"),
        (10**9, BOB, "a session has 1 to"),
        (ROUNDS, CAROL, "no peer of this node"),
        (ROUNDS, ALICE, "no peer of this node"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(rounds: int, peer: NodeName, why: str) -> None:
    two = met()
    actions = two.feed(ALICE, Asked(AskNumber(9), RunSession(peer, rounds)))
    assert kinds(actions) == ["Answer"] and answers(actions)[9][0] == "refused"
    assert why in str(answers(actions)[9][1])


def test_without_peer_device_or_pool_nothing_begins() -> None:
    two = met()
    two.feed(ALICE, PeerLost(BOB))
    assert "not connected" in str(answers(two.ask(ALICE))[1][1])
    two.feed(ALICE, PeerJoined(BOB))
    two.feed(ALICE, Reported(DeviceGone("pulled")))
    assert "memory is not connected" in str(answers(two.ask(ALICE))[2][1])
    poor = met(masks=4)
    assert "used up" in str(answers(poor.ask(ALICE))[1][1])


def test_one_session_a_peer_is_under_way_at_a_time() -> None:
    two = met()
    two.ask(ALICE)
    assert "under way" in str(answers(two.ask(ALICE))[2][1]), "while it is planned"
    two.work(ALICE)
    assert "under way" in str(answers(two.ask(ALICE))[3][1]), "while it is proposed"
    two.hear(BOB)
    two.hear(ALICE)
    for name in (ALICE, BOB):
        assert "under way" in str(next(iter(answers(two.ask(name)).values()))[1])


def test_a_plan_that_gives_no_key_or_fails_is_answered() -> None:
    two = met()
    two.ask(ALICE, rounds=1_000)
    two.work(ALICE)
    two.ask(ALICE)
    job = two.jobs[ALICE].popleft()
    two.feed(ALICE, ComputeFailed(job.job, "the worker died"))
    got = answers(two.actions)
    assert got[1][0] == got[2][0] == "refused"
    assert got[2][1] == "planning failed: the worker died"
    assert not two.mail[BOB] and two.core[ALICE].idle


# --- agreeing -------------------------------------------------------------------------------------


def test_a_proposal_is_persisted_before_it_leaves_and_agreement_before_it_is_told() -> None:
    two = met()
    two.ask(ALICE)
    mark = len(two.actions)
    two.work(ALICE)
    assert kinds(two.actions[mark:]) == ["Persist", "Tell"]
    mark = len(two.actions)
    two.hear(BOB)
    assert kinds(two.actions[mark:])[:2] == ["Persist", "Tell"]
    (accept, *_) = told(two.actions[mark:])
    digest = hashlib.sha256(proposal_bytes(two)).digest()
    assert accept == Accept(session_of(two, BOB), digest)
    mark = len(two.actions)
    two.hear(ALICE, 1)
    assert kinds(two.actions[mark:])[0] == "Persist"


def proposal_bytes(two: TwoCores) -> bytes:
    """As Alice persisted them."""
    proposals = [m for m in told(two.actions) if isinstance(m, Propose)]
    return proposals[0].parameters


def test_a_lost_accept_is_made_good_by_the_next_proposal() -> None:
    two = proposed()
    two.hear(BOB)
    two.mail[ALICE].clear()
    assert stage_of(two, ALICE) == "proposed" and stage_of(two, BOB) == "heralding"
    two.pass_time(2.0)
    two.settle()
    assert answers(two.actions) == {1: ("stored", "")}


def test_a_position_says_that_the_peer_has_agreed() -> None:
    two = proposed()
    two.hear(BOB)
    two.mail[ALICE].clear()
    slots = np.zeros(3, np.bool_)
    actions = said(two, ALICE, Position(session_of(two, ALICE), 0, slots, accepted=True))
    assert stage_of(two, ALICE) == "heralding" and kinds(actions)[0] == "Persist"


def test_repeated_proposals_and_accepts_change_nothing() -> None:
    two = proposed()
    proposal = proposal_of(two)
    two.hear(BOB)
    (accept,) = [m for m in two.mail[ALICE] if isinstance(m, Accept)]
    assert told(said(two, BOB, proposal)) == [accept]
    two.hear(ALICE)
    assert said(two, ALICE, accept) == []
    two.go_on()
    assert two.keys(ALICE) == two.keys(BOB) != {}
    assert said(two, ALICE, accept) == []
    late = told(said(two, BOB, proposal))
    assert late == [BlockStored(proposal.session, confirmed=True)], "an id is used once"


def test_who_agrees_to_something_else_has_not_agreed() -> None:
    two = proposed()
    actions = said(two, ALICE, Accept(session_of(two, ALICE), bytes(32)))
    assert reasons(actions) == ["accept_of_another_proposal"]
    assert [type(m) for m in told(actions)] == [Abort]
    assert answers(two.actions)[1][0] == "refused" and two.core[ALICE].idle
    assert reasons(said(two, ALICE, Accept(OTHER_ID, bytes(32)))) == ["accept_unexpected"]


@pytest.mark.parametrize("order", [(ALICE, BOB), (BOB, ALICE)])
def test_of_two_proposals_that_cross_that_of_the_first_name_holds(
    order: tuple[NodeName, NodeName],
) -> None:
    two = met()
    two.ask(ALICE)  # 1
    two.ask(BOB)  # 2
    two.work(ALICE)
    two.work(BOB)
    for name in order:
        two.hear(name)
    two.settle()
    got = answers(two.actions)
    assert got[1] == ("stored", "")
    assert got[2] == ("refused", "alice proposed a session at the same time")
    assert len(two.store[ALICE].deliverable) == 1
    assert [n for n in two.store[BOB].facts if n.startswith("session/")] == []


def test_a_declined_proposal_is_answered_and_forgotten() -> None:
    two = proposed()
    two.feed(BOB, Reported(DeviceGone("pulled")))
    two.hear(BOB)
    two.hear(ALICE)
    assert answers(two.actions) == {
        1: ("refused", "declined by bob: the memory is not connected here")
    }
    assert [n for n in two.store[ALICE].facts if n.startswith("session/")] == []
    assert two.core[ALICE].idle and two.core[BOB].idle


def test_a_proposal_that_is_never_answered_ends() -> None:
    two = proposed()
    id_ = session_of(two, ALICE)
    two.mail[BOB].clear()
    two.feed(ALICE, PeerLost(BOB))
    assert two.core[ALICE].next_deadline() == POLICY.stall_ns
    two.pass_time(STALL_S)
    assert answers(two.actions) == {1: ("refused", "bob did not answer the proposal")}
    assert two.core[ALICE].idle
    assert two.mail[BOB][-1] == Abort(id_, "bob did not answer the proposal")


def test_a_proposal_outlives_a_restart_and_is_told_again() -> None:
    two = proposed()
    proposal = proposal_of(two)
    two.mail[BOB].clear()
    two.restart(ALICE)
    assert proposal_of(two) == proposal
    two.settle()
    assert two.keys(ALICE) == two.keys(BOB) != {}


# --- the ends of sessions -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ALICE, BOB])
def test_an_abort_ends_the_session_at_both_ends(name: NodeName) -> None:
    two = running()
    id_ = session_of(two, name)
    two.feed(name, Asked(AskNumber(9), AbortSession(OTHER[name])))
    two.settle()
    assert two.core[ALICE].idle and two.core[BOB].idle
    got = answers(two.actions)
    assert got[9][0] == "aborted" and got[1][0] == "aborted"
    assert two.keys(ALICE) == two.keys(BOB) == {}
    for own in (ALICE, BOB):
        kept = two.store[own].facts
        assert [n for n in kept if n.startswith(("session/", "link/"))] == []
        assert f"ended/{id_}" in kept


@pytest.mark.parametrize("name", [ALICE, BOB])
def test_a_lost_abort_is_made_good_when_the_peer_says_anything(name: NodeName) -> None:
    two = running()
    two.feed(name, Asked(AskNumber(9), AbortSession(OTHER[name])))
    two.mail[OTHER[name]].clear()
    two.pass_time(2.0)
    two.settle()
    assert two.core[ALICE].idle and two.core[BOB].idle


def test_past_the_decision_bob_may_not_give_up_and_the_key_comes() -> None:
    two = running()
    two.go_on(until=lambda: any(_is(m, Stage.DECISION) for m in two.mail[ALICE]))
    actions = two.feed(BOB, Asked(AskNumber(9), AbortSession(ALICE)))
    assert answers(actions)[9] == (
        "refused",
        "it is past the point where one end may give up",
    )
    two.settle()
    assert two.keys(ALICE) == two.keys(BOB) != {}


def _is(message: Message, stage: Stage) -> bool:
    return isinstance(message, Tagged) and message.stage is stage


def test_alice_who_gives_up_after_bobs_decision_takes_him_along() -> None:
    two = running()
    two.go_on(until=lambda: any(_is(m, Stage.DECISION) for m in two.mail[ALICE]))
    two.mail[ALICE].clear()
    actions = two.feed(ALICE, Asked(AskNumber(9), AbortSession(BOB)))
    assert answers(actions)[9][0] == "aborted"
    two.settle()
    assert two.keys(ALICE) == two.keys(BOB) == {} and not two.store[BOB].held


def held() -> tuple[TwoCores, SessionId]:
    """Alice has stored her keys, Bob has lost everything he knew of the session."""
    two = running()
    two.go_on(until=lambda: bool(two.store[ALICE].held))
    id_ = session_of(two, ALICE)
    for kind in ("session/", "link/", f"pool/{ALICE}/batch/{id_}"):
        two.store[BOB].perform(Persist((), (kind,)))
    two.store[BOB].held.clear()
    two.mail[ALICE].clear()
    two.restart(BOB)
    return two, id_


def test_keys_that_the_peer_can_never_have_are_voided_with_their_masks() -> None:
    two, id_ = held()
    mark = len(two.actions)
    two.go_on()
    actions = two.actions[mark:]
    assert [a.session for a in actions if isinstance(a, VoidKeys)] == [id_]
    assert two.store[ALICE].held == {} == two.store[ALICE].deliverable
    facts = two.store[ALICE].facts
    assert [n for n in facts if id_ in n] == [f"ended/{id_}"]
    assert two.core[ALICE].idle
    two.ask(ALICE)
    two.go_on()
    assert two.keys(ALICE) == two.keys(BOB) != {}


def test_a_crash_between_voiding_and_forgetting_voids_again() -> None:
    two, id_ = held()
    facts = dict(two.store[ALICE].facts)
    two.store[ALICE].perform(VoidKeys(id_, "x"))
    two.mail[ALICE].clear()
    two.mail[BOB].clear()
    mark = len(two.actions)
    two.restart(ALICE)
    voided = [a for a in two.actions[mark:] if isinstance(a, VoidKeys)]
    assert [a.session for a in voided] == [id_]
    assert any(id_ in n for n in facts if n.startswith("session/"))
    assert not any(id_ in n for n in two.store[ALICE].facts if n.startswith("session/"))
    assert two.core[ALICE].snapshot()["held"] == [] and two.core[ALICE].idle


def test_a_confirmation_after_both_have_spent_the_batch_is_taken() -> None:
    """Bob confirmed first and used all masks of the block; his word of it comes at last."""
    two = running()
    two.go_on(until=lambda: bool(two.store[ALICE].held and two.store[BOB].held))
    id_ = session_of(two, ALICE)
    _hers, word = [m for m in told(two.actions) if isinstance(m, BlockStored)]
    pool = two.core[ALICE]._desk.pools[BOB]
    while pool.masks_left:
        pool.spend()
    for batch, count in (("provisioned", 64), (id_, 3)):
        pool.saw(batch, count - 1)
    while pool.masks_left:
        pool.spend()
    actions = said(two, ALICE, replace(word, confirmed=True))
    (confirm,) = [a for a in actions if isinstance(a, ConfirmKeys)]
    assert [f.name for f in confirm.persist.put] == [f"ended/{id_}"]
    assert f"pool/bob/batch/{id_}" in confirm.persist.forget


def test_what_comes_after_the_end_is_answered_with_the_end() -> None:
    two = running()
    id_ = session_of(two, ALICE)
    two.settle()
    slots = np.zeros(3, np.bool_)
    assert told(said(two, ALICE, Position(id_, 0, slots))) == [BlockStored(id_, confirmed=True)]
    assert told(said(two, ALICE, BlockStored(id_, confirmed=False))) == [
        BlockStored(id_, confirmed=True)
    ]
    assert said(two, ALICE, BlockStored(id_, confirmed=True)) == []
    assert said(two, ALICE, Abort(id_, "no")) == [], "the keys are out"
    assert two.keys(ALICE) == two.keys(BOB) != {}


def test_of_what_is_not_known_nothing_goes_on() -> None:
    two = met()
    slots = np.zeros(3, np.bool_)
    assert told(said(two, ALICE, Position(OTHER_ID, 0, slots))) == [
        Abort(OTHER_ID, "not known here")
    ]
    assert told(said(two, ALICE, BlockStored(OTHER_ID, False))) == [
        Abort(OTHER_ID, "not known here")
    ]
    assert said(two, ALICE, BlockStored(OTHER_ID, True)) == []
    assert said(two, ALICE, Abort(OTHER_ID, "x")) == []
    assert reasons(said(two, ALICE, Decoded(OTHER_ID))) == ["session_unknown"]


def test_aborts_do_not_drive_out_the_memory_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "ABORTED_MAX", 3)
    two = running()
    id_ = session_of(two, ALICE)
    two.settle()
    ended = two.core[ALICE]._desk.ended
    forgotten = [ended.remember(SessionId(f"{k:032x}"), Past("by bob: no", BOB)) for k in range(10)]
    assert ended[id_] == Past("stored", BOB)
    assert len(ended) == 4 and forgotten[3] == [Persist((), (f"ended/{0:032x}",))]


def test_an_abort_told_from_end_to_end_does_not_grow() -> None:
    two = running()
    id_ = session_of(two, ALICE)
    said(two, ALICE, Abort(id_, "x" * REASON_CHARACTERS_MAX))
    (message,) = told(said(two, ALICE, Propose(id_, own_plan())))
    assert isinstance(message, Abort)
    assert message.reason.startswith("by bob: xxx")
    assert len(message.reason) == REASON_CHARACTERS_MAX
