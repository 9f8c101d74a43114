"""Real processes on loopback: an emulator and two nodes, with certificates of their own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bellhop.node.loopback import EMULATOR, NODES, Layout, Processes, lay_out, network

__all__ = ["EMULATOR", "NODES", "Layout", "Processes", "running_network", "worker_pids"]


@contextmanager
def running_network(
    folder: Path, presets: dict[str, float] | None = None, sections: str = "", clock: str = '"fast"'
) -> Iterator[Processes]:
    """A network that is ready; stopped at the end, and nothing of it may be left.

    `sections` is added to both nodes' files: `[diqkd]` and the like.
    """
    with network(lay_out(folder, presets, sections, clock)) as processes:
        yield processes


def worker_pids(node: int) -> list[int]:
    """The worker processes of the node with process id `node`: its children (proc(5))."""
    children = Path(f"/proc/{node}/task/{node}/children").read_text(encoding="ascii")
    return [int(pid) for pid in children.split() if os.path.exists(f"/proc/{pid}")]
