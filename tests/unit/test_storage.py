"""Stored qubits against qutrits whose channels are applied one after the other."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.support import memory_twin as twin

from bellhop.hal import correlations as pauli
from bellhop.hal import states
from bellhop.hal.figures import Figure
from bellhop.hal.operations import BellState, Side
from bellhop.hal.sections import Device, Qubit
from bellhop.hal.states import CoherenceShape
from bellhop.hal.storage import Keeping, StorageModel

EXACT = 1e-12
MS = 1e6

KEEPINGS = {
    "dephasing": Keeping(550 * MS),
    "gaussian": Keeping(62 * MS, "gaussian"),
    "pulses": Keeping(1100 * MS, "exponential", 9 * MS, 6.1e-4),
    "bad pulses": Keeping(300 * MS, "gaussian", 3 * MS, 0.02),
    "decay": Keeping(5.8 * MS, "exponential", None, 0.0, 958 * MS),
    "all": Keeping(90 * MS, "gaussian", 7 * MS, 0.01, 120 * MS),
    "for ever": Keeping(math.inf),
}
MODELS = {name: StorageModel(None, keeping) for name, keeping in KEEPINGS.items()} | {
    "transferred": StorageModel(KEEPINGS["decay"], KEEPINGS["pulses"], 10 * MS, 2 * MS, 0.03),
    "twice all": StorageModel(KEEPINGS["all"], KEEPINGS["bad pulses"], 31 * MS, 1 * MS, 0.01),
    "decays twice": StorageModel(KEEPINGS["decay"], KEEPINGS["all"], 40 * MS, 0.0, 0.002),
}
TIMES = np.array([0.0, 2.9, 9.0, 10.0, 11.0, 40.0, 64.5, 450.0]) * MS


def keeps(keeping: Keeping) -> twin.Keeps:
    return twin.Keeps(
        keeping.coherence_ns,
        keeping.shape,
        keeping.pulse_interval_ns,
        keeping.pulse_error,
        keeping.decay_ns,
    )


def stores(model: StorageModel) -> twin.Stores:
    return twin.Stores(
        keeps(model.communication) if model.communication else None,
        keeps(model.memory),
        model.herald_wait_ns,
        model.transfer_ns,
        model.transfer_error,
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_stored_pair_is_that_of_two_qutrits(name: str) -> None:
    a, b = MODELS[name], MODELS["twice all"]
    pair = twin.random_pair(np.random.default_rng(2))
    times_b = TIMES[::-1]
    found = pauli.mapped(pauli.to_correlations(pair), a.map(TIMES), b.map(times_b))
    for index, (a_ns, b_ns) in enumerate(zip(TIMES, times_b, strict=True)):
        whole = twin.stored(pair, stores(a), a_ns, stores(b), b_ns)
        assert np.trace(whole).real == pytest.approx(1.0)
        expected = twin.correlations(twin.still_qubits(whole))
        assert found[index] == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("name", MODELS)
def test_aged_effects_give_the_outcomes_and_losses_of_qutrits(name: str) -> None:
    a, b = MODELS[name], MODELS["decays twice"]
    pair = twin.random_pair(np.random.default_rng(3))
    angles, errors = (0.4, -2.2), (0.01, 0.04)
    times_b = np.roll(TIMES, 3)
    effects_a = a.aged(pauli.effects(angles[0], errors[0]), TIMES[:, None])
    effects_b = b.aged(pauli.effects(angles[1], errors[1]), times_b[:, None])
    found = pauli.joint_probabilities(
        pauli.to_correlations(pair), pauli.with_loss(effects_a), pauli.with_loss(effects_b)
    )
    for index, (a_ns, b_ns) in enumerate(zip(TIMES, times_b, strict=True)):
        whole = twin.stored(pair, stores(a), a_ns, stores(b), b_ns)
        expected = twin.measured(whole, angles, errors)
        assert found[index] == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("name", MODELS)
def test_a_late_herald_is_a_longer_wait_for_it(name: str) -> None:
    model = MODELS[name]
    times, late = np.meshgrid(TIMES, np.array([0.0, 1.0, 25.0]) * MS, indexing="ij")
    effects = np.random.default_rng(5).normal(size=(*times.shape, 4))
    found, maps = model.aged(effects, times, late), model.map(times, late)
    for index in np.ndindex(times.shape):
        waits_ns = model.herald_wait_ns + float(late[index])
        same = replace(model, herald_wait_ns=waits_ns)
        assert maps[index] == pytest.approx(same.map(times[index]), abs=EXACT)
        assert found[index] == pytest.approx(same.aged(effects[index], times[index]), abs=EXACT)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("from_ns", [0.0, 50 * MS])
def test_ageing_effects_is_the_transposed_map(name: str, from_ns: float) -> None:
    """From 50 ms on all rounds are past the herald, which takes another way through the code."""
    model = MODELS[name]
    generator = np.random.default_rng(4)
    times = from_ns + generator.exponential(80 * MS, (5, 20))
    effects = generator.normal(size=(5, 20, 4))
    before = effects.copy()
    expected = np.einsum("...ij,...i->...j", model.map(times), effects)
    assert model.aged(effects, times) == pytest.approx(expected, abs=EXACT)
    assert np.array_equal(effects, before), "the caller's array is the caller's"
    whole_ns = times.astype(np.int64)
    assert model.aged(effects, whole_ns) == pytest.approx(
        model.aged(effects, whole_ns.astype(np.float64)), abs=EXACT
    )


@pytest.mark.parametrize("name", MODELS)
def test_shapes_broadcast_and_may_be_empty(name: str) -> None:
    model = MODELS[name]
    effects = pauli.effects(np.array([0.0, 1.0, 2.0]))
    assert model.aged(effects, 3.0).shape == (3, 2, 4)
    assert model.aged(effects[0, 0], TIMES).shape == (len(TIMES), 4)
    assert model.aged(np.empty((0, 4)), np.empty(0)).shape == (0, 4)
    assert model.map(TIMES.reshape(2, 4)).shape == (2, 4, 4, 4)
    assert model.map(7.0).shape == (4, 4)


def test_factors_are_dephasing_times_pulses_then_pulses_then_survival() -> None:
    keeping = KEEPINGS["all"]
    transverse, longitudinal, survival = keeping.factors(TIMES)
    pulses = np.array([0, 0, 1, 1, 1, 5, 9, 64])
    assert longitudinal == pytest.approx(0.98**pulses)
    assert transverse == pytest.approx(0.98**pulses * np.exp(-((TIMES / (90 * MS)) ** 2)))
    assert survival == pytest.approx(np.exp(-TIMES / (120 * MS)))


@pytest.mark.parametrize("shape", ["exponential", "gaussian"])
@pytest.mark.parametrize("side", list(Side))
def test_mere_dephasing_is_that_of_density_matrices(shape: CoherenceShape, side: Side) -> None:
    pair = twin.random_pair(np.random.default_rng(6))
    waited = StorageModel(None, Keeping(30 * MS, shape)).map(TIMES)
    maps = (waited, None) if side is Side.A else (None, waited)
    found = pauli.to_state(pauli.mapped(pauli.to_correlations(pair), *maps))
    expected = states.dephase(pair, TIMES, 30 * MS, shape, side)
    assert found == pytest.approx(expected, abs=EXACT)


def test_pulse_errors_before_the_decay_differ_from_each_in_its_time_by_less_than_stated() -> None:
    keeping = KEEPINGS["all"]
    model = StorageModel(None, keeping)
    in_time = twin.Stores(None, twin.Keeps(90 * MS, "gaussian", 7 * MS, 0.01, 120 * MS, False))
    ideal = twin.Stores(None, twin.Keeps(math.inf))
    phi_plus = twin.bell_diagonal([1.0, 0.0, 0.0, 0.0])
    for ns in TIMES:
        whole = twin.stored(phi_plus, in_time, ns, ideal, 0.0)
        r = twin.correlations(twin.still_qubits(whole))
        difference = np.abs(r - model.map(ns) @ np.diag([1.0, 1.0, -1.0, 1.0])).max()
        _, longitudinal, survival = keeping.factors(ns)
        assert difference <= (1 - longitudinal) * (1 - survival) + EXACT
    assert difference > 1e-3, "else the order would not matter and need no words"


def test_the_transfer_comes_with_the_herald() -> None:
    model = StorageModel(Keeping(math.inf), Keeping(10.0), 100.0, 5.0, 0.1)
    z = model.map(np.array([99.0, 100.0, 105.0, 115.0]))
    assert z[:, 3, 3] == pytest.approx([1.0, 0.8, 0.8, 0.8])
    assert z[:, 1, 1] == pytest.approx([1.0, 0.8, 0.8, 0.8 / math.e])


def own(value: float) -> Figure:
    return Figure(value, "for this test", "own")


def test_a_device_s_figures_reach_the_model() -> None:
    memory = Qubit(own(62e6), "gaussian", own(5e6), own(0.001), own(1e9))
    device = Device(own(1e3), own(0.1), memory, own(0.01))
    expected = StorageModel(None, Keeping(62e6, "gaussian", 5e6, 0.001, 1e9), 70.0)
    assert StorageModel.of(device, 70.0) == expected
    device = Device(own(1e3), own(0.1), memory, own(0.01), Qubit(own(5.8e6)), own(0.02), own(3e5))
    found = StorageModel.of(device, 70.0)
    assert found.communication == Keeping(5.8e6)
    assert (found.herald_wait_ns, found.transfer_ns, found.transfer_error) == (70.0, 3e5, 0.02)


def test_two_memories_of_the_liu_figures_lose_their_entanglement_at_the_inferred_time() -> None:
    """arXiv 2602.08472's decay law by hand: F = (1 + p Z + 2 p X exp(-t / 550 ms)) / 4."""
    a = StorageModel(None, Keeping(1100 * MS, "exponential", 9 * MS, 6.1e-4))
    b = StorageModel(None, Keeping(1100 * MS, "exponential", 9 * MS, 5.7e-4))
    ns = np.array([0.0, 8.9, 450.0]) * MS
    bell = np.diag(pauli.BELL_SIGNS[BellState.PSI_PLUS])
    found = pauli.fidelity(pauli.mapped(bell, a.map(ns), b.map(ns)), BellState.PSI_PLUS)
    pulses = ((1 - 2 * 6.1e-4) * (1 - 2 * 5.7e-4)) ** np.array([0, 0, 50])
    expected = (1 + pulses * (1 + 2 * np.exp(-ns / (550 * MS)))) / 4
    assert found == pytest.approx(expected, abs=EXACT)
    assert StorageModel.ideal().map(1e18) == pytest.approx(np.eye(4))
