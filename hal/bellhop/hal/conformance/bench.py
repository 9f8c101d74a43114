"""Both ends of a link under test: orders given, reports awaited and checked against them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
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

REQUEST_BLOCKS_MAX = 4_096
"""No session has more blocks, so no device need take more of one request."""

QUIET_SECONDS = 0.3
"""Nothing comes unasked for this long."""

ReportType = TypeVar("ReportType", bound=Report)
Connect = Callable[[], Hardware]


class NotConforming(HardwareError):
    """The device does not keep to the interface; the message says what was seen."""

    who_must_act = "whoever runs the device, or wrote its driver"


class Interrupted(NotConforming):
    """A loss, a stall or a lost connection: what a check is about was not seen at all."""


class NotApplicable(Exception):
    """This device cannot be asked that."""


class NotRun(Exception):
    """What the check looks at is missing, and another check has said why."""


@dataclass(frozen=True, slots=True)
class Way:
    """How to connect to one end; `name` says whom and where, `heard` what came of it last."""

    connect: Connect
    name: str = "an end"
    heard: Callable[[], str] = lambda: ""

    def failed(self, what: str) -> "Interrupted":
        heard = self.heard()
        return Interrupted(f"{self.name}: {what}{f': {heard}' if heard else ''}")


@dataclass(slots=True, eq=False)
class End:
    """One end of the link under test: its hardware, its reports, and its port from `Ready`."""

    hardware: Hardware
    port: Port
    wait_seconds: float
    way: "Way"
    _reports: AsyncIterator[Report]
    _watch: Watch = field(default_factory=Watch)
    _coming: "asyncio.Task[Report] | None" = None

    @property
    def name(self) -> str:
        return f"side {self.port.side.name}"

    async def order(self, operation: Operation) -> None:
        self._watch.ordered(operation)
        await self.hardware.submit(operation)

    async def report(self, awaited: str, *, is_the_rule: bool = False) -> Report:
        """The next report, which must be one that the orders allow.

        `is_the_rule`: that it comes at all is what the check is about.
        """
        report = await self._next(self.wait_seconds)
        if report is None:
            kind = NotConforming if is_the_rule else Interrupted
            raise kind(f"{self.name} stalled: {self.wait_seconds:g} seconds without {awaited}")
        self._check(report)
        return report

    async def expect(self, kind: type[ReportType]) -> ReportType:
        """The next report, which must be of this kind."""
        refused = issubclass(kind, MemoryLost)
        report = await self.report(f"a report {kind.__name__}", is_the_rule=refused)
        if isinstance(report, kind):
            return report
        self.interrupted(report, f", where {kind.__name__} was due")
        said = type(report).__name__
        raise NotConforming(f"{self.name} said {said}, where {kind.__name__} was due")

    def interrupted(self, report: Report, where: str = "") -> None:
        """Raises Interrupted, with its reason, if the report is a loss."""
        if isinstance(report, MemoryLost | DeviceGone):
            said = type(report).__name__
            raise Interrupted(f"{self.name} said {said}: {report.reason}{where}")

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
            self._coming = asyncio.ensure_future(_following(self._reports, self.way))
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


async def _following(reports: AsyncIterator[Report], way: Way) -> Report:
    try:
        return await anext(reports)
    except StopAsyncIteration as error:
        raise way.failed("the reports ended") from error


@dataclass(slots=True, eq=False)
class Bench:
    """Both ends of one link, and chance for settings and names.

    `samples` are shared by the checks of a suite: outcomes are taken once, or None if that failed.
    """

    a: End
    b: End
    generator: np.random.Generator
    statistics_rounds: int = STATISTICS_ROUNDS
    samples: dict[Side, Sample | None] = field(default_factory=dict)

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
        """Many rounds, measured at `first` before the other end; taken once.

        Raises NotRun if that failed in a check before.
        """
        side = first.port.side
        if side not in self.samples:
            self.samples[side] = None
            self.samples[side] = await self._take(first)
        sample = self.samples[side]
        if sample is None:
            raise NotRun(f"outcomes with {first.name} measured first: a check before did not get")
        return sample

    async def blocks(self, rounds: int) -> AsyncGenerator[Heralded, None]:
        """So many heralded rounds, in as many blocks and requests as they need."""
        left, block, request = rounds, 0, self.request()
        while left > 0:
            if block == REQUEST_BLOCKS_MAX:
                await self.release(request)
                block, request = 0, self.request()
            herald = await self.herald(request, block, min(left, self.rounds_max))
            yield herald
            left, block = left - len(herald.patterns), block + 1
        await self.release(request)

    async def _take(self, first: End) -> Sample:
        second = self.b if first is self.a else self.a
        patterns: list[Outcomes] = []
        settings: dict[Side, list[Outcomes]] = {side: [] for side in Side}
        outcomes: dict[Side, list[Outcomes]] = {side: [] for side in Side}
        async with aclosing(self.blocks(self.statistics_rounds)) as blocks:
            async for herald in blocks:
                patterns.append(herald.patterns)
                for end in (first, second):
                    chosen = self.settings(end, len(herald.patterns))
                    settings[end.port.side].append(chosen)
                    measured = await self.measure(end, herald, chosen)
                    outcomes[end.port.side].append(measured.outcomes)
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
    a: Way | Connect,
    b: Way | Connect,
    link: LinkName,
    generator: np.random.Generator,
    wait_seconds: float,
) -> Bench:
    """Both ends of `link`: either says first that it is ready, and they agree on the link."""
    ends: list[End] = []
    try:
        for way in (a, b):
            known = way if isinstance(way, Way) else Way(way)
            ends.append(await connected(known, link, wait_seconds))
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


async def connected(way: Way, link: LinkName, wait_seconds: float) -> End:
    """One end, which says first that it is ready and has one port on the link."""
    hardware = way.connect()
    reports = aiter(hardware.reports())
    try:
        async with asyncio.timeout(wait_seconds):
            ready: Any = await _following(reports, way)
        said = f"{way.name}: the first report is {type(ready).__name__}"
        require(isinstance(ready, Ready), f"{said}, and must be Ready")
        ports = [port for port in ready.ports if port.link == link]
        names = ", ".join(port.link for port in ready.ports) or "none"
        require(len(ports) == 1, f"{way.name}: no port on link {link}; there are: {names}")
    except TimeoutError as error:
        await hardware.close()
        raise way.failed(f"not ready within {wait_seconds:g} seconds") from error
    except BaseException:
        await hardware.close()
        raise
    return End(hardware, ports[0], wait_seconds, way, reports)
