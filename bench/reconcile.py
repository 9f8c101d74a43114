"""How close reconciliation comes to the Shannon limit, how often it works, and how long it takes.

    python bench/reconcile.py [--trials N] [--only NAME] [--json FILE]

Errors are independent at the rates of the row, so their number fluctuates from block to block;
each trial draws a new code too. The mixed blocks are those of a device-independent session of 1.5
million rounds: generation rounds, and 13/256 test rounds at the rate of lost games. f is syndrome
over entropy at the rates the code was designed for, "f seen" at the rates of the errors drawn.
Quote ratios and nanoseconds an edge and sweep; seconds are this machine's.
"""

import json
import math
import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bellhop.stack.diqkd.code import CodeDesign, build_code, design_code, entropy

GAMMA = 13 / 256
Classes = tuple[tuple[float, float], ...]
DESIGN: Classes = ((1 - GAMMA, 0.018), (GAMMA, 0.17))  # S = 2.64
OBSERVED: Classes = ((1 - GAMMA, 0.0144), (GAMMA, 0.1654))


@dataclass(frozen=True, slots=True)
class Case:
    """A block: what its code is designed for, and the error rates that are drawn."""

    name: str
    rounds: int
    designed: Classes
    drawn: Classes


@dataclass(frozen=True, slots=True)
class Trial:
    """One block, coded and decoded; `errors_left` counts wrong bits even if it converged."""

    converged: bool
    errors_left: int
    iterations: int
    build_s: float
    syndrome_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A row of the table; times are medians."""

    name: str
    rounds: int
    syndrome_bits: int
    efficiency: float
    efficiency_seen: float
    trials: int
    succeeded: int
    undetected: int
    iterations_median: float
    iterations_max: int
    build_s: float
    syndrome_s: float
    decode_s: float
    decode_max_s: float
    ns_an_edge_and_sweep: float


def _plain(error_percent: int) -> Case:
    classes = ((1.0, error_percent / 100),)
    return Case(f"{error_percent} %", 1_200_000, classes, classes)


CASES = (
    Case("session, observed", 1_500_000, DESIGN, OBSERVED),
    Case("session, design", 1_500_000, DESIGN, DESIGN),
    *(_plain(percent) for percent in (1, 2, 3, 5, 8)),
    Case("short session", 20_000, DESIGN, OBSERVED),
)


def _mean_entropy(classes: Classes) -> float:
    return sum(weight * entropy(q) for weight, q in classes)


def _run(case: Case, seed: int) -> tuple[CodeDesign, Trial]:
    from bellhop.stack.diqkd.reconcile import decode, syndrome

    rng = np.random.default_rng(seed)
    started = time.perf_counter()
    design = design_code(case.rounds, case.designed, seed)
    code = build_code(design)
    built = time.perf_counter()
    kind = rng.choice(len(case.drawn), size=case.rounds, p=[weight for weight, _ in case.drawn])
    errors = rng.random(case.rounds) < np.array([q for _, q in case.drawn])[kind]
    alice = rng.integers(0, 2, case.rounds, dtype=np.uint8)
    prior = np.array([q for _, q in case.designed], dtype=np.float32)[kind]
    began = time.perf_counter()
    told = syndrome(code, alice)
    encoded = time.perf_counter()
    decoded = decode(code, alice ^ errors, told, prior)
    ended = time.perf_counter()
    left = int(np.count_nonzero(decoded.bits != alice))
    times = (built - started, encoded - began, ended - encoded)
    return design, Trial(decoded.converged, left, decoded.iterations, *times)


def _summary(case: Case, design: CodeDesign, trials: list[Trial]) -> Summary:
    edges = design.base_edges * design.lifting
    sweeps = [1e9 * t.decode_s / (edges * t.iterations) for t in trials if t.iterations]
    return Summary(
        name=case.name,
        rounds=case.rounds,
        syndrome_bits=design.syndrome_bits,
        efficiency=design.syndrome_bits / (case.rounds * _mean_entropy(case.designed)),
        efficiency_seen=design.syndrome_bits / (case.rounds * _mean_entropy(case.drawn)),
        trials=len(trials),
        succeeded=sum(t.converged and t.errors_left == 0 for t in trials),
        undetected=sum(t.converged and t.errors_left > 0 for t in trials),
        iterations_median=statistics.median(t.iterations for t in trials),
        iterations_max=max(t.iterations for t in trials),
        build_s=statistics.median(t.build_s for t in trials),
        syndrome_s=statistics.median(t.syndrome_s for t in trials),
        decode_s=statistics.median(t.decode_s for t in trials),
        decode_max_s=max(t.decode_s for t in trials),
        ns_an_edge_and_sweep=statistics.median(sweeps) if sweeps else math.nan,
    )


def _measure(cases: list[Case], trials: int, console: Console) -> list[Summary]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    summaries = []
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("compiling", total=len(cases) * trials)
        _run(cases[-1], 0)  # compiles or loads the kernels
        for case in cases:
            progress.update(bar, description=case.name)
            done = []
            for seed in range(1, trials + 1):
                design, trial = _run(case, seed)
                done.append(trial)
                progress.advance(bar)
            summaries.append(_summary(case, design, done))
    return summaries


def _table(summaries: list[Summary]) -> Table:
    table = Table(title="Reconciliation, one way; f = 1 is the Shannon limit")
    for heading in ("block", "rounds", "syndrome bits", "f", "f seen", "succeeded", "undetected"):
        table.add_column(heading, justify="left" if heading == "block" else "right")
    for heading in ("sweeps (max)", "build s", "syndrome s", "decode s (max)", "ns/edge/sweep"):
        table.add_column(heading, justify="right")
    for row in summaries:
        table.add_row(
            row.name,
            f"{row.rounds:,}",
            f"{row.syndrome_bits:,}",
            f"{row.efficiency:.4f}",
            f"{row.efficiency_seen:.4f}",
            f"{row.succeeded}/{row.trials}",
            str(row.undetected),
            f"{row.iterations_median:.0f} ({row.iterations_max})",
            f"{row.build_s:.2f}",
            f"{row.syndrome_s:.4f}",
            f"{row.decode_s:.2f} ({row.decode_max_s:.2f})",
            f"{row.ns_an_edge_and_sweep:.2f}",
        )
    return table


@click.command()
@click.option("--trials", default=5, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--only", default="", help="Cases whose name contains this text.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures.")
def main(trials: int, only: str, json_path: Path | None) -> None:
    """Design, build, encode and decode whole blocks, and print figures beside the limit."""
    cases = [case for case in CASES if only in case.name]
    if not cases:
        raise click.UsageError(f"no case is called {only!r}")
    console = Console()
    summaries = _measure(cases, trials, console)
    console.print(_table(summaries))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"largest memory of this process: {peak_mb:.0f} MB")
    if json_path:
        figures = {"peak_memory_mb": peak_mb, "rows": [asdict(row) for row in summaries]}
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
