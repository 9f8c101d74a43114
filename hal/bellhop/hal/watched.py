"""A device checked at run time: each report against what was ordered, each fault named.

`Watch` is the bookkeeping, a pure object; `Watched` puts it around a `Hardware`.

  fault         | what the device did                               | what becomes of it
  --------------+---------------------------------------------------+-----------------------------
  never ordered | reported what nobody asked for                    | the report is dropped
  duplicate     | reported something twice                          | the second one is dropped
  out of order  | attempt numbers that do not rise, over a request  | that block is lost
  impossible    | a wrong number of rounds, a time that runs back,  | that block is lost
                | no Bell state, no bit, an outcome without answer  |
  stalled       | no outcomes long after they were ordered          | those outcomes are lost

Lost outcomes count as 0 above, so nothing is discarded after settings were drawn.  That a herald is
a lie is not seen at one end: the nodes compare theirs before they draw, and the Bell test judges.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from bellhop.hal.errors import HardwareError
from bellhop.hal.hardware import Hardware
from bellhop.hal.operations import (
    Attempt,
    BellState,
    DeviceGone,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    Operation,
    Ready,
    Release,
    Report,
    RequestId,
)
from bellhop.hal.runs import Runs

RELEASED_MAX = 1_024
"""Released requests that are remembered: reports on their way when they were are no faults."""

ANSWER_SECONDS = 30.0
ANSWER_SECONDS_PER_ROUND = 0.1
"""Outcomes of n rounds that have not come after the one and n of the other have stalled."""

log = logging.getLogger(__name__)

Rounds = tuple[LinkName, RequestId, int]


class Fault(StrEnum):
    """What a device can do wrong, as it is counted."""

    NEVER_ORDERED = "device_never_ordered"
    DUPLICATE = "device_duplicate"
    OUT_OF_ORDER = "device_out_of_order"
    IMPOSSIBLE = "device_impossible"
    STALLED = "device_stalled"


class DeviceFault(HardwareError):
    """One fault of a device, in words; `fault` is its kind."""

    who_must_act = "whoever runs the device"

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message, fault=str(fault))
        self.fault = fault


@dataclass(slots=True)
class _Asked:
    """Orders of one request that are not answered, by block, and what was reported of it."""

    attempts: dict[int, list[int]] = field(default_factory=dict)
    measures: dict[int, list[int]] = field(default_factory=dict)
    heralded: Runs = field(default_factory=Runs)
    measured: Runs = field(default_factory=Runs)
    last_attempt: int = -1
    last_block: int = -1


class Watch:
    """What was ordered and is not answered, since the device was last ready."""

    def __init__(self) -> None:
        self._asked: dict[tuple[LinkName, RequestId], _Asked] = {}
        self._released: OrderedDict[tuple[LinkName, RequestId], None] = OrderedDict()

    def ordered(self, operation: Operation) -> None:
        """Remember what the device is asked."""
        key = (operation.link, operation.request)
        if isinstance(operation, Release):
            self._asked.pop(key, None)
            self._released[key] = None
            self._released.move_to_end(key)
            while len(self._released) > RELEASED_MAX:
                self._released.popitem(last=False)
            return
        asked = self._asked.setdefault(key, _Asked())
        if isinstance(operation, Attempt):
            asked.attempts.setdefault(operation.block, []).append(operation.rounds)
        else:
            asked.measures.setdefault(operation.block, []).append(len(operation.settings))

    def check(self, report: Report) -> None:
        """Take note of a report.  Raises DeviceFault if the device cannot say that now."""
        if isinstance(report, Ready | DeviceGone):
            self._asked.clear()
            self._released.clear()
            return
        key = (report.link, report.request)
        asked = self._asked.get(key)
        if asked is None:
            if key not in self._released:
                raise _fault(Fault.NEVER_ORDERED, report, "of a request that was never made")
            return
        match report:
            case Heralded():
                _check_heralded(asked, report)
            case Measured():
                _check_measured(asked, report)
            case MemoryLost(operation=operation):
                orders = asked.attempts if operation == "attempt" else asked.measures
                if not _answer(orders, report.block):
                    raise _fault(Fault.NEVER_ORDERED, report, f"of no {operation} that was ordered")

    def overdue(self, rounds: Rounds) -> bool:
        """Whether outcomes are still due; if so they are no more."""
        link, request, block = rounds
        asked = self._asked.get((link, request))
        return asked is not None and bool(_answer(asked.measures, block))


def _answer(orders: dict[int, list[int]], block: int) -> list[int]:
    """The orders of a block that were open; the first of them is not any more."""
    found = orders.get(block, [])
    left = found[1:]
    if left:
        orders[block] = left
    else:
        orders.pop(block, None)
    return found


def _check_heralded(asked: _Asked, report: Heralded) -> None:
    if report.block in asked.heralded:
        raise _fault(Fault.DUPLICATE, report, "that were reported before")
    ordered = _answer(asked.attempts, report.block)
    if not ordered:
        raise _fault(Fault.NEVER_ORDERED, report, "that were never ordered")
    asked.heralded.add(report.block)
    attempts, patterns = report.attempts, report.patterns
    if not attempts.shape == patterns.shape == (ordered[0],):
        why = f"of {len(attempts)} rounds where {ordered[0]} were ordered"
        raise _fault(Fault.IMPOSSIBLE, report, why)
    if int(patterns.max()) > max(BellState):
        raise _fault(Fault.IMPOSSIBLE, report, f"announcing {int(patterns.max())}, no Bell state")
    if not 0 <= report.begun_ns <= report.ended_ns:
        why = f"that began at {report.begun_ns} ns and ended at {report.ended_ns} ns"
        raise _fault(Fault.IMPOSSIBLE, report, why)
    if int(attempts[0]) < 0 or np.any(attempts[1:] <= attempts[:-1]):
        raise _fault(Fault.OUT_OF_ORDER, report, "whose attempt numbers do not rise")
    if int(attempts[0]) <= asked.last_attempt:
        why = (
            f"that begins with attempt {int(attempts[0])}, after block {asked.last_block} ended"
            f" with attempt {asked.last_attempt}"
        )
        raise _fault(Fault.OUT_OF_ORDER, report, why)
    asked.last_attempt, asked.last_block = int(attempts[-1]), report.block


def _check_measured(asked: _Asked, report: Measured) -> None:
    ordered = _answer(asked.measures, report.block)
    if not ordered:
        if report.block in asked.measured:
            raise _fault(Fault.DUPLICATE, report, "that were reported before")
        raise _fault(Fault.NEVER_ORDERED, report, "that were never ordered")
    asked.measured.add(report.block)
    if not report.outcomes.shape == report.answered.shape == (ordered[0],):
        why = f"of {len(report.outcomes)} rounds where {ordered[0]} were ordered"
        raise _fault(Fault.IMPOSSIBLE, report, why)
    if int(report.outcomes.max()) > 1:
        raise _fault(Fault.IMPOSSIBLE, report, f"of {int(report.outcomes.max())}, which is no bit")
    if np.any(report.outcomes.astype(np.bool_) & ~report.answered):
        raise _fault(Fault.IMPOSSIBLE, report, "of rounds that it says it did not answer")


def _fault(fault: Fault, report: Heralded | Measured | MemoryLost, why: str) -> DeviceFault:
    what = {Heralded: "heralds", Measured: "outcomes", MemoryLost: "a loss"}[type(report)]
    return DeviceFault(
        fault,
        f"the device on {report.link} reported {what} of block {report.block} {why}"
        f" (request {report.request})",
    )


class Watched:
    """A `Hardware` whose reports are checked; what is passed on can be believed to be well formed.

    `on_fault` hears each fault.  What a device itself says it lost is logged with its reason.
    """

    def __init__(self, hardware: Hardware, on_fault: Callable[[DeviceFault], None]) -> None:
        self._hardware = hardware
        self._on_fault = on_fault
        self._watch = Watch()
        self._due_s: dict[Rounds, float] = {}
        self._more_due = asyncio.Event()

    async def submit(self, operation: Operation) -> None:
        """See `Hardware`."""
        self._watch.ordered(operation)
        if isinstance(operation, Measure):
            rounds = len(operation.settings)
            allowed_s = ANSWER_SECONDS + rounds * ANSWER_SECONDS_PER_ROUND
            block = (operation.link, operation.request, operation.block)
            self._due_s[block] = asyncio.get_running_loop().time() + allowed_s
            self._more_due.set()
        await self._hardware.submit(operation)

    async def reports(self) -> AsyncIterator[Report]:
        """See `Hardware`."""
        inner = aiter(self._hardware.reports())
        coming = asyncio.ensure_future(anext(inner, None))
        try:
            while True:
                await self._wait(coming)
                for lost in self._stalled():
                    yield lost
                if not coming.done():
                    continue
                report = coming.result()
                if report is None:
                    return
                passed = self._judged(report)
                if passed is not None:
                    yield passed
                # Nothing is read ahead of the caller.
                coming = asyncio.ensure_future(anext(inner, None))
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    async def close(self) -> None:
        """See `Hardware`."""
        await self._hardware.close()

    async def _wait(self, coming: "asyncio.Future[Report | None]") -> None:
        """Until there is a report, or outcomes are overdue, or others are due."""
        self._more_due.clear()
        now_s = asyncio.get_running_loop().time()
        left_s = min(self._due_s.values()) - now_s if self._due_s else None
        more = asyncio.ensure_future(self._more_due.wait())
        try:
            await asyncio.wait(
                (coming, more),
                timeout=None if left_s is None else max(left_s, 0.0),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            more.cancel()

    def _stalled(self) -> list[MemoryLost]:
        now_s = asyncio.get_running_loop().time()
        lost: list[MemoryLost] = []
        for block in [block for block, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[block]
            if self._watch.overdue(block):
                reason = f"the device on {block[0]} stalled: no outcomes of block {block[2]}"
                self._on_fault(DeviceFault(Fault.STALLED, f"{reason} (request {block[1]})"))
                lost.append(MemoryLost(*block, "measure", reason))
        return lost

    def _judged(self, report: Report) -> Report | None:
        """The report, or what stands for it if it is at fault."""
        if isinstance(report, Ready | DeviceGone):
            self._due_s.clear()
        elif isinstance(report, Measured | MemoryLost):
            self._due_s.pop((report.link, report.request, report.block), None)
        try:
            self._watch.check(report)
        except DeviceFault as fault:
            self._on_fault(fault)
            dropped = fault.fault in (Fault.NEVER_ORDERED, Fault.DUPLICATE)
            if dropped or isinstance(report, Ready | DeviceGone | MemoryLost):
                return None
            name = "attempt" if isinstance(report, Heralded) else "measure"
            return MemoryLost(report.link, report.request, report.block, name, fault.message)
        if isinstance(report, MemoryLost):
            log.warning(
                "the device on %s lost block %d (%s): %s",
                report.link, report.block, report.operation, report.reason,
            )  # fmt: skip
        return report
