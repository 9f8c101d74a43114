"""How long hashing takes: privacy amplification and Wegman-Carter tags beside their peers.

    python bench/hashing.py [--json FILE]

CPU time, medians over repeated calls on random input, all in one run of one process. Ratios say
more than milliseconds; a peer's is how often ours fits into it.

Privacy amplification stands beside cryptomite (Foreman, Masanes, Quantum 9, 1654 (2025)) and
randextract, which compute the same Toeplitz product; their outputs are compared with ours, bit by
bit. They are measured if they can be imported:

    pip install cryptomite==0.3.0 randextract==0.2.2

cryptomite takes and gives Python lists; making its input lists is not counted.

Tags stand beside GMAC through `cryptography`, which hashes by the same polynomial with the
processor's own instructions, but masks its tag with a cipher's output: a computational peer.
"""

import importlib.util
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bellhop.stack.diqkd.amplify import (
    Bits,
    seed_bits_needed,
    toeplitz_hash,
    toeplitz_hash_by_transforms,
    toeplitz_hash_by_words,
)
from bellhop.stack.diqkd.authenticate import tag
from bellhop.stack.diqkd.carryless_kernels import width
from bellhop.stack.diqkd.verify import verification_tag

REPEATS_MAX = 15
REPEATS_MIN = 3
CASE_S = 2.0
"""A case is repeated until it has taken so long, within the bounds above."""

SIZES = ((1_200_000, 134_000), (1_200_000, 320_000), (1_500_000, 660_000), (60_000, 6_000))
MESSAGE_BYTES = (64, 15_000, 190_000, 400_000)
LIMIT_MS = 60.0
PEERS = ("cryptomite", "randextract")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to time; its output, if it is a Toeplitz hash, is compared with ours."""

    group: str
    name: str
    call: Callable[[], Any]
    expected: bytes | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """CPU milliseconds. `times_ours`: by the median of the group's first case, which is ours."""

    group: str
    name: str
    median_ms: float
    fastest_ms: float
    slowest_ms: float
    times_ours: float


def amplification_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Ours first, then its other way, then the packages that are there."""
    for n, output_bits in SIZES:
        seed = rng.integers(0, 2, seed_bits_needed(n, output_bits), dtype=np.uint8)
        bits = rng.integers(0, 2, n, dtype=np.uint8)
        expected = toeplitz_hash(bits, seed, output_bits).tobytes()
        ways: list[tuple[str, Callable[[], Any]]] = [
            ("Fourier transforms", partial(toeplitz_hash_by_transforms, bits, seed, output_bits))
        ]
        if width():
            by = f"carry-less multiplication, {width()} at once"
            ways.insert(0, (by, partial(toeplitz_hash_by_words, bits, seed, output_bits)))
        # The packages begin with the corner, then the column downwards, and come round to the row.
        ways += _peers(bits, np.roll(seed, 1 - n), output_bits)
        for name, call in ways:
            yield Case(f"{n:,} to {output_bits:,} bits", name, call, expected)


def _peers(bits: Bits, seed: Bits, output_bits: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    for name in PEERS:
        try:
            package = importlib.import_module(name)
        except ImportError:
            continue
        if name == "cryptomite":
            extract = package.Toeplitz(bits.size, output_bits).extract
            yield name, partial(extract, bits.tolist(), seed.tolist())
        else:
            yield name, partial(package.ToeplitzHashing(bits.size, output_bits).extract, bits, seed)


def tag_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Tag and verification tag of each message size beside GMAC."""
    for size in MESSAGE_BYTES:
        message, key = rng.bytes(size), rng.bytes(16)
        cipher, nonce, mask = AESGCM(key), rng.bytes(12), rng.bytes(8)
        group = f"{size:,} bytes"
        yield Case(group, "Wegman-Carter tag", partial(tag, key, mask, message))
        yield Case(group, "verification tag", partial(verification_tag, key, message))
        yield Case(group, "GMAC", partial(cipher.encrypt, nonce, b"", message))


def measure(case: Case) -> list[float]:
    """CPU milliseconds of each repeat, after one call that loads and warms what it needs."""
    output = case.call()
    if case.expected is not None:
        assert np.asarray(output, dtype=np.uint8).tobytes() == case.expected, case.name
    times: list[float] = []
    while len(times) < REPEATS_MIN or (len(times) < REPEATS_MAX and sum(times) < 1e3 * CASE_S):
        begin_ns = time.process_time_ns()
        case.call()
        times.append((time.process_time_ns() - begin_ns) / 1e6)
    return times


def run(cases: Iterator[Case], console: Console) -> list[Timing]:
    """Time all cases; the first of a group is ours."""
    ours: dict[str, float] = {}
    timings = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        for case in cases:
            progress.update(task, description=f"{case.group}: {case.name}")
            times = measure(case)
            median = statistics.median(times)
            ours.setdefault(case.group, median)
            times_ours = median / ours[case.group]
            timings.append(
                Timing(case.group, case.name, median, min(times), max(times), times_ours)
            )
    return timings


def show(title: str, timings: list[Timing], console: Console) -> None:
    """The table a person reads."""
    table = Table(title=title)
    for heading in ("input", "by"):
        table.add_column(heading)
    for heading in ("CPU ms, median", "fastest", "slowest", "times ours"):
        table.add_column(heading, justify="right")
    group = timings[0].group
    for timing in timings:
        if timing.group != group:
            table.add_section()
            group = timing.group
        figures = (timing.median_ms, timing.fastest_ms, timing.slowest_ms, timing.times_ours)
        table.add_row(timing.group, timing.name, *(f"{figure:,.4g}" for figure in figures))
    console.print(table)


def missing_peers() -> list[str]:
    return [name for name in PEERS if importlib.util.find_spec(name) is None]


@click.command()
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(json_file: Path | None) -> None:
    """Time privacy amplification and tags beside their peers."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140)
    rng = np.random.default_rng(1)
    amplification = run(amplification_cases(rng), console)
    show("privacy amplification", amplification, console)
    first = amplification[0]
    console.print(f"{first.group}: {first.median_ms:.3g} ms, limit {LIMIT_MS:g} ms")
    if missing := missing_peers():
        console.print(f"not installed, so not measured: {', '.join(missing)} (pip install them)")
    if not width():
        console.print("this processor has no carry-less multiplication")
    tags = run(tag_cases(rng), console)
    show("tags", tags, console)
    # Linux counts it in KiB.
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    if json_file is not None:
        report = {
            "peak_resident_mb": peak_mb,
            "missing_peers": missing,
            "amplification": [asdict(timing) for timing in amplification],
            "tags": [asdict(timing) for timing in tags],
        }
        json_file.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
