"""What every device must keep to, seen from both ends of one link: the protocol.

Each check runs on connections of its own.
"""

import asyncio
from contextlib import aclosing

import numpy as np

from bellhop.hal.conformance.bench import (
    ROUNDS,
    Bench,
    End,
    NotApplicable,
    connected,
    require,
    same_heralds,
)
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    SETTINGS_MAX,
    Attempt,
    DeviceGone,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    Release,
    RequestId,
)

AHEAD = 4
"""Blocks that are ordered before the first is heralded."""

ANSWERED_SHARE_MIN = 0.5


async def ready_comes_first(_: Bench) -> None:
    """All that is to be seen was seen when the bench was attached."""


async def no_herald_is_a_measurement(bench: Bench) -> None:
    """What the ports say of it; both say the same, else no bench was attached."""
    if bench.a.port.herald_is_measurement:
        raise NotApplicable(
            f"link {bench.link} is heralded by the measurement itself (detection loophole): nodes"
            " refuse device-independent sessions there"
        )


async def heralds_and_outcomes_come_in_blocks(bench: Bench) -> None:
    request = bench.request()
    for block in range(3):
        herald = await bench.herald(request, block, bench.rounds)
        for end in bench.ends:
            await bench.measure(end, herald, bench.settings(end, bench.rounds))
    await bench.release(request)


async def attempts_and_times_rise(bench: Bench) -> None:
    """Attempt numbers rise throughout a request, and no attempt takes less than a nanosecond."""
    request = bench.request()
    last, ended_ns = -1, 0
    for block in range(3):
        herald = await bench.herald(request, block, bench.rounds)
        first = int(herald.attempts[0])
        require(first > last, f"block {block} begins with attempt {first}, after attempt {last}")
        require(bool(np.all(np.diff(herald.attempts) > 0)), "attempts do not rise within a block")
        begun, ended = herald.begun_ns, herald.ended_ns
        require(
            begun >= ended_ns,
            f"block {block} began at {begun} ns, before the block before ended at {ended_ns} ns",
        )
        spanned = int(herald.attempts[-1]) - first
        require(
            ended - begun >= spanned,
            f"block {block} has {spanned + 1} attempts in {ended - begun} ns",
        )
        last, ended_ns = int(herald.attempts[-1]), ended
        for end in bench.ends:
            await bench.measure(end, herald, bench.settings(end, bench.rounds))
    await bench.release(request)


async def most_rounds_are_answered(bench: Bench) -> None:
    """Of ROUNDS, in as many blocks as the device needs: one round alone says nothing."""
    answered = dict.fromkeys(bench.ends, 0)
    async with aclosing(bench.blocks(ROUNDS)) as blocks:
        async for herald in blocks:
            for end in bench.ends:
                settings = bench.settings(end, len(herald.patterns))
                measured = await bench.measure(end, herald, settings)
                answered[end] += int(measured.answered.sum())
    for end, count in answered.items():
        require(
            count >= ANSWERED_SHARE_MIN * ROUNDS, f"{end.name} answered {count} of {ROUNDS} rounds"
        )


