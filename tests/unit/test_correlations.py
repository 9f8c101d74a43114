"""Pauli correlations, transfer matrices and effects against density matrices."""

import numpy as np
import pytest
from tests.support import memory_twin as twin

from bellhop.hal import correlations as pauli
from bellhop.hal import states
from bellhop.hal.operations import BellState, Side

EXACT = 1e-12


def pairs(count: int = 6) -> states.State:
    generator = np.random.default_rng(11)
    return np.array([twin.random_pair(generator) for _ in range(count)])


def random_kraus(generator: np.random.Generator, operators: int) -> states.State:
    """Two by two operators of a channel that loses a tenth."""
    shape = (2 * operators, 2)
    isometry, _ = np.linalg.qr(generator.normal(size=shape) + 1j * generator.normal(size=shape))
    return np.asarray(np.sqrt(0.9) * isometry.reshape(operators, 2, 2), np.complex128)


def test_correlations_are_traces_and_give_the_state_back() -> None:
    state = pairs()
    found = pauli.to_correlations(state)
    assert found == pytest.approx(np.array([twin.correlations(s) for s in state]), abs=EXACT)
    assert pauli.to_state(found) == pytest.approx(state, abs=EXACT)
    batched = pauli.to_correlations(state.reshape(2, 3, 4, 4))
    assert batched.reshape(6, 4, 4) == pytest.approx(found, abs=EXACT)


def test_bell_states_have_their_signs_and_pauli_frames_move_them_by_exclusive_or() -> None:
    for bell_state in BellState:
        found = pauli.to_correlations(states.bell_density(bell_state))
        assert found == pytest.approx(np.diag(pauli.BELL_SIGNS[bell_state]), abs=EXACT)
        assert found == pytest.approx(
            twin.correlations(twin.bell_diagonal(np.eye(4)[bell_state])), abs=EXACT
        )
        for frame in BellState:
            moved = pauli.in_frame(found, frame)
            assert pauli.fidelity(moved, BellState(bell_state ^ frame)) == pytest.approx(1.0)


def test_a_frame_is_its_pauli_operator_on_side_b() -> None:
    operators = {BellState.PHI_PLUS: twin.ONE, BellState.PSI_PLUS: twin.X}
    operators |= {BellState.PHI_MINUS: twin.Z, BellState.PSI_MINUS: twin.Z @ twin.X}
    frames = np.array([0, 1, 2, 3, 2, 1], dtype=np.uint8)
    state = pairs()
    found = pauli.in_frame(pauli.to_correlations(state), frames)
    for index, frame in enumerate(frames):
        moved = twin.kraus_sum(state[index], [twin.tensor(twin.ONE, operators[BellState(frame)])])
        assert found[index] == pytest.approx(twin.correlations(moved), abs=EXACT)


def test_fidelity_is_an_overlap_for_one_bell_state_or_one_each() -> None:
    state = pairs()
    r = pauli.to_correlations(state)
    announced = np.array([3, 2, 1, 0, 1, 2])
    for bell_state in BellState:
        found = pauli.fidelity(r, bell_state)
        assert found == pytest.approx(states.fidelity(state, bell_state), abs=EXACT)
    each = [states.fidelity(s, BellState(n)) for s, n in zip(state, announced, strict=True)]
    assert pauli.fidelity(r, announced) == pytest.approx(np.array(each), abs=EXACT)


def test_transfer_matrices_are_their_kraus_sums_on_either_side() -> None:
    generator = np.random.default_rng(5)
    a, b = random_kraus(generator, 2), random_kraus(generator, 3)
    found = pauli.mapped(pauli.to_correlations(pairs()), pauli.transfer_of(a), pauli.transfer_of(b))
    for state, r in zip(pairs(), found, strict=True):
        after = twin.kraus_sum(state, [twin.tensor(k, twin.ONE) for k in a])
        after = twin.kraus_sum(after, [twin.tensor(twin.ONE, k) for k in b])
        assert r == pytest.approx(twin.correlations(after), abs=EXACT)
        assert r[0, 0] == pytest.approx(0.81)
    untouched = pauli.to_correlations(pairs())
    assert pauli.mapped(untouched) == pytest.approx(untouched)


def test_shrinking_is_a_pauli_channel_and_decaying_one_kraus_operator() -> None:
    x, z = 0.03, 0.11  # X and Y alike.
    found = pauli.mapped(
        pauli.to_correlations(pairs()), None, pauli.shrinking(1 - 2 * (x + z), 1 - 4 * x)
    )
    expected = states.pauli_channel(pairs(), [x, x, z], Side.B)
    assert found == pytest.approx(pauli.to_correlations(expected), abs=EXACT)
    survival = np.array([0.0, 0.3, 1.0])
    kraus = np.array([[np.diag([1.0, np.sqrt(s)])] for s in survival], dtype=np.complex128)
    assert pauli.decaying(survival) == pytest.approx(pauli.transfer_of(kraus), abs=EXACT)


@pytest.mark.parametrize("errors", [(0.0, 0.0), (0.02, 0.07)])
def test_born_s_rule_agrees_with_density_matrices(errors: tuple[float, float]) -> None:
    angles_a, angles_b = np.array([0.2, 1.9, -2.0]), np.array([0.7, -0.4, 3.0])
    state = pairs(3)
    r = pauli.to_correlations(state)
    effects_a = pauli.effects(angles_a, errors[0])
    effects_b = pauli.effects(angles_b, errors[1])
    found = pauli.joint_probabilities(r, effects_a, effects_b)
    expected = states.joint_probabilities(state, angles_a, angles_b, *errors)
    assert found == pytest.approx(expected, abs=EXACT)
    slow = [
        twin.measured(twin.as_qutrits(s), (a, b), errors)[:2, :2]
        for s, a, b in zip(state, angles_a, angles_b, strict=True)
    ]
    assert found == pytest.approx(np.array(slow), abs=EXACT)


@pytest.mark.parametrize("side", list(Side))
def test_measuring_one_side_leaves_the_conditional_state_of_the_other(side: Side) -> None:
    state = pairs()
    effect = pauli.effects(0.8, 0.03)[1]
    left = pauli.remaining(pauli.to_correlations(state), side, effect)
    expected = states.remaining(state, side, states.effects(0.8, 0.03)[1])
    for component, operator in enumerate(twin.PAULIS):
        traces = np.trace(expected @ operator, axis1=-2, axis2=-1).real
        assert left[:, component] == pytest.approx(traces, abs=EXACT)


def test_outcomes_and_the_loss_are_all_there_is() -> None:
    map_ = pauli.decaying(np.array([0.25, 0.5]))
    aged = np.einsum("nij,oi->noj", map_, pauli.effects(0.4, 0.01))
    complete = pauli.with_loss(aged)
    assert complete.shape == (2, 3, 4)
    assert complete.sum(axis=-2) == pytest.approx(np.array([[2.0, 0, 0, 0]] * 2), abs=EXACT)
    lost = pauli.to_correlations(states.bell_density(BellState.PHI_PLUS))
    p = pauli.joint_probabilities(lost, complete, np.array([[2.0, 0.0, 0.0, 0.0]]))
    assert p[:, 2, 0] == pytest.approx((1 - np.array([0.25, 0.5])) / 2)
