"""The design that gives the longest key from a run that is expected: a plan's or a catalogue's.

Any design gives a true statement for any run.  A poor search costs key and nothing else.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from bellhop.stack.diqkd.bounds.chsh import (
    S_MAX,
    binary_entropy,
    entropy_rate_slope,
    winning_probability,
)
from bellhop.stack.diqkd.bounds.design import RENYI, SCALE, Design
from bellhop.stack.diqkd.bounds.expected import KAPPA, shannon_bits
from bellhop.stack.diqkd.bounds.family import Reals

POINTS, ZOOMS = 21, 9
"""A quick search for kappa; the dense one agrees with it to 1e-12 for designs that are any good."""

FLIPS_FROM = 0.04
"""Below this error rate noisy preprocessing gains less than a thousandth of a bit a round."""

FLIPS_GAIN = 1e-4
"""Bits a round for which it is worth having at all: it costs a generator and a table more."""

_EVALUATIONS = 900
_ORDERS, _TESTS, _SPREADS, _FLIPS = (1e-8, 0.3), (1e-4, 0.6), (1e-2, 1e6), (1e-9, 0.499999)
"""Limits of alpha - 1, of the test probability, of the scores' distance, of the flips."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the design is for.  ValueError if it makes no sense.

    `efficiency`: what error correction says over Shannon's limit.  `adaptive`: Eve may act between
    rounds, as she may when tests are announced round by round.  `test_probability`: if that of the
    run is given already.
    """

    bound: str
    rounds: int
    s: float
    qber: float
    efficiency: float = 1.06
    epsilon_privacy: float = 1e-10
    adaptive: bool = True
    test_probability: float | None = None

    def __post_init__(self) -> None:
        demands = {
            f"{self.bound} has no designs of this kind": self.bound in KAPPA,
            "rounds is at least 1": self.rounds >= 1,
            "s is above 2 and at most 2 sqrt(2)": 2.0 < self.s <= S_MAX,
            "qber is from 0 to 1/2": 0.0 <= self.qber <= 0.5,
            "efficiency is at least 0": 0.0 <= self.efficiency < math.inf,
            "epsilon_privacy is above 0 and below 1": 0.0 < self.epsilon_privacy < 1.0,
            "test_probability is above 0 and below 1": 0.0 < (self.test_probability or 0.5) < 1.0,
        }
        for demand, met in demands.items():
            if not met:
                raise ValueError(demand)

    def worth(self, design: Design, *, points: int = POINTS, zooms: int = ZOOMS) -> float:
        """Bits of key but for a constant (tag, counts), nothing rounded to whole bits or tests."""
        wins = winning_probability(self.s)
        tests = design.test_probability * self.rounds
        score = tests * (wins * design.score_win + (1.0 - wins) * design.score_lose)
        kappa = KAPPA[self.bound](design, self.adaptive, points=points, zooms=zooms)
        said = self.efficiency * shannon_bits(design, self.rounds, self.s, self.qber)
        if self.bound == RENYI:
            said += tests * binary_entropy(1.0 - wins)
        unlikely = math.log2(1.0 / self.epsilon_privacy)
        return score + self.rounds * kappa - said - design.alpha / (design.alpha - 1.0) * unlikely


def optimise(
    bound: str,
    rounds: int,
    s: float,
    qber: float,
    efficiency: float = 1.06,
    epsilon_privacy: float = 1e-10,
    adaptive: bool = True,
    test_probability: float | None = None,
) -> Design:
    """The design for this bound (`RENYI` or `FILTERED`), `Design.drawable`, with rounded figures.

    About a second.  There is always an answer, even where no key can be had.  Raises ValueError
    as `Expected`.
    """
    expected = Expected(
        bound, rounds, s, qber, efficiency, epsilon_privacy, adaptive, test_probability
    )
    best = rounded(_search(expected, _start(expected)))
    if qber >= FLIPS_FROM:
        flipping = rounded(_search(expected, replace(best, flip_probability=0.05)))
        if expected.worth(flipping) > expected.worth(best) + FLIPS_GAIN * rounds:
            return flipping
    return best


def rounded(design: Design) -> Design:
    """The nearest design that a session can draw, its order and scores to five figures or so."""
    alpha = 1.0 + float(f"{design.alpha - 1.0:.4g}")
    return Design(
        float(f"{alpha:.15g}"),
        min(max(round(design.test_probability * SCALE), 1), SCALE - 1) / SCALE,
        float(f"{design.score_win:.5g}"),
        float(f"{design.score_lose:.5g}"),
        round(design.flip_probability * SCALE) / SCALE,
    )


def _start(expected: Expected) -> Design:
    """Where the order balances a variance of about 40 bits squared against the hashing, and the
    scores are the tangent of the entropy, with mean zero."""
    unlikely = math.log2(1.0 / expected.epsilon_privacy)
    order = math.sqrt(unlikely / (40.0 * expected.rounds))
    wins = winning_probability(min(expected.s, 2.82))
    usual = min(0.3, max(0.02, 0.116 * (1.2e6 / expected.rounds) ** 0.3))
    test = expected.test_probability or usual
    spread = 0.9 * entropy_rate_slope(wins) / test
    return Design(1.0 + min(order, 0.05), test, (1.0 - wins) * spread, -wins * spread, 0.0)


def _search(expected: Expected, start: Design) -> Design:
    """Nelder-Mead over ln(alpha - 1), the logarithm of the scores' distance, their mean, ln g
    unless it is given, and ln p if the start flips; twice, since a simplex can collapse on the
    kink of kappa."""
    from scipy.optimize import minimize

    wins = winning_probability(expected.s)

    def design_at(x: Reals) -> Design:
        order, spread = _between(x[0], _ORDERS), _between(x[1], _SPREADS)
        mean = min(max(float(x[2]), -spread), spread)
        free = [float(value) for value in x[3:]]
        test = expected.test_probability or _between(free.pop(0), _TESTS)
        flip = _between(free.pop(0), _FLIPS) if free else 0.0
        return Design(1.0 + order, test, mean + (1.0 - wins) * spread, mean - wins * spread, flip)

    def cost(x: Reals) -> float:
        return -expected.worth(design_at(x)) / expected.rounds

    at, steps = _coordinates(expected, start)
    for shrink in (1.0, 0.2):
        simplex = np.vstack([at, at + shrink * np.diag(steps)])
        found = minimize(
            cost,
            at,
            method="Nelder-Mead",
            options={
                "initial_simplex": simplex,
                "maxfev": _EVALUATIONS,
                "xatol": 1e-4,
                "fatol": 1e-8,
            },
        )
        at = np.asarray(found.x, dtype=np.float64)
    return design_at(at)


def _coordinates(expected: Expected, start: Design) -> tuple[Reals, Reals]:
    """Where the search starts, and how far its first steps go."""
    wins = winning_probability(expected.s)
    spread = start.score_win - start.score_lose
    mean = wins * start.score_win + (1.0 - wins) * start.score_lose
    places = [(math.log(start.alpha - 1.0), 0.5), (math.log(spread), 0.3), (mean, 1.0)]
    if expected.test_probability is None:
        places.append((math.log(start.test_probability), 0.5))
    if start.flip_probability:
        places.append((math.log(start.flip_probability), 0.8))
    at, steps = zip(*places, strict=True)
    return np.array(at), np.array(steps)


def _between(logarithm: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return math.exp(min(max(logarithm, math.log(low)), math.log(high)))
