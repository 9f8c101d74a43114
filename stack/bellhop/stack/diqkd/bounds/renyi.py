"""kappa of the default bound: f-weighted Renyi entropy accumulation, the test string paid.

A. Arqand, T. A. Hahn, E. Y.-Z. Tan, arXiv:2405.05912.  With real scores f(win), f(lose) of test
rounds fixed before the run, n rounds of which each is a test with probability g, and the string of
test results C kept secret with Alice's, her processed string and C have the Renyi entropy

    H_alpha(A C | E) >= F + n kappa,    F = the sum of the scores that were seen

(the f-weighted entropy: precisely, the sum over strings c of 2^((alpha-1) F(c)) Q_alpha of the part
of the state with C = c is at most 2^(-(alpha-1) n kappa)).  Here kappa = -log2(Theta)/(ah - 1) and
Theta is the largest value, over states rho of two qubits and measurements in their XZ planes, of

    (1-g) sum_a Tr[(G_a^1/2 rho^(1/ah) G_a^1/2)^ah]
      + g sum_xy 1/4 sum_ab 2^((ah-1) f(c)) <ab|rho^(1/ah)|ab>^ah,

G_a Alice's projector on a, mixed with the other by the flip probability.  ah = 1/(2 - alpha) if Eve
may act between rounds, else alpha.  Two qubits suffice by Jordan's lemma.

Constants: none beside these.  Assumptions: `library.THEOREMS`.  Numerical, not proved here: the
maximum is taken over the family of `family` and over the deterministic strategies.  That nothing
else gives more has to be certified design by design, and a session takes only certified designs.
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
    family = largest(partial(_one_round, design, order), order, points, zooms)
    theta = max(family, deterministic(design, order, *_weights(design, order)))
    return -math.log2(theta) / (order - 1.0)


def _weights(design: Design, order: float) -> tuple[float, float]:
    """2^((ah-1) f): what a won and a lost test round count."""
    win: float = 2.0 ** ((order - 1.0) * design.score_win)
    lose: float = 2.0 ** ((order - 1.0) * design.score_lose)
    return win, lose


def _one_round(design: Design, order: float, of: Strategies) -> Reals:
    """The expression under the maximum, in closed form."""
    win, lose = _weights(design, order)
    quarter = of.m0 / 4.0
    test = np.zeros(1)
    for _, bias in of.correlations:  # Each of Alice's settings has probability 1/2, so 2 p(x) is 1.
        test = test + win * np.maximum(quarter + bias, 0.0) ** order
        test = test + lose * np.maximum(quarter - bias, 0.0) ** order
    g = design.test_probability
    return np.asarray((1.0 - g) * generation(order, design.flip_probability, of) + g * test)
