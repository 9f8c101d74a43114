"""`bellhop keys status|receipt`: what a running node holds, and on what ground."""

import datetime
import json
import re
from pathlib import Path
from typing import Any

import click

from bellhop.node.cli.node_option import config_option
from bellhop.node.cli.output import json_option, show
from bellhop.node.config import load_config

_SESSION = re.compile(r"[0-9a-f]{32}")


@click.command("status")
@config_option
@json_option
def status(config_file: Path, as_json: bool) -> None:
    """What a running node holds: keys in stock towards each peer, and the latest blocks."""
    from bellhop.node.control_client import node_at

    with node_at(load_config(config_file).control_socket) as node:
        document = json.loads(node.keys_status())
    show(document, _rows(document), as_json)


@click.command("receipt")
@click.argument("name", metavar="KEY_ID")
@config_option
@json_option
def receipt(name: str, config_file: Path, as_json: bool) -> None:
    """On what ground the key KEY_ID is secret: its session's receipt.

    A session's id is taken as well. The receipt outlives the key.
    """
    from bellhop.node.control_client import node_at
    from bellhop.v1 import control_pb2

    asked = (
        control_pb2.ReceiptRequest(session=name)
        if _SESSION.fullmatch(name)
        else control_pb2.ReceiptRequest(key_id=name)
    )
    with node_at(load_config(config_file).control_socket) as node:
        document = json.loads(node.receipt(asked))
    show(document, receipt_rows(document), as_json)


def receipt_rows(receipt: dict[str, Any]) -> list[tuple[str, object]]:
    """The receipt for people, in groups and rounded; --json has every figure as it is."""
    design = receipt["design"]
    return [
        ("What was measured", ""),
        ("  source", f"{receipt['source']} ({receipt['device']})"),
        ("  rounds", f"{receipt['rounds']:,}, of them {receipt['tests']:,} tests"),
        ("  S", f"{receipt['s']:.4f}"),
        ("  QBER", f"{receipt['qber']:.2%}"),
        ("  tests lost", f"{receipt['losses']:,}, accepted up to {design['losses_max']:,}"),
        ("  key bits wrong", f"{receipt['errors']:,}, corrected"),
        ("The key", ""),
        ("  distilled", f"{receipt['key_bits']:,} bits"),
        ("  deliverable", f"{receipt['deliverable_bits']:,} bits"),
        ("  net of tags", f"{receipt['net_bits']:,} bits"),
        ("  leaked", f"{receipt['leak_bits']:,} bits"),
        ("The claim", ""),
        ("  theorem", receipt["theorem"]),
        ("  epsilon", f"{receipt['epsilon']:.3g}"),
        ("  threshold", f"{design['threshold']:.4f} of the tests won"),
        *_listed("  assumptions", receipt["assumptions"]),
        *_listed("  idealisations", receipt["idealisations"]),
        ("The session", ""),
        ("  name", receipt["receipt"]),
        ("  nodes", f"{receipt['alice']} and {receipt['bob']}, this is {receipt['node']}'s"),
        ("  link", receipt["link"]),
        ("  stored", _moment(receipt["stored_ns"])),
        ("  sessions before", receipt["device_sessions_before"]),
        ("  transcript", receipt["transcript_hash"]),
    ]


def _listed(name: str, sentences: list[str]) -> list[tuple[str, object]]:
    return [(name if n == 0 else "", f"- {text}") for n, text in enumerate(sentences)]


def _moment(moment_ns: int) -> str:
    moment = datetime.datetime.fromtimestamp(moment_ns // 10**9, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _rows(document: dict[str, Any]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for peer, stock in document["stock"].items():
        sources = ", ".join(stock["sources"])
        rows.append((f"towards {peer}", f"{stock['keys']} of {stock['key_size_bits']} bits"))
        rows.append(("  sources", sources or "none"))
    for block in document["blocks"]:
        free = f"{block['own_free']} of {block['own_slots']} own slots free"
        rows.append((f"block {block['session']}", f"{block['state']}, {block['source']}, {free}"))
    return rows
