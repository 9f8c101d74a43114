"""`bellhop keys status|receipt`: what a running node holds, and on what ground."""

import json
import re
from pathlib import Path
from typing import Any

import click

from bellhop.node.cli.node_option import config_option
from bellhop.node.cli.output import json_option, show
from bellhop.node.cli.receipt import receipt_rows
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
