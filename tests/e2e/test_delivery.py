"""ETSI GS QKD 014 of two running daemons, after real sessions: what a master gets, its slave gets.

The application of the daemons is tested alone in `test_etsi014.py`; here both are the program as it
runs, with the word between the nodes carried by their own stream.
"""

import base64
import http.client
import json
import ssl
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.hostile import Lab, edit, running_lab
from tests.support.identities import Authority
from tests.support.processes import NODES

from bellhop.node.loopback import CommandFailed
from bellhop.node.tls import Credentials, Party, PartyKind, client_context

pytestmark = pytest.mark.e2e

SAE_A, SAE_B = "sae-alice", "sae-bob"
ODD_A, ODD_B = "bank/one:ü 50%", "vault/a:b?#&+ü"
NOT_FOUND = "one or more keys specified are not found on KME"
SESSIONS = 4
SLOT_BITS = 256
ALLOCATION_WAIT_S = 4.0

SAES = f"""
[[sae]]
id = "{ODD_A}"
kme = "kme-alice"
node = "alice"

[[sae]]
id = "{ODD_B}"
kme = "kme-bob"
node = "bob"
"""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: Any = field(repr=False)

    @property
    def keys(self) -> dict[str, bytes]:
        """Of a key container: the bytes by key id."""
        assert self.status == 200, self.body
        return {row["key_ID"]: base64.b64decode(row["key"]) for row in self.body["keys"]}

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.body["message"]


MOST_A_REQUEST = 128
"""Keys that one request may ask for, by default."""


