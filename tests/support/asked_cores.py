"""Two cores and what one asks of them, for the tests of whole nodes."""

from collections.abc import Sequence

from tests.support.cores import POLICY, plan, told
from tests.support.two_cores import ALICE, BOB, OTHER, TwoCores

from bellhop.hal.operations import NodeName
from bellhop.stack.core import Action, Answer, PeerSaid, Refuse
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import Message, Propose

CAROL = NodeName("carol")
OTHER_ID = SessionId("ee" * 16)
STALL_S = POLICY.stall_ns / 1e9


def met(seed: int = 1, masks: int = 64) -> TwoCores:
    two = TwoCores(seed, masks)
    two.meet()
    return two


def proposed() -> TwoCores:
    """Alice has proposed; Bob has not heard it."""
    two = met()
    two.ask(ALICE)
    two.work(ALICE)
    return two


def said(two: TwoCores, name: NodeName, message: Message) -> list[Action]:
    return two.feed(name, PeerSaid(OTHER[name], message))


def answers(actions: Sequence[Action]) -> dict[int, tuple[str, object]]:
    return {
        a.number: (a.outcome, a.fields.get("reason", "")) for a in actions if isinstance(a, Answer)
    }


def reasons(actions: Sequence[Action]) -> list[str]:
    return [a.reason for a in actions if isinstance(a, Refuse)]


def session_of(two: TwoCores, name: NodeName) -> SessionId:
    (one,) = two.core[name].snapshot()["sessions"]
    return SessionId(one["session"])


def stage_of(two: TwoCores, name: NodeName) -> str:
    (one,) = two.core[name].snapshot()["sessions"]
    return str(one["stage"])


def proposal_of(two: TwoCores) -> Propose:
    """What Alice has said and Bob has not heard."""
    (message,) = [m for m in two.mail[BOB] if isinstance(m, Propose)]
    return message


def running() -> TwoCores:
    two = proposed()
    two.hear(BOB)
    two.hear(ALICE)
    return two


def own_plan() -> bytes:
    return plan().encode()


def proposal_id(two: TwoCores) -> SessionId:
    return next(m.session for m in told(two.actions) if isinstance(m, Propose))
