"""`bellhop diqkd calibrate` and `calibrations`: what a node's links show between key sessions."""

import json
from pathlib import Path
from typing import Any

import click

from bellhop.hal.configuration import require
from bellhop.hal.errors import ConfigError
from bellhop.node.cli.node_option import config_option
from bellhop.node.cli.output import Rows, json_option, show
from bellhop.node.config import NodeConfig, load_config
from bellhop.node.config_diqkd import DiqkdSection
from bellhop.stack.diqkd.calibrate import ROUNDS_MIN
from bellhop.stack.messages import CALIBRATION_ROUNDS_MAX

ROUNDS = 20_000
"""At S = 2.6 and 3 % of errors the standard errors are then 0.03 and 0.2 %."""

EXIT_ABORTED = 10

Known = dict[str, Any]


@click.command("calibrate")
@config_option
@click.option("--peer", required=True, help="The other node.")
@click.option(
    "--rounds",
    type=click.IntRange(ROUNDS_MIN, CALIBRATION_ROUNDS_MAX),
    default=ROUNDS,
    show_default=True,
    help="Heralded rounds, half of them Bell tests.",
)
@json_option
@click.pass_context
def calibrate(
    context: click.Context, config_file: Path, peer: str, rounds: int, as_json: bool
) -> None:
    """Measure S and QBER of the link to PEER, in rounds that make no key.

    Alice's outcomes of these rounds are published: receipts count them among what the devices have
    said. Exit codes are those of `run`; 10 if the calibration aborted.
    """
    from bellhop.node.cli.diqkd import raise_if_refused
    from bellhop.node.cli.progress import SessionBar
    from bellhop.node.session_client import calibrate as measure

    config = load_config(config_file)
    _check_peer(config, config_file, peer)
    with SessionBar(shown=not as_json) as bar:
        end = measure(config.control_socket, peer, rounds, bar.moved)
    raise_if_refused(end)
    if end["outcome"] != "calibrated":
        show(end, list(end.items()), as_json)
        context.exit(EXIT_ABORTED)
    link = str(end["link"])
    drifts = known_to(config)["drifts"].get(link, [])
    if not any(one["figure"] == "key" for one in drifts):
        drifts += too_short(config.diqkd, end)
    show(end | {"drift": drifts}, calibration_rows(link, end, drifts), as_json)


def too_short(diqkd: DiqkdSection, one: Known) -> list[Known]:
    """A warning if sessions are planned with this calibration and those of the configuration's
    length are expected to gain less than they should."""
    from bellhop.stack.diqkd.bounds.design import EAT
    from bellhop.stack.diqkd.calibrate import worse_by_errors
    from bellhop.stack.diqkd.plan import plan

    if diqkd.plan_from != "calibration" or diqkd.bound == EAT:
        return []
    s, qber = worse_by_errors(one["s"], one["s_error"], one["qber"], one["qber_error"])
    planned = plan(diqkd.rounds, s, qber, bound=diqkd.bound, epsilon=diqkd.epsilon)
    if isinstance(planned, str):
        warning = planned
    elif planned.keyed and planned.net_bits >= diqkd.net_bits_min:
        return []
    else:
        warning = (
            f"a session of {diqkd.rounds:,} rounds (diqkd.rounds), planned with S = {s:.4f} and"
            f" QBER = {qber:.2%}, is expected to gain less than is wanted of it"
        )
    what = "align the link and calibrate it again, or take more rounds: 'bellhop diqkd plan'"
    return [{"figure": "key", "warning": warning, "what_to_do": what}]


@click.command("calibrations")
@config_option
@json_option
def calibrations(config_file: Path, as_json: bool) -> None:
    """What calibrations have shown of this node's links, oldest first."""
    known = known_to(load_config(config_file))
    rows: list[tuple[str, object]] = []
    for link, every in known["calibrations"].items():
        for one in every:
            rows.append((link, f"{_when(one['at_ns'])}  {_figures(one)}"))
        rows += _drift_rows(known["drifts"].get(link, []))
    show(known, rows or [("calibrations", "none")], as_json)


def known_to(config: NodeConfig) -> Known:
    """`calibrations` and `drifts` by link, as the running node says.  Raises NotRunning."""
    from bellhop.node.control_client import node_at

    with node_at(config.control_socket) as node:
        document: Known = json.loads(node.calibrations())
    return document


def last_calibration(config_file: Path, peer: str) -> dict[str, Any]:
    """The newest of the links to `peer`, with its `link`; ConfigError if there is none."""
    from bellhop.node.cli.status import node_status

    config = load_config(config_file)
    _check_peer(config, config_file, peer)
    ports = node_status(config_file)["core"]["ports"]
    known = known_to(config)["calibrations"]
    found = [
        every[-1] | {"link": link}
        for link, every in known.items()
        if every and ports.get(link, {}).get("peer") == peer
    ]
    require(bool(found), "--peer", f"{peer} has no calibrated link: run 'bellhop diqkd calibrate'")
    newest: dict[str, Any] = max(found, key=lambda one: one["at_ns"])
    return newest


def calibration_rows(link: str, one: dict[str, Any], drifts: list[dict[str, Any]]) -> Rows:
    """A calibration, and a warning a row of what has drifted."""
    return [(f"calibration {link}", _figures(one)), *_drift_rows(drifts)]


def _figures(one: dict[str, Any]) -> str:
    s = f"S = {one['s']:.4f} ± {one['s_error']:.4f}"
    qber = f"QBER = {100 * one['qber']:.3f} ± {100 * one['qber_error']:.3f} %"
    rate = f", {one['pairs_per_s']:.4g} pairs a second" if one["pairs_per_s"] else ""
    return f"{s}, {qber}, {one['rounds']:,} rounds{rate}"


def _drift_rows(drifts: list[dict[str, Any]]) -> Rows:
    return [("  drift", f"WARNING: {one['warning']}: {one['what_to_do']}") for one in drifts]


def _when(at_ns: int) -> str:
    import datetime

    moment = datetime.datetime.fromtimestamp(at_ns / 1e9, datetime.UTC)
    return moment.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")


def _check_peer(config: NodeConfig, config_file: Path, peer: str) -> None:
    if config.peer_named(peer) is None:
        raise ConfigError(f"{peer!r} is no [[peer]] of {config_file}", field="--peer")
