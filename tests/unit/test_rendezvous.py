"""The station's bookkeeping: which of the offered attempts goes."""

import asyncio

import pytest

from bellhop.hal.laboratory import LaboratoryError
from bellhop.hal.operations import Attempt, LinkName, RequestId, Side
from bellhop.hal.rendezvous import Rendezvous

FIBRE, AIR = LinkName("fibre"), LinkName("air")
REQUEST = RequestId("0f" * 16)


def order(block: int = 0, rounds: int = 4, link: LinkName = FIBRE) -> Attempt:
    return Attempt(link, REQUEST, block, rounds)


async def offered(station: Rendezvous, side: Side, one: Attempt) -> "asyncio.Task[None]":
    """An offer that waits."""
    task = asyncio.ensure_future(station.offer(side, one))
    await asyncio.sleep(0)
    return task


async def withdrawn(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_both_ends_offer_goes_in_whatever_sequence() -> None:
    station = Rendezvous()
    waiting = [await offered(station, Side.A, order(block)) for block in (0, 1)]
    await station.offer(Side.B, order(1))
    await waiting[1]
    assert not waiting[0].done()
    # What else was offered on the link is void: it goes only when it is offered anew.
    again = await offered(station, Side.B, order(0))
    assert not waiting[0].done() and not again.done()
    await withdrawn(waiting[0])
    await station.offer(Side.A, order(0))
    await again


async def test_links_are_apart() -> None:
    station = Rendezvous()
    waiting = [await offered(station, Side.A, order(link=link)) for link in (FIBRE, AIR)]
    await station.offer(Side.B, order(link=FIBRE))
    await waiting[0]
    await station.offer(Side.B, order(link=AIR))
    await waiting[1]


async def test_an_end_alone_waits_and_may_withdraw() -> None:
    station = Rendezvous()
    await withdrawn(await offered(station, Side.A, order()))
    theirs = await offered(station, Side.B, order())
    assert not theirs.done(), "nobody is there any more"
    await withdrawn(theirs)


async def test_a_mismatch_is_told_to_both() -> None:
    station = Rendezvous()
    waiting = await offered(station, Side.A, order(rounds=4))
    for offer in (station.offer(Side.B, order(rounds=5)), waiting):
        with pytest.raises(LaboratoryError, match="4 and 5 rounds"):
            await offer
