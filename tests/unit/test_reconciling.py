"""More syndrome on request: in steps, persisted before it is told, paid, and never taken back."""

import hashlib
import json
from dataclasses import replace

import pytest
from tests.support.cores import ALICE, BOB, OTHER, SESSION, facts_of, kinds, told
from tests.support.distilling import (
    NOW_NS,
    Both,
    OneEnd,
    P,
    extra_of,
    reasons,
    restarted,
    stores,
)

from bellhop.hal.operations import NodeName
from bellhop.stack.core import Action, Compute, Persist, Tell
from bellhop.stack.diqkd.distil import STEPS_DIFFER
from bellhop.stack.diqkd.jobs import Decode, EncodeExtra, ExtraEncoded, ExtraWanted, Received
from bellhop.stack.diqkd.parameters import key_bits_of
from bellhop.stack.diqkd.stages import ORDER, read_verification, steps_given
from bellhop.stack.messages import Decoded, Stage, SyndromeExtra, SyndromeWanted, Tagged


def talk(both: Both, until: Stage | None = None) -> list[object]:
    """All that is said, in order, up to and without hearing `until`."""
    waiting = [(end.own, m) for end in both.ends.values() for m in told(end.advance())]
    said: list[object] = []
    while waiting:
        speaker, message = waiting.pop(0)
        said.append(message)
        if isinstance(message, Tagged):
            both.said.append(message)
            if message.stage is until:
                break
        listener = both.ends[OTHER[speaker]]
        waiting += [(listener.own, m) for m in told(listener.hear(message))]
    return said


def asked(steps: int) -> SyndromeWanted:
    return SyndromeWanted(SESSION, steps)


def given(steps: int) -> SyndromeExtra:
    return SyndromeExtra(SESSION, steps, extra_of(P, steps))


def after_syndrome(wanted: tuple[int, ...] = (3,)) -> Both:
    """Alice has said her syndrome, which Bob has not heard."""
    both = Both(wanted=wanted)
    talk(both, until=Stage.SYNDROME)
    return both


# --- a good end -----------------------------------------------------------------------------------


def test_bob_asks_until_his_decoder_is_content_and_every_step_is_paid() -> None:
    both = Both(losses=220, wanted=(2, 3))
    said = talk(both)
    steps = [m for m in said if isinstance(m, SyndromeWanted | SyndromeExtra | Decoded)]
    assert steps == [asked(2), given(2), asked(3), given(3), Decoded(SESSION)]
    (one,), (other,) = stores(both.alice), stores(both.bob)
    assert one.block.slots == other.block.slots
    account = json.loads(one.block.receipt)["session"]
    assert account["leak"]["extra_steps"] == 3
    assert account["leak"]["extra_syndrome"] == 3 * P.code.step_bits
    tests = account["run"]["tests"]
    bound_bits = account["key"]["bound_bits"]
    assert bound_bits == key_bits_of(P, tests, 220, 3)
    assert bound_bits == key_bits_of(P, tests, 220, 0) - 3 * P.code.step_bits


def test_the_verification_says_how_many_steps_there_were_and_its_tag_covers_them() -> None:
    both = Both(wanted=(3,))
    talk(both, until=Stage.VERIFICATION)
    alice, bob = both.alice.record, both.bob.record
    message = both.last(Stage.VERIFICATION)
    assert read_verification(message.body)[0] == 3 == steps_given(alice)
    bob.extra = bytes([bob.extra[0] ^ 1]) + bob.extra[1:]
    assert reasons(both.bob.hear(message)) == ["tag_wrong"]


def test_steps_are_in_the_transcript_of_the_receipt() -> None:
    """At both ends, by the digest of what was given."""
    both = Both(wanted=(3,))
    talk(both)
    given = hashlib.sha256(both.alice.record.extra).hexdigest()
    for end in both.ends.values():
        (block,) = stores(end)
        transcript = json.loads(block.block.receipt)["session"]["transcript"]
        assert transcript["extra_syndrome_sha256"] == given


