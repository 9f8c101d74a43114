"""Real daemons whose wire is in hostile hands: extra syndrome, pauses and words on receipts.

What is tagged, changed or replayed: see `test_tampered_sessions`.  A changed signature on a receipt
is tried in `test_receipts`.
"""

from collections.abc import Callable, Iterator

import pytest
from tests.support.hostile import Lab, running_lab
from tests.support.relay import Once, Said, envelope, faithful, honest, is_a, is_stage

from bellhop.stack.diqkd.distil import STEPS_DIFFER
from bellhop.stack.messages import EXTRA_STEPS_MAX
from bellhop.v1 import memory_pb2
from bellhop.v1 import peer_pb2 as pb

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("n") / "net") as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(lab: Lab) -> Iterator[None]:
    """After whatever was tried: the same processes, and they have found one another again."""
    yield
    lab.peers.meddle, lab.memory.distort = honest, faithful
    lab.assert_unharmed()
    blocks = lab.settled()
    assert blocks["alice"] == blocks["bob"]


def keys(lab: Lab) -> dict[str, int]:
    """How many blocks either node has."""
    return {node: len(blocks) for node, blocks in lab.settled().items()}


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def other_steps(said: pb.Envelope) -> list[Said]:
    """The verification says another number of steps of extra syndrome than alice gave."""
    assert said.tagged.body[0] == 0, "this link has fewer errors than its code corrects"
    said.tagged.body = flipped(said.tagged.body)
    return [said]


def wanted(said: pb.Envelope) -> list[Said]:
    """In place of bob's word that he has decoded; he says that again."""
    said.syndrome_wanted.CopyFrom(pb.SyndromeWanted(session=said.decoded.session, steps=1))
    return [said]


DIFFERENT_STEPS = {
    "steps of VERIFICATION": Once(is_stage("VERIFICATION"), other_steps),
    "steps that bob never asked for": Once(is_a("decoded"), wanted),
}


@pytest.mark.parametrize("what", DIFFERENT_STEPS)
def test_ends_with_different_extra_syndrome_make_no_key(lab: Lab, what: str) -> None:
    """Found before the tag is looked at, so that it counts as no wrong one."""
    meddle = lab.peers.meddle = DIFFERENT_STEPS[what]
    had = keys(lab)
    before = lab.refusals("bob", "alice", "steps_differ")
    wrong_tags = lab.refusals("bob", "alice", "tag_wrong")
    end = lab.run_session()
    assert meddle.done
    assert end["outcome"] == "aborted" and STEPS_DIFFER in end["reason"]
    lab.await_refusal("bob", "alice", "steps_differ", before)
    assert lab.refusals("bob", "alice", "tag_wrong") == wrong_tags
    assert keys(lab) == had


def spoilt(up: bool, data: bytes) -> list[bytes]:
    """One outcome in 64 of alice's device is wrong: more than the code corrects without steps."""
    if up:
        return [data]
    report = memory_pb2.MemoryReport.FromString(data)
    if report.WhichOneof("report") == "measured":
        outcomes = bytearray(report.measured.outcomes)
        outcomes[:-1:8] = bytes(byte ^ 1 for byte in outcomes[:-1:8])
        report.measured.outcomes = bytes(outcomes)
    return [report.SerializeToString()]


class Extra:
    """Changes whatever `member` extra syndrome is about, always in the same way."""

    def __init__(self, member: str, change: Callable[[pb.Envelope], None]) -> None:
        self._is_it = is_a(member)
        self._change = change
        self.changed = 0

    def __call__(self, _sender: str, said: pb.Envelope) -> list[Said]:
        if self._is_it(said):
            self.changed += 1
            self._change(said)
        return [said]


def one_more(said: pb.Envelope) -> None:
    said.syndrome_wanted.steps = min(said.syndrome_wanted.steps + 1, EXTRA_STEPS_MAX)


def other_bit(said: pb.Envelope) -> None:
    said.syndrome_extra.bits = flipped(said.syndrome_extra.bits)


