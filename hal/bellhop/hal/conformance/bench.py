"""Both ends of a link under test: orders given, reports awaited and checked against them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from bellhop.hal.conformance.statistics import Sample
from bellhop.hal.errors import HardwareError
from bellhop.hal.hardware import Hardware
from bellhop.hal.operations import (
    Attempt,
    DeviceGone,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    Operation,
    Port,
    Ready,
    Release,
    Report,
    RequestId,
    Side,
)
from bellhop.hal.statistics import Outcomes
from bellhop.hal.watched import DeviceFault, Watch

ROUNDS = 64
"""Rounds of a block where their number does not matter, if the device holds as many."""

STATISTICS_ROUNDS = 4_096
"""Rounds that statistics are made from, in as many blocks as the device needs, for either order of
measurement: S = 2.4 is then 5 standard deviations above 2."""

QUIET_SECONDS = 0.3
"""Nothing comes unasked for this long."""

ReportType = TypeVar("ReportType", bound=Report)
Connect = Callable[[], Hardware]


class NotConforming(HardwareError):
    """The device does not keep to the interface; the message says what was seen."""

    who_must_act = "whoever runs the device, or wrote its driver"


class NotApplicable(Exception):
    """This device cannot be asked that."""


@dataclass(slots=True, eq=False)
class End:
    """One end of the link under test: its hardware, its reports, and its port from `Ready`."""

    hardware: Hardware
    port: Port
    connect: Connect
    wait_seconds: float
    _reports: AsyncIterator[Report]
    _watch: Watch = field(default_factory=Watch)
    _coming: "asyncio.Task[Report] | None" = None

    @property
    def name(self) -> str:
        return f"side {self.port.side.name}"

    async def order(self, operation: Operation) -> None:
        self._watch.ordered(operation)
        await self.hardware.submit(operation)

    async def report(self, awaited: str) -> Report:
        """The next report, which must be one that the orders allow."""
        report = await self._next(self.wait_seconds)
        if report is None:
            raise NotConforming(
                f"{self.name} stalled: {self.wait_seconds:g} seconds without {awaited}"
            )
        self._check(report)
        return report

    async def expect(self, kind: type[ReportType]) -> ReportType:
        """The next report, which must be of this kind."""
        report = await self.report(f"a report {kind.__name__}")
        if isinstance(report, kind):
            return report
        reason = f": {report.reason}" if isinstance(report, MemoryLost | DeviceGone) else ""
        said = type(report).__name__
        raise NotConforming(f"{self.name} said {said}{reason}, where {kind.__name__} was due")

    async def refused(self, operation: Attempt | Measure) -> None:
        """Order what cannot be; it must be said to be lost, and nothing else must happen."""
        await self.order(operation)
        lost = await self.expect(MemoryLost)
        name = "attempt" if isinstance(operation, Attempt) else "measure"
        meant = (operation.link, operation.request, operation.block, name)
        said = (lost.link, lost.request, lost.block, lost.operation)
        require(meant == said, f"{self.name} lost {said} where {meant} was ordered")
        require(bool(lost.reason), f"{self.name} lost {meant} without a reason")

    async def quiet(self) -> None:
        """Nothing more comes."""
        report = await self._next(QUIET_SECONDS)
        if report is not None:
            self._check(report)
            raise NotConforming(f"{self.name} said {type(report).__name__} that nobody asked for")

    async def close(self) -> None:
        await self.hardware.close()
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        if isinstance(self._reports, AsyncGenerator):
            await self._reports.aclose()

    async def _next(self, seconds: float) -> Report | None:
        """None if nothing comes in time; what comes later is the next one."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(_following(self._reports))
        await asyncio.wait({self._coming}, timeout=seconds)
        if not self._coming.done():
            return None
        coming, self._coming = self._coming, None
        return coming.result()

    def _check(self, report: Report) -> None:
        try:
            self._watch.check(report)
        except DeviceFault as fault:
            kind = str(fault.fault).removeprefix("device_").replace("_", " ")
            raise NotConforming(f"{self.name}, {kind}: {fault.message}") from fault


async def _following(reports: AsyncIterator[Report]) -> Report:
    try:
        return await anext(reports)
    except StopAsyncIteration as error:
        raise NotConforming("the reports ended") from error


