"""The CHSH game: known values, slopes, exact thresholds and abort probabilities."""

import math
from fractions import Fraction

import numpy as np
import pytest

from bellhop.stack.diqkd.bounds.chsh import (
    WIN_QUANTUM,
    binary_entropy,
    chsh_value,
    entropy_rate,
    entropy_rate_slope,
    false_abort_probability,
    losses_max,
    published_syndrome_bits,
    threshold_probability,
    winning_probability,
)

OXFORD_ROUNDS = 1_500_000
OXFORD_GAMMA = Fraction(13, 256)


@pytest.mark.parametrize(
    ("s", "entropy"),
    [
        (2.828427, 1.0),
        (2.8, 0.918531),
        (2.7, 0.728482),
        (2.677, 0.692135),
        (2.612, 0.597859),
        (2.589, 0.566924),
        (2.5758, 0.549656),
        (2.504, 0.461126),
        (2.545584, 0.511347),
        (2.432447, 0.380538),
        (2.404163, 0.350461),
        (2.375879, 0.321291),
    ],
)
def test_entropy_rate_known_values(s: float, entropy: float) -> None:
    assert entropy_rate(winning_probability(s)) == pytest.approx(entropy, abs=4e-6)


def test_entropy_rate_is_nothing_without_a_violation() -> None:
    assert [entropy_rate(w) for w in (0.0, 0.1, 0.25, 0.5, 0.75)] == [0.0] * 5
    assert entropy_rate(WIN_QUANTUM) == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("w", [0.7500001, 0.76, 0.8, 0.83, 0.8535])
def test_slope_is_the_derivative(w: float) -> None:
    step = 1e-8
    difference = (entropy_rate(w + step) - entropy_rate(w - step)) / (2 * step)
    assert entropy_rate_slope(w) == pytest.approx(difference, rel=1e-4)


def test_slope_at_the_ends() -> None:
    assert entropy_rate_slope(0.7499) == 0.0
    assert entropy_rate_slope(0.75) == pytest.approx(4.0 / math.log(2.0))
    assert entropy_rate_slope(1.0) == math.inf


def test_chsh_value_and_winning_probability_are_inverse() -> None:
    assert chsh_value(winning_probability(2.677)) == pytest.approx(2.677)
    assert winning_probability(2.0) == 0.75


def test_binary_entropy_known_values() -> None:
    assert binary_entropy(0.5) == 1.0
    assert binary_entropy(0.0) == binary_entropy(1.0) == 0.0
    assert binary_entropy(0.11) == pytest.approx(0.499916, abs=1e-6)
    with pytest.raises(ValueError, match="probability"):
        binary_entropy(-1e-9)


def test_published_threshold_and_syndrome() -> None:
    assert threshold_probability(OXFORD_ROUNDS, OXFORD_GAMMA, 2.64) == pytest.approx(
        0.8255376, abs=1e-7
    )
    assert published_syndrome_bits(OXFORD_ROUNDS, OXFORD_GAMMA, 2.64, 0.018) == 296_517


def test_losses_max_is_exact() -> None:
    assert losses_max(1000, Fraction(1, 4), 0.75) == 62
    assert losses_max(1024, Fraction(1, 4), 0.75) == 64
    assert losses_max(10, Fraction(1, 2), 0.0) == 5
    assert threshold_probability(1, OXFORD_GAMMA, 2.0) == 0.0


@pytest.mark.parametrize(
    ("rounds", "win", "threshold"),
    [
        (OXFORD_ROUNDS, 0.83, 0.8255376),
        (OXFORD_ROUNDS, 0.8346, 0.8255376),
        (OXFORD_ROUNDS, 0.81, 0.8255376),
        (OXFORD_ROUNDS, 0.8255, 0.8255376),
        (200, 0.8, 0.7),
        (200, 0.8, 0.0),
    ],
)
def test_false_abort_probability_against_scipy(rounds: int, win: float, threshold: float) -> None:
    from scipy.stats import binom

    allowed = losses_max(rounds, OXFORD_GAMMA, threshold)
    expected = float(binom.sf(allowed, rounds, float(OXFORD_GAMMA) * (1.0 - win)))
    found = false_abort_probability(rounds, OXFORD_GAMMA, win, threshold)
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-300)


def test_false_abort_probability_against_play() -> None:
    generator = np.random.default_rng(20220727)
    tests = generator.random((20_000, 400)) < 0.25
    lost = generator.random((20_000, 400)) < 0.2
    allowed = losses_max(400, Fraction(1, 4), 0.75)
    seen = float(np.mean((tests & lost).sum(axis=1) > allowed))
    expected = false_abort_probability(400, Fraction(1, 4), 0.8, 0.75)
    assert seen == pytest.approx(expected, abs=5 * math.sqrt(expected / 20_000))


@pytest.mark.parametrize(("win", "threshold", "expected"), [(1.0, 0.8, 0.0), (0.0, 0.8, 1.0)])
def test_false_abort_probability_of_certainties(
    win: float, threshold: float, expected: float
) -> None:
    found = false_abort_probability(10_000, Fraction(1, 4), win, threshold)
    assert found == pytest.approx(expected, abs=1e-12)
