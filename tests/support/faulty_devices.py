"""Devices with one fault each, planted around an emulated one, for the suite to find."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.embedded import Embedded, EmbeddedMemory
from bellhop.hal.emulator.nature import Nature, links_of
from bellhop.hal.operations import (
    Attempt,
    BellState,
    DeviceGone,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    NodeName,
    Operation,
    Ready,
    Release,
    Report,
    RequestId,
    Side,
)
from bellhop.hal.preset import load_preset

FIBRE = LinkName("fibre")
NODES = {Side.A: NodeName("alice"), Side.B: NodeName("bob")}
STRANGE = RequestId("5e" * 16)

Outcomes = NDArray[np.uint8]


def network(seed: int = 1, preset: str = "oxford") -> Embedded:
    """One link in this process."""
    links = links_of({FIBRE: (NODES[Side.A], NODES[Side.B])}, load_preset(preset, {}))
    return Embedded(Nature(links, np.random.default_rng(seed), Clock(fast=True)))


@dataclass
class Fault:
    """What a faulty device makes of its reports and orders; one object for one end's life.

    `other` is the fault of the other end, for devices that conspire.
    """

    side: Side
    generator: np.random.Generator
    settings: dict[tuple[RequestId, int], Outcomes] = field(default_factory=dict)
    outcomes: dict[tuple[RequestId, int], Outcomes] = field(default_factory=dict)
    held: list[Report] = field(default_factory=list)
    other: "Fault | None" = None
    outlives_its_stream: ClassVar[bool] = False

    def said(self, report: Report) -> Iterable[Report]:
        return [report]

    def taken(self, operation: Operation) -> Iterable[Operation | Report]:
        """Orders to pass on; a report among them is said instead."""
        return [operation]


class Faulty:
    """A `Hardware` with a fault."""

    def __init__(self, inner: EmbeddedMemory, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault
        self._reports: asyncio.Queue[Report | None] = asyncio.Queue()

    async def submit(self, operation: Operation) -> None:
        if isinstance(operation, Measure):
            block = (operation.request, operation.block)
            self._fault.settings.setdefault(block, operation.settings)
        for one in self._fault.taken(operation):
            if isinstance(one, Attempt | Measure | Release):
                await self._inner.submit(one)
            else:
                self._say(one)

    async def reports(self) -> AsyncIterator[Report]:
        listening = asyncio.ensure_future(self._listen())
        try:
            while (report := await self._reports.get()) is not None:
                yield report
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self) -> None:
        async for report in self._inner.reports():
            for said in self._fault.said(report):
                self._say(said)
        if not self._fault.outlives_its_stream:
            self._reports.put_nowait(None)

    def _say(self, report: Report) -> None:
        if isinstance(report, Measured):
            self._fault.outcomes[report.request, report.block] = report.outcomes
        self._reports.put_nowait(report)

    async def close(self) -> None:
        await self._inner.close()
        self._reports.put_nowait(None)


# --- reports --------------------------------------------------------------------------------------


class StallsInMeasurements(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        return [] if isinstance(report, Measured) else [report]


class StallsInHeralds(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        return [] if isinstance(report, Heralded) and self.side is Side.B else [report]


class NotReady(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        return [DeviceGone("warming up")] if isinstance(report, Ready) else [report]


class SaysAtOneEndThatItDetects(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Ready) and self.side is Side.B:
            return [Ready(tuple(replace(p, herald_is_measurement=True) for p in report.ports))]
        return [report]


class SaysTwice(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        return [report, report] if isinstance(report, Measured) else [report]


class SaysTwiceLater(Fault):
    """Repeats the last outcomes when it is asked to measure again."""

    def taken(self, operation: Operation) -> Iterable[Operation | Report]:
        if isinstance(operation, Release):
            return [operation]
        block = (operation.request, operation.block)
        if isinstance(operation, Measure) and block in self.outcomes:
            outcomes = self.outcomes[block]
            answered = np.ones(len(outcomes), dtype=np.bool_)
            return [Measured(operation.link, *block, outcomes, answered)]
        return [operation]


class NeverOrdered(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Heralded):
            return [replace(report, request=STRANGE), report]
        return [report]


class OutcomesOfTwo(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Measured):
            return [replace(report, outcomes=report.outcomes + np.uint8(2))]
        return [report]


class TooFewOutcomes(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Measured):
            return [replace(report, outcomes=report.outcomes[1:], answered=report.answered[1:])]
        return [report]


class TooManyHeralds(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Heralded):
            attempts = np.append(report.attempts, report.attempts[-1] + 1)
            patterns = np.append(report.patterns, report.patterns[-1])
            return [replace(report, attempts=attempts, patterns=patterns)]
        return [report]


class OutcomesUnanswered(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Measured):
            return [replace(report, answered=np.zeros(len(report.answered), dtype=np.bool_))]
        return [report]


class HardlyAnswers(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Measured):
            answered = np.arange(len(report.answered)) % 8 == 0
            outcomes = (report.outcomes & answered).astype(np.uint8)
            return [replace(report, outcomes=outcomes, answered=answered)]
        return [report]


class AttemptsFall(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Heralded):
            return [replace(report, attempts=report.attempts[::-1].copy())]
        return [report]


class AttemptsBeginAnew(Fault):
    """The counter is set back at each block, at both ends."""

    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Heralded):
            return [replace(report, attempts=report.attempts - report.attempts[0])]
        return [report]


class TimeRunsBack(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Heralded):
            return [replace(report, begun_ns=report.ended_ns, ended_ns=report.begun_ns)]
        return [report]


class BlocksOutOfOrder(Fault):
    """Two blocks that are heralded one after the other are told the other way round."""

    def said(self, report: Report) -> Iterable[Report]:
        if not isinstance(report, Heralded):
            return [report]
        if not self.held:
            self.held.append(report)
            return []
        return [report, self.held.pop()]


class LosesForNoReason(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        return [replace(report, reason="") if isinstance(report, MemoryLost) else report]


class SilentlyRefuses(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        return [] if isinstance(report, MemoryLost) else [report]


class OutlivesItsStream(Fault):
    outlives_its_stream = True

    def said(self, report: Report) -> Iterable[Report]:
        return [] if isinstance(report, DeviceGone) else [report]


# --- orders ---------------------------------------------------------------------------------------


class KeepsWhatIsReleased(Fault):
    def taken(self, operation: Operation) -> Iterable[Operation | Report]:
        return [] if isinstance(operation, Release) else [operation]


class MeasuresNothing(Fault):
    """Answers for pairs that it does not hold."""

    def taken(self, operation: Operation) -> Iterable[Operation | Report]:
        if not isinstance(operation, Measure):
            return [operation]
        rounds = len(operation.settings)
        outcomes = self.generator.integers(2, size=rounds, dtype=np.uint8)
        block = (operation.link, operation.request, operation.block)
        return [Measured(*block, outcomes, np.ones(rounds, dtype=np.bool_))]


class TakesAnySetting(Fault):
    def taken(self, operation: Operation) -> Iterable[Operation | Report]:
        if isinstance(operation, Measure):
            return [replace(operation, settings=operation.settings % np.uint8(2))]
        return [operation]


# --- outcomes -------------------------------------------------------------------------------------


class LiesAboutHeralds(Fault):
    """Announces Psi- whatever it was, at both ends."""

    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Heralded):
            lie = np.full(len(report.patterns), int(BellState.PSI_MINUS), dtype=np.uint8)
            return [replace(report, patterns=lie)]
        return [report]


class LiesAtOneEnd(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Heralded) and self.side is Side.B:
            return [replace(report, patterns=report.patterns ^ np.uint8(2))]
        return [report]


class _Answers(Fault):
    """Makes its outcomes up from settings and true outcomes."""

    def said(self, report: Report) -> Iterable[Report]:
        if not isinstance(report, Measured):
            return [report]
        settings = self.settings[report.request, report.block]
        return [replace(report, outcomes=self.answer(report, settings))]

    def answer(self, report: Measured, settings: Outcomes) -> Outcomes:
        raise NotImplementedError

    def theirs(self, report: Measured) -> tuple[Outcomes, Outcomes] | None:
        """The other end's settings and outcomes, if it was measured before."""
        assert self.other is not None
        block = (report.request, report.block)
        if block not in self.other.outcomes:
            return None
        return self.other.settings[block], self.other.outcomes[block]


