"""Golden conversations of two cores: every event, and every action that follows, word for word.

`pytest tests/transcripts --rewrite-transcripts` (or `make transcripts`) writes them anew; commit
only a difference you understand.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.two_cores import ALICE, BOB, TwoCores

from bellhop.hal.operations import DeviceGone, Heralded, Measured
from bellhop.stack.core import (
    AbortSession,
    Action,
    Answer,
    Asked,
    Note,
    PeerSaid,
    Refuse,
    Reported,
    Tell,
)
from bellhop.stack.ids import AskNumber, SessionId
from bellhop.stack.messages import (
    Abort,
    Accept,
    BlockHeralded,
    BlockStored,
    Decoded,
    Propose,
    SlotDone,
    Stage,
    Tagged,
    TestRounds,
)

GOLDEN = Path(__file__).parent / "golden"


def proposed() -> TwoCores:
    two = TwoCores()
    two.meet()
    two.say("Alice's operator asks for a session")
    two.ask(ALICE)
    two.work(ALICE)
    return two


def agreed() -> TwoCores:
    two = proposed()
    two.hear(BOB)
    two.hear(ALICE)
    for name in (ALICE, BOB):
        two.work(name)
    return two


def silently(two: TwoCores, until: Callable[[], bool]) -> None:
    """Go on as honest nodes do, without a word of it in the transcript."""
    lines = list(two.lines)
    two.go_on(until)
    two.lines = [*lines, "", "# (as in the transcript of a whole session)"]


def refusals(two: TwoCores) -> list[str]:
    return [action.reason for action in two.actions if isinstance(action, Refuse)]


def notes(two: TwoCores, name: str) -> int:
    return sum(isinstance(action, Note) and action.name == name for action in two.actions)


def tagged(two: TwoCores, stage: Stage) -> Tagged:
    """A tagged message that waits to be heard."""
    return next(
        message
        for mail in two.mail.values()
        for message in mail
        if isinstance(message, Tagged) and message.stage is stage
    )


def waits(two: TwoCores, stage: Stage) -> bool:
    return any(
        isinstance(message, Tagged) and message.stage is stage
        for mail in two.mail.values()
        for message in mail
    )


def whole_session() -> TwoCores:
    two = agreed()
    two.say("rounds, stages, keys")
    two.go_on()
    assert two.keys(ALICE) == two.keys(BOB) != {}
    return two


def declined() -> TwoCores:
    """Bob's device is away: he will not have a session."""
    two = TwoCores()
    two.meet()
    two.say("the emulator forgets Bob: to him it is gone")
    two.feed(BOB, Reported(DeviceGone("the emulator stopped")))
    two.ask(ALICE)
    two.work(ALICE)
    two.hear(BOB)
    two.hear(ALICE)
    answers = [action for action in two.actions if isinstance(action, Answer)]
    assert [answer.outcome for answer in answers] == ["refused"]
    return two


def proposals_cross() -> TwoCores:
    two = TwoCores()
    two.meet()
    two.say("both operators ask at once")
    for name in (ALICE, BOB):
        two.ask(name)
    for name in (ALICE, BOB):
        two.work(name)
    two.say("each hears the other's proposal: that of the first name holds")
    two.hear(BOB)
    two.hear(ALICE)
    assert len(two.core[ALICE].snapshot()["sessions"]) == 1
    return two


def heralds_differ() -> TwoCores:
    two = agreed()
    two.say("one herald differs at Bob's end: the block is void at both, and another is made")
    two.report(ALICE, 1)
    report = two.reports[BOB].popleft().report
    assert isinstance(report, Heralded)
    patterns = report.patterns.copy()
    patterns[7] ^= 2
    two.feed(BOB, Reported(replace(report, patterns=patterns)))
    two.hear(BOB)
    two.hear(ALICE)
    assert notes(two, "block_void") == 2
    silently(two, lambda: False)
    two.lines += ["", f"# the session is {len(two.keys(ALICE))} keys long in the end"]
    assert two.keys(ALICE) == two.keys(BOB) != {}
    return two


def herald_told_otherwise() -> TwoCores:
    two = agreed()
    two.say("Alice's word on a block comes again, and is another")
    two.report(ALICE, 1)
    told = two.mail[BOB][0]
    assert isinstance(told, BlockHeralded)
    two.hear(BOB, 1)
    two.feed(BOB, PeerSaid(ALICE, replace(told, digest=bytes(32))))
    assert "link_digest" in refusals(two)
    return two


def other_tests() -> TwoCores:
    two = agreed()
    silently(two, lambda: any(isinstance(m, TestRounds) for m in two.mail[BOB]))
    two.say("the test rounds of a slot come again, and are others")
    message = next(m for m in two.mail[BOB] if isinstance(m, TestRounds))
    while not isinstance(two.mail[BOB][0], TestRounds):
        two.hear(BOB, 1)
    two.hear(BOB, 1)
    two.feed(BOB, PeerSaid(ALICE, replace(message, tests=np.logical_not(message.tests))))
    two.say("the same again changes nothing")
    two.feed(BOB, PeerSaid(ALICE, message))
    assert "tests_changed" in refusals(two)
    return two


