"""The two-qubit strategies that attain the CHSH bound, and the largest value of a round over them.

State (1 - q) Phi+ + q Phi-; Alice measures Z and X, Bob cos t Z + sin t X and cos t Z - sin t X.
For scores that make sense no other strategy gives Eve more, but the deterministic ones.  That is
found by global searches and certified design by design; nothing here proves it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.diqkd.bounds.design import Design

Reals = NDArray[np.float64]
OneRound = Callable[["Strategies"], Reals]

ZOOM = 5.0
"""Each search takes in this much less than the last: two steps of its grid around the best point
at 21 points a side."""


def order_of(design: Design, adaptive: bool) -> float:
    """The order ah of one round: 1/(2 - alpha) against an Eve who may act between rounds, else
    alpha (T. Metger et al., arXiv:2203.04989, Lemma 3.6)."""
    return 1.0 / (2.0 - design.alpha) if adaptive else design.alpha


@dataclass(frozen=True, slots=True)
class Strategies:
    """A grid of strategies in the letters of the closed forms: m1, m2, m0 and the angle t."""

    m1: Reals
    m2: Reals
    angle: Reals

    @property
    def m0(self) -> Reals:
        return np.asarray(self.m1 + self.m2)

    @property
    def correlations(self) -> tuple[tuple[Reals, Reals], tuple[Reals, Reals]]:
        """(k, c) of Alice's two settings."""
        z, x = self.m0 / 4.0, (self.m1 - self.m2) / 4.0
        return (z, z * np.cos(self.angle)), (x, x * np.sin(self.angle))


def strategies(q: Reals, t: Reals, order: float) -> Strategies:
    return Strategies((1.0 - q) ** (1.0 / order), q ** (1.0 / order), t)


def generation(order: float, flip_probability: float, of: Strategies) -> Reals:
    """Sum over a of Tr[(G_a^1/2 rho^(1/ah) G_a^1/2)^ah], with noisy preprocessing."""
    u = of.m0 / 4.0
    hidden = of.m1 * of.m2 * flip_probability * (1.0 - flip_probability)
    d = np.sqrt(np.maximum(u**2 - hidden, 0.0))
    return np.asarray(2.0 * ((u + d) ** order + (u - d) ** order))


def deterministic(design: Design, order: float, win: float, lose: float) -> float:
    """A round's value by the best deterministic strategy, from what a won and a lost test count.

    It wins one or three of the four pairs of settings; Eve knows Alice's bit but for the flip.
    """
    flip, g = design.flip_probability, design.test_probability
    test = max(k * win + (4 - k) * lose for k in (1, 3)) / 4.0
    known: float = (1.0 - flip) ** order + flip**order
    return (1.0 - g) * known + g * test


def largest(one_round: OneRound, order: float, points: int, zooms: int) -> float:
    """The largest value over 0 <= q <= 1/2 and 0 <= t <= pi/2, on grids that close in on it."""
    floor, ceiling = np.zeros(2), np.array([0.5, math.pi / 2.0])
    low, high = floor, ceiling
    best = -math.inf
    for _ in range(zooms):
        q, t = (np.linspace(low[i], high[i], points) for i in range(2))
        values = one_round(strategies(q[:, None], t[None, :], order))
        i, j = np.unravel_index(int(values.argmax()), values.shape)
        best = max(best, float(values[i, j]))
        centre, reach = np.array([q[i], t[j]]), (high - low) / (2.0 * ZOOM)
        low, high = np.maximum(centre - reach, floor), np.minimum(centre + reach, ceiling)
    return best
