"""How fast nature makes rounds: heralds and both ends' outcomes, in blocks of 16,384."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.nature import Nature, links_of
from bellhop.hal.operations import (
    Attempt,
    LinkName,
    Measure,
    NodeName,
    Operation,
    Release,
    RequestId,
)
from bellhop.hal.preset import load_preset

BLOCK_ROUNDS = 16_384
BLOCKS = 92  # The 1.5 million rounds of the Oxford run.
REPEATS = 5
UNIFORMS_A_ROUND = 4  # One for the attempt, the pattern and either outcome.


def seconds(work: Callable[[], None]) -> float:
    """Median over the repeats, the first of which only warms up."""
    taken = []
    for _ in range(1 + REPEATS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def main() -> None:
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
        for block in range(BLOCKS):
            for node in sides:
                order(node, Attempt(link, request, block, BLOCK_ROUNDS))
            for node in sides:
                order(node, Measure(link, request, block, settings[node]))
        for node in sides:
            order(node, Release(link, request))

    def uniforms() -> None:
        for _ in range(BLOCKS * UNIFORMS_A_ROUND):
            chance.random(BLOCK_ROUNDS)

    nature_seconds, draw_seconds = seconds(session), seconds(uniforms)
    rounds = BLOCKS * BLOCK_ROUNDS
    print(f"{rounds:,} rounds in blocks of {BLOCK_ROUNDS:,}: {nature_seconds:.3f} s,")
    print(f"{rounds / nature_seconds / 1e6:.1f} million rounds a second;")
    ratio = nature_seconds / draw_seconds
    print(f"{ratio:.1f} times what drawing {UNIFORMS_A_ROUND} plain uniforms a round takes")


if __name__ == "__main__":
    main()
