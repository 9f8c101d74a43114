"""Real daemons and hostile peers: refused, logged with who must act, daemon up, no key.

The strangers and liars of these tests dial the running nodes, or stand where one of them should.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.hostile import ADAM, Lab, running_lab
from tests.support.identities import Authority
from tests.support.processes import NODES
from tests.support.relay import PeerRelay, calling, envelope

from bellhop.hal.operations import BLOCK_ROUNDS_MAX
from bellhop.node.envelope import ENVELOPE_BYTES_MAX, PARAMETERS_BYTES_MAX
from bellhop.node.tls import PartyKind, grpc_channel_credentials
from bellhop.stack.messages import STAGE_BODY_BYTES_MAX
from bellhop.v1 import peer_pb2 as pb
from bellhop.v1 import types_pb2

pytestmark = pytest.mark.e2e

UNKNOWN = "0f" * 16
BOBS_NAME = "bob.node.bellhop"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("n") / "net") as running:
        for kind, name in ((PartyKind.NODE, ADAM), (PartyKind.NODE, "mallory")):
            running.issue(kind, name)
        yield running


@pytest.fixture(autouse=True)
def unharmed(lab: Lab) -> Iterator[None]:
    """After whatever was tried: the same processes, joined, and no key of it."""
    before = lab.settled()
    yield
    lab.assert_unharmed()
    blocks = lab.settled()
    assert blocks["alice"] == blocks["bob"]
    assert sum(map(len, before.values())) == 0, "only the last test makes a key"


# --- who may not come in --------------------------------------------------------------------------


def foreign(lab: Lab, folder: Path) -> grpc.ChannelCredentials:
    """Alice's name, of another authority; it trusts ours, so that the handshake gets to it."""
    own = lab.credentials(PartyKind.NODE, "alice")
    forged = Authority(folder / "foreign").credentials(PartyKind.NODE, "alice")
    return grpc_channel_credentials(replace(forged, authority=own.authority))


def nameless(lab: Lab, _folder: Path) -> grpc.ChannelCredentials:
    authority = lab.credentials(PartyKind.NODE, "alice").authority
    return grpc.ssl_channel_credentials(authority)


@pytest.mark.parametrize(
    ("credentials", "reason"), [(foreign, "foreign_authority"), (nameless, "no_certificate")]
)
@pytest.mark.parametrize("node", NODES)
def test_a_handshake_without_a_certificate_of_ours_is_refused(
    lab: Lab,
    tmp_path: Path,
    node: str,
    credentials: Callable[[Lab, Path], grpc.ChannelCredentials],
    reason: str,
) -> None:
    before = lab.refusals(node, "other", reason)
    shown = credentials(lab, tmp_path)
    with calling(lab.listening[node]["peers"], shown, f"{node}.node.bellhop") as caller:
        assert caller.end()[0] == "UNAVAILABLE"
    lab.wait(node, lambda _: lab.refusals(node, "other", reason) > before)
    lab.wait(node, lambda _: bool(lab.records(node, "tls_handshake_refused", reason=reason)))
    record = lab.records(node, "tls_handshake_refused", reason=reason)[-1]
    assert record["who_must_act"] == "the operator of the peer"


@pytest.mark.parametrize(
    ("kind", "name", "label", "reason"),
    [
        (PartyKind.NODE, "mallory", "other", "stranger"),
        (PartyKind.SAE, "sae-alice", "other", "stranger"),
        (PartyKind.KME, "kme-alice", "other", "stranger"),
        (PartyKind.NODE, "bob", "bob", "wrong_caller"),
        (PartyKind.NODE, "alice", "other", "stranger"),
    ],
)
def test_a_certificate_of_another_party_does_not_come_in(
    lab: Lab, kind: PartyKind, name: str, label: str, reason: str
) -> None:
    """All of the right authority; the last is the node's own, and the greeting says "bob"."""
    before = lab.refusals("alice", label, reason)
    credentials = grpc_channel_credentials(lab.credentials(kind, name))
    with calling(lab.listening["alice"]["peers"], credentials, "alice.node.bellhop") as caller:
        caller.say(greeting("bob", "alice"))
        assert caller.end()[0] == "PERMISSION_DENIED"
    assert lab.await_refusal("alice", label, reason, before)["peer"] == name


def test_a_called_node_with_another_certificate_is_not_spoken_to(lab: Lab) -> None:
    """Mallory stands at bob's address: alice does not greet her, and says so."""
    own = lab.credentials(PartyKind.NODE, "mallory")
    relay = lab.peers
    relay.stop()
    address, streams = lab.status("alice")["connections"]["bob"]["address"], relay.streams
    mallory = PeerRelay(relay.loop, replace(relay.ends, callee=own))
    mallory.start(address)
    try:
        # the second: at the first, nobody may have listened there yet
        status = lab.wait("alice", lambda s: s["connections"]["bob"]["dials_failed"] > 1)
        assert "Verification" in status["connections"]["bob"]["why"]
        assert mallory.streams == 0
    finally:
        mallory.stop()
        relay.start(address)
    lab.await_stream(streams)
    record = lab.records("alice", "peer_unreachable", peer="bob")[-1]
    assert record["who_must_act"] == "the operator of the peer"


