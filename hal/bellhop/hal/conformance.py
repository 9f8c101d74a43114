"""The checks every `Hardware` must pass, emulated or real, given both ends of one link.

Each check is a coroutine over two attached ends; it raises NotConforming saying what was wrong.
Statistical checks use thresholds of five standard deviations.  What cannot be seen from outside is
not checked here: that a device is shown one setting at a time is a property of the implementation.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.errors import HardwareError
from bellhop.hal.hardware import Hardware
from bellhop.hal.operations import (
    Attempt,
    BellState,
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

SIGMAS = 5.0
ROUNDS = 64
STATISTICS_ROUNDS = 32_768

Outcomes = NDArray[np.uint8]
ReportType = TypeVar("ReportType", bound=Report)


class NotConforming(HardwareError):
    """The device does not keep to the interface."""


@dataclass(slots=True)
class End:
    """One end of the link under test: its hardware, its reports, and its port from `Ready`."""

    hardware: Hardware
    port: Port
    _reports: AsyncIterator[Report]
    _wait_seconds: float

    async def order(self, operation: Operation) -> None:
        await self.hardware.submit(operation)

    async def expect(self, kind: type[ReportType]) -> ReportType:
        """The next report, which must be of this kind."""
        report = await _next(self._reports, self._wait_seconds)
        if isinstance(report, kind):
            return report
        reason = f" ({report.reason})" if isinstance(report, MemoryLost) else ""
        raise NotConforming(
            f"expected {kind.__name__}, the device said {type(report).__name__}{reason}"
        )

    async def refused(self, operation: Attempt | Measure) -> None:
        """Order what cannot be; it must be said to be lost, and nothing else must happen."""
        await self.order(operation)
        lost = await self.expect(MemoryLost)
        name = "attempt" if isinstance(operation, Attempt) else "measure"
        meant = (operation.link, operation.request, operation.block, name)
        said = (lost.link, lost.request, lost.block, lost.operation)
        require(meant == said, "what is lost is what was ordered")
        require(bool(lost.reason), "what is lost has a reason")


@dataclass(slots=True)
class Bench:
    """Both ends of one link, and chance for settings and names."""

    a: End
    b: End
    generator: np.random.Generator

    @property
    def link(self) -> LinkName:
        return self.a.port.link

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
        for report in (first, second):
            ids = (report.link, report.request, report.block)
            require(ids == (self.link, request, block), "a herald names the block ordered")
            require(len(report.attempts) == len(report.patterns) == rounds, "a herald a round")
        require(bool(np.array_equal(first.attempts, second.attempts)), "attempts are equal")
        require(bool(np.array_equal(first.patterns, second.patterns)), "patterns are equal")
        return first

    async def measure(self, end: End, herald: Heralded, settings: Outcomes) -> Measured:
        await end.order(Measure(self.link, herald.request, herald.block, settings))
        measured = await end.expect(Measured)
        ids = (measured.link, measured.request, measured.block)
        require(ids == (self.link, herald.request, herald.block), "outcomes name their block")
        lengths = {len(measured.outcomes), len(measured.answered)}
        require(lengths == {len(settings)}, "there is one outcome a round")
        require(int(measured.outcomes.max()) <= 1, "outcomes are bits")
        return measured

    async def release(self, request: RequestId) -> None:
        for end in (self.a, self.b):
            await end.order(Release(self.link, request))


Check = Callable[[Bench], Awaitable[None]]


def require(holds: bool, rule: str) -> None:
    if not holds:
        raise NotConforming(f"the device breaks a rule: {rule}")


async def attach(
    a: Hardware, b: Hardware, link: LinkName, generator: np.random.Generator, wait_seconds: float
) -> Bench:
    """Both ends of `link`: either says first that it is ready, and they agree on the link."""
    ends = [await _attach(hardware, link, wait_seconds) for hardware in (a, b)]
    ends.sort(key=lambda end: end.port.side.value)
    sides = tuple(end.port.side for end in ends)
    require(sides == (Side.A, Side.B), "a link has a side A and a side B")
    require(ends[0].port.settings >= 2, "side A has two settings")
    require(ends[1].port.settings >= 3, "side B has three settings")
    require(ends[0].port.source is ends[1].port.source, "both ends are emulated, or neither")
    return Bench(ends[0], ends[1], generator)


async def _attach(hardware: Hardware, link: LinkName, wait_seconds: float) -> End:
    reports = aiter(hardware.reports())
    ready = await _next(reports, wait_seconds)
    if not isinstance(ready, Ready):
        raise NotConforming("a device says first that it is ready")
    ports = [port for port in ready.ports if port.link == link]
    require(len(ports) == 1, "a device has one port on its link")
    return End(hardware, ports[0], reports, wait_seconds)


async def _next(reports: AsyncIterator[Report], wait_seconds: float) -> Report:
    try:
        async with asyncio.timeout(wait_seconds):
            return await anext(reports)
    except TimeoutError as error:
        raise NotConforming(f"no report within {wait_seconds:g} seconds") from error
    except StopAsyncIteration as error:
        raise NotConforming("the reports ended") from error


# The checks


async def heralds_and_outcomes_come_in_blocks(bench: Bench) -> None:
    """Attempt numbers rise throughout a request; each block is measured at either end."""
    request = bench.request()
    last = -1
    for block in range(3):
        herald = await bench.herald(request, block, ROUNDS)
        require(int(herald.attempts[0]) > last, "attempts rise from block to block")
        require(bool(np.all(np.diff(herald.attempts) > 0)), "attempts rise within a block")
        require(herald.begun_ns <= herald.ended_ns, "a block ends after it began")
        last = int(herald.attempts[-1])
        for end in (bench.a, bench.b):
            await bench.measure(end, herald, bench.settings(end, ROUNDS))
    await bench.release(request)


async def a_block_is_measured_once(bench: Bench) -> None:
    request = bench.request()
    herald = await bench.herald(request, 0, ROUNDS)
    for end in (bench.a, bench.b):
        settings = bench.settings(end, ROUNDS)
        await bench.measure(end, herald, settings)
        await end.refused(Measure(bench.link, request, 0, settings))
    await bench.a.refused(Attempt(bench.link, request, 0, ROUNDS))
    await bench.release(request)


async def what_is_not_heralded_is_not_measured(bench: Bench) -> None:
    request = bench.request()
    settings = bench.settings(bench.a, ROUNDS)
    await bench.a.refused(Measure(bench.link, request, 0, settings))
    await bench.a.order(Attempt(bench.link, request, 0, ROUNDS))
    await bench.a.refused(Measure(bench.link, request, 0, settings))
    await bench.release(request)


async def settings_fit_the_block_and_the_port(bench: Bench) -> None:
    """A refused measurement spends nothing: the block can still be measured."""
    request = bench.request()
    herald = await bench.herald(request, 0, ROUNDS)
    for end in (bench.a, bench.b):
        short = np.zeros(ROUNDS - 1, dtype=np.uint8)
        await end.refused(Measure(bench.link, request, 0, short))
        if end.port.settings < 16:
            beyond = np.full(ROUNDS, end.port.settings, dtype=np.uint8)
            await end.refused(Measure(bench.link, request, 0, beyond))
        await bench.measure(end, herald, bench.settings(end, ROUNDS))
    await bench.release(request)


async def both_ends_order_the_same(bench: Bench) -> None:
    """A mismatch is lost at both ends."""
    request = bench.request()
    await bench.a.order(Attempt(bench.link, request, 0, ROUNDS))
    await bench.b.order(Attempt(bench.link, request, 0, ROUNDS + 1))
    for end in (bench.a, bench.b):
        lost = await end.expect(MemoryLost)
        require((lost.block, lost.operation) == (0, "attempt"), "the mismatched block is lost")
    await bench.release(request)


async def an_unknown_link_is_refused(bench: Bench) -> None:
    for end in (bench.a, bench.b):
        await end.refused(Attempt(LinkName("no-such-link"), bench.request(), 0, ROUNDS))


async def a_released_request_is_given_up_at_one_end(bench: Bench) -> None:
    """The end that released has nothing any more; the other keeps its halves."""
    for leaving, staying in ((bench.a, bench.b), (bench.b, bench.a)):
        request = bench.request()
        herald = await bench.herald(request, 0, ROUNDS)
        await leaving.order(Release(bench.link, request))
        settings = bench.settings(leaving, ROUNDS)
        await leaving.refused(Measure(bench.link, request, 0, settings))
        await bench.measure(staying, herald, bench.settings(staying, ROUNDS))
        await staying.order(Release(bench.link, request))


async def outcomes_do_not_signal(bench: Bench) -> None:
    """Neither end's outcomes depend on the other's settings, whichever is measured first."""
    for first, second in ((bench.a, bench.b), (bench.b, bench.a)):
        request = bench.request()
        herald = await bench.herald(request, 0, STATISTICS_ROUNDS)
        settings = [bench.settings(end, STATISTICS_ROUNDS) for end in (first, second)]
        told = [
            await bench.measure(end, herald, chosen)
            for end, chosen in zip((first, second), settings, strict=True)
        ]
        await bench.release(request)
        for own, its in ((0, 1), (1, 0)):
            excess = signalling(herald.patterns, settings[own], told[own].outcomes, settings[its])
            rule = f"outcomes signal at {excess:.1f} standard deviations"
            require(excess < SIGMAS, rule)


async def outcomes_violate_chsh(bench: Bench) -> None:
    """S above 2 by five standard deviations, in either order of measurement."""
    for first, second in ((bench.a, bench.b), (bench.b, bench.a)):
        request = bench.request()
        herald = await bench.herald(request, 0, STATISTICS_ROUNDS)
        chosen: dict[Side, Outcomes] = {}
        outcomes: dict[Side, Outcomes] = {}
        for end in (first, second):
            side = end.port.side
            chosen[side] = bench.settings(end, STATISTICS_ROUNDS, (0, 1))
            outcomes[side] = (await bench.measure(end, herald, chosen[side])).outcomes
        await bench.release(request)
        x, y = chosen[Side.A], chosen[Side.B]
        a, b = framed(herald.patterns, x, outcomes[Side.A], outcomes[Side.B])
        value, error = chsh_estimate(x, y, a, b)
        require(value - SIGMAS * error > 2.0, f"S is {value:.3f} with error {error:.3f}")


CHECKS: tuple[Check, ...] = (
    heralds_and_outcomes_come_in_blocks,
    a_block_is_measured_once,
    what_is_not_heralded_is_not_measured,
    settings_fit_the_block_and_the_port,
    both_ends_order_the_same,
    an_unknown_link_is_refused,
    a_released_request_is_given_up_at_one_end,
    outcomes_do_not_signal,
    outcomes_violate_chsh,
)


# Statistics


def framed(
    patterns: Outcomes, settings_a: Outcomes, outcomes_a: Outcomes, outcomes_b: Outcomes
) -> tuple[Outcomes, Outcomes]:
    """Both ends' outcomes as if Phi+ had been heralded.

    Psi-: b ^ 1.  Psi+: b ^ 1, a ^ x.  Phi-: a ^ x.
    """
    reverses_b = np.isin(patterns, (BellState.PSI_PLUS, BellState.PSI_MINUS))
    reverses_x = np.isin(patterns, (BellState.PSI_PLUS, BellState.PHI_MINUS))
    flips_a = (reverses_x & (settings_a == 1)).astype(np.uint8)
    return outcomes_a ^ flips_a, outcomes_b ^ reverses_b.astype(np.uint8)


def chsh_estimate(x: Outcomes, y: Outcomes, a: Outcomes, b: Outcomes) -> tuple[float, float]:
    """S and its standard error, from rounds with settings 0 and 1."""
    value = variance = 0.0
    for setting_x in (0, 1):
        for setting_y in (0, 1):
            among = (x == setting_x) & (y == setting_y)
            count = int(among.sum())
            correlation = 1.0 - 2.0 * float((a[among] ^ b[among]).mean())
            value += -correlation if setting_x and setting_y else correlation
            variance += (1.0 - correlation**2) / count
    return value, math.sqrt(variance)


def signalling(
    patterns: Outcomes, settings: Outcomes, outcomes: Outcomes, others: Outcomes
) -> float:
    """How many standard deviations the frequencies of outcome 1 differ at most between two of the
    other end's settings, own setting and herald being the same."""
    greatest = 0.0
    for pattern in np.unique(patterns):
        for setting in np.unique(settings):
            among = (patterns == pattern) & (settings == setting)
            ones = [outcomes[among & (others == other)] for other in np.unique(others)]
            pooled = float(outcomes[among].mean())
            for index, one in enumerate(ones):
                for another in ones[:index]:
                    spread = pooled * (1.0 - pooled) * (1.0 / len(one) + 1.0 / len(another))
                    difference = abs(float(one.mean()) - float(another.mean()))
                    greatest = max(greatest, difference / math.sqrt(max(spread, 1e-12)))
    return greatest
