"""The asymptotic key rate: known values, its errors, and where it ends."""

import math

import numpy as np
import pytest

from bellhop.stack.diqkd.bounds.asymptotic import asymptotic_key_rate, asymptotic_key_rate_error
from bellhop.stack.diqkd.bounds.chsh import S_MAX


@pytest.mark.parametrize(
    ("s", "qber", "rate"),
    [
        (2.828427, 0.0, 1.0),
        (2.8, 0.005, 0.873116),
        (2.7, 0.02, 0.587042),
        (2.677, 0.0144, 0.583414),
        (2.612, 0.03, 0.403467),
        (2.589, 0.045, 0.302159),
        (2.5758, 0.036, 0.326015),
        (2.504, 0.069, 0.098945),
        (2.545584, 0.05, 0.224950),
        (2.432447, 0.07, 0.014614),
        (2.404163, 0.075, -0.033850),
        (2.375879, 0.08, -0.080888),
    ],
)
def test_known_values(s: float, qber: float, rate: float) -> None:
    assert asymptotic_key_rate(s, qber) == pytest.approx(rate, abs=4e-6)


def test_the_two_published_rates_are_met_to_the_rounding_of_s_and_qber() -> None:
    assert asymptotic_key_rate(2.5758, 0.0360) == pytest.approx(0.325, abs=0.002)
    assert asymptotic_key_rate(2.504, 0.069) == pytest.approx(0.0974, abs=0.002)


def test_the_depolarised_singlet_loses_its_key_at_the_published_error_rate() -> None:
    """7.15 % (Acin et al., Phys. Rev. Lett. 98, 230501 (2007))."""
    assert asymptotic_key_rate(S_MAX * (1 - 2 * 0.0714), 0.0714) > 0.0
    assert asymptotic_key_rate(S_MAX * (1 - 2 * 0.0716), 0.0716) < 0.0


def test_without_a_violation_nothing_is_left_but_the_leak() -> None:
    assert asymptotic_key_rate(2.0, 0.0) == 0.0
    assert asymptotic_key_rate(1.5, 0.5) == -1.0
    with pytest.raises(ValueError, match="probability"):
        asymptotic_key_rate(2.5, -0.1)


def test_the_error_is_the_spread_of_the_rate() -> None:
    """Against the standard deviation of rates of normally distributed S and QBER."""
    s, s_error, qber, qber_error = 2.5758, 0.0059, 0.036, 0.0006
    generator = np.random.default_rng(3)
    drawn_s = generator.normal(s, s_error, 4000)
    drawn_qber = generator.normal(qber, qber_error, 4000)
    spread = np.std([asymptotic_key_rate(*each) for each in zip(drawn_s, drawn_qber, strict=True)])
    assert asymptotic_key_rate_error(s, s_error, qber, qber_error) == pytest.approx(
        float(spread), rel=0.06
    )


def test_the_error_stays_finite_at_the_ends() -> None:
    assert math.isfinite(asymptotic_key_rate_error(S_MAX, 0.003, 0.0, 0.001))
    assert asymptotic_key_rate_error(2.6, 0.0, 0.03, 0.0) == 0.0