def before_telling(actions: list[Action], kind: type) -> set[str]:
    """Names of the facts that are persisted before the first message of a kind is told."""
    names: set[str] = set()
    for action in actions:
        if isinstance(action, Tell) and isinstance(action.message, kind):
            return names
        names |= {fact.name for fact in facts_of([action])}
    raise AssertionError("it is not told")


def test_steps_are_persisted_before_they_are_told_and_before_they_are_used() -> None:
    both = Both(wanted=(3,))
    talk(both)
    name = f"session/{SESSION}/extra"
    assert name in before_telling(both.alice.actions, SyndromeExtra)
    assert name in before_telling(both.bob.actions, Decoded)
    assert both.alice.facts[name] == both.bob.facts[name] == bytes([3]) + extra_of(P, 3)


# --- repetition, loss, restarts -------------------------------------------------------------------


def test_what_was_given_is_told_again_to_whoever_asks_for_no_more() -> None:
    both = after_syndrome()
    assert told(both.alice.hear(asked(3))) == [given(3)]
    for steps in (3, 1):
        actions = both.alice.hear(asked(steps))
        assert kinds(actions) == ["Tell"] and told(actions) == [given(3)]
    assert told(both.alice.hear(asked(4))) == [given(4)]


def test_a_repeated_answer_changes_nothing() -> None:
    both = after_syndrome((3, 5))
    assert told(both.bob.hear(both.last(Stage.SYNDROME))) == [asked(3)]
    assert told(both.bob.hear(given(3))) == [asked(5)]
    for steps in (1, 3):
        assert both.bob.hear(given(steps)) == []
    assert both.bob.record.steps == 3


def test_what_nobody_asked_for_is_passed_over() -> None:
    both = after_syndrome(())
    assert told(both.bob.hear(both.last(Stage.SYNDROME))) == [Decoded(SESSION)]
    assert both.bob.hear(given(2)) == []
    assert both.bob.record.steps == 0


def test_more_than_was_asked_for_is_taken() -> None:
    """Alice has given five to a Bob who has forgotten that he asked."""
    both = after_syndrome()
    both.bob.hear(both.last(Stage.SYNDROME))
    assert told(both.bob.hear(given(5))) == [Decoded(SESSION)]
    assert both.bob.record.steps == 5


def test_a_request_that_was_lost_is_told_again() -> None:
    both = after_syndrome()
    both.bob.hear(both.last(Stage.SYNDROME))
    heard = tuple(both.alice.record.heard)
    assert asked(3) in told(both.bob.distilling.retell(heard, decoded=False))
    both.bob.hear(given(3))
    assert told(both.bob.distilling.retell(heard, decoded=False)) == [
        *(m for m in both.bob.record.said.values() if m.stage not in heard),
        Decoded(SESSION),
    ]


@pytest.mark.parametrize("own", [ALICE, BOB])
@pytest.mark.parametrize("stage", [Stage.SYNDROME, Stage.VERIFICATION, Stage.DECISION])
def test_an_end_that_restarts_goes_on_to_the_same_key(own: NodeName, stage: Stage) -> None:
    both = Both(losses=4, wanted=(2, 4))
    talk(both, until=stage)
    decoded = list(both.bob.decoded)
    both.ends[own] = again = restarted(both.ends[own])
    both.alice, both.bob = both.ends[ALICE], both.ends[BOB]
    both.bob.decoded = decoded if own is ALICE or stage is Stage.SYNDROME else decoded[-1:]
    carry(both, again)
    (one,), (other,) = stores(both.alice), stores(both.bob)
    assert one.block.slots == other.block.slots
    assert json.loads(one.block.receipt)["session"]["leak"]["extra_steps"] == 4


def carry(both: Both, again: OneEnd) -> None:
    """Each says again what the other lacks, and answers what it hears."""
    again.advance()
    for _ in range(12):
        for speaker in (both.alice, both.bob):
            listener = both.ends[OTHER[speaker.own]]
            heard = tuple(listener.record.heard)
            decoded = listener.distilling.peer_decoded
            waiting = told(speaker.distilling.retell(heard, decoded=decoded))
            for message in waiting:
                for answer in told(listener.hear(message)):
                    speaker.hear(answer)


