"""What the shipped designs lose against designs made for the very run; and how they were made.

    python bench/designs.py [--points N] [--json FILE] [--write]

Runs are drawn at random between the shipped ones: rounds, S, and an error rate about that of a
depolarised pair of that S.  The optimum is what `bounds.optimise` finds, by the uncertified kappa;
the loss contains the margin of certification, 1e-5 bit a round.

`--write` makes all designs anew, certifies them and writes the file that is shipped (minutes).
Names stay; a kappa that is not proved is never written.
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bellhop.stack.diqkd.bounds import designs
from bellhop.stack.diqkd.bounds.certificates import certified_design, entry_of, file_text
from bellhop.stack.diqkd.bounds.certify import NotCertified, certify
from bellhop.stack.diqkd.bounds.chsh import S_MAX
from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI
from bellhop.stack.diqkd.bounds.designs import best_design, expected_key_bits
from bellhop.stack.diqkd.bounds.expected import TAG_BITS, expected_shown, uncertified
from bellhop.stack.diqkd.bounds.optimise import optimise

EFFICIENCY, EPSILON = 1.06, 1e-10
ROUNDS = (3e4, 4e4, 7e4, 1.2e5, 2.2e5, 4e5, 7e5, 1.2e6, 2.2e6, 4e6)
S_VALUES = (2.40, 2.45, 2.50, 2.55, 2.60, 2.65, 2.70, 2.75, 2.80, 2.82)
QBER_SHARES = (0.85, 0.65, 0.5)
"""Of a depolarised pair's error rate: a design is made for the first with which there is a key."""

NOISY_ROUNDS = (7e5, 1.2e6, 2.2e6, 4e6)
NOISY_S = (2.40, 2.45, 2.50, 2.55)
NOISY_QBER_MIN = 0.062
FILTERED_ROUNDS = (4e4, 1.2e5, 4e5, 1.2e6, 4e6)
FILTERED_S = (2.50, 2.60, 2.70, 2.80)

CELLS_MAX = 10_000
"""A design with a longer proof is not shipped: all of them are to be checked in minutes.  Proofs
are long where a deterministic strategy is nearly the best; designs are worth little there."""

INTERIOR = 0.1
"""Bits a round of the best key from which a loss is said in per cent: near zero it means little."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a design is to be made for."""

    name: str
    bound: str
    rounds: int
    s: float
    qber: float
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """One run: the best key and that of the best shipped design."""

    rounds: int
    s: float
    qber: float
    best_bits: int
    shipped_bits: int
    shipped: str

    @property
    def share(self) -> float:
        return 1.0 - self.shipped_bits / self.best_bits


def depolarised_qber(s: float) -> float:
    return (S_MAX - s) / (2.0 * S_MAX)


def name_of(bound: str, rounds: float, s: float, noisy: bool = False) -> str:
    power = math.floor(math.log10(rounds) + 1e-9)
    return f"{bound}/{rounds / 10**power:g}e{power}/{s:.2f}" + ("/noisy" if noisy else "")


def wanted() -> Iterator[list[Made]]:
    """For each name, what to try in turn until there is a key; S falls within a number of rounds,
    so that nothing below an S without a key need be tried."""
    for bound, lengths, values in (
        (RENYI, ROUNDS, S_VALUES),
        (FILTERED, FILTERED_ROUNDS, FILTERED_S),
    ):
        for rounds in lengths:
            for s in reversed(values):
                name = name_of(bound, rounds, s)
                qbers = [round(share * depolarised_qber(s), 4) for share in QBER_SHARES]
                yield [Made(name, bound, int(rounds), s, qber) for qber in qbers]
    for rounds in NOISY_ROUNDS:
        for s in reversed(NOISY_S):
            qber = round(max(NOISY_QBER_MIN, depolarised_qber(s)), 4)
            yield [Made(name_of(RENYI, rounds, s, True), RENYI, int(rounds), s, qber, True)]


