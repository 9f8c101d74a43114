"""`bellhop pki`: one authority, and a certificate for each role."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bellhop.node.cli.output import json_option, show
from bellhop.node.pki import (
    AUTHORITY_DAYS,
    AUTHORITY_KEY,
    DAYS_MAX,
    LOOPBACK_DNS,
    LOOPBACK_IP,
    PARTY_DAYS,
    Curve,
    init_authority,
    issue,
)
from bellhop.node.tls import Party, PartyKind

DEFAULT_FOLDER = Path("pki")

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def pki() -> None:
    """Make certificates: one authority, one certificate a role.

    Each party gets its own folder DIR/KIND/NAME with its certificate, its private key and the
    authority's certificate. Keep DIR/authority.key.pem where no node runs.
    """


def _days(default: int) -> Callable[[Any], Any]:
    return click.option(
        "--days", type=click.IntRange(1, DAYS_MAX), default=default, show_default=True,
        help="How long the certificate is valid.",
    )  # fmt: skip


_curve = click.option(
    "--curve", type=click.Choice([curve.value for curve in Curve]), default="p256",
    show_default=True, callback=lambda _context, _parameter, value: Curve(value),
    help="Elliptic curve of the key.",
)  # fmt: skip
_force = click.option("--force", is_flag=True, help="Replace files that exist.")


@pki.command("init")
@click.argument("folder", metavar="DIR", type=_FOLDER, default=DEFAULT_FOLDER)
@_days(AUTHORITY_DAYS)
@_curve
@_force
@json_option
def init(folder: Path, days: int, curve: Curve, force: bool, as_json: bool) -> None:
    """Make an authority in DIR (default: pki)."""
    now = datetime.datetime.now(datetime.UTC)
    certificate = init_authority(folder, now=now, days=days, curve=curve, force=force)
    key = folder / AUTHORITY_KEY
    document = {"certificate": certificate, "key": key}
    show(document, [("authority", certificate), ("its key", f"{key} (keep it safe)")], as_json)


def _issuing(kind: PartyKind, metavar: str) -> Callable[[Callable[..., None]], click.Command]:
    """The options that all roles have."""
    hosts = "" if kind is PartyKind.SAE else f"  [default: {', '.join(LOOPBACK_DNS + LOOPBACK_IP)}]"
    decorators = [
        pki.command(str(kind)),
        click.argument("name", metavar=metavar),
        click.option("--dir", "folder", type=_FOLDER, default=DEFAULT_FOLDER, show_default=True,
                     help="The authority's folder."),
        click.option("--dns", multiple=True, help=f"A host name it is reached by.{hosts}"),
        click.option("--ip", multiple=True, help="An address it is reached by."),
        _days(PARTY_DAYS),
        _curve,
        _force,
        json_option,
    ]  # fmt: skip

    def decorate(function: Callable[..., None]) -> click.Command:
        decorated: Any = function
        for decorator in reversed(decorators):
            decorated = decorator(decorated)
        command: click.Command = decorated
        return command

    return decorate


@_issuing(PartyKind.NODE, "NAME")
def node(**options: Any) -> None:
    """A certificate for the node NAME."""
    _issue(PartyKind.NODE, **options)


@_issuing(PartyKind.EMULATOR, "NAME")
def emulator(**options: Any) -> None:
    """A certificate for the emulator NAME."""
    _issue(PartyKind.EMULATOR, **options)


@_issuing(PartyKind.KME, "NAME")
def kme(**options: Any) -> None:
    """A certificate for a node's key delivery, the KME called NAME."""
    _issue(PartyKind.KME, **options)


@_issuing(PartyKind.SAE, "ID")
def sae(**options: Any) -> None:
    """A certificate for the application (SAE) called ID: up to 64 bytes of any UTF-8."""
    _issue(PartyKind.SAE, **options)


def _issue(
    kind: PartyKind,
    name: str,
    folder: Path,
    dns: tuple[str, ...],
    ip: tuple[str, ...],
    days: int,
    curve: Curve,
    force: bool,
    as_json: bool,
) -> None:
    issued = issue(
        folder,
        Party(kind, name),
        now=datetime.datetime.now(datetime.UTC),
        dns=dns,
        ip=ip,
        days=days,
        curve=curve,
        force=force,
    )
    files = {
        "certificate": issued.certificate,
        "key": issued.key,
        "authority": issued.authority,
    }
    document = {"uri": issued.party.uri, **files, "expires": issued.expires.isoformat()}
    rows = [("party", issued.party.uri), *files.items(), ("expires", f"{issued.expires:%Y-%m-%d}")]
    show(document, rows, as_json)
