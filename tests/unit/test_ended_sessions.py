"""How a session ended is told to whoever ran it, and to nobody else."""

import numpy as np
import pytest
from tests.support.asked_cores import met, own_plan, reasons, running, session_of
from tests.support.cores import POLICY, told
from tests.support.two_cores import ALICE, BOB, OTHER, TwoCores

from bellhop.hal.operations import NodeName
from bellhop.node.chance import SeededRng
from bellhop.node.sim.identities import simulated_identity
from bellhop.stack.core import AbortSession, Action, Asked, CalibrateLink, PeerSaid, Tick
from bellhop.stack.diqkd.endings import Past, read_past
from bellhop.stack.ids import AskNumber, SessionId
from bellhop.stack.messages import (
    Abort,
    Accept,
    BlockStored,
    CalibrationResult,
    Decoded,
    Message,
    Paused,
    Position,
    Propose,
)
from bellhop.stack.node import NodeCore, NodeSettings

CAROL = NodeName("carol")


def stored() -> tuple[TwoCores, SessionId]:
    two = running()
    id_ = session_of(two, ALICE)
    two.settle()
    assert two.keys(ALICE)
    return two, id_


def aborted() -> tuple[TwoCores, SessionId]:
    two = running()
    id_ = session_of(two, ALICE)
    two.feed(ALICE, Asked(AskNumber(9), AbortSession(BOB)))
    two.settle()
    return two, id_


def calibrated() -> tuple[TwoCores, SessionId]:
    two = met()
    two.feed(ALICE, Asked(AskNumber(1), CalibrateLink(BOB, 2_000)))
    two.settle()
    (id_,) = [name.removeprefix("ended/") for name in facts(two, ALICE)]
    return two, SessionId(id_)


ENDINGS = {"stored": stored, "aborted": aborted, "calibrated": calibrated}


def facts(two: TwoCores, name: NodeName) -> dict[str, bytes]:
    return {k: v for k, v in two.store[name].facts.items() if k.startswith("ended/")}


def third(two: TwoCores, own: NodeName) -> NodeCore:
    """This end after a restart, with another peer in its configuration."""
    settings = NodeSettings(own, (OTHER[own], CAROL), POLICY)
    core = NodeCore(settings, SeededRng(9), two.store[own].restored(), simulated_identity(own))
    core.step(two.now_ns, Tick())
    return core


def said(core: NodeCore, peer: NodeName, message: Message) -> list[Action]:
    return core.step(0, PeerSaid(peer, message))


def asking(id_: SessionId) -> list[Message]:
    """What a peer says that wants to know how a session ended."""
    position = Position(id_, 0, np.zeros(0, np.bool_))
    return [position, Propose(id_, own_plan()), BlockStored(id_, confirmed=False)]


@pytest.mark.parametrize("own", [ALICE, BOB])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_third_peer_hears_nothing_of_a_session_of_two_others(own: NodeName, ending: str) -> None:
    two, id_ = ENDINGS[ending]()
    core = third(two, own)
    for message in asking(id_):
        assert told(said(core, CAROL, message)) == [Abort(id_, "not known here")]
        (answer,) = told(said(core, OTHER[own], message))
        match ending:
            case "stored":
                assert isinstance(answer, BlockStored) and answer.confirmed
            case "calibrated":
                assert isinstance(answer, CalibrationResult)
            case _:
                assert isinstance(answer, Abort) and "given up" in answer.reason


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_else_a_third_peer_says_of_it_is_of_no_session(ending: str) -> None:
    two, id_ = ENDINGS[ending]()
    core = third(two, ALICE)
    for message in (Decoded(id_), Paused(id_, True), CalibrationResult(id_, (0,) * 5, (0,) * 5)):
        assert reasons(said(core, CAROL, message)) == ["session_unknown"]
    assert reasons(said(core, CAROL, Accept(id_, b""))) == ["accept_unexpected"]
    assert said(core, BOB, Accept(id_, b"")) == []
    assert said(core, CAROL, BlockStored(id_, confirmed=True)) == []


def test_a_session_id_of_others_is_not_used_again() -> None:
    two, id_ = aborted()
    core = third(two, ALICE)
    said(core, CAROL, Propose(id_, own_plan()))
    assert core.idle and core._desk.ended[id_].peer == BOB


# --- facts ----------------------------------------------------------------------------------------


def test_a_fact_says_how_and_with_whom() -> None:
    id_ = SessionId("ab" * 16)
    for past in (Past("stored", BOB), Past("Bell test too weak: S = 2.1", CAROL)):
        fact = past.fact(id_)
        assert fact.name == f"ended/{id_}" and read_past(fact.payload) == past
        assert past.concerns(past.peer or BOB) and not past.concerns(ALICE)


@pytest.mark.parametrize("ending", ENDINGS)
def test_facts_without_a_peer_are_read_and_say_no_more_than_that_it_ended(ending: str) -> None:
    """An earlier version wrote them. A stored one is no abort, or the peer would void its keys."""
    two, id_ = ENDINGS[ending]()
    name = f"ended/{id_}"
    two.store[ALICE].facts[name] = read_past(two.store[ALICE].facts[name]).how.encode()
    core = third(two, ALICE)
    assert core._desk.ended[id_].peer is None
    for message in asking(id_):
        (answer,) = told(said(core, BOB, message))
        if ending == "stored":
            assert isinstance(answer, BlockStored) and answer.confirmed
        else:
            assert answer == Abort(id_, "it has ended here")