def wrong_tag() -> TwoCores:
    two = agreed()
    silently(two, lambda: waits(two, Stage.SYNDROME))
    two.say("the syndrome comes with another tag")
    message = tagged(two, Stage.SYNDROME)
    two.feed(BOB, PeerSaid(ALICE, replace(message, tag=bytes(len(message.tag)))))
    assert "tag_wrong" in refusals(two)
    return two


def mask_replayed() -> TwoCores:
    two = agreed()
    silently(two, lambda: waits(two, Stage.INPUTS_A))
    first = tagged(two, Stage.INPUTS_A)
    two.hear(BOB, 1)
    silently(two, lambda: waits(two, Stage.SYNDROME))
    two.say("the syndrome comes under the mask of an earlier message")
    message = tagged(two, Stage.SYNDROME)
    two.feed(BOB, PeerSaid(ALICE, replace(message, number=first.number)))
    assert "mask_used_before" in refusals(two)
    return two


def restart_in_mid_slot() -> TwoCores:
    two = agreed()
    silently(two, lambda: any(isinstance(d.report, Measured) for d in two.reports[ALICE]))
    two.say("Alice's settings are drawn and stored; she stops before her device's answer is heard")
    two.restart(ALICE)
    two.say("positions tell what was lost")
    for _ in range(3):
        two.hear(BOB)
        two.hear(ALICE)
    (session,) = two.core[ALICE]._desk.running()
    assert session.record.measured.first > 0 and not session.record.outcomes.any()
    return two


def restart_before_confirmation() -> TwoCores:
    two = agreed()
    silently(two, lambda: bool(two.store[BOB].held) and bool(two.store[ALICE].held))
    two.say("both have stored; Bob stops before he hears that Alice has")
    two.restart(BOB)
    two.hear(ALICE)
    two.hear(BOB)
    two.hear(ALICE)
    assert two.keys(ALICE) == two.keys(BOB) != {}
    return two


def told_again() -> TwoCores:
    two = agreed()
    silently(two, lambda: any(isinstance(m, SlotDone) for m in two.mail[ALICE]))
    two.say("everything on its way is lost; after a while each tells its position")
    for name in (ALICE, BOB):
        two.mail[name].clear()
    two.pass_time(2.0)
    for name in (BOB, ALICE):
        two.hear(name)
    return two


def given_up() -> TwoCores:
    two = agreed()
    two.say("Bob's operator gives the session up")
    two.feed(BOB, Asked(AskNumber(7), AbortSession(ALICE)))
    two.hear(ALICE)
    two.say("what still comes of it is answered by its end")
    two.report(ALICE)
    session = next(session for session in map(aborted, two.actions) if session is not None)
    two.feed(BOB, PeerSaid(ALICE, SlotDone(session, 0)))
    two.feed(BOB, PeerSaid(ALICE, BlockStored(session, confirmed=False)))
    assert two.core[ALICE].idle and two.core[BOB].idle
    return two


def aborted(action: Action) -> SessionId | None:
    """The session that an action tells the end of."""
    if isinstance(action, Tell) and isinstance(action.message, Abort):
        return action.message.session
    return None


def nonsense() -> TwoCores:
    two = proposed()
    two.say("proposals that cannot be")
    message = two.mail[BOB][0]
    assert isinstance(message, Propose)
    two.feed(BOB, PeerSaid(ALICE, replace(message, parameters=b"{}")))
    other = message.parameters.replace(b'"rounds":24000', b'"rounds":24001')
    two.feed(BOB, PeerSaid(ALICE, replace(message, parameters=other)))
    two.say("messages of no session")
    unknown = SessionId("f" * 32)
    two.feed(BOB, PeerSaid(ALICE, Decoded(unknown)))
    two.feed(BOB, PeerSaid(ALICE, Accept(unknown, b"")))
    two.feed(BOB, PeerSaid(ALICE, BlockStored(unknown, confirmed=False)))
    return two


CONVERSATIONS: tuple[Callable[[], TwoCores], ...] = (
    whole_session,
    declined,
    proposals_cross,
    heralds_differ,
    herald_told_otherwise,
    other_tests,
    wrong_tag,
    mask_replayed,
    restart_in_mid_slot,
    restart_before_confirmation,
    told_again,
    given_up,
    nonsense,
)


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda each: each.__name__)
def test_conversation(conversation: Callable[[], TwoCores], pytestconfig: pytest.Config) -> None:
    text = "\n".join(conversation().lines).strip() + "\n"
    golden = GOLDEN / f"{conversation.__name__}.txt"
    if pytestconfig.getoption("--rewrite-transcripts"):
        golden.write_text(text)
    assert golden.exists(), "write it with: make transcripts"
    assert text.splitlines() == golden.read_text().splitlines(), "see: make transcripts"
