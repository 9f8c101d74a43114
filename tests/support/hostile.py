"""A network whose wires are in hostile hands: relays stand before its peers and its memory."""

import datetime
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.processes import EMULATOR, NODES, Layout, Processes
from tests.support.relay import OPERATE, PATIENCE_S, Ends, Loop, PeerRelay, Relay
from tests.support.small_session import IDEAL, ROUNDS, diqkd

from bellhop.node import pki
from bellhop.node.config import load_config
from bellhop.node.control_client import NodeControl, node_at
from bellhop.node.loopback import ProcessEnded, lay_out
from bellhop.node.peers import METHOD as CONVERSE
from bellhop.node.session_client import Progress, run_session
from bellhop.node.tls import Credentials, Party, PartyKind, read_credentials

LOOK_AGAIN_S = 0.02
BLOCK_ROUNDS = 5_000
ADAM = "adam"
"""A peer of both nodes that the test plays: one of theirs, and no honest one."""

_ADAM = f"""
[[peer]]
name = "{ADAM}"
address = "127.0.0.1:1"
"""
Status = dict[str, Any]


@dataclass(slots=True)
class Lab:
    """The running network.  Alice reaches Bob through `peers` and her memory through `memory`."""

    processes: Processes
    peers: PeerRelay
    memory: Relay
    controls: dict[str, NodeControl] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    listening: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        return self.processes.layout

    def credentials(self, kind: PartyKind, name: str) -> Credentials:
        return credentials_of(self.layout.folder / "pki", kind, name)

    def issue(self, kind: PartyKind, name: str) -> Credentials:
        """A new certificate of the network's own authority."""
        now = datetime.datetime.now(datetime.UTC)
        files = pki.issue(self.layout.folder / "pki", Party(kind, name), now=now)
        return read_credentials(files.certificate, files.key, files.authority)

    def run_session(self, *moved: Callable[[Progress], None]) -> dict[str, Any]:
        """A session that alice's operator asks for; returns its end there."""
        socket = load_config(self.layout.node("alice")).control_socket

        def tell(progress: Progress) -> None:
            for hear in moved:
                hear(progress)

        return run_session(socket, "bob", ROUNDS, tell)

    def status(self, node: str) -> Status:
        status: Status = json.loads(self.controls[node].status())
        return status

    def wait(
        self, node: str, holds: Callable[[Status], bool], within_s: float = PATIENCE_S
    ) -> Status:
        """Until `holds` of the node's status; returns it."""
        give_up = time.monotonic() + within_s
        process = self.processes.running[node]
        while not holds(status := self.status(node)):
            if time.monotonic() > give_up:
                raise TimeoutError(f"{node} does not come to it: {status}")
            with suppress(subprocess.TimeoutExpired):
                raise ProcessEnded(f"{node} ended with exit code {process.wait(LOOK_AGAIN_S)}")
        return status

    def settled(self) -> dict[str, dict[str, str]]:
        """The blocks of both nodes, once at rest and with their memories and one another."""
        blocks = {}
        for node, peer in (NODES, NODES[::-1]):
            status = self.wait(node, partial(_at_rest, peer))
            blocks[node] = {
                block["session"]: str(block["state"]) for block in status["keys"]["blocks"]
            }
        return blocks

    def await_stream(self, after: int) -> None:
        """Until a stream later than `after` is up between the two."""
        self.wait("alice", lambda _: self.peers.streams > after)
        for node, peer in (NODES, NODES[::-1]):
            self.wait(node, partial(_at_rest, peer))

    def refusals(self, node: str, peer: str, reason: str) -> float:
        """What the metrics count."""
        url = f"http://{self.listening[node]['metrics']}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        series = f'bellhop_refusals_total{{peer="{peer}",reason="{reason}"}} '
        return next((float(line.split()[-1]) for line in lines if line.startswith(series)), 0.0)

    def records(self, name: str, event: str, **fields: object) -> list[dict[str, Any]]:
        """Log records of a process that have these fields; every line is a record."""
        lines = self.layout.log(name).read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        return [
            record
            for record in records
            if record["event"] == event and fields.items() <= record.items()
        ]

    def await_refusal(self, node: str, peer: str, reason: str, before: float) -> dict[str, Any]:
        """Until the metrics count one more; returns its record, which names who must act."""
        self.wait(node, lambda _: self.refusals(node, peer, reason) > before)
        record = self.records(node, "refused", reason=reason)[-1]
        assert record["level"] == "warning" and record["who_must_act"]
        return record

    def assert_unharmed(self) -> None:
        """The processes are those that were started, they answer, and met no bug of ours."""
        for name, pid in self.pids.items():
            assert self.processes.running[name].poll() is None, name
            assert self.processes.running[name].pid == pid
        for node in NODES:
            assert self.status(node)["node"] == node
            assert b'"event":"bug"' not in self.layout.log(node).read_bytes()


