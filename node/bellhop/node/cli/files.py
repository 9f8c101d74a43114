"""`bellhop seal` and `bellhop open`: a file for another application, under a delivered key."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from bellhop.hal.errors import ConfigError, RequestError
from bellhop.node.cli.output import json_option, show
from bellhop.node.cli.profile import client_options
from bellhop.node.etsi_client import ClientProfile, DeliveredKey, EtsiClient, with_kme
from bellhop.node.files import PUBLIC_MODE, SECRET_MODE, atomic_file
from bellhop.node.sealing import (
    KEY_BITS,
    PLAINTEXT_BYTES_MAX,
    DamagedFileError,
    Progress,
    SealedHeader,
    check_sealed,
    open_stream,
    seal_stream,
    wipe,
)

SUFFIX = ".sealed"
OPENED_SUFFIX = ".opened"
PROGRESS_FROM_BYTES = 2**25

_FILE = click.Path(dir_okay=False, path_type=Path)
_force = click.option("--force", is_flag=True, help="Replace the output if it exists.")


@click.command("seal")
@click.argument("file", type=_FILE)
@click.option("--to", "slave", required=True, metavar="SAE", help="Who shall open it.")
@click.option("--out", type=_FILE, help=f"Sealed file. Default: FILE{SUFFIX}.")
@_force
@client_options
@json_option
def seal(
    profile: ClientProfile, file: Path, slave: str, out: Path | None, force: bool, as_json: bool
) -> None:
    """Encrypt FILE under one fresh key that only the application SAE can fetch.

    AES-256-GCM; the sealed file names the key's ID, never the key, which is used once and kept
    nowhere.
    """
    out = out or file.with_name(file.name + SUFFIX)

    async def fetch(client: EtsiClient) -> tuple[str, DeliveredKey]:
        own = client.own_sae or (await client.status(slave)).master_SAE_ID
        return own, (await client.enc_keys(slave, 1, KEY_BITS))[0]

    with _reading(file) as (source, length), _writing(out, PUBLIC_MODE, force) as sink:
        if length > PLAINTEXT_BYTES_MAX:
            raise RequestError(
                f"{file} is longer than the {PLAINTEXT_BYTES_MAX} bytes one key seals"
            )
        own, delivered = with_kme(profile, fetch)
        header = SealedHeader(delivered.key_id, own, slave, length)
        try:
            with _progress("sealing", length, as_json) as progress:
                seal_stream(source, sink, delivered.key, header, progress)
        finally:
            wipe(delivered.key)
    _report(out, header, as_json)


@click.command("open")
@click.argument("file", type=_FILE)
@click.option("--out", type=_FILE, help=f"Opened file, mode 0600. Default: FILE without {SUFFIX}.")
@_force
@client_options
@json_option
def open_(profile: ClientProfile, file: Path, out: Path | None, force: bool, as_json: bool) -> None:
    """Decrypt FILE, which another application sealed for us.

    The key can be fetched once only, so everything that can be checked without it is checked
    before. Nothing is left of a file that does not open whole.
    """
    out = out or _opened_name(file)
    with _reading(file) as (source, length):
        with _progress("checking", length, as_json) as progress:
            header = check_sealed(source, progress)

        async def fetch(client: EtsiClient) -> DeliveredKey:
            if client.own_sae not in {None, header.slave_sae}:
                raise RequestError(
                    f"the file is sealed for {header.slave_sae!r} and the certificate is that of "
                    f"{client.own_sae!r}; the key was not fetched"
                )
            return (await client.dec_keys(header.master_sae, [header.key_id]))[0]

        with _writing(out, SECRET_MODE, force) as sink:
            delivered = with_kme(profile, fetch)
            try:
                with _progress("opening", header.plaintext_bytes, as_json) as progress:
                    open_stream(source, sink, delivered.key, header, progress)
            except RequestError as error:
                raise DamagedFileError(
                    f"{error.message}; key {header.key_id} was fetched for it and is gone: "
                    "ask for the file to be sealed again"
                ) from error
            finally:
                wipe(delivered.key)
    _report(out, header, as_json)


def _opened_name(file: Path) -> Path:
    sealed = file.suffix == SUFFIX and file.stem
    return file.with_suffix("") if sealed else file.with_name(file.name + OPENED_SUFFIX)


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file and its length.  Anything but a regular file has no length to hold it to."""
    try:
        source = file.open("rb")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", field="FILE") from error
    with source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{file} is not a regular file", field="FILE")
        yield source, status.st_size


@contextlib.contextmanager
def _writing(out: Path, mode: int, force: bool) -> Iterator[BinaryIO]:
    try:
        with atomic_file(out, mode, force) as sink:
            yield sink
    except OSError as error:
        raise ConfigError(
            f"{out}: {error.strerror}; choose another file with --out, or --force", field="--out"
        ) from error


@contextlib.contextmanager
def _progress(what: str, total_bytes: int, as_json: bool) -> Iterator[Progress]:
    """A bar on the terminal for what takes a while, nothing otherwise."""
    if as_json or total_bytes < PROGRESS_FROM_BYTES or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda done: bar.advance(task, done)


def _report(out: Path, header: SealedHeader, as_json: bool) -> None:
    document = {
        "file": out,
        "key_ID": header.key_id,
        "master_SAE_ID": header.master_sae,
        "slave_SAE_ID": header.slave_sae,
        "plaintext_bytes": header.plaintext_bytes,
    }
    rows = [
        ("file", out),
        ("key ID", header.key_id),
        ("from", header.master_sae),
        ("to", header.slave_sae),
        ("bytes", f"{header.plaintext_bytes:,}"),
    ]
    show(document, rows, as_json)
