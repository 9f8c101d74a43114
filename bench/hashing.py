"""How long hashing takes: Toeplitz amplification and Wegman-Carter tags beside their peers.

    python bench/hashing.py [--json FILE]

Medians over repeated calls on random input. Ratios say more than milliseconds: a plain copy of
the same bytes is the floor, the big-integer product is the exact slow twin, and GMAC through
`cryptography` hashes by the same polynomial with the processor's own instructions, but masks its
tag with a cipher's output: it is the computational peer.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bellhop.stack.diqkd.amplify import (
    Bits,
    seed_bits_needed,
    toeplitz_hash,
    toeplitz_hash_by_integers,
)
from bellhop.stack.diqkd.authenticate import tag
from bellhop.stack.diqkd.verify import verification_tag

REPEATS = 7
LARGE = (1_500_000, 150_000)
SMALL = (60_000, 6_000)
MESSAGE_BYTES = (15_000, 190_000)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to time, and the name of the peer that its time is divided by."""

    name: str
    call: Callable[[], object]
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """A median with its spread, and the ratio to the peer's median."""

    name: str
    median_ms: float
    fastest_ms: float
    slowest_ms: float
    peer: str
    ratio_to_peer: float | None


def toeplitz_input(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Bits, Bits]:
    """A string and a seed, one bit a byte, for (input bits, output bits)."""
    n, output_bits = size
    seed = rng.integers(0, 2, seed_bits_needed(n, output_bits), dtype=np.uint8)
    return rng.integers(0, 2, n, dtype=np.uint8), seed


def toeplitz_cases(rng: np.random.Generator) -> list[Case]:
    """Large beside a copy of its input, small beside the big-integer product."""
    bits, seed = toeplitz_input(rng, LARGE)
    few, short = toeplitz_input(rng, SMALL)
    large, small = (f"{n:,} to {output_bits:,}" for n, output_bits in (LARGE, SMALL))
    copy, integers = f"copy of the input, {large}", f"big-integer product, {small}"
    return [
        Case(copy, lambda: (bits.copy(), seed.copy())),
        Case(f"Toeplitz, {large}", lambda: toeplitz_hash(bits, seed, LARGE[1]), copy),
        Case(integers, lambda: toeplitz_hash_by_integers(few, short, SMALL[1])),
        Case(f"Toeplitz, {small}", lambda: toeplitz_hash(few, short, SMALL[1]), integers),
    ]


def tag_cases(rng: np.random.Generator, size: int) -> list[Case]:
    """Tag and verification tag of one message size beside GMAC."""
    message, key = rng.bytes(size), rng.bytes(16)
    cipher, nonce, mask = AESGCM(key), rng.bytes(12), rng.bytes(8)
    gmac = f"GMAC, {size:,} bytes"
    return [
        Case(gmac, lambda: cipher.encrypt(nonce, b"", message)),
        Case(f"Wegman-Carter tag, {size:,} bytes", lambda: tag(key, mask, message), gmac),
        Case(f"verification tag, {size:,} bytes", lambda: verification_tag(key, message), gmac),
    ]


def measure(call: Callable[[], object], advance: Callable[[], None]) -> list[float]:
    """Milliseconds of each repeat, after one call that loads and warms what it needs."""
    call()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - begin) / 1e6)
        advance()
    return times


def run(cases: list[Case], console: Console) -> list[Timing]:
    """Time all cases; a peer comes before whatever is compared with it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    medians: dict[str, float] = {}
    timings = []
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=len(cases) * REPEATS)
        for case in cases:
            progress.update(task, description=case.name)
            times = measure(case.call, lambda: progress.advance(task))
            medians[case.name] = median = statistics.median(times)
            ratio = median / medians[case.peer] if case.peer else None
            timings.append(Timing(case.name, median, min(times), max(times), case.peer, ratio))
    return timings


def show(timings: list[Timing], peak_mb: float, console: Console) -> None:
    """The table a person reads."""
    table = Table(title=f"hashing, median of {REPEATS} calls")
    table.add_column("what")
    for heading in ("median ms", "fastest", "slowest", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("to")
    for timing in timings:
        ratio = "" if timing.ratio_to_peer is None else f"{timing.ratio_to_peer:,.4g}"
        figures = (timing.median_ms, timing.fastest_ms, timing.slowest_ms)
        table.add_row(timing.name, *(f"{ms:,.4g}" for ms in figures), ratio, timing.peer)
    console.print(table)
    console.print(f"peak resident memory of the whole process: {peak_mb:,.0f} MB")


@click.command()
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(json_file: Path | None) -> None:
    """Time Toeplitz amplification and tags beside their peers."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140)
    rng = np.random.default_rng(1)
    cases = toeplitz_cases(rng)
    for size in MESSAGE_BYTES:
        cases += tag_cases(rng, size)
    timings = run(cases, console)
    # Linux counts it in KiB.
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    show(timings, peak_mb, console)
    if json_file is not None:
        report = {"peak_resident_mb": peak_mb, "timings": [asdict(timing) for timing in timings]}
        json_file.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
