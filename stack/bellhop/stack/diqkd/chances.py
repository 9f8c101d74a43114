"""How likely an honest run leaves no key: from the exact distribution of its tests and losses.

The tests of n rounds are binomial, the losses binomial among them.  A key falls with the losses,
so for each number of tests there is a most that leaves one, and the rest is a tail.  Exact but for
the rounding of key bits, and for numbers of tests so far off that they count as leaving none
(`TAIL`).
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bellhop.stack.diqkd.bounds.design import RENYI
from bellhop.stack.diqkd.parameters import KEY_BITS_MIN
from bellhop.stack.diqkd.plan import PlannedSession

TAIL = 7.0
"""Standard deviations of the number of tests beyond which no key is counted: 3e-12 of all runs."""

BISECTIONS = 24
"""Halvings that find a count among the most that a session has."""

Counts = NDArray[np.int64]
Reals = NDArray[np.float64]

Left = Callable[[Counts, Counts], Reals]
"""Key bits that so many tests and losses leave, for many runs at once; falls with the losses."""


def no_key_probability(planned: PlannedSession, at_least_bits: int = KEY_BITS_MIN) -> float:
    """That an honest run of memoryless devices leaves fewer bits, at the mean leak.

    A failure of reconciliation is not in it, nor that its leak depends on the errors it meets.
    """
    (_, _), (test, losing) = planned.classes
    return tail_probability(left(planned), planned.rounds, test, losing, at_least_bits)


def losses_most(planned: PlannedSession) -> int:
    """The most losses among the mean number of tests that leave a key; -1 if none does."""
    return int(most_losses(left(planned), np.array([planned.tests]), KEY_BITS_MIN)[0])


def s_least(planned: PlannedSession) -> float:
    """The CHSH value that so many losses are: below it nothing is left."""
    return 8.0 * (1.0 - losses_most(planned) / planned.tests) - 4.0


def left(planned: PlannedSession) -> Left:
    """The bound's key length at the mean leak, to a bit, for arrays of counts (see `library`)."""
    design = planned.certified.design
    base = planned.left(0, 0)
    paid = planned.certified.bound == RENYI

    def bits(tests: Counts, losses: Counts) -> Reals:
        wins = tests - losses
        score = design.score_win * wins + design.score_lose * losses
        most = planned.rounds  # a key is no longer than the string it is hashed from
        return np.minimum(base + score - paid * _test_string_bits(wins, losses), most)

    return bits


def _test_string_bits(wins: Counts, losses: Counts) -> Reals:
    """t h(losses / t) for t = wins + losses."""
    tests = np.maximum(wins + losses, 1)
    of_each = [part * np.log2(tests / np.maximum(part, 1)) for part in (wins, losses)]
    return np.asarray(of_each[0] + of_each[1], np.float64)


def tail_probability(left: Left, rounds: int, test: float, losing: float, bits: int) -> float:
    """P(left(T, L) < bits) for T ~ Binomial(rounds, test), L ~ Binomial(T, losing)."""
    spread = TAIL * math.sqrt(rounds * test * (1.0 - test)) + TAIL
    first = max(0, math.floor(rounds * test - spread))
    last = min(rounds, math.ceil(rounds * test + spread))
    tests = np.arange(first, last + 1)
    inside = _binomial(rounds, test, tests) @ _above(tests, losing, most_losses(left, tests, bits))
    outside = _above(rounds, test, last) + _above(rounds, 1.0 - test, rounds - first)
    return min(1.0, float(inside) + float(outside))


def most_losses(left: Left, tests: Counts, bits: int) -> Counts:
    """For each number of tests the most losses that leave `bits`; -1 where not even none does."""
    low, high = np.full(tests.shape, -1), tests + 1
    for _ in range(BISECTIONS):
        middle = (low + high) // 2
        fits = (middle < 0) | (left(tests, np.maximum(middle, 0)) >= bits)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return low


def _binomial(n: int, p: float, k: Counts) -> Reals:
    """P(Binomial(n, p) = k)."""
    from scipy.special import gammaln, xlog1py, xlogy

    choices = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return np.asarray(np.exp(choices + xlogy(k, p) + xlog1py(n - k, -p)), np.float64)


def _above(n: ArrayLike, p: float, k: ArrayLike) -> Reals:
    """P(Binomial(n, p) > k), a regularised incomplete beta function; k from -1 to n."""
    from scipy.special import betainc

    n, k = np.asarray(n, np.float64), np.asarray(k, np.float64)
    inside = (k >= 0) & (k < n)
    tail = betainc(np.where(inside, k + 1.0, 1.0), np.where(inside, n - k, 1.0), p)
    return np.asarray(np.where(inside, tail, np.where(k < 0, 1.0, 0.0)), np.float64)
