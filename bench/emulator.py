"""How fast the emulator makes pairs, between two other ways of making them.

    python bench/emulator.py [--pairs N] [--json FILE]

Pairs a CPU-second of one elementary link: heralded, and heralded, stored until the next pair comes,
decayed and measured at both ends.  Three ways, one after another in one run:

* ours: blocks of 16,384 pairs from a preset, by the functions that the service calls;
* limit: numpy draws all pairs in one go, from the few numbers that matter, worked out by hand
  before.  (Whole arrays leave the processor's caches, so blocks may be faster than this limit.)
* events: a queue of events, one an attempt, and a density matrix a pair, as discrete-event network
  simulators work (in plain Python here, without their layers).

All three must agree on the rate and on the correlations.  At last, whole rounds of nature: orders
of both ends, heralds, outcomes and reports, against drawing the uniform numbers alone.
"""

import heapq
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bellhop.hal import states
from bellhop.hal.correlations import to_state
from bellhop.hal.emulator.born import Answers, Hidden, PairByPair
from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.link import LinkPhysics, Past
from bellhop.hal.emulator.nature import Nature, links_of
from bellhop.hal.operations import (
    Attempt,
    LinkName,
    Measure,
    NodeName,
    Operation,
    Release,
    RequestId,
    Side,
)
from bellhop.hal.preset import load_preset

BLOCK_ROUNDS = 16_384
REPEATS = 5
EVENT_PAIRS = 300
UNIFORMS_A_ROUND = 4  # One for the attempt, the pattern and either outcome.

HERALDING = ("oxford", "liu-10km", "liu-10km-memory", "cui-12km", "innsbruck-50km", "projected")
STORING = "liu-10km-memory"
HERALDED_MIN, STORED_MIN = 10e6, 1e6
"""Pairs a CPU-second that we mean to keep to."""


@dataclass(frozen=True, slots=True)
class Made:
    """`equal`: the share of pairs with equal outcomes in the settings 0 of both ends."""

    pairs: int
    attempts: int
    equal: float = 0.0
    equal_of: int = 0


@dataclass(frozen=True, slots=True)
class Speed:
    """`pairs_per_cpu_s` of one way; `target`: what it should be at least, None for comparison."""

    what: str
    way: str
    pairs_per_cpu_s: float
    target: float | None = None


