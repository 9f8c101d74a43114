"""How many attempts until the next herald: exact laws, drawn in blocks, never attempt by attempt.

Everything rests on one identity: with E exponential of mean 1 and r = -ln(1 - p), floor(E / r) is
the number of failures before the first success of probability p, for P(E >= k r) = (1 - p)^k
(Devroye, Non-Uniform Random Variate Generation (1986), X.2).  Numpy's `geometric` inverts the
same way below p = 1/3, one draw at a time; whole arrays are faster.  Doubles resolve E to about
1e-15, so for p >= 1e-9 what is drawn differs from the law by less than 1e-6 in total variation.
"""

from dataclasses import dataclass
from math import expm1, inf, log1p
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]

MODES_MAX = 2**16
"""Mode numbers are uint16."""

ATTEMPTS_MAX = 2.0**62
"""Attempts are numbered in int64."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """The heralds of n rounds, all (n,).

    `attempts`: each herald's attempt from 0, strictly rising.  `modes`: the mode that succeeded;
    None if there is one only.  `waits`: further attempts that the first half of a repeater node's
    pair was stored for; `first`: 0 if that was side A's half (0 too if both came at once).
    """

    attempts: Whole
    modes: NDArray[np.uint16] | None = None
    waits: Whole | None = None
    first: NDArray[np.uint8] | None = None


class Law(Protocol):
    """When attempts succeed.  `success_probability`: heralds an attempt, in the long run."""

    @property
    def success_probability(self) -> float: ...

    def draw(self, generator: np.random.Generator, rounds: int) -> Draw:
        """The attempts from the first to the one that heralds the last of `rounds` pairs."""
        ...


def failures(generator: np.random.Generator, probability: float, size: int) -> Whole:
    """Failures before a success, (size,): the geometric law from 0; see the module."""
    assert probability > 0.0, "nothing ever succeeds"
    waits = generator.standard_exponential(size)
    waits *= 1.0 / _rate(probability)
    # A cast of more than int64 holds has no defined result.
    assert waits.max(initial=0.0) < ATTEMPTS_MAX, "success is too rare to count the attempts"
    return waits.astype(np.int64)  # towards zero, which is the floor


def _rate(probability: float) -> float:
    """-ln(1 - p): the rate of the exponential law whose whole part is geometric."""
    assert 0.0 <= probability <= 1.0, "success is a probability"
    return inf if probability == 1.0 else -log1p(-probability)


def _in_a_row(rate: float, times: float) -> float:
    """1 - (1-p)^times: at least one success in so many tries."""
    return 0.0 if times == 0 or rate == 0.0 else -expm1(-rate * times)


class Multiplexed:
    """Attempts of several modes that succeed alike; an attempt heralds its first success.

    Collins et al., Phys. Rev. Lett. 98, 060502 (2007); Cui et al., arXiv 2503.13898.
    """

    def __init__(self, success_probability_per_mode: float, modes: int = 1) -> None:
        assert 1 <= modes <= MODES_MAX
        self._per_mode = success_probability_per_mode
        self._modes = modes

    @property
    def success_probability(self) -> float:
        """1 - (1-p)^N."""
        return _in_a_row(_rate(self._per_mode), self._modes)

    def draw(self, generator: np.random.Generator, rounds: int) -> Draw:
        """Modes are tried in order, so failures in a row have one geometric law over all modes.

        Its quotient by N is the number of attempts that failed whole and its remainder the mode
        that succeeded, and the two are independent: p q^(N k + m) = (q^N)^k p q^m.
        """
        failed = failures(generator, self._per_mode, rounds)
        modes: NDArray[np.uint16] | None = None
        if self._modes > 1:
            count = np.int64(self._modes)
            whole = failed // count
            modes = (failed - whole * count).astype(np.uint16)
            failed = whole
        return Draw(_rising(failed), modes)


class RepeaterNode:
    """A node in the middle keeps the first side's half until the other side has one, or the cutoff.

    Each attempt tries the sides that lack a half, A with p_a, B with p_b.  After `cutoff_attempts`
    further attempts without success the stored half is given up, and both sides are tried again.
    Collins et al., Phys. Rev. Lett. 98, 060502 (2007); Krutyanskiy et al., Phys. Rev. Lett. 130,
    213601 (2023).

    A cycle runs from two empty memories to success or cutoff.  It takes a geometric number of
    attempts (any success: P = p_a + p_b - p_a p_b), then none if both came at once, else the
    other side's first success within the cutoff.  Cycles are independent.
    """

    def __init__(self, p_a: float, p_b: float, cutoff_attempts: int) -> None:
        assert cutoff_attempts >= 0
        assert p_a > 0.0 and p_b > 0.0, "one side never succeeds"
        self._p = (p_a, p_b)
        self._cutoff = cutoff_attempts
        self._any = p_a + p_b * (1.0 - p_a)
        # The other side's success within the cutoff, by which side was first.
        self._later = (
            _in_a_row(_rate(p_b), cutoff_attempts),
            _in_a_row(_rate(p_a), cutoff_attempts),
        )
        self._both = p_a * p_b / self._any
        self._only = (p_a * (1.0 - p_b) / self._any, p_b * (1.0 - p_a) / self._any)
        cycle = self._both + sum(
            only * later for only, later in zip(self._only, self._later, strict=True)
        )
        self._cycle = min(1.0, cycle)  # Rounding may carry what nearly always succeeds beyond.

    @property
    def success_probability(self) -> float:
        """Success of a cycle over its mean number of attempts (renewal): 1/P to the first half,
        then the sum of (1-p)^j over the cutoff, (1 - (1-p)^c) / p, to the other or to the end.
        """
        first_a, first_b = self._only
        later_b, later_a = self._later
        p_a, p_b = self._p
        return self._cycle / (1.0 / self._any + first_a * later_b / p_b + first_b * later_a / p_a)

    def draw(self, generator: np.random.Generator, rounds: int) -> Draw:
        """Failed cycles K are geometric; each takes its attempts to the first half and the cutoff.

        All K + 1 times to a first half sum to a negative binomial number, which does not depend on
        how the cycles ended.
        """
        failed = failures(generator, self._cycle, rounds)
        first, waits = self._success(generator, rounds)
        steps = generator.negative_binomial(failed + 1, self._any)
        steps += failed * (self._cutoff + 1) + waits
        return Draw(_rising(steps), waits=waits, first=first)

    def _success(
        self, generator: np.random.Generator, rounds: int
    ) -> tuple[NDArray[np.uint8], Whole]:
        """Which half was first, and its wait from 0 to the cutoff, in cycles that succeed."""
        drawn = generator.random(rounds) * self._cycle
        a_first = self._only[0] * self._later[0]
        b_first = drawn >= self._both + a_first
        waits = np.zeros(rounds, dtype=np.int64)
        for side, among in enumerate(((drawn >= self._both) & ~b_first, b_first)):
            waiting = np.flatnonzero(among)
            waits[waiting] = self._waits(generator, side, len(waiting))
        return b_first.view(np.uint8), waits

    def _waits(self, generator: np.random.Generator, first: int, rounds: int) -> Whole:
        """The other side's first success among attempts 1 to the cutoff: truncated geometric, by
        inversion.  Rounding may carry the last double below 1 over the edge, hence the bound."""
        rate = _rate(self._p[1 - first])
        exponential = -np.log1p(generator.random(rounds) * -self._later[first])
        return np.minimum((exponential / rate).astype(np.int64) + 1, max(1, self._cutoff))


def _rising(failed: Whole) -> Whole:
    """Numbers of the successful attempts from the failures before each, in place."""
    # A sum of int64 wraps silently.
    assert float(failed.sum(dtype=np.float64)) + len(failed) < ATTEMPTS_MAX, "too many attempts"
    failed += 1
    failed[:1] -= 1
    return np.cumsum(failed, out=failed)
