"""Finite size by Renyi entropy accumulation, for plans: the f-weighted bound.

A. Arqand, T. A. Hahn, E. Y.-Z. Tan, arXiv:2405.05912: with real scores f(win), f(lose) of test
rounds fixed before the run, n rounds of which each is a test with probability g, and the string of
test results C kept secret with Alice's, her processed string has the Renyi entropy of order alpha

    H_alpha >= F + n kappa,    F = the sum of the scores that were seen,

    kappa = -log2(Theta) / (ah - 1),   ah = 1 / (2 - alpha)  (Eve may adapt from round to round),

Theta being the largest value of a one-round expression over what a device can do.  What was said in
public is subtracted, the string C included, and the leftover hash lemma of F. Dupuis
(arXiv:2105.05342) turns the rest into a key.

Here Theta is the larger of two branches: the two-qubit family that attains the CHSH bound, in its
two parameters, and the deterministic strategies.  That no other strategy of a design gives more has
to be certified design by design; this module does not, so no session takes its key from it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.diqkd.bounds.chsh import binary_entropy, winning_probability
from bellhop.stack.diqkd.bounds.design import Design

ZOOMS = 12
GRID = 161
"""The maximum over the family is searched on a square grid, that shrinks around the best point."""

Reals = NDArray[np.float64]


def kappa(design: Design, adaptive: bool = True) -> float:
    """Bits of entropy a round has beside its score.  See the module for what is not certified."""
    order = 1.0 / (2.0 - design.alpha) if adaptive else design.alpha
    theta = max(_family(design, order), _deterministic(design, order))
    return -math.log2(theta) / (order - 1.0)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run was like: counts of the test rounds, and what was said about Alice's string.

    `leak_bits`: by error correction; `tag_bits`: by verification; `bins`: how many values the
    announced score could have taken; `epsilon`: of privacy amplification.
    """

    rounds: int
    wins: int
    losses: int
    leak_bits: float
    epsilon: float
    tag_bits: int = 64
    bins: int = 1024


def expected_run(
    design: Design, rounds: int, s: float, qber: float, efficiency: float, epsilon: float
) -> Run:
    """The run that a link with the CHSH value `s` and error rate `qber` gives on average.

    Error correction says `efficiency` times Shannon's limit: h(qber) in key rounds, h of the losing
    probability in test rounds.
    """
    wins = winning_probability(s)
    tests = design.test_probability * rounds
    shannon = (rounds - tests) * binary_entropy(qber) + tests * binary_entropy(1.0 - wins)
    won = round(tests * wins)
    return Run(rounds, won, round(tests) - won, efficiency * shannon, epsilon)


def key_bits(design: Design, run: Run, adaptive: bool = True) -> int:
    """The key's length, negative if there is none: F + n kappa less everything said in public."""
    score = run.wins * design.score_win + run.losses * design.score_lose
    tests = run.wins + run.losses
    test_string = tests * binary_entropy(run.losses / tests) if tests else 0.0
    said = run.leak_bits + run.tag_bits + math.log2(run.bins) + test_string
    hashing = 2.0 - design.alpha / (design.alpha - 1.0) * math.log2(1.0 / run.epsilon)
    return math.floor(score + run.rounds * kappa(design, adaptive) - said + hashing)


def _weights(design: Design, order: float) -> tuple[float, float]:
    exponent = (order - 1.0) / order
    win: float = 2.0 ** (exponent * design.score_win)
    lose: float = 2.0 ** (exponent * design.score_lose)
    return win, lose


def _deterministic(design: Design, order: float) -> float:
    """The best deterministic strategy: it wins one or three of the four pairs of settings."""
    win, lose = (weight**order for weight in _weights(design, order))
    p = design.flip_probability
    generation: float = (1.0 - p) ** order + p**order
    test: float = max(k * win + (4 - k) * lose for k in (1, 3)) / 4.0
    return (1.0 - design.test_probability) * generation + design.test_probability * test


def _family(design: Design, order: float) -> float:
    """The largest value over 0 <= q <= 1/2, 0 <= t <= pi/2."""
    low, high = np.zeros(2), np.array([0.5, math.pi / 2.0])
    best = -math.inf
    for _ in range(ZOOMS):
        axes = [np.linspace(low[i], high[i], GRID) for i in range(2)]
        values = _one_round(design, order, axes[0][:, None], axes[1][None, :])
        place = np.unravel_index(int(values.argmax()), values.shape)
        best = max(best, float(values[place]))
        centre = np.array([axis[index] for axis, index in zip(axes, place, strict=True)])
        reach = (high - low) / 10.0
        low = np.maximum(centre - reach, 0.0)
        high = np.minimum(centre + reach, [0.5, math.pi / 2.0])
    return best


def _one_round(design: Design, order: float, q: Reals, t: Reals) -> Reals:
    """The expression under the maximum for the states with weights 1 - q and q, at the angle t."""
    m1, m2 = (1.0 - q) ** (1.0 / order), q ** (1.0 / order)
    m0, p = m1 + m2, design.flip_probability
    u = m0 / 4.0
    d = np.sqrt(np.maximum(u**2 - m1 * m2 * p * (1.0 - p), 0.0))
    generation = 2.0 * ((u + d) ** order + (u - d) ** order)
    win, lose = _weights(design, order)
    test = np.zeros(np.broadcast_shapes(q.shape, t.shape))
    for bias in (u * np.cos(t), (m1 - m2) / 4.0 * np.sin(t)):
        # Each of Alice's settings has probability 1/2, so 2 p(x) is 1.
        test = test + (win * np.maximum(u + bias, 0.0)) ** order
        test = test + (lose * np.maximum(u - bias, 0.0)) ** order
    g = design.test_probability
    return np.asarray((1.0 - g) * generation + g * test, dtype=np.float64)
