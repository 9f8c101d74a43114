"""The CHSH game: winning probability, the entropy it certifies, threshold and aborts.

A round is won when ``a xor b == x * y``. The CHSH value S and the winning probability w are two
names for one number, w = 1/2 + S/8. Entropies are in bits, logarithms are base 2.
"""

from __future__ import annotations

import math
from fractions import Fraction

S_MAX = 2.0 * math.sqrt(2.0)
WIN_CLASSICAL = 0.75
WIN_QUANTUM = (2.0 + math.sqrt(2.0)) / 4.0
LN2 = math.log(2.0)


def binary_entropy(x: float) -> float:
    """h(x) in bits, with h(0) = h(1) = 0. Raises ValueError outside [0, 1]."""
    if not 0.0 <= x <= 1.0:
        raise ValueError(f"a probability lies in [0, 1], not {x}")
    if x in (0.0, 1.0):
        return 0.0
    return -(x * math.log2(x) + (1.0 - x) * math.log1p(-x) / LN2)


def winning_probability(s: float) -> float:
    return 0.5 + s / 8.0


def chsh_value(win_probability: float) -> float:
    return 8.0 * win_probability - 4.0


def entropy_rate(win_probability: float) -> float:
    """Least entropy H(A|E) of one key bit in any quantum strategy that wins this often.

    eta(w) = 1 - h(1/2 + sqrt(16 w (w - 1) + 3) / 2) for w in [3/4, (2 + sqrt 2)/4], tight
    (Pironio et al., New J. Phys. 11, 045021 (2009)). Below 3/4 a classical strategy exists and the
    answer is 0. (A w under 1/4 certifies entropy too; nothing here rewards it.)
    """
    x = _violation(win_probability)
    return 1.0 - binary_entropy((1.0 + x) / 2.0)


def entropy_rate_slope(win_probability: float) -> float:
    """d eta/d w in bits: 0 below 3/4, 4/ln 2 just above it, infinite at the quantum maximum."""
    if win_probability < WIN_CLASSICAL:
        return 0.0
    x = _violation(win_probability)
    if x >= 1.0:
        return math.inf
    ratio = 2.0 / LN2 if x < 1e-9 else (math.log1p(x) - math.log1p(-x)) / (x * LN2)
    return 4.0 * (2.0 * win_probability - 1.0) * ratio


def _violation(win_probability: float) -> float:
    """sqrt(S^2/4 - 1), in [0, 1]: 0 where a classical strategy exists, 1 at the quantum maximum."""
    if win_probability <= WIN_CLASSICAL:
        return 0.0
    # The factors of 16 w (w - 1) + 3, so that nothing cancels near 3/4.
    square = (4.0 * win_probability - 3.0) * (4.0 * win_probability - 1.0)
    return math.sqrt(min(square, 1.0))


def threshold_probability(rounds: int, gamma: Fraction, s: float, deviations: float = 3.0) -> float:
    """The winning probability to demand, fixed before the run; at least 0.

    A run is accepted when its losing test rounds are at most the share q_thr of *all* rounds,
    q_thr = q + k sqrt(q (1 - q) / n) with q = gamma (1 - w(S)), w_thr = 1 - q_thr / gamma
    (arXiv:2109.14600v2, supplement S10). Additions, products, quotients and square roots only, so
    that two machines with IEEE arithmetic find the same number.
    """
    q = float(gamma) * (1.0 - winning_probability(s))
    q_threshold = q + deviations * math.sqrt(q * (1.0 - q) / rounds)
    return max(0.0, 1.0 - q_threshold / float(gamma))


def losses_max(rounds: int, gamma: Fraction, threshold: float) -> int:
    """Most losing test rounds with which a run is accepted, floor(n gamma (1 - w_thr)), exactly.

    This count, and not wins over tests, is what the entropy bound refers to: the number of test
    rounds is itself random and the bound takes its mean.
    """
    return math.floor(rounds * gamma * (1 - Fraction(threshold)))


def published_syndrome_bits(rounds: int, gamma: Fraction, s: float, qber: float) -> int:
    """Length of the published code's syndrome, to the nearest bit.

    n [(1 - gamma) h(Q) + gamma h(1 - w(S))] + 50 sqrt(n), arXiv:2109.14600v2, supplement S10. A
    planning figure: a session subtracts the bits it really sent.
    """
    test = float(gamma)
    shannon = (1.0 - test) * binary_entropy(qber)
    shannon += test * binary_entropy(1.0 - winning_probability(s))
    return round(rounds * shannon + 50.0 * math.sqrt(rounds))


def false_abort_probability(
    rounds: int, gamma: Fraction, win_probability: float, threshold: float
) -> float:
    """Probability that honest, memoryless devices lose more often than ``losses_max`` allows.

    The losing test rounds are Binomial(n, gamma (1 - w)); this is their exact upper tail, summed
    term by term (relative error about n ln(n) 2^-52, from the logarithms of factorials).
    Reconciliation failures are not in it.
    """
    allowed = losses_max(rounds, gamma, threshold)
    return _binomial_tail(rounds, float(gamma) * (1.0 - win_probability), allowed)


def _binomial_tail(n: int, p: float, k: int) -> float:
    """P(Binomial(n, p) > k)."""
    if k >= n or (p <= 0.0 and k >= 0):
        return 0.0
    if k < 0 or p >= 1.0:
        return 1.0
    odds = p / (1.0 - p)
    # Sum away from the mean, where the terms fall: the smaller side exactly, never 1 - (1 - tiny).
    if k + 1 > n * p:
        return min(1.0, _sum_terms(n, p, k + 1, odds, upwards=True))
    return max(0.0, 1.0 - _sum_terms(n, p, k, odds, upwards=False))


def _sum_terms(n: int, p: float, start: int, odds: float, *, upwards: bool) -> float:
    term = math.exp(
        math.lgamma(n + 1)
        - math.lgamma(start + 1)
        - math.lgamma(n - start + 1)
        + start * math.log(p)
        + (n - start) * math.log1p(-p)
    )
    total, i = 0.0, start
    while term > total * 1e-17 and 0 <= i <= n:
        total += term
        if upwards:
            term *= (n - i) * odds / (i + 1)
            i += 1
        else:
            term *= i / ((n - i + 1) * odds)
            i -= 1
    return total
