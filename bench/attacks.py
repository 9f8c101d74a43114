"""Sessions under attack in virtual time: is there ever a key where no theorem can allow one?

    python bench/attacks.py --runs 1000

Each run is a whole session of 20,000 rounds between two nodes with the cores that a daemon runs,
under the default bound at its usual epsilon; the seed decides everything.  `honest` is the twin
without an attack: its runs must make keys, or the others would prove nothing.  Attacks on devices
are full ones, so that a theorem allows no key; where devices with memory stay honest in part, a key
may be no longer than the number of outcomes the adversary does not know.  A tampered session may
end in a key or in none, never in two different ones.
"""

import json
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bellhop.hal.emulator.nature import Link
from bellhop.hal.operations import LinkName, NodeName
from bellhop.hal.preset import Preset, read_preset
from bellhop.node.sim.adversary import (
    KEY_AXIS,
    Devices,
    Gambler,
    InterceptResend,
    Local,
    Repeater,
    Tampering,
)
from bellhop.node.sim.checkers import Invariants
from bellhop.node.sim.world import World
from bellhop.stack.core import RunSession
from bellhop.stack.diqkd.parameters import SessionPolicy

ROUNDS = 20_000
SECOND_NS = 1_000_000_000
ALICE, BOB = NodeName("alice"), NodeName("bob")
IDEAL = Path(__file__).parents[1] / "tests" / "scenarios" / "ideal.toml"

POLICY = SessionPolicy(s_design=2.8, qber_design=0.005, block_rounds=1_000)

MESSAGES = (
    "Propose",
    "Accept",
    "BlockHeralded",
    "TestRounds",
    "SlotDone",
    "Tagged",
    "Decoded",
    "SyndromeWanted",
    "SyndromeExtra",
    "BlockStored",
)
"""Kinds of messages that are tampered with, one a run."""

REPEATED = {"BlockHeralded": 20, "TestRounds": 20, "SlotDone": 20, "Tagged": 8}
"""How many of a kind a session says at least; of the others one."""

HONEST_SHARE = 0.99
"""Of the honest twin's runs at least so many make a key: a short one's S may come out too low."""

ENDING_CHARACTERS = 160
FIGURE = re.compile(r"\b\d[\d.]*")

Players = Callable[[np.random.Generator], Devices]

DEVICES: dict[str, Players] = {
    "local": Local,
    "intercept-resend": InterceptResend,
    "key-basis intercept": lambda chance: InterceptResend(chance, KEY_AXIS, share=0.5),
    "memory, gambling": lambda chance: Gambler(chance, aim=0.80),
    "memory, repeating": Repeater,
}
KINDS = ("honest", *DEVICES, "tampered")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.  `unknown`: outcomes of Alice's that the adversary did not know."""

    kind: str
    seed: int
    ended: str
    reason: str
    key_bits: int
    unknown: int
    alike: bool
    tampered: str


def run_one(kind: str, seed: int, rounds: int = ROUNDS) -> Outcome:
    """One session under one attack; AssertionError if an invariant of the nodes does not hold."""
    chance = np.random.default_rng([seed, 11])
    devices = DEVICES[kind](chance) if kind in DEVICES else None
    tamper = _tampering(chance) if kind == "tampered" else None
    # The order of a round at both ends is for honest wires: who changes the slot of announced tests
    # has Bob's device asked too soon, and the transcripts' tags end the session.
    watch = None if tamper else Invariants().watch
    link = Link(LinkName("fibre"), ALICE, BOB, _preset())
    world = World((link,), POLICY, seed, watch=watch, devices=devices, tamper=tamper)
    world.run(SECOND_NS)
    number = world.ask(ALICE, RunSession(BOB, rounds))
    world.run(world.now_ns + 4_000 * SECOND_NS, lambda: world.answered(number))
    world.run(world.now_ns + 60 * SECOND_NS)
    answer = world.happened.answers.get(number)
    keys = [_keys(world, name) for name in (ALICE, BOB)]
    return Outcome(
        kind=kind,
        seed=seed,
        ended=answer.outcome if answer else "unanswered",
        reason=str(answer.fields.get("reason", "")) if answer else "",
        key_bits=max(8 * sum(len(key) for key in held.values()) for held in keys),
        unknown=rounds - (devices.known if devices else 0),
        alike=keys[0] == keys[1],
        tampered=tamper.done if tamper else "",
    )