def entry_for(attempts: list[Made]) -> dict[str, Any] | None:
    """The certified design for the first of these runs that has a key with it."""
    for made in attempts:
        design = optimise(made.bound, made.rounds, made.s, made.qber, EFFICIENCY, EPSILON)
        if made.noisy != (design.flip_probability > 0.0):
            continue
        kappa = uncertified(made.bound, design, EPSILON)
        if kappa.key_bits(expected_shown(design, made.rounds, made.s, made.qber, EFFICIENCY)) <= 0:
            continue
        try:
            certificate = certify(design, made.bound)
        except NotCertified:
            continue
        if certificate.proof.cells > CELLS_MAX:
            continue
        made_for = (made.rounds, made.s, made.qber)
        certified = certified_design(certificate, made.name, made_for)
        if expected_key_bits(certified, *made_for, EFFICIENCY, EPSILON) > 0:
            return entry_of(certificate, made.name, made_for)
    return None


def write(console: Console) -> None:
    """Make the shipped file anew, beside the module that reads it."""
    entries: list[dict[str, Any]] = []
    without: set[tuple[str, int, bool]] = set()
    for attempts in track(list(wanted()), "certifying", console=console):
        kind = attempts[0].bound, attempts[0].rounds, attempts[0].noisy
        entry = None if kind in without else entry_for(attempts)
        if entry is None:
            without.add(kind)
        else:
            entries.append(entry)
    entries.sort(key=lambda entry: (entry["bound"] != RENYI, entry["flips"] > 0, entry["made_for"]))
    file = Path(designs.__file__).with_name(designs.FILE)
    file.write_text(file_text(entries), encoding="utf-8")
    designs.certified_designs.cache_clear()
    console.print(f"{len(entries)} designs, {file.stat().st_size:,} bytes")


def losses(points: int, console: Console) -> list[Loss]:
    """At runs drawn between the shipped ones where the best key is in the interior."""
    generator = np.random.default_rng(1)
    found: list[Loss] = []
    for _ in track(range(points), "runs", console=console):
        while True:
            rounds = int(10 ** generator.uniform(math.log10(4e4), math.log10(4e6)))
            s = float(generator.uniform(2.45, 2.82))
            qber = float(generator.uniform(0.5, 1.2)) * depolarised_qber(s)
            shipped = best_design(RENYI, rounds, s, qber, EFFICIENCY, EPSILON)
            if shipped is not None and shipped[1] > INTERIOR * rounds:
                break
        design = optimise(RENYI, rounds, s, qber, EFFICIENCY, EPSILON)
        shown = expected_shown(
            design, rounds, s, qber, EFFICIENCY, TAG_BITS, bins=float(rounds) ** 2
        )
        best = uncertified(RENYI, design, EPSILON).key_bits(shown)
        found.append(Loss(rounds, s, qber, best, shipped[1], shipped[0].name))
    return found


def show(found: list[Loss], console: Console) -> None:
    table = Table(title="key from the best shipped design, beside a design made for the run")
    for heading in ("rounds", "S", "QBER", "best bits", "shipped bits", "loss", "design"):
        table.add_column(heading, justify="right")
    for one in sorted(found, key=lambda loss: -loss.share):
        table.add_row(
            f"{one.rounds:,}",
            f"{one.s:.3f}",
            f"{one.qber:.2%}",
            f"{one.best_bits:,}",
            f"{one.shipped_bits:,}",
            f"{one.share:.2%}",
            one.shipped,
        )
    console.print(table)
    shares = np.array([one.share for one in found])
    console.print(
        f"loss of {len(found)} runs with at least {INTERIOR} bit a round: median "
        f"{np.median(shares):.2%}, nine of ten below {np.quantile(shares, 0.9):.2%}, "
        f"most {shares.max():.2%}"
    )


@click.command()
@click.option("--points", type=click.IntRange(1), default=30, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--write", "write_file", is_flag=True, help="Make and certify all designs first.")
def main(points: int, json_file: Path | None, write_file: bool) -> None:
    """Measure what the shipped designs lose."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140)
    if write_file:
        write(console)
    found = losses(points, console)
    show(found, console)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
