"""Gates, swapping and purification against four qubits' full density matrices."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.support import memory_twin as twin

from bellhop.hal import states
from bellhop.hal.figures import Figure
from bellhop.hal.gates import (
    PERFECT,
    GateErrors,
    Purified,
    bbpssw,
    corrected,
    dejmps,
    single_qubit_gate,
    swap,
    transfer,
    twirled,
    two_qubit_gate,
)
from bellhop.hal.operations import BellState, Side
from bellhop.hal.sections import Device, Qubit

EXACT = 1e-12
NOISY = GateErrors(0.011, 0.037, 0.02)
OTHER = GateErrors(0.003, 0.014, 0.05)

Recurrence = Callable[[states.State, states.State, GateErrors, GateErrors], Purified]
RECURRENCES: list[tuple[Recurrence, str]] = [(bbpssw, "twirl"), (dejmps, "rotate")]


def errors(gates: GateErrors) -> twin.Errors:
    return twin.Errors(gates.single_qubit, gates.two_qubit, gates.readout)


def random_pairs(count: int, seed: int) -> states.State:
    generator = np.random.default_rng(seed)
    return np.array([twin.random_pair(generator) for _ in range(count)])


def random_unitary(generator: np.random.Generator, size: int) -> states.State:
    shape = (size, size)
    q, _ = np.linalg.qr(generator.normal(size=shape) + 1j * generator.normal(size=shape))
    return np.asarray(q, dtype=np.complex128)


def werner_of(fidelity: np.ndarray) -> states.State:
    return states.werner((4.0 * fidelity - 1.0) / 3.0)


# One gate


def test_gates_have_the_infidelity_they_are_said_to_have() -> None:
    """Depolarising treats all pure states alike, so each has the average fidelity."""
    generator = np.random.default_rng(8)
    for _ in range(5):
        one, two = random_unitary(generator, 2)[0], random_unitary(generator, 4)[0]
        gate_one, gate_two = random_unitary(generator, 2), random_unitary(generator, 4)
        spectator = np.array([1.0, 0.0])
        pair = np.outer(np.kron(one, spectator), np.kron(one, spectator).conj())
        aim = np.kron(gate_one @ one, spectator)
        done = single_qubit_gate(pair, gate_one, Side.A, NOISY)
        assert (aim.conj() @ done @ aim).real == pytest.approx(1.0 - NOISY.single_qubit)
        done = two_qubit_gate(np.outer(two, two.conj()), gate_two, NOISY)
        aim = gate_two @ two
        assert (aim.conj() @ done @ aim).real == pytest.approx(1.0 - NOISY.two_qubit)


@pytest.mark.parametrize("side", list(Side))
def test_noisy_gates_on_pairs_are_kraus_sums(side: Side) -> None:
    generator = np.random.default_rng(9)
    unitary = random_unitary(generator, 2)
    pairs = random_pairs(3, 1)

    def on_side(operator: twin.Matrix) -> twin.Matrix:
        both = (operator, twin.ONE) if side is Side.A else (twin.ONE, operator)
        return twin.tensor(*both)

    turned = [twin.kraus_sum(pair, [on_side(unitary)]) for pair in pairs]
    kraus = [on_side(k) for k in twin.pauli_errors(NOISY.single_qubit)]
    expected = np.array([twin.kraus_sum(pair, kraus) for pair in turned])
    assert single_qubit_gate(pairs, unitary, side, NOISY) == pytest.approx(expected, abs=EXACT)
    expected = np.array([twin.kraus_sum(pair, kraus) for pair in pairs])
    assert transfer(pairs, NOISY.single_qubit, side) == pytest.approx(expected, abs=EXACT)


def test_a_correction_turns_what_was_announced_into_phi_plus() -> None:
    announced = np.arange(4)
    pairs = np.array([states.bell_density(BellState(n)) for n in range(4)])
    found = states.fidelity(corrected(pairs, announced), BellState.PHI_PLUS)
    assert found == pytest.approx(np.ones(4))


def test_a_device_s_errors_are_taken_from_its_figures() -> None:
    def own(value: float) -> Figure:
        return Figure(value, "for this test", "own")

    device = Device(
        own(1.0),
        own(0.1),
        Qubit(own(1e9)),
        own(0.02),
        single_qubit_error=own(0.001),
        two_qubit_error=own(0.015),
    )
    assert GateErrors.of(device) == GateErrors(0.001, 0.015, 0.02)


# Swapping


def test_perfect_swaps_combine_bell_states_by_exclusive_or() -> None:
    for left in BellState:
        for right in BellState:
            found = swap(states.bell_density(left), states.bell_density(right), PERFECT)
            assert found.probabilities == pytest.approx(np.full(4, 0.25))
            for outcome in BellState:
                expected = states.bell_density(BellState(left ^ right ^ outcome))
                assert found.states[outcome] == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("gates", [PERFECT, NOISY, GateErrors(readout=0.1)])
def test_swaps_of_any_pairs_are_those_of_four_qubits(gates: GateErrors) -> None:
    lefts, rights = random_pairs(3, 2), random_pairs(3, 3)
    found = swap(lefts, rights, gates)
    assert found.states.shape == (3, 4, 4, 4)
    for index, (left, right) in enumerate(zip(lefts, rights, strict=True)):
        for outcome, expected in enumerate(twin.swapped(left, right, errors(gates))):
            probability = found.probabilities[index, outcome]
            assert probability == pytest.approx(np.trace(expected).real, abs=EXACT)
            assert probability * found.states[index, outcome] == pytest.approx(expected, abs=EXACT)


def test_swaps_broadcast() -> None:
    lefts, right = random_pairs(6, 4).reshape(3, 2, 4, 4), random_pairs(1, 5)[0]
    found = swap(lefts, right, NOISY)
    assert found.probabilities.shape == (3, 2, 4)
    one = swap(lefts[2, 1], right, NOISY)
    assert found.states[2, 1] == pytest.approx(one.states, abs=EXACT)


def test_an_outcome_that_never_comes_has_a_state_all_the_same() -> None:
    dark, bright = np.diag([1.0, 0, 0, 0]), np.diag([0, 0, 0, 1.0])
    found = swap(dark.astype(np.complex128), bright.astype(np.complex128), PERFECT)
    assert found.probabilities == pytest.approx(np.array([0.0, 0.5, 0.0, 0.5]), abs=EXACT)
    assert found.probabilities.min() >= 0.0
    assert np.trace(found.states, axis1=-2, axis2=-1).real == pytest.approx(np.ones(4))
    assert found.states[0] == pytest.approx(np.eye(4) / 4)


# Purification


@pytest.mark.parametrize(("recurrence", "turn"), RECURRENCES)
@pytest.mark.parametrize(("a", "b"), [(PERFECT, PERFECT), (NOISY, OTHER), (PERFECT, NOISY)])
def test_purification_of_any_pairs_is_that_of_four_qubits(
    recurrence: Recurrence, turn: str, a: GateErrors, b: GateErrors
) -> None:
    firsts, seconds = random_pairs(2, 6), random_pairs(2, 7)
    found = recurrence(firsts, seconds, a, b)
    for index, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        expected = twin.purified(first, second, turn, errors(a), errors(b))
        probability = found.success_probability[index]
        assert probability == pytest.approx(np.trace(expected).real, abs=EXACT)
        assert probability * found.kept[index] == pytest.approx(expected, abs=EXACT)


def test_twirling_is_the_average_over_the_tetrahedron() -> None:
    pair = random_pairs(1, 8)[0]
    expected = twin.average_over(pair, twin.twirl())
    assert twirled(pair) == pytest.approx(expected, abs=EXACT)


def test_bbpssw_of_werner_pairs_has_the_published_closed_form() -> None:
    """Bennett et al., Phys. Rev. Lett. 76, 722 (1996)."""
    f = np.linspace(0.3, 1.0, 15)
    found = bbpssw(werner_of(f), werner_of(f), PERFECT, PERFECT)
    success = f**2 + 2 * f * (1 - f) / 3 + 5 * (1 - f) ** 2 / 9
    assert found.success_probability == pytest.approx(success, abs=EXACT)
    kept = states.fidelity(found.kept, BellState.PHI_PLUS)
    assert kept == pytest.approx((f**2 + (1 - f) ** 2 / 9) / success, abs=EXACT)
    better = (f > 0.51) & (f < 0.99)
    assert np.all(kept[better] > f[better])


def test_dejmps_of_bell_diagonal_pairs_has_the_published_closed_form() -> None:
    """Deutsch et al., Phys. Rev. Lett. 77, 2818 (1996): weights a, b, c, d of Phi+,
    Psi-, Psi+ and Phi-; a Werner pair is one of them."""
    generator = np.random.default_rng(10)
    weights = [*generator.dirichlet(np.ones(4), size=4), np.array([0.7, 0.1, 0.1, 0.1])]
    for a, b, c, d in weights:
        pair = twin.bell_diagonal([a, c, d, b])
        found = dejmps(pair, pair, PERFECT, PERFECT)
        n = (a + b) ** 2 + (c + d) ** 2
        assert found.success_probability == pytest.approx(n, abs=EXACT)
        expected = np.array([a**2 + b**2, c**2 + d**2, 2 * a * b, 2 * c * d]) / n
        assert found.kept == pytest.approx(twin.bell_diagonal(expected), abs=EXACT)
