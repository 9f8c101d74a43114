"""What the whole post-processing of a run costs: both ends, on one core, from raw bits to the key.

    python bench/postprocessing.py [--rounds N] [--s S] [--qber Q] [--runs K] [--cold] [--json FILE]

Each end is a process of its own that runs what a session's worker and daemon run, in a session's
order: code and kernels are loaded, Alice's syndrome made, Bob decodes (and asks for more syndrome
as a session does, all of it counted), the strings are verified, the tests scored, the key's length
found, the key amplified, and what the session's eight tags cover is hashed. Errors are drawn at the
rates that S and the error rate say, those of generation and of test rounds apart.

CPU seconds are each process's own, all threads together; both ends are pinned to one core. Loading
a process and its libraries is a row of its own. --cold begins with an empty cache of compiled code
at each end, as the first session after an installation on two machines does.
"""

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bellhop.hal.operations import LinkName, NodeName
from bellhop.stack.codec import pack
from bellhop.stack.diqkd.amplify import seed_bits_needed
from bellhop.stack.diqkd.authenticate import tag
from bellhop.stack.diqkd.jobs import (
    Amplified,
    Amplify,
    Corrected,
    Decode,
    Encode,
    EncodeExtra,
    ExtraWanted,
    Plan,
    Prepare,
    Received,
)
from bellhop.stack.diqkd.parameters import (
    Parameters,
    SessionPolicy,
    decoder_priors,
    key_bits_of,
)
from bellhop.stack.diqkd.rounds import score
from bellhop.stack.diqkd.verify import strings_agree, verification_tag
from bellhop.stack.ids import SessionId

ENDS = ("alice", "bob")
LIMIT_S, LIMIT_COLD_S, LIMIT_MB = 4.0, 20.0, 500.0
Bits = NDArray[np.uint8]


class Job(Protocol):
    @property
    def name(self) -> str: ...

    def run(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class VerificationTag:
    """Alice's tag of her string."""

    key: bytes
    bits: Bits
    name: str = "verify"

    def run(self) -> bytes:
        return verification_tag(self.key, pack(self.bits))


@dataclass(frozen=True, slots=True)
class Verify:
    """Bob's comparison with his."""

    key: bytes
    bits: Bits
    peer_tag: bytes
    name: str = "verify"

    def run(self) -> bool:
        return strings_agree(self.key, pack(self.bits), self.peer_tag)


@dataclass(frozen=True, slots=True)
class Bound:
    """The key's length; Bob counts first, Alice is told the counts."""

    parameters: Parameters
    steps: int
    rounds: tuple[Bits, Bits, NDArray[np.bool_]] | None
    counts: tuple[int, int] = (0, 0)
    name: str = "score and bound"

    def run(self) -> tuple[int, int, int]:
        tests, losses = self.counts
        if self.rounds is not None:
            counted = score(*self.rounds)
            tests, losses = counted.tests, counted.losses
        return tests, losses, key_bits_of(self.parameters, tests, losses, self.steps)


@dataclass(frozen=True, slots=True)
class Tags:
    """What an end hashes for the session's tags: it makes or checks every one of them."""

    covered: tuple[bytes, ...]
    name: str = "tags"

    def run(self) -> list[bytes]:
        return [tag(bytes(range(16)), bytes(8), message) for message in self.covered]


@dataclass(frozen=True, slots=True)
class Took:
    end: str
    stage: str
    cpu_s: float
    peak_mb: float


@dataclass(slots=True)
class Run:
    """One block through both ends."""

    took: list[Took] = field(default_factory=list)
    wall_s: float = 0.0
    steps: int = 0
    decodings: int = 0
    key_bits: int = 0

    def cpu_s(self, stage: str | None = None, end: str | None = None) -> float:
        return sum(
            took.cpu_s
            for took in self.took
            if stage in (None, took.stage) and end in (None, took.end)
        )

    def peak_mb(self, end: str) -> float:
        return max(took.peak_mb for took in self.took if took.end == end)


@dataclass(slots=True)
class Ends:
    """Two processes that do what they are told and say what it took."""

    pipes: dict[str, Connection]
    run: Run

    def does(self, end: str, job: Job) -> Any:
        self.pipes[end].send(job)
        result, cpu_s, peak_mb = self.pipes[end].recv()
        self.run.took.append(Took(end, job.name, cpu_s, peak_mb))
        return result


def serve(pipe: Connection) -> None:
    """One end: the main function of its process."""
    pipe.send((None, time.process_time(), peak_mb()))
    while (job := pipe.recv()) is not None:
        before_s = time.process_time()
        result = job.run()
        pipe.send((result, time.process_time() - before_s, peak_mb()))


def peak_mb() -> float:
    """Peak resident size of this process, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@contextmanager
def ends(run: Run, caches: Path | None) -> Iterator[Ends]:
    """Both processes, fresh; each tells first what it took to load.

    `caches`: a folder in which either has a cache of compiled code of its own.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for end in ENDS:
        if caches is not None:
            os.environ["NUMBA_CACHE_DIR"] = str(caches / end)
        pipes[end], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(theirs,), daemon=True))
        processes[-1].start()
        _, cpu_s, megabytes = pipes[end].recv()
        run.took.append(Took(end, "load", cpu_s, megabytes))
    try:
        yield Ends(pipes, run)
    finally:
        for pipe in pipes.values():
            pipe.send(None)
        for process in processes:
            process.join()


