"""No secret in any file, output, metric, trace or process argument, in any spelling.

Real processes run a session, a crash of a core whose error is full of raw bits, a session that is
aborted, and deliveries; the test then reads both nodes' stores under their key-encryption keys and
looks for what it found there wherever somebody else could look.
"""

import asyncio
import base64
import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.support.hostile import Lab, running_lab
from tests.support.known_secrets import (
    Secrets,
    copied,
    found_in,
    private_keys,
    secrets_of,
    spellings,
    spellings_of_bits,
)
from tests.support.leaking import start_leaky
from tests.support.processes import EMULATOR, NODES, worker_pids
from tests.support.relay import PATIENCE_S, Once, Said, honest, is_stage

from bellhop.hal.operations import NodeName
from bellhop.node.config import load_config
from bellhop.node.loopback import COMMAND
from bellhop.v1 import peer_pb2 as pb

pytestmark = pytest.mark.e2e

EXIT_BUG = 70


@dataclass(frozen=True)
class Remains:
    """What the processes left, and what nobody may find in it."""

    lab: Lab
    known: frozenset[str]
    needles: dict[bytes, str]
    of_processes: dict[str, bytes]


@pytest.fixture(scope="module")
def remains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remains]:
    folder, copies = tmp_path_factory.mktemp("n"), tmp_path_factory.mktemp("copies")
    with running_lab(folder / "net", '\n[observe]\nlog_level = "debug"\n') as lab:
        (folder / "net" / "outputs").mkdir()
        a_session(lab, copies)
        a_crash(lab, copies)
        an_abort(lab, copies)
        copy_both(lab, copies / "keys")
        of_processes = seen_from_outside(lab)
        deliver(lab)
        save_metrics(lab)
        secrets = asyncio.run(all_secrets(sorted(copies.iterdir())))
        secrets.strings |= private_keys(folder / "net")
        # By their own names: two secrets may begin alike, as Alice's outcomes and her raw key do
        # where no herald asks for a flip, and a needle has one name.
        known = frozenset(secrets.strings) | frozenset(secrets.bits)
        yield Remains(lab, known, secrets.needles(), of_processes)


# --- what happens ---------------------------------------------------------------------------------


def copy_both(lab: Lab, to: Path) -> None:
    for node in NODES:
        copied(load_config(lab.layout.node(node)).node.state_dir, to / node)


def copying_at(lab: Lab, stage: str, to: Path) -> Once:
    """Both stores are copied when alice says `stage`: rounds are kept until the key is there."""

    def copy(said: pb.Envelope) -> list[Said]:
        copy_both(lab, to)
        return [said]

    return Once(is_stage(stage), copy)


def a_session(lab: Lab, copies: Path) -> None:
    lab.peers.meddle = copying_at(lab, "VERIFICATION", copies / "session")
    assert lab.run_session()["outcome"] == "stored"


def a_crash(lab: Lab, copies: Path) -> None:
    """Bob's core fails when he hears the syndrome; he starts again, and the session goes on."""
    lab.settled()
    lab.peers.meddle = copying_at(lab, "VERIFICATION", copies / "crash")
    assert lab.processes.stop("bob") == 0
    start_leaky(lab.processes, "bob")
    lab.processes.wait_for("bob", lambda s: s["connections"]["alice"]["connected"])
    lab.wait("alice", lambda s: s["connections"]["bob"]["connected"])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lab.run_session)
        assert lab.processes.running.pop("bob").wait(PATIENCE_S) == EXIT_BUG
        lab.processes.start("bob")
        assert running.result()["outcome"] == "stored"
    status = lab.processes.wait_for("bob", lambda s: s["connections"]["alice"]["connected"])
    lab.listening["bob"] = status["listening"]


