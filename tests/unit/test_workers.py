"""Worker processes under the event loop that the daemon uses."""

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import uvloop
from tests.support.jobs import Add
from tests.support.waiting import until

from bellhop.node.compute import Workers
from bellhop.node.metrics import Metrics
from bellhop.node.witness import Witness
from bellhop.stack.core import Compute, Computed, Event
from bellhop.stack.ids import JobNumber

PATIENCE_S = 30.0
KILLS = 5


def test_an_idle_worker_that_is_killed_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # for the workers
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_kill_idle_workers())


async def _kill_idle_workers() -> None:
    """Half of the times the loop has seen the end when the next job comes, half of them not."""
    heard: asyncio.Queue[Event] = asyncio.Queue()
    crashes: list[BaseException] = []
    workers = Workers(1, 2**30, Witness(Metrics([], [], [], [])), heard.put, crashes.append)
    try:
        for number in range(KILLS):
            await workers.submit(Compute(JobNumber(number), Add(number, 1)))
            async with asyncio.timeout(PATIENCE_S):
                assert await heard.get() == Computed(JobNumber(number), number + 1)
            (pid,) = workers.pids()
            os.kill(pid, signal.SIGKILL)
            if number % 2:
                await until(partial(_is_reaped, pid))
    finally:
        await workers.close()
    assert not crashes


def _is_reaped(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")