@dataclass(frozen=True, slots=True)
class Block:
    """A run's raw bits: Alice's, Bob's guess of them, and which rounds are tests."""

    alice: Bits
    guess: Bits
    tests: NDArray[np.bool_]


def draw(parameters: Parameters, rng: np.random.Generator) -> Block:
    n, (generation, test) = parameters.rounds, decoder_priors(parameters)
    tests = rng.random(n) < float(parameters.gamma)
    wrong = rng.random(n) < np.where(tests, test, generation)
    alice = rng.integers(0, 2, n, dtype=np.uint8)
    return Block(alice, alice ^ wrong, tests)


def plan(rounds: int, s: float, qber: float, seed: int) -> Parameters:
    policy = SessionPolicy(s_design=s, qber_design=qber)
    nodes = (NodeName("alice"), NodeName("bob"))
    planned = Plan(SessionId("bench"), LinkName("link"), *nodes, "", rounds, seed, policy).run()
    if isinstance(planned, str):
        raise click.ClickException(planned)
    return planned


def process(parameters: Parameters, seed: int, caches: Path | None) -> Run:
    """One block, from raw bits to equal keys."""
    rng, run = np.random.default_rng(seed), Run()
    block = draw(parameters, rng)
    begun_s = time.monotonic()
    with ends(run, caches) as both:
        corrected, received = reconcile(both, parameters, block)
        key = rng.bytes(16)
        peer_tag = both.does("alice", VerificationTag(key, block.alice))
        assert both.does("bob", Verify(key, corrected, peer_tag)), "an undetected error"
        rounds = (corrected, block.guess, block.tests)
        *counts, bits = both.does("bob", Bound(parameters, received.steps, rounds))
        told = Bound(parameters, received.steps, None, (counts[0], counts[1]))
        assert both.does("alice", told)[-1] == bits > 0, "no key"
        run.key_bits = bits - bits % 8
        key_seed = rng.integers(0, 2, seed_bits_needed(parameters.rounds, run.key_bits))
        packed = pack(key_seed.astype(np.uint8))
        keys = {
            end: both.does(end, Amplify(string, packed, run.key_bits))
            for end, string in (("alice", block.alice), ("bob", corrected))
        }
        assert isinstance(keys["alice"], Amplified) and keys["alice"] == keys["bob"]
        inputs = rng.bytes(parameters.rounds // 8)
        said = (received.syndrome, received.extra, packed)
        for end in ENDS:
            # Test rounds are under both transcripts' tags, settings under both inputs'.
            both.does(end, Tags((inputs, inputs, inputs, inputs, *said)))
    run.wall_s = time.monotonic() - begun_s
    return run


def reconcile(both: Ends, parameters: Parameters, block: Block) -> tuple[Bits, Received]:
    """Alice's string at Bob's, and all that she said of it."""
    for end in ENDS:
        both.does(end, Prepare(parameters.code))
    encoded = both.does("alice", Encode(parameters.code, block.alice))
    received = Received(encoded.code_digest, encoded.syndrome)
    while True:
        decode = Decode(
            parameters.code,
            block.guess,
            block.tests,
            decoder_priors(parameters),
            received,
            parameters.steps_max,
        )
        decoded = both.does("bob", decode)
        both.run.decodings += 1
        if isinstance(decoded, Corrected):
            both.run.steps = received.steps
            return decoded.bits, received
        if not isinstance(decoded, ExtraWanted):
            raise click.ClickException(str(decoded))
        extra = both.does("alice", EncodeExtra(parameters.code, block.alice, decoded.steps))
        received = Received(encoded.code_digest, encoded.syndrome, extra.steps, extra.bits)


def table_of(runs: list[Run], parameters: Parameters, cold: bool) -> Table:
    caches = "empty caches" if cold else "compiled code cached"
    table = Table(title=f"{parameters.rounds:,} rounds, {caches}, median of {len(runs)}")
    for heading in ("stage", *(f"{end}, CPU s" for end in ENDS), "both, CPU s"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")

    def row(name: str, stage: str | None, **style: str) -> None:
        cells = [statistics.median(run.cpu_s(stage, end) for run in runs) for end in (*ENDS, None)]
        table.add_row(name, *(f"{cell:.3f}" for cell in cells), **style)  # type: ignore[arg-type]

    for stage in dict.fromkeys(took.stage for took in runs[0].took):
        row(stage, stage)
    row("all", None, style="bold")
    most = LIMIT_COLD_S if cold else LIMIT_S
    share = statistics.median(run.cpu_s() for run in runs) / most
    table.add_row("share of the limit", "", "", f"{share:.0%} of {most:g} s")
    peaks = [max(run.peak_mb(end) for run in runs) for end in ENDS]
    table.add_row("peak memory", *(f"{peak:.0f} MB" for peak in peaks), f"of {LIMIT_MB:g} MB")
    return table


def report(runs: list[Run], parameters: Parameters, cold: bool) -> dict[str, object]:
    return {
        "rounds": parameters.rounds,
        "s": parameters.s_design,
        "qber": parameters.qber_design,
        "bound": parameters.bound,
        "cold": cold,
        "runs": [
            {
                "stages_cpu_s": {
                    f"{end}: {stage}": run.cpu_s(stage, end)
                    for end in ENDS
                    for stage in dict.fromkeys(t.stage for t in run.took if t.end == end)
                },
                "cpu_s": run.cpu_s(),
                "wall_s": run.wall_s,
                "peak_mb": {end: run.peak_mb(end) for end in ENDS},
                "extra_steps": run.steps,
                "decodings": run.decodings,
                "key_bits": run.key_bits,
            }
            for run in runs
        ],
    }


@click.command()
@click.option("--rounds", default=1_200_000, show_default=True)
@click.option("--s", "s", default=2.612, show_default=True, help="CHSH value.")
@click.option("--qber", default=0.03, show_default=True, help="Error rate of generation rounds.")
@click.option("--runs", default=3, show_default=True)
@click.option("--cold", is_flag=True, help="Begin each run with empty caches of compiled code.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(rounds: int, s: float, qber: float, runs: int, cold: bool, json_file: Path | None) -> None:
    """Time the whole post-processing of a run, both ends on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for library in ("OMP", "OPENBLAS", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = "1"  # as a daemon starts its workers
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    done = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for number in range(runs):
            progress.add_task(f"block {number + 1} of {runs}", total=None)
            parameters = plan(rounds, s, qber, seed=number)
            with tempfile.TemporaryDirectory() as empty:
                done.append(process(parameters, number, Path(empty) if cold else None))
    console.print(table_of(done, parameters, cold))
    steps = ", ".join(f"{run.steps} ({run.decodings})" for run in done)
    console.print(f"extra steps of syndrome (decodings), by run: {steps}")
    console.print(f"key bits, by run: {', '.join(f'{run.key_bits:,}' for run in done)}")
    if json_file is not None:
        json_file.write_text(json.dumps(report(done, parameters, cold), indent=2) + "\n")


if __name__ == "__main__":
    main()
