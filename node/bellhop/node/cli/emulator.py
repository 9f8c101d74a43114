"""`bellhop emulator`: emulated memories for many nodes."""

import sys
from pathlib import Path

import click

from bellhop.node.cli.output import json_option
from bellhop.node.observe import adopt_stderr, configure_logs, note


@click.command("emulator")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def emulator(file: Path, as_json: bool) -> None:
    """Run the emulator that FILE describes, until SIGTERM.

    Nodes attach to it as they would to a laboratory. It logs to stderr, with --json one JSON object
    a line.
    """
    stderr = adopt_stderr()
    configure_logs("info", "json" if as_json else "text", stderr.stream)
    from bellhop.hal.emulator.server import run_emulator

    try:
        run_emulator(file, lambda address: note("listening", {"address": address}))
    finally:
        stderr.close()
        sys.stderr.flush()