class Noisy(_Answers):
    def answer(self, report: Measured, settings: Outcomes) -> Outcomes:
        noise = self.generator.integers(2, size=len(settings), dtype=np.uint8)
        spoilt = self.generator.random(len(settings)) < 0.6
        told: Outcomes = np.where(spoilt, noise, report.outcomes).astype(np.uint8)
        return told


class Remembers(_Answers):
    """Every third outcome is the one of the round before."""

    def answer(self, report: Measured, settings: Outcomes) -> Outcomes:
        outcomes = report.outcomes.copy()
        for index in np.flatnonzero(self.generator.random(len(settings)) < 1 / 3).tolist():
            if index > 0:
                outcomes[index] = outcomes[index - 1]
        return outcomes


class Signals(_Answers):
    """What is measured second says 1 more often if the other end's setting was 0."""

    def answer(self, report: Measured, settings: Outcomes) -> Outcomes:
        theirs = self.theirs(report)
        if theirs is None:
            return report.outcomes
        pushed = (theirs[0] == 0) & (self.generator.random(len(settings)) < 0.3)
        told: Outcomes = (report.outcomes | pushed).astype(np.uint8)
        return told


class BeyondQuantum(_Answers):
    """What is measured second knows the other end's settings: S = 4, and nothing signals.

    S. Popescu and D. Rohrlich, Found. Phys. 24, 379 (1994).  Said of Psi-, so that b is reversed.
    """

    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Heralded):
            lie = np.full(len(report.patterns), int(BellState.PSI_MINUS), dtype=np.uint8)
            return [replace(report, patterns=lie)]
        return super().said(report)

    def answer(self, report: Measured, settings: Outcomes) -> Outcomes:
        theirs = self.theirs(report)
        if theirs is None:
            return self.generator.integers(2, size=len(settings), dtype=np.uint8)
        both = ((settings == 1) & (theirs[0] == 1)).astype(np.uint8)
        told: Outcomes = (theirs[1] ^ both ^ 1).astype(np.uint8)
        return told
