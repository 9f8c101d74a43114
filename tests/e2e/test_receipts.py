"""Receipts of real daemons: alike, signed by both, checked offline, void if tampered with."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.hostile import Lab, running_lab
from tests.support.processes import NODES
from tests.support.relay import Once, Said, honest, is_a

from bellhop.node.loopback import CommandFailed
from bellhop.v1 import peer_pb2 as pb

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("n") / "net") as running:
        yield running


def receipt_of(lab: Lab, node: str, session: str) -> dict[str, Any]:
    config = ["--config", str(lab.layout.node(node))]
    receipt: dict[str, Any] = lab.processes.command("keys", "receipt", session, *config)
    return receipt


def verified(lab: Lab, file: Path) -> dict[str, Any]:
    authority = lab.layout.folder / "pki" / "authority.crt.pem"
    command = ["receipt", "verify", str(file), "--authority", str(authority)]
    outcome: dict[str, Any] = lab.processes.command(*command)
    return outcome


def state_of(lab: Lab, node: str, session: str) -> str:
    config = ["--config", str(lab.layout.node(node))]
    blocks = lab.processes.command("keys", "status", *config)["blocks"]
    return next(str(block["state"]) for block in blocks if block["session"] == session)


def test_both_nodes_hold_one_receipt_that_anybody_can_check(lab: Lab, tmp_path: Path) -> None:
    end = lab.run_session()
    assert end["outcome"] == "stored", end
    lab.settled()
    alices, bobs = (receipt_of(lab, node, end["session"]) for node in NODES)
    assert alices == bobs
    file = tmp_path / "receipt.json"
    text = json.dumps(alices, indent=2)
    file.write_text(text, encoding="utf-8")
    outcome = verified(lab, file)
    assert outcome["holds"] and outcome["claim"]["gross_bits"] == end["gross_bits"]
    assert {check["result"] for check in outcome["checks"]} == {"holds"}
    # One byte of it, in each of three places.
    losses = f'"losses": {alices["session"]["run"]["losses"]}'
    for old, new in (
        (losses, f'"losses": {alices["session"]["run"]["losses"] - 1}'),
        ("Quantum mechanics is correct", "Quantum mechanics is Correct"),
        ('"source": "emulated"', '"source": "Emulated"'),
    ):
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(CommandFailed, match="exit code 1"):
            verified(lab, file)


def other_figures(said: pb.Envelope) -> list[Said]:
    """The digest of another account: as the peer's word on other figures would have."""
    word = json.loads(said.block_stored.endorsement)
    word["session_sha256"] = "0" * 64
    text = json.dumps(word, sort_keys=True, separators=(",", ":"))
    said.block_stored.endorsement = text.encode()
    return [said]


def test_a_tampered_word_is_refused_and_the_true_one_completes_the_receipt(lab: Lab) -> None:
    before = {node: lab.refusals(node, peer, "endorsement_unsigned") for node, peer in pairs()}
    lab.peers.meddle = Once(is_a("block_stored"), other_figures)
    end = lab.run_session()
    lab.peers.meddle = honest
    assert end["outcome"] == "stored", end
    lab.settled()
    refused = [n for n, p in pairs() if lab.refusals(n, p, "endorsement_unsigned") > before[n]]
    assert len(refused) == 1
    (record, *_) = lab.records(refused[0], "refused", reason="endorsement_unsigned")
    assert record["who_must_act"] == "the operators of both nodes"
    alices, bobs = (receipt_of(lab, node, end["session"]) for node in NODES)
    assert alices == bobs and all(alices["ends"].values())


def test_as_long_as_the_word_is_another_the_keys_stay_held(lab: Lab) -> None:
    def always(sender: str, said: pb.Envelope) -> list[Said]:
        changed = sender == "alice" and is_a("block_stored")(said)
        return other_figures(said) if changed else [said]

    before = lab.refusals("bob", "alice", "endorsement_unsigned")
    lab.peers.meddle = always
    end = lab.run_session()
    session = end["session"]
    lab.await_refusal("bob", "alice", "endorsement_unsigned", before)
    assert state_of(lab, "bob", session) == "held"
    ends = receipt_of(lab, "bob", session)["ends"]
    assert ends["bob"] is not None and ends["alice"] is None
    core = lab.status("bob")["core"]
    assert session in core["held"] and session in core["refused_endorsements"]
    lab.peers.meddle = honest
    lab.wait("bob", lambda status: session not in status["core"]["held"])
    assert state_of(lab, "bob", session) == "deliverable"
    assert receipt_of(lab, "bob", session) == receipt_of(lab, "alice", session)


def pairs() -> tuple[tuple[str, str], ...]:
    return (("alice", "bob"), ("bob", "alice"))
