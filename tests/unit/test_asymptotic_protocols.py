"""Noisy preprocessing, asymmetric CHSH and the random key basis, in the limit of endless runs."""

import math

import numpy as np
import pytest

from bellhop.stack.diqkd.bounds.asymmetric import asymmetric_entropy, best_weight
from bellhop.stack.diqkd.bounds.asymptotic import (
    asymptotic_key_rate,
    best_flip_probability,
    chsh_entropy,
)
from bellhop.stack.diqkd.bounds.chsh import (
    S_MAX,
    binary_entropy,
    entropy_rate,
    winning_probability,
)
from bellhop.stack.diqkd.bounds.key_basis import random_basis_entropy, random_basis_key_rate
from bellhop.stack.diqkd.bounds.thresholds import thresholds


@pytest.mark.parametrize(
    ("s", "qber", "entropy", "flip", "rate", "entropy_flipped"),
    [
        (2.828427, 0.0, 1.000000, 0.0, 1.000000, 1.000000),
        (2.800000, 0.0050, 0.918531, 0.0, 0.873116, 0.953045),
        (2.700000, 0.0200, 0.728482, 0.0000, 0.587042, 0.848248),
        (2.677000, 0.0144, 0.692135, 0.0000, 0.583415, 0.828625),
        (2.612000, 0.0300, 0.597859, 0.0001, 0.403489, 0.778186),
        (2.589000, 0.0450, 0.566924, 0.0006, 0.302436, 0.761765),
        (2.575800, 0.0360, 0.549656, 0.0004, 0.326206, 0.752625),
        (2.504000, 0.0690, 0.461126, 0.0182, 0.108388, 0.706029),
        (2.545584, 0.0500, 0.511347, 0.0027, 0.226366, 0.732409),
        (2.432447, 0.0700, 0.380538, 0.0572, 0.042462, 0.663966),
        (2.404163, 0.0750, 0.350461, 0.1191, 0.014346, 0.648346),
        (2.375879, 0.0800, 0.321291, 0.3208, 0.000364, 0.633235),
    ],
)
def test_known_values(
    s: float, qber: float, entropy: float, flip: float, rate: float, entropy_flipped: float
) -> None:
    # S is rounded to six decimals, which moves a rate by up to 1e-6.
    assert chsh_entropy(s) == pytest.approx(entropy, abs=1.2e-6)
    assert chsh_entropy(s, 0.1) == pytest.approx(entropy_flipped, abs=1e-6)
    best = best_flip_probability(s, qber)
    assert best == pytest.approx(flip, abs=5.1e-5)
    assert asymptotic_key_rate(s, qber, best) == pytest.approx(rate, abs=1.2e-6)


def test_without_flips_it_is_the_entropy_that_finite_runs_use() -> None:
    for s in np.linspace(1.9, S_MAX, 50):
        expected = entropy_rate(winning_probability(float(s)))
        assert chsh_entropy(float(s)) == pytest.approx(expected, abs=1e-7)


def test_what_a_classical_device_leaves_is_alices_own_noise() -> None:
    for entropy in (chsh_entropy, random_basis_entropy):
        for s in (1.5, 2.0):
            assert entropy(s, 0.1) == pytest.approx(binary_entropy(0.1), abs=1e-12)
    assert asymmetric_entropy(2.0, 0.9, 0.1) == pytest.approx(binary_entropy(0.1), abs=1e-12)


def test_the_best_flip_is_better_than_others() -> None:
    for s, qber in ((2.55, 0.05), (2.45, 0.065)):
        best = asymptotic_key_rate(s, qber, best_flip_probability(s, qber))
        others = [asymptotic_key_rate(s, qber, p) for p in np.geomspace(1e-9, 0.5, 400)]
        assert max(others) <= best + 1e-12


def test_the_random_key_basis() -> None:
    """A straight line from (2, 0) to about (2.773, 0.921), from there a curve to (2 sqrt 2, 1)."""
    assert random_basis_entropy(2.578) == pytest.approx(0.688, abs=5e-4)
    assert random_basis_entropy(2.773) == pytest.approx(0.921, abs=5e-4)
    slope = random_basis_entropy(2.5) / 0.5
    assert random_basis_entropy(2.77) == pytest.approx(0.77 * slope, abs=1e-9)
    assert random_basis_entropy(2.79) > 0.79 * slope + 1e-4
    assert random_basis_entropy(S_MAX) == pytest.approx(1.0, abs=1e-7)
    # W. Zhang et al., Nature 607, 687 (2022): 0.07 a pair, a quarter of all being key rounds.
    assert random_basis_key_rate(2.578, 0.078, sifted=0.25) == pytest.approx(0.07, abs=0.005)


def test_it_pays_at_high_error_only() -> None:
    assert random_basis_key_rate(2.612, 0.03) < asymptotic_key_rate(2.612, 0.03)
    assert random_basis_key_rate(2.504, 0.069) > asymptotic_key_rate(2.504, 0.069)


def test_a_symmetric_expression_is_chsh() -> None:
    for s in (2.2, 2.5, 2.8):
        assert asymmetric_entropy(s, 1.0, 0.05) == pytest.approx(chsh_entropy(s, 0.05), abs=1e-12)
    assert best_weight(0.074) == pytest.approx(0.925, abs=0.01)


def test_where_each_protocol_ends() -> None:
    """Computed; the published figures are beside them, of which one is a lower bound."""
    found = thresholds()
    computed = (0.07149, 0.08085, 0.07417, 0.0834, 0.0844, 0.0947)
    for threshold, expected in zip(found, computed, strict=True):
        assert threshold.critical_qber == pytest.approx(expected, abs=1e-4)
        assert threshold.critical_qber > threshold.published_qber - 1e-4
    chsh_alone, chsh_noisy, asymmetric, asymmetric_noisy, *_ = found
    for one in (chsh_alone, chsh_noisy, asymmetric, asymmetric_noisy):
        assert one.critical_qber == pytest.approx(one.published_qber, abs=1e-4)


def test_at_the_end_the_best_flip_tends_to_a_half() -> None:
    """There the rate is (1 - 2p)^2 times this bracket, from both terms' second order."""

    def bracket(qber: float) -> float:
        s = S_MAX * (1.0 - 2.0 * qber)
        x = math.sqrt(s * s / 4.0 - 1.0)
        lost = (1.0 - x * x) / (4.0 * x) * math.log2((1.0 + x) / (1.0 - x))
        return (1.0 - 2.0 * qber) ** 2 / (2.0 * math.log(2.0)) - lost

    assert bracket(0.08084) > 0.0 > bracket(0.08086)
