"""Two-qubit states against closed forms and an independent way of computing them."""

import numpy as np
import pytest

from bellhop.hal import states
from bellhop.hal.operations import BellState, Side

TSIRELSON = 2.0 * np.sqrt(2.0)
ANGLES_A = (0.0, np.pi / 2)
ANGLES_B = (np.pi / 4, -np.pi / 4)


def random_states(count: int) -> states.State:
    generator = np.random.default_rng(7)
    shape = (count, 4, 4)
    root = generator.normal(size=shape) + 1j * generator.normal(size=shape)
    state = root @ root.conj().swapaxes(-1, -2)
    return np.asarray(state / np.trace(state, axis1=-2, axis2=-1)[:, None, None], np.complex128)


def test_bell_states_are_numbered_by_their_flips() -> None:
    for first in BellState:
        for second in BellState:
            expected = 1.0 if first is second else 0.0
            found = states.fidelity(states.bell_density(first), second)
            assert found == pytest.approx(expected, abs=1e-12)
    signs = {  # <ZZ>, <XX>
        BellState.PHI_PLUS: (1, 1),
        BellState.PSI_PLUS: (-1, 1),
        BellState.PHI_MINUS: (1, -1),
        BellState.PSI_MINUS: (-1, -1),
    }
    for bell_state, (zz, xx) in signs.items():
        state = states.bell_density(bell_state)
        assert states.correlator(state, 0.0, 0.0) == pytest.approx(zz)
        assert states.correlator(state, np.pi / 2, np.pi / 2) == pytest.approx(xx)


def test_werner_states_have_the_textbook_chsh_value_error_rate_and_fidelity() -> None:
    visibility = np.linspace(0.0, 1.0, 11)
    state = states.werner(visibility)
    assert state.shape == (11, 4, 4)
    assert states.chsh(state, ANGLES_A, ANGLES_B) == pytest.approx(TSIRELSON * visibility)
    assert states.error_rate(state) == pytest.approx((1.0 - visibility) / 2.0)
    found = states.fidelity(state, BellState.PHI_PLUS)
    assert found == pytest.approx((1.0 + 3.0 * visibility) / 4.0)


def test_readout_errors_shrink_correlators_by_both_contrasts() -> None:
    state = states.bell_density(BellState.PHI_PLUS)
    found = states.chsh(state, ANGLES_A, ANGLES_B, 0.01, 0.03)
    assert found == pytest.approx(TSIRELSON * 0.98 * 0.94)


def test_joint_probabilities_are_expectations_of_projector_products() -> None:
    generator = np.random.default_rng(3)
    for state in random_states(5):
        angle_a, angle_b = generator.uniform(-np.pi, np.pi, 2)
        table = states.joint_probabilities(state, angle_a, angle_b)
        for a in (0, 1):
            for b in (0, 1):
                # Projectors from state vectors, half the angle on the Bloch sphere.
                turned_a, turned_b = angle_a + np.pi * a, angle_b + np.pi * b
                vector = np.kron(
                    [np.cos(turned_a / 2), np.sin(turned_a / 2)],
                    [np.cos(turned_b / 2), np.sin(turned_b / 2)],
                )
                assert table[a, b] == pytest.approx((vector @ state @ vector).real)
        assert table.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("side", list(Side))
def test_measuring_one_side_then_the_other_is_measuring_both(side: Side) -> None:
    other = Side.B if side is Side.A else Side.A
    state = random_states(6)
    angles = {Side.A: 0.3, Side.B: -1.1}
    errors = {Side.A: 0.02, Side.B: 0.05}
    joint = states.joint_probabilities(state, angles[Side.A], angles[Side.B], 0.02, 0.05)
    if side is Side.B:
        joint = joint.swapaxes(-1, -2)
    for first in (0, 1):
        effect = states.effects(angles[side], errors[side])[first]
        half = states.remaining(state, side, effect)
        for second in (0, 1):
            final = states.effects(angles[other], errors[other])[second]
            found = np.trace(half @ final, axis1=-2, axis2=-1).real
            assert found == pytest.approx(joint[:, first, second])


def test_channels_keep_states_and_do_what_their_names_say() -> None:
    state = random_states(4)
    for changed in (
        states.white_noise(state, 0.3),
        states.phase_flip(state, 0.2, Side.A),
        states.depolarise(state, 0.7, Side.B),
        states.dephase(state, 2.0, 3.0, "gaussian", Side.A),
    ):
        assert np.trace(changed, axis1=-2, axis2=-1) == pytest.approx(np.ones(4))
        assert np.all(states.smallest_eigenvalue(changed) > -1e-12)
    bell = states.bell_density(BellState.PSI_PLUS)
    assert states.depolarise(bell, 1.0, Side.A) == pytest.approx(np.eye(4) / 4.0)
    flipped = states.phase_flip(bell, 1.0, Side.B)
    assert states.fidelity(flipped, BellState.PSI_MINUS) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("shape", "left"), [("exponential", np.exp(-0.5)), ("gaussian", np.exp(-0.25))]
)
def test_dephasing_shrinks_xx_and_leaves_zz(shape: states.CoherenceShape, left: float) -> None:
    waited = states.dephase(states.bell_density(BellState.PHI_PLUS), 5.0, 10.0, shape, Side.B)
    assert states.correlator(waited, np.pi / 2, np.pi / 2) == pytest.approx(left)
    assert states.correlator(waited, 0.0, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("bell_state", list(BellState))
def test_flips_by_the_herald_bring_any_state_back_into_the_frame(bell_state: BellState) -> None:
    state = random_states(3)
    announced = states.announced_as(state, bell_state)
    image = states.announced_as(states.bell_density(BellState.PHI_PLUS), bell_state)
    assert states.fidelity(image, bell_state) == pytest.approx(1.0)
    for x, angle_a in enumerate(ANGLES_A):
        raw = states.joint_probabilities(announced, angle_a, 0.9)
        if bell_state in (BellState.PSI_PLUS, BellState.PSI_MINUS):
            raw = raw[..., ::-1]
        if x == 1 and bell_state in (BellState.PSI_PLUS, BellState.PHI_MINUS):
            raw = raw[..., ::-1, :]
        assert raw == pytest.approx(states.joint_probabilities(state, angle_a, 0.9))


def test_what_is_not_a_state_shows() -> None:
    impossible = states.from_correlations((0, 0, 0), (0, 0, 0), np.eye(3))
    assert states.smallest_eigenvalue(impossible) == pytest.approx(-0.5)


def test_correlations_make_the_state_they_are_of() -> None:
    (state,) = random_states(1)
    bloch_a = [np.trace(state @ states.on_side(p, Side.A)).real for p in states.PAULIS]
    bloch_b = [np.trace(state @ states.on_side(p, Side.B)).real for p in states.PAULIS]
    correlations = [
        [np.trace(state @ np.kron(p, q)).real for q in states.PAULIS] for p in states.PAULIS
    ]
    assert states.from_correlations(bloch_a, bloch_b, correlations) == pytest.approx(state)
