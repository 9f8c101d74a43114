"""Key rate of a device-independent run that never ends: what a link's S and QBER are worth.

A figure for comparing links, never a claim about a session: a session's key is what a finite-size
bound leaves of it (see `library`), which may be nothing where this rate is well above zero.

Assumptions: those of `library.THEOREMS`, infinitely many rounds of which next to none are tests,
one-way error correction at Shannon's limit.  Against general attacks by entropy accumulation
(R. Arnon-Friedman et al., Nat. Commun. 9, 459 (2018)).
"""

import math
from collections.abc import Callable

from bellhop.stack.diqkd.bounds.chsh import S_MAX, binary_entropy

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
_FLIP_MIN = 1e-12


def conjugate_entropy(correlation: float, flip_probability: float = 0.0) -> float:
    """H(A'|E) of a bit whose conjugate observable is correlated by x in [0, 1] with Bob's device.

    1 + h((1 + sqrt(x^2 + (1-2p)^2 (1-x^2)))/2) - h((1+x)/2), where A' is Alice's bit flipped with
    the probability p: h(p) at x = 0, 1 at x = 1.  All three protocols here are cases of it.
    """
    x, kept = correlation, (1.0 - 2.0 * flip_probability) ** 2
    purity = math.sqrt(min(1.0, x * x + kept * (1.0 - x * x)))
    return 1.0 + binary_entropy((1.0 + purity) / 2.0) - binary_entropy((1.0 + x) / 2.0)


def chsh_entropy(s: float, flip_probability: float = 0.0) -> float:
    """H_p(S), the least H(A'|E) of any devices with this CHSH value; tight.

    1 - h((1 + sqrt(S^2/4 - 1))/2) + h((1 + sqrt(1 - p (1-p) (8 - S^2)))/2): A. Acin et al., Phys.
    Rev. Lett. 98, 230501 (2007), and S. Pironio et al., New J. Phys. 11, 045021 (2009), for p = 0,
    M. Ho et al., arXiv:2005.13015, for noisy preprocessing.  h(p) without a violation.
    """
    return conjugate_entropy(math.sqrt(min(1.0, max(0.0, s * s / 4.0 - 1.0))), flip_probability)


def flipped(qber: float, flip_probability: float) -> float:
    """The error rate of a key bit that Alice flipped with this probability: Q + p - 2 p Q."""
    return qber + flip_probability - 2.0 * flip_probability * qber


def asymptotic_key_rate(s: float, qber: float, flip_probability: float = 0.0) -> float:
    """Secret bits a heralded pair, r(S, Q) = H_p(S) - h(Q + p - 2 p Q).

    The limit of infinitely many rounds of one-way distillation from the CHSH value `s` and the key
    setting's error rate `qber`.  Below zero no key can be had this way: the deficit is shown.
    Raises ValueError unless 0 <= qber <= 1.
    """
    entropy = chsh_entropy(s, flip_probability)
    return entropy - binary_entropy(flipped(qber, flip_probability))


def best_flip_probability(s: float, qber: float) -> float:
    """The p in [0, 1/2] with the highest `asymptotic_key_rate`.

    Next to nothing at low noise, 1/2 in the limit where the key ends.
    """
    return best_flip(lambda p: asymptotic_key_rate(s, qber, p))


def best_flip(rate: Callable[[float], float], most: float = 0.5) -> float:
    """The flip probability up to `most` at which a rate with one peak is highest."""
    exponent = lowest(lambda x: -rate(math.exp(x)), math.log(_FLIP_MIN), math.log(most))
    p = math.exp(exponent)
    return p if rate(p) > rate(0.0) else 0.0


def lowest(
    function: Callable[[float], float], low: float, high: float, precision: float = 5e-9
) -> float:
    """Where a function has its one valley, by golden sections: to `precision` of the bracket."""
    tolerance = (high - low) * precision
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > tolerance:
        if at_left > at_right:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)
        else:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
    return (low + high) / 2.0


def lower_hull(
    curve: Callable[[float], float], corner: tuple[float, float], value: float, most: float
) -> float:
    """The lower convex hull, at `value`, of a convex increasing curve up to `most` and a corner.

    A device may mix strategies, of which the one at the corner is deterministic.  Below the point
    where the tangent from the corner touches, the hull is that tangent; above, the curve.
    """
    at, least = corner
    if value <= at:
        return least
    touching = lowest(lambda v: (curve(v) - least) / (v - at), at + 1e-9, most)
    if value >= touching:
        return curve(value)
    return least + (curve(touching) - least) * (value - at) / (touching - at)


def asymptotic_key_rate_error(s: float, s_error: float, qber: float, qber_error: float) -> float:
    """Standard error of the rate from those of S and QBER, which are independent.

    Half the difference between one standard error more and one less, of either: unlike the
    derivative this stays finite at Q = 0 and at the quantum maximum.
    """
    least, most = max(0.0, qber - qber_error), min(1.0, qber + qber_error)
    by_s = asymptotic_key_rate(min(S_MAX, s + s_error), qber)
    by_s -= asymptotic_key_rate(s - s_error, qber)
    by_qber = binary_entropy(most) - binary_entropy(least)
    return math.hypot(by_s, by_qber) / 2.0
