"""The option by which a command knows its node."""

from pathlib import Path

import click

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    envvar="BELLHOP_CONFIG",
    show_envvar=True,
    help="The node's file.",
)
"""Adds `--config`, as the argument `config_file`."""