def _at_rest(peer: str, status: Status) -> bool:
    core = status["core"]
    joined = status["connections"][peer]["connected"] and core["peers"][peer]["joined"]
    return joined and core["device_ready"] and not core["sessions"] and not core["held"]


def credentials_of(folder: Path, kind: PartyKind, name: str) -> Credentials:
    """Of a party whose files are in an authority's folder."""
    here = folder / kind / name
    return read_credentials(
        here / f"{name}.crt.pem", here / f"{name}.key.pem", here / "authority.crt.pem"
    )


@contextmanager
def running_lab(folder: Path, sections: str = "", etsi: str = "") -> Iterator[Lab]:
    """A network with small sessions and hostile wires, ready.

    `sections` go into both nodes' files, `etsi` into the section of that name.
    """
    layout = lay_out(folder, None, diqkd(BLOCK_ROUNDS) + _ADAM + sections)
    for name in NODES:
        edit(layout.node(name), "[etsi]\n", f"[etsi]\n{etsi}")
    edit(layout.emulator, 'preset = "oxford"', f'preset_file = "{IDEAL}"')
    loop = Loop()
    alice, bob = (load_config(layout.node(name)) for name in NODES)
    pki = folder / "pki"
    nodes = {name: credentials_of(pki, PartyKind.NODE, name) for name in NODES}
    emulator = credentials_of(pki, PartyKind.EMULATOR, EMULATOR)
    peers = PeerRelay(
        loop,
        Ends(CONVERSE, nodes["bob"], nodes["alice"], bob.peers.listen, "bob.node.bellhop"),
    )
    memory = Relay(
        loop,
        Ends(OPERATE, emulator, nodes["alice"], alice.memory.address, "emulator.emulator.bellhop"),
    )
    processes = Processes(layout)
    lab = Lab(processes, peers, memory)
    edit(layout.node("alice"), str(bob.peers.listen), f"127.0.0.1:{peers.start()}")
    edit(layout.node("alice"), str(alice.memory.address), f"127.0.0.1:{memory.start()}")
    for own, peer, way in ((*NODES, "--new"), (*NODES[::-1], "--from")):
        config = ["--config", str(layout.node(own))]
        processes.command("pool", "provision", *config, "--peer", peer, way, str(layout.pool))
    layout.pool.unlink()
    try:
        for name in (EMULATOR, *NODES):
            processes.start(name)
        with ExitStack() as controls:
            for node, peer in (NODES, NODES[::-1]):
                status = processes.wait_for(node, partial(_at_rest, peer))
                lab.listening[node] = status["listening"]
                socket = load_config(layout.node(node)).control_socket
                lab.controls[node] = controls.enter_context(node_at(socket))
            lab.pids = {name: process.pid for name, process in processes.running.items()}
            yield lab
    finally:
        processes.stop_all()
        peers.stop()
        memory.stop()
        loop.close()


def edit(file: Path, old: str, new: str) -> None:
    """Change what stands once in a file."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old} stands once in {file.name}"
    file.write_text(text.replace(old, new), encoding="utf-8")