def an_abort(lab: Lab, copies: Path) -> None:
    lab.settled()

    def spoil(said: pb.Envelope) -> list[Said]:
        copy_both(lab, copies / "abort")
        said.tagged.tag = bytes(8)
        return [said]

    lab.peers.meddle = Once(is_stage("SYNDROME"), spoil)
    assert lab.run_session()["outcome"] == "aborted"
    lab.peers.meddle = honest
    lab.settled()


def seen_from_outside(lab: Lab) -> dict[str, bytes]:
    """What the system shows of each process: its command line, its environment, its name."""
    pids = {name: lab.processes.running[name].pid for name in (EMULATOR, *NODES)}
    for node in NODES:
        pids |= {f"worker of {node}": pid for pid in worker_pids(pids[node])}
    assert len(pids) == 5, "workers wait some seconds for more to do"
    seen = {}
    for name, pid in pids.items():
        for what in ("cmdline", "environ", "comm"):
            with suppress(PermissionError):  # then nobody can
                seen[f"{what} of {name}"] = Path(f"/proc/{pid}/{what}").read_bytes()
        seen[f"limits of {name}"] = Path(f"/proc/{pid}/limits").read_bytes()
    return seen


def deliver(lab: Lab) -> None:
    """Keys go out by every command; what the commands say is kept, but for the keys themselves."""
    layout = lab.layout
    original, sealed, opened = (layout.folder / name for name in ("letter", "sealed", "opened"))
    original.write_text("a letter")
    alice, bob = (["--client", str(layout.application(node))] for node in NODES)
    config = ["--config", str(layout.node("alice"))]
    got = lab.processes.command("keys", "get", "--to", "sae-bob", "--show", *alice)
    key_id = str(got["keys"][0]["key_ID"])
    retrieve = ["keys", "retrieve", "--from", "sae-alice", "--key-id", key_id]
    keep(lab, "retrieved", 0, *retrieve, "--out", str(layout.folder.parent / "key.json"), *bob)
    keep(lab, "retrieved twice", 3, *retrieve, "--show", *bob)
    keep(lab, "sealed", 0, "seal", str(original), "--to", "sae-bob", "--out", str(sealed), *alice)
    keep(lab, "opened", 0, "open", str(sealed), "--out", str(opened), *bob)
    keep(lab, "receipt", 0, "keys", "receipt", key_id, *config)
    keep(lab, "status", 0, "status", *config)
    keep(lab, "keys", 0, "keys", "status", *config)
    keep(lab, "pool", 0, "pool", "status", *config)


