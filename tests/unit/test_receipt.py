"""Receipts: the same at both ends but for who wrote them, and true to what was done."""

import json
from typing import Any

import pytest
from tests.support.two_cores import ALICE, BOB, LINK, POLICY, ROUNDS, TwoCores

from bellhop.stack.diqkd.parameters import hash_error
from bellhop.stack.diqkd.receipt import BLOCK_IDEALISATION

ONLY_THIS_END = {"node", "peer", "stored_ns", "own_randomness"}


@pytest.fixture(scope="module")
def receipts() -> list[dict[str, Any]]:
    """Of two sessions in a row, Alice's and Bob's: [a1, b1, a2, b2]."""
    two = TwoCores(seed=12)
    two.meet()
    for asking in (ALICE, BOB):
        two.now_ns += 10**9
        two.ask(asking)
        two.go_on()
    blocks = {name: list(two.store[name].deliverable.values()) for name in (ALICE, BOB)}
    assert [len(b) for b in blocks.values()] == [2, 2]
    return [json.loads(blocks[name][k].receipt) for k in (0, 1) for name in (ALICE, BOB)]


@pytest.mark.parametrize("session", [0, 1])
def test_both_ends_say_the_same(receipts: list[dict[str, Any]], session: int) -> None:
    alice, bob = receipts[2 * session : 2 * session + 2]
    assert alice.keys() == bob.keys()
    assert {k for k in alice if alice[k] != bob[k]} <= ONLY_THIS_END
    assert (alice["node"], alice["peer"]) == (bob["peer"], bob["node"]) == (ALICE, BOB)
    assert (alice["alice"], alice["bob"]) == (ALICE, BOB), "the port says who is who"


def test_a_receipt_says_how_often_the_device_was_used_before(
    receipts: list[dict[str, Any]],
) -> None:
    assert [r["device_sessions_before"] for r in receipts] == [0, 0, 1, 1]


def test_a_receipt_says_what_was_seen_and_what_was_demanded(
    receipts: list[dict[str, Any]],
) -> None:
    one = receipts[0]
    assert (one["rounds"], one["link"], one["source"]) == (ROUNDS, LINK.name, "emulated")
    assert one["s"] == pytest.approx(8 * (1 - one["losses"] / one["tests"]) - 4)
    assert one["qber"] == pytest.approx(one["errors"] / (ROUNDS - one["tests"]))
    assert one["losses"] <= one["design"]["losses_max"]
    assert one["design"]["s"] == POLICY.s_design and one["epsilon"] == POLICY.epsilon
    assert one["own_randomness"] == "a seeded generator, of a simulation"
    assert BLOCK_IDEALISATION in one["idealisations"] and len(one["idealisations"]) > 1


def test_a_receipt_accounts_for_every_bit(receipts: list[dict[str, Any]]) -> None:
    for one in receipts:
        assert one["leak_bits"] == sum(one["leak"].values())
        assert one["leak"]["verification"] == 64 and one["tag_bits_spent"] == 512
        assert one["key_bits"] == one["gross_bits"]
        assert one["net_bits"] == one["gross_bits"] - one["tag_bits_spent"] - one["id_key_bits"]
        assert one["net_bits"] == one["deliverable_bits"] + one["discarded_bits"]


def test_a_receipt_states_claim_theorem_errors_and_assumptions(
    receipts: list[dict[str, Any]],
) -> None:
    one = receipts[0]
    parts = one["epsilon_parts"]
    assert parts["soundness"] == one["epsilon"] == POLICY.epsilon
    assert parts["tags_and_verification"] == parts["hash"] == hash_error(ROUNDS)
    total = max(parts["accumulation"], parts["privacy"] + 2 * parts["smoothing"]) + parts["hash"]
    assert total == pytest.approx(one["epsilon"], rel=1e-9)
    assert one["bound"] in "eat-2109.14600/two-universal" and "2109.14600" in one["theorem"]
    assert len(one["assumptions"]) > 3


def test_transcripts_of_two_sessions_differ(receipts: list[dict[str, Any]]) -> None:
    hashes = [one["transcript_hash"] for one in receipts]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
    assert all(len(text) == 64 for text in hashes)
