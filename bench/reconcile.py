"""How close reconciliation comes to the Shannon limit, how often it works, and how long it takes.

    python bench/reconcile.py [--trials N] [--only NAME] [--undetected N] [--words] [--peers]
        [--json FILE]

Errors are independent at the rates of the row, so their number fluctuates from block to block; each
trial draws a new code too. `leak` is every bit sent for a block, base syndrome, extra steps and one
bit a step for the requests, over the sum of binary entropies at the error rates that were drawn;
`off design` rows draw other rates than the code was made for. CPU seconds count both ends, all
attempts, not the construction of the code, which is beside it. `limit` is the normal approximation
n h + sqrt(n v) times the normal quantile at a failure rate of 1e-3 (Tomamichel et al., Quantum Inf.
Process. 16, 280 (2017)); a code that may ask again can go below it, not below 1.

--undetected N decodes N short blocks and counts words that have the right syndrome and are wrong,
and of those how many the verification hash passes. --words adds up, for a code of each row, how
likely its words of low weight are taken for the truth (`wrong_words.py`). --peers sets two others
beside: Cascade, whose parities of both parties count, as a device-independent session demands, and
the package `ldpc` (pip install ldpc), if it is there. Quote ratios; seconds are this machine's.
"""

import functools
import importlib.util
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from cascade import reconcile_by_cascade
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from wrong_words import branching, wrong_word_probability

from bellhop.stack.diqkd.code import (
    Code,
    CodeDesign,
    build_code,
    design_code,
    expected_leak_bits,
)
from bellhop.stack.diqkd.degrees import dispersion, entropy

BLOCKS_A_CODE = 10
"""Short blocks that share a code when undetected errors are counted."""

PACKAGE_ERROR_MIN = 0.05

Classes = tuple[tuple[float, float], ...]
Bits = NDArray[np.uint8]
MIXTURE: Classes = ((0.95, 0.018), (0.05, 0.17))
MANY_TESTS: Classes = ((0.8, 0.03), (0.2, 0.16))


@dataclass(frozen=True, slots=True)
class Case:
    """A block: what its code is designed for, the error rates that are drawn, the leak allowed."""

    name: str
    rounds: int
    designed: Classes
    drawn: Classes
    leak_max: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One block, reconciled; `errors_left` counts wrong bits even if it converged."""

    converged: bool
    errors_left: int
    leak: float
    requests: int
    sweeps: int
    build_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A row of the table; `leak` is a mean, and so are requests."""

    name: str
    rounds: int
    trials: int
    leak: float
    leak_deviation: float
    leak_max_allowed: float | None
    limit: float
    requests: float
    abandoned: int
    undetected: int
    sweeps_median: float
    build_s: float
    cpu_mean_s: float
    cpu_median_s: float
    cpu_max_s: float


def _plain(error: float, *, rounds: int = 1_200_000, factor: float = 1.0) -> Case:
    drawn = ((1.0, error * factor),)
    off = "" if factor == 1.0 else f", {factor:g} of the design"
    allowed = 1.08 if off else 1.07 if error <= 0.01 else 1.06
    leak_max = allowed if rounds == 1_200_000 else None
    return Case(f"{error:.0%}{off}", rounds, ((1.0, error),), drawn, leak_max)


CASES = (
    *(_plain(error) for error in (0.01, 0.02, 0.03, 0.05, 0.08)),
    *(_plain(error, factor=f) for error in (0.01, 0.02, 0.05) for f in (0.9, 1.1)),
    Case("mixture, 5 % tests", 1_200_000, MIXTURE, MIXTURE, 1.08),
    Case("mixture, 20 % tests", 1_200_000, MANY_TESTS, MANY_TESTS, 1.08),
    *(_plain(error, rounds=100_000) for error in (0.01, 0.02, 0.05)),
    Case("mixture, 5 % tests", 100_000, MIXTURE, MIXTURE),
    *(_plain(error, rounds=20_000) for error in (0.01, 0.02, 0.05)),
    Case("mixture, 5 % tests", 20_000, MIXTURE, MIXTURE),
)
UNDETECTED = tuple(case for case in CASES if case.rounds == 20_000)


def _mean_entropy(classes: Classes) -> float:
    return sum(weight * entropy(q) for weight, q in classes)


def _limit(case: Case) -> float:
    """The normal approximation at a failure rate of 1e-3, over the entropy."""
    mean = _mean_entropy(case.drawn)
    variance = sum(weight * dispersion(q) for weight, q in case.drawn)
    quantile = statistics.NormalDist().inv_cdf(1 - 1e-3)
    return 1 + math.sqrt(variance / case.rounds) * quantile / mean


