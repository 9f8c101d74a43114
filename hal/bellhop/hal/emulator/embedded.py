"""Both ends of an emulated network as `Hardware` in one process: for tests of what is above it."""

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator

from bellhop.hal.emulator.nature import Delivery, Nature
from bellhop.hal.operations import DeviceGone, NodeName, Operation, Report

Due = tuple[int, int, Delivery]


class Embedded:
    """A nature and who is attached to it."""

    def __init__(self, nature: Nature) -> None:
        self._nature = nature
        self._attached: dict[NodeName, EmbeddedMemory] = {}
        self._sequence = itertools.count()

    def memory(self, node: NodeName) -> "EmbeddedMemory":
        """The memory of a node, which attaches when its reports are first read.

        As with the service, it ends the one that the node had before.
        """
        return EmbeddedMemory(self, node)

    def attach(self, memory: "EmbeddedMemory") -> None:
        earlier = self._attached.pop(memory.node, None)
        if earlier is not None:
            earlier.end(DeviceGone("a later stream of this node took its place"))
        self._attached[memory.node] = memory
        self._hand_out(self._nature.attach(time.monotonic_ns(), memory.node))

    def detach(self, memory: "EmbeddedMemory") -> None:
        if self._attached.get(memory.node) is memory:
            del self._attached[memory.node]
            self._hand_out(self._nature.forget(time.monotonic_ns(), memory.node))

    def carry_out(self, memory: "EmbeddedMemory", operation: Operation) -> None:
        if self._attached.get(memory.node) is memory:
            self._hand_out(self._nature.step(time.monotonic_ns(), memory.node, operation))

    def current(self, delivery: Delivery) -> bool:
        return self._nature.current(delivery)

    def _hand_out(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            memory = self._attached.get(delivery.node)
            if memory is not None:
                memory.take((delivery.due_ns, next(self._sequence), delivery))


class EmbeddedMemory:
    """A `Hardware` over a nature in the same process."""

    def __init__(self, embedded: Embedded, node: NodeName) -> None:
        self.node = node
        self._embedded = embedded
        self._waiting: list[Due] = []
        self._changed = asyncio.Event()
        self._last: DeviceGone | None = None
        self._closed = False

    async def submit(self, operation: Operation) -> None:
        """See `Hardware`."""
        self._embedded.carry_out(self, operation)

    async def reports(self) -> AsyncIterator[Report]:
        """See `Hardware`.  Does not attach again once another took its place."""
        self._embedded.attach(self)
        while not self._closed and self._last is None:
            self._changed.clear()
            now_ns = time.monotonic_ns()
            if self._waiting and self._waiting[0][0] <= now_ns:
                _, _, delivery = heapq.heappop(self._waiting)
                if self._embedded.current(delivery):
                    yield delivery.report
                continue
            wait = (self._waiting[0][0] - now_ns) / 1e9 if self._waiting else None
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass  # The next report is due.
        if self._last is not None and not self._closed:
            yield self._last

    async def close(self) -> None:
        """See `Hardware`."""
        self._closed = True
        self._changed.set()
        self._embedded.detach(self)

    def take(self, due: Due) -> None:
        heapq.heappush(self._waiting, due)
        self._changed.set()

    def end(self, why: DeviceGone) -> None:
        self._last = why
        self._changed.set()
