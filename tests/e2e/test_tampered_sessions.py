"""Real daemons whose wire is in hostile hands: what is changed or replayed on it makes no key.

TLS is broken in these tests: a relay has the certificates of both ends (`tests.support.relay`).
What finds it is the tags under the pre-shared pool, and the order in which things must be said.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.hostile import ADAM, Lab, running_lab
from tests.support.relay import Caller, Once, Said, calling, envelope, honest, is_a, is_stage

from bellhop.node.tls import PartyKind, grpc_channel_credentials
from bellhop.stack.diqkd.distil import POOL_ADVICE
from bellhop.v1 import peer_pb2 as pb

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("n") / "net") as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(lab: Lab) -> Iterator[None]:
    """After whatever was tried: the same processes, and they have found one another again."""
    lab.peers.meddle = honest
    yield
    lab.peers.meddle = honest
    lab.assert_unharmed()
    blocks = lab.settled()
    assert blocks["alice"] == blocks["bob"]


def keys(lab: Lab) -> dict[str, int]:
    """How many blocks either node has."""
    return {node: len(blocks) for node, blocks in lab.settled().items()}


# --- what is changed on the way -------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    """One bit other: of the first byte where the last has padding."""
    return bytes([data[0] ^ 1]) + data[1:]


def other_tag(said: pb.Envelope) -> list[Said]:
    said.tagged.tag = flipped(said.tagged.tag)
    return [said]


def other_body(said: pb.Envelope) -> list[Said]:
    said.tagged.body = flipped(said.tagged.body)
    return [said]


def other_hash_key(said: pb.Envelope) -> list[Said]:
    """Of the verification: its first byte, the number of steps, is looked at before its tag."""
    body = said.tagged.body
    said.tagged.body = body[:1] + flipped(body[1:])
    return [said]


def other_errors(said: pb.Envelope) -> list[Said]:
    """Other counts, and possible ones."""
    said.tagged.body = said.tagged.body[:-1] + bytes([said.tagged.body[-1] ^ 1])
    return [said]


def canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


class OtherProposal:
    """Bob hears another proposal, as good as the true one, and alice that he accepts hers."""

    def __init__(self) -> None:
        self.done = False
        self._digest = b""

    def __call__(self, _sender: str, said: pb.Envelope) -> list[Said]:
        if is_a("propose")(said):
            self._digest = hashlib.sha256(said.propose.parameters).digest()
            content = json.loads(said.propose.parameters)
            content["window"] += 1
            said.propose.parameters = canonical(content)
            self.done = True
        if is_a("accept")(said):
            said.accept.digest = self._digest
        return [said]


def other_tests(said: pb.Envelope) -> list[Said]:
    said.test_rounds.tests = flipped(said.test_rounds.tests)
    return [said]


def other_epsilon(epsilon: float) -> Once:
    def change(said: pb.Envelope) -> list[Said]:
        content = json.loads(said.propose.parameters)
        content["epsilon"] = epsilon
        said.propose.parameters = canonical(content)
        return [said]

    return Once(is_a("propose"), change)


STAGES = [
    "TRANSCRIPT_A",
    "TRANSCRIPT_B",
    "INPUTS_A",
    "INPUTS_B",
    "SYNDROME",
    "VERIFICATION",
    "DECISION",
]
TAMPERED: dict[str, Once | OtherProposal] = {
    **{f"tag of {stage}": Once(is_stage(stage), other_tag) for stage in STAGES},
    **{f"body of {stage}": Once(is_stage(stage), other_body) for stage in STAGES[2:-2]},
    "hash key of VERIFICATION": Once(is_stage("VERIFICATION"), other_hash_key),
    "counts of DECISION": Once(is_stage("DECISION"), other_errors),
    "test rounds": Once(is_a("test_rounds"), other_tests),
    "proposal": OtherProposal(),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_message_leaves_no_key(lab: Lab, what: str) -> None:
    """TLS is broken here: the tags under the pre-shared pool find it."""
    meddle = lab.peers.meddle = TAMPERED[what]
    had = keys(lab)
    before = {node: lab.refusals(node, peer, "tag_wrong") for node, peer in others()}
    end = lab.run_session()
    assert meddle.done
    assert end["outcome"] == "aborted" and "tag_wrong" in end["reason"]
    assert keys(lab) == had
    finder = next(n for n, peer in others() if lab.refusals(n, peer, "tag_wrong") > before[n])
    assert lab.records(finder, "refused", reason="tag_wrong")[-1]["who_must_act"]
    reason = f"authentication failed: tag_wrong; {POOL_ADVICE}"
    aborted = {"session": end["session"], "reason": reason}
    assert lab.records(finder, "session_aborted", **aborted)


def others() -> tuple[tuple[str, str], ...]:
    return (("alice", "bob"), ("bob", "alice"))


def test_a_proposal_that_does_not_hold_is_declined(lab: Lab) -> None:
    had = keys(lab)
    meddle = lab.peers.meddle = other_epsilon(0.95)
    end = lab.run_session()
    assert meddle.done
    assert end["outcome"] == "refused" and "declined by bob: epsilon is above" in end["reason"]
    assert keys(lab) == had


def test_who_agrees_to_another_proposal_has_no_session(lab: Lab) -> None:
    """Bob hears one that holds, and says by its digest which: it is not the one alice made."""
    had = keys(lab)
    before = lab.refusals("alice", "bob", "accept_of_another_proposal")
    meddle = lab.peers.meddle = other_epsilon(0.5)
    end = lab.run_session()
    assert meddle.done
    assert end["outcome"] == "refused"
    assert "agreed to another proposal" in end["reason"] and "run another" in end["reason"]
    lab.await_refusal("alice", "bob", "accept_of_another_proposal", before)
    assert keys(lab) == had


def test_a_tampered_last_message_is_refused_and_the_true_one_taken(lab: Lab) -> None:
    """Alice is committed by then: bob refuses the false one, asks again, and both have the key."""
    had = keys(lab)
    before = lab.refusals("bob", "alice", "tag_wrong")
    lab.peers.meddle = Once(is_stage("AMPLIFICATION"), other_tag)
    assert lab.run_session()["outcome"] == "stored"
    lab.await_refusal("bob", "alice", "tag_wrong", before)
    assert keys(lab) == {node: count + 1 for node, count in had.items()}


def test_a_malformed_body_is_refused_and_the_true_one_taken(lab: Lab) -> None:
    """It is seen to be none before its tag is looked at, so it costs no try and no session."""
    had = keys(lab)
    before = lab.refusals("alice", "bob", "stage_malformed")
    lab.peers.meddle = Once(is_stage("DECISION"), other_body)
    assert lab.run_session()["outcome"] == "stored"
    lab.await_refusal("alice", "bob", "stage_malformed", before)
    assert keys(lab) == {node: count + 1 for node, count in had.items()}


# --- what is said again ---------------------------------------------------------------------------


def test_a_replayed_envelope_ends_the_stream_and_the_session_goes_on(lab: Lab) -> None:
    """The very bytes again, in the same stream."""
    had, streams = keys(lab), lab.peers.streams
    before = lab.refusals("bob", "alice", "sequence")

    def twice(said: pb.Envelope) -> list[Said]:
        return [said, said.SerializeToString()]

    lab.peers.meddle = Once(is_stage("INPUTS_A"), twice)
    assert lab.run_session()["outcome"] == "stored"
    lab.await_refusal("bob", "alice", "sequence", before)
    assert lab.peers.streams > streams
    assert keys(lab) == {node: count + 1 for node, count in had.items()}


def test_everything_said_twice_changes_nothing(lab: Lab) -> None:
    """Repeated with sequence numbers that are right: the cores pass over it."""
    had = keys(lab)

    def twice(_sender: str, said: pb.Envelope) -> list[Said]:
        again = pb.Envelope()
        again.CopyFrom(said)
        return [said] if is_a("greeting")(said) else [said, again]

    lab.peers.meddle = twice
    assert lab.run_session()["outcome"] == "stored"
    assert keys(lab) == {node: count + 1 for node, count in had.items()}


def test_what_was_said_in_one_session_is_refused_in_another(lab: Lab) -> None:
    """A true message of an earlier session under the name of the new one: its mask is used up."""
    recorded: list[pb.Tagged] = []

    def record(_sender: str, said: pb.Envelope) -> list[Said]:
        if is_stage("TRANSCRIPT_A")(said) and not recorded:
            recorded.append(pb.Tagged.FromString(said.tagged.SerializeToString()))
        return [said]

    lab.peers.meddle = record
    assert lab.run_session()["outcome"] == "stored"
    had = keys(lab)
    before = lab.refusals("bob", "alice", "mask_used_before")

    def replay(said: pb.Envelope) -> list[Said]:
        recorded[0].session = said.tagged.session
        said.tagged.CopyFrom(recorded[0])
        return [said]

    lab.peers.meddle = Once(is_stage("TRANSCRIPT_A"), replay)
    end = lab.run_session()
    assert end["outcome"] == "aborted" and "mask_used_before" in end["reason"]
    lab.await_refusal("bob", "alice", "mask_used_before", before)
    assert keys(lab) == had


def test_old_messages_on_a_new_stream_are_passed_over(lab: Lab) -> None:
    """All that alice said in a session that is over, said again from the start."""
    recorded: list[pb.Envelope] = []

    def record(sender: str, said: pb.Envelope) -> list[Said]:
        if sender == "alice":
            recorded.append(pb.Envelope.FromString(said.SerializeToString()))
        return [said]

    lab.peers.meddle = record
    assert lab.run_session()["outcome"] == "stored"
    had = lab.settled()
    old = [said for said in recorded if not is_a("greeting")(said)]
    streams, before = lab.peers.streams, lab.refusals("bob", "alice", "sequence")
    lab.peers.drop()
    lab.await_stream(streams)
    lab.peers.inject(True, *old)
    lab.peers.inject(True, old[0].SerializeToString())  # its old number: the stream ends
    lab.await_refusal("bob", "alice", "sequence", before)
    lab.await_stream(streams + 1)
    assert lab.settled() == had


def test_a_third_node_cannot_speak_of_others_sessions(lab: Lab) -> None:
    """Adam is a peer of bob's and tries to end, confuse and take over alice's session with bob."""
    had = keys(lab)
    lab.issue(PartyKind.NODE, ADAM)
    before = lab.refusals("bob", ADAM, "session_unknown")
    adams = grpc_channel_credentials(lab.credentials(PartyKind.NODE, ADAM))
    with calling(lab.listening["bob"]["peers"], adams, "bob.node.bellhop") as adam:
        greeting = pb.Greeting(software="test/1")
        adam.say(envelope(ADAM, "bob", 1, greeting=greeting).SerializeToString())
        lab.peers.meddle = Once(is_stage("INPUTS_A"), lambda said: intrude(adam, said))
        assert lab.run_session()["outcome"] == "stored"
        lab.await_refusal("bob", ADAM, "session_unknown", before)
    assert keys(lab) == {node: count + 1 for node, count in had.items()}


def intrude(adam: Caller, said: pb.Envelope) -> list[Said]:
    session = said.tagged.session
    messages: list[dict[str, Any]] = [
        {"abort": pb.Abort(session=session, reason="for fun")},
        {"block_stored": pb.BlockStored(session=session)},
        {"propose": pb.Propose(session=session, parameters=b"{}")},
        {"accept": pb.Accept(session=session)},
        {"test_rounds": pb.TestRounds(session=session, slot=0, rounds=8, tests=b"\x01")},
        {"tagged": said.tagged},
        {"decoded": pb.Decoded(session=session)},
        {"syndrome_wanted": pb.SyndromeWanted(session=session, steps=1)},
        {"syndrome_extra": pb.SyndromeExtra(session=session, steps=1, bits=b"\x01")},
        {"paused": pb.Paused(session=session, paused=True)},
        {"position": pb.Position(session=session, accepted=True, decoded=True)},
    ]
    for place, message in enumerate(messages, start=2):
        adam.say(envelope(ADAM, "bob", place, **message).SerializeToString())
    return [said]


# --- and at the end -------------------------------------------------------------------------------


def test_after_all_this_honest_nodes_make_a_key(lab: Lab) -> None:
    had = keys(lab)
    assert lab.run_session()["outcome"] == "stored"
    assert keys(lab) == {node: count + 1 for node, count in had.items()}
