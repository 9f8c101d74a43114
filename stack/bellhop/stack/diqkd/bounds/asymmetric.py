"""The asymmetric CHSH expression, asymptotically: for plans only.

E. Woodhead, A. Acin, S. Pironio, Quantum 5, 443 (2021), arXiv:2007.16146:
S_b = b <A0 B0> + b <A0 B1> + <A1 B0> - <A1 B1>, the key from A0.  It moves the critical error rate
from 7.15 to 7.42 % and gains nothing where experiments are good (S above 2.55).
"""

import math

from bellhop.stack.diqkd.bounds.asymptotic import (
    conjugate_entropy,
    flipped,
    lower_hull,
    lowest,
)
from bellhop.stack.diqkd.bounds.chsh import binary_entropy

WEIGHTS = (0.7, 1.3)
"""The range in which the best b is looked for."""


def asymmetric_entropy(value: float, weight: float, flip_probability: float = 0.0) -> float:
    """The least H(A0'|E) of any devices with S_b = `value`, b = `weight`.

    `conjugate_entropy` at x = sqrt(S_b^2/4 - b^2); for b < 1 the lower hull of it and of the local
    strategy with S_b = 2, which gives h(p).
    """

    def curve(v: float) -> float:
        x = math.sqrt(min(1.0, max(0.0, v * v / 4.0 - weight * weight)))
        return conjugate_entropy(x, flip_probability)

    if weight >= 1.0:
        return curve(value)
    corner = (2.0, binary_entropy(flip_probability))
    return lower_hull(curve, corner, value, 2.0 * math.hypot(1.0, weight))


def depolarised_key_rate(qber: float, weight: float, flip_probability: float = 0.0) -> float:
    """Secret bits a pair of a singlet with white noise, S_b = 2 sqrt(1 + b^2) (1 - 2 Q)."""
    value = 2.0 * math.hypot(1.0, weight) * (1.0 - 2.0 * qber)
    entropy = asymmetric_entropy(value, weight, flip_probability)
    return entropy - binary_entropy(flipped(qber, flip_probability))


def best_weight(qber: float, flip_probability: float = 0.0) -> float:
    """The b with the highest `depolarised_key_rate`."""
    return lowest(lambda b: -depolarised_key_rate(qber, b, flip_probability), *WEIGHTS)
