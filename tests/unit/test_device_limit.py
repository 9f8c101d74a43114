"""A device that holds fewer pairs than a block has rounds: no session, and the text says why."""

from dataclasses import replace

from tests.support.asked_cores import answers, met, own_plan, said
from tests.support.cores import POLICY, port, told
from tests.support.two_cores import ALICE, BOB

from bellhop.hal.operations import NodeName, Ready, Side
from bellhop.stack.core import Reported
from bellhop.stack.diqkd.parameters import decode_parameters
from bellhop.stack.messages import Abort, Accept, Propose

SIDES = {ALICE: Side.A, BOB: Side.B}


def limited(name: NodeName, rounds_max: int) -> Reported:
    return Reported(Ready((replace(port(SIDES[name]), rounds_max=rounds_max),)))


def test_a_session_is_refused_whose_blocks_the_own_device_cannot_hold() -> None:
    two = met()
    two.feed(ALICE, limited(ALICE, 16))
    two.ask(ALICE)
    outcome, reason = answers(two.actions)[1]
    assert outcome == "refused"
    assert f"diqkd.block_rounds = {POLICY.block_rounds}" in str(reason)
    assert "16 pairs" in str(reason)


def test_a_proposal_is_declined_whose_blocks_the_device_here_cannot_hold() -> None:
    two = met()
    two.feed(BOB, limited(BOB, POLICY.block_rounds - 1))
    session = decode_parameters(own_plan()).session
    actions = said(two, BOB, Propose(session, own_plan()))
    (abort,) = [message for message in told(actions) if isinstance(message, Abort)]
    assert "block_rounds" in abort.reason and f"{POLICY.block_rounds - 1} pairs" in abort.reason


def test_blocks_that_just_fit_are_taken() -> None:
    two = met()
    two.feed(BOB, limited(BOB, POLICY.block_rounds))
    session = decode_parameters(own_plan()).session
    actions = said(two, BOB, Propose(session, own_plan()))
    assert any(isinstance(message, Accept) for message in told(actions))
