"""From the last round to the key: order, persistence, score, forged tags, commitment, crashes."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tests.support.cores import (
    ALICE,
    BOB,
    EAT_POLICY,
    NOISY_POLICY,
    OTHER,
    POLICY,
    SESSION,
    bits_of,
    facts_of,
    kinds,
    measured_records,
    plan,
    told,
)
from tests.support.distilling import NOW_NS, Both, P, reasons, restarted, stores

from bellhop.hal.operations import NodeName
from bellhop.stack.codec import pack
from bellhop.stack.core import Compute, Persist, Tell
from bellhop.stack.diqkd.device_use import read_use
from bellhop.stack.diqkd.distil import POOL_ADVICE, STRINGS_DIFFER
from bellhop.stack.diqkd.jobs import TOO_MANY_ERRORS, Corrected
from bellhop.stack.diqkd.parameters import KEY_BITS_MIN, Parameters, SessionPolicy, key_bits_of
from bellhop.stack.diqkd.pool import FORGERIES_MAX
from bellhop.stack.diqkd.stages import (
    ORDER,
    SENT_BY_ALICE,
    key_bits_whole,
    read_decision,
    read_verification,
)
from bellhop.stack.diqkd.verify import VERIFICATION_KEY_BYTES, verification_tag
from bellhop.stack.messages import BlockStored, Decoded, Stage, Tagged

# --- a good end -----------------------------------------------------------------------------------


def test_both_ends_store_the_same_keys() -> None:
    both = Both(losses=5, errors=3)
    both.run()
    (one,), (other,) = stores(both.alice), stores(both.bob)
    assert one.block.slots == other.block.slots and len(one.block.slots) > 0
    assert one.block.source == "emulated"
    assert [end.record.stored for end in both.ends.values()] == [True, True]
    assert (one.block.peer, other.block.peer) == (BOB, ALICE)


def test_the_stages_go_in_their_order_each_under_a_mask_of_its_own() -> None:
    both = Both()
    both.run()
    assert [m.stage for m in both.said] == list(ORDER)
    masks = [(SENT_BY_ALICE[m.stage], m.batch, m.number) for m in both.said]
    assert len(set(masks)) == 8
    assert [n for alice, _, n in masks if alice] == [0, 1, 2, 3, 4]
    assert [n for alice, _, n in masks if not alice] == [0, 1, 2]


def test_a_stage_and_its_mask_are_persisted_before_it_leaves() -> None:
    both = Both()
    both.run()
    for end in both.ends.values():
        kept: set[str] = set()
        for action in end.actions:
            kept |= {fact.name for fact in facts_of([action])}
            if isinstance(action, Tell) and isinstance(action.message, Tagged):
                message = action.message
                assert f"session/{SESSION}/said/{message.stage.value}" in kept
                peer = OTHER[end.own]
                assert f"pool/{peer}/used/{message.batch}" in kept
            if isinstance(action, Tell) and isinstance(action.message, BlockStored):
                assert f"device/{P.link}" in kept, "the keys are on the disk"


def test_what_was_said_and_its_mask_are_one_fact_list() -> None:
    """Both or neither: a mask of a message that may have left is never free again."""
    both = Both()
    (persist, *_) = both.alice.advance()
    assert isinstance(persist, Persist)
    names = [fact.name for fact in persist.put]
    assert names == [f"session/{SESSION}/said/transcript_a", "pool/bob/used/provisioned"]


def test_the_key_is_cut_to_whole_bytes_and_pays_for_its_tags() -> None:
    both = Both()
    both.run()
    key = json.loads(stores(both.alice)[0].block.receipt)["session"]["key"]
    tests = int(np.count_nonzero(both.alice.record.tests))
    assert key["bound_bits"] == key_bits_of(P, tests, losses=0, steps=0) > KEY_BITS_MIN
    assert key["gross_bits"] == key["bound_bits"] - key["bound_bits"] % 8
    assert key["net_bits"] == key["gross_bits"] - 8 * 64 - 256
    assert key["tag_bits_spent"] == 8 * 64


def test_storing_brings_masks_for_the_next_session_and_forgets_the_raw_bits() -> None:
    both = Both()
    both.run()
    for end in both.ends.values():
        (store,) = stores(end)
        put = {fact.name: fact.payload for fact in store.persist.put}
        assert read_use(put[f"device/{P.link}"]).sessions == 4
        assert f"pool/{OTHER[end.own]}/batch/{SESSION}" in put
        assert store.persist.forget == end.record.raw_prefixes
        assert end.record.outcomes.size == end.record.settings.size == 0
        assert end.record.corrected is None and end.distilling._reconciling.corrected is None
        end.pool.ready(SESSION)
    assert both.alice.pool.masks_left == 16 and both.bob.pool.masks_left == 16
    mask = [end.pool.spend()[0] for end in both.ends.values()]
    assert mask[0].secret != mask[1].secret


# --- the score ------------------------------------------------------------------------------------


def most_losses(p: Parameters) -> int:
    """As many lost tests as leave a key."""
    tests = int(np.count_nonzero(measured_records(parameters=p)[ALICE].tests))
    left = (k for k in range(tests) if key_bits_of(p, tests, k + 1, 0) < KEY_BITS_MIN)
    return next(left)


@pytest.mark.parametrize("policy", [POLICY, EAT_POLICY])
def test_as_many_losses_as_leave_a_key_and_not_one_more(policy: SessionPolicy) -> None:
    p = plan(policy=policy)
    most = most_losses(p)
    assert p.losses_max in (None, most)
    both = Both(losses=most, parameters=p)
    both.run()
    assert len(stores(both.alice)) == len(stores(both.bob)) == 1
    assert both.bob.distilling.counts() is not None
    both = Both(losses=most + 1, parameters=p)
    both.run()
    failure = both.bob.distilling.failure
    assert failure is not None and failure.startswith("Bell test too weak: S = ")
    assert [m.stage for m in both.said] == list(ORDER[:6]), "no decision, no counts"
    assert not stores(both.alice) + stores(both.bob)


def test_a_key_is_as_long_as_what_was_seen_allows() -> None:
    lengths = []
    for losses in (200, 220, 240):
        both = Both(losses=losses)
        both.run()
        tests = int(np.count_nonzero(both.alice.record.tests))
        (stored,) = stores(both.bob)
        bits = json.loads(stored.block.receipt)["session"]["key"]["gross_bits"]
        assert bits == key_bits_of(P, tests, losses, 0) // 8 * 8
        lengths.append(bits)
    assert lengths[0] > lengths[1] > lengths[2]


def test_what_alice_flips_is_in_her_string_and_in_the_count_of_errors() -> None:
    p = plan(policy=NOISY_POLICY)
    both = Both(errors=5, parameters=p)
    flips = both.alice.record.flips
    expected = float(p.flip_probability)
    assert expected > 0 and abs(np.mean(flips[~both.alice.record.tests]) - expected) < 0.01
    assert not flips[both.alice.record.tests].any(), "no bit of a test"
    raw = both.alice.record.outcomes.copy()
    both.run()
    counts = read_decision(both.bob.record, both.last(Stage.DECISION).body)
    assert counts.errors == 5, "of the flipped bits"
    corrected = next(f for f in facts_of(both.bob.actions) if f.name.endswith("/corrected"))
    assert corrected.payload == pack(raw ^ flips) != pack(raw)
    assert stores(both.alice)[0].block.slots == stores(both.bob)[0].block.slots


def test_the_decision_says_the_exact_counts_and_no_more() -> None:
    both = Both(losses=17, errors=9)
    both.run(until=Stage.DECISION)
    decision = both.last(Stage.DECISION)
    assert decision.body == (17).to_bytes(8, "big") + (9).to_bytes(8, "big")
    counts = read_decision(both.alice.record, decision.body)
    tests = int(np.count_nonzero(both.alice.record.tests))
    assert (counts.rounds, counts.tests) == (P.rounds, tests)
    assert both.alice.distilling.counts() is None, "not heard yet"


def test_strings_that_differ_end_without_a_key() -> None:
    both = Both()
    wrong = bits_of(both.alice.record)
    wrong[123] ^= 1
    both.bob.decoded = [Corrected(wrong)]
    both.run()
    assert both.bob.distilling.failure == f"verification failed: {STRINGS_DIFFER}"
    assert both.said[-1].stage is Stage.VERIFICATION


def test_a_decoder_that_finds_nothing_ends_without_a_key() -> None:
    both = Both()
    both.bob.decoded = [TOO_MANY_ERRORS]
    both.run()
    assert both.bob.distilling.failure == f"reconciliation failed: {TOO_MANY_ERRORS}"
    assert both.said[-1].stage is Stage.SYNDROME, "no word that he has decoded"


def test_the_hash_key_is_drawn_after_bob_has_his_string() -> None:
    both = Both()
    both.run(until=Stage.SYNDROME)
    assert Stage.VERIFICATION not in both.alice.record.said
    assert both.alice.advance() == []
    both.bob.hear(both.last(Stage.SYNDROME))
    both.alice.hear(Decoded(SESSION))
    said = both.alice.record.said[Stage.VERIFICATION]
    steps, key, tag = read_verification(said.body)
    assert steps == 0 and len(key) == VERIFICATION_KEY_BYTES
    assert tag == verification_tag(key, pack(bits_of(both.alice.record)))


def test_word_of_decoding_fits_only_alice_who_has_said_her_syndrome() -> None:
    both = Both()
    assert reasons(both.alice.hear(Decoded(SESSION))) == ["decoded_unexpected"]
    assert reasons(both.bob.hear(Decoded(SESSION))) == ["decoded_unexpected"]
    both.run()
    both.alice.distilling.moved = False
    assert both.alice.hear(Decoded(SESSION)) == [] and not both.alice.distilling.moved


# --- malformed, forged, repeated ------------------------------------------------------------------


def seed_bits(both: Both) -> int:
    counts = both.bob.distilling.counts()
    return 0 if counts is None else P.rounds + key_bits_whole(both.bob.record, counts) - 1


def shorter(message: Tagged) -> Tagged:
    return replace(message, body=message.body[:-1] if message.body else b"x")


def flipped(message: Tagged) -> Tagged:
    return replace(message, tag=bytes([message.tag[0] ^ 1]) + message.tag[1:])


@pytest.mark.parametrize("stage", ORDER)
def test_the_first_wrong_tag_is_counted_and_ends_the_session(stage: Stage) -> None:
    both = Both()
    both.run(until=stage)
    end = both.listener(stage)
    end.distilling.moved = False
    actions = end.hear(flipped(both.last(stage)))
    assert kinds(actions) == ["Persist", "Refuse"]
    assert [f.name for f in facts_of(actions)] == [f"pool/{OTHER[end.own]}/forgeries"]
    assert reasons(actions) == ["tag_wrong"] and end.pool.forgeries == 1
    assert end.distilling.failure == f"authentication failed: tag_wrong; {POOL_ADVICE}"
    assert stage not in end.record.heard and not end.distilling.moved


@pytest.mark.parametrize("stage", ORDER)
def test_a_body_of_another_length_is_refused_before_its_tag_is_looked_at(stage: Stage) -> None:
    both = Both()
    both.run(until=stage)
    end = both.listener(stage)
    assert reasons(end.hear(shorter(both.last(stage)))) == ["stage_malformed"]
    assert end.pool.forgeries == 0 and end.distilling.failure is None


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        (Stage.INPUTS_A, lambda b: b[:-1] + b"\xff"),
        (Stage.SYNDROME, lambda b: b[:-1] + b"\xff"),
        (Stage.AMPLIFICATION, lambda b: b[:-1] + b"\xff"),
        (Stage.DECISION, lambda b: (most_losses(P) + 1).to_bytes(8, "big") + b[8:]),
        (Stage.DECISION, lambda b: b[:8] + (P.rounds).to_bytes(8, "big")),
        (Stage.DECISION, lambda b: b"\xff" * 16),
    ],
)
def test_a_body_that_cannot_be_is_refused(stage: Stage, change: Callable[[bytes], bytes]) -> None:
    both = Both()
    both.run(until=stage)
    message = both.last(stage)
    changed = replace(message, body=change(message.body))
    padded = stage in (Stage.INPUTS_A, Stage.SYNDROME, Stage.AMPLIFICATION)
    whole = {
        Stage.INPUTS_A: int(np.count_nonzero(both.alice.record.tests)),
        Stage.SYNDROME: P.code.syndrome_bits,
        Stage.AMPLIFICATION: seed_bits(both),
    }.get(stage, 1)
    expected = "tag_wrong" if padded and whole % 8 == 0 else "stage_malformed"
    assert reasons(both.listener(stage).hear(changed)) == [expected]


def test_after_the_pool_is_worn_no_tag_is_looked_at() -> None:
    both = Both()
    both.run(until=Stage.AMPLIFICATION)
    bob, message = both.bob, both.last(Stage.AMPLIFICATION)
    for _ in range(FORGERIES_MAX):
        assert reasons(bob.hear(flipped(message))) == ["tag_wrong"]
        bob.distilling.failure = None  # he may not end it: he has said his decision
    assert reasons(bob.hear(message)) == ["pool_worn"]
    assert bob.pool.forgeries == FORGERIES_MAX


def test_a_repetition_is_passed_over_and_another_word_refused() -> None:
    both = Both()
    both.run()
    for stage in ORDER:
        end, message = both.listener(stage), both.last(stage)
        assert end.hear(message) == []
        assert reasons(end.hear(flipped(message))) == ["stage_changed"]
    assert both.alice.pool.forgeries == both.bob.pool.forgeries == 0


def test_what_comes_early_is_passed_over() -> None:
    both = Both()
    both.run()
    other = Both()
    for stage in ORDER[2:]:
        assert other.listener(stage).hear(both.last(stage)) == []


def test_a_stage_said_back_to_its_sender_is_refused() -> None:
    both = Both()
    stage = Stage.TRANSCRIPT_A
    message = Tagged(SESSION, stage, b"", "provisioned", 0, bytes(8))
    alice = both.alice
    assert reasons(alice.hear(message)) == ["stage_not_theirs"]


def test_tests_that_differ_at_the_two_ends_are_found_by_the_first_tag() -> None:
    both = Both()
    tests = both.bob.record.tests
    tests[0] = ~tests[0]
    both.run()
    assert both.bob.distilling.failure == f"authentication failed: tag_wrong; {POOL_ADVICE}"


def test_heralds_that_differ_at_the_two_ends_are_found_by_the_first_tag() -> None:
    both = Both()
    both.bob.record.patterns[7] = 1
    both.run()
    assert both.bob.distilling.failure == f"authentication failed: tag_wrong; {POOL_ADVICE}"


def test_without_masks_the_session_fails_and_does_not_raise() -> None:
    both = Both(masks=2)
    both.run()
    assert (
        both.alice.distilling.failure
        == f"authentication failed: the pool is used up; {POOL_ADVICE}"
    )
    said = [m.stage for m in both.said if SENT_BY_ALICE[m.stage]]
    assert said == [Stage.TRANSCRIPT_A, Stage.INPUTS_A]


# --- restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [ALICE, BOB])
@pytest.mark.parametrize("stage", ORDER)
def test_an_end_that_restarts_at_any_stage_goes_on_to_the_same_key(
    own: NodeName, stage: Stage
) -> None:
    both = Both(losses=4)
    both.run(until=stage)
    both.ends[own] = again = restarted(both.ends[own])
    both.alice, both.bob = both.ends[ALICE], both.ends[BOB]
    again.advance()
    for _ in range(12):  # each says again what the other lacks
        for speaker in (both.alice, both.bob):
            listener = both.ends[OTHER[speaker.own]]
            heard = tuple(listener.record.heard)
            decoded = listener.distilling.peer_decoded
            for message in told(speaker.distilling.retell(heard, decoded=decoded)):
                listener.hear(message)
    (one,), (other,) = stores(both.alice), stores(both.bob)
    assert one.block.slots == other.block.slots


def test_bob_keeps_the_string_he_has_accepted() -> None:
    """He may not give up any more: no decoder has to find it a second time."""
    both = Both(losses=4)
    both.run(until=Stage.DECISION)
    actions = [a for a in both.bob.actions if isinstance(a, Persist)]
    decision = next(a for a in actions if any("said/decision" in f.name for f in a.put))
    corrected = next(f for f in decision.put if f.name == f"session/{SESSION}/corrected")
    assert corrected.payload == pack(bits_of(both.alice.record))
    again = restarted(both.bob)
    again.decoded = [TOO_MANY_ERRORS]
    both.alice.hear(both.last(Stage.DECISION))
    again.hear(both.alice.record.said[Stage.AMPLIFICATION])
    assert stores(again)[0].block.slots == stores(both.alice)[0].block.slots


def test_a_job_that_fails_after_the_decision_is_ordered_again() -> None:
    both = Both()
    both.run(until=Stage.AMPLIFICATION)
    bob = both.bob
    actions = bob.distilling.hear_tagged(NOW_NS, both.last(Stage.AMPLIFICATION))
    (order,) = [a for a in actions if isinstance(a, Compute)]
    bob.distilling.compute_failed(order.job, "the worker died")
    assert bob.distilling.failure == (
        "computation failed here: amplify, the worker died: see the log of this node"
    )
    bob.distilling.failure = None
    bob.advance()
    assert len(stores(bob)) == 1


def test_a_code_that_could_not_be_prepared_is_no_failure() -> None:
    both = Both()
    (order,) = both.alice.distilling.prepare()
    assert isinstance(order, Compute) and both.alice.distilling.owns(order.job)
    both.alice.distilling.compute_failed(order.job, "no worker")
    assert both.alice.distilling.failure is None
    assert not both.alice.distilling.owns(order.job)


def test_work_is_ordered_once() -> None:
    both = Both()
    both.run(until=Stage.INPUTS_B)
    alice = both.alice
    actions = alice.distilling.hear_tagged(NOW_NS, both.last(Stage.INPUTS_B))
    assert kinds(actions).count("Compute") == 1
    assert alice.distilling.advance(NOW_NS) == []


def test_no_secret_shows_in_a_repr() -> None:
    both = Both()
    both.run()
    key = stores(both.alice)[0].block.slots[0].key
    shown = repr(both.alice.actions) + repr(both.bob.actions) + repr(both.alice.record)
    assert key.hex() not in shown and repr(key)[2:-1] not in shown
    seed = both.last(Stage.AMPLIFICATION).body
    assert repr(seed)[2:40] not in shown
