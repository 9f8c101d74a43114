"""The Renyi bound for plans, against a global search over strategies and the older bound."""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from bellhop.stack.diqkd.bounds.chsh import entropy_rate, threshold_probability
from bellhop.stack.diqkd.bounds.design import RENYI, Design
from bellhop.stack.diqkd.bounds.entropy import key_length
from bellhop.stack.diqkd.bounds.expected import expected_shown, uncertified
from bellhop.stack.diqkd.bounds.library import Shown
from bellhop.stack.diqkd.bounds.renyi import kappa

Matrix = NDArray[np.float64]
FIRST = Design(1.0007, 0.10, 17.0, -78.0)


@pytest.mark.parametrize(
    ("design", "adaptive", "static"),
    [
        (FIRST, 0.56919321, 0.56921690),
        (Design(1.001, 0.14, 12.0, -53.0, 0.01), 0.57615874, 0.57619058),
        (Design(1.001, 0.10, 16.0, -65.0), 0.38226633, 0.38230857),
    ],
)
def test_kappa(design: Design, adaptive: float, static: float) -> None:
    assert kappa(design) == pytest.approx(adaptive, abs=2e-8)
    assert kappa(design, adaptive=False) == pytest.approx(static, abs=2e-8)


def test_a_known_run() -> None:
    shown = Shown(1_200_000, 120_000, 21_000, leak_bits=300_000 + 64 + 10)
    assert uncertified(RENYI, Design(1.001, 0.10, 16.0, -65.0), 1e-10).key_bits(shown) == 264_113


def test_kappa_and_the_score_never_exceed_the_asymptotic_entropy() -> None:
    """In the limit of many rounds a round is worth at most what an honest device's is."""
    for s in np.linspace(2.05, 2.82, 12):
        shown = expected_shown(FIRST, 10**9, float(s), 0.0, 0.0)
        entropy = entropy_rate(shown.wins / shown.tests)
        tests = FIRST.test_probability
        # A test round keeps Alice's outcome and the result secret: at most two bits.
        ceiling = (1.0 - tests) * entropy + tests * 2.0
        assert uncertified(RENYI, FIRST, 1e-10).key_bits(shown) / shown.rounds < ceiling


def test_more_keys_from_the_rubidium_run_than_by_the_older_bound() -> None:
    """1.2 million rounds at S = 2.612 and 3 % errors, at the same margin and the same leak."""
    rounds, s, qber = 1_200_000, 2.612, 0.03
    shown = expected_shown(FIRST, rounds, s, qber, 1.10)
    ours = uncertified(RENYI, FIRST, 1e-10).key_bits(shown)
    older = max(
        key_length(
            rounds=rounds,
            gamma=gamma,
            threshold=threshold_probability(rounds, gamma, s, deviations=0.0),
            leak_bits=round(shown.leak_bits),
            epsilon=1e-10,
            form="two-universal",
        ).key_bits
        for gamma in (Fraction(1, 10), Fraction(1, 20), Fraction(1, 5))
    )
    # Published for this run: 0.112 bits a round by a Renyi bound, 0.034 by the older one.
    assert ours / rounds > 0.2
    assert older < ours


@pytest.mark.parametrize(
    "wrong",
    [
        (1.0, 0.1, 1, 0, 0),
        (1.5, 0.1, 1, 0, 0),
        (1.1, 0.0, 1, 0, 0),
        (1.1, 0.1, 0, 0, 0),
        (1.1, 0.1, math.inf, 0, 0),
        (1.1, 0.1, 1, -math.inf, 0),
        (1.1, 0.1, 1, math.nan, 0),
    ],
)
def test_designs_out_of_range_are_refused(wrong: tuple[float, float, float, float, float]) -> None:
    with pytest.raises(ValueError):
        Design(*wrong)


def one_round(design: Design, q: float, t: float) -> float:
    """A point of the family by matrices: Tr[(M^1/2 rho^(1/ah) M^1/2)^ah] summed over results.

    rho is diagonal in two of the Bell states, Alice measures Z or X, Bob in between.
    """
    order = 1.0 / (2.0 - design.alpha)
    identity, x, z = np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]]), np.diag([1.0, -1.0])
    phi = [np.array([1.0, 0.0, 0.0, sign]) / np.sqrt(2.0) for sign in (1.0, -1.0)]
    root = sum(
        weight ** (1.0 / order) * np.outer(vector, vector)
        for weight, vector in zip((1.0 - q, q), phi, strict=True)
    )

    def power_trace(on_a: Matrix, on_b: Matrix) -> float:
        effect = np.asarray(np.kron(on_a, on_b), dtype=np.float64)
        values = np.linalg.eigvalsh(effect @ root @ effect)  # the effects are projectors
        return float((np.maximum(values, 0.0) ** order).sum())

    def projectors(
        observable: Matrix,
    ) -> list[Matrix]:
        return [(identity + observable) / 2.0, (identity - observable) / 2.0]

    exponent = (order - 1.0) / order
    scores = (design.score_lose, design.score_win)
    generation: float = sum(power_trace(effect, identity) for effect in projectors(z))
    test = 0.0
    for setting_a, alice in enumerate((z, x)):
        for setting_b in (0, 1):
            bob = np.cos(t) * z + (-1.0) ** setting_b * np.sin(t) * x
            for a, effect_a in enumerate(projectors(alice)):
                for b, effect_b in enumerate(projectors(bob)):
                    won = (a ^ b) == (setting_a & setting_b)
                    weight = 2.0 ** (exponent * scores[won])
                    # Each pair of settings has the probability 1/4.
                    test += weight**order * power_trace(effect_a, effect_b) / 4.0
    g = design.test_probability
    return (1.0 - g) * generation + g * test


def test_the_closed_form_is_what_matrices_give_and_its_maximum_is_above_them() -> None:
    generator = np.random.default_rng(11)
    for design in (FIRST, Design(1.002, 0.18, 10.0, -36.0)):
        order = 1.0 / (2.0 - design.alpha)
        theta = 2.0 ** (-kappa(design) * (order - 1.0))
        points = [
            one_round(design, float(generator.uniform(0, 0.3)), float(generator.uniform(0.3, 1.2)))
            for _ in range(300)
        ]
        assert max(points) <= theta + 1e-12
        # And the maximum is not far above: a point close to it is among the random ones.
        assert theta - max(points) < 1e-4 * theta
