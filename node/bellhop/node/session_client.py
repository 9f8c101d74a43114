"""Running a session from outside the node: its progress, and its end."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bellhop.node.control_client import NodeStopped, node_at
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
    socket: Path,
    peer: str,
    rounds: int,
    moved: Callable[[Progress], None],
    *,
    even_at_a_loss: bool = False,
) -> dict[str, Any]:
    """Ask the node at `socket` for a session; returns its end, `outcome` and what else is known.

    Raises NotRunning if there is no node, NodeStopped if it ends meanwhile.
    """
    with node_at(socket) as node:
        return _followed(node.run_session(peer, rounds, even_at_a_loss=even_at_a_loss), moved)


def calibrate(
    socket: Path, peer: str, rounds: int, moved: Callable[[Progress], None]
) -> dict[str, Any]:
    """As `run_session`, for a calibration: its outcome is `calibrated` if it has one."""
    with node_at(socket) as node:
        return _followed(node.calibrate(peer, rounds), moved)


def _followed(
    replies: Iterator[control_pb2.SessionReply], moved: Callable[[Progress], None]
) -> dict[str, Any]:
    last: Progress | None = None
    for reply in replies:
        if reply.HasField("end"):
            if reply.end.outcome == "stored" and last is not None:
                moved(replace(last, stage="stored", rounds_done=last.rounds))
            return {**json.loads(reply.end.fields_json), "outcome": reply.end.outcome}
        last = _progress(reply.progress)
        moved(last)
    raise NodeStopped


def _progress(progress: control_pb2.SessionProgress) -> Progress:
    return Progress(
        progress.session,
        progress.stage,
        progress.rounds,
        progress.rounds_done,
        progress.elapsed_ns,
    )
