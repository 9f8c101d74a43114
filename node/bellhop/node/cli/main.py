"""The group of all commands; a command's module is loaded when it runs, so that help is quick."""

from importlib import import_module
from typing import Any

import click

from bellhop.hal.errors import BellhopError
from bellhop.node.cli.output import JSON_FLAG, show_error
from bellhop.node.errors import meaning_of

# name: (module:attribute, what `bellhop --help` says).  The text stands here so that help need not
# load every module.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("bellhop.node.cli.demo:demo", "From an emulated fibre to an encrypted file."),
    "diqkd": ("bellhop.node.cli.diqkd:diqkd", "Make keys with a peer."),
    "emulator": ("bellhop.node.cli.emulator:emulator", "Run emulated memories for many nodes."),
    "hal": ("bellhop.node.cli.hal:hal", "Serve and check a laboratory's devices."),
    "keyrate": ("bellhop.node.cli.keyrate:keyrate", "How many secret bits a run is worth."),
    "keys": ("bellhop.node.cli.keys:keys", "Fetch keys, and see what a node holds."),
    "open": ("bellhop.node.cli.files:open_", "Decrypt a sealed file."),
    "pki": ("bellhop.node.cli.pki:pki", "Make certificates."),
    "pool": ("bellhop.node.cli.pool:pool", "The keys that two nodes share beforehand."),
    "receipt": ("bellhop.node.cli.receipt:receipt", "Check what a session claims."),
    "run": ("bellhop.node.cli.run:run", "Run a node."),
    "seal": ("bellhop.node.cli.files:seal", "Encrypt a file for another application."),
    "sim": ("bellhop.node.cli.sim:sim", "Run two nodes in virtual time."),
    "status": ("bellhop.node.cli.status:status", "How a node is."),
}


_AS_JSON = "bellhop.as_json"


def load_attribute(place: str) -> Any:
    """What "module:attribute" names."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


class LazyGroup(click.Group):
    """A group whose commands are named here and loaded on use.

    Errors of Bellhop that leave a command become messages and exit codes.
    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        command: click.Command = load_attribute(self.lazy[cmd_name][0])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, from the texts above instead of from the loaded commands."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self._help_of(ctx, name)) for name in self.list_commands(ctx)]
            )

    def _help_of(self, ctx: click.Context, name: str) -> str:
        if name in self.lazy:
            return self.lazy[name][1]
        command = super().get_command(ctx, name)
        return command.get_short_help_str(limit=80) if command else ""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Noted before a command takes its own options, so that its errors have its form as well.
        ctx.meta[_AS_JSON] = JSON_FLAG in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BellhopError as error:
            show_error(error, ctx.meta[_AS_JSON])
            ctx.exit(meaning_of(error).exit_code)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="bellhop-qnet", prog_name="bellhop")
def main() -> None:
    """The node of a quantum network: from heralded pairs to delivered keys.

    Exit codes: 0 done, 2 wrong option or configuration, 3 what was asked for cannot be, 4 the
    other side failed, 5 a device failed, 6 the key store failed, 10 a session aborted, no key;
    1 another error. `bellhop run` ends with 74 if its key store failed and with 70 at a bug.
    """
