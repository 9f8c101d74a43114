"""What waiting, gates, swapping and purification may do to any pair, whatever their figures."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support import memory_twin as twin

from bellhop.hal import correlations as pauli
from bellhop.hal import states
from bellhop.hal.gates import GateErrors, Swapped, bbpssw, dejmps, swap
from bellhop.hal.operations import BellState
from bellhop.hal.storage import Keeping, StorageModel

ROUNDING = 1e-12

times = st.floats(0.0, 1e9)
lifetimes = st.floats(1e3, 1e12)
infidelities = st.floats(0.0, 0.5)
keepings = st.builds(
    Keeping,
    lifetimes | st.just(math.inf),
    st.sampled_from(["exponential", "gaussian"]),
    st.none() | st.floats(1e6, 1e9),
    infidelities,
    st.none() | lifetimes,
)
models = st.builds(StorageModel, st.none() | keepings, keepings, times, times, infidelities)
gates = st.builds(GateErrors, infidelities, st.floats(0.0, 0.75), infidelities)
seeds = st.integers(0, 2**32 - 1)
weights = st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4).map(
    lambda values: np.array(values) / np.sum(values)
)


def is_state(state: states.State) -> bool:
    trace = np.trace(state, axis1=-2, axis2=-1)
    hermitian = np.abs(state - state.conj().swapaxes(-1, -2)).max() < ROUNDING
    positive = bool(np.all(states.smallest_eigenvalue(state) > -ROUNDING))
    return bool(np.abs(trace - 1.0).max() < ROUNDING) and bool(hermitian) and positive


# Storage


@given(models, times)
def test_a_wait_is_completely_positive_and_only_ever_lowers_the_trace(
    model: StorageModel, stored_ns: float
) -> None:
    map_ = model.map(stored_ns)
    choi = pauli.mapped(np.diag(pauli.BELL_SIGNS[BellState.PHI_PLUS]), map_)
    assert states.smallest_eigenvalue(pauli.to_state(choi)) > -ROUNDING
    # No state has a loss of negative probability: the loss's effect is positive.
    lost = pauli.with_loss(model.aged(pauli.effects(0.3), stored_ns))[-1]
    assert lost[0] >= np.linalg.norm(lost[1:]) - ROUNDING
    decays = any(k and k.decay_ns for k in (model.communication, model.memory))
    if not decays:
        assert np.abs(lost).max() < ROUNDING


@given(models, st.lists(times, min_size=2, max_size=20), st.sampled_from(list(BellState)))
def test_a_bell_pair_never_gets_better_by_waiting(
    model: StorageModel, stored_ns: list[float], bell_state: BellState
) -> None:
    bell = np.diag(pauli.BELL_SIGNS[bell_state])
    waited = np.sort(stored_ns)
    for maps in ((model.map(waited), None), (None, model.map(waited))):
        found = pauli.fidelity(pauli.mapped(bell, *maps), bell_state)
        assert np.all(np.diff(found) <= ROUNDING)
        assert np.all((found >= -ROUNDING) & (found <= 1.0 + ROUNDING))


@given(models, times, st.floats(-math.pi, math.pi), infidelities)
def test_aged_effects_stay_effects(
    model: StorageModel, stored_ns: float, angle: float, readout_error: float
) -> None:
    aged = pauli.with_loss(model.aged(pauli.effects(angle, readout_error), stored_ns))
    assert np.all(aged[:, 0] >= np.linalg.norm(aged[:, 1:], axis=-1) - ROUNDING)
    assert np.abs(aged.sum(axis=0) - [2.0, 0.0, 0.0, 0.0]).max() < ROUNDING


# Swapping


def average(found: Swapped) -> states.State:
    """The far ends' pair for one who does not know the outcome."""
    return np.asarray((found.probabilities[:, None, None] * found.states).sum(axis=0))


@given(seeds, gates)
def test_a_swap_gives_states_and_says_nothing_without_its_outcome(
    seed: int, errors: GateErrors
) -> None:
    generator = np.random.default_rng(seed)
    left, right = twin.random_pair(generator), twin.random_pair(generator, rank=1)
    found = swap(left, right, errors)
    assert abs(found.probabilities.sum() - 1.0) < ROUNDING
    assert is_state(found.states)
    # Two ends that never shared anything: a product of what each had.
    at_a = np.einsum("abcb->ac", left.reshape(2, 2, 2, 2))
    at_b = np.einsum("abac->bc", right.reshape(2, 2, 2, 2))
    assert np.abs(average(found) - np.kron(at_a, at_b)).max() < ROUNDING


@given(weights, weights)
def test_bell_diagonal_pairs_swap_by_exclusive_or(left: twin.Table, right: twin.Table) -> None:
    found = swap(twin.bell_diagonal(left), twin.bell_diagonal(right), GateErrors())
    assert np.abs(found.probabilities - 0.25).max() < ROUNDING
    for outcome in range(4):
        expected = np.zeros(4)
        for s in range(4):
            for r in range(4):
                expected[s ^ r ^ outcome] += left[s] * right[r]
        assert np.abs(found.states[outcome] - twin.bell_diagonal(expected)).max() < ROUNDING


# Purification


@given(seeds, gates, gates)
def test_purification_gives_states_with_a_probability(
    seed: int, a: GateErrors, b: GateErrors
) -> None:
    generator = np.random.default_rng(seed)
    first, second = twin.random_pair(generator), twin.random_pair(generator)
    for recurrence in (bbpssw, dejmps):
        found = recurrence(first, second, a, b)
        assert 0.0 < found.success_probability <= 1.0 + ROUNDING
        assert is_state(found.kept)


@given(st.floats(0.501, 0.999))
def test_purification_improves_every_entangled_werner_pair(fidelity: float) -> None:
    pair = states.werner((4.0 * fidelity - 1.0) / 3.0)
    perfect = GateErrors()
    published = fidelity**2 + 2 * fidelity * (1 - fidelity) / 3 + 5 * (1 - fidelity) ** 2 / 9
    for recurrence in (bbpssw, dejmps):
        found = recurrence(pair, pair, perfect, perfect)
        kept = states.fidelity(found.kept, BellState.PHI_PLUS)
        assert kept > fidelity
        # Of Werner pairs the two recurrences make the same first step, up to a rotation.
        assert abs(found.success_probability - published) < ROUNDING
        assert abs(kept - (fidelity**2 + (1 - fidelity) ** 2 / 9) / published) < ROUNDING
