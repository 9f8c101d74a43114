"""What a laboratory is asked for one node: orders in, reports out, and nothing a driver can spoil.

Rules
  Attempts wait until their pairs have room.  All that have are offered to the station; the one it
  lets go is attempted, one at a time on a link.
  A block is begun once and measured once.  Its rounds are measured one after the other, and none is
  shown its setting before the round before it is answered.
  A driver's answer that cannot be, and a device that does not answer in time, are faults: the order
  is lost with a reason that names the fault, and who must act.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import numpy as np

from bellhop.hal.errors import HardwareError
from bellhop.hal.laboratory import Laboratory, LaboratoryError, LabPort
from bellhop.hal.memory_wire import printable
from bellhop.hal.operations import (
    Attempt,
    Heralded,
    Measure,
    Measured,
    MemoryLost,
    Operation,
    Release,
    Report,
    RequestId,
)
from bellhop.hal.serve_calls import Calls
from bellhop.hal.serve_rules import (
    Block,
    DeviceStalled,
    DriverFault,
    Limits,
    LinkState,
    RequestState,
    attempt_refusal,
    measure_refusal,
)

REPORTS_WAITING_MAX = 64
"""Reports a node has not read yet; while there are as many, its orders wait."""

Offer = tuple[Attempt, asyncio.Task[int]]

log = logging.getLogger(__name__)


class Orders:
    """One node's orders, from when it connects until it is gone."""

    def __init__(self, laboratory: Laboratory, ports: tuple[LabPort, ...], limits: Limits) -> None:
        self._calls = Calls(laboratory, limits)
        self._links = {port.link: LinkState(port) for port in ports}
        self._reports: asyncio.Queue[Report] = asyncio.Queue(REPORTS_WAITING_MAX)
        self._workers = [asyncio.ensure_future(self._work(link)) for link in self._links.values()]
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for worker in self._workers:
            worker.add_done_callback(self._look_at)

    async def next_report(self) -> Report:
        """What the laboratory says next.  Raises whatever a driver's own fault raised."""
        while True:
            if self._broken.done():
                await self._broken
            getting = asyncio.ensure_future(self._reports.get())
            try:
                await asyncio.wait((getting, self._broken), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not getting.done():
                    getting.cancel()
            if getting.done() and not getting.cancelled() and self._current(getting.result()):
                return getting.result()

    async def carry_out(self, order: Operation) -> None:
        """Begin one order; waits while the node is behind with its reports."""
        link = self._links.get(order.link)
        if isinstance(order, Release):
            if link is not None and order.request in link.requests:
                await self._release(link, order.request)
            return
        refusal = "no such link at this node"
        if link is not None and isinstance(order, Attempt):
            refusal = attempt_refusal(link, order)
        elif link is not None and isinstance(order, Measure):
            refusal = measure_refusal(link, order)
        if refusal or link is None:
            await self._lose(order, refusal)
        elif isinstance(order, Attempt):
            link.requests.setdefault(order.request, RequestState())
            link.waiting[order.request, order.block] = order
            link.changed.set()
        else:
            link.requests[order.request].spent[order.block] = "already measured"
            task = self._start(self._measure(link, order))
            link.measuring[order.request, order.block] = task

    async def say(self, report: Report) -> None:
        await self._reports.put(report)

    async def close(self) -> None:
        """End everything that is under way and give up all pairs."""
        tasks = list(self._workers)
        for link in self._links.values():
            tasks += link.measuring.values()
            tasks += [link.attempting[1]] if link.attempting else []
        await _cancelled(tasks)
        if self._broken.done():
            self._broken.exception()  # Seen.
        open_requests = [(link, one) for link in self._links.values() for one in link.requests]
        # All at once: together they take no longer than one may.
        releases = [self._release(link, request) for link, request in open_requests]
        for error in await asyncio.gather(*releases, return_exceptions=True):
            if error is not None:
                raise error

    # Attempts

    async def _work(self, link: LinkState) -> None:
        while True:
            order, begun_ns = await self._let_go(link)
            request = link.requests.get(order.request)
            if request is None or order.block not in request.begun:
                continue  # Released in the same moment.
            block = (order.request, order.block)
            task = self._start(self._attempt(link, order, begun_ns))
            link.attempting = (block, task)
            await asyncio.wait({task})
            link.attempting = None

    async def _let_go(self, link: LinkState) -> tuple[Attempt, int]:
        """Offer what waits and fits; the order that the station lets go, and when."""
        offers: dict[Block, Offer] = {}
        try:
            while True:
                link.changed.clear()
                await self._offer_anew(link, offers)
                change = asyncio.ensure_future(link.changed.wait())
                try:
                    await asyncio.wait(
                        {change, *(offer for _, offer in offers.values())},
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    change.cancel()
                for block in [block for block, (_, offer) in offers.items() if offer.done()]:
                    order, offer = offers.pop(block)
                    begun_ns = await self._offered(link, order, offer)
                    if begun_ns is not None:
                        return order, begun_ns
        finally:
            await _cancelled([offer for _, offer in offers.values()])

    async def _offer_anew(self, link: LinkState, offers: dict[Block, Offer]) -> None:
        """Make `offers` those of the orders that wait and fit, in the sequence they were given."""
        fitting = link.fitting()
        void = [block for block, (order, _) in offers.items() if fitting.get(block) is not order]
        if void:
            await _cancelled([offers.pop(block)[1] for block in void])
        for block, order in link.fitting().items():
            if block not in offers:
                offers[block] = (order, asyncio.ensure_future(self._calls.synchronise(order)))

    async def _offered(
        self, link: LinkState, order: Attempt, offer: asyncio.Task[int]
    ) -> int | None:
        """When an order was let go; None if it is lost instead, or was released meanwhile."""
        block = (order.request, order.block)
        waits = link.waiting.get(block) is order
        if waits:
            del link.waiting[block]
        try:
            begun_ns = offer.result()
            if waits:
                link.requests[order.request].begun.add(order.block)
                return begun_ns
        except LaboratoryError as error:
            if waits:
                await self._lose(order, error.message)
        except DriverFault as error:
            if waits:
                await self._fault(order, error)
        return None

    async def _attempt(self, link: LinkState, order: Attempt, begun_ns: int) -> None:
        request = link.requests[order.request]
        link.reserved = order.rounds  # The device fills up while it attempts.
        whole_block = False
        try:
            report = await self._calls.attempt(order, begun_ns, request.attempts)
            request.attempts = int(report.attempts[-1]) + 1
            request.held[order.block] = link.reserved
            link.reserved = 0
            whole_block = True
            await self.say(report)
        except LaboratoryError as error:
            await self._lose(order, error.message)
        except (DriverFault, DeviceStalled) as error:
            await self._fault(order, error)
        finally:
            if not whole_block:
                link.reserved = 0
                request.spent[order.block] = "its attempt was lost"
            link.changed.set()

    # Measurements

    async def _measure(self, link: LinkState, order: Measure) -> None:
        request = link.requests[order.request]
        try:
            async with link.turn:
                report = await self._ask_all(order)
            await self.say(report)
        except LaboratoryError as error:
            await self._lose(order, error.message)
        except (DriverFault, DeviceStalled) as error:
            await self._fault(order, error)
        finally:
            request.held.pop(order.block, None)
            link.measuring.pop((order.request, order.block), None)
            link.changed.set()

    async def _ask_all(self, order: Measure) -> Measured:
        """One round after the other."""
        rounds = len(order.settings)
        outcomes = np.zeros(rounds, dtype=np.uint8)
        answered = np.zeros(rounds, dtype=np.bool_)
        for index in range(rounds):
            answer = await self._calls.measure(order, index)
            if answer is not None:
                outcomes[index], answered[index] = answer, True
        outcomes.flags.writeable = answered.flags.writeable = False
        return Measured(order.link, order.request, order.block, outcomes, answered)

    # The rest

    async def _release(self, link: LinkState, request: RequestId) -> None:
        """Stop what is under way for a request, then let the device give up its pairs."""
        for block in [block for block in link.waiting if block[0] == request]:
            del link.waiting[block]
        link.changed.set()
        tasks = [task for block, task in link.measuring.items() if block[0] == request]
        if link.attempting is not None and link.attempting[0][0] == request:
            tasks.append(link.attempting[1])
        await _cancelled(tasks)
        try:
            await self._calls.release(link.port.link, request)
        except HardwareError as error:
            log.error("link %s: no release: %s", link.port.link, error.message)
        link.requests.pop(request, None)
        link.changed.set()

    async def _fault(self, order: Attempt | Measure, error: HardwareError) -> None:
        log.error("link %s: %s (who must act: %s)", order.link, error.message, error.who_must_act)
        await self._lose(order, f"{error.message} (who must act: {error.who_must_act})")

    async def _lose(self, order: Attempt | Measure, reason: str) -> None:
        name = "attempt" if isinstance(order, Attempt) else "measure"
        await self.say(MemoryLost(order.link, order.request, order.block, name, printable(reason)))

    def _current(self, report: Report) -> bool:
        """Whether a report that waited is of a request that is still open."""
        if not isinstance(report, Heralded | Measured):
            return True
        return report.request in self._links[report.link].requests

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._look_at)
        return task

    def _look_at(self, task: asyncio.Task[None]) -> None:
        """A driver's exception that is no LaboratoryError ends the stream."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self._broken.done():
            self._broken.set_exception(error)


async def _cancelled(tasks: "list[asyncio.Task[None]] | list[asyncio.Task[int]]") -> None:
    """End tasks and wait until they have; what they raised is seen elsewhere."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
