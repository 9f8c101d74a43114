"""Drivers that do not end, end by themselves, answer late, or say too much."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.scripted_laboratory import FIBRE, Lab
from tests.support.waiting import until

from bellhop.hal.laboratory import Herald, LaboratoryError
from bellhop.hal.operations import (
    Attempt,
    BellState,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    Release,
    Report,
    RequestId,
)
from bellhop.hal.serve_orders import Orders
from bellhop.hal.serve_rules import DriverFailed, Limits

REQUEST = RequestId("0f" * 16)
OTHER = RequestId("a0" * 16)
PATIENCE_SECONDS = 10.0
AMPLE = Limits(herald_seconds=60.0, measure_seconds=60.0, grace_seconds=0.05)
SHORT_SECONDS = 0.05

MEASURE_SHORT = replace(AMPLE, measure_seconds=SHORT_SECONDS)
HERALD_SHORT = replace(AMPLE, herald_seconds=SHORT_SECONDS)


@asynccontextmanager
async def serving(lab: Lab, limits: Limits = AMPLE) -> AsyncIterator[Orders]:
    orders = Orders(lab, (lab.port,), limits)
    try:
        yield orders
    finally:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await orders.close()


async def following(orders: Orders) -> Report:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await orders.next_report()


async def lost(orders: Orders) -> str:
    report = await following(orders)
    assert isinstance(report, MemoryLost), report
    return report.reason


def attempt(block: int = 0, rounds: int = 2, request: RequestId = REQUEST) -> Attempt:
    return Attempt(FIBRE, request, block, rounds)


def measure(*settings: int, block: int = 0) -> Measure:
    return Measure(FIBRE, REQUEST, block, np.array(settings, dtype=np.uint8))


async def heralded(orders: Orders, block: int = 0) -> None:
    await orders.carry_out(attempt(block))
    assert isinstance(await following(orders), Heralded)


async def silence(free: asyncio.Event) -> None:
    """A device that answers nothing, not even that it is to stop, until the test is over."""
    while not free.is_set():
        with suppress(asyncio.CancelledError):
            await free.wait()


class Cancelled(Lab):
    """A driver that awaits what somebody else cancelled."""

    async def synchronise(self, order: Attempt) -> int:
        await self._cancelled("synchronise")
        return await super().synchronise(order)

    async def attempt(self, order: Attempt) -> AsyncIterator[Herald]:
        await self._cancelled("attempt")
        async for herald in super().attempt(order):
            yield herald

    async def measure(self, *shown: Any) -> int | None:
        await self._cancelled("measure")
        return await super().measure(*shown)

    async def _cancelled(self, what: str) -> None:
        if self.hang == f"{what} is cancelled":
            other = asyncio.get_running_loop().create_future()
            other.cancel()
            await other


@pytest.mark.parametrize("what", ["synchronise", "attempt", "measure"])
async def test_a_method_that_is_cancelled_from_within_is_the_drivers_fault(what: str) -> None:
    lab = Cancelled()
    async with serving(lab) as orders:
        if what == "measure":
            await heralded(orders)
        lab.hang = f"{what} is cancelled"
        await orders.carry_out(measure(0, 0) if what == "measure" else attempt())
        reason = await lost(orders)
        assert f"{what} was cancelled from within" in reason and "whoever wrote" in reason
        # The link goes on.
        lab.hang = ""
        await heralded(orders, 1)


class Stuck(Lab):
    """A driver that cannot be cancelled, and a generator that talks to the device as it ends."""

    free: asyncio.Event

    async def attempt(self, order: Attempt) -> AsyncIterator[Herald]:
        try:
            if self.hang == "cleaning up after nothing":
                await asyncio.get_running_loop().create_future()
            async for herald in super().attempt(order):
                yield herald
        finally:
            if self.hang.startswith("cleaning up"):
                await silence(self.free)

    async def measure(self, *shown: Any) -> int | None:
        if self.hang == "measure for ever":
            self.hanging.set()
            await silence(self.free)
        return await super().measure(*shown)

    async def release(self, link: LinkName, request: RequestId) -> None:
        await super().release(link, request)
        if self.hang == "release for ever":
            await silence(self.free)


@asynccontextmanager
async def freed(lab: Stuck) -> AsyncIterator[None]:
    lab.free = asyncio.Event()
    try:
        yield
    finally:
        lab.free.set()


async def test_a_measurement_that_cannot_be_cancelled_is_left_behind_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lab = Stuck()
    async with freed(lab), serving(lab, MEASURE_SHORT) as orders:
        await heralded(orders)
        lab.hang = "measure for ever"
        await orders.carry_out(measure(0, 0))
        assert "the device stalled: round 0" in await lost(orders)
        assert "measure did not end within" in caplog.text and "left behind" in caplog.text
        lab.hang = ""
        await heralded(orders, 1)


async def test_a_release_does_not_wait_for_a_method_that_does_not_end() -> None:
    lab = Stuck()
    async with freed(lab), serving(lab) as orders:
        await heralded(orders)
        lab.hang = "measure for ever"
        await orders.carry_out(measure(0, 0))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await lab.hanging.wait()
            await orders.carry_out(Release(FIBRE, REQUEST))
        assert lab.log[-1] == "release"


@pytest.mark.parametrize(
    ("hang", "limits", "words"),
    [
        ("cleaning up", AMPLE, "do not rise"),
        ("cleaning up after nothing", HERALD_SHORT, "no herald for 0.05 seconds after 0 of 2"),
    ],
)
async def test_a_generator_that_does_not_clean_up_is_left_behind(
    hang: str, limits: Limits, words: str
) -> None:
    """Its fault is told all the same."""
    lab = Stuck(hang=hang, heralds=[Herald(-1, BellState.PSI_PLUS, 200)])
    async with freed(lab), serving(lab, limits) as orders:
        await orders.carry_out(attempt())
        assert words in await lost(orders)


async def test_closing_takes_no_longer_for_many_requests_than_for_one() -> None:
    lab = Stuck(ions=16)
    orders = Orders(lab, (lab.port,), replace(AMPLE, measure_seconds=1.0))
    for number in range(16):
        request = RequestId(f"{number:032x}")
        await orders.carry_out(Attempt(FIBRE, request, 0, 1))
        assert isinstance(await following(orders), Heralded)
    lab.hang = "release for ever"
    begun = time.monotonic()
    async with freed(lab), asyncio.timeout(PATIENCE_SECONDS):
        await orders.close()
    assert time.monotonic() - begun < 8.0, "one after the other they take 16 seconds"
    assert lab.log.count("release") == 16


async def test_one_request_that_fails_to_release_leaves_none_of_the_others() -> None:
    lab = Lab(ions=16, fail={"release": ZeroDivisionError("in a driver")})
    orders = Orders(lab, (lab.port,), AMPLE)
    for number in range(3):
        await orders.carry_out(Attempt(FIBRE, RequestId(f"{number:032x}"), 0, 1))
        await following(orders)
    with pytest.raises(ZeroDivisionError):
        await orders.close()
    assert lab.log.count("release") == 3


class Late(Lab):
    """`how` it comes that the answer is late."""

    how: str = ""

    async def measure(self, *shown: Any) -> int | None:
        if self.how == "blocks":
            time.sleep(4 * SHORT_SECONDS)  # noqa: ASYNC251 - the fault that is tested
        elif self.how == "swallows":
            with suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
        elif self.how == "times out":
            raise TimeoutError("its own")
        return 1


@pytest.mark.parametrize(
    ("how", "words"), [("blocks", "blocked the loop"), ("swallows", "the device stalled: round 0")]
)
async def test_an_answer_after_the_limit_is_none(how: str, words: str) -> None:
    lab = Late()
    lab.how = how
    async with serving(lab, MEASURE_SHORT) as orders:
        await heralded(orders)
        await orders.carry_out(measure(0, 0))
        assert words in await lost(orders)


async def test_a_herald_after_the_limit_is_none() -> None:
    class Blocking(Lab):
        async def attempt(self, order: Attempt) -> AsyncIterator[Herald]:
            time.sleep(4 * SHORT_SECONDS)  # noqa: ASYNC251 - the fault that is tested
            async for herald in super().attempt(order):
                yield herald

    async with serving(Blocking(), HERALD_SHORT) as orders:
        await orders.carry_out(attempt())
        assert "attempt answered after" in await lost(orders)


async def test_a_drivers_own_timeout_is_no_stall() -> None:
    lab = Late()
    lab.how = "times out"
    async with serving(lab) as orders:
        await heralded(orders)
        await orders.carry_out(measure(0, 0))
        with pytest.raises(DriverFailed, match=r"measure raised TimeoutError at .*measure"):
            await following(orders)


class Talkative(Lab):
    """A driver whose texts hold what they must not."""

    async def measure(self, *shown: Any) -> int | None:
        raise ValueError("setting 1 gave OUTCOME")


async def test_what_measure_raises_is_told_by_type_and_place_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(Talkative()) as orders:
        await heralded(orders)
        await orders.carry_out(measure(0, 1))
        with pytest.raises(DriverFailed, match="ValueError at") as caught:
            await following(orders)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert "OUTCOME" not in str(caught.value) + caplog.text


async def test_an_impossible_answer_is_not_repeated() -> None:
    for answer in (17, "17", 17.0):
        async with serving(Lab(answers=[answer, 0])) as orders:
            await heralded(orders)
            await orders.carry_out(measure(0, 0))
            reason = await lost(orders)
            assert "17" not in reason and "whoever wrote" in reason


async def test_truth_values_of_numpy_are_outcomes() -> None:
    async with serving(Lab(answers=[np.bool_(True), np.bool_(False)])) as orders:
        await heralded(orders)
        await orders.carry_out(measure(0, 0))
        report = await following(orders)
        assert isinstance(report, Measured) and report.answered.all()
        assert report.outcomes.tolist() == [1, 0]


async def released_after(orders: Orders, lab: Lab, steps: int) -> None:
    """A release so many steps of the loop after the station let the attempt go."""
    await orders.carry_out(attempt())
    await until(lambda: "offer 0" in lab.log)
    lab.go[0].set()
    for _ in range(steps):
        await asyncio.sleep(0)
    await orders.carry_out(Release(FIBRE, REQUEST))


async def test_a_release_in_the_moment_an_attempt_goes_is_no_fault() -> None:
    """However the two fall, the link goes on and nothing of the released request is attempted."""
    for steps in range(12):
        lab = Lab(go={0: asyncio.Event()})
        async with serving(lab) as orders:
            await released_after(orders, lab, steps)
            attempted = lab.log.count("attempt 0")
            await orders.carry_out(attempt(1, request=OTHER))
            report = await following(orders)
            assert isinstance(report, Heralded) and report.block == 1
            assert lab.log.count("attempt 0") == attempted


async def test_an_offer_is_withdrawn_with_its_request() -> None:
    class Withdrawn(Lab):
        async def synchronise(self, order: Attempt) -> int:
            try:
                return await super().synchronise(order)
            except asyncio.CancelledError:
                self.log.append(f"withdrawn {order.block}")
                raise

    lab = Withdrawn(go={0: asyncio.Event()})
    async with serving(lab) as orders:
        await orders.carry_out(attempt())
        await until(lambda: "offer 0" in lab.log)
        await orders.carry_out(Release(FIBRE, REQUEST))
        await until(lambda: "withdrawn 0" in lab.log)


async def test_a_released_offer_that_fails_is_no_report() -> None:
    class Failing(Lab):
        async def synchronise(self, order: Attempt) -> int:
            answer = await super().synchronise(order)
            if order.block == 0:
                raise LaboratoryError("the other end gave up")
            return answer

    for steps in range(12):
        lab = Failing(go={0: asyncio.Event()})
        async with serving(lab) as orders:
            await released_after(orders, lab, steps)
            await orders.carry_out(attempt(1, request=OTHER))
            report = await following(orders)
            while isinstance(report, MemoryLost):  # It failed before the release.
                assert report.block == 0
                report = await following(orders)
            assert isinstance(report, Heralded) and report.block == 1


async def test_offers_are_made_in_the_sequence_of_the_orders() -> None:
    lab = Lab(ions=16, go={block: asyncio.Event() for block in range(16)})
    async with serving(lab) as orders:
        for block in range(16):
            await orders.carry_out(attempt(block, rounds=1))
        await until(lambda: len(lab.log) == 16)
    assert lab.log[:16] == [f"offer {block}" for block in range(16)]


async def test_a_link_shows_one_setting_at_a_time() -> None:
    """Over all of its blocks: none is measured before the one before it is answered."""
    lab = Lab(ions=8, answers=[0, 1])
    async with serving(lab) as orders:
        for block in (0, 1):
            await heralded(orders, block)
        for block in (0, 1):
            await orders.carry_out(measure(0, 1, block=block))
        for _ in range(2):
            assert isinstance(await following(orders), Measured)
    shown = [line.split(" at ")[0] for line in lab.log if line.startswith(("measure", "answer"))]
    places = [f"{block}.{index}" for block in (0, 1) for index in (0, 1)]
    assert shown == [f"{what} {place}" for place in places for what in ("measure", "answer")]


async def test_a_wrong_attempt_is_closed_though_the_driver_still_holds_it() -> None:
    """Not left to the collector of garbage: its pairs are given up before the order is lost."""

    class Holding(Lab):
        def attempt(self, order: Attempt) -> AsyncIterator[Herald]:
            self.kept = super().attempt(order)
            return self.kept

    lab = Holding(heralds=[Herald(-1, BellState.PSI_PLUS, 200)])
    async with serving(lab) as orders:
        await orders.carry_out(attempt())
        await lost(orders)
        assert lab.given_up == [0]


async def test_an_attempt_that_is_no_generator_is_named() -> None:
    class Coroutine(Lab):
        async def attempt(self, order: Attempt) -> Any:  # type: ignore[override]  # the fault
            return [Herald(0, BellState.PSI_PLUS, 200)]

    async with serving(Coroutine()) as orders:
        await orders.carry_out(attempt())
        assert "attempt gave coroutine, and must be an async generator" in await lost(orders)
