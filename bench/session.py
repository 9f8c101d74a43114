"""Where the time of a session goes: from the request to the key in both stores, by stage.

    python bench/session.py [--rounds N] [--runs K] [--json FILE]

Real processes on loopback: an emulator and two daemons with mutual TLS, as `make demo` runs them.
The stages are read from the nodes' own logs, the memory is each process's peak resident size.
The ratio is to the 300 s that the post-processing of the Oxford experiment took for the same number
of pairs (arXiv:2109.14600): ours include heralding and measuring, on an emulator.
"""

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from bellhop.node.config import load_config
from bellhop.node.demo import both_have_it
from bellhop.node.loopback import NODES, Layout, Processes, lay_out, network
from bellhop.node.session_client import Progress, run_session

PUBLISHED_POST_PROCESSING_S = 300.0
MARKS = (
    ("plan, propose, herald, measure", "transcript_a"),
    ("transcripts and inputs", "syndrome"),
    ("decode", "verification"),
    ("verify and decide", "amplification"),
    ("amplify and store", "session_stored"),
)


@dataclass(slots=True)
class Run:
    """One session: seconds by stage and in all, peak MB by process."""

    stages_s: dict[str, float] = field(default_factory=dict)
    session_s: float = 0.0
    both_deliverable_s: float = 0.0
    peak_mb: dict[str, float] = field(default_factory=dict)
    net_bits: int = 0


def run_once(folder: Path, rounds: int, bar: Bar) -> Run:
    """One session in a network of its own."""
    layout = lay_out(folder)
    run = Run()
    task = bar.add_task("rounds", total=rounds)
    with network(layout) as processes:

        def moved(progress: Progress) -> None:
            bar.update(task, completed=progress.rounds_done, description=progress.stage)
            look_at_memory(processes, run.peak_mb)

        begun_s, begun = time.monotonic(), time.time()
        end = run_session(load_config(layout.node("alice")).control_socket, "bob", rounds, moved)
        run.session_s = time.monotonic() - begun_s
        if end["outcome"] != "stored":
            raise click.ClickException(f"the session ended otherwise: {end}")
        run.net_bits = int(end["net_bits"])
        both_have_it(processes)
        run.both_deliverable_s = time.monotonic() - begun_s
        look_at_memory(processes, run.peak_mb)
    run.stages_s = stages_of(layout, begun)
    return run


def stages_of(layout: Layout, begun: float) -> dict[str, float]:
    """Seconds between the marks in Alice's log."""
    times = dict(_marks(layout.log("alice")))
    seconds, before = {}, begun
    for stage, mark in MARKS:
        seconds[stage] = times[mark] - before
        before = times[mark]
    return seconds


def _marks(log: Path) -> Iterator[tuple[str, float]]:
    for line in log.read_text(encoding="utf-8").splitlines():
        record: dict[str, Any] = json.loads(line)
        at = datetime.fromisoformat(record["time"]).timestamp()
        if record["event"] == "stage_said":
            yield record["stage"], at
        elif record["event"] == "session_stored":
            yield "session_stored", at


def look_at_memory(processes: Processes, peak_mb: dict[str, float]) -> None:
    """Peak resident size of every process and its children, as the kernel counts it."""
    for name, process in processes.running.items():
        _note_peak(name, process.pid, peak_mb)
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            for child in children.split():
                _note_peak(f"{name}'s worker", int(child), peak_mb)


def _note_peak(name: str, pid: int, peak_mb: dict[str, float]) -> None:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        peak_mb[name] = max(peak_mb.get(name, 0.0), kilobytes / 1024)


def report(runs: list[Run], rounds: int) -> Table:
    table = Table(title=f"{rounds:,} rounds, median of {len(runs)}")
    for column in ("stage", "seconds", "share"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    total = statistics.median(run.both_deliverable_s for run in runs)
    for stage, _ in MARKS:
        seconds = statistics.median(run.stages_s[stage] for run in runs)
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / total:.0%}")
    table.add_row("deliverable at both ends", f"{total:.2f}", "100%", style="bold")
    table.add_row("of the published 300 s", "", f"{total / PUBLISHED_POST_PROCESSING_S:.1%}")
    for name in sorted(runs[0].peak_mb):
        table.add_row(
            f"peak memory, {name}", f"{max(run.peak_mb[name] for run in runs):.0f} MB", ""
        )
    return table


@click.command()
@click.option("--rounds", default=1_500_000, show_default=True)
@click.option("--runs", default=3, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(rounds: int, runs: int, json_file: Path | None) -> None:
    """Where the time of a session goes."""
    done = []
    with tempfile.TemporaryDirectory() as scratch, Bar() as bar:
        for number in range(runs):
            done.append(run_once(Path(scratch) / str(number), rounds, bar))
    Console().print(report(done, rounds))
    if json_file is not None:
        content = {
            "rounds": rounds,
            "nodes": list(NODES),
            "runs": [
                {
                    "stages_s": run.stages_s,
                    "session_s": run.session_s,
                    "both_deliverable_s": run.both_deliverable_s,
                    "ratio_to_published": run.both_deliverable_s / PUBLISHED_POST_PROCESSING_S,
                    "peak_mb": run.peak_mb,
                    "net_bits": run.net_bits,
                }
                for run in done
            ],
        }
        json_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