def keep(lab: Lab, name: str, code: int, *arguments: str) -> None:
    """Run a command, and keep what it writes on both of its streams."""
    for form in ((), ("--json",)):
        if form and name in ("retrieved", "sealed", "opened"):
            return  # done with, and a key goes once
        done = subprocess.run([*COMMAND, *arguments, *form], capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        file = lab.layout.folder / "outputs" / f"{name}{''.join(form)}"
        file.write_bytes(done.stdout + done.stderr)


def save_metrics(lab: Lab) -> None:
    for node in NODES:
        url = f"http://{lab.listening[node]['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            (lab.layout.folder / "outputs" / f"metrics {node}").write_bytes(answer.read())


async def all_secrets(moments: list[Path]) -> Secrets:
    secrets = Secrets()
    for moment in moments:
        for node in NODES:
            secrets |= await secrets_of(moment / node, NodeName(node))
    return secrets


# --- what is found --------------------------------------------------------------------------------


def test_the_test_knows_what_to_look_for(remains: Remains) -> None:
    """Of every kind, of both nodes and of all three sessions."""
    known = remains.known
    for kind in ("key-encryption key", "the facts' key", "data key", "hash key", "private key"):
        assert any(what.startswith(kind) for what in known), kind
    for kind in ("outcomes 9", "settings in tests 9"):
        for node in NODES:
            about = [what for what in known if what.startswith(f"{kind} of {node} in ")]
            assert len({re.findall("[0-9a-f]{32}", what)[0] for what in about}) == 3
    for kind in ("raw key 9 of alice", "key ", "mask 39 of way 1 of pool/alice/batch/"):
        assert any(what.startswith(kind) for what in known), kind


def readable(remains: Remains) -> Iterator[Path]:
    """Every file of the network but the two kinds that are secrets: they say so by their mode."""
    for path in sorted(remains.lab.layout.folder.rglob("*")):
        if path.is_file():
            if path.name == "key-encryption.key" or path.name.endswith(".key.pem"):
                assert path.stat().st_mode & 0o077 == 0
            else:
                yield path


def test_no_file_holds_a_secret(remains: Remains) -> None:
    """Logs, traces, configuration, outputs, and the stores, whose secrets are sealed."""
    files = list(readable(remains))
    kinds = {path.name.split("-")[0] for path in files} | {path.parent.name for path in files}
    assert {"alice.log", "bob.log", "emulator.log", "trace", "outputs", "sealed"} <= kinds
    assert {"keystore.sqlite3"} <= {path.name for path in files}
    for path in files:
        assert not found_in(path.read_bytes(), remains.needles), path


def test_no_process_shows_a_secret(remains: Remains) -> None:
    for where, content in remains.of_processes.items():
        assert not found_in(content, remains.needles), where


def test_no_process_leaves_its_memory_behind(remains: Remains) -> None:
    for name in (*NODES, *(f"worker of {node}" for node in NODES)):
        limits = remains.of_processes[f"limits of {name}"].decode().splitlines()
        (core,) = (line.split() for line in limits if line.startswith("Max core file size"))
        assert core[4:6] == ["0", "0"], name
    (probed,) = remains.lab.records("bob", "probed")
    assert (probed["daemon"], probed["worker"]) == (0, 0)


def test_what_failed_is_told_without_its_text(remains: Remains) -> None:
    """The errors were there to be logged, and say where they came up."""
    (bug,) = remains.lab.records("bob", "bug")
    assert bug["error"] == "ValueError" and "leaking.py" in bug["frames"]
    trace = json.loads(Path(bug["trace"]).read_text())
    assert trace["event"] == "Tick" and trace["steps"]
    (failed,) = remains.lab.records("bob", "leak_failed")
    assert failed["why"].startswith("ValueError in leaking.py:")
    (lost,) = remains.lab.records("bob", "unseen_error")
    (library,) = remains.lab.records("bob", "log", logger="a.library")
    for record in (lost, library):
        assert record["error"] == "ValueError" and "leaking.py" in record["frames"]


# --- that it can be found -------------------------------------------------------------------------


def test_every_spelling_is_found_where_it_stands() -> None:
    rng = np.random.default_rng(1)
    noise = rng.bytes(100_000)
    secret = rng.bytes(16)
    bits = rng.integers(0, 2, 128).astype(np.uint8)
    needles = {text: how for how, text in spellings(secret)}
    needles |= {text: f"{how} of bits" for how, text in spellings_of_bits(bits)}
    assert not found_in(noise, needles)
    for number, (needle, how) in enumerate(needles.items()):
        planted = noise[:number] + needle + noise[number:]
        assert how in found_in(planted, needles)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_base64_is_found_wherever_it_begins(shift: int) -> None:
    secret = os.urandom(16)
    needles = {text: how for how, text in spellings(secret)}
    text = base64.b64encode(os.urandom(shift) + secret + os.urandom(7))
    found = found_in(b"key: " + text, needles)
    assert {f"base64, shifted by {shift}", f"base64url, shifted by {shift}"} & found


def test_a_planted_secret_is_found(remains: Remains, tmp_path: Path) -> None:
    """The same search in the same log, with one key more in it."""
    log = remains.lab.layout.log("alice").read_bytes()
    for what in ("key ", "mask 0", "outcomes 0", "raw key 0", "hash key"):
        needle = next(n for n, told in remains.needles.items() if told.startswith(what))
        assert any(told.startswith(what) for told in found_in(log + needle, remains.needles))
