"""`bellhop diqkd`: sessions of a running node."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bellhop.hal.errors import ConfigError, RequestError
from bellhop.node.cli.main import LazyGroup
from bellhop.node.cli.node_option import config_option
from bellhop.node.cli.output import json_option, show
from bellhop.node.config import load_config

EXIT_ABORTED = 10
"""No key: an outcome and no error, so its code is none of those of errors."""


class SessionRefused(RequestError):
    """What was asked of a node about a session cannot be."""

    who_must_act = "whoever asked for it"


LAZY = {
    "plan": ("bellhop.node.cli.plan:plan", "Choose a session for a link, and see its worth."),
    "calibrate": ("bellhop.node.cli.calibrate:calibrate", "Measure S and QBER of a link."),
    "calibrations": (
        "bellhop.node.cli.calibrate:calibrations",
        "What a node's links have shown so far.",
    ),
    "designs": ("bellhop.node.cli.designs:designs", "Designs and the proofs of their entropy."),
}


@click.group(cls=LazyGroup, lazy=LAZY)
def diqkd() -> None:
    """Make keys with a peer, device-independently."""


@diqkd.command("run")
@config_option
@click.option("--peer", required=True, help="The other node.")
@click.option("--rounds", type=click.IntRange(1), help="Heralded rounds. Default: the node's.")
@click.option(
    "--even-at-a-loss",
    is_flag=True,
    help="Run it though it is not expected to gain what the configuration wants of a session. The"
    " peer agrees if diqkd.accept_losing_sessions = true there.",
)
@json_option
@click.pass_context
def run(
    context: click.Context,
    config_file: Path,
    peer: str,
    rounds: int | None,
    even_at_a_loss: bool,
    as_json: bool,
) -> None:
    """Run a session with PEER and wait for its end.

    Exit codes: 0 a key is stored, 10 the session aborted, no key; 2 wrong option or configuration,
    3 the request was refused, others as in `bellhop --help`. The session goes on if you leave.
    """
    from bellhop.node.cli.progress import SessionBar
    from bellhop.node.session_client import run_session

    config = load_config(config_file)
    if config.peer_named(peer) is None:
        raise ConfigError(f"{peer!r} is no [[peer]] of {config_file}", field="--peer")
    with SessionBar(shown=not as_json) as bar:
        end = run_session(
            config.control_socket,
            peer,
            rounds or config.diqkd.rounds,
            bar.moved,
            even_at_a_loss=even_at_a_loss,
        )
    raise_if_refused(end)
    show(end, list(end.items()), as_json)
    context.exit(0 if end["outcome"] == "stored" else EXIT_ABORTED)


@diqkd.command("abort")
@config_option
@click.option("--peer", required=True, help="The other node.")
@json_option
def abort(config_file: Path, peer: str, as_json: bool) -> None:
    """Give up the session with PEER, if it can still be given up."""
    from bellhop.node.control_client import node_at

    with node_at(load_config(config_file).control_socket) as node:
        reply = node.abort_session(peer)
    end = {"outcome": reply.outcome, **json.loads(reply.fields_json)}
    raise_if_refused(end)
    show(end, list(end.items()), as_json)


@diqkd.command("pause")
@config_option
@click.option("--peer", required=True, help="The other node.")
@json_option
def pause(config_file: Path, peer: str, as_json: bool) -> None:
    """Order no new pairs for the session with PEER until this node resumes it.

    Pairs that are there are still measured; as soon as 'bellhop status' shows none of either node,
    both may be stopped for as long as needed at no loss. A pause outlives restarts. Both nodes hold
    while either is paused; each resumes its own.
    """
    _pause(config_file, peer, True, as_json)


@diqkd.command("resume")
@config_option
@click.option("--peer", required=True, help="The other node.")
@json_option
def resume(config_file: Path, peer: str, as_json: bool) -> None:
    """Order pairs again for the session with PEER that was paused at this node."""
    _pause(config_file, peer, False, as_json)


def _pause(config_file: Path, peer: str, paused: bool, as_json: bool) -> None:
    from bellhop.node.control_client import node_at

    with node_at(load_config(config_file).control_socket) as node:
        reply = node.pause_session(peer, paused)
    end = {"outcome": reply.outcome, **json.loads(reply.fields_json)}
    raise_if_refused(end)
    rows = list(end.items())
    if not paused and end["paused_by"]:
        rows.append(("still held", f"{end['paused_by']} has to resume it too"))
    show(end, rows, as_json)


def raise_if_refused(end: Mapping[str, Any]) -> None:
    """Raises SessionRefused if `end` says that nothing was begun."""
    if end["outcome"] == "refused":
        more = {name: end[name] for name in end if name != "outcome"}
        why = str(more.pop("reason", more.pop("why", "no reason given")))
        raise SessionRefused(f"the node refuses: {why}", **more)
