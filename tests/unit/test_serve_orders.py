"""The server kit: what it makes of orders, and of a laboratory's driver that answers nonsense."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest
from tests.support.scripted_laboratory import FIBRE, Lab

from bellhop.hal import serve_rules
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
from bellhop.hal.runs import BLOCKS_PER_REQUEST_MAX
from bellhop.hal.serve_orders import Orders
from bellhop.hal.serve_rules import DriverFailed, Limits

REQUEST = RequestId("0f" * 16)
OTHER = RequestId("a0" * 16)
PATIENCE_SECONDS = 10.0
AMPLE = Limits(herald_seconds=60.0, measure_seconds=60.0)
SHORT = Limits(herald_seconds=0.05, measure_seconds=0.05, grace_seconds=0.05)
"""For devices that stall; others must not, however busy this machine is."""

ReportType = TypeVar("ReportType", bound=Report)


@asynccontextmanager
async def serving(lab: Lab, limits: Limits = AMPLE) -> AsyncIterator[Orders]:
    orders = Orders(lab, (lab.port,), limits)
    try:
        yield orders
    finally:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await orders.close()


async def told(orders: Orders, kind: type[ReportType]) -> ReportType:
    async with asyncio.timeout(PATIENCE_SECONDS):
        report = await orders.next_report()
    assert isinstance(report, kind), report
    return report


def attempt(block: int = 0, rounds: int = 4, request: RequestId = REQUEST) -> Attempt:
    return Attempt(FIBRE, request, block, rounds)


def measure(*settings: int, block: int = 0) -> Measure:
    return Measure(FIBRE, REQUEST, block, np.array(settings, dtype=np.uint8))


async def test_a_block_is_heralded_and_measured_one_round_after_the_other() -> None:
    lab = Lab()
    async with serving(lab) as orders:
        await orders.carry_out(attempt())
        herald = await told(orders, Heralded)
        assert herald.attempts.tolist() == [0, 1, 2, 3]
        assert set(herald.patterns) == {BellState.PSI_PLUS}
        assert (herald.begun_ns, herald.ended_ns) == (100, 203)
        await orders.carry_out(measure(1, 0, 1, 1))
        measured = await told(orders, Measured)
    assert measured.outcomes.tolist() == [0, 1, 0, 1]
    assert measured.answered.tolist() == [True, True, False, True]
    shown = [line for line in lab.log if line.startswith(("measure", "answer"))]
    assert shown == [
        "measure 0.0 at 1", "answer 0.0", "measure 0.1 at 0", "answer 0.1",
        "measure 0.2 at 1", "answer 0.2", "measure 0.3 at 1", "answer 0.3",
    ]  # fmt: skip
    assert lab.given_up == []


def herald(attempt: Any = 0, announces: Any = BellState.PSI_MINUS, at_ns: Any = 200) -> Herald:
    return Herald(attempt, announces, at_ns)


WRONG_HERALDS: dict[str, tuple[list[Any], str]] = {
    "too few": ([herald()], "ended after 1 of 2 heralds"),
    "too many": ([herald(0), herald(1), herald(2)], "more heralds than the 2"),
    "an attempt twice": ([herald(3), herald(3)], "do not rise: 3 came where at least 4"),
    "an attempt below 0": ([herald(-1)], "do not rise: -1"),
    "a time before the attempt": ([herald(at_ns=99)], "fall: 99 came after 100"),
    "a time that falls": ([herald(0, at_ns=300), herald(1, at_ns=200)], "fall: 200"),
    "no Bell state": ([herald(announces=4)], "announced 4, which is no Bell state"),
    "a name of a Bell state": ([herald(announces="PSI_PLUS")], "str where a Bell state"),
    "no number": ([herald(attempt=1.0)], "float where the number of an attempt"),
    "no herald": ([(0, 1, 2)], "tuple instead of a Herald"),
    "nothing": ([None], "NoneType instead of a Herald"),
    "nothing in between": ([herald(), None, herald(1)], "NoneType instead of a Herald"),
    "nothing at the end": ([herald(0), herald(1), None], "more heralds than the 2"),
}


@pytest.mark.parametrize("what", WRONG_HERALDS)
async def test_heralds_that_cannot_be_are_lost_by_name(what: str) -> None:
    heralds, words = WRONG_HERALDS[what]
    lab = Lab(heralds=heralds)
    async with serving(lab) as orders:
        await orders.carry_out(attempt(rounds=2))
        lost = await told(orders, MemoryLost)
        assert (lost.block, lost.operation) == (0, "attempt")
        assert words in lost.reason and "whoever wrote the laboratory's driver" in lost.reason
        # What was held is free again, and the block is not attempted again.
        await orders.carry_out(attempt(rounds=2))
        assert "already" in (await told(orders, MemoryLost)).reason
        lab.heralds = []
        await orders.carry_out(attempt(block=1))
        await told(orders, Heralded)


@pytest.mark.parametrize(
    ("answer", "words"),
    [(2, "a number that is not"), (-1, "a number"), ("0", "str"), (0.0, "float")],
)
async def test_an_outcome_that_cannot_be_loses_the_block_by_name(answer: Any, words: str) -> None:
    lab = Lab(answers=[1, answer, 1, 1])
    async with serving(lab) as orders:
        await orders.carry_out(attempt())
        await told(orders, Heralded)
        await orders.carry_out(measure(0, 0, 0, 0))
        lost = await told(orders, MemoryLost)
        assert lost.operation == "measure" and words in lost.reason
        assert "measure 0.2 at 0" not in lab.log
        await orders.carry_out(measure(0, 0, 0, 0))
        assert (await told(orders, MemoryLost)).reason == "already measured"


@pytest.mark.parametrize(
    ("hang", "operation", "words"),
    [("attempt", "attempt", "no herald for 0.05 seconds"), ("measure", "measure", "round 0")],
)
async def test_a_device_that_stalls_is_named(hang: str, operation: str, words: str) -> None:
    lab = Lab(hang=hang)
    async with serving(lab, SHORT) as orders:
        await orders.carry_out(attempt())
        if operation == "measure":
            await told(orders, Heralded)
            await orders.carry_out(measure(0, 0, 0, 0))
        lost = await told(orders, MemoryLost)
        assert lost.operation == operation
        assert "the device stalled" in lost.reason and words in lost.reason
        assert (
            "whoever runs" in lost.reason
            and f"limits.{'herald' if hang == 'attempt' else 'measure'}" in lost.reason
        )
        if hang == "attempt":
            assert lab.given_up == [0]


@pytest.mark.parametrize("what", ["synchronise", "attempt"])
async def test_what_a_laboratory_cannot_do_is_lost_with_its_reason(what: str) -> None:
    lab = Lab(fail={what: LaboratoryError("the oven is cold")})
    async with serving(lab) as orders:
        await orders.carry_out(attempt())
        assert (await told(orders, MemoryLost)).reason == "the oven is cold"


@pytest.mark.parametrize("begins", [-1, None, 1.5])
async def test_a_beginning_that_cannot_be_is_named(begins: Any) -> None:
    async with serving(Lab(begins=begins)) as orders:
        await orders.carry_out(attempt())
        assert "synchronise answered" in (await told(orders, MemoryLost)).reason


@pytest.mark.parametrize("what", ["synchronise", "attempt", "measure"])
async def test_a_drivers_own_exception_ends_the_connection(what: str) -> None:
    async with serving(Lab(fail={what: ZeroDivisionError("in a driver")})) as orders:
        await orders.carry_out(attempt())
        if what == "measure":
            await told(orders, Heralded)
            await orders.carry_out(measure(0, 0, 0, 0))
        expected = DriverFailed if what == "measure" else ZeroDivisionError
        with pytest.raises(expected, match="ZeroDivisionError" if what == "measure" else "driver"):
            await orders.next_report()


async def test_a_block_waits_until_its_pairs_have_room() -> None:
    lab = Lab(ions=4)
    async with serving(lab) as orders:
        for block in (0, 1):
            await orders.carry_out(attempt(block=block, rounds=3))
        assert (await told(orders, Heralded)).block == 0
        assert "attempt 1" not in lab.log
        await orders.carry_out(measure(0, 0, 0))
        await told(orders, Measured)
        assert (await told(orders, Heralded)).block == 1


async def test_what_the_station_lets_go_first_goes_first() -> None:
    lab = Lab(go={0: asyncio.Event()})
    async with serving(lab) as orders:
        for block in (0, 1):
            await orders.carry_out(attempt(block=block, rounds=2))
        assert (await told(orders, Heralded)).block == 1
        lab.go[0].set()
        lab.heralds = [herald(100, at_ns=900), herald(101, at_ns=901)]
        assert (await told(orders, Heralded)).block == 0
    assert lab.log.count("offer 0") == 2, "it was offered anew"


async def test_attempts_rise_over_the_blocks_of_a_request() -> None:
    lab = Lab(ions=8, heralds=[herald(5), herald(6)])
    async with serving(lab) as orders:
        await orders.carry_out(attempt(block=0, rounds=2))
        await told(orders, Heralded)
        await orders.carry_out(attempt(block=1, rounds=2))
        assert "do not rise: 5 came where at least 7" in (await told(orders, MemoryLost)).reason


async def test_a_release_ends_what_is_under_way() -> None:
    """The attempt is closed, what waits is forgotten, and the laboratory is told last."""
    lab = Lab(hang="attempt")
    orders = Orders(lab, (lab.port,), AMPLE)
    await orders.carry_out(attempt(block=0, rounds=2))
    await lab.hanging.wait()
    await orders.carry_out(attempt(block=1, rounds=2))
    await orders.carry_out(Release(FIBRE, REQUEST))
    assert lab.given_up == [0] and lab.log[-1] == "release"
    lab.hang = ""
    await orders.carry_out(attempt(request=OTHER))
    assert (await told(orders, Heralded)).request == OTHER
    await orders.close()


async def test_a_release_in_mid_measurement_shows_no_further_setting() -> None:
    lab = Lab(hang="measure")
    orders = Orders(lab, (lab.port,), AMPLE)
    await orders.carry_out(attempt())
    await told(orders, Heralded)
    await orders.carry_out(measure(0, 1, 0, 1))
    await lab.hanging.wait()
    lab.hang = ""
    await orders.carry_out(Release(FIBRE, REQUEST))
    await orders.carry_out(measure(0, 1, 0, 1))
    assert (await told(orders, MemoryLost)).reason == "not heralded"
    assert [line for line in lab.log if line.startswith("measure")] == ["measure 0.0 at 0"]
    await orders.close()


async def test_a_laboratory_that_cannot_release_does_not_stop_the_service() -> None:
    for lab in (Lab(hang="release"), Lab(fail={"release": LaboratoryError("a shutter")})):
        async with serving(lab, replace(AMPLE, measure_seconds=0.05)) as orders:
            await orders.carry_out(attempt())
            await told(orders, Heralded)
            await orders.carry_out(Release(FIBRE, REQUEST))
            await orders.carry_out(attempt(request=OTHER))
            await told(orders, Heralded)


async def test_closing_gives_up_all_that_was_ordered() -> None:
    lab = Lab(ions=8)
    async with serving(lab) as orders:
        await orders.carry_out(attempt())
        await told(orders, Heralded)
        await orders.carry_out(attempt(request=OTHER))
        await told(orders, Heralded)
    assert lab.log[-2:] == ["release", "release"]


REFUSED: dict[str, tuple[Any, str]] = {
    "a link that is not": (Attempt(LinkName("air"), REQUEST, 0, 1), "no such link"),
    "too long a block": (attempt(rounds=5), "holds 1 to 4 pairs"),
    "a block's number": (
        attempt(block=BLOCKS_PER_REQUEST_MAX), "block numbers are below",
    ),
    "what is not heralded": (measure(0), "not heralded"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_is_refused(what: str) -> None:
    order, words = REFUSED[what]
    lab = Lab()
    async with serving(lab) as orders:
        await orders.carry_out(order)
        assert words in (await told(orders, MemoryLost)).reason
    assert lab.log == []


async def test_settings_must_fit_and_a_refusal_spends_nothing() -> None:
    async with serving(Lab()) as orders:
        await orders.carry_out(attempt())
        await told(orders, Heralded)
        for settings in ((0, 0, 0), (0, 0, 0, 2)):
            await orders.carry_out(measure(*settings))
            await told(orders, MemoryLost)
        await orders.carry_out(measure(0, 0, 0, 1))
        await told(orders, Measured)


async def test_orders_and_requests_are_bounded() -> None:
    lab = Lab(go={block: asyncio.Event() for block in range(1_000)})
    async with serving(lab) as orders:
        for block in range(serve_rules.ORDERS_PENDING_MAX):
            await orders.carry_out(attempt(block=block, rounds=1))
        await orders.carry_out(attempt(block=999, rounds=1))
        assert "too many attempts wait" in (await told(orders, MemoryLost)).reason
        await orders.carry_out(attempt(block=0, rounds=1))
        assert "already ordered" in (await told(orders, MemoryLost)).reason
        await orders.carry_out(Release(FIBRE, REQUEST))
        for number in range(serve_rules.REQUESTS_OPEN_MAX):
            await orders.carry_out(attempt(rounds=1, request=RequestId(f"{number:032x}")))
        await orders.carry_out(attempt(rounds=1, request=OTHER))
        assert "too many open requests" in (await told(orders, MemoryLost)).reason
