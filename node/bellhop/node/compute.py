"""Heavy arithmetic in worker processes that are started on demand and end when idle.

A job is a pure call, so one whose worker was killed is tried once more in a fresh one.
"""

import asyncio
import contextlib
import logging
import os
import pickle
import sys
from collections.abc import Awaitable, Callable, Mapping

from bellhop.node.observe import Fields
from bellhop.node.process import give_memory_back
from bellhop.node.tasks import Tasks
from bellhop.node.witness import Witness
from bellhop.node.worker import LENGTH, Done, Failed
from bellhop.stack.core import Compute, Computed, ComputeFailed

IDLE_S = 20.0
"""A worker without a job for this long ends, so that an idle daemon is small."""

JOBS_WAITING_MAX = 256
RESULT_BYTES_MAX = 256 * 1024 * 1024
ATTEMPTS = 2
PIPE_BUFFER_BYTES = 1024 * 1024


class Workers:
    """At most `count` worker processes; `deliver` takes what jobs give."""

    def __init__(
        self,
        count: int,
        memory_limit_bytes: int,
        witness: Witness,
        deliver: Callable[[Computed | ComputeFailed], Awaitable[None]],
        on_crash: Callable[[BaseException], None],
        idle_s: float = IDLE_S,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment`: the workers'; without it they have this process's."""
        self._environment = environment
        self._memory_limit_bytes = memory_limit_bytes
        self._witness = witness
        self._deliver = deliver
        self._idle_s = idle_s
        self._waiting: asyncio.Queue[Compute] = asyncio.Queue(JOBS_WAITING_MAX)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._tasks = Tasks(on_crash)
        for _ in range(count):
            self._tasks.spawn(self._place())

    async def submit(self, order: Compute) -> None:
        """Take `order`; what it gives comes by `deliver`."""
        await self._waiting.put(order)

    def pids(self) -> list[int]:
        """The workers that live now."""
        return sorted(self._processes)

    async def close(self) -> None:
        """End every worker, whatever it is doing."""
        await self._tasks.close()

    async def _place(self) -> None:
        """One place for a worker: a process while there is work, none when there is none."""
        worker: asyncio.subprocess.Process | None = None
        try:
            while True:
                order = await self._next_order(worker)
                if order is None:
                    await self._ended(worker)
                    worker = None
                    give_memory_back()  # work has paused, and its arrays have gone through here
                    continue
                if worker is not None and _is_gone(worker):  # killed while it had no job
                    await self._ended(worker)
                    worker = None
                    self._witness.note("worker_died", {"job": "none"}, logging.WARNING)
                outcome: Done | Failed | None = None
                for attempt in range(ATTEMPTS):
                    worker = worker or await self._started()
                    outcome = await self._attempt(worker, order)
                    if outcome is not None:
                        break
                    await self._ended(worker)
                    worker = None
                    fields: Fields = {"job": order.work.name, "attempt": attempt + 1}
                    self._witness.note("worker_died", fields, logging.WARNING)
                await self._deliver(_event(order, outcome))
        finally:
            await self._ended(worker)

    async def _next_order(self, worker: asyncio.subprocess.Process | None) -> Compute | None:
        """The next job; None if `worker` has waited for one long enough."""
        if worker is None:
            return await self._waiting.get()
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._waiting.get()
        except TimeoutError:
            return None

    async def _started(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # nothing is imported from whatever folder the daemon was started in
            "-c",  # with -m its classes would be another module's
            "from bellhop.node import worker; worker.main()",
            str(os.getpid()),
            str(self._memory_limit_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=PIPE_BUFFER_BYTES,
            env=self._environment,
        )
        self._processes[process.pid] = process
        return process

    async def _ended(self, worker: asyncio.subprocess.Process | None) -> None:
        if worker is None:
            return
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()
        del self._processes[worker.pid]

    async def _attempt(
        self, worker: asyncio.subprocess.Process, order: Compute
    ) -> Done | Failed | None:
        """What the job gave; None if the worker has died, of it or before."""
        assert worker.stdin is not None and worker.stdout is not None
        data = pickle.dumps(order.work, protocol=pickle.HIGHEST_PROTOCOL)
        if _is_gone(worker):
            return None
        try:
            # One call, right after the look: at a closed pipe uvloop raises RuntimeError.
            worker.stdin.writelines([LENGTH.pack(len(data)), data])
            await worker.stdin.drain()
            (length,) = LENGTH.unpack(await worker.stdout.readexactly(LENGTH.size))
            if length > RESULT_BYTES_MAX:
                return None
            answer = pickle.loads(await worker.stdout.readexactly(length))  # noqa: S301 - our own child
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
        assert isinstance(answer, Done | Failed)
        return answer


def _is_gone(worker: asyncio.subprocess.Process) -> bool:
    """Whether `worker` is known to have ended, or its pipe to be closed."""
    assert worker.stdin is not None
    return worker.returncode is not None or worker.stdin.is_closing()


def _event(order: Compute, outcome: Done | Failed | None) -> Computed | ComputeFailed:
    match outcome:
        case Done(result):
            return Computed(order.job, result)
        case Failed(why):
            return ComputeFailed(order.job, why)
        case None:
            return ComputeFailed(order.job, "worker died")
