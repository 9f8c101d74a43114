"""The loop that steps a core: one event, the time, and its actions performed in their order.

Rules.  One task steps the core; every other task only puts events into its bounded queue, or
drains a queue of its own.  Durable actions are on disk before the next action starts.  An exception
out of a core is our bug: the trace is written and the process ends, to be restarted.  A disk or a
random number generator that fails ends it too, and is no bug.
"""

import asyncio
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, assert_never

from bellhop.hal.errors import KeyStoreError
from bellhop.hal.hardware import Hardware
from bellhop.hal.operations import (
    DeviceGone,
    Heralded,
    Measured,
    NodeName,
    Operation,
    Ready,
    Report,
)
from bellhop.node.clock import NodeClock
from bellhop.node.keystore import RefusedAllocation
from bellhop.node.noise_tests import RandomnessFailed
from bellhop.node.trace import Trace
from bellhop.node.witness import Witness
from bellhop.stack.core import (
    Action,
    Answer,
    Ask,
    Asked,
    Compute,
    ConfirmKeys,
    Core,
    Event,
    ForgetAllocations,
    Note,
    Order,
    Persist,
    RecordAllocations,
    Refuse,
    Reported,
    StoreKeys,
    Tell,
    Tick,
    VoidKeys,
)
from bellhop.stack.ids import AskNumber
from bellhop.stack.messages import Message

EVENTS_MAX = 1024
ORDERS_MAX = 1024
ASKS_MAX = 64

WAKE_S = 1.0
"""The longest sleep before the clock is read again: the host's may have been set meanwhile."""

TICK_GAP_NS = 1_000_000
"""Ticks come no faster, so that a deadline in the past cannot keep events out."""


class Stepped(Core, Protocol):
    """A core that can also say how it is doing."""

    def snapshot(self) -> dict[str, Any]: ...


class Store(Protocol):
    """Each call is durable when it returns; raises KeyStoreError if the disk fails."""

    async def persist(self, facts: Persist) -> None: ...
    async def store_keys(self, action: StoreKeys) -> None: ...
    async def confirm_keys(self, action: ConfirmKeys) -> None: ...
    async def void_keys(self, action: VoidKeys) -> None: ...
    async def record_allocations(self, action: RecordAllocations) -> list[RefusedAllocation]: ...
    async def forget_allocations(self, action: ForgetAllocations) -> None: ...


class Speaks(Protocol):
    def tell(self, peer: NodeName, message: Message) -> None: ...


class Computes(Protocol):
    async def submit(self, order: Compute) -> None: ...


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a driver's actions go."""

    store: Store
    peers: Speaks
    memory: Hardware
    workers: Computes


class CoreFailed(Exception):
    """A step or one of its actions ended in an exception; `trace` is where the steps before are."""

    def __init__(self, trace: Path) -> None:
        super().__init__(f"the trace is in {trace}")
        self.trace = trace


@dataclass(frozen=True, slots=True)
class _Waiting:
    event: Event
    stepped: asyncio.Event | None = None


@dataclass(slots=True)
class _Orders:
    """Orders to the memory.  Those of an incarnation of the device that is gone are void."""

    incarnation: int = 0
    queue: asyncio.Queue[tuple[int, Operation]] = field(
        default_factory=lambda: asyncio.Queue(ORDERS_MAX)
    )


