"""The options by which a command knows its KME: a profile, or each field by itself."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bellhop.hal.errors import ConfigError
from bellhop.node.etsi_client import ClientProfile, load_profile

_FILE = click.Path(dir_okay=False, path_type=Path)

_OPTIONS = [
    click.option("--client", "client", type=_FILE, metavar="PROFILE",
                 help="TOML file with kme, kme_id, certificate, key, authority."),
    click.option("--kme", help="URL of the KME, https://host:port."),
    click.option("--kme-id", help="Identifier that the KME's certificate must have."),
    click.option("--sae-cert", "certificate", type=_FILE, help="The application's certificate."),
    click.option("--sae-key", "key", type=_FILE, help="Its private key."),
    click.option("--authority", type=_FILE, help="Certificates of the authorities."),
]  # fmt: skip


def client_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a client; the command gets `profile`, a ClientProfile."""

    @functools.wraps(function)
    def command(
        client: Path | None,
        kme: str | None,
        kme_id: str | None,
        certificate: Path | None,
        key: Path | None,
        authority: Path | None,
        **options: Any,
    ) -> None:
        given = {"kme": kme, "kme_id": kme_id, "certificate": certificate, "key": key,
                 "authority": authority}  # fmt: skip
        profile = _profile(client, {name: value for name, value in given.items() if value})
        function(profile=profile, **options)

    decorated: Callable[..., None] = command
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _profile(client: Path | None, given: dict[str, Any]) -> ClientProfile:
    """The profile in the file, each field replaced by its option if that is given."""
    fields: dict[str, Any] = {}
    if client is not None:
        profile = load_profile(client)
        fields = {name: getattr(profile, name) for name in profile.__struct_fields__}
    fields |= given
    spelled = {"kme": "--kme", "certificate": "--sae-cert", "key": "--sae-key",
               "authority": "--authority"}  # fmt: skip
    missing = [option for name, option in spelled.items() if name not in fields]
    if missing:
        raise ConfigError(
            f"give --client PROFILE, or {', '.join(missing)} as well", field=", ".join(missing)
        )
    return ClientProfile(**fields)
