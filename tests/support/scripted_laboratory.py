"""A laboratory whose every step a test decides."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from bellhop.hal.laboratory import Herald, Laboratory, LabPort
from bellhop.hal.operations import (
    Attempt,
    BellState,
    LinkName,
    NodeName,
    RequestId,
    Side,
)

FIBRE = LinkName("fibre")


@dataclass
class Lab(Laboratory):
    """A laboratory whose every step a test decides; `log` says what it was asked."""

    ions: int = 4
    heralds: list[Any] = field(default_factory=list)
    answers: list[Any] = field(default_factory=lambda: [0, 1, None, 1])
    begins: Any = 100
    hang: str = ""
    fail: dict[str, Exception] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    given_up: list[int] = field(default_factory=list)
    go: dict[int, asyncio.Event] = field(default_factory=dict)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def from_options(cls, node: NodeName, options: Mapping[str, object]) -> Self:
        return cls()

    @property
    def port(self) -> LabPort:
        return LabPort(FIBRE, Side.A, NodeName("bob"), 2, "a test", pairs_held_max=self.ions)

    async def open(self) -> tuple[LabPort, ...]:
        return (self.port,)

    async def synchronise(self, order: Attempt) -> int:
        self.log.append(f"offer {order.block}")
        await self._may("synchronise")
        if order.block in self.go:
            await self.go[order.block].wait()
        return self.begins  # type: ignore[no-any-return]  # nonsense is what is tested

    async def attempt(self, order: Attempt) -> AsyncIterator[Herald]:
        self.log.append(f"attempt {order.block}")
        whole = False
        try:
            await self._may("attempt")
            start = 10 * order.block
            told = self.heralds or [
                Herald(start + k, BellState.PSI_PLUS, 200 + start + k) for k in range(order.rounds)
            ]
            for herald in told:
                yield herald
            whole = True
        finally:
            if not whole:
                self.given_up.append(order.block)

    async def measure(
        self, link: LinkName, request: RequestId, block: int, round_index: int, setting: int
    ) -> int | None:
        self.log.append(f"measure {block}.{round_index} at {setting}")
        await self._may("measure")
        answer = self.answers[round_index]
        self.log.append(f"answer {block}.{round_index}")
        return answer  # type: ignore[no-any-return]  # nonsense is what is tested

    async def release(self, link: LinkName, request: RequestId) -> None:
        self.log.append("release")
        await self._may("release")

    async def close(self) -> None:
        self.log.append("close")

    async def _may(self, what: str) -> None:
        await asyncio.sleep(0)
        if what == self.hang:
            self.hanging.set()
            await asyncio.Event().wait()
        if what in self.fail:
            raise self.fail[what]
