"""The demonstration: from an emulated fibre to an encrypted file, with every program as it is."""

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bellhop.hal.errors import BellhopError
from bellhop.node.config import load_config
from bellhop.node.loopback import NODES, Layout, Processes, lay_out, network
from bellhop.node.session_client import Progress, run_session

DEGRADED = {"noise.phase": 0.06}
"""Phase flips that take S from 2.677 to 2.52 and leave the error rate: the Bell test fails."""


@dataclass(frozen=True, slots=True)
class Published:
    """Nadlinger et al., Nature 607, 682 (2022)."""

    s: str = "2.677(6)"
    qber: str = "1.44(2) %"
    key_bits: int = 95_884
    epsilon: float = 1e-10


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file that went from one application to the other."""

    key_id: str
    original: Path
    sealed: Path
    opened: Path
    same: bool


Tell = Callable[[str], None]


def run_demo(
    folder: Path, rounds: int, degrade: bool, tell: Tell, moved: Callable[[Progress], None]
) -> dict[str, Any]:
    """Make a network in `folder`, run one session, use a key of it; returns what came of it.

    `tell` hears each step, `moved` how far the session is.  Nothing is left running, whatever
    happens.
    """
    tell(f"certificates, a pool and configurations in {folder}")
    layout = lay_out(folder, DEGRADED if degrade else None)
    alice, bob = NODES
    tell("the emulator, alice and bob start: three processes, mutual TLS between them")
    with network(layout, tied=True) as processes:
        tell(f"a session of {rounds:,} heralded pairs")
        socket = load_config(layout.node(alice)).control_socket
        end = run_session(socket, bob, rounds, moved)
        document: dict[str, Any] = {
            "session": end,
            "published": asdict(Published()),
            "folder": str(folder),
        }
        if end["outcome"] == "stored":
            both_have_it(processes)
            document["file"] = asdict(_seal_and_open(processes, layout, tell))
            document["receipt"] = processes.command(
                "keys", "receipt", document["file"]["key_id"], "--config", str(layout.node(bob))
            )
        else:
            document["stock"] = {
                node: processes.command("keys", "status", "--config", str(layout.node(node)))
                for node in NODES
            }
    return document


def hold_network(folder: Path, degrade: bool, tell: Tell) -> None:
    """Make a network in `folder` and keep it up until this process is interrupted."""
    layout = lay_out(folder, DEGRADED if degrade else None)
    with contextlib.suppress(KeyboardInterrupt), network(layout, tied=True) as processes:
        tell(f"alice and bob are up, their files are in {folder}; Ctrl-C stops them")
        processes.wait_for_an_end()
    tell("stopped")


def both_have_it(processes: Processes) -> None:
    """Wait until the keys are deliverable at both nodes: each knows that the other has them."""
    alice, bob = NODES
    for own, peer in ((alice, bob), (bob, alice)):
        processes.wait_for(own, partial(_has_keys, peer))


def _has_keys(peer: str, status: dict[str, Any]) -> bool:
    return bool(status["keys"]["stock"][peer]["keys"])


def _seal_and_open(processes: Processes, layout: Layout, tell: Tell) -> Sealed:
    original = layout.folder / "message.txt"
    sealed = layout.folder / "message.txt.sealed"
    opened = layout.folder / "message.opened.txt"
    original.write_text(
        "Whoever reads this had the other half of a Bell pair.\n"
        f"Drawn for this demonstration: {secrets.token_hex(32)}\n",
        encoding="utf-8",
    )
    alice, bob = NODES
    tell("sae-alice fetches a key at her node and seals a file for sae-bob")
    written = processes.command(
        *("seal", str(original), "--to", f"sae-{bob}", "--out", str(sealed)),
        *("--client", str(layout.application(alice))),
    )
    tell("sae-bob fetches the same key at his node, by its ID, and opens it")
    processes.command(
        *("open", str(sealed), "--out", str(opened)),
        *("--client", str(layout.application(bob))),
    )
    same = original.read_bytes() == opened.read_bytes()
    if not same:
        raise BellhopError("the opened file is not the sealed one")
    return Sealed(str(written["key_ID"]), original, sealed, opened, same)