@lru_cache
def _preset() -> Preset:
    return read_preset(IDEAL, {"noise.white": 0.008})


def _keys(world: World, name: NodeName) -> dict[str, bytes]:
    blocks = world.nodes[name].store.deliverable.values()
    return {slot.key_id: slot.key for block in blocks for slot in block.slots}


def _tampering(chance: np.random.Generator) -> Tampering:
    kind = MESSAGES[int(chance.integers(len(MESSAGES)))]
    return Tampering(chance, kind, int(chance.integers(REPEATED.get(kind, 1))))


def wrong(outcome: Outcome) -> str:
    """What of an outcome must not be, or nothing."""
    if not outcome.alike:
        return "the ends hold different keys"
    if outcome.kind in DEVICES and outcome.key_bits:
        return f"{outcome.key_bits} bits of key, {outcome.unknown} unknown to the adversary"
    return ""


def how_it_ended(outcome: Outcome) -> str:
    """With the figures of the reason left out, so that runs that ended alike count together."""
    ended = (
        f"{outcome.ended}: {FIGURE.sub('_', outcome.reason)}" if outcome.reason else outcome.ended
    )
    return textwrap.shorten(ended, ENDING_CHARACTERS, placeholder=" ...")


@dataclass(frozen=True, slots=True)
class Summary:
    """A row of the table."""

    kind: str
    runs: int
    with_key: int
    key_bits_mean: float
    unknown_mean: float
    ended: dict[str, int]
    tampered: dict[str, int]
    wrong: list[str]


def summary(kind: str, outcomes: list[Outcome]) -> Summary:
    told = [f"seed {o.seed}: {wrong(o)}" for o in outcomes if wrong(o)]
    with_key = sum(o.key_bits > 0 for o in outcomes)
    if kind == "honest" and with_key < HONEST_SHARE * len(outcomes):
        told.append(f"only {with_key} of {len(outcomes)} honest runs made a key")
    changed = Counter(f"{o.tampered} changed: {o.ended}" for o in outcomes if o.tampered)
    return Summary(
        kind=kind,
        runs=len(outcomes),
        with_key=with_key,
        key_bits_mean=float(np.mean([o.key_bits for o in outcomes])),
        unknown_mean=float(np.mean([o.unknown for o in outcomes])),
        ended=dict(Counter(how_it_ended(o) for o in outcomes).most_common(4)),
        tampered=dict(sorted(changed.items())),
        wrong=told,
    )


@click.command()
@click.option("--runs", default=20, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option("--only", default="", help="Kinds whose name contains this text.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures.")
def main(runs: int, first: int, only: str, json_path: Path | None) -> None:
    """Run every attack under many seeds; exit code 1 if anything is wrong."""
    console = Console()
    rows = []
    for kind in (kind for kind in KINDS if only in kind):
        seeds = track(
            range(first, first + runs),
            kind,
            console=console,
            transient=True,
            disable=not console.is_terminal,  # it would leave an empty line
        )
        rows.append(summary(kind, [run_one(kind, seed) for seed in seeds]))
    table = Table(title=f"Sessions of {ROUNDS:,} rounds under attack")
    for heading in ("attack", "runs", "with a key", "mean key bits", "unknown bits", "wrong"):
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    for row in rows:
        mean = (f"{row.key_bits_mean:,.0f}", f"{row.unknown_mean:,.0f}")
        table.add_row(row.kind, str(row.runs), str(row.with_key), *mean, str(len(row.wrong)))
    console.print(table)
    for row in rows:
        for text, count in {**row.ended, **row.tampered}.items():
            click.echo(f"  {row.kind}: {count} x {text}")
        for text in row.wrong[:5]:
            click.echo(f"  WRONG {row.kind}: {text}")
    if json_path:
        json_path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    sys.exit(1 if any(row.wrong for row in rows) else 0)


if __name__ == "__main__":
    main()