def test_alice_who_restarts_has_given_what_she_has_given() -> None:
    both = after_syndrome()
    both.alice.hear(asked(3))
    again = restarted(both.alice)
    assert again.record.steps == 3
    assert told(again.hear(asked(2))) == [given(3)]


def test_a_request_while_she_works_is_answered_with_the_most_that_was_asked_for() -> None:
    both = after_syndrome()
    alice = both.alice
    first = alice.distilling.hear_wanted(asked(2))
    (order,) = [a for a in first if isinstance(a, Compute)]
    assert isinstance(order.work, EncodeExtra) and alice.distilling.moved
    assert alice.distilling.hear_wanted(asked(6)) == []
    assert alice.distilling.hear_wanted(asked(4)) == []
    done = alice.do(alice.distilling.computed(1, order.job, ExtraEncoded(2, extra_of(P, 2))))
    assert told(done) == [given(2), given(6)]


def test_what_is_ready_after_the_verification_is_not_given_any_more() -> None:
    both = after_syndrome()
    alice = both.alice
    (order,) = alice.distilling.hear_wanted(asked(2))
    assert isinstance(order, Compute)
    assert [type(m) for m in told(alice.hear(Decoded(SESSION)))] == [Tagged]
    assert alice.distilling.computed(1, order.job, ExtraEncoded(2, extra_of(P, 2))) == []
    assert alice.record.steps == 0


# --- hostile --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, -1, P.steps_max + 1, 1 << 40])
def test_steps_that_the_design_does_not_have_are_refused(steps: int) -> None:
    both = after_syndrome()
    assert reasons(both.alice.hear(asked(steps))) == ["steps_beyond_the_design"]
    both.bob.hear(both.last(Stage.SYNDROME))
    message = replace(given(1), steps=steps)
    assert reasons(both.bob.hear(message)) == ["extra_syndrome_beyond_the_design"]


def test_a_request_before_the_syndrome_or_to_bob_is_refused() -> None:
    both = Both()
    assert reasons(both.alice.hear(asked(1))) == ["steps_unexpected"]
    both = after_syndrome()
    both.bob.hear(both.last(Stage.SYNDROME))
    assert reasons(both.bob.hear(asked(1))) == ["steps_unexpected"]


def test_more_is_refused_once_the_verification_is_said() -> None:
    both = Both(wanted=(2,))
    talk(both)
    assert told(both.alice.hear(asked(2))) == [given(2)]
    assert reasons(both.alice.hear(asked(3))) == ["steps_too_late"]


def test_extra_syndrome_before_the_syndrome_or_to_alice_is_refused() -> None:
    both = after_syndrome()
    assert reasons(both.bob.hear(given(1))) == ["extra_syndrome_unexpected"]
    assert reasons(both.alice.hear(given(1))) == ["extra_syndrome_unexpected"]


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
def test_bits_of_another_length_are_refused(change: object) -> None:
    both = after_syndrome()
    both.bob.hear(both.last(Stage.SYNDROME))
    assert callable(change)
    message = replace(given(3), bits=change(given(3).bits))
    assert reasons(both.bob.hear(message)) == ["extra_syndrome_length"]
    assert both.bob.record.steps == 0


def test_bits_that_were_other_bits_before_are_refused() -> None:
    both = after_syndrome((3, 5))
    both.bob.hear(both.last(Stage.SYNDROME))
    both.bob.hear(given(3))
    bits = given(5).bits
    message = replace(given(5), bits=bytes([bits[0] ^ 1]) + bits[1:])
    assert reasons(both.bob.hear(message)) == ["extra_syndrome_changed"]
    assert both.bob.record.steps == 3


def test_ends_that_hold_different_steps_end_without_a_key() -> None:
    """Somebody asked in Bob's name: she says how much she gave, and he does not have it."""
    both = Both()
    talk(both, until=Stage.SYNDROME)
    both.alice.hear(asked(2))
    both.bob.hear(both.last(Stage.SYNDROME))
    (message,) = told(both.alice.hear(Decoded(SESSION)))
    assert reasons(both.bob.hear(message)) == ["steps_differ"]
    assert both.bob.distilling.failure == f"reconciliation failed: {STEPS_DIFFER}"
    assert both.bob.pool.forgeries == 0


