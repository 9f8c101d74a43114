"""`bellhop sim`: nodes, links and faults in virtual time, repeatable by their seed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bellhop.node.cli.output import json_option, show
from bellhop.node.sim.run import Progress, Report, run_scenario
from bellhop.node.sim.scenario import FaultKind, Scenario, checked, read_scenario, two_nodes


@click.command()
@click.argument(
    "scenario_file",
    metavar="[SCENARIO.toml]",
    required=False,
    type=click.Path(dir_okay=False, path_type=Path),
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="All chance comes of it."
)
@click.option("--rounds", type=int, help="Heralded pairs a session.  [default: the scenario's]")
@click.option(
    "--sessions", type=int, help="Sessions, one after another.  [default: the scenario's]"
)
@click.option(
    "--faults",
    type=click.Choice(["none", "swarm"]),
    help="What goes wrong: nothing, or kinds and rates drawn from the seed.  "
    "[default: the scenario's]",
)
@json_option
def sim(
    *,
    scenario_file: Path | None,
    seed: int,
    rounds: int | None,
    sessions: int | None,
    faults: FaultKind | None,
    as_json: bool,
) -> None:
    """Run nodes in virtual time, with the cores a daemon runs.

    Without a scenario: two nodes with the link of the Oxford experiment, one session of 1.5 million
    rounds (some seconds).  Equal seeds give equal traces, on any machine.  Invariants are checked
    all along; if one does not hold, the command that repeats the run is printed.
    """
    scenario = read_scenario(scenario_file) if scenario_file else two_nodes()
    changes: dict[str, Any] = {"rounds": rounds, "sessions": sessions, "faults": faults}
    given = {name: value for name, value in changes.items() if value is not None}
    scenario = checked(replace(scenario, **given))
    begun_s = time.process_time()
    with _progress_bar(scenario, hidden=as_json) as progress:
        report = run_scenario(scenario, seed, progress)
    document = report.document() | {"cpu_s": round(time.process_time() - begun_s, 3)}
    show(document, _rows(report, document), as_json)


@contextmanager
def _progress_bar(scenario: Scenario, *, hidden: bool) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("pairs"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bar:
        total = scenario.rounds * scenario.sessions * len(scenario.links)
        task = bar.add_task("pairs", total=total)
        yield lambda pairs: bar.update(task, completed=min(pairs, total))


def _rows(report: Report, document: dict[str, Any]) -> list[tuple[str, object]]:
    counts = {**report.counts, **{f"refused {k}": v for k, v in report.refusals.items()}}
    rows: list[tuple[str, object]] = [
        ("seed", report.seed),
        ("pairs", f"{report.pairs:,}, {document['pairs_per_s']:g} a simulated second"),
        ("time", f"{document['simulated_s']:,.1f} s simulated in {document['cpu_s']:g} s"),
        ("trace", report.trace_sha256),
    ]
    rows += [("session", _session_text(session)) for session in report.sessions]
    if report.faults:
        rows.append(("faults", ", ".join(f"{k} {v:.3g}" for k, v in report.faults.items())))
    rows.append(("counts", ", ".join(f"{k} {v:,}" for k, v in counts.items())))
    rows.append(("invariants", f"hold ({report.checked:,} actions looked at)"))
    return rows


def _session_text(session: dict[str, str | int | float]) -> str:
    text = f"{session['session']} {session['outcome']}"
    if session["outcome"] != "stored":
        return f"{text}: {session['reason']}"
    key = f"{session['gross_bits']:,} bits, net {session['net_bits']:,}"
    return f"{text}: S {session['s']:.4f}, QBER {100 * float(session['qber']):.2f} %, {key}"
