"""What counted outcomes say: Bell frames, correlators with their errors, CHSH, signalling.

Outcomes, settings and announced states are uint8 arrays of one entry a round.
"""

import math

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import BellState

CELL_ROUNDS_MIN = 16
"""Frequencies of fewer rounds are not compared: a normal distribution does not fit them."""

Outcomes = NDArray[np.uint8]


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


def proportion(count: int, of: int) -> tuple[float, float]:
    """A share and its binomial standard error, `of` at least 1.

    The error is that of (count + 1) / (of + 2), Laplace's rule: never having seen a thing is no
    certainty.
    """
    smoothed = (count + 1) / (of + 2)
    return count / of, math.sqrt(smoothed * (1.0 - smoothed) / of)


def correlation(a: Outcomes, b: Outcomes) -> tuple[float, float]:
    """P(equal) - P(different) and its standard error, for at least one round."""
    different, error = proportion(int(np.count_nonzero(a ^ b)), len(a))
    return 1.0 - 2.0 * different, 2.0 * error


def chsh_estimate(x: Outcomes, y: Outcomes, a: Outcomes, b: Outcomes) -> tuple[float, float]:
    """S and its standard error, from rounds with settings 0 and 1.

    The error is infinite if a pair of settings was never chosen.
    """
    value = variance = 0.0
    for setting_x in (0, 1):
        for setting_y in (0, 1):
            among = (x == setting_x) & (y == setting_y)
            if not among.any():
                return 0.0, math.inf
            one, error = correlation(a[among], b[among])
            value += -one if setting_x and setting_y else one
            variance += error**2
    return value, math.sqrt(variance)


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