def bob_heard_a_forged_decoded(wanted: tuple[int, ...]) -> tuple[Both, Tagged]:
    """Somebody who broke the channel but no tag makes Alice say her verification early."""
    both = after_syndrome(wanted)
    asks = told(both.bob.hear(both.last(Stage.SYNDROME)))
    assert asks == [asked(wanted[0])], "held back"
    (message,) = told(both.alice.hear(Decoded(SESSION)))
    assert isinstance(message, Tagged) and read_verification(message.body)[0] == 0
    return both, message


def test_a_verification_while_bob_waits_for_steps_is_not_taken() -> None:
    """Its hash key is known then, and the steps that he waits for have no tag yet."""
    both, message = bob_heard_a_forged_decoded((3,))
    seen = both.bob.pool.masks_left_incoming
    assert reasons(both.bob.hear(message)) == ["steps_differ"]
    assert both.bob.distilling.failure == f"reconciliation failed: {STEPS_DIFFER}"
    assert Stage.VERIFICATION not in both.bob.record.heard
    assert both.bob.pool.masks_left_incoming == seen and both.bob.pool.forgeries == 0


def decodes(end: OneEnd) -> list[Received]:
    orders = [a.work for a in end.actions if isinstance(a, Compute)]
    return [work.received for work in orders if isinstance(work, Decode)]


@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_given_to_a_bob_who_has_the_verification(again: bool) -> None:
    """Nor after a restart: he decodes what he had then."""
    both = Both()
    talk(both, until=Stage.VERIFICATION)
    bob = both.bob = restarted(both.bob)
    bob.facts |= {f.name: f.payload for f in facts_of(bob.actions)}
    (order,) = [a for a in bob.distilling.advance(NOW_NS) if isinstance(a, Compute)]
    bob.note(bob.do(bob.distilling.hear_tagged(NOW_NS, both.last(Stage.VERIFICATION))))
    if again:
        bob = restarted(bob)
    assert Stage.VERIFICATION in bob.record.heard and bob.record.corrected is None
    for steps in (1, 3, P.steps_max):
        assert reasons(bob.hear(given(steps))) == ["extra_syndrome_too_late"]
    assert bob.record.steps == 0 and bob.record.extra == b""
    done = bob.advance() if again else bob.note(bob.do(finished(bob, order)))
    assert [m.stage for m in told(done) if isinstance(m, Tagged)] == [Stage.DECISION]
    assert all((one.steps, one.extra) == (0, b"") for one in decodes(bob)) and decodes(bob)


def finished(end: OneEnd, order: Compute) -> list[Action]:
    return end.distilling.computed(NOW_NS, order.job, end.work(order))


def test_steps_that_an_earlier_version_took_too_late_make_no_key() -> None:
    both = Both()
    talk(both, until=Stage.VERIFICATION)
    bob = restarted(both.bob)
    bob.distilling.advance(NOW_NS)  # the decoder is at work
    bob.do(bob.distilling.hear_tagged(NOW_NS, both.last(Stage.VERIFICATION)))
    fact = bob.record.give(3, extra_of(P, 3))
    bob.facts[fact.name] = fact.payload
    bob = restarted(bob)
    assert bob.record.steps == 3
    assert told(bob.advance()) == []
    assert bob.distilling.failure == f"reconciliation failed: {STEPS_DIFFER}"


def test_a_decoder_that_wants_more_after_the_verification_gives_up() -> None:
    both = Both()
    talk(both, until=Stage.VERIFICATION)
    again = restarted(both.bob)
    again.decoded = [ExtraWanted(2)]
    again.hear(both.last(Stage.VERIFICATION))
    failure = again.distilling.failure
    assert failure is not None and failure.startswith("reconciliation failed")
    assert all(not isinstance(m, SyndromeWanted) for m in told(again.actions))


def test_no_bits_show_in_a_repr() -> None:
    both = Both(wanted=(3,))
    talk(both)
    shown = repr(both.alice.actions) + repr(both.bob.actions) + repr(both.bob.record)
    assert repr(extra_of(P, 3))[2:40] not in shown
    assert [m.stage for m in both.said] == list(ORDER)
    assert any(isinstance(a, Persist) for a in both.alice.actions)