def _draw(case: Case, seed: int) -> tuple[Bits, Bits, NDArray[np.float32]]:
    """Alice's bits, the errors and Bob's priors."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(len(case.drawn), size=case.rounds, p=[weight for weight, _ in case.drawn])
    errors = rng.random(case.rounds) < np.array([q for _, q in case.drawn])[kind]
    alice = rng.integers(0, 2, case.rounds, dtype=np.uint8)
    prior = np.array([q for _, q in case.designed], dtype=np.float32)[kind]
    return alice, errors.astype(np.uint8), prior


@functools.lru_cache(maxsize=1)
def _code(design: CodeDesign) -> Code:
    return build_code(design)


def _run(case: Case, seed: int, code_seed: int) -> tuple[Trial, Bits, Bits]:
    """A trial, and Alice's and Bob's strings after it."""
    from bellhop.stack.diqkd.reconcile import decode, extra_syndrome, syndrome

    alice, errors, prior = _draw(case, seed)
    started = time.process_time()
    design: CodeDesign = design_code(case.rounds, case.designed, code_seed)
    code = _code(design)
    built = time.process_time()
    told, steps, requests, sweeps = syndrome(code, alice), 0, 0, 0
    decoded = decode(code, alice ^ errors, told, prior)
    while not decoded.converged and decoded.wanted_steps is not None:
        steps, requests = decoded.wanted_steps, requests + 1
        sweeps += decoded.iterations
        extra = steps, extra_syndrome(code, alice, steps)
        decoded = decode(code, alice ^ errors, told, prior, extra)
    cpu_s = time.process_time() - built
    leak = (design.leak_bits(steps) + design.steps_max) / (case.rounds * _mean_entropy(case.drawn))
    left = int(np.count_nonzero(decoded.bits != alice))
    trial = Trial(
        converged=decoded.converged,
        errors_left=left,
        leak=leak,
        requests=requests,
        sweeps=sweeps + decoded.iterations,
        build_s=built - started,
        cpu_s=cpu_s,
    )
    return trial, alice, decoded.bits


def _summary(case: Case, trials: list[Trial]) -> Summary:
    leaks = [trial.leak for trial in trials]
    return Summary(
        name=case.name,
        rounds=case.rounds,
        trials=len(trials),
        leak=statistics.fmean(leaks),
        leak_deviation=statistics.stdev(leaks) if len(leaks) > 1 else 0.0,
        leak_max_allowed=case.leak_max,
        limit=_limit(case),
        requests=statistics.fmean(trial.requests for trial in trials),
        abandoned=sum(not trial.converged for trial in trials),
        undetected=sum(trial.converged and trial.errors_left > 0 for trial in trials),
        sweeps_median=statistics.median(trial.sweeps for trial in trials),
        build_s=statistics.median(trial.build_s for trial in trials),
        cpu_mean_s=statistics.fmean(trial.cpu_s for trial in trials),
        cpu_median_s=statistics.median(trial.cpu_s for trial in trials),
        cpu_max_s=max(trial.cpu_s for trial in trials),
    )


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)


def _measure(cases: list[Case], trials: int, console: Console) -> list[Summary]:
    summaries = []
    with _progress(console) as progress:
        bar = progress.add_task("compiling", total=len(cases) * trials)
        _run(UNDETECTED[0], 0, 0)  # compiles or loads the kernels
        for case in cases:
            progress.update(bar, description=f"{case.name}, {case.rounds:,}")
            done = []
            for seed in range(1, trials + 1):
                done.append(_run(case, seed, seed)[0])
                progress.advance(bar)
            summaries.append(_summary(case, done))
    return summaries


def _table(summaries: list[Summary]) -> Table:
    table = Table(title="Reconciliation, one way; leak 1 is the Shannon limit")
    for heading in ("block", "rounds", "trials", "leak (s.d.)", "allowed", "limit", "requests"):
        table.add_column(heading, justify="left" if heading == "block" else "right")
    for heading in ("abandoned", "wrong", "sweeps", "build s", "CPU s median, mean (max)"):
        table.add_column(heading, justify="right")
    for row in summaries:
        table.add_row(
            row.name,
            f"{row.rounds:,}",
            str(row.trials),
            f"{row.leak:.4f} ({row.leak_deviation:.4f})",
            "" if row.leak_max_allowed is None else f"{row.leak_max_allowed:.2f}",
            f"{row.limit:.3f}",
            f"{row.requests:.1f}",
            str(row.abandoned),
            str(row.undetected),
            f"{row.sweeps_median:.0f}",
            f"{row.build_s:.2f}",
            f"{row.cpu_median_s:.2f}, {row.cpu_mean_s:.2f} ({row.cpu_max_s:.2f})",
        )
    return table


# --- undetected errors --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Undetected:
    """Short blocks of one kind: wrong words of the right syndrome, and those that verify."""

    name: str
    rounds: int
    blocks: int
    leak: float
    abandoned: int
    wrong: int
    wrong_bits_min: int | None
    verified_wrong: int


def _packed(bits: Bits) -> bytes:
    return np.packbits(bits).tobytes()


def _count_undetected(case: Case, blocks: int, seeds: Iterator[int]) -> Iterator[Undetected]:
    """The counts after every block."""
    from bellhop.stack.diqkd.verify import strings_agree, verification_tag

    abandoned = wrong = verified = 0
    least: int | None = None
    leaks = 0.0
    for block in range(1, blocks + 1):
        seed = next(seeds)
        trial, alice, bob = _run(case, seed, seed // BLOCKS_A_CODE)
        abandoned += not trial.converged
        if trial.converged and trial.errors_left:
            key = np.random.default_rng(seed + (1 << 40)).bytes(16)
            wrong += 1
            verified += strings_agree(key, _packed(bob), verification_tag(key, _packed(alice)))
            least = trial.errors_left if least is None else min(least, trial.errors_left)
        leaks += trial.leak
        yield Undetected(
            name=case.name,
            rounds=case.rounds,
            blocks=block,
            leak=leaks / block,
            abandoned=abandoned,
            wrong=wrong,
            wrong_bits_min=least,
            verified_wrong=verified,
        )


def _undetected(cases: list[Case], blocks: int, console: Console) -> list[Undetected]:
    """Blocks shared out among cases; a case has the same seeds whichever are beside it."""
    share = -(-blocks // len(cases))
    counts = []
    with _progress(console) as progress:
        bar = progress.add_task("short blocks", total=share * len(cases))
        for case in cases:
            number = UNDETECTED.index(case)
            counted = _count_undetected(case, share, iter(range(number << 32, 1 << 63)))
            done = []
            for count in counted:
                done.append(count)
                progress.advance(bar)
            counts.append(done[-1])
    return counts


def _undetected_table(counts: list[Undetected]) -> Table:
    table = Table(title="Wrong words of the right syndrome")
    for heading in ("block", "rounds", "blocks", "leak", "abandoned", "wrong"):
        table.add_column(heading, justify="left" if heading == "block" else "right")
    for heading in ("fewest wrong bits", "verified though wrong"):
        table.add_column(heading, justify="right")
    for row in counts:
        fewest = "" if row.wrong_bits_min is None else str(row.wrong_bits_min)
        figures = (row.abandoned, row.wrong, fewest, row.verified_wrong)
        sizes = (f"{row.rounds:,}", f"{row.blocks:,}", f"{row.leak:.3f}")
        table.add_row(row.name, *sizes, *(str(figure) for figure in figures))
    return table


# --- words of low weight ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Words:
    """One code after the steps that its design expects: wrong words a block, by union bound."""

    name: str
    rounds: int
    branching: float
    counted: float
    beyond: float


def _words(case: Case, seed: int) -> Words:
    design = design_code(case.rounds, case.designed, seed)
    code = _code(design)
    expected = expected_leak_bits(case.rounds, case.designed)
    steps = next(k for k in range(design.steps_max + 1) if design.leak_bits(k) >= expected)
    counted, beyond = wrong_word_probability(code, steps, case.drawn)
    return Words(case.name, case.rounds, branching(code, steps), counted, beyond)


def _words_table(words: list[Words]) -> Table:
    table = Table(title="Wrong words a block, union bound over cycles of columns of degree 2")
    for heading in ("block", "rounds", "branching", "cycles counted", "longer ones"):
        table.add_column(heading, justify="left" if heading == "block" else "right")
    for row in words:
        bounds = f"{row.counted:.1e}", f"{row.beyond:.1e}"
        table.add_row(row.name, f"{row.rounds:,}", f"{row.branching:.2f}", *bounds)
    return table


# --- peers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """Another way to reconcile a block; `leak` counts what either party said."""

    name: str
    error: float
    rounds: int
    succeeded: bool
    leak: float
    messages: int
    cpu_s: float


def _cascade(case: Case) -> Peer:
    alice, errors, _ = _draw(case, 1)
    error = case.drawn[0][1]
    started = time.process_time()
    found, said, messages = reconcile_by_cascade(alice, alice ^ errors, error, seed=1)
    cpu_s = time.process_time() - started
    leak = said / (case.rounds * entropy(error))
    alike = bool(np.array_equal(found, alice))
    return Peer("Cascade, both parties' parities", error, case.rounds, alike, leak, messages, cpu_s)


def _ldpc_package(case: Case) -> Peer | None:
    """The package's serial sum-product on our code, with 1.2 of the limit; None without it."""
    if importlib.util.find_spec("ldpc") is None:
        return None
    package = importlib.import_module("ldpc")
    from scipy.sparse import csr_matrix

    from bellhop.stack.diqkd.reconcile import extra_syndrome, refined_rows, syndrome

    error = case.drawn[0][1]
    design = design_code(case.rounds, case.designed, 1)
    code = build_code(design)
    _, errors, prior = _draw(case, 1)
    goal = 1.20 * case.rounds * entropy(error)
    steps = next(k for k in range(design.steps_max + 1) if design.leak_bits(k) >= goal)
    starts = refined_rows(code, steps)
    row_of = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    lane = np.arange(design.lifting)
    checks = (row_of[:, None] * design.lifting + lane).reshape(-1)
    turned = (lane + code.edge_shift[:, None]) % design.lifting
    places = (turned * design.columns + code.edge_column[:, None]).reshape(-1)
    shape = ((starts.size - 1) * design.lifting, design.columns * design.lifting)
    matrix = csr_matrix((np.ones(checks.size, np.uint8), (checks, places)), shape=shape)
    base = syndrome(code, errors).reshape(design.rows, -1)
    halves = extra_syndrome(code, errors, steps).reshape(-1, design.lifting)
    pairs = np.stack([halves, base[: len(halves)] ^ halves], axis=1)
    told = np.concatenate([pairs.reshape(-1, design.lifting), base[len(halves) :]]).reshape(-1)
    channel = np.full(shape[1], 1e-9)
    channel[: case.rounds] = prior
    decoder = package.BpDecoder(
        matrix,
        error_channel=channel.tolist(),
        max_iter=200,
        bp_method="product_sum",
        schedule="serial",
    )
    started = time.process_time()
    found = decoder.decode(told)[: case.rounds]
    cpu_s = time.process_time() - started
    leak = design.leak_bits(steps) / (case.rounds * entropy(error))
    alike = bool(np.array_equal(found, errors))
    return Peer("package ldpc, on our code", error, case.rounds, alike, leak, 1, cpu_s)


