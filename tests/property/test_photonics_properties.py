"""Heralded pairs of any nodes: states, probabilities, symmetries and the textbook limits."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellhop.hal import photonics, states
from bellhop.hal.operations import BellState
from bellhop.hal.photonics import Arm, Detection, Herald

Scheme = Callable[[Arm, Arm, Detection], tuple[Herald, ...]]


def direct(a: Arm, _: Arm, detection: Detection) -> tuple[Herald, ...]:
    return photonics.direct(a, detection)


SCHEMES: tuple[Scheme, ...] = (photonics.single_photon, photonics.two_photon, direct)
MIDPOINTS: tuple[Scheme, ...] = (photonics.single_photon, photonics.two_photon)

shares = st.one_of(st.just(0.0), st.floats(1e-9, 1.0))
arms = st.builds(Arm, shares, shares, shares, shares)
darks = st.one_of(st.just(0.0), st.floats(1e-9, 0.9))
stations = st.builds(Detection, darks, shares, shares)
small = st.floats(1e-7, 1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(a=arms, b=arms, detection=stations)
def test_pairs_are_states_and_patterns_exclude_each_other(
    scheme: Scheme, a: Arm, b: Arm, detection: Detection
) -> None:
    heralds = scheme(a, b, detection)
    assert 0.0 <= sum(herald.probability for herald in heralds) <= 1.0 + 1e-12
    for herald in heralds:
        assert herald.state.shape == (4, 4)
        assert np.trace(herald.state) == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_allclose(herald.state, herald.state.conj().T, rtol=0.0, atol=1e-15)
        assert states.smallest_eigenvalue(herald.state) > -1e-12


@pytest.mark.parametrize("scheme", MIDPOINTS)
@given(a=arms, b=arms, detection=stations)
def test_exchanging_the_ends_mirrors_the_pairs(
    scheme: Scheme, a: Arm, b: Arm, detection: Detection
) -> None:
    exchanged = np.array([0, 2, 1, 3])
    there, back = scheme(a, b, detection), scheme(b, a, detection)
    assert len(there) == len(back)
    for herald, mirrored in zip(there, back, strict=True):
        assert herald.announces is mirrored.announces
        assert herald.probability == pytest.approx(mirrored.probability, rel=1e-12)
        expected = mirrored.state[np.ix_(exchanged, exchanged)]
        np.testing.assert_allclose(herald.state, expected, rtol=0.0, atol=1e-12)


@given(a=arms, detection=stations)
def test_a_direct_pair_is_its_own_mirror_image(a: Arm, detection: Detection) -> None:
    for herald in photonics.direct(a, detection):
        swapped = np.ix_([0, 2, 1, 3], [0, 2, 1, 3])
        np.testing.assert_allclose(herald.state, herald.state[swapped], rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(a=arms, b=arms, detection=stations)
def test_emission_noise_changes_no_click(
    scheme: Scheme, a: Arm, b: Arm, detection: Detection
) -> None:
    quiet = scheme(
        Arm(a.efficiency, a.bright_probability), Arm(b.efficiency, b.bright_probability), detection
    )
    found = [herald.probability for herald in scheme(a, b, detection)]
    assert found == [herald.probability for herald in quiet]


@given(eta_a=small, eta_b=small, alpha=st.floats(0.01, 0.9))
def test_few_photons_give_the_textbook_single_photon_pair(
    eta_a: float, eta_b: float, alpha: float
) -> None:
    """P = alpha (eta_a + eta_b); with equal arms the pair is (1 - alpha) Psi + alpha |11>."""
    unequal = photonics.single_photon(Arm(eta_a, alpha), Arm(eta_b, alpha), Detection())
    total = sum(herald.probability for herald in unequal)
    assert total == pytest.approx(alpha * (eta_a + eta_b), rel=2e-5)
    bright = np.zeros((4, 4))
    bright[3, 3] = alpha
    for herald in photonics.single_photon(Arm(eta_a, alpha), Arm(eta_a, alpha), Detection()):
        expected = (1.0 - alpha) * states.bell_density(herald.announces) + bright
        np.testing.assert_allclose(herald.state, expected, rtol=0.0, atol=2e-5)


@given(a=arms, b=arms, hom=shares)
def test_without_dark_clicks_two_photons_meet_half_of_the_time(a: Arm, b: Arm, hom: float) -> None:
    """P = eta_a eta_b / 2, exactly, and a fidelity (1 + V) / 2 before emission noise."""
    quiet = Detection(0.0, 1.0, hom)
    heralds = photonics.two_photon(Arm(a.efficiency), Arm(b.efficiency), quiet)
    total = sum(herald.probability for herald in heralds)
    assert total == pytest.approx(a.efficiency * b.efficiency / 2.0, rel=1e-12)
    for herald in heralds:
        assert states.fidelity(herald.state, herald.announces) == pytest.approx((1.0 + hom) / 2.0)


@given(a=arms, b=arms, dark=st.floats(1e-6, 0.9))
def test_dark_clicks_alone_leave_qubits_that_know_nothing_of_each_other(
    a: Arm, b: Arm, dark: float
) -> None:
    nobody_a, nobody_b = (Arm(0.0, arm.bright_probability) for arm in (a, b))
    one = np.diag([1.0 - a.bright_probability, a.bright_probability])
    two = np.diag([1.0 - b.bright_probability, b.bright_probability])
    for herald in photonics.single_photon(nobody_a, nobody_b, Detection(dark)):
        assert herald.probability == pytest.approx(dark * (1.0 - dark))
        np.testing.assert_allclose(herald.state, np.kron(one, two), rtol=0.0, atol=1e-12)
    for herald in photonics.two_photon(nobody_a, nobody_b, Detection(dark)):
        assert herald.probability == pytest.approx((dark * (1.0 - dark)) ** 2)
        np.testing.assert_allclose(herald.state, np.eye(4) / 4.0, rtol=0.0, atol=1e-12)
    (alone,) = photonics.direct(nobody_a, Detection(dark))
    assert alone.probability == pytest.approx(2.0 * dark * (1.0 - dark))
    np.testing.assert_allclose(alone.state, np.eye(4) / 4.0, rtol=0.0, atol=1e-12)


@given(a=arms, dark=darks)
def test_a_photon_that_arrives_is_not_replaced_by_dark_clicks(a: Arm, dark: float) -> None:
    """P = (1 - p)(eta + 2 p (1 - eta)); what is not a dark click is Phi+."""
    for herald in photonics.direct(Arm(a.efficiency), Detection(dark)):
        seen, alone = a.efficiency, 2.0 * dark * (1.0 - a.efficiency)
        assert herald.probability == pytest.approx((1.0 - dark) * (seen + alone))
        found = states.fidelity(herald.state, BellState.PHI_PLUS)
        assert found == pytest.approx((seen + alone / 4.0) / (seen + alone))
