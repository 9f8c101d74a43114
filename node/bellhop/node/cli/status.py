"""`bellhop status`: how a running node is."""

import json
from pathlib import Path
from typing import Any

import click

from bellhop.node.cli.calibrate import calibration_rows
from bellhop.node.cli.node_option import config_option
from bellhop.node.cli.output import json_option, show
from bellhop.node.config import load_config


@click.command("status")
@config_option
@json_option
def status(config_file: Path, as_json: bool) -> None:
    """How a running node is: its device, peers, sessions and keys."""
    document = node_status(config_file)
    show(document, _rows(document), as_json)


def node_status(config_file: Path) -> dict[str, Any]:
    """What the node of `config_file` says of itself.  Raises NotRunning."""
    from bellhop.node.control_client import node_at

    with node_at(load_config(config_file).control_socket) as node:
        document: dict[str, Any] = json.loads(node.status())
    return document


def _rows(status: dict[str, Any]) -> list[tuple[str, object]]:
    core = status["core"]
    rows: list[tuple[str, object]] = [
        ("node", status["node"]),
        ("running", f"{status['running_ns'] / 1e9:.0f} s, {status['clock']} clock"),
        ("source of outcomes", ", ".join(status["source"]) or "no device has been seen"),
        ("device", "ready" if core.get("device_ready") else "not connected"),
        ("randomness", _randomness(status["randomness"])),
        *((f"listens: {name}", address) for name, address in status["listening"].items()),
    ]
    for peer, connection in status["connections"].items():
        known = core.get("peers", {}).get(peer, {})
        stock = status["keys"]["stock"].get(peer, {})
        why = f" ({connection['why']})" if connection["why"] else ""
        rows += [
            (f"peer {peer}", "connected" if connection["connected"] else f"not connected{why}"),
            ("  masks left", f"{known.get('masks_left')} / {known.get('masks_left_incoming')}"),
            ("  keys in stock", f"{stock.get('keys')} of {stock.get('key_size_bits')} bits"),
        ]
    for session in core.get("sessions", []):
        done = f"{session['rounds_done']:,} of {session['rounds']:,} rounds"
        rows.append((f"session {session['session']}", f"{session['stage']}, {done}"))
        if session.get("paused_by"):
            held = f"paused by {' and '.join(session['paused_by'])}: no new pairs are ordered"
            rows.append(("  ", held))
        if session.get("devices_away"):
            rows.append(("  ", f"no device at {' and '.join(session['devices_away'])}"))
        if session.get("held_since_ns"):
            seconds = (status["now_ns"] - session["held_since_ns"]) / 1e9
            rows.append(("  no new rounds for", f"{seconds:,.0f} s, see diqkd.pause_limit"))
        if session.get("blocks_under_way"):
            rows.append(("  being measured", f"{session['blocks_under_way']} blocks"))
    for link, every in core.get("calibrations", {}).items():
        rows += calibration_rows(link, every[-1], core["drifts"].get(link, []))
    for held, why in core.get("refused_endorsements", {}).items():
        rows.append(("receipt refused", f"{held}, its keys are held back: {why}"))
    if core.get("last_session"):
        last = core["last_session"]
        rows.append(("last session", f"{last.get('outcome')} {last.get('reason', '')}".strip()))
    return rows


def _randomness(about: dict[str, Any]) -> str:
    return f"{about['source']} {about.get('failure', '')}".strip()