def _peers(console: Console) -> list[Peer]:
    """Cascade at three error rates; the package at the last, because the others take minutes."""
    peers = []
    for error in (0.01, 0.02, 0.05):
        case = _plain(error, rounds=20_000)
        peers.append(_cascade(case))
        if error < PACKAGE_ERROR_MIN:
            continue
        package = _ldpc_package(case)
        if package is None:
            console.print("the package ldpc is not installed here: pip install ldpc")
        else:
            peers.append(package)
    return peers


def _peer_table(peers: list[Peer]) -> Table:
    table = Table(title="Others on the same blocks, one trial each")
    for heading in ("peer", "error rate", "rounds", "right", "leak", "messages", "CPU s"):
        table.add_column(heading, justify="left" if heading == "peer" else "right")
    for row in peers:
        figures = (f"{row.error:.0%}", f"{row.rounds:,}", str(row.succeeded), f"{row.leak:.3f}")
        table.add_row(row.name, *figures, str(row.messages), f"{row.cpu_s:.2f}")
    return table


@click.command()
@click.option("--trials", default=5, show_default=True, type=click.IntRange(0, 100_000))
@click.option("--only", default="", help="Cases whose name contains this text.")
@click.option("--rounds", default=0, help="Cases of this many rounds only.")
@click.option("--undetected", default=0, help="Count undetected errors in so many short blocks.")
@click.option("--words", is_flag=True, help="Words of low weight, one code a row.")
@click.option("--peers", is_flag=True, help="Cascade and the package ldpc beside.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures.")
def main(
    *,
    trials: int,
    only: str,
    rounds: int,
    undetected: int,
    words: bool,
    peers: bool,
    json_path: Path | None,
) -> None:
    """Design, build, encode and decode whole blocks, and print figures beside the limit."""
    cases = [case for case in CASES if only in case.name and rounds in (0, case.rounds)]
    if not cases:
        raise click.UsageError(f"no case is called {only!r}")
    console = Console()
    summaries = _measure(cases, trials, console) if trials else []
    short = [case for case in UNDETECTED if case in cases]
    counts = _undetected(short, undetected, console) if undetected and short else []
    weighed = [_words(case, 1) for case in cases if case.drawn == case.designed] if words else []
    others = _peers(console) if peers else []
    tables = (
        *(_table(summaries), _undetected_table(counts)),
        *(_words_table(weighed), _peer_table(others)),
    )
    for table in tables:
        if table.row_count:
            console.print(table)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"largest memory of this process: {peak_mb:.0f} MB")
    if json_path:
        figures = {
            "peak_memory_mb": peak_mb,
            "rows": [asdict(row) for row in summaries],
            "undetected": [asdict(row) for row in counts],
            "words": [asdict(row) for row in weighed],
            "peers": [asdict(row) for row in others],
        }
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
