"""The one way in which commands print: tables for people, one JSON document for machines."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from bellhop.hal.errors import BellhopError

JSON_FLAG = "--json"

json_option = click.option(JSON_FLAG, "as_json", is_flag=True, help="One JSON document, no table.")
"""Adds `--json`, as the argument `as_json`, to a command; every command has it."""

Rows = Sequence[tuple[str, object]]


def show(document: Mapping[str, Any], rows: Rows, as_json: bool) -> None:
    """Print `document` as JSON, or `rows` of (name, value) as a table."""
    click.echo(to_json(document) if as_json else table(rows))


def to_json(document: Mapping[str, Any]) -> str:
    """`document` as people can read it too.  Paths, times and fractions become text."""
    return json.dumps(document, indent=2, ensure_ascii=False, default=str)


def table(rows: Rows) -> str:
    """Names in one column, values in the next."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def show_error(error: BellhopError, as_json: bool) -> None:
    """Print what is wrong and who must act, on stderr, so that stdout holds results alone."""
    if as_json:
        document = {
            "error": type(error).__name__,
            "message": error.message,
            "who_must_act": error.who_must_act,
            "fields": error.fields,
        }
        click.echo(to_json(document), err=True)
    else:
        click.echo(f"Error: {error.message}\n(who must act: {error.who_must_act})", err=True)
