"""Calls into a laboratory's driver: each in a task of its own, in time, and its answer checked.

Rules
  A call that is late or given up is cancelled.  A method that does not end within the grace is left
  behind, and the log names it: nothing waits for a driver without a limit but `synchronise` and
  `open`, and these end when they are cancelled.
  A method that ends as cancelled though nobody cancelled it is the driver's fault.
  What `measure` raises may hold a setting or an outcome: of an exception that is no
  LaboratoryError the type and the place are told, and never the text.
"""

import asyncio
import logging
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np

from bellhop.hal.errors import HardwareError
from bellhop.hal.laboratory import Herald, Laboratory, LaboratoryError
from bellhop.hal.operations import Attempt, Heralded, LinkName, Measure, RequestId
from bellhop.hal.serve_rules import (
    DeviceStalled,
    DriverFailed,
    DriverFault,
    Limits,
    LoopBlocked,
    check_herald,
    outcome_of,
    whole,
)

FRAMES_TOLD = 3
"""Of a private exception, innermost last."""

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_left_behind: set[asyncio.Task[Any]] = set()
"""Methods that do not end: the loop itself holds its tasks weakly."""


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Patience:
    """How long a method may say nothing (`seconds`, None for ever) and take to end (`grace`).

    `late`: what is wrong if it does.  `since`: when it was last heard.  `fault`: what ended it
    already, from when the driver cleans up.
    """

    seconds: float | None
    grace: float
    late: str = ""
    since: float = field(default_factory=_now)
    fault: asyncio.Future[BaseException] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def left(self) -> float | None:
        return None if self.seconds is None else max(0.0, self.since + self.seconds - _now())

    def hear(self, method: str) -> None:
        """The driver answered.  Raises LoopBlocked if that was late: the limit would have ended the
        call, had the loop been free to."""
        quiet = _now() - self.since
        if self.seconds is not None and quiet > self.seconds:
            raise LoopBlocked(
                f"{method} answered after {quiet:.3g} seconds of at most {self.seconds:g}, and"
                " something blocked the loop meanwhile: blocking calls belong into a thread"
            )
        self.since = _now()

    def cleaning_up(self, fault: BaseException) -> None:
        self.seconds, self.since = self.grace, _now()
        self.fault.set_result(fault)

    def verdict(self) -> Exception:
        """Of a call that is given up."""
        if self.fault.done() and isinstance(fault := self.fault.result(), Exception):
            return fault
        return DeviceStalled(self.late)


async def called(
    method: str, work: Coroutine[Any, Any, Answer], patience: Patience, private: bool = False
) -> Answer:
    """What `work` answers, which is given up with this.

    Raises DeviceStalled, DriverFault, or what the driver raised; DriverFailed instead if it is no
    LaboratoryError and `private`.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(_seen)
    try:
        while not task.done() and patience.left() != 0.0:
            news: set[asyncio.Future[Any]] = {task}
            if not patience.fault.done():
                news.add(patience.fault)
            await asyncio.wait(news, timeout=patience.left(), return_when=asyncio.FIRST_COMPLETED)
        in_time = task.done()
    finally:
        if not task.done():
            await _end(method, task, patience.grace)
    if not in_time:
        raise patience.verdict()
    if task.cancelled():
        raise DriverFault(f"{method} was cancelled from within, by the driver itself")
    error = task.exception()
    known = isinstance(error, LaboratoryError | DriverFault | DeviceStalled)
    if private and isinstance(error, Exception) and not known:
        raise DriverFailed(
            f"{method} raised {_place(error)}; its text is not told, as it may hold a setting or an"
            " outcome"
        )
    return task.result()


async def awaited(answering: Coroutine[Any, Any, Answer]) -> Answer:
    """Whatever a method gave, awaited in a task, where its exceptions belong."""
    return await answering


async def _end(method: str, task: "asyncio.Task[Any]", grace: float) -> None:
    """Cancel a call and wait for its end, even if this is cancelled again, but not for ever."""
    task.cancel()
    until, again = _now() + grace, False
    while not task.done() and (left := until - _now()) > 0.0:
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:
            again = True
    if not task.done():
        log.error(
            "%s did not end within %g seconds of being cancelled and is left behind: whoever wrote"
            " the driver must look at what it waits for",
            method,
            grace,
        )
        _left_behind.add(task)
        task.add_done_callback(_left_behind.discard)
    elif not task.cancelled():
        error = task.exception()
        if error is not None and not isinstance(error, HardwareError):
            log.error("%s failed while it was given up: %s", method, _place(error))
    if again:
        raise asyncio.CancelledError


def _seen(task: "asyncio.Task[Any]") -> None:
    """So that asyncio does not log the text of what nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_TOLD:]
    where = [f"{PurePath(frame.filename).name}:{frame.lineno} ({frame.name})" for frame in frames]
    return f"{type(error).__name__} at {' > '.join(where)}"


