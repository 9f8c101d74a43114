"""A device checked against what it was ordered: each fault named, nothing malformed passed on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bellhop.hal import watched
from bellhop.hal.operations import (
    Attempt,
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
from bellhop.hal.watched import DeviceFault, Fault, Watch, Watched

LINK = LinkName("fibre")
REQUEST = RequestId("0f" * 16)
UNKNOWN = RequestId("a0" * 16)
ROUNDS = 4

ATTEMPT = Attempt(LINK, REQUEST, 0, ROUNDS)
MEASURE = Measure(LINK, REQUEST, 0, np.zeros(ROUNDS, dtype=np.uint8))


def heralded(block: int = 0, first: int = 0, **fields: Any) -> Heralded:
    attempts = np.arange(first, first + ROUNDS, dtype=np.int64)
    report = Heralded(LINK, REQUEST, block, attempts, np.zeros(ROUNDS, np.uint8), 10, 20)
    return replace(report, **fields)


def measured(**fields: Any) -> Measured:
    ones = np.ones(ROUNDS, dtype=np.uint8)
    return replace(Measured(LINK, REQUEST, 0, ones, ones.astype(np.bool_)), **fields)


def lost(operation: str = "attempt", **fields: Any) -> MemoryLost:
    return replace(MemoryLost(LINK, REQUEST, 0, operation, "an ion left"), **fields)


def watching(*before: Operation | Report) -> Watch:
    watch = Watch()
    for one in before:
        if isinstance(one, Attempt | Measure | Release):
            watch.ordered(one)
        else:
            watch.check(one)
    return watch


NEXT = Attempt(LINK, REQUEST, 1, ROUNDS)
FAULTS: dict[str, tuple[tuple[Operation | Report, ...], Report, Fault, str]] = {
    "heralds of no request": ((), heralded(), Fault.NEVER_ORDERED, "never made"),
    "heralds of another block": (
        (ATTEMPT,), heralded(block=7), Fault.NEVER_ORDERED, "block 7 that were never ordered",
    ),
    "heralds twice": ((ATTEMPT, heralded()), heralded(), Fault.DUPLICATE, "reported before"),
    "too few heralds": (
        (replace(ATTEMPT, rounds=9),), heralded(), Fault.IMPOSSIBLE, "4 rounds where 9",
    ),
    "no Bell state": (
        (ATTEMPT,), heralded(patterns=np.full(ROUNDS, 4, np.uint8)), Fault.IMPOSSIBLE, "Bell state",
    ),
    "time that runs back": ((ATTEMPT,), heralded(ended_ns=9), Fault.IMPOSSIBLE, "ended at 9 ns"),
    "attempts that fall": (
        (ATTEMPT,), heralded(attempts=np.array([0, 2, 1, 3])), Fault.OUT_OF_ORDER, "do not rise",
    ),
    "a block before its time": (
        (ATTEMPT, NEXT, heralded(first=100)), heralded(block=1, first=50), Fault.OUT_OF_ORDER,
        "begins with attempt 50, after block 0 ended with attempt 103",
    ),
    "outcomes unordered": ((ATTEMPT, heralded()), measured(), Fault.NEVER_ORDERED, "outcomes"),
    "outcomes twice": ((MEASURE, measured()), measured(), Fault.DUPLICATE, "reported before"),
    "too few outcomes": (
        (replace(MEASURE, settings=np.zeros(9, np.uint8)),), measured(), Fault.IMPOSSIBLE, "9 were",
    ),
    "no bit": (
        (MEASURE,), measured(outcomes=np.full(ROUNDS, 2, np.uint8)), Fault.IMPOSSIBLE, "no bit",
    ),
    "an outcome without an answer": (
        (MEASURE,), measured(answered=np.zeros(ROUNDS, np.bool_)), Fault.IMPOSSIBLE, "not answer",
    ),
    "a loss of nothing": ((ATTEMPT,), lost("measure"), Fault.NEVER_ORDERED, "of no measure"),
    "a loss twice": ((ATTEMPT, lost()), lost(), Fault.NEVER_ORDERED, "of no attempt"),
    "heralds after a restart": ((ATTEMPT, Ready(())), heralded(), Fault.NEVER_ORDERED, "never"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_what_a_device_cannot_say_is_named(what: str) -> None:
    before, said, fault, words = FAULTS[what]
    with pytest.raises(DeviceFault, match=words) as caught:
        watching(*before).check(said)
    assert caught.value.fault is fault
    assert caught.value.who_must_act == "whoever runs the device"
    assert "fibre" in caught.value.message


def test_what_a_device_may_say_passes() -> None:
    again = Measure(LINK, REQUEST, 0, MEASURE.settings)
    watching(
        ATTEMPT, NEXT, heralded(), MEASURE, measured(), heralded(block=1, first=9), again
    ).check(lost("measure"))
    watching(ATTEMPT, ATTEMPT, lost()).check(heralded())  # ordered again, refused once
    watching(ATTEMPT, DeviceGone("x"), Ready(()), ATTEMPT).check(heralded())


def test_reports_on_their_way_at_a_release_are_no_faults() -> None:
    watch = watching(ATTEMPT, Release(LINK, REQUEST))
    watch.check(heralded())
    for number in range(watched.RELEASED_MAX):
        watch.ordered(Release(LINK, RequestId(f"{number:032x}")))
    with pytest.raises(DeviceFault, match="never made"):
        watch.check(heralded())  # long forgotten


@pytest.mark.parametrize("between", [(), (ATTEMPT,)])
def test_a_request_is_remembered_from_its_last_release(between: tuple[Operation, ...]) -> None:
    watch = watching(Release(LINK, REQUEST))
    others = [Release(LINK, RequestId(f"{number:032x}")) for number in range(watched.RELEASED_MAX)]
    for one in (*others[:-1], *between, Release(LINK, REQUEST), others[-1]):
        watch.ordered(one)
    watch.check(heralded())  # on its way when it was released again


# --- around a device ------------------------------------------------------------------------------


class Scripted:
    """A `Hardware` that says what is put into `said`, until None."""

    def __init__(self, *said: Report) -> None:
        self.said: asyncio.Queue[Report | None] = asyncio.Queue()
        for one in said:
            self.said.put_nowait(one)
        self.orders: list[Operation] = []

    async def submit(self, operation: Operation) -> None:
        self.orders.append(operation)

    async def reports(self) -> AsyncIterator[Report]:
        while (report := await self.said.get()) is not None:
            yield report

    async def close(self) -> None:
        self.said.put_nowait(None)


async def told(*said: Report, orders: tuple[Operation, ...] = ()) -> tuple[list[Any], list[Fault]]:
    """What is passed on after Ready and `orders`, and the faults that were named."""
    device, faults = Scripted(Ready(())), list[DeviceFault]()
    memory = Watched(device, faults.append)
    reports = aiter(memory.reports())
    passed: list[Any] = []
    assert isinstance(await anext(reports), Ready)
    for order in orders:
        await memory.submit(order)
    for one in said:
        device.said.put_nowait(one)
    await memory.close()
    passed = [report async for report in reports]
    assert device.orders == list(orders)
    return passed, [one.fault for one in faults]


async def test_what_nobody_asked_for_is_dropped() -> None:
    passed, faults = await told(
        heralded(request=UNKNOWN), heralded(), heralded(), orders=(ATTEMPT,)
    )
    assert [type(one) for one in passed] == [Heralded]
    assert faults == [Fault.NEVER_ORDERED, Fault.DUPLICATE]


@pytest.mark.parametrize(
    ("order", "said", "operation"),
    [
        (ATTEMPT, heralded(ended_ns=9), "attempt"),
        (MEASURE, measured(outcomes=np.full(ROUNDS, 2, np.uint8)), "measure"),
    ],
)
async def test_what_cannot_be_is_lost(order: Operation, said: Report, operation: str) -> None:
    passed, faults = await told(said, orders=(order,))
    (report,) = passed
    assert isinstance(report, MemoryLost)
    assert (report.request, report.block, report.operation) == (REQUEST, 0, operation)
    assert "fibre" in report.reason and faults == [Fault.IMPOSSIBLE]


async def test_a_device_that_says_what_it_should_is_left_alone() -> None:
    said = (heralded(), measured(), DeviceGone("x"))
    passed, faults = await told(*said, orders=(ATTEMPT, MEASURE))
    assert passed == list(said) and faults == []


async def test_what_a_device_says_it_lost_is_logged_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    passed, faults = await told(lost(), orders=(ATTEMPT,))
    assert passed == [lost()] and faults == []
    assert "fibre lost block 0 (attempt): an ion left" in caplog.text


async def stalling(monkeypatch: pytest.MonkeyPatch, say: Callable[[Scripted], None]) -> list[Any]:
    monkeypatch.setattr(watched, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(watched, "ANSWER_SECONDS_PER_ROUND", 0.0)
    device, heard = Scripted(Ready(())), list[Any]()
    memory = Watched(device, lambda fault: heard.append(fault.fault))
    reports = aiter(memory.reports())
    await anext(reports)
    await memory.submit(MEASURE)
    heard.append(await anext(reports))
    say(device)
    await memory.close()
    heard += [report async for report in reports]
    return heard


async def test_outcomes_that_do_not_come_have_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """And if they come after all, nobody waits for them any more."""
    heard = await stalling(monkeypatch, lambda device: device.said.put_nowait(measured()))
    assert heard[0] is Fault.STALLED
    assert isinstance(heard[1], MemoryLost)
    assert heard[1].operation == "measure" and "stalled" in heard[1].reason
    assert heard[2:] == [Fault.NEVER_ORDERED]
