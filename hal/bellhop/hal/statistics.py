"""What counted outcomes say: Bell frames, correlators with their errors, CHSH, signalling.

Outcomes, settings and announced states are uint8 arrays of one entry a round.
"""

import math

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import BellState

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
    """S and its standard error, from rounds with settings 0 and 1, some for each pair of them."""
    value = variance = 0.0
    for setting_x in (0, 1):
        for setting_y in (0, 1):
            among = (x == setting_x) & (y == setting_y)
            one, error = correlation(a[among], b[among])
            value += -one if setting_x and setting_y else one
            variance += error**2
    return value, math.sqrt(variance)


def signalling(
    patterns: Outcomes, settings: Outcomes, outcomes: Outcomes, others: Outcomes
) -> float:
    """How many standard deviations the frequencies of outcome 1 differ at most between two of the
    other end's settings, own setting and herald being the same."""
    greatest = 0.0
    for pattern in np.unique(patterns):
        for setting in np.unique(settings):
            among = (patterns == pattern) & (settings == setting)
            ones = [outcomes[among & (others == other)] for other in np.unique(others)]
            pooled = float(outcomes[among].mean())
            for index, one in enumerate(ones):
                for another in ones[:index]:
                    spread = pooled * (1.0 - pooled) * (1.0 / len(one) + 1.0 / len(another))
                    difference = abs(float(one.mean()) - float(another.mean()))
                    greatest = max(greatest, difference / math.sqrt(max(spread, 1e-12)))
    return greatest
