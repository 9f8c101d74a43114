"""Attempts made one by one: slow twins of the laws, and of the clock, that the emulator draws from.

Each loop does what a laboratory does, attempt by attempt and mode by mode, with no formula.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Success:
    """One herald: its attempt from 0, its mode, how many further attempts the first half waited,
    and which side's half was first (0 if both came at once)."""

    attempt: int
    mode: int = 0
    wait: int = 0
    first: int = 0


def multiplexed(chance: Random, per_mode: float, modes: int) -> Iterator[Success]:
    """Every attempt tries its modes in order and stops at the first that succeeds."""
    attempt = 0
    while True:
        for mode in range(modes):
            if chance.random() < per_mode:
                yield Success(attempt, mode=mode)
                break
        attempt += 1


def repeater_node(chance: Random, p_a: float, p_b: float, cutoff: int) -> Iterator[Success]:
    """Every attempt tries the sides whose memory is empty; an old half is given up."""
    stored: list[int | None] = [None, None]  # at which attempt each half came
    attempt = 0
    while True:
        for side, p in enumerate((p_a, p_b)):
            if stored[side] is None and chance.random() < p:
                stored[side] = attempt
        a, b = stored
        if a is not None and b is not None:
            yield Success(attempt, wait=abs(a - b), first=1 if b < a else 0)
            stored = [None, None]
        else:
            for side in (0, 1):
                came = stored[side]
                if came is not None and attempt - came >= cutoff:
                    stored[side] = None
        attempt += 1


@dataclass(frozen=True)
class Pauses:
    """How an experiment pauses, in ns; see `schedule.Schedule`.  0 or None: never."""

    period_ns: int
    on_ns: int | None = None
    cooling_ns: int = 0
    calibration_every_ns: int | None = None
    calibration_ns: int = 0


def clocked(pauses: Pauses, attempts: int) -> list[tuple[int, int]]:
    """The start and end of each attempt, by a clock that is moved from event to event."""
    now = turns_ns = 0  # the clock; and the same less all calibrations
    on_since = 0
    due = pauses.calibration_every_ns
    made: list[tuple[int, int]] = []
    for _ in range(attempts):
        if pauses.on_ns is not None:
            fresh = on_since == turns_ns
            if not fresh and turns_ns + pauses.period_ns > on_since + pauses.on_ns:
                rest = max(0, on_since + pauses.on_ns - turns_ns)
                now += rest + pauses.cooling_ns
                turns_ns += rest + pauses.cooling_ns
                on_since = turns_ns
        while due is not None and pauses.calibration_every_ns is not None and turns_ns >= due:
            now += pauses.calibration_ns
            due += pauses.calibration_every_ns
        made.append((now, now + pauses.period_ns))
        now += pauses.period_ns
        turns_ns += pauses.period_ns
    return made


def reloaded(chance: Random, losses: tuple[tuple[float, float], ...], active_ns: float) -> float:
    """All reloads while `active_ns` of attempting goes by, loss after loss of each device."""
    total = 0.0
    for every_ns, reload_ns in losses:
        at = chance.expovariate(1.0 / every_ns)
        while at <= active_ns:
            total += reload_ns
            at += chance.expovariate(1.0 / every_ns)
    return total


def sample(twin: Callable[[Random], Iterator[Success]], seeds: int, rounds: int) -> list[Success]:
    """`rounds` successes of each of so many seeds, with attempts since the success before (from
    1) instead of attempt numbers."""
    found: list[Success] = []
    for seed in range(seeds):
        before = -1
        successes = twin(Random(seed))
        for _ in range(rounds):
            one = next(successes)
            found.append(Success(one.attempt - before, one.mode, one.wait, one.first))
            before = one.attempt
    return found
