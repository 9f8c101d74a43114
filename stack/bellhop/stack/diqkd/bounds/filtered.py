"""kappa of the filtered Renyi bound: tighter than the default, UNREFEREED, only when asked for.

As `renyi`, but the test results never enter the entropy: they act as a filter whose probability
carries the score, so the key pays nothing for them, and Alice's test outcomes keep their entropy.

    H_alpha(A | E) >= F + n kappa  in the sense of `renyi`,   kappa = -log2(Theta)/(ah - 1),

Theta being the largest value, over states rho of two qubits and measurements in their XZ planes, of

    (1-g) sum_a Tr[(G_a^1/2 rho^(1/ah) G_a^1/2)^ah]
      + g sum_xy 1/4 sum_a Tr[(W_axy^1/2 rho^(1/ah) W_axy^1/2)^ah],

W_axy = P_a|x x sum_b w(c) P_b|y with w(c) = 2^(f'(c) (ah-1)/ah).  Against a static Eve f' = f and
ah = alpha; against one who acts between rounds f'(c) = f_max - (f_max - f(c))/alpha, where f_max is
the larger score, and ah = 1/(2 - alpha).

Ingredients, all published: the chain rule for sandwiched Renyi entropies (F. Dupuis, O. Fawzi,
R. Renner, Commun. Math. Phys. 379, 867 (2020), Cor. 3.5; T. Metger et al., arXiv:2203.04989,
Lemma 3.6), the leftover hash lemma of F. Dupuis (arXiv:2105.05342), Jordan's lemma.  Putting them
together - virtual registers whose success has probability 2^(-(f_max - f(c)) (alpha-1)/alpha), on
which the state is conditioned - is a derivation that passed numerical tests and that no referee has
read.  The maximum is taken over `family` and the deterministic strategies, as in `renyi`.
"""

import math
from functools import partial

import numpy as np

from bellhop.stack.diqkd.bounds.design import Design
from bellhop.stack.diqkd.bounds.family import (
    Reals,
    Strategies,
    deterministic,
    generation,
    largest,
    order_of,
)


def kappa(design: Design, adaptive: bool = True, *, points: int = 161, zooms: int = 12) -> float:
    """Bits of entropy a round has beside its score.  See the module for what is not certified."""
    order = order_of(design, adaptive)
    weights = filter_weights(design, adaptive)
    family = largest(partial(_one_round, design, order, weights), order, points, zooms)
    win, lose = (weight**order for weight in weights)
    theta = max(family, deterministic(design, order, win, lose))
    return -math.log2(theta) / (order - 1.0)


def filter_weights(design: Design, adaptive: bool) -> tuple[float, float]:
    """w(win) and w(lose)."""
    most, lost = design.score_win, design.score_lose
    if adaptive:
        lost = most - (most - lost) / design.alpha
    order = order_of(design, adaptive)
    win: float = 2.0 ** (most * (order - 1.0) / order)
    lose: float = 2.0 ** (lost * (order - 1.0) / order)
    return win, lose


def _one_round(design: Design, order: float, weights: tuple[float, float], of: Strategies) -> Reals:
    """The expression under the maximum, in closed form: two eigenvalues for each of a and x."""
    win, lose = weights
    mean, half = (win + lose) / 2.0, (win - lose) / 2.0
    test = np.zeros(1)
    for k, c in of.correlations:  # Each of Alice's settings has probability 1/2, so 2 p(x) is 1.
        trace = 2.0 * (of.m0 / 4.0 * mean + half * c)
        determinant = (of.m0**2 / 16.0 - k**2) * (mean**2 - half**2)
        d = np.sqrt(np.maximum(trace**2 / 4.0 - determinant, 0.0))
        test = test + (trace / 2.0 + d) ** order + np.maximum(trace / 2.0 - d, 0.0) ** order
    g = design.test_probability
    return np.asarray((1.0 - g) * generation(order, design.flip_probability, of) + g * test)
