"""Three real processes: a key is made and used once at both ends, and processes die as they may."""

import base64
import json
import os
import signal
import stat
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.identities import Authority
from tests.support.processes import NODES, Processes, running_network, worker_pids

from bellhop.node.config import load_config
from bellhop.node.control_client import NodeStopped
from bellhop.node.demo import both_have_it
from bellhop.node.loopback import CommandFailed
from bellhop.node.peers import METHOD
from bellhop.node.session_client import Progress, run_session
from bellhop.node.tls import PartyKind, channel_options, grpc_channel_credentials

pytestmark = pytest.mark.e2e

ROUNDS = 1_500_000


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with running_network(tmp_path_factory.mktemp("n") / "net") as running:
        yield running


def config(processes: Processes, node: str) -> list[str]:
    return ["--config", str(processes.layout.node(node))]


def session(processes: Processes, *moved: Any) -> dict[str, Any]:
    """Run a session at alice's with bob; `moved` hear of its progress.  Returns its end."""
    socket = load_config(processes.layout.node("alice")).control_socket

    def tell(progress: Progress) -> None:
        for hear in moved:
            hear(progress)

    return run_session(socket, "bob", ROUNDS, tell)


def stored_blocks(processes: Processes, node: str) -> dict[str, str]:
    status = processes.command("keys", "status", *config(processes, node))
    return {block["session"]: block["state"] for block in status["blocks"]}


def test_a_key_is_made_and_used_once_at_both_ends(processes: Processes) -> None:
    end = session(processes)
    assert end["outcome"] == "stored", end
    assert end["net_bits"] >= 120_000 and 2.6 < end["s"] < 2.75
    both_have_it(processes)
    assert stored_blocks(processes, "alice") == stored_blocks(processes, "bob")
    profiles = {node: ["--client", str(processes.layout.application(node))] for node in NODES}
    got = processes.command("keys", "get", "--to", "sae-bob", "--show", *profiles["alice"])
    key_id = got["keys"][0]["key_ID"]
    retrieve = ["keys", "retrieve", "--from", "sae-alice", "--key-id", key_id, "--show"]
    assert processes.command(*retrieve, *profiles["bob"]) == got
    with pytest.raises(CommandFailed):
        processes.command(*retrieve, *profiles["bob"])
    receipt = processes.command("keys", "receipt", key_id, *config(processes, "bob"))
    assert receipt == processes.command("keys", "receipt", key_id, *config(processes, "alice"))
    for role in NODES:
        statement = receipt["ends"][role]["statement"]
        assert (statement["node"], statement["device"]["source"]) == (role, "emulated")
    assert not files_with(base64.b64decode(got["keys"][0]["key"]), processes.layout.folder)


