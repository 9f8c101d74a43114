"""What the outcomes of many rounds show, and how surely."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import BellState, Side
from bellhop.hal.statistics import (
    CELL_ROUNDS_MIN,
    Outcomes,
    chsh_estimate,
    framed,
    proportion,
    signalling,
)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The rounds of many blocks, each array of shape (rounds,).

    `first`: the end that was measured first.  `begins`: whether a round is the first of its block.
    """

    first: Side
    patterns: Outcomes
    settings: dict[Side, Outcomes]
    outcomes: dict[Side, Outcomes]
    begins: NDArray[np.bool_]

    def framed(self) -> tuple[Outcomes, Outcomes]:
        x, a, b = self.settings[Side.A], self.outcomes[Side.A], self.outcomes[Side.B]
        return framed(self.patterns, x, a, b)


def chsh_of(sample: Sample, pattern: BellState | None = None) -> tuple[float, float]:
    """S and its error from all rounds of a sample, or from those of one announced state."""
    x, y = sample.settings[Side.A], sample.settings[Side.B]
    a, b = sample.framed()
    among = np.ones(len(x), dtype=np.bool_) if pattern is None else sample.patterns == pattern
    return chsh_estimate(x[among], y[among], a[among], b[among])


def key_errors_of(sample: Sample, pattern: BellState) -> tuple[float, float]:
    """The error rate of the key settings (A 0, B 2), and its standard error, of one pattern."""
    a, b = sample.framed()
    among = (sample.settings[Side.A] == 0) & (sample.settings[Side.B] == 2)
    among &= sample.patterns == pattern
    count = int(among.sum())
    if count < CELL_ROUNDS_MIN:
        return 0.0, math.inf
    return proportion(int(np.count_nonzero(a[among] ^ b[among])), count)


def dependence(sample: Sample, side: Side) -> tuple[float, str]:
    """How surely one end's outcomes depend on what they must not, and on what.

    Own setting being the same, an outcome is independent of the round's place and of all that was
    chosen or answered in the round before, at either end.
    """
    outcomes, settings = sample.outcomes[side], sample.settings[side]
    other = side.other
    rounds = len(outcomes)
    index = np.arange(rounds)
    follows = index[~sample.begins]
    places = {
        "whether the round is even or odd": (index, (index % 2).astype(np.uint8)),
        "the half of the run": (index, (2 * index // max(rounds, 1)).astype(np.uint8)),
        "its own outcome in the round before": (follows, outcomes[follows - 1]),
        "its own setting in the round before": (follows, settings[follows - 1]),
        "the other end's outcome in the round before": (
            follows, sample.outcomes[other][follows - 1],
        ),
        "the other end's setting in the round before": (
            follows, sample.settings[other][follows - 1],
        ),
    }  # fmt: skip
    worst, what = 0.0, ""
    for name, (among, classes) in places.items():
        # Marginals may differ between patterns and settings: compare within each.
        excess = signalling(sample.patterns[among], settings[among], outcomes[among], classes)
        if excess > worst:
            worst, what = excess, name
    return worst, what
