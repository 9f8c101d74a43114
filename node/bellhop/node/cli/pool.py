"""`bellhop pool`: the secret that two nodes share beforehand, to tag what they tell each other."""

import asyncio
from pathlib import Path
from typing import Any

import click

from bellhop.hal.errors import ConfigError
from bellhop.hal.operations import NodeName
from bellhop.node.cli.node_option import config_option
from bellhop.node.cli.output import json_option, show
from bellhop.node.config import NodeConfig, load_config
from bellhop.node.files import SECRET_MODE, write_atomically
from bellhop.stack.core import Persist
from bellhop.stack.diqkd.pool import MASKS_PROVISIONED_MAX, Pool, PoolFile

MASKS_DEFAULT = 1024
"""A direction: enough for about two hundred sessions that fail; one that succeeds brings more."""

POOL_FILE_BYTES_MAX = 4 * 1024 * 1024

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def pool() -> None:
    """The keys that two nodes share beforehand, to authenticate their sessions."""


@pool.command("provision")
@config_option
@click.option("--peer", required=True, help="The other node.")
@click.option("--new", "new_file", type=_FILE, help="Draw a new pool into this file and take it.")
@click.option("--from", "from_file", type=_FILE, help="Take the pool that the other node drew.")
@click.option(
    "--masks", type=click.IntRange(1, MASKS_PROVISIONED_MAX), default=MASKS_DEFAULT,
    show_default=True, help="One-time masks a direction, with --new.",
)  # fmt: skip
@json_option
def provision(
    config_file: Path,
    peer: str,
    new_file: Path | None,
    from_file: Path | None,
    masks: int,
    as_json: bool,
) -> None:
    """Give a stopped node the pool that it shares with a peer.

    One of the two nodes draws it with --new. Carry the file to the other by a way you trust, take
    it there with --from, and delete it: whoever has it can speak as either node.
    """
    config = load_config(config_file)
    if config.peer_named(peer) is None:
        raise ConfigError(f"{peer!r} is no [[peer]] of {config_file}", field="--peer")
    if (new_file is None) == (from_file is None):
        raise ConfigError("give either --new FILE or --from FILE", field="--new, --from")
    file = new_file or from_file
    assert file is not None
    if new_file is not None:
        _draw(config, new_file, NodeName(peer), masks)
    summary = asyncio.run(_take(config, NodeName(peer), _read(file)))
    document = {"file": file, "peer": peer, **summary}
    rows = [
        ("pool with", peer),
        ("masks", f"{summary['masks_left']} to send, {summary['masks_left_incoming']} to receive"),
        ("now", f"delete {file} after both ends have it"),
    ]
    show(document, rows, as_json)


@pool.command("status")
@config_option
@click.option("--peer", help="The other node. Default: all.")
@json_option
def status(config_file: Path, peer: str | None, as_json: bool) -> None:
    """How many one-time masks are left, of a running or a stopped node.

    And how many wrong tags came: after 64 a pool is worn out, and another must be provisioned.
    """
    from bellhop.node.cli.status import node_status
    from bellhop.node.control_client import NotRunning

    config = load_config(config_file)
    if peer is not None and config.peer_named(peer) is None:
        raise ConfigError(f"{peer!r} is no [[peer]] of {config_file}", field="--peer")
    names = ("pool_provisioned", "masks_left", "masks_left_incoming", "forgeries")
    try:
        peers = node_status(config_file)["core"]["peers"]
        document = {of: {name: known[name] for name in names} for of, known in peers.items()}
    except NotRunning:
        document = asyncio.run(_look(config))
    if peer is not None:
        document = {peer: document[peer]}
    rows = [
        (
            of,
            f"{known['masks_left']} to send, {known['masks_left_incoming']} to receive, "
            f"{known['forgeries']} wrong tags",
        )
        for of, known in document.items()
    ]
    show(document, rows, as_json)


def _draw(config: NodeConfig, file: Path, peer: NodeName, masks: int) -> None:
    from bellhop.node.chance import OsRng

    content = Pool.provision(OsRng(), (NodeName(config.node.name), peer), masks)
    try:
        write_atomically(file, content, SECRET_MODE)
    except OSError as error:
        raise ConfigError(f"cannot make {file}: {error.strerror or error}", "--new") from error


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigError(
                f"others may read the pool file {file}: its pool is no secret; draw a new one with "
                "--new, and keep it at mode 0600",
                field="--from",
            )
        with file.open("rb") as opened:
            content = opened.read(POOL_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}", "--from") from error
    if len(content) > POOL_FILE_BYTES_MAX:
        raise ConfigError(f"{file} is no pool file: it is too long", field="--from")
    return content


async def _take(config: NodeConfig, peer: NodeName, content: bytes) -> dict[str, Any]:
    """Put the pool into the store, in place of an earlier one; never the same pool twice."""
    from bellhop.node.assembly import open_store
    from bellhop.node.clock import RealClock

    file = PoolFile.decode(content)
    put, taken = file.facts(NodeName(config.node.name), peer), file.taken(peer)
    async with await open_store(config, RealClock()) as store:
        if await store.load_facts(taken.name):
            raise ConfigError(
                "this node has taken this pool before: draw a new one, a mask is used once",
                field="--from",
            )
        await store.persist(Persist(put=(*put, taken), forget=(f"pool/{peer}/",)))
    return dict(Pool.summary({fact.name: fact.payload for fact in put}, peer))


async def _look(config: NodeConfig) -> dict[str, dict[str, Any]]:
    from bellhop.node.assembly import open_store
    from bellhop.node.clock import RealClock

    async with await open_store(config, RealClock()) as store:
        facts = {fact.name: fact.payload for fact in await store.load_facts("pool/")}
    summaries = {peer.name: Pool.summary(facts, NodeName(peer.name)) for peer in config.peer}
    return {
        peer: {
            "pool_provisioned": summary["provisioned"],
            "masks_left": summary["masks_left"],
            "masks_left_incoming": summary["masks_left_incoming"],
            "forgeries": summary["forgeries"],
        }
        for peer, summary in summaries.items()
    }
