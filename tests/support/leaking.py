"""A node whose core meets a bug, with an exception whose text is full of secrets.

Its core is the real one until the peer's syndrome comes.  Then whatever can fail does: a job in the
worker, a task that nobody waits for, a library, at last the core, and each error's text shows raw
bits.  What the program makes of it must not.
"""

import asyncio
import ctypes
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bellhop.node.assembly import node_core
from bellhop.node.cli.run import node_metrics
from bellhop.node.config import NodeConfig, load_config
from bellhop.node.driver import Stepped
from bellhop.node.loopback import Processes
from bellhop.node.observe import adopt_stderr, configure_logs
from bellhop.stack.codec import pack
from bellhop.stack.core import (
    Action,
    Compute,
    Computed,
    ComputeFailed,
    Event,
    Note,
    PeerSaid,
)
from bellhop.stack.identity import Identity
from bellhop.stack.ids import JobNumber
from bellhop.stack.messages import Stage, Tagged
from bellhop.stack.node import NodeCore, Restored
from bellhop.stack.rng import Rng

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-P", "-c", "from tests.support.leaking import main; main()")

PROBE, LEAK = JobNumber(1_000_001), JobNumber(1_000_002)
_PR_GET_DUMPABLE = 3


def dumpable() -> int:
    """Whether this process may be dumped, and read by others of its user (prctl(2))."""
    return int(ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0))


@dataclass(frozen=True)
class Probe:
    name: str = "probe"

    def run(self) -> int:
        return dumpable()


@dataclass(frozen=True)
class Leak:
    secret: str = field(repr=False)
    name: str = "leak"

    def run(self) -> object:
        raise ValueError(self.secret)


class LeakyCore:
    """Fails with secrets when it hears a syndrome."""

    def __init__(self, core: Stepped) -> None:
        self._core = core
        self._failing = False

    def step(self, now_ns: int, event: Event) -> list[Action]:
        match event:
            case PeerSaid(_, Tagged(stage=Stage.SYNDROME)):
                return [Compute(PROBE, Probe()), Compute(LEAK, Leak(self._secret()))]
            case Computed(job, result) if job == PROBE:
                return [Note("probed", {"worker": int(str(result)), "daemon": dumpable()})]
            case ComputeFailed(job, why) if job == LEAK:
                self._failing = True
                self._lose()
                return [Note("leak_failed", {"why": why})]
        if self._failing:
            raise ValueError(self._secret())
        return self._core.step(now_ns, event)

    def next_deadline(self) -> int | None:
        return 0 if self._failing else self._core.next_deadline()

    def snapshot(self) -> dict[str, Any]:
        return self._core.snapshot()

    def _secret(self) -> str:
        """The raw bits of slots that are measured, in several spellings."""
        assert isinstance(self._core, NodeCore)
        texts = []
        for session in self._core._desk.running():
            record = session.record
            for slot in np.flatnonzero(record.measured.flags(0, record.request.slots)).tolist():
                bits = record.outcomes[record.request.span(slot)]
                texts += [pack(bits).hex(), repr(pack(bits)), str(bits[:100].tolist())]
        assert texts, "there is something to leak"
        return " ".join(texts)

    def _lose(self) -> None:
        """Errors that come up where nobody expects them."""

        async def fail() -> None:
            raise ValueError(self._secret())

        asyncio.get_running_loop().create_task(fail())
        try:
            raise ValueError(self._secret())
        except ValueError:
            logging.getLogger("a.library").exception("a library failed")


def leaky_core(config: NodeConfig, restored: Restored, rng: Rng, identity: Identity) -> Stepped:
    return LeakyCore(node_core(config, restored, rng, identity))


def main() -> None:
    """Run the node of the file that is named, as `bellhop run` does."""
    config = load_config(Path(sys.argv[1]))
    metrics = node_metrics(config)
    stderr = adopt_stderr(lambda refusal: None)
    configure_logs("debug", "json", stderr.stream)
    from bellhop.node.daemon import run_node

    code = run_node(config, metrics, leaky_core)
    stderr.close()
    sys.exit(code)


def start_leaky(processes: Processes, name: str) -> None:
    """In place of the node; its workers find this module by the path."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with processes.layout.log(name).open("ab") as log:
        processes.running[name] = subprocess.Popen(
            [*COMMAND, str(processes.layout.node(name))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            start_new_session=True,
        )