async def orders_given_ahead_are_all_carried_out(bench: Bench) -> None:
    """The two nodes order blocks in different sequences, before any of them is heralded."""
    request, rounds = bench.request(), min(bench.rounds, 8)
    told: dict[End, dict[int, Heralded]] = {}
    for end, blocks in zip(bench.ends, (range(AHEAD), reversed(range(AHEAD))), strict=True):
        told[end] = {}
        for block in blocks:
            await end.order(Attempt(bench.link, request, block, rounds))

    async def attend(end: End) -> None:
        measured: set[int] = set()
        while len(measured) < AHEAD:
            report = await end.report(f"{AHEAD} blocks, {len(measured)} of which are measured")
            if isinstance(report, Heralded):
                told[end][report.block] = report
                settings = bench.settings(end, rounds)
                await end.order(Measure(bench.link, request, report.block, settings))
            elif isinstance(report, Measured):
                measured.add(report.block)
            else:
                end.interrupted(report)

    async with asyncio.timeout(AHEAD * bench.a.wait_seconds):
        for outcome in await asyncio.gather(*map(attend, bench.ends), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
    for block in range(AHEAD):
        same_heralds(told[bench.a][block], told[bench.b][block])
    await bench.release(request)


async def nothing_comes_unasked(bench: Bench) -> None:
    """After a block is measured, and after it is released, neither end says anything."""
    request = bench.request()
    await _quiet(bench)
    herald = await bench.herald(request, 0, bench.rounds)
    await _quiet(bench)
    for end in bench.ends:
        await bench.measure(end, herald, bench.settings(end, bench.rounds))
    await _quiet(bench)
    await bench.release(request)
    await _quiet(bench)


async def _quiet(bench: Bench) -> None:
    for outcome in await asyncio.gather(
        *(end.quiet() for end in bench.ends), return_exceptions=True
    ):
        if isinstance(outcome, BaseException):
            raise outcome


async def a_block_is_measured_once(bench: Bench) -> None:
    request = bench.request()
    herald = await bench.herald(request, 0, bench.rounds)
    for end in bench.ends:
        settings = bench.settings(end, bench.rounds)
        await bench.measure(end, herald, settings)
        await end.refused(Measure(bench.link, request, 0, settings))
    await bench.a.refused(Attempt(bench.link, request, 0, bench.rounds))
    await bench.release(request)


async def what_is_not_heralded_is_not_measured(bench: Bench) -> None:
    request = bench.request()
    settings = bench.settings(bench.a, bench.rounds)
    await bench.a.refused(Measure(bench.link, request, 0, settings))
    await bench.a.order(Attempt(bench.link, request, 0, bench.rounds))
    await bench.a.refused(Measure(bench.link, request, 0, settings))
    await bench.release(request)


async def settings_fit_the_block_and_the_port(bench: Bench) -> None:
    """A refused measurement spends nothing: the block can still be measured."""
    request, rounds = bench.request(), bench.rounds
    herald = await bench.herald(request, 0, rounds)
    for end in bench.ends:
        longer = np.zeros(rounds + 1, dtype=np.uint8)
        await end.refused(Measure(bench.link, request, 0, longer))
        if end.port.settings < SETTINGS_MAX:
            beyond = np.full(rounds, end.port.settings, dtype=np.uint8)
            await end.refused(Measure(bench.link, request, 0, beyond))
        await bench.measure(end, herald, bench.settings(end, rounds))
    await bench.release(request)


async def both_ends_order_the_same(bench: Bench) -> None:
    """A mismatch is lost at both ends."""
    if bench.rounds_max < 2:
        raise NotApplicable("the device holds one pair, so blocks have one length")
    request = bench.request()
    await bench.a.order(Attempt(bench.link, request, 0, bench.rounds))
    await bench.b.order(Attempt(bench.link, request, 0, bench.rounds - 1))
    for end in bench.ends:
        lost = await end.expect(MemoryLost)
        said = (lost.block, lost.operation)
        require(said == (0, "attempt"), f"{end.name} lost {said} instead of the mismatched block")
    await bench.release(request)


async def blocks_longer_than_the_device_are_refused(bench: Bench) -> None:
    for end in bench.ends:
        if end.port.rounds_max >= BLOCK_ROUNDS_MAX:
            raise NotApplicable("the device holds the longest block there is")
        too_many = end.port.rounds_max + 1
        await end.refused(Attempt(bench.link, bench.request(), 0, too_many))


async def an_unknown_link_is_refused(bench: Bench) -> None:
    for end in bench.ends:
        await end.refused(Attempt(LinkName("no-such-link"), bench.request(), 0, bench.rounds))


async def a_released_request_is_given_up_at_one_end(bench: Bench) -> None:
    """The end that released has nothing any more; the other keeps its halves."""
    for leaving, staying in (bench.ends, bench.ends[::-1]):
        request = bench.request()
        herald = await bench.herald(request, 0, bench.rounds)
        await leaving.order(Release(bench.link, request))
        settings = bench.settings(leaving, bench.rounds)
        await leaving.refused(Measure(bench.link, request, 0, settings))
        await bench.measure(staying, herald, bench.settings(staying, bench.rounds))
        await staying.order(Release(bench.link, request))


async def what_is_released_makes_room(bench: Bench) -> None:
    """Pairs that were given up do not stand in the way of the next ones."""
    for _ in range(3):
        request = bench.request()
        await bench.herald(request, 0, bench.rounds)
        await bench.release(request)


async def _hung_up(bench: Bench, end: End) -> End:
    """The same end on a new connection, after the one before was closed."""
    await end.close()
    return await connected(end.way, bench.link, end.wait_seconds)


async def after_a_reconnection_nothing_is_under_way(bench: Bench) -> None:
    request = bench.request()
    await bench.herald(request, 0, bench.rounds)
    other = bench.request()
    await bench.a.order(Attempt(bench.link, other, 0, bench.rounds))
    bench.a = await _hung_up(bench, bench.a)
    settings = bench.settings(bench.a, bench.rounds)
    await bench.a.refused(Measure(bench.link, request, 0, settings))
    await bench.b.order(Attempt(bench.link, other, 0, bench.rounds))
    await bench.a.quiet()
    for one in (request, other):
        await bench.release(one)
    await _forget(bench, (request, other))


async def _forget(bench: Bench, requests: tuple[RequestId, ...]) -> None:
    """Whatever side B was told of these is over: then a further block goes as usual."""
    request = bench.request()
    order = Attempt(bench.link, request, 0, bench.rounds)
    for end in bench.ends:
        await end.order(order)
    await bench.a.expect(Heralded)
    while True:
        report = await bench.b.report("a report Heralded")
        if isinstance(report, Heralded) and report.request == request:
            break
        stale = isinstance(report, MemoryLost) and report.request in requests
        require(stale, f"side B said {type(report).__name__} after a reconnection of side A")
    await bench.release(request)


async def a_second_stream_ends_the_first(bench: Bench) -> None:
    first = bench.a
    bench.a = await connected(first.way, bench.link, first.wait_seconds)
    gone = await first.report("DeviceGone, as another stream took its place", is_the_rule=True)
    said = type(gone).__name__
    require(isinstance(gone, DeviceGone), f"the first stream said {said} instead of ending")
    await first.close()
    request = bench.request()
    await bench.herald(request, 0, bench.rounds)
    await bench.release(request)
