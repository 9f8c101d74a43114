"""`bellhop emulator`: emulated memories for many nodes, and what they are worth."""

from pathlib import Path

import click

from bellhop.node.cli.main import LazyGroup
from bellhop.node.cli.output import json_option
from bellhop.node.observe import note, service_logs

LAZY = {
    "characterise": (
        "bellhop.node.cli.characterise:characterise",
        "Measure an emulated link, beside what was published.",
    ),
}


class EmulatorGroup(LazyGroup):
    """A group that takes what is no command for the FILE of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        word = next((arg for arg in args if not arg.startswith("-")), "")
        helps = not word and any(arg in ctx.help_option_names for arg in args)
        if word not in self.list_commands(ctx) and not helps:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("emulator", cls=EmulatorGroup, lazy=LAZY)
def emulator() -> None:
    """Emulated memories for many nodes.

    `bellhop emulator FILE` is short for `bellhop emulator run FILE`; a file that is called like a
    command is given as ./NAME.
    """


@emulator.command("run", short_help="Run the emulator that FILE describes, until SIGTERM.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def run(file: Path, as_json: bool) -> None:
    """Run the emulator that FILE describes, until SIGTERM.

    Nodes attach to it as they would to a laboratory. It logs to stderr, with --json one JSON object
    a line.
    """
    with service_logs(as_json):
        # Only now: grpc must find stderr as it is to stay.
        from bellhop.hal.emulator.server import run_emulator

        run_emulator(file, lambda address: note("listening", {"address": address}))