def files_with(secret: bytes, folder: Path) -> list[Path]:
    """The files under `folder` that hold `secret`, or half of it, in any usual spelling."""
    spellings = [
        spelled.strip(b"=")
        for part in (secret, secret[: len(secret) // 2], secret[len(secret) // 2 :])
        for spelled in (
            part,
            part.hex().encode(),
            part.hex().upper().encode(),
            repr(part)[2:-1].encode(),
            str(list(part))[1:-1].encode(),
            base64.b64encode(part),
            base64.urlsafe_b64encode(part),
            base64.b32encode(part),
        )
    ]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(text in path.read_bytes() for text in spellings)]


def test_a_killed_worker_costs_no_session(processes: Processes) -> None:
    killed: list[int] = []

    def kill_workers(progress: Progress) -> None:
        if progress.stage == "heralding" and not killed:
            for node in NODES:
                for pid in worker_pids(processes.running[node].pid):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    assert session(processes, kill_workers)["outcome"] == "stored"
    assert killed


def test_a_node_killed_in_mid_session_takes_it_up_again(processes: Processes) -> None:
    """Bob is killed while rounds are measured: the session ends at both ends alike."""
    before = stored_blocks(processes, "alice")
    killed: list[str] = []

    def kill_bob(progress: Progress) -> None:
        if 0 < progress.rounds_done < ROUNDS and not killed:
            killed.append(progress.stage)
            processes.kill("bob")
            processes.start("bob")

    end = session(processes, kill_bob)
    assert killed, "the session was over before it could be disturbed"
    assert end["outcome"] in {"stored", "aborted"}
    if end["outcome"] == "stored":
        both_have_it(processes)
    processes.wait_ready()
    for node in NODES:
        processes.wait_for(node, lambda status: not status["core"]["sessions"])
    after = {node: stored_blocks(processes, node) for node in NODES}
    assert after["alice"] == after["bob"]
    assert (len(after["alice"]) > len(before)) == (end["outcome"] == "stored")


def test_who_waits_for_a_session_hears_what_it_waits_for(processes: Processes) -> None:
    """First bob is gone for a while, then alice herself: her session goes on without the waiter."""
    stages: list[str] = []

    def part(progress: Progress) -> None:
        if progress.rounds_done and not stages:
            processes.kill("bob")
            stages.append("killed")
        elif stages and progress.stage != stages[-1]:
            stages.append(progress.stage)
        if progress.stage == "waiting for bob" and "alice" in processes.running:
            processes.kill("alice")

    with pytest.raises(NodeStopped, match="bellhop status"):
        session(processes, part)
    assert "waiting for bob" in stages
    for node in NODES:
        processes.start(node)
    processes.wait_ready()
    for node in NODES:
        processes.wait_for(node, lambda status: not status["core"]["sessions"])


def test_a_question_that_cannot_be_is_refused(processes: Processes) -> None:
    with pytest.raises(CommandFailed, match="exit code 2"):
        processes.command("diqkd", "run", *config(processes, "alice"), "--peer", "carol")
    few = ["diqkd", "run", *config(processes, "alice"), "--peer", "bob", "--rounds", "1000"]
    with pytest.raises(CommandFailed, match="exit code 3") as refused:
        processes.command(*few)
    assert '"error": "SessionRefused"' in refused.value.message
    assert '"who_must_act": "whoever asked for it"' in refused.value.message
    abort = ["diqkd", "abort", *config(processes, "alice"), "--peer", "bob"]
    with pytest.raises(CommandFailed, match="no session is under way"):
        processes.command(*abort)
    with pytest.raises(CommandFailed, match="exit code 3"):
        processes.command("keys", "receipt", "0" * 32, *config(processes, "alice"))


def test_status_says_where_and_what(processes: Processes) -> None:
    status = processes.command("status", *config(processes, "bob"))
    assert status["node"] == "bob"
    assert status["source"] == ["emulated"]
    assert set(status["listening"]) == {"peers", "etsi", "metrics"}
    assert status["connections"]["alice"]["connected"]
    pool = ["pool", "status", *config(processes, "bob"), "--peer"]
    (left,) = processes.command(*pool, "alice").values()
    assert left["pool_provisioned"] and left["masks_left"] > 0 and left["forgeries"] == 0
    with pytest.raises(CommandFailed, match="exit code 2"):
        processes.command(*pool, "carol")


def test_what_is_secret_is_closed_to_others(processes: Processes) -> None:
    state = load_config(processes.layout.node("alice")).node.state_dir
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for path in state.iterdir():
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_the_store_of_a_running_node_is_not_touched(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="exit code 2"):
        processes.command(
            *("pool", "provision", *config(processes, "alice"), "--peer", "bob"),
            *("--new", str(tmp_path / "pool.json")),
        )
    with pytest.raises(CommandFailed, match="exit code 2"):
        processes.command("run", str(processes.layout.node("alice")))
    assert processes.status("alice") is not None


def test_a_node_stops_cleanly_and_keeps_its_keys(processes: Processes) -> None:
    before = stored_blocks(processes, "bob")
    process = processes.running["bob"]
    assert processes.stop("bob") == 0
    assert process.returncode == 0
    with pytest.raises(CommandFailed, match="no node answers"):
        processes.command("status", *config(processes, "bob"))
    stopped = processes.command("pool", "status", *config(processes, "bob"))
    processes.start("bob")
    processes.wait_ready()
    assert processes.command("pool", "status", *config(processes, "bob")) == stopped
    assert stored_blocks(processes, "bob") == before


def test_logs_are_records_and_name_who_must_act(processes: Processes) -> None:
    for node in NODES:
        lines = processes.layout.log(node).read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        assert {"ready", "peer_joined"} <= {record["event"] for record in records}


def test_without_a_node_a_command_says_so(processes: Processes) -> None:
    text = processes.layout.node("alice").read_text(encoding="utf-8")
    elsewhere = processes.layout.folder / "nobody.toml"
    elsewhere.write_text(text.replace("state/alice", "state/nobody"), encoding="utf-8")
    with pytest.raises(CommandFailed, match="bellhop run"):
        processes.command("status", "--config", str(elsewhere))


def test_a_peer_that_is_frozen_is_noticed_and_found_again(processes: Processes) -> None:
    """A stopped process keeps its sockets open: only the missing answers to pings tell."""

    def connected(status: dict[str, Any]) -> bool:
        return bool(status["connections"]["bob"]["connected"])

    processes.running["bob"].send_signal(signal.SIGSTOP)
    try:
        processes.wait_for("alice", lambda status: not connected(status), within_s=20.0)
    finally:
        processes.running["bob"].send_signal(signal.SIGCONT)
    processes.wait_for("alice", connected)


def test_a_caller_of_another_authority_is_logged_and_counted(
    processes: Processes, tmp_path: Path
) -> None:
    listening = processes.wait_for("bob", lambda _status: True)["listening"]
    foreign = Authority(tmp_path / "foreign").credentials(PartyKind.NODE, "alice")
    own = processes.layout.folder / "pki" / "authority.crt.pem"
    stranger = replace(foreign, authority=own.read_bytes())
    options = channel_options("bob.node.bellhop")
    with grpc.secure_channel(
        listening["peers"], grpc_channel_credentials(stranger), options=options
    ) as channel:
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
        with pytest.raises(grpc.RpcError):
            next(method(iter([b"let me in"])))
    processes.wait_for("bob", lambda _status: _refused_handshakes(listening["metrics"]) > 0)
    log = processes.layout.log("bob").read_text(encoding="utf-8")
    refusals = [json.loads(line) for line in log.splitlines() if "tls_handshake_refused" in line]
    assert {"foreign_authority"} == {record["reason"] for record in refusals}
    assert all(record["who_must_act"] for record in refusals)


def _refused_handshakes(metrics: str) -> float:
    with urllib.request.urlopen(f"http://{metrics}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    label = 'reason="foreign_authority"'
    counted = [line.rpartition(" ")[2] for line in lines if label in line and "_total" in line]
    return sum(float(value) for value in counted)
