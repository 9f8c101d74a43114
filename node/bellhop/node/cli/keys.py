"""`bellhop keys`: fetch keys from a KME as an application does, by ETSI GS QKD 014."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bellhop.hal.errors import ConfigError
from bellhop.node.cli.main import LazyGroup
from bellhop.node.cli.output import json_option, show
from bellhop.node.cli.profile import client_options
from bellhop.node.etsi_client import ClientProfile, DeliveredKey, EtsiClient, with_kme
from bellhop.node.files import atomic_file
from bellhop.node.sealing import wipe

# Commands that ask a node about its store, over its control socket: name -> (place, help).
NODE_COMMANDS: dict[str, tuple[str, str]] = {
    "receipt": ("bellhop.node.cli.keystatus:receipt", "On what ground a key is secret."),
    "status": ("bellhop.node.cli.keystatus:status", "What a running node holds."),
}


@click.group(cls=LazyGroup, lazy=NODE_COMMANDS)
def keys() -> None:
    """Fetch keys, and see what a node holds."""


def _delivery(function: Callable[..., None]) -> Callable[..., None]:
    """Where fetched keys go; never to the screen unless asked."""
    for option in (
        click.option("--force", is_flag=True, help="Replace the file if it exists."),
        click.option("--show", "to_screen", is_flag=True, help="Print the keys themselves."),
        click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
                     help="File for the keys (JSON as in the standard, mode 0600)."),
    ):  # fmt: skip
        function = option(function)
    return function


@keys.command("get")
@click.option("--to", "slave", required=True, metavar="SAE", help="Who shall share the keys.")
@click.option("--number", type=click.IntRange(1), default=1, show_default=True, help="How many.")
@click.option(
    "--size", "size_bits", type=click.IntRange(8), help="Bits of each. Default: the KME's."
)
@_delivery
@client_options
@json_option
def get(
    profile: ClientProfile, slave: str, number: int, size_bits: int | None, **where: Any
) -> None:
    """Get new keys to share with another application.

    Tell it their IDs: it retrieves the same keys from its own KME.
    """
    _fetch(profile, lambda client: client.enc_keys(slave, number, size_bits), **where)


@keys.command("retrieve")
@click.option("--from", "master", required=True, metavar="SAE", help="Who got the keys first.")
@click.option("--key-id", "key_ids", required=True, multiple=True, metavar="ID",
              help="Which key; may be given several times.")  # fmt: skip
@_delivery
@client_options
@json_option
def retrieve(profile: ClientProfile, master: str, key_ids: tuple[str, ...], **where: Any) -> None:
    """Get the keys that another application got and told the IDs of."""
    _fetch(profile, lambda client: client.dec_keys(master, key_ids), **where)


def _fetch(
    profile: ClientProfile,
    conversation: Callable[[EtsiClient], Any],
    out: Path | None,
    to_screen: bool,
    force: bool,
    as_json: bool,
) -> None:
    if (out is None) == (not to_screen):
        raise ConfigError("give either --out FILE or --show", field="--out, --show")
    if out is None:
        _print(with_kme(profile, conversation), as_json)
        return
    try:
        # The file is there before the keys are: a key is delivered once, and must have a place.
        with atomic_file(out, force=force) as file:
            fetched: list[DeliveredKey] = with_kme(profile, conversation)
            file.write(json.dumps(_container(fetched), indent=2).encode() + b"\n")
    except OSError as error:
        raise ConfigError(
            f"{out}: {error.strerror}; choose another file, or --force", field="--out"
        ) from error
    summary = [{"key_ID": key.key_id, "bits": 8 * len(key.key)} for key in fetched]
    for key in fetched:
        wipe(key.key)
    rows = [("file", out), *(("key ID", f"{row['key_ID']}  {row['bits']} bits") for row in summary)]
    show({"file": out, "keys": summary}, rows, as_json)


def _print(fetched: list[DeliveredKey], as_json: bool) -> None:
    container = _container(fetched)
    show(container, [(row["key_ID"], row["key"]) for row in container["keys"]], as_json)


def _container(fetched: list[DeliveredKey]) -> dict[str, list[dict[str, str]]]:
    """As in the standard (table 11)."""
    return {
        "keys": [
            {"key_ID": key.key_id, "key": base64.b64encode(key.key).decode()} for key in fetched
        ]
    }