def cpu_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median over the repeats, after one that only warms up if there are several."""
    taken = []
    for _ in range(repeats + (repeats > 1)):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return statistics.median(taken[-repeats:])


# Ours


def herald_in_blocks(physics: LinkPhysics, pairs: int, generator: np.random.Generator) -> Made:
    past = Past(generator)
    for _ in range(pairs // BLOCK_ROUNDS):
        physics.herald(generator, BLOCK_ROUNDS, past)
    return Made(pairs // BLOCK_ROUNDS * BLOCK_ROUNDS, past.attempts)


def store_in_blocks(physics: LinkPhysics, pairs: int, generator: np.random.Generator) -> Made:
    """Each pair is kept for as long as its own herald took: the law of waiting for the next one."""
    experiment, born = physics.experiment, PairByPair(physics.experiment)
    past = Past(generator)
    equal = of = 0
    for _ in range(pairs // BLOCK_ROUNDS):
        heralds = physics.herald(generator, BLOCK_ROUNDS, past)
        ended_ns = experiment.schedule.end_ns(heralds.attempts)
        waited_ns = np.diff(ended_ns, prepend=0).astype(np.float64)
        hidden = Hidden(
            *(waited_ns + experiment.kept_from_ns[side] for side in Side),
        )
        first: Answers | None = None
        for side in Side:
            settings = generator.integers(0, physics.settings(side), BLOCK_ROUNDS, dtype=np.uint8)
            uniforms = generator.random(BLOCK_ROUNDS)
            outcomes = born.answer(side, heralds.patterns, settings, uniforms, hidden, first)
            a, first = first, Answers(side, settings, outcomes)
        assert a is not None and first is not None
        alike = (a.settings == 0) & (first.settings == 0)
        of += int(np.count_nonzero(alike))
        equal += int(np.count_nonzero(alike & (a.outcomes == first.outcomes)))
    return Made(pairs // BLOCK_ROUNDS * BLOCK_ROUNDS, past.attempts, equal / of, of)


# The limit: every number that matters is worked out before, once for the link


def herald_at_once(physics: LinkPhysics, pairs: int, generator: np.random.Generator) -> Made:
    steps = generator.geometric(physics.experiment.success_probability, pairs)
    attempts = np.cumsum(steps)
    patterns = generator.random(pairs) < physics.experiment.shares[0]
    assert len(patterns) == pairs
    return Made(pairs, int(attempts[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class ByHand:
    """Expectations at both ends and of products, by pattern and settings, with what time does to
    them: <A>, <B> and the Z part of <AB> shrink with pulses, its X part with dephasing too."""

    of_a: NDArray[np.float64]
    of_b: NDArray[np.float64]
    along_z: NDArray[np.float64]
    along_x: NDArray[np.float64]
    decoherence_per_ns: float
    pulse_ns: float
    pulse_shrinks: tuple[float, float]


def by_hand(physics: LinkPhysics) -> ByHand:
    experiment = physics.experiment
    memories = [experiment.storage[side].memory for side in Side]
    assert all(m.shape == "exponential" and m.decay_ns is None for m in memories)
    r = experiment.correlations
    (sin_a, cos_a), (sin_b, cos_b) = (
        ((1 - 2 * experiment.readout_error[side]) * np.array([np.sin(t), np.cos(t)]))
        for side, t in experiment.angles.items()
    )
    a, b = np.arange(len(sin_a)), np.arange(len(sin_b))
    x, y = np.meshgrid(a, b, indexing="ij")

    def flat(table: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(table.reshape(-1), dtype=np.float64)

    shape = (len(r), len(a), len(b))
    interval = memories[0].pulse_interval_ns
    return ByHand(
        flat(np.broadcast_to(r[:, 3, 0, None, None] * cos_a[x], shape)),
        flat(np.broadcast_to(r[:, 0, 3, None, None] * cos_b[y], shape)),
        flat(r[:, 3, 3, None, None] * cos_a[x] * cos_b[y]),
        flat(r[:, 1, 1, None, None] * sin_a[x] * sin_b[y]),
        sum(1.0 / m.coherence_ns for m in memories),
        interval or np.inf,
        (1 - 2 * memories[0].pulse_error, 1 - 2 * memories[1].pulse_error),
    )


def store_at_once(
    physics: LinkPhysics, known: ByHand, pairs: int, generator: np.random.Generator
) -> Made:
    experiment = physics.experiment
    steps = generator.geometric(experiment.success_probability, pairs)
    attempts = np.cumsum(steps)
    kept_ns = steps * float(experiment.schedule.period_ns) + experiment.kept_from_ns[Side.A]
    a, b = (len(experiment.angles[side]) for side in Side)
    cell = generator.integers(0, len(experiment.shares) * a * b, pairs, dtype=np.uint8)
    pulses = np.floor(kept_ns / known.pulse_ns)
    for_a, for_b = (shrink**pulses for shrink in known.pulse_shrinks)
    products = known.along_x[cell] * np.exp(kept_ns * -known.decoherence_per_ns)
    products = (products + known.along_z[cell]) * for_a * for_b
    mean_a, mean_b = known.of_a[cell] * for_a, known.of_b[cell] * for_b
    drawn = 4.0 * generator.random(pairs)
    # 00, then 01, then 10, then 11.
    first = 1 + mean_a + mean_b + products
    second = first + 1 + mean_a - mean_b - products
    third = second + 1 - mean_a + mean_b - products
    outcome_a = drawn >= second
    outcome_b = ((drawn >= first) & ~outcome_a) | (drawn >= third)
    alike = cell % (a * b) == 0
    equal = np.count_nonzero(alike & (outcome_a == outcome_b)) / np.count_nonzero(alike)
    return Made(pairs, int(attempts[-1]), float(equal), int(np.count_nonzero(alike)))


# Events, one an attempt


def with_events(physics: LinkPhysics, pairs: int, seed: int, storing: bool) -> Made:
    """A queue of two kinds of events: an attempt ends; both ends are told of a herald."""
    experiment = physics.experiment
    chance = random.Random(seed)
    success, period_ns = experiment.success_probability, experiment.schedule.period_ns
    fresh = to_state(experiment.correlations)
    queue: list[tuple[float, int, str]] = [(float(period_ns), 0, "attempt")]
    attempts = heralded = equal = of = 0
    held: tuple[float, int] | None = None
    while heralded < pairs:
        now_ns, number, kind = heapq.heappop(queue)
        if kind == "attempt":
            attempts += 1
            heapq.heappush(queue, (now_ns + period_ns, number + 1, "attempt"))
            if chance.random() < success:
                told_ns = now_ns + experiment.herald_wait_ns[Side.A]
                heapq.heappush(queue, (told_ns, number, "herald"))
            continue
        heralded += 1
        pattern = chance.choices(range(len(fresh)), experiment.shares.tolist())[0]
        if storing and held is not None:
            since_ns, earlier = held
            alike, agreed = _measured(physics, fresh[earlier], now_ns - since_ns, chance)
            of, equal = of + alike, equal + agreed
        held = now_ns, pattern
    return Made(pairs, attempts, equal / of if of else 0.0, of)


def _measured(
    physics: LinkPhysics, pair: states.State, kept_ns: float, chance: random.Random
) -> tuple[bool, bool]:
    """Whether both ends had their setting 0, and if so, whether they agreed."""
    experiment = physics.experiment
    aged = pair
    for side in Side:
        memory = experiment.storage[side].memory
        age_ns = kept_ns + experiment.kept_from_ns[side]
        aged = states.dephase(aged, age_ns, memory.coherence_ns, memory.shape, side)
        if memory.pulse_interval_ns is not None:
            kept = (1 - 2 * memory.pulse_error) ** (age_ns // memory.pulse_interval_ns)
            aged = states.depolarise(aged, 1 - kept, side)
    x, y = (chance.randrange(len(experiment.angles[side])) for side in Side)
    table = states.joint_probabilities(
        aged,
        experiment.angles[Side.A][x],
        experiment.angles[Side.B][y],
        experiment.readout_error[Side.A],
        experiment.readout_error[Side.B],
    )
    a, b = divmod(chance.choices(range(4), table.ravel().tolist())[0], 2)
    return x == y == 0, x == y == 0 and a == b


# Compared


def agree(ways: dict[str, Made], physics: LinkPhysics) -> None:
    """All made the same: success an attempt and equal outcomes within five standard deviations."""
    success = physics.experiment.success_probability
    measured = [made for made in ways.values() if made.equal_of]
    total = sum(made.equal_of for made in measured)
    equal = sum(made.equal * made.equal_of for made in measured) / max(1, total)
    for name, made in ways.items():
        error = 5.0 / made.pairs**0.5
        assert abs(made.pairs / made.attempts / success - 1.0) < error, name
        if made.equal_of:
            spread = 5.0 * (equal * (1.0 - equal) / made.equal_of) ** 0.5
            assert abs(made.equal - equal) < spread, name


def heralding(name: str, pairs: int) -> list[Speed]:
    physics = LinkPhysics(load_preset(name))
    what = f"heralded, {name}"
    ways: dict[str, Made] = {}

    def ours() -> None:
        ways["ours"] = herald_in_blocks(physics, pairs, np.random.default_rng(1))

    def limit() -> None:
        ways["limit"] = herald_at_once(physics, pairs, np.random.default_rng(2))

    def events() -> None:
        ways["events"] = with_events(physics, EVENT_PAIRS, 3, storing=False)

    taken = {"ours": cpu_seconds(ours)}
    if physics.experiment.scheme == "repeater-node":
        # Two links and a swap: no elementary link, and no one draw.
        return [Speed(what, "ours", ways["ours"].pairs / taken["ours"])]
    taken |= {"limit": cpu_seconds(limit), "events": cpu_seconds(events, 1)}
    agree(ways, physics)
    return rates(what, ways, taken, HERALDED_MIN)


def rates(what: str, ways: dict[str, Made], taken: dict[str, float], target: float) -> list[Speed]:
    return [
        Speed(what, way, made.pairs / taken[way], target if way == "ours" else None)
        for way, made in ways.items()
    ]


def storing(pairs: int) -> list[Speed]:
    physics = LinkPhysics(load_preset(STORING))
    known = by_hand(physics)
    ways: dict[str, Made] = {}

    def ours() -> None:
        ways["ours"] = store_in_blocks(physics, pairs, np.random.default_rng(4))

    def limit() -> None:
        ways["limit"] = store_at_once(physics, known, pairs, np.random.default_rng(5))

    def events() -> None:
        ways["events"] = with_events(physics, 5 * EVENT_PAIRS, 6, storing=True)

    taken = {
        "ours": cpu_seconds(ours),
        "limit": cpu_seconds(limit),
        "events": cpu_seconds(events, 1),
    }
    agree(ways, physics)
    return rates(f"stored and measured, {STORING}", ways, taken, STORED_MIN)


def rounds_of_nature(pairs: int) -> list[Speed]:
    """Orders, heralds, settings, outcomes and reports of both ends, in blocks."""
    blocks = max(1, pairs // BLOCK_ROUNDS)
    links = links_of({"fibre": ("alice", "bob")}, load_preset("oxford"))
    nature = Nature(links, np.random.default_rng(1), Clock(fast=True))
    chance = np.random.default_rng(2)
    link = LinkName("fibre")
    request = RequestId("0" * 32)
    sides = {NodeName("alice"): 2, NodeName("bob"): 3}
    settings = {
        node: chance.integers(0, top, BLOCK_ROUNDS, np.uint8) for node, top in sides.items()
    }

    def order(node: NodeName, operation: Operation) -> None:
        nature.step(0, node, operation)

    def session() -> None:
        for block in range(blocks):
            for node in sides:
                order(node, Attempt(link, request, block, BLOCK_ROUNDS))
            for node in sides:
                order(node, Measure(link, request, block, settings[node]))
        for node in sides:
            order(node, Release(link, request))

    def uniforms() -> None:
        for _ in range(blocks * UNIFORMS_A_ROUND):
            chance.random(BLOCK_ROUNDS)

    rounds = blocks * BLOCK_ROUNDS
    what = "rounds of nature, oxford"
    return [
        Speed(what, "ours", rounds / cpu_seconds(session)),
        Speed(what, f"{UNIFORMS_A_ROUND} uniforms a round", rounds / cpu_seconds(uniforms)),
    ]


@click.command()
@click.option("--pairs", default=1_500_000, show_default=True, type=click.IntRange(100_000))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rates here.")
def main(pairs: int, json_file: Path | None) -> None:
    """Exits with 1 if a rate is below its target."""
    speeds = [speed for name in HERALDING for speed in heralding(name, pairs)]
    speeds += storing(pairs)
    speeds += rounds_of_nature(pairs)
    ours = {speed.what: speed.pairs_per_cpu_s for speed in speeds if speed.way == "ours"}
    table = Table("pairs", "way", "a CPU-second", "ours to this", "at least")
    for speed in speeds:
        ratio = ours[speed.what] / speed.pairs_per_cpu_s
        target = f"{speed.target:,.0f}" if speed.target else ""
        rate = f"{speed.pairs_per_cpu_s:,.0f}"
        table.add_row(speed.what, speed.way, rate, f"{ratio:,.3g}", target)
    Console(width=100).print(table)
    if json_file:
        results = [
            asdict(speed) | {"ours_to_this": ours[speed.what] / speed.pairs_per_cpu_s}
            for speed in speeds
        ]
        json_file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    slow = [s.what for s in speeds if s.target and s.pairs_per_cpu_s < s.target]
    if slow:
        raise click.ClickException(f"slower than it should be: {', '.join(slow)}")


if __name__ == "__main__":
    main()
