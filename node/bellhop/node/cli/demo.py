"""`bellhop demo`: the whole way, on this machine."""

import signal
from pathlib import Path
from typing import Any

import click

from bellhop.hal.errors import ConfigError
from bellhop.node.cli.diqkd import EXIT_ABORTED, raise_if_refused
from bellhop.node.cli.output import json_option, table, to_json
from bellhop.node.cli.receipt import source_of

ROUNDS = 1_500_000
"""Where the preset's experiment tells no number."""

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("demo")
@click.option(
    "--rounds", type=click.IntRange(1), show_default="as many as the preset's experiment had",
    help="Heralded pairs.",
)  # fmt: skip
@click.option(
    "--preset", default="oxford", show_default=True,
    help="The experiment whose figures are emulated: see 'bellhop hal characterise'.",
)  # fmt: skip
@click.option(
    "--dir", "folder", type=_FOLDER, show_default="demo, or demo-2 ... if it exists",
    help="New or empty folder for all its files.",
)  # fmt: skip
@click.option("--degrade", is_flag=True, help="Spoil the link to S below 2.2: the session aborts.")
@click.option("--hold", is_flag=True, help="Run no session: start the network, end with Ctrl-C.")
@json_option
@click.pass_context
def demo(
    context: click.Context,
    rounds: int | None,
    preset: str,
    folder: Path | None,
    degrade: bool,
    hold: bool,
    as_json: bool,
) -> None:
    """From an emulated fibre to an encrypted file.

    Starts an emulator and two nodes as three processes with certificates of their own, makes a
    device-independent key from heralded pairs, and seals a file under it at one node that is opened
    at the other. The outcomes are emulated, by the figures of the Oxford experiment of 2022 or of
    another preset: '--preset lu-11km' replays 624 hours over 11 km, as fast as this machine goes.

    With --hold the network stays for commands of your own. Either way nothing is left running
    in the end. Exit codes: 0 a key, 10 the session aborted, no key; with --degrade 0 the abort, 1 a
    key; others as in `bellhop --help`.
    """
    from bellhop.hal.preset import load_preset
    from bellhop.node.cli.progress import SessionBar
    from bellhop.node.demo import hold_network, run_demo

    # As Ctrl-C does, so that what was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = load_preset(preset).published.rounds
    rounds = rounds or (ROUNDS if known is None else int(known.value))
    folder = free_folder(Path("demo").resolve()) if folder is None else folder.resolve()
    if hold:
        hold_network(folder, degrade, lambda step: click.echo(f"- {step}", err=True), preset)
        return
    with SessionBar(shown=not as_json) as bar:
        document = run_demo(folder, rounds, degrade, bar.tell, bar.moved, preset)
    raise_if_refused(document["session"])
    click.echo(to_json(document) if as_json else _account(document))
    aborted = document["session"]["outcome"] == "aborted"
    unexpected = 1 if degrade else EXIT_ABORTED
    context.exit(0 if aborted == degrade else unexpected)


def free_folder(folder: Path) -> Path:
    """`folder`, or FOLDER-2, FOLDER-3 ... if it is there: nothing is overwritten."""
    names = [folder, *(folder.with_name(f"{folder.name}-{k}") for k in range(2, 1000))]
    free = next((name for name in names if not name.exists()), None)
    if free is None:
        raise ConfigError(f"{folder} and a thousand like it exist: remove some", field="--dir")
    return free


def _account(document: dict[str, Any]) -> str:
    end, published = document["session"], document["published"]
    if end["outcome"] != "stored":
        return table([*_ending(end), ("files", document["folder"])])
    receipt, file = document["receipt"], document["file"]
    figures = [
        ("", f"{'this session':<24}published: {published['title']}"),
        ("S", f"{end['s']:<24.4f}{published['s']}"),
        ("QBER", f"{end['qber']:<24.2%}{published['qber']}"),
        ("key", f"{_bits(end['gross_bits']):<24}{published['key_bits']}"),
        ("net of tags", _bits(end["net_bits"])),
        ("epsilon", f"{end['epsilon']:<24.1e}{published['epsilon']}"),
        ("hours of experiment", f"{end['experiment_ns'] / 3.6e12:<24.1f}{published['hours']}"),
        ("source", source_of(receipt)),
        ("bound", end["bound"]),
    ]
    use = [
        ("key used", file["key_id"]),
        ("sealed", file["sealed"]),
        ("opened", f"{file['opened']} (the same, byte for byte)"),
        ("files", document["folder"]),
    ]
    return f"{table(figures)}\n\n{table(use)}"


def _bits(count: int) -> str:
    return f"{count:,} bits"


def _ending(end: dict[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("outcome", end["outcome"]), ("why", end.get("reason", ""))]
    if "s" in end:
        rows += [("S", f"{end['s']:.4f}"), ("QBER", f"{end['qber']:.2%}")]
    return rows