def test_more_steps_than_bob_asked_for_are_paid_at_both_ends(lab: Lab) -> None:
    """Whoever changes his request gets the nodes to tell, and to pay, a step more."""
    had = keys(lab)
    lab.memory.distort = spoilt
    meddle = lab.peers.meddle = Extra("syndrome_wanted", one_more)
    end = lab.run_session()
    assert meddle.changed and end["outcome"] == "stored"
    given = lab.records("alice", "extra_syndrome_said", session=end["session"])
    taken = lab.records("bob", "extra_syndrome_heard", session=end["session"])
    assert [one["steps"] for one in given] == [one["steps"] for one in taken]
    for node in ("alice", "bob"):
        assert lab.status(node)["core"]["last_session"]["leak_bits"] == end["leak_bits"]
    assert keys(lab) == {node: count + 1 for node, count in had.items()}


def test_changed_extra_syndrome_makes_no_key(lab: Lab) -> None:
    """As above, but for one bit: bob finds no string, or the tag shows that it is another one."""
    had = keys(lab)
    lab.memory.distort = spoilt
    meddle = lab.peers.meddle = Extra("syndrome_extra", other_bit)
    end = lab.run_session()
    assert meddle.changed and end["outcome"] == "aborted"
    assert "tag_wrong" in end["reason"] or "reconciliation failed" in end["reason"]
    assert keys(lab) == had


@pytest.mark.parametrize(
    ("steps", "bits", "reason"),
    [
        (1, b"\0", "extra_syndrome_length"),
        (EXTRA_STEPS_MAX + 1, b"\0", "malformed"),
    ],
)
def test_extra_syndrome_that_cannot_be_is_refused(
    lab: Lab, steps: int, bits: bytes, reason: str
) -> None:
    """Bob has not asked for it, and the session goes on; on a new stream after the second."""
    had = keys(lab)
    before = lab.refusals("bob", "alice", reason)

    def add(said: pb.Envelope) -> list[Said]:
        extra = pb.SyndromeExtra(session=said.tagged.session, steps=steps, bits=bits)
        return [said, envelope("alice", "bob", 0, syndrome_extra=extra)]

    lab.peers.meddle = Once(is_stage("SYNDROME"), add)
    assert lab.run_session()["outcome"] == "stored"
    lab.await_refusal("bob", "alice", reason, before)
    assert keys(lab) == {node: count + 1 for node, count in had.items()}


class Paused:
    """Bob hears that alice is paused, before he has ordered all pairs, and in three positions."""

    def __init__(self) -> None:
        self.positions = 0
        self._session = ""

    def __call__(self, sender: str, said: pb.Envelope) -> list[Said]:
        if is_a("test_rounds")(said) and not self._session:
            self._session = said.test_rounds.session
            paused = pb.Paused(session=self._session, paused=True)
            return [said, envelope("alice", "bob", 0, paused=paused)]
        if is_a("position")(said) and sender == "alice" and self._session and self.positions < 3:
            self.positions += 1
            said.position.paused = True
        return [said]


def test_a_pause_that_nobody_asked_for_is_over_with_the_next_position(lab: Lab) -> None:
    """It can delay a session, and no more."""
    had = keys(lab)
    meddle = lab.peers.meddle = Paused()
    end = lab.run_session()
    assert meddle.positions == 3 and end["outcome"] == "stored"
    (held,) = lab.records("bob", "session_held", session=end["session"])
    assert held["why"] == "alice is paused"
    assert keys(lab) == {node: count + 1 for node, count in had.items()}


def is_endorsed(said: pb.Envelope) -> bool:
    return is_a("block_stored")(said) and bool(said.block_stored.endorsement)


def other_endorsement(said: pb.Envelope) -> list[Said]:
    said.block_stored.endorsement = flipped(said.block_stored.endorsement)
    return [said]


def test_a_damaged_word_on_a_receipt_is_refused_and_the_true_one_taken(lab: Lab) -> None:
    """The keys are there already: they are held until the peer's word is its own."""
    had, pairs = keys(lab), (("alice", "bob"), ("bob", "alice"))
    reason = "endorsement_malformed"
    before = {node: lab.refusals(node, peer, reason) for node, peer in pairs}
    meddle = lab.peers.meddle = Once(is_endorsed, other_endorsement)
    assert lab.run_session()["outcome"] == "stored"
    assert meddle.done
    assert keys(lab) == {node: count + 1 for node, count in had.items()}
    refused = [n for n, peer in pairs if lab.refusals(n, peer, reason) == before[n] + 1]
    assert len(refused) == 1
    assert lab.records(refused[0], "refused", reason=reason)[-1]["who_must_act"]
