"""Worker processes under the event loop that the daemon uses."""

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import uvloop
from tests.support.jobs import Add, CompileInto
from tests.support.waiting import until

from bellhop.node.compiled import ONE_THREAD, worker_environment
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


def test_a_program_that_may_be_written_beside_keeps_compiled_loops_there(tmp_path: Path) -> None:
    assert worker_environment(tmp_path, {"A": "b"}, tmp_path) == {"A": "b", **ONE_THREAD}


def test_a_program_that_may_not_be_written_beside_keeps_them_in_the_state(tmp_path: Path) -> None:
    """A package that is not in a folder at all is one that nobody can write beside."""
    environment = worker_environment(tmp_path, {}, tmp_path / "absent")
    assert environment["NUMBA_CACHE_DIR"] == str(tmp_path / "compiled")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_installation_keeps_them_in_the_state(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__").chmod(0o500)
    environment = worker_environment(tmp_path, {}, package)
    assert environment["NUMBA_CACHE_DIR"] == str(tmp_path / "compiled")


def test_what_the_operator_chose_stays(tmp_path: Path) -> None:
    chosen = {**ONE_THREAD, "NUMBA_CACHE_DIR": "/somewhere", "OMP_NUM_THREADS": "3"}
    assert worker_environment(tmp_path, chosen, tmp_path / "absent") == chosen


def test_a_worker_without_a_home_compiles_into_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service of a read-only installation: numba alone would refuse to load the kernels."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("HOME", str(tmp_path / "absent" / "home"))
    environment = worker_environment(tmp_path, package=tmp_path / "absent")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result, kept_in = runner.run(_compiled(environment))
    assert result == 42
    assert Path(kept_in).is_relative_to(tmp_path / "compiled")
    assert [path.suffix for path in sorted(Path(kept_in).iterdir())] == [".nbc", ".nbi"]


async def _compiled(environment: dict[str, str]) -> tuple[int, str]:
    heard: asyncio.Queue[Event] = asyncio.Queue()
    crashes: list[BaseException] = []
    witness = Witness(Metrics([], [], [], []))
    workers = Workers(1, 2**30, witness, heard.put, crashes.append, environment=environment)
    try:
        await workers.submit(Compute(JobNumber(1), CompileInto()))
        async with asyncio.timeout(PATIENCE_S):
            event = await heard.get()
    finally:
        await workers.close()
    assert isinstance(event, Computed) and not crashes
    assert isinstance(event.result, tuple)
    value, kept_in = event.result
    return int(value), str(kept_in)
