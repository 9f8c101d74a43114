"""The demonstration: from an emulated fibre to an encrypted file, with every program as it is."""

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bellhop.hal.errors import BellhopError
from bellhop.hal.preset import Preset, load_preset
from bellhop.node.config import load_config
from bellhop.node.loopback import NODES, PRESET, Layout, Processes, lay_out, network
from bellhop.node.planning import expected_of
from bellhop.node.session_client import Progress, run_session

DEGRADED = {"noise.phase": 0.2}
"""Phase flips that take S from 2.677 to 2.14 and leave the error rate: the Bell test fails."""


@dataclass(frozen=True, slots=True)
class Published:
    """What an experiment reported, as text; "-" for what it did not."""

    title: str
    s: str
    qber: str
    key_bits: str
    epsilon: str
    hours: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file that went from one application to the other."""

    key_id: str
    original: Path
    sealed: Path
    opened: Path
    same: bool


Tell = Callable[[str], None]


def published_by(preset: Preset) -> Published:
    """The figures of the preset's experiment."""
    of = preset.published
    rate = of.pairs_per_s_with_pauses
    hours = of.rounds.value / rate.value / 3600 if of.rounds and rate else None
    return Published(
        preset.title,
        "-" if of.s is None else f"{of.s.value:.3f}{_error(of.s.error, 3)}",
        "-" if of.qber is None else f"{of.qber.value:.2%}{_error(of.qber.error, 4)}",
        "-" if of.key_bits is None else f"{of.key_bits.value:,.0f} bits",
        "-" if of.soundness is None else f"{of.soundness.value:.0e}",
        "-" if hours is None else f"{hours:.1f}",
    )


def _error(error: float | None, digits: int) -> str:
    return "" if error is None else f" +- {error:.{digits}f}"


def lay_out_preset(folder: Path, name: str, *, degrade: bool = False) -> Layout:
    """A network on a preset, and sessions made for what it gives."""
    expected = expected_of(load_preset(name))
    design = f"\n[diqkd]\ns_design = {expected.s:.3f}\nqber_design = {expected.qber:.4f}\n"
    sections = "" if name == PRESET else design  # the defaults are made for that one
    return lay_out(folder, DEGRADED if degrade else None, sections, preset=name)


def run_demo(
    folder: Path,
    rounds: int,
    degrade: bool,
    tell: Tell,
    moved: Callable[[Progress], None],
    preset: str = PRESET,
) -> dict[str, Any]:
    """Make a network in `folder`, run one session, use a key of it; returns what came of it.

    `tell` hears each step, `moved` how far the session is.  Nothing is left running, whatever
    happens.
    """
    tell(f"certificates, a pool and configurations in {folder}")
    layout = lay_out_preset(folder, preset, degrade=degrade)
    alice, bob = NODES
    tell("the emulator, alice and bob start: three processes, mutual TLS between them")
    with network(layout, tied=True) as processes:
        tell(f"a session of {rounds:,} heralded pairs")
        socket = load_config(layout.node(alice)).control_socket
        end = run_session(socket, bob, rounds, moved)
        document: dict[str, Any] = {
            "session": end,
            "published": asdict(published_by(load_preset(preset))),
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


def hold_network(folder: Path, degrade: bool, tell: Tell, preset: str = PRESET) -> None:
    """Make a network in `folder` and keep it up until this process is interrupted."""
    layout = lay_out_preset(folder, preset, degrade=degrade)
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