@dataclass(slots=True, eq=False)
class Bench:
    """Both ends of one link, and chance for settings and names.

    `samples` are shared by the checks of a suite: outcomes are taken once.
    """

    a: End
    b: End
    generator: np.random.Generator
    statistics_rounds: int = STATISTICS_ROUNDS
    samples: dict[Side, Sample] = field(default_factory=dict)

    @property
    def link(self) -> LinkName:
        return self.a.port.link

    @property
    def ends(self) -> tuple[End, End]:
        return self.a, self.b

    @property
    def rounds_max(self) -> int:
        return min(self.a.port.rounds_max, self.b.port.rounds_max)

    @property
    def rounds(self) -> int:
        """Rounds of a block where their number does not matter."""
        return min(ROUNDS, self.rounds_max)

    def request(self) -> RequestId:
        return RequestId(self.generator.bytes(16).hex())

    def settings(self, end: End, rounds: int, among: tuple[int, ...] = ()) -> Outcomes:
        choices = np.array(among or range(end.port.settings), dtype=np.uint8)
        return self.generator.choice(choices, rounds)

    async def herald(self, request: RequestId, block: int, rounds: int) -> Heralded:
        """Order a block at both ends; both must be told the same."""
        order = Attempt(self.link, request, block, rounds)
        await self.a.order(order)
        await self.b.order(order)
        first = await self.a.expect(Heralded)
        second = await self.b.expect(Heralded)
        same_heralds(first, second)
        return first

    async def measure(self, end: End, herald: Heralded, settings: Outcomes) -> Measured:
        await end.order(Measure(self.link, herald.request, herald.block, settings))
        return await end.expect(Measured)

    async def release(self, request: RequestId) -> None:
        for end in self.ends:
            await end.order(Release(self.link, request))

    async def sample(self, first: End) -> Sample:
        """Many rounds, measured at `first` before the other end; taken once."""
        side = first.port.side
        if side not in self.samples:
            self.samples[side] = await self._take(first)
        return self.samples[side]

    async def _take(self, first: End) -> Sample:
        second = self.b if first is self.a else self.a
        request, left, block = self.request(), self.statistics_rounds, 0
        patterns: list[Outcomes] = []
        settings: dict[Side, list[Outcomes]] = {side: [] for side in Side}
        outcomes: dict[Side, list[Outcomes]] = {side: [] for side in Side}
        while left > 0:
            rounds = min(left, self.rounds_max)
            herald = await self.herald(request, block, rounds)
            patterns.append(herald.patterns)
            for end in (first, second):
                chosen = self.settings(end, rounds)
                settings[end.port.side].append(chosen)
                measured = await self.measure(end, herald, chosen)
                outcomes[end.port.side].append(measured.outcomes)
            left, block = left - rounds, block + 1
        await self.release(request)
        begins = np.zeros(self.statistics_rounds, dtype=np.bool_)
        begins[np.cumsum([0, *(len(one) for one in patterns[:-1])])] = True
        return Sample(
            first.port.side,
            np.concatenate(patterns),
            {side: np.concatenate(chosen) for side, chosen in settings.items()},
            {side: np.concatenate(told) for side, told in outcomes.items()},
            begins,
        )

    async def close(self) -> None:
        for end in self.ends:
            await end.close()


def same_heralds(first: Heralded, second: Heralded) -> None:
    ids = [(one.request, one.block) for one in (first, second)]
    require(ids[0] == ids[1], f"side A heralded {ids[0]}, side B {ids[1]}")
    different = int(np.count_nonzero(first.attempts != second.attempts))
    require(not different, f"the ends disagree on the attempts of {different} heralds")
    different = int(np.count_nonzero(first.patterns != second.patterns))
    require(not different, f"the ends disagree on the patterns of {different} heralds")


def require(holds: bool, seen: str) -> None:
    """Raises NotConforming, saying what was `seen`, unless the rule holds."""
    if not holds:
        raise NotConforming(seen)


async def attach(
    a: Connect, b: Connect, link: LinkName, generator: np.random.Generator, wait_seconds: float
) -> Bench:
    """Both ends of `link`: either says first that it is ready, and they agree on the link."""
    ends: list[End] = []
    try:
        for connect in (a, b):
            ends.append(await connected(connect, link, wait_seconds))
        ends.sort(key=lambda end: end.port.side.value)
        _check_ports(*(end.port for end in ends))
    except BaseException:
        for end in ends:
            await end.close()
        raise
    return Bench(ends[0], ends[1], generator)


def _check_ports(a: Port, b: Port) -> None:
    sides = f"{a.side.name} and {b.side.name}"
    require((a.side, b.side) == (Side.A, Side.B), f"the sides of the link are {sides}")
    require(a.settings >= 2, f"side A has {a.settings} settings, and must have 2")
    require(b.settings >= 3, f"side B has {b.settings} settings, and must have 3")
    sources = f"{a.source.value} and {b.source.value}"
    require(a.source is b.source, f"the outcomes of the two ends are {sources}")
    require(a.peer != b.peer, f"both ends say that their peer is {a.peer}")
    says = " at side A, ".join(f"{end.herald_is_measurement}".lower() for end in (a, b))
    same = a.herald_is_measurement == b.herald_is_measurement
    require(same, f"herald_is_measurement is {says} at side B")


async def connected(connect: Connect, link: LinkName, wait_seconds: float) -> End:
    """One end, which says first that it is ready and has one port on the link."""
    hardware = connect()
    reports = aiter(hardware.reports())
    try:
        async with asyncio.timeout(wait_seconds):
            ready: Any = await _following(reports)
        if not isinstance(ready, Ready):
            raise NotConforming(f"the first report is {type(ready).__name__}, and must be Ready")
        ports = [port for port in ready.ports if port.link == link]
        names = ", ".join(port.link for port in ready.ports) or "none"
        require(len(ports) == 1, f"no port on link {link}; there are: {names}")
    except TimeoutError as error:
        await hardware.close()
        raise NotConforming(f"not ready within {wait_seconds:g} seconds") from error
    except BaseException:
        await hardware.close()
        raise
    return End(hardware, ports[0], connect, wait_seconds, reports)
