"""`bellhop receipt`: what a session claims, shown, and computed again without trust in a node."""

import datetime
from pathlib import Path
from typing import Any

import click

from bellhop.hal.errors import ConfigError
from bellhop.node.cli.output import json_option, show, to_json
from bellhop.node.receipt_verifier import Unreadable, form, parse, report, verify

EXIT_UNREADABLE = 2
"""As the verifier alone ends."""

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("receipt")
def receipt() -> None:
    """Check and show receipts; `bellhop keys receipt` asks a node for one."""


@receipt.command("verify")
@click.argument("file", type=_FILE)
@click.option(
    "--authority", type=_FILE, help="Certificates (PEM) that may issue those of the two nodes."
)
@json_option
@click.pass_context
def verify_file(context: click.Context, file: Path, authority: Path | None, as_json: bool) -> None:
    """Compute again, from the receipt in FILE alone, the key's length and all that it follows from.

    Needs no node and no network. Exit code: 0 if everything holds, 1 if something does not, 2 if
    FILE is no receipt, 3 if it is not known who signed: no authority, or no means to check.
    """
    try:
        outcome = verify(file.read_bytes(), authority.read_bytes() if authority else None)
    except Unreadable as error:
        click.echo(to_json({"error": str(error)}) if as_json else f"Error: {error}", err=True)
        context.exit(EXIT_UNREADABLE)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}", field="FILE") from error
    click.echo(to_json(outcome.document()) if as_json else report(outcome))
    context.exit(outcome.exit_code)


@receipt.command("show")
@click.argument("file", type=_FILE)
@json_option
def show_file(file: Path, as_json: bool) -> None:
    """The receipt in FILE for people. Nothing of it is checked: see `verify`."""
    try:
        document = parse(file.read_bytes())
    except Unreadable as error:
        raise ConfigError(f"{file} is no receipt: {error}", field="FILE") from error
    if wrong := next(form(document), None):
        raise ConfigError(f"{file} is no receipt: {wrong}", field="FILE")
    show(document, receipt_rows(document), as_json)


def source_of(document: dict[str, Any]) -> str:
    """Where the outcomes came from, as both ends say."""
    ends = [end for end in document["ends"].values() if end is not None]
    return " and ".join(sorted({end["statement"]["device"]["source"] for end in ends}))


def receipt_rows(document: dict[str, Any]) -> list[tuple[str, object]]:
    """The receipt for people, in groups and rounded; --json has every figure as it is."""
    said = document["session"]
    p, run, key, leak = said["parameters"], said["run"], said["key"], said["leak"]
    return [
        ("What was measured", ""),
        ("  rounds", f"{run['rounds']:,}, of them {run['tests']:,} tests"),
        ("  S", f"{run['s']:.4f}"),
        ("  QBER", f"{run['qber']:.2%}"),
        ("  tests lost", f"{run['losses']:,}"),
        ("  key bits wrong", f"{run['errors']:,}, corrected"),
        ("The key", ""),
        ("  distilled", f"{key['gross_bits']:,} bits"),
        ("  deliverable", f"{key['deliverable_bits']:,} bits"),
        ("  net of tags", f"{key['net_bits']:,} bits"),
        ("  leaked", f"{leak['total']:,} bits"),
        ("The claim", ""),
        ("  bound", f"{p['bound']}{'' if said['theorem']['refereed'] else ' (UNREFEREED)'}"),
        ("  theorem", said["theorem"]["statement"]),
        ("  epsilon", f"{said['epsilon']['soundness']:.3g}"),
        *_listed("  assumptions", said["assumptions"]),
        ("  device reuse", said["device_reuse"]["statement"]),
        *[row for role in ("alice", "bob") for row in _end(role, document["ends"][role])],
        ("The session", ""),
        ("  name", p["session"]),
        ("  link", p["link"]),
        ("  transcript", said["transcript"]["sha256"]),
    ]


def _end(role: str, end: dict[str, Any] | None) -> list[tuple[str, object]]:
    if end is None:
        return [(role.capitalize(), ""), ("  signature", "missing, with all that this end says")]
    said = end["statement"]
    device = said["device"]
    reuse = (
        f"{device['sessions_before']} sessions with a key, {device['aborted_before']} without, "
        f"{device['published_bits_before']:,} bits published"
    )
    return [
        (role.capitalize(), ""),
        ("  node", said["node"]),
        ("  source", f"{device['source']} ({device['description']})"),
        ("  used before", reuse),
        ("  randomness", f"{said['randomness']['source']}; {said['randomness']['health']}"),
        *_listed("  idealisations", device["idealisations"]),
        ("  stored", _moment(said["stored_ns"])),
        ("  signature", "is there; 'bellhop receipt verify' checks it"),
    ]


def _listed(name: str, sentences: list[str]) -> list[tuple[str, object]]:
    return [(name if n == 0 else "", f"- {text}") for n, text in enumerate(sentences)]


def _moment(moment_ns: int) -> str:
    moment = datetime.datetime.fromtimestamp(moment_ns // 10**9, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