class Calls:
    """What one node's orders call of a laboratory."""

    def __init__(self, laboratory: Laboratory, limits: Limits) -> None:
        self._laboratory = laboratory
        self._limits = limits

    async def synchronise(self, order: Attempt) -> int:
        """The device's clock when the station lets the attempt go."""
        work = awaited(self._laboratory.synchronise(order))
        answer = await called("synchronise", work, Patience(None, self._limits.grace_seconds))
        begun_ns = whole(answer, "synchronise", "the time at which an attempt begins")
        if not 0 <= begun_ns < 2**63:
            raise DriverFault(f"synchronise answered {begun_ns}, which is no time in ns")
        return begun_ns

    async def attempt(self, order: Attempt, begun_ns: int, least: int) -> Heralded:
        """All heralds of a block, whose attempts are at least `least`."""
        seconds = self._limits.herald_seconds
        late = _no_herald(0, order.rounds, seconds)
        patience = Patience(seconds, self._limits.grace_seconds, late)
        return await called("attempt", self._closed(order, begun_ns, least, patience), patience)

    async def measure(self, order: Measure, index: int) -> int | None:
        """The outcome of one round, None if there is no sure one.  Its setting is taken from the
        order only now."""
        seconds = self._limits.measure_seconds
        late = (
            f"the device stalled: round {index} of a measurement was not answered within"
            f" {seconds:g} seconds; whoever runs it must look at its detection, or raise"
            " limits.measure_seconds"
        )
        patience = Patience(seconds, self._limits.grace_seconds, late)

        async def measured() -> object:
            answer = await self._laboratory.measure(
                order.link, order.request, order.block, index, int(order.settings[index])
            )
            patience.hear("measure")
            return answer

        return outcome_of(await called("measure", measured(), patience, private=True), index)

    async def release(self, link: LinkName, request: RequestId) -> None:
        seconds = self._limits.measure_seconds
        late = f"the device did not release within {seconds:g} seconds"
        patience = Patience(seconds, self._limits.grace_seconds, late)
        await called("release", awaited(self._laboratory.release(link, request)), patience)

    async def _closed(
        self, order: Attempt, begun_ns: int, least: int, patience: Patience
    ) -> Heralded:
        """As `attempt`; the generator lives and ends in one task, as time limits and groups of
        tasks within it need."""
        heralds = self._laboratory.attempt(order)
        if not isinstance(heralds, AsyncIterator):
            if isinstance(heralds, Coroutine):
                heralds.close()
            kind = type(heralds).__name__
            raise DriverFault(f"attempt gave {kind}, and must be an async generator")
        try:
            return await _collected(heralds, order, begun_ns, least, patience)
        except BaseException as error:
            patience.cleaning_up(error)
            raise
        finally:
            if isinstance(heralds, AsyncGenerator):
                await heralds.aclose()


async def _collected(
    heralds: AsyncIterator[Herald], order: Attempt, begun_ns: int, least: int, patience: Patience
) -> Heralded:
    """Each herald is checked against the one before it."""
    attempts = np.zeros(order.rounds, dtype=np.int64)
    patterns = np.zeros(order.rounds, dtype=np.uint8)
    last_ns, count = begun_ns, 0
    async for herald in heralds:
        patience.hear("attempt")
        if count == order.rounds:
            raise DriverFault(f"attempt gave more heralds than the {order.rounds} ordered")
        check_herald(herald, least, last_ns)
        attempts[count], patterns[count] = herald.attempt, herald.announces
        least, last_ns, count = herald.attempt + 1, herald.at_ns, count + 1
        patience.late = _no_herald(count, order.rounds, patience.seconds)
    if count != order.rounds:
        raise DriverFault(f"attempt ended after {count} of {order.rounds} heralds")
    attempts.flags.writeable = patterns.flags.writeable = False
    return Heralded(order.link, order.request, order.block, attempts, patterns, begun_ns, last_ns)


def _no_herald(count: int, rounds: int, seconds: float | None) -> str:
    if count == rounds:
        return (
            f"the device stalled: attempt did not end for {seconds} seconds after its last herald"
        )
    return (
        f"the device stalled: no herald for {seconds:g} seconds after {count} of {rounds};"
        " whoever runs it must look at its lasers and its station, or raise"
        " limits.herald_seconds if heralds are as rare as that"
    )
