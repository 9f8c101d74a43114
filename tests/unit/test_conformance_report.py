"""What the suite makes of devices that hold one pair, get lost in mid run, or raise."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import numpy as np
import pytest
from tests.support.faulty_devices import FIBRE, NODES, Fault, Faulty, network

from bellhop.hal.conformance import CHECKS, Check, Device, Verdict, Way, bench, run_suite
from bellhop.hal.hardware import Hardware
from bellhop.hal.operations import (
    Attempt,
    DeviceGone,
    Heralded,
    Measured,
    MemoryLost,
    Operation,
    Ready,
    Release,
    Report,
    RequestId,
    Side,
)
from bellhop.node.cli.hal import _document, _text

STATISTICAL = [check for check in CHECKS if "statistical" in check.run.__module__]
ROUNDS = 1_024


def named(*names: str) -> list[Check]:
    return [check for check in CHECKS if check.name in names]


async def verdicts_on(kind: type[Fault], chosen: list[Check]) -> list[Verdict]:
    embedded = network()

    def connect(side: Side) -> Hardware:
        return Faulty(embedded.memory(NODES[side]), kind(side, np.random.default_rng(1)))

    device = Device(FIBRE, lambda: connect(Side.A), lambda: connect(Side.B))
    return await run_suite(
        device, np.random.default_rng(3), wait_seconds=10.0, rounds=ROUNDS, chosen=chosen
    )


class Limited(Fault):
    """Holds so many pairs."""

    pairs = 64

    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Ready):
            return [Ready(tuple(replace(port, rounds_max=self.pairs) for port in report.ports))]
        return [report]


class SingleIon(Limited):
    """One pair at a time; the first and every third after it are not answered."""

    pairs = 1

    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Measured) and report.block % 3 == 0:
            none = np.zeros(1, dtype=np.uint8)
            return [replace(report, outcomes=none, answered=none.astype(np.bool_))]
        return super().said(report)


async def test_a_single_ion_may_miss_a_round() -> None:
    (verdict,) = await verdicts_on(SingleIon, named("most_rounds_are_answered"))
    assert verdict.outcome == "passed", verdict.seen


class FewBlocks(Limited):
    """No request has more than four blocks, and each is released."""

    blocks = 4

    def __init__(self, side: Side, generator: np.random.Generator) -> None:
        super().__init__(side, generator)
        self.requests: set[RequestId] = set()

    def taken(self, operation: Operation) -> Iterable[Operation | Report]:
        if isinstance(operation, Release):
            self.requests.discard(operation.request)
        elif isinstance(operation, Attempt):
            self.requests.add(operation.request)
            if operation.block >= self.blocks or len(self.requests) > 1:
                head = (operation.link, operation.request, operation.block)
                return [MemoryLost(*head, "attempt", "too many blocks")]
        return [operation]


async def test_many_rounds_are_spread_over_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "REQUEST_BLOCKS_MAX", FewBlocks.blocks)
    (verdict,) = await verdicts_on(FewBlocks, named("outcomes_do_not_signal"))
    assert verdict.outcome == "passed", verdict.seen


class TooFast(Fault):
    """One nanosecond is missing."""

    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Heralded):
            spanned = int(report.attempts[-1] - report.attempts[0])
            return [replace(report, ended_ns=report.begun_ns + spanned - 1)]
        return [report]


async def test_no_attempt_takes_less_than_a_nanosecond() -> None:
    (verdict,) = await verdicts_on(TooFast, named("attempts_and_times_rise"))
    assert verdict.outcome == "failed" and "attempts in" in verdict.seen


class LosesOutcomes(Fault):
    """Of blocks that are long enough for statistics."""

    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Measured) and len(report.outcomes) == ROUNDS:
            head = (report.link, report.request, report.block)
            return [MemoryLost(*head, "measure", "the laser lost its lock")]
        return [report]


class Leaves(Fault):
    def said(self, report: Report) -> Iterable[Report]:
        if isinstance(report, Measured) and len(report.outcomes) == ROUNDS:
            return [DeviceGone("the cable was pulled")]
        return [report]


@pytest.mark.parametrize(
    ("kind", "why"), [(LosesOutcomes, "the laser lost its lock"), (Leaves, "the cable was pulled")]
)
async def test_a_loss_is_told_once_and_sends_nobody_to_the_lasers(
    kind: type[Fault], why: str
) -> None:
    first, *others = await verdicts_on(kind, STATISTICAL)
    assert first.outcome == "failed" and why in first.seen
    assert first.look_at and "lasers" not in first.look_at
    assert {verdict.outcome for verdict in others} == {"not run"}
    assert len(others) == 3
    told = _document(first)
    assert told["look_at"] == first.look_at
    text = _text([first, *others])
    assert "lasers" not in text and first.look_at in text and others[0].seen in text


class Once:
    """A service that is there for `lives` connections, and then not."""

    def __init__(self, lives: int) -> None:
        self._lives = lives
        self._embedded = network()

    def connect(self, side: Side) -> Hardware:
        self._lives -= 1
        memory = self._embedded.memory(NODES[side])
        return memory if self._lives >= 0 else Silent()

    def way(self, side: Side) -> Way:
        return Way(lambda: self.connect(side), f"the trap of {NODES[side]}", lambda: "refused")


class Silent:
    async def submit(self, operation: Operation) -> None:
        pass

    async def reports(self) -> AsyncIterator[Report]:
        for report in list[Report]():
            yield report

    async def close(self) -> None:
        pass


async def test_nothing_more_is_run_when_the_ends_are_gone_for_good() -> None:
    service = Once(3)
    chosen = named("ready_comes_first", "nothing_comes_unasked", "both_ends_order_the_same")
    device = Device(FIBRE, service.way(Side.A), service.way(Side.B))
    first, second, third = await run_suite(device, np.random.default_rng(3), chosen=chosen)
    assert first.outcome == "passed", first.seen
    assert second.outcome == "failed"
    assert second.seen == "the trap of bob: the reports ended: refused"
    assert third.outcome == "not run"


class Raises(Fault):
    def taken(self, operation: Operation) -> Iterable[Operation | Report]:
        if isinstance(operation, Attempt) and operation.link != FIBRE:
            raise KeyError(operation.link)
        return [operation]


async def test_what_a_device_in_this_process_raises_is_a_verdict_on_it() -> None:
    chosen = named("an_unknown_link_is_refused", "what_is_released_makes_room")
    one, other = await verdicts_on(Raises, chosen)
    assert one.outcome == "failed" and "KeyError" in one.seen and __file__ in one.seen
    assert other.outcome == "passed", other.seen