class Driver:
    """Steps `core`; traces go to `trace_folder`."""

    def __init__(
        self, core: Stepped, clock: NodeClock, witness: Witness, trace_folder: Path
    ) -> None:
        self._core = core
        self._clock = clock
        self._witness = witness
        self._trace_folder = trace_folder
        self._trace = Trace()
        self._events: asyncio.Queue[_Waiting] = asyncio.Queue(EVENTS_MAX)
        self._orders = _Orders()
        self._numbers = itertools.count(1)
        self._asked: dict[AskNumber, asyncio.Future[Answer]] = {}
        self._ticked_ns = 0

    async def deliver(self, event: Event) -> None:
        """Put `event` into the queue; waits while it is full."""
        await self._events.put(_Waiting(event))

    async def ask(self, ask: Ask) -> Answer:
        """Put an operator's request to the core; returns its last word on it."""
        if len(self._asked) >= ASKS_MAX:
            return Answer(AskNumber(0), "refused", {"why": "too many requests wait for an answer"})
        number = AskNumber(next(self._numbers))
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            await self.deliver(Asked(number, ask))
            return await answer
        finally:
            del self._asked[number]

    def snapshot(self) -> dict[str, Any]:
        """How the core is doing: plain values, no secrets."""
        return self._core.snapshot()

    async def read_reports(self, memory: Hardware) -> None:
        """Bring what `memory` reports to the core, until it is closed.

        The next report is read when the core has taken this one: an order then always means the
        device that the core saw last.
        """
        async for report in memory.reports():
            stepped = asyncio.Event()
            await self._events.put(_Waiting(Reported(report), stepped))
            await stepped.wait()

    async def give_orders(self, memory: Hardware) -> None:
        """Pass orders on; a slow device holds this task and not the core."""
        while True:
            incarnation, operation = await self._orders.queue.get()
            if incarnation == self._orders.incarnation:
                await memory.submit(operation)

    async def run(self, ends: Ends) -> None:
        """Step until cancelled.

        Raises CoreFailed for our own bugs, KeyStoreError for the disk, RandomnessFailed for the
        random number generator.
        """
        while True:
            waiting = await self._next()
            try:
                await self._step(waiting.event, ends)
            except (KeyStoreError, RandomnessFailed):
                raise
            except Exception as error:
                path = self._trace.write(
                    self._trace_folder, self._clock.now_ns(), waiting.event, error
                )
                raise CoreFailed(path) from error
            if waiting.stepped is not None:
                waiting.stepped.set()
            await asyncio.sleep(0)  # a full queue must not keep the loop from everybody else

    async def _next(self) -> _Waiting:
        deadline_ns = self._core.next_deadline()
        while True:
            timeout_s = None
            if deadline_ns is not None:
                left_ns = max(deadline_ns, self._ticked_ns + TICK_GAP_NS) - self._clock.now_ns()
                if left_ns <= 0:
                    self._ticked_ns = self._clock.now_ns()
                    return _Waiting(Tick())
                timeout_s = min(left_ns / 1e9, WAKE_S)
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._events.get()
            except TimeoutError:
                continue

    async def _step(self, event: Event, ends: Ends) -> None:
        if isinstance(event, Reported):
            self._look_at(event.report)
        now_ns = self._clock.now_ns()
        actions = self._core.step(now_ns, event)
        self._trace.stepped(now_ns, event, actions)
        for action in actions:
            await self._perform(action, ends)

    async def _perform(self, action: Action, ends: Ends) -> None:  # noqa: C901, PLR0912 - a table
        match action:
            case Order(operation):
                await self._orders.queue.put((self._orders.incarnation, operation))
            case Tell(peer, message):
                ends.peers.tell(peer, message)
            case Persist():
                await ends.store.persist(action)
            case StoreKeys():
                await ends.store.store_keys(action)
            case ConfirmKeys():
                await ends.store.confirm_keys(action)
            case VoidKeys():
                await ends.store.void_keys(action)
            case RecordAllocations():
                for refused in await ends.store.record_allocations(action):
                    self._witness.refused(action.peer, "allocation", refused.reason)
            case ForgetAllocations():
                await ends.store.forget_allocations(action)
            case Compute():
                await ends.workers.submit(action)
            case Answer(number):
                self._answer(number, action)
            case Refuse(peer, reason, detail, who):
                self._witness.refused(peer, reason, detail, who)
            case Note():
                self._witness.noted(action)
            case _:
                assert_never(action)

    def _answer(self, number: AskNumber, answer: Answer) -> None:
        waiting = self._asked.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _look_at(self, report: Report) -> None:
        match report:
            case Ready() | DeviceGone():
                self._orders.incarnation += 1
            case Heralded(attempts=attempts):
                self._witness.metrics.heralded(len(attempts))
            case Measured():
                self._witness.metrics.block_measured()
            case _:
                pass
