"""Receipts: the same at both ends, to the byte, and true to what was done."""

import hashlib
import json
from typing import Any

import pytest
from tests.support.distilling import Both
from tests.support.receipts import receipt
from tests.support.two_cores import ALICE, BOB, LINK, POLICY, ROUNDS, TwoCores

from bellhop.stack.diqkd.parameters import decode_parameters, hash_error
from bellhop.stack.diqkd.receipt import (
    BLOCK_IDEALISATION,
    DEVICE_REUSE,
    canonical,
    published_bits,
)
from bellhop.stack.messages import Stage, Tagged


@pytest.fixture(scope="module")
def receipts() -> list[str]:
    """Of two sessions in a row, Alice's and Bob's: [a1, b1, a2, b2]."""
    two = TwoCores(seed=13)
    two.meet()
    for asking in (ALICE, BOB):
        two.now_ns += 10**9
        two.ask(asking)
        two.go_on()
    blocks = {name: list(two.store[name].deliverable.values()) for name in (ALICE, BOB)}
    assert [len(b) for b in blocks.values()] == [2, 2]
    return [blocks[name][k].receipt for k in (0, 1) for name in (ALICE, BOB)]


def read(text: str) -> Any:
    return json.loads(text)


@pytest.mark.parametrize("session", [0, 1])
def test_both_ends_hold_the_same_receipt(receipts: list[str], session: int) -> None:
    alice, bob = receipts[2 * session : 2 * session + 2]
    assert alice == bob
    assert {role: end["statement"]["node"] for role, end in read(alice)["ends"].items()} == {
        "alice": ALICE,
        "bob": BOB,
    }


def test_a_receipt_says_what_the_device_was_used_for_before(receipts: list[str]) -> None:
    first, second = read(receipts[0]), read(receipts[2])
    for role in ("alice", "bob"):
        fresh, used = (r["ends"][role]["statement"]["device"] for r in (first, second))
        assert (fresh["sessions_before"], fresh["published_bits_before"]) == (0, 0)
        assert (used["sessions_before"], used["aborted_before"]) == (1, 0)
        published = first["session"]["device_reuse"]["published_bits"]
        assert used["published_bits_before"] == published > first["session"]["leak"]["total"]


def test_an_aborted_session_counts_as_use_of_the_device() -> None:
    two = TwoCores(seed=12)
    two.meet()
    two.ask(ALICE)
    two.go_on(until=lambda: any(isinstance(m, Tagged) for m in two.mail[BOB]))
    (session,) = two.core[ALICE]._desk.sessions.values()
    for action in session.abort("for this test"):
        two._perform(ALICE, action)
    two.restart(ALICE)
    two.go_on()
    two.now_ns += 10**9
    two.ask(BOB)
    two.go_on()
    (block,) = two.store[ALICE].deliverable.values()
    device = read(block.receipt)["ends"]["alice"]["statement"]["device"]
    assert (device["sessions_before"], device["aborted_before"]) == (0, 1)
    assert device["published_bits_before"] >= 1, "that it aborted is one"


def test_extra_syndrome_is_published_whether_a_verification_follows_or_not() -> None:
    """Most of what an aborted session publishes it has said before its decoder gave up."""
    both = Both(wanted=(2, 5))
    both.run(until=Stage.VERIFICATION)
    p = both.bob.record.parameters
    assert not both.bob.record.done(Stage.VERIFICATION)
    assert published_bits(both.bob.record) == 1 + p.code.leak_bits(5) + p.steps_max


def test_a_receipt_says_what_was_seen() -> None:
    one = receipt()
    said, run = one["session"], one["session"]["run"]
    assert (run["rounds"], said["parameters"]["link"]) == (ROUNDS, LINK.name)
    assert run["s"] == 8 * (1 - run["losses"] / run["tests"]) - 4
    assert run["qber"] == run["errors"] / (ROUNDS - run["tests"])
    assert said["parameters"]["s_design"] == POLICY.s_design
    assert BLOCK_IDEALISATION in said["assumptions"]
    assert said["device_reuse"]["statement"] == DEVICE_REUSE
    for end in one["ends"].values():
        assert end["statement"]["device"]["source"] == "emulated"
        assert len(end["statement"]["device"]["idealisations"]) > 1
        assert end["statement"]["randomness"]["source"] == "a seeded generator, of a simulation"


@pytest.mark.parametrize("bound", ["renyi", "eat"])
def test_a_receipt_accounts_for_every_bit(bound: str) -> None:
    said = receipt(bound)["session"]
    leak, key = said["leak"], said["key"]
    kinds = ("syndrome", "extra_syndrome", "requests", "verification", "counts")
    assert leak["total"] == sum(leak[kind] for kind in kinds) <= leak["planned"]
    assert key["gross_bits"] == key["bound_bits"] // 8 * 8
    assert key["net_bits"] == key["gross_bits"] - key["tag_bits_spent"] - key["id_key_bits"]
    assert key["net_bits"] == key["deliverable_bits"] + key["discarded_bits"]


@pytest.mark.parametrize("bound", ["renyi", "eat"])
def test_a_receipt_states_claim_theorem_errors_and_assumptions(bound: str) -> None:
    said = receipt(bound)["session"]
    e = said["epsilon"]
    assert e["soundness"] == said["parameters"]["epsilon"] == POLICY.epsilon
    assert e["verification"] + e["forgery"] == hash_error(ROUNDS)
    total = max(e["accumulation"], e["privacy"] + 2 * e["smoothing"])
    assert total + hash_error(ROUNDS) == pytest.approx(e["soundness"], rel=1e-12)
    assert said["parameters"]["bound"].split("-")[1] in said["theorem"]["statement"]
    spoken = " ".join(said["assumptions"])
    for topic in ("Memory", "Side channels", "signal", "test", "random", "knew the settings"):
        assert topic in spoken, topic


def test_a_receipt_carries_the_agreed_parameters_and_digests_of_what_was_said() -> None:
    two = TwoCores(seed=12)
    two.meet()
    two.now_ns += 10**9
    two.ask(ALICE)
    two.go_on()
    said = {m.stage: m for a in two.actions if isinstance(m := getattr(a, "message", None), Tagged)}
    (block,) = two.store[BOB].deliverable.values()
    content = read(block.receipt)["session"]
    decode_parameters(canonical(content["parameters"]))
    for row in content["transcript"]["messages"]:
        message = said[Stage(row["stage"])]
        assert row["bytes"] == len(message.body)
        assert row["body_sha256"] == hashlib.sha256(message.body).hexdigest()
        assert row["tag_sha256"] == hashlib.sha256(message.tag).hexdigest()


def test_the_receipt_of_a_held_block_has_one_word_only() -> None:
    two = TwoCores(seed=12)
    two.meet()
    two.ask(ALICE)
    two.go_on(until=lambda: bool(two.store[ALICE].held))
    (block,) = two.store[ALICE].held.values()
    ends = read(block.receipt)["ends"]
    assert ends["alice"] is not None and ends["bob"] is None


def test_no_bit_of_a_key_is_in_a_receipt() -> None:
    two = TwoCores(seed=12)
    two.meet()
    two.ask(ALICE)
    two.go_on()
    (block,) = two.store[ALICE].deliverable.values()
    assert block.slots and all(slot.key.hex() not in block.receipt for slot in block.slots)