@dataclass
class Desk:
    """Applications at the two running KMEs."""

    lab: Lab
    issued: dict[str, Credentials] = field(default_factory=dict)

    def credentials(self, sae: str) -> Credentials:
        if sae in (SAE_A, SAE_B):
            return self.lab.credentials(PartyKind.SAE, sae)
        if sae not in self.issued:
            self.issued[sae] = self.lab.issue(PartyKind.SAE, sae)
        return self.issued[sae]

    def call(
        self, node: str, who: str | ssl.SSLContext, method: str, path: str, body: object = None
    ) -> Answer:
        """One request at the KME of `node`, by an SAE or a TLS client of one's own."""
        context = client_context(self.credentials(who)) if isinstance(who, str) else who
        host, _, port = self.lab.listening[node]["etsi"].rpartition(":")
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=30)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1/keys/{path}", data)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers), json.loads(answer.read()))
        finally:
            connection.close()

    def take(self, master: str, slave: str, node: str = "alice", **order: object) -> Answer:
        return self.call(node, master, "POST", f"{quote(slave, safe='')}/enc_keys", order)

    def fetch(self, slave: str, master: str, *key_ids: str, node: str = "bob") -> Answer:
        body = {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}
        return self.call(node, slave, "POST", f"{quote(master, safe='')}/dec_keys", body)

    def stored(self, node: str) -> int:
        """What status says to an application of `node`."""
        own, other = (SAE_A, SAE_B) if node == "alice" else (SAE_B, SAE_A)
        return int(self.call(node, own, "GET", f"{other}/status").body["stored_key_count"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("n") / "net"
    wait = f'allocation_wait = "{ALLOCATION_WAIT_S:g}s"\n'
    with running_lab(folder, SAES, wait) as lab:
        for _ in range(SESSIONS):
            assert lab.run_session()["outcome"] == "stored"
            lab.settled()
        yield Desk(lab)


# --- keys -----------------------------------------------------------------------------------------


def test_status_is_that_of_the_store(desk: Desk) -> None:
    for node, peer, own, other in (("alice", "bob", SAE_A, SAE_B), ("bob", "alice", SAE_B, SAE_A)):
        status = desk.call(node, own, "GET", f"{other}/status")
        blocks = desk.lab.status(node)["keys"]["blocks"]
        assert len(blocks) == SESSIONS
        free = sum(block["own_free"] for block in blocks)
        assert free > 0
        assert status.status == 200
        assert status.body == {
            "source_KME_ID": f"kme-{node}",
            "target_KME_ID": f"kme-{peer}",
            "master_SAE_ID": own,
            "slave_SAE_ID": other,
            "key_size": SLOT_BITS,
            "stored_key_count": free,
            "max_key_count": 100_000,
            "max_key_per_request": MOST_A_REQUEST,
            "max_key_size": 1024,
            "min_key_size": 64,
            "max_SAE_ID_count": 0,
            "status_extension": {"bellhop_sources": ["emulated"]},
        }


def test_the_metrics_tell_the_stock_and_the_masks(desk: Desk) -> None:
    for node, peer in (NODES, NODES[::-1]):
        status = desk.lab.status(node)
        with urllib.request.urlopen(f"http://{status['listening']['metrics']}/metrics") as page:
            lines = page.read().decode().splitlines()
        ready = sum(block["own_free"] for block in status["keys"]["blocks"])
        theirs = sum(block["peer_free"] for block in status["keys"]["blocks"])
        masks = status["core"]["peers"][peer]["masks_left"]
        assert f'bellhop_keys{{state="deliverable"}} {ready:.1f}' in lines
        assert f'bellhop_keys{{state="stored"}} {ready + theirs:.1f}' in lines
        assert f'bellhop_pool_masks_left{{peer="{peer}"}} {masks:.1f}' in lines


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("size", [64, 256, 512])
def test_a_slave_gets_what_its_master_got(desk: Desk, method: str, size: int) -> None:
    """512 bits are two slots, joined alike at both ends."""
    before = {node: desk.stored(node) for node in NODES}
    if method == "GET":
        taken = desk.call("alice", SAE_A, "GET", f"{SAE_B}/enc_keys?number=1&size={size}")
    else:
        taken = desk.take(SAE_A, SAE_B, number=1, size=size)
    ((key_id, key),) = taken.keys.items()
    assert len(key) == size // 8 and taken.headers["Content-Type"] == "application/json"
    assert taken.body["keys"][0]["key_extension"]["bellhop_source"] == "emulated"
    if method == "GET":
        fetched = desk.call("bob", SAE_B, "GET", f"{SAE_A}/dec_keys?key_ID={key_id}")
    else:
        fetched = desk.fetch(SAE_B, SAE_A, key_id)
    assert fetched.keys == {key_id: key}
    assert desk.fetch(SAE_B, SAE_A, key_id).refusal == (400, NOT_FOUND)
    slots = -(-size // SLOT_BITS)
    assert desk.stored("alice") in (before["alice"] - slots, before["alice"] - slots - 1)
    assert desk.stored("bob") == before["bob"]


def test_several_keys_at_once_and_the_other_way_round(desk: Desk) -> None:
    """Bob's node hands out slots of its own: both may be asked at the same time."""
    from_alice = desk.take(SAE_A, SAE_B, number=2).keys
    from_bob = desk.take(SAE_B, SAE_A, node="bob", number=3).keys
    assert len({*from_alice, *from_bob}) == 5 == len({*from_alice.values(), *from_bob.values()})
    assert desk.fetch(SAE_A, SAE_B, *from_bob, node="alice").keys == from_bob
    assert desk.fetch(SAE_B, SAE_A, *from_alice).keys == from_alice


def test_identities_survive_the_url_at_both_ends(desk: Desk) -> None:
    (key,) = desk.take(ODD_A, ODD_B).keys.items()
    assert desk.fetch(SAE_B, ODD_A, key[0]).status == 401
    assert desk.fetch(ODD_B, SAE_A, key[0]).refusal == (400, NOT_FOUND)
    assert desk.fetch(ODD_B, ODD_A, key[0]).keys == dict([key])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_are_spoken(desk: Desk, version: ssl.TLSVersion) -> None:
    for node, own, other in (("alice", SAE_A, SAE_B), ("bob", SAE_B, SAE_A)):
        context = client_context(desk.credentials(own))
        context.minimum_version = context.maximum_version = version
        assert desk.call(node, context, "GET", f"{other}/status").status == 200


def test_what_is_older_than_tls_1_2_is_refused(desk: Desk) -> None:
    context = client_context(desk.credentials(SAE_A))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        desk.call("alice", context, "GET", f"{SAE_B}/status")


# --- who may not ----------------------------------------------------------------------------------


def test_a_key_is_its_slaves_alone(desk: Desk) -> None:
    (key_id,) = taken = desk.take(SAE_A, SAE_B).keys
    assert desk.fetch(ODD_B, SAE_A, key_id).status == 401
    assert desk.fetch(SAE_A, SAE_A, key_id, node="alice").status == 401
    assert desk.fetch(SAE_A, SAE_A, key_id).status == 401  # no application of bob's at all
    assert desk.fetch(SAE_B, ODD_A, key_id).refusal == (400, NOT_FOUND)
    assert desk.fetch(SAE_B, SAE_A, key_id).keys == taken


def test_callers_are_applications_of_that_node(desk: Desk) -> None:
    for call in ("status", "enc_keys", "dec_keys"):
        refused = desk.call("alice", SAE_B, "GET", f"{SAE_B}/{call}")
        assert refused.status == 401 and "not one of this KME" in refused.body["message"]
        refused = desk.call("alice", "sae-nobody", "GET", f"{SAE_B}/{call}")
        assert refused.status == 401
    node = client_context(desk.lab.credentials(PartyKind.NODE, "bob"))
    assert desk.call("alice", node, "GET", f"{SAE_B}/status").status == 401


def test_without_a_certificate_of_the_authority_there_is_no_answer(
    desk: Desk, tmp_path: Path
) -> None:
    authority = desk.credentials(SAE_A).authority.decode()
    bare = ssl.create_default_context(cadata=authority)
    foreign = client_context(Authority(tmp_path / "f").credentials(PartyKind.SAE, SAE_A))
    foreign.load_verify_locations(cadata=authority)
    for context in (bare, foreign):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            desk.call("alice", context, "GET", f"{SAE_B}/status")


def test_an_application_checks_its_kme(desk: Desk, tmp_path: Path) -> None:
    """Bob's KME is none for an application that wants alice's; nor is one of another authority."""
    context = client_context(desk.credentials(SAE_A), Party(PartyKind.KME, "kme-alice"))
    assert desk.call("alice", context, "GET", f"{SAE_B}/status").status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        desk.call("bob", context, "GET", f"{SAE_B}/status")
    foreign = client_context(Authority(tmp_path / "f").credentials(PartyKind.SAE, SAE_A))
    with pytest.raises(ssl.SSLCertVerificationError):
        desk.call("alice", foreign, "GET", f"{SAE_B}/status")
    profile = desk.lab.layout.application("alice")
    wrong = profile.with_name("wrong.toml")
    wrong.write_text(profile.read_text().replace('kme_id = "kme-alice"', 'kme_id = "kme-bob"'))
    with pytest.raises(CommandFailed, match="exit code 4"):
        desk.lab.processes.command("keys", "get", "--to", SAE_B, "--show", "--client", str(wrong))


# --- when the nodes do not hear one another -------------------------------------------------------


def without_a_stream(desk: Desk) -> None:
    relay = desk.lab.peers
    relay.cut = True
    relay.drop()
    desk.lab.wait("bob", lambda status: not status["connections"]["alice"]["connected"])


def test_a_fetch_that_comes_before_the_word_of_it_is_told_so_in_the_end(desk: Desk) -> None:
    without_a_stream(desk)
    try:
        taken = desk.take(SAE_A, SAE_B, number=2).keys
        begun = time.monotonic()
        assert desk.fetch(SAE_B, SAE_A, *taken).refusal == (400, NOT_FOUND)
        assert time.monotonic() - begun >= ALLOCATION_WAIT_S
    finally:
        desk.lab.peers.cut = False
    desk.lab.wait("alice", lambda s: s["core"]["peers"]["bob"]["allocations_waiting"] == 0)
    assert desk.fetch(SAE_B, SAE_A, *taken).keys == taken


def test_a_fetch_waits_for_the_word_of_it(desk: Desk) -> None:
    without_a_stream(desk)
    with ThreadPoolExecutor(1) as pool:
        try:
            taken = desk.take(SAE_A, SAE_B).keys
            fetching = pool.submit(desk.fetch, SAE_B, SAE_A, *taken)
        finally:
            desk.lab.peers.cut = False
        assert fetching.result().keys == taken


# --- the command line -----------------------------------------------------------------------------


def clients(desk: Desk, node: str) -> list[str]:
    return ["--client", str(desk.lab.layout.application(node))]


def configs(desk: Desk, node: str) -> list[str]:
    return ["--config", str(desk.lab.layout.node(node))]


def test_keys_by_the_command_line_and_the_ground_they_stand_on(desk: Desk) -> None:
    command = desk.lab.processes.command
    got = command("keys", "get", "--to", SAE_B, "--size", "512", "--show", *clients(desk, "alice"))
    key_id = got["keys"][0]["key_ID"]
    assert len(base64.b64decode(got["keys"][0]["key"])) == 64
    retrieve = ["keys", "retrieve", "--from", SAE_A, "--key-id", key_id, "--show"]
    assert command(*retrieve, *clients(desk, "bob")) == got
    with pytest.raises(CommandFailed, match="not found on KME"):
        command(*retrieve, *clients(desk, "bob"))
    receipts = [command("keys", "receipt", key_id, *configs(desk, node)) for node in NODES]
    assert receipts[0] == receipts[1]
    assert receipts[0]["ends"]["bob"]["statement"]["device"]["source"] == "emulated"
    # Small sessions: what the keys are worth is on record.
    assert receipts[0]["session"]["epsilon"]["soundness"] == 0.9
    assert desk.lab.status("alice")["source"] == ["emulated"]


def test_a_file_is_sealed_here_and_opened_there(desk: Desk, tmp_path: Path) -> None:
    command = desk.lab.processes.command
    original, sealed, opened = (tmp_path / name for name in ("o", "s", "p"))
    original.write_bytes(bytes(range(256)) * 999)
    done = command("seal", str(original), "--to", SAE_B, "--out", str(sealed),
                   *clients(desk, "alice"))  # fmt: skip
    assert done["key_ID"].encode() in sealed.read_bytes()
    command("open", str(sealed), "--out", str(opened), *clients(desk, "bob"))
    assert opened.read_bytes() == original.read_bytes()
    with pytest.raises(CommandFailed, match="not found on KME"):
        command("open", str(sealed), "--out", str(tmp_path / "q"), *clients(desk, "bob"))


# --- the end of the stock -------------------------------------------------------------------------


def test_the_count_in_status_is_what_can_be_had(desk: Desk) -> None:
    for node, own, other in (("alice", SAE_A, SAE_B), ("bob", SAE_B, SAE_A)):
        while desk.stored(node) >= MOST_A_REQUEST:
            desk.take(own, other, node=node, number=MOST_A_REQUEST - 1)
        count = desk.stored(node)
        refused = desk.take(own, other, node=node, number=count + 1)
        assert refused.refusal == (503, "not enough keys at the moment")
        assert refused.body["details"] == [{"available": count}]
        assert int(refused.headers["Retry-After"]) > 0
        assert len(desk.take(own, other, node=node, number=count).keys) == count
        assert desk.stored(node) == 0


def test_a_node_in_production_refuses_emulated_keys(desk: Desk) -> None:
    """The last of these tests: alice starts anew with another file."""
    lab = desk.lab
    assert lab.run_session()["outcome"] == "stored"
    lab.settled()
    held = desk.stored("alice")
    (key_id,) = desk.take(SAE_B, SAE_A, node="bob").keys
    assert lab.processes.stop("alice") == 0
    edit(lab.layout.node("alice"), "[node]\n", "[node]\nproduction = true\n")
    lab.processes.start("alice")
    status = lab.processes.wait_for("alice", lambda s: s["connections"]["bob"]["connected"])
    assert status["production"] and status["source"] == ["emulated"]
    lab.listening["alice"] = status["listening"]
    refusal = "this KME is in production and refuses to deliver emulated keys"
    assert desk.take(SAE_A, SAE_B).refusal == (503, refusal)
    assert desk.fetch(SAE_A, SAE_B, key_id, node="alice").refusal == (503, refusal)
    assert desk.stored("alice") == 0 < held
    with pytest.raises(CommandFailed, match="in production"):
        lab.processes.command("keys", "get", "--to", SAE_B, "--show", *clients(desk, "alice"))
