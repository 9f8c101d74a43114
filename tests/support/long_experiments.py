"""The 11 km experiment between processes: paused, killed, and its keys fetched at both ends."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bellhop.node.config import load_config
from bellhop.node.demo import lay_out_preset
from bellhop.node.etsi_client import EtsiClient, load_profile
from bellhop.node.loopback import NODES, Layout, Processes
from bellhop.node.session_client import Progress, run_session

ALICE, BOB = NODES
PRESET = "lu-11km"
ROUNDS = 1_200_000
PUBLISHED_HOURS = 624
KEYS_A_REQUEST = 100


def lay_out(folder: Path) -> Layout:
    return lay_out_preset(folder, PRESET)


def hours(experiment_ns: int) -> float:
    return experiment_ns / 3.6e12


def run(network: Processes, moved: Any = lambda _: None) -> dict[str, Any]:
    socket = load_config(network.layout.node(ALICE)).control_socket
    return run_session(socket, BOB, ROUNDS, moved)


def command(network: Processes, node: str, *words: str) -> dict[str, Any]:
    return network.command(*words, "--config", str(network.layout.node(node)))


class PausedThenKilled:
    """Watches a session; in its middle, `by` pauses it, and when all is quiet both nodes die."""

    def __init__(self, network: Processes, by: str, after_rounds: int) -> None:
        self.network = network
        self.by = by
        self.after_rounds = after_rounds
        self.quiet: dict[str, dict[str, Any]] = {}

    def moved(self, progress: Progress) -> None:
        if self.quiet or progress.rounds_done < self.after_rounds:
            return
        peer = ALICE if self.by == BOB else BOB
        paused = command(self.network, self.by, "diqkd", "pause", "--peer", peer)
        assert paused["outcome"] == "paused" and paused["paused_by"] == self.by
        for name in NODES:
            self.quiet[name] = session_of(self.network.wait_for(name, self.is_quiet))
        for name in NODES:
            self.network.kill(name)

    def is_quiet(self, status: dict[str, Any]) -> bool:
        session = session_of(status)
        return bool(session["paused_by"] == [self.by] and session["blocks_under_way"] == 0)


def session_of(status: dict[str, Any]) -> dict[str, Any]:
    """The one session of a node."""
    (session,) = status["core"]["sessions"]
    assert isinstance(session, dict)
    return session


def is_over(status: dict[str, Any]) -> bool:
    core = status["core"]
    return not core["sessions"] and not core["held"]


def equal_keys(network: Processes) -> int:
    """Hand out all keys of both nodes at both ends; returns how many there were, all alike."""
    return sum(asyncio.run(_handed_out(network.layout, name)) for name in NODES)


async def _handed_out(layout: Layout, master: str) -> int:
    slave = ALICE if master == BOB else BOB
    count = 0
    async with _client(layout, master) as ours, _client(layout, slave) as theirs:
        while stock := (await ours.status(f"sae-{slave}")).stored_key_count:
            given = await ours.enc_keys(f"sae-{slave}", min(stock, KEYS_A_REQUEST))
            fetched = await theirs.dec_keys(f"sae-{master}", [key.key_id for key in given])
            assert _plain(given) == _plain(fetched)
            count += len(given)
    return count


def _client(layout: Layout, node: str) -> EtsiClient:
    return EtsiClient(load_profile(layout.application(node)))


def _plain(keys: Iterable[Any]) -> dict[str, bytes]:
    return {key.key_id: bytes(key.key) for key in keys}


def verified(network: Processes, node: str, session: str) -> dict[str, Any]:
    """The receipt that a node has of a session, after the stand-alone verifier had it."""
    folder = network.layout.folder
    receipt = command(network, node, "keys", "receipt", session)
    file = folder / f"{node}-{session}.json"
    file.write_text(json.dumps(receipt), encoding="utf-8")
    authority = folder / "pki" / "node" / node / "authority.crt.pem"
    network.command("receipt", "verify", str(file), "--authority", str(authority))
    return receipt
