"""What the outcomes of many rounds show, and how surely."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import BellState, Side

CELL_ROUNDS_MIN = 16
"""Frequencies of fewer rounds are not compared: a normal distribution does not fit them."""

Outcomes = NDArray[np.uint8]


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


def framed(
    patterns: Outcomes, settings_a: Outcomes, outcomes_a: Outcomes, outcomes_b: Outcomes
) -> tuple[Outcomes, Outcomes]:
    """Both ends' outcomes as if Phi+ had been heralded.

    Psi-: b ^ 1.  Psi+: b ^ 1, a ^ x.  Phi-: a ^ x.
    """
    reverses_b = np.isin(patterns, (BellState.PSI_PLUS, BellState.PSI_MINUS))
    reverses_x = np.isin(patterns, (BellState.PSI_PLUS, BellState.PHI_MINUS))
    flips_a = (reverses_x & (settings_a == 1)).astype(np.uint8)
    return outcomes_a ^ flips_a, outcomes_b ^ reverses_b.astype(np.uint8)


def chsh_estimate(x: Outcomes, y: Outcomes, a: Outcomes, b: Outcomes) -> tuple[float, float]:
    """S and its standard error, from rounds with settings 0 and 1.

    The error is infinite if a pair of settings was never chosen.
    """
    value = variance = 0.0
    for setting_x in (0, 1):
        for setting_y in (0, 1):
            among = (x == setting_x) & (y == setting_y)
            count = int(among.sum())
            if count == 0:
                return 0.0, math.inf
            correlation = 1.0 - 2.0 * float((a[among] ^ b[among]).mean())
            value += -correlation if setting_x and setting_y else correlation
            # One round more that disagrees keeps the error above 0 if all of a few agree.
            variance += (1.0 - correlation**2 + 1.0 / count) / count
    return value, math.sqrt(variance)


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
    rate = float((a[among] ^ b[among]).mean())
    return rate, math.sqrt((rate * (1.0 - rate) + 1.0 / count) / count)


def signalling(
    patterns: Outcomes, settings: Outcomes, outcomes: Outcomes, others: Outcomes
) -> float:
    """How many standard deviations the frequencies of outcome 1 differ at most between two of the
    other end's settings, own setting and herald being the same.

    Both in each such class of rounds alone and in all of them together: N. Mantel and W. Haenszel,
    J. Natl. Cancer Inst. 22, 719 (1959).
    """
    greatest = 0.0
    kinds = np.unique(others)
    strata = [
        (patterns == pattern) & (settings == setting)
        for pattern in np.unique(patterns)
        for setting in np.unique(settings)
    ]
    for index, one in enumerate(kinds):
        for another in kinds[:index]:
            excesses, variances = [], []
            for stratum in strata:
                excess, variance = _excess(outcomes[stratum], others[stratum], one, another)
                excesses.append(excess)
                variances.append(variance)
                greatest = max(greatest, _sigmas(excess, variance))
            greatest = max(greatest, _sigmas(sum(excesses), sum(variances)))
    return greatest


def _excess(
    outcomes: Outcomes, classes: Outcomes, one: np.uint8, another: np.uint8
) -> tuple[float, float]:
    """By how many ones a class has more than its share of those of two classes, and the variance.

    (0, 0) if there are too few rounds to say.
    """
    first, second = outcomes[classes == one], outcomes[classes == another]
    if min(len(first), len(second)) < CELL_ROUNDS_MIN:
        return 0.0, 0.0
    weight = len(first) * len(second) / (len(first) + len(second))
    pooled = (int(first.sum()) + int(second.sum())) / (len(first) + len(second))
    difference = float(first.mean()) - float(second.mean())
    return weight * difference, weight * pooled * (1.0 - pooled)


def _sigmas(excess: float, variance: float) -> float:
    return abs(excess) / math.sqrt(variance) if variance > 0.0 else 0.0


def dependence(sample: Sample, side: Side) -> tuple[float, str]:
    """How surely one end's outcomes depend on what they must not, and on what.

    Own setting being the same, an outcome is independent of the round's place and of all that was
    chosen or answered in the round before, at either end.
    """
    outcomes, settings = sample.outcomes[side], sample.settings[side]
    other = Side.B if side is Side.A else Side.A
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
