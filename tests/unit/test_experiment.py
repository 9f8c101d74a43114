"""Presets made ready: Oxford as it was published, and each scheme against plain arithmetic."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bellhop.hal import states
from bellhop.hal.correlations import to_state
from bellhop.hal.experiment import LOST, Experiment
from bellhop.hal.operations import BellState, Side
from bellhop.hal.preset import load_preset, parse_preset, preset_names
from bellhop.hal.sampling import RepeaterNode

TSIRELSON = 2.0 * np.sqrt(2.0)


@pytest.fixture(scope="module")
def oxford() -> Experiment:
    return Experiment(load_preset("oxford"))


def flipped_table(experiment: Experiment, x: int, y: int) -> NDArray[np.float64]:
    """P(ab|xy) after the flips that the herald calls for, from density matrices."""
    angle_a, angle_b = experiment.angles[Side.A][x], experiment.angles[Side.B][y]
    errors = experiment.readout_error[Side.A], experiment.readout_error[Side.B]
    total = np.zeros((2, 2))
    pairs = to_state(experiment.correlations)
    for bell_state, share, pair in zip(experiment.announced, experiment.shares, pairs, strict=True):
        raw = states.joint_probabilities(pair, angle_a, angle_b, *errors)
        if x == 1 and bell_state == BellState.PSI_PLUS:
            raw = raw[::-1]
        total += share * raw[:, ::-1]
    return total.ravel()


# Oxford 2022


def test_chsh_value_qber_and_fidelity_are_the_published_ones(oxford: Experiment) -> None:
    published = oxford.preset.published
    assert published.s and published.qber and published.fidelity
    # Far inside the published errors of 0.006 and 0.02 %: the fit held both.
    assert oxford.chsh() == pytest.approx(published.s.value, abs=1e-4)
    assert oxford.qber() == pytest.approx(published.qber.value, abs=1e-5)
    assert float(oxford.fidelity()) == pytest.approx(published.fidelity.value, abs=0.001)


def test_each_pattern_has_its_published_fidelity(oxford: Experiment) -> None:
    assert oxford.preset.state is not None
    patterns = oxford.preset.state.pattern
    for herald, pattern in zip(oxford.heralds, patterns, strict=True):
        found = float(states.fidelity(herald.state, herald.announces))
        assert found == pytest.approx(pattern.fidelity.value, abs=1e-6)
    assert oxford.shares == pytest.approx([0.5, 0.5])
    for bell_state, pair in zip(oxford.announced, to_state(oxford.correlations), strict=True):
        announcing = [p for p in patterns if BellState[p.announces] == bell_state]
        expected = np.mean([pattern.fidelity.value for pattern in announcing])
        assert states.fidelity(pair, BellState(bell_state)) == pytest.approx(expected, abs=1e-6)


def test_the_published_table_is_met_within_the_stated_residuals(oxford: Experiment) -> None:
    residuals = [
        flipped_table(oxford, entry.x, entry.y) - np.array(entry.value)
        for entry in oxford.preset.published.table
    ]
    flat = np.concatenate(residuals)
    assert flat.shape == (20,)
    assert np.abs(flat).max() < 0.0013
    assert np.sqrt(np.mean(flat**2)) < 0.00077


def test_raw_pairs_with_flips_give_the_published_chsh_value(oxford: Experiment) -> None:
    signs = np.array([1, -1, -1, 1])
    e = {(x, y): float(flipped_table(oxford, x, y) @ signs) for x in (0, 1) for y in (0, 1, 2)}
    assert e[0, 0] + e[0, 1] + e[1, 0] - e[1, 1] == pytest.approx(2.677, abs=1e-4)
    assert (1.0 - e[0, 2]) / 2.0 == pytest.approx(0.0144, abs=1e-5)


def test_the_angles_are_near_the_published_ones(oxford: Experiment) -> None:
    assert np.rad2deg(oxford.angles[Side.A]) == pytest.approx([0, 90], abs=2.0)
    assert np.rad2deg(oxford.angles[Side.B]) == pytest.approx([45, -45, 0], abs=2.0)


def test_heralds_come_at_the_published_rates(oxford: Experiment) -> None:
    published = oxford.preset.published
    assert oxford.success_probability == pytest.approx(1.6e-4, rel=1e-4)
    assert published.pairs_per_s and published.pairs_per_s_with_pauses
    assert oxford.pairs_per_s == pytest.approx(published.pairs_per_s.value, rel=0.02)
    with_pauses = published.pairs_per_s_with_pauses.value
    assert oxford.pairs_per_s_with_pauses == pytest.approx(with_pauses, rel=0.02)


def test_white_noise_scales_the_chsh_value_and_flips_spare_the_key(oxford: Experiment) -> None:
    noisy = Experiment(load_preset("oxford", {"noise.white": 0.05}))
    assert noisy.chsh() == pytest.approx(0.95 * oxford.chsh())
    flipped = Experiment(load_preset("oxford", {"noise.phase": 0.1}))
    assert flipped.qber() == pytest.approx(oxford.qber())
    assert flipped.chsh() < 0.93 * oxford.chsh()


# Every scheme

LINK = """
name = "made-up"
title = "Numbers for a test"
[device]
preparation_ns = 1000
collection_efficiency = 0.2
bright_probability = 0.1
readout_error = 0.01
emission_dephasing = 0.03
two_qubit_error = 0.02
[device.memory]
coherence_ns = 2e6
[fibre]
length_m = 10_000
wavelength_nm = 1550
attenuation_db_per_km = 0.2
[station]
scheme = "{scheme}"
detector_efficiency = 0.9
detector_dark_hz = 100
window_ns = 50
hom_visibility = 0.95
analyser_error = 0.005
cutoff_attempts = 7
"""
SCHEMES = ("single-photon", "two-photon", "direct", "repeater-node")
FLIGHT_NS = 10_000 / 0.2041


def made_up(scheme: str, **overrides: float) -> Experiment:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return Experiment(parse_preset(LINK.format(scheme=scheme), "made up", named))


@pytest.mark.parametrize(
    ("scheme", "announced", "ages"),
    [
        ("single-photon", {BellState.PSI_PLUS, BellState.PSI_MINUS}, (2, 4)),
        ("two-photon", {BellState.PSI_PLUS, BellState.PSI_MINUS}, (2, 4)),
        ("direct", {BellState.PHI_PLUS}, (2, 0)),
        ("repeater-node", set(BellState), (2, 2)),
    ],
)
def test_what_is_announced_and_how_old_halves_are(
    scheme: str, announced: set[BellState], ages: tuple[int, int]
) -> None:
    experiment = made_up(scheme)
    assert set(experiment.announced) == announced
    assert experiment.shares.sum() == pytest.approx(1.0)
    # In flights of one fibre: to the station and back; side B waits for side A's announcement too.
    flights = [experiment.measured_ns[side] / FLIGHT_NS for side in Side]
    assert flights == pytest.approx(ages)


@pytest.mark.parametrize("scheme", SCHEMES[:3])
def test_probabilities_are_those_of_density_matrices_that_dephase(scheme: str) -> None:
    experiment = made_up(scheme)
    table = experiment.probabilities()
    assert not table[..., LOST, :].any() and not table[..., LOST].any()
    errors = experiment.readout_error[Side.A], experiment.readout_error[Side.B]
    assert errors == ((0.01, 0.005) if scheme == "direct" else (0.01, 0.01))
    for index, pair in enumerate(to_state(experiment.correlations)):
        aged = pair
        for side in Side:
            aged = states.dephase(aged, experiment.measured_ns[side], 2e6, "exponential", side)
        for x, angle_a in enumerate(experiment.angles[Side.A]):
            for y, angle_b in enumerate(experiment.angles[Side.B]):
                expected = states.joint_probabilities(aged, angle_a, angle_b, *errors)
                assert table[index, x, y, :2, :2] == pytest.approx(expected, abs=1e-12)


def test_a_half_that_decays_is_an_outcome_of_its_own() -> None:
    experiment = made_up("single-photon", device__memory__decay_ns=1e6)
    table = experiment.probabilities()
    assert table.sum(axis=(-2, -1)) == pytest.approx(np.ones((2, 2, 3)))
    # Only |1> decays: its weight at emission times what is gone after the age of that side.
    for side, axis in ((Side.A, -1), (Side.B, -2)):
        bloch_z = (
            experiment.correlations[:, 3, 0] if side is Side.A else experiment.correlations[:, 0, 3]
        )
        gone = 1.0 - np.exp(-experiment.measured_ns[side] / 1e6)
        lost = table.sum(axis=axis)[..., LOST]
        expected = (1.0 - bloch_z) / 2.0 * gone
        assert lost == pytest.approx(np.broadcast_to(expected[:, None, None], lost.shape))


def node_by_attempts(
    p_a: float, p_b: float, cutoff: int, pairs: int
) -> tuple[float, dict[tuple[int, int], int]]:
    """Attempt by attempt: success per attempt, and how often (first side, wait) came."""
    generator = np.random.default_rng(4)
    counts: dict[tuple[int, int], int] = {}
    attempts = found = 0
    stored, waited = -1, 0
    while found < pairs:
        attempts += 1
        a, b = generator.random(2) < (p_a, p_b)
        if stored < 0:
            if a or b:
                stored, waited = (0 if a else 1), 0
            complete = bool(a and b)
        else:
            waited += 1
            complete = bool(b if stored == 0 else a)
        if complete:
            counts[stored, waited] = counts.get((stored, waited), 0) + 1
            found += 1
        if complete or (waited == cutoff and stored >= 0):
            stored, waited = -1, 0
    return found / attempts, counts


def test_a_repeater_nodes_waits_are_those_of_single_attempts() -> None:
    experiment = made_up("repeater-node", fibre__b__length_m=20_000)
    assert isinstance(experiment.law, RepeaterNode)
    p_a, p_b = (0.2 * 10 ** (-km / 50) * 0.9 for km in (10, 20))
    pairs = 20_000
    rate, counts = node_by_attempts(p_a, p_b, 7, pairs)
    assert experiment.success_probability == pytest.approx(rate, rel=5 / np.sqrt(pairs))
    waits = experiment.ages.waits
    assert waits.shares.sum() == pytest.approx(1.0)
    period_ns, back_a_ns, back_b_ns = 1_000 + 4 * FLIGHT_NS, 2 * FLIGHT_NS, 4 * FLIGHT_NS
    found: dict[tuple[float, float], float] = {}
    for (first, wait), number in counts.items():
        # From the first half's emission on: both heralds are back, and the node swaps.
        emitted = (0.0, wait * period_ns) if first == 0 else (wait * period_ns, 0.0)
        swapped = max(emitted[0] + back_a_ns, emitted[1] + back_b_ns)
        ages = swapped - emitted[0] - back_a_ns, swapped - emitted[1] - back_b_ns
        found[ages] = found.get(ages, 0.0) + number / pairs
    for a_ns, b_ns, share in zip(waits.a_ns, waits.b_ns, waits.shares, strict=True):
        near = [v for (a, b), v in found.items() if abs(a - a_ns) < 10 and abs(b - b_ns) < 10]
        error = 5 * np.sqrt(share * (1 - share) / pairs) + 1e-9
        assert sum(near) == pytest.approx(share, abs=error)
    assert len(waits) == 15


def test_a_repeater_nodes_mean_pair_is_the_mean_over_its_waits() -> None:
    experiment = made_up("repeater-node")
    kept = 0.0
    p = 0.2 * 10 ** (-10 / 50) * 0.9
    weights = np.array([p * p, *(2 * p * (1 - p) * p * (1 - p) ** w for w in range(7))])
    for wait, weight in enumerate(weights / weights.sum()):
        age_ns = 4 * FLIGHT_NS + wait * experiment.schedule.period_ns
        kept += weight * np.exp(-age_ns / 2e6)
    fresh, aged = (
        np.abs(experiment.correlations[:, 1, 1]),
        np.abs(experiment.pairs(*(experiment.measured_ns[side] for side in Side))[:, 1, 1]),
    )
    # Dark clicks, a part in a hundred thousand of the clicks, are left out here.
    assert aged == pytest.approx(fresh * kept, rel=1e-5)
    marginal = experiment.probabilities().sum(axis=-1)[..., 1]
    assert marginal == pytest.approx(0.5 * np.ones((4, 2, 3)), abs=1e-9)


def test_swapping_costs_what_its_gates_do() -> None:
    perfect = made_up("repeater-node", device__two_qubit_error=0, device__readout_error=0)
    noisy = made_up("repeater-node", device__readout_error=0)
    flipped = made_up("repeater-node", device__two_qubit_error=0)
    # A depolarised gate shrinks all correlations by 1 - 4/3 eps; a misread bit, Z or X, flips them.
    assert noisy.correlations[:, 3, 3] == pytest.approx(
        perfect.correlations[:, 3, 3] * (1 - 4 / 3 * 0.02)
    )
    assert flipped.correlations[:, 3, 3] == pytest.approx(perfect.correlations[:, 3, 3] * 0.98)
    assert flipped.correlations[:, 2, 2] == pytest.approx(perfect.correlations[:, 2, 2] * 0.98**2)


@pytest.mark.parametrize("figure", ["two_qubit_error", "single_qubit_error", "readout_error"])
def test_a_node_swaps_with_the_worse_of_its_memories(figure: str) -> None:
    both = made_up("repeater-node", **{f"device__{figure}": 0.06}).correlations
    better = made_up("repeater-node", **{f"device__{figure}": 0.001}).correlations
    for side in ("a", "b"):
        figures = {"device__a__" + figure: 0.001, "device__b__" + figure: 0.001}
        one = made_up("repeater-node", **(figures | {f"device__{side}__{figure}": 0.06}))
        np.testing.assert_allclose(one.correlations, both, atol=1e-12)
    assert np.abs(both - better).max() > 0.01


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_ready(name: str) -> None:
    experiment = Experiment(load_preset(name))
    assert np.all(states.smallest_eigenvalue(to_state(experiment.correlations)) > -1e-9)
    assert experiment.correlations[:, 0, 0] == pytest.approx(np.ones(len(experiment.announced)))
    assert 0.0 < experiment.pairs_per_s_with_pauses <= experiment.pairs_per_s
    assert 0.5 < float(experiment.fidelity()) <= 1.0
    assert experiment.chsh() <= TSIRELSON
    assert experiment.drift.off
