"""Running a session from outside the node: its progress, and its end."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bellhop.hal.errors import BellhopError
from bellhop.node.control_client import node_at
from bellhop.v1 import control_pb2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session is."""

    session: str
    stage: str
    rounds: int
    rounds_done: int
    elapsed_ns: int


def run_session(
    socket: Path, peer: str, rounds: int, moved: Callable[[Progress], None]
) -> dict[str, Any]:
    """Ask the node at `socket` for a session; returns its end, `outcome` and what else is known."""

    with node_at(socket) as node:
        for reply in node.run_session(peer, rounds):
            if reply.HasField("end"):
                return {**json.loads(reply.end.fields_json), "outcome": reply.end.outcome}
            moved(_progress(reply.progress))
    raise BellhopError("the node ended the conversation before the session")


def _progress(progress: control_pb2.SessionProgress) -> Progress:
    return Progress(
        progress.session,
        progress.stage,
        progress.rounds,
        progress.rounds_done,
        progress.elapsed_ns,
    )
