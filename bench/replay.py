"""The 11 km experiment of 2026, replayed: 1.2 million pairs, 624 hours, as fast as it goes here.

    python bench/replay.py [--preset NAME] [--rounds N] [--runs K] [--json FILE]

Real processes on loopback: an emulator and two daemons with mutual TLS, as `bellhop demo` runs
them; from the operator's request until the keys are deliverable at both ends.  Then the receipts
of both are verified.  The hours are those of the emulated device's clock, from the first attempt to
the last herald: what the attempts, at their period, and the pauses of the experiment would have
taken.
"""

import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from bellhop.hal.preset import load_preset
from bellhop.node.config import load_config
from bellhop.node.demo import Published, both_have_it, lay_out_preset, published_by
from bellhop.node.loopback import NODES, Layout, Processes, network
from bellhop.node.receipt_verifier import verify
from bellhop.node.session_client import Progress, run_session

TARGET_S = 20.0


@dataclass(slots=True)
class Run:
    """One replay; `resident_mb`: of the daemons at their peak, workers apart."""

    heralding_s: float = 0.0
    deliverable_s: float = 0.0
    experiment_hours: float = 0.0
    s: float = 0.0
    qber: float = 0.0
    gross_bits: int = 0
    net_bits: int = 0
    resident_mb: dict[str, float] = field(default_factory=dict)
    receipts_verify: dict[str, bool] = field(default_factory=dict)

    @property
    def times_real(self) -> float:
        return self.experiment_hours * 3600 / self.deliverable_s


def replay(folder: Path, preset: str, rounds: int, bar: Bar) -> Run:
    """One session in a network of its own."""
    layout = lay_out_preset(folder, preset)
    done = Run()
    task = bar.add_task("rounds", total=rounds)
    with network(layout) as processes:
        begun = time.monotonic()

        def moved(progress: Progress) -> None:
            bar.update(task, completed=progress.rounds_done, description=progress.stage)
            if progress.stage == "heralding":
                done.heralding_s = time.monotonic() - begun

        end = run_session(load_config(layout.node("alice")).control_socket, "bob", rounds, moved)
        if end["outcome"] != "stored":
            raise click.ClickException(f"the session ended otherwise: {end}")
        both_have_it(processes)
        done.deliverable_s = time.monotonic() - begun
        done.receipts_verify = {
            node: receipt_verifies(processes, layout, node, end["session"]) for node in NODES
        }
        for name, process in processes.running.items():
            done.resident_mb[name] = peak_mb(process.pid)
    done.experiment_hours = end["experiment_ns"] / 3.6e12
    done.s, done.qber = end["s"], end["qber"]
    done.gross_bits, done.net_bits = end["gross_bits"], end["net_bits"]
    return done


def receipt_verifies(processes: Processes, layout: Layout, node: str, session: str) -> bool:
    """Whether everything in the receipt of `node` follows anew, signatures included."""
    asked = ("keys", "receipt", session, "--config", str(layout.node(node)))
    receipt = json.dumps(processes.command(*asked)).encode()
    authority = layout.folder / "pki" / "authority.crt.pem"
    return verify(receipt, authority.read_bytes()).exit_code == 0


def peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def report(runs: list[Run], rounds: int, published: Published) -> Table:
    median = statistics.median(run.deliverable_s for run in runs)
    last = runs[-1]
    table = Table(title=f"{rounds:,} pairs, {len(runs)} runs")
    for column in ("", "here", "published"):
        table.add_column(column, justify="left" if not column else "right")
    rows = [
        ("seconds to equal keys, median", f"{median:.1f}", f"target {TARGET_S:.0f}"),
        ("  of them heralding", f"{statistics.median(r.heralding_s for r in runs):.1f}", ""),
        ("hours of experiment", f"{last.experiment_hours:.1f}", published.hours),
        ("times real time", f"{statistics.median(r.times_real for r in runs):,.0f}", ""),
        ("S, last run", f"{last.s:.4f}", published.s),
        ("QBER, last run", f"{last.qber:.2%}", published.qber),
        ("key, last run", f"{last.gross_bits:,} bits", published.key_bits),
        ("  net of tags and ids", f"{last.net_bits:,} bits", ""),
    ]
    rows += [
        (f"receipt verifies, {name}", "yes" if every(runs, name) else "NO", "")
        for name in last.receipts_verify
    ]
    rows += [
        (f"peak memory, {name}", f"{max(run.resident_mb[name] for run in runs):.0f} MB", "")
        for name in last.resident_mb
    ]
    for row in rows:
        table.add_row(*row)
    return table


def every(runs: list[Run], node: str) -> bool:
    """Whether the receipts of a node verify in every run."""
    return all(run.receipts_verify[node] for run in runs)


@click.command()
@click.option("--preset", default="lu-11km", show_default=True)
@click.option("--rounds", default=1_200_000, show_default=True)
@click.option("--runs", default=3, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
@click.pass_context
def main(
    context: click.Context, preset: str, rounds: int, runs: int, json_file: Path | None
) -> None:
    """Replay an experiment between two daemons.

    Exit code 1: slower than the target, or a receipt does not verify.
    """
    done = []
    with tempfile.TemporaryDirectory() as scratch, Bar() as bar:
        for number in range(runs):
            done.append(replay(Path(scratch) / str(number), preset, rounds, bar))
    published = published_by(load_preset(preset))
    Console().print(report(done, rounds, published))
    median = statistics.median(run.deliverable_s for run in done)
    if json_file is not None:
        content = {
            "preset": preset,
            "rounds": rounds,
            "target_s": TARGET_S,
            "median_s": median,
            "published": asdict(published),
            "runs": [{**asdict(run), "times_real": run.times_real} for run in done],
        }
        json_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    verified = all(every(done, node) for node in NODES)
    context.exit(0 if median <= TARGET_S and verified else 1)


if __name__ == "__main__":
    main()