# --- what may not be said -------------------------------------------------------------------------


def greeting(sender: str = ADAM, recipient: str = "bob", sequence: int = 1) -> bytes:
    said = envelope(sender, recipient, sequence, greeting=pb.Greeting(software="test/1"))
    return said.SerializeToString()


def second(**message: Any) -> bytes:
    """What adam says to bob after his greeting."""
    return envelope(ADAM, "bob", 2, **message).SerializeToString()


def adams(lab: Lab) -> grpc.ChannelCredentials:
    return grpc_channel_credentials(lab.credentials(PartyKind.NODE, ADAM))


def changed(data: bytes, **fields: Any) -> bytes:
    message = pb.Envelope.FromString(data)
    for name, value in fields.items():
        setattr(message, name, value)
    return message.SerializeToString()


DONE = second(slot_done=pb.SlotDone(session=UNKNOWN, slot=1))
VIRTUAL = pb.Envelope.FromString(DONE)
VIRTUAL.time.clock = types_pb2.CLOCK_VIRTUAL
BIG_TEST = pb.TestRounds(
    session=UNKNOWN, slot=0, rounds=BLOCK_ROUNDS_MAX + 8, tests=bytes(BLOCK_ROUNDS_MAX // 8 + 1)
)
BIG_BODY = pb.Tagged(
    session=UNKNOWN,
    stage=pb.STAGE_TRANSCRIPT_A,
    body=bytes(STAGE_BODY_BYTES_MAX + 1),
    batch="b",
    number=0,
    tag=b"t",
)
BROKEN = {
    "random bytes": (b"\xff" * 40, "malformed"),
    "no protobuf": (DONE[:-3], "malformed"),
    "nothing": (b"", "malformed"),
    "a newer version": (changed(DONE, version=2), "malformed"),
    "control characters": (changed(DONE, sender="adam\x1b[2J\n"), "malformed"),
    "a repeated sequence number": (changed(DONE, sequence=1), "sequence"),
    "a gap": (changed(DONE, sequence=7), "sequence"),
    "another's name": (changed(DONE, sender="alice"), "wrong_name"),
    "for another": (changed(DONE, recipient="alice"), "wrong_name"),
    "another clock": (VIRTUAL.SerializeToString(), "clock"),
    "a second greeting": (greeting(sequence=2), "greeting"),
    "an oversized block": (second(test_rounds=BIG_TEST), "malformed"),
    "an oversized body": (second(tagged=BIG_BODY), "malformed"),
    "an oversized proposal": (
        second(propose=pb.Propose(session=UNKNOWN, parameters=bytes(PARAMETERS_BYTES_MAX + 1))),
        "malformed",
    ),
    "an oversized envelope": (bytes(ENVELOPE_BYTES_MAX + 1), "oversized"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_rule_ends_the_stream(lab: Lab, what: str) -> None:
    data, reason = BROKEN[what]
    before = lab.refusals("bob", ADAM, reason)
    with calling(lab.listening["bob"]["peers"], adams(lab), BOBS_NAME) as adam:
        adam.say(greeting(), data)
        assert adam.end()[0] == "INVALID_ARGUMENT"
    assert lab.await_refusal("bob", ADAM, reason, before)["peer"] == ADAM


def test_what_grpc_itself_refuses_ends_the_stream_alone(lab: Lab) -> None:
    with calling(lab.listening["bob"]["peers"], adams(lab), BOBS_NAME) as adam:
        adam.say(greeting(), bytes(4 * ENVELOPE_BYTES_MAX))
        assert adam.end()[0] == "RESOURCE_EXHAUSTED"
    lab.wait("bob", lambda status: not status["connections"][ADAM]["connected"])


def test_without_a_greeting_nothing_is_heard(lab: Lab) -> None:
    before = lab.refusals("bob", ADAM, "greeting")
    with calling(lab.listening["bob"]["peers"], adams(lab), BOBS_NAME) as adam:
        adam.say(changed(DONE, sequence=1))
        assert adam.end()[0] == "INVALID_ARGUMENT"
    lab.await_refusal("bob", ADAM, "greeting", before)


def test_what_a_newer_version_may_add_is_survived(lab: Lab) -> None:
    """An unknown message is counted and passed over; an unknown field is no matter."""
    before = lab.refusals("bob", ADAM, "unknown_message")
    session_before = lab.refusals("bob", ADAM, "session_unknown")
    unknown_member = b"\xfa\x07\x03abc"  # field 127, a message
    empty = envelope(ADAM, "bob", 2).SerializeToString()
    with calling(lab.listening["bob"]["peers"], adams(lab), BOBS_NAME) as adam:
        adam.say(greeting() + unknown_member, empty + unknown_member)
        adam.say(changed(DONE, sequence=3) + unknown_member)
        record = lab.await_refusal("bob", ADAM, "unknown_message", before)
        assert record["who_must_act"] == "whoever runs the older software"
        lab.await_refusal("bob", ADAM, "session_unknown", session_before)
        assert lab.status("bob")["connections"][ADAM]["connected"]


def test_messages_that_fit_nothing_are_refused(lab: Lab) -> None:
    """Every kind, about a session that there is not; the stream goes on."""
    tagged = pb.Tagged(
        session=UNKNOWN, stage=pb.STAGE_INPUTS_A, body=b"b", batch="b", number=0, tag=b"12345678"
    )
    position = pb.Position(session=UNKNOWN, first=3, slots=8, ahead=b"\x02")
    calibrated = pb.CalibrationData(session=UNKNOWN, rounds=8, settings=b"\x01", outcomes=b"\x02")
    result = pb.CalibrationResult(session=UNKNOWN, rounds=[8] * 5, unequal=[1] * 5)
    key = pb.Allocation(
        session=UNKNOWN,
        key_id="00000000-0000-4000-8000-000000000000",
        slots=[0],
        size_bits=256,
        master="m",
        slave="s",
    )
    said: list[dict[str, Any]] = [
        {"block_heralded": pb.BlockHeralded(link="x", request=UNKNOWN, block=0, digest=bytes(32))},
        {"propose": pb.Propose(session=UNKNOWN, parameters=b"{}")},
        {"propose": pb.Propose(session=UNKNOWN, parameters=b"[" * 60_000)},
        {"accept": pb.Accept(session=UNKNOWN)},
        {"test_rounds": pb.TestRounds(session=UNKNOWN, slot=0, rounds=8, tests=b"\x01")},
        {"slot_done": pb.SlotDone(session=UNKNOWN, slot=0)},
        {"tagged": tagged},
        {"decoded": pb.Decoded(session=UNKNOWN)},
        {"syndrome_wanted": pb.SyndromeWanted(session=UNKNOWN, steps=1)},
        {"syndrome_extra": pb.SyndromeExtra(session=UNKNOWN, steps=1, bits=b"\x01")},
        {"paused": pb.Paused(session=UNKNOWN, paused=True)},
        {"calibration_data": calibrated},
        {"calibration_result": result},
        {"position": position},
        {"abort": pb.Abort(session=UNKNOWN, reason="x")},
        {"block_stored": pb.BlockStored(session=UNKNOWN)},
        {"keys_allocated": pb.KeysAllocated(keys=[key])},
        {"allocations_recorded": pb.AllocationsRecorded(key_ids=[key.key_id])},
    ]
    reasons = ("accept_unexpected", "proposal_malformed", "session_unknown", "allocation")
    before = {reason: lab.refusals("bob", ADAM, reason) for reason in reasons}
    with calling(lab.listening["bob"]["peers"], adams(lab), BOBS_NAME) as adam:
        adam.say(greeting())
        for place, message in enumerate(said, start=2):
            adam.say(envelope(ADAM, "bob", place, **message).SerializeToString())
        for reason in reasons:
            lab.await_refusal("bob", ADAM, reason, before[reason])
    assert {m.name for m in pb.Envelope.DESCRIPTOR.oneofs_by_name["message"].fields} == {
        "greeting",
        "heartbeat",
        *(name for message in said for name in message),
    }


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("proc(5) has VmRSS")


def test_a_flood_is_bounded(lab: Lab) -> None:
    """Each message would be answered, and the answers are never read."""
    flood = 6_000
    pid, log = lab.pids["bob"], lab.layout.log("bob")
    memory_before, log_before = resident_bytes(pid), log.stat().st_size
    position = envelope(ADAM, "bob", 1, position=pb.Position(session=UNKNOWN)).SerializeToString()
    with calling(lab.listening["bob"]["peers"], adams(lab), BOBS_NAME) as adam:
        adam.say(greeting())
        for place in range(2, flood):
            adam.say(changed(position, sequence=place))
        adam.say(greeting(sequence=flood))  # ends the stream, if it still is one
        adam.end()
    assert resident_bytes(pid) - memory_before < 64 * 2**20
    assert log.stat().st_size - log_before < 2**20


def test_a_flood_of_refusals_does_not_fill_the_disk(lab: Lab) -> None:
    flood = 6_000
    log = lab.layout.log("bob")
    size = log.stat().st_size
    before = lab.refusals("bob", ADAM, "session_unknown")
    with calling(lab.listening["bob"]["peers"], adams(lab), BOBS_NAME) as adam:
        adam.say(greeting())
        for place in range(2, flood):
            adam.say(changed(DONE, sequence=place))
        lab.wait(
            "bob", lambda _: lab.refusals("bob", ADAM, "session_unknown") - before == flood - 2
        )
    assert log.stat().st_size - size < 2**18


def test_after_all_this_honest_nodes_make_a_key(lab: Lab) -> None:
    assert lab.run_session()["outcome"] == "stored"
    blocks = lab.settled()
    assert len(blocks["alice"]) == 1 and blocks["alice"] == blocks["bob"]
