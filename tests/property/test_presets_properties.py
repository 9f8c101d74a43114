"""What quantum mechanics forbids, for every preset: signalling, more than Tsirelson's bound, and a
difference between the ends that the experiment does not make."""

from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bellhop.hal.correlations import effects, joint_probabilities, with_loss
from bellhop.hal.emulator.born import Answers
from bellhop.hal.emulator.link import LinkPhysics, Past
from bellhop.hal.experiment import LOST, Experiment
from bellhop.hal.operations import Side
from bellhop.hal.preset import Preset, load_preset, preset_names
from bellhop.hal.sections import Devices, Fibres, Settings

TSIRELSON = 2.0 * np.sqrt(2.0)
ROUNDS = 150_000
SIGMAS = 5.0

DRIFTING = {
    "fibre.phase_diffusion_rad2_per_s": 0.05,
    "fibre.a.polarisation_diffusion_rad2_per_s": 0.02,
    "fibre.a.temperature_amplitude_k": 5.0,
}
DECAYING = {"device.memory.decay_ns": 3e5}
VARIANTS: dict[str, dict[str, float]] = {"": {}, " drifting": DRIFTING, " decaying": DECAYING}

every_preset = pytest.mark.parametrize("name", preset_names())
every_variant = pytest.mark.parametrize(
    ("name", "variant"), [(name, variant) for name in preset_names() for variant in VARIANTS]
)
angle = st.floats(-np.pi, np.pi)
age_ns = st.floats(0.0, 1e9)


@cache
def physics_of(name: str, variant: str = "") -> LinkPhysics:
    return LinkPhysics(load_preset(name, VARIANTS[variant]))


def outcome_effects(
    experiment: Experiment, side: Side, angles: list[float], stored_ns: float
) -> NDArray[np.float64]:
    """(settings, 3, 4): of a half that was kept so long, measured at any angles."""
    fresh = effects(np.array(angles), experiment.readout_error[side])
    return with_loss(experiment.storage[side].aged(fresh, np.asarray(stored_ns)))


def tables(
    experiment: Experiment, a: list[float], b: list[float], ages_ns: tuple[float, float]
) -> NDArray[np.float64]:
    """P(a, b) by announced state and angles: (k, settings, settings, 3, 3)."""
    return joint_probabilities(
        experiment.correlations[:, None, None],
        outcome_effects(experiment, Side.A, a, ages_ns[0])[None, :, None],
        outcome_effects(experiment, Side.B, b, ages_ns[1])[None, None, :],
    )


# Exactly


@every_variant
@given(a=st.tuples(angle, angle), b=st.tuples(angle, angle), ages=st.tuples(age_ns, age_ns))
@settings(max_examples=15)
def test_probabilities_sum_to_one_and_marginals_know_nothing_of_the_other_end(
    name: str,
    variant: str,
    a: tuple[float, float],
    b: tuple[float, float],
    ages: tuple[float, float],
) -> None:
    experiment = physics_of(name, variant).experiment
    joint = tables(experiment, list(a), list(b), ages)
    assert joint.min() > -1e-12
    np.testing.assert_allclose(joint.sum(axis=(-2, -1)), 1.0, atol=1e-12)
    of_a, of_b = joint.sum(axis=-1), joint.sum(axis=-2)
    np.testing.assert_allclose(of_a[:, :, 0], of_a[:, :, 1], atol=1e-12)
    np.testing.assert_allclose(of_b[:, 0], of_b[:, 1], atol=1e-12)
    # Nor of how long it keeps its half.
    later = tables(experiment, list(a), list(b), (ages[0], 2.0 * ages[1] + 1e6))
    np.testing.assert_allclose(later.sum(axis=-1), of_a, atol=1e-12)


@every_variant
def test_tables_that_are_drawn_from_do_not_signal(name: str, variant: str) -> None:
    joint = physics_of(name, variant).experiment.probabilities()
    np.testing.assert_allclose(joint.sum(axis=(-2, -1)), 1.0, atol=1e-12)
    of_a, of_b = joint.sum(axis=-1), joint.sum(axis=-2)
    np.testing.assert_allclose(of_a, np.broadcast_to(of_a[:, :, :1], of_a.shape), atol=1e-12)
    np.testing.assert_allclose(of_b, np.broadcast_to(of_b[:, :1], of_b.shape), atol=1e-12)


def chsh(correlators: NDArray[np.float64]) -> NDArray[np.float64]:
    e = correlators
    return np.asarray(np.abs(e[..., 0, 0] + e[..., 0, 1] + e[..., 1, 0] - e[..., 1, 1]))


@every_variant
@given(a=st.tuples(angle, angle), b=st.tuples(angle, angle), ages=st.tuples(age_ns, age_ns))
@settings(max_examples=15)
def test_no_angles_at_no_age_beat_tsirelson(
    name: str,
    variant: str,
    a: tuple[float, float],
    b: tuple[float, float],
    ages: tuple[float, float],
) -> None:
    joint = tables(physics_of(name, variant).experiment, list(a), list(b), ages)
    sign = np.array([1.0, -1.0])
    # A loss read as outcome 0, and only the rounds that both ends answered.
    counted = np.einsum("kxyab,a,b->kxy", joint, np.append(sign, 1.0), np.append(sign, 1.0))
    both = joint[..., :2, :2]
    answered = both.sum(axis=(-2, -1))
    kept = np.einsum("kxyab,a,b->kxy", both, sign, sign) / np.maximum(answered, 1e-300)
    assert chsh(counted).max() <= TSIRELSON + 1e-9
    # Where next to nothing is left, what is left is rounding.
    assert chsh(kept)[answered.min(axis=(-2, -1)) > 1e-9].max(initial=0.0) <= TSIRELSON + 1e-6


@every_variant
@given(ages=st.tuples(age_ns, age_ns))
@settings(max_examples=15)
def test_the_best_of_all_angles_beats_no_bound(
    name: str, variant: str, ages: tuple[float, float]
) -> None:
    """R., P. and M. Horodecki, Phys. Lett. A 200, 340 (1995): the greatest S of a pair is twice the
    root of the two greatest eigenvalues of T^T T, and no preset's own angles give more."""
    experiment = physics_of(name, variant).experiment
    for stored in (ages, tuple(experiment.measured_ns.values())):
        pairs = experiment.pairs(*stored)
        left = pairs[:, 0, 0]
        assert left.max() <= 1.0 + 1e-12
        t = pairs[left > 1e-9, 1:, 1:] / left[left > 1e-9, None, None]
        squared = np.linalg.eigvalsh(np.swapaxes(t, -1, -2) @ t)
        greatest = 2.0 * np.sqrt(squared[:, -1] + squared[:, -2])
        assert greatest.max(initial=0.0) <= TSIRELSON + 1e-6
    assert experiment.chsh() <= greatest.max() + 1e-9


# The two ends


def mirrored(preset: Preset) -> Preset:
    """The same link with its ends exchanged."""
    return msgspec.structs.replace(
        preset,
        device=Devices(preset.device.b, preset.device.a),
        fibre=Fibres(preset.fibre.b, preset.fibre.a),
        settings=Settings(preset.settings.angles_b, preset.settings.angles_a),
    )


def of_one_kind(name: str) -> bool:
    """Whether either end could be the other: no photon qubit at one of them, no fitted state."""
    preset = load_preset(name)
    return preset.station.scheme != "direct" and preset.state is None


UNEQUAL = {"fibre.b.length_m": 12_345.0, "device.b.memory.coherence_ns": 3e7}


@pytest.mark.parametrize("overrides", [{}, UNEQUAL, UNEQUAL | DECAYING])
@pytest.mark.parametrize("name", [name for name in preset_names() if of_one_kind(name)])
def test_exchanging_the_ends_mirrors_the_statistics(name: str, overrides: dict[str, float]) -> None:
    there = Experiment(load_preset(name, overrides))
    back = Experiment(mirrored(there.preset))
    assert back.success_probability == pytest.approx(there.success_probability, rel=1e-12)
    assert back.pairs_per_s == pytest.approx(there.pairs_per_s, rel=1e-12)
    for a_ns, b_ns in ((0.0, 0.0), (2e5, 7e6)):
        one = there.probabilities(a_ns, b_ns)
        two = back.probabilities(b_ns, a_ns)
        np.testing.assert_allclose(two, one.transpose(0, 2, 1, 4, 3), atol=1e-12)


@pytest.mark.parametrize("name", [name for name in preset_names() if not of_one_kind(name)])
def test_ends_of_two_kinds_have_pairs_that_are_alike_from_either(name: str) -> None:
    """Up to what a fit to measured outcomes left between them."""
    pairs = physics_of(name).experiment.correlations
    asymmetry = np.abs(np.abs(pairs) - np.abs(np.swapaxes(pairs, -1, -2))).max()
    assert asymmetry < (0.02 if load_preset(name).state else 1e-12)


# Drawn


def played(
    physics: LinkPhysics, first: Side, seed: int
) -> tuple[NDArray[np.uint8], dict[Side, Answers]]:
    """The same heralds and drift for every seed, which is that of settings and outcomes."""
    generator = np.random.default_rng(3)
    heralds = physics.herald(generator, ROUNDS, Past(generator))
    generator = np.random.default_rng(seed)
    answers: dict[Side, Answers] = {}
    for side in (first, first.other):
        chosen = generator.integers(0, physics.settings(side), ROUNDS, dtype=np.uint8)
        outcomes = physics.answer(
            side,
            heralds.patterns,
            chosen,
            generator.random(ROUNDS),
            heralds.hidden,
            answers.get(side.other),
        )
        answers[side] = Answers(side, chosen, outcomes)
    return heralds.patterns, answers


def counts(patterns: NDArray[np.uint8], answers: dict[Side, Answers], k: int) -> NDArray[np.int64]:
    """Rounds by announced state, x, y, a, b."""
    a, b = answers[Side.A], answers[Side.B]
    shape = (k, int(a.settings.max()) + 1, int(b.settings.max()) + 1, 3, 3)
    columns = (patterns, a.settings, b.settings, a.outcomes, b.outcomes)
    index = np.ravel_multi_index(tuple(c.astype(np.intp) for c in columns), shape)
    return np.bincount(index, minlength=int(np.prod(shape))).reshape(shape)


def differing(one: NDArray[np.int64], two: NDArray[np.int64]) -> float:
    """The smallest p-value, over all rows but the last axis's, that two counts have one law."""
    rows = zip(one.reshape(-1, one.shape[-1]), two.reshape(-1, two.shape[-1]), strict=True)
    least = 1.0
    for row in rows:
        table = np.array(row)
        # Entries that are hardly ever met are put together.
        rare = table.sum(axis=0) < 20
        table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
        table = table[:, table.sum(axis=0) > 0]
        if table.shape[1] > 1:
            least = min(least, float(stats.chi2_contingency(table, correction=False).pvalue))
    return least


P_MIN = 1e-7
"""A few thousand comparisons are made in this file; chance alone should never fail one."""


@every_variant
def test_drawn_marginals_know_neither_the_others_setting_nor_whether_it_was_asked(
    name: str, variant: str
) -> None:
    physics = physics_of(name, variant)
    number = len(physics.announced)
    by_order = {side: counts(*played(physics, side, 7 + i), number) for i, side in enumerate(Side)}
    for first in Side:
        of_a, of_b = by_order[first].sum(axis=-1), by_order[first].sum(axis=-2)
        for y in range(1, of_a.shape[2]):
            assert differing(of_a[:, :, 0], of_a[:, :, y]) > P_MIN
        for x in range(1, of_b.shape[1]):
            assert differing(of_b[:, 0], of_b[:, x]) > P_MIN
    # Asked first or second: the same law of both outcomes together, hence of each.
    one, two = (by_order[side].reshape(*by_order[side].shape[:3], 9) for side in Side)
    assert differing(one, two) > P_MIN


@every_preset
def test_drawn_pairs_have_the_exact_probabilities(name: str) -> None:
    physics = physics_of(name)
    found = counts(*played(physics, Side.A, 11), len(physics.announced))
    exact = physics.experiment.probabilities()
    for cell in np.ndindex(found.shape[:3]):
        observed, expected = found[cell].ravel(), exact[cell].ravel() * found[cell].sum()
        assert not observed[expected < 1e-6].any()
        rare = expected < 10.0
        observed = np.append(observed[~rare], observed[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        kept = expected > 1e-6
        if np.count_nonzero(kept) > 1:
            scaled = expected[kept] * observed[kept].sum() / expected[kept].sum()
            assert stats.chisquare(observed[kept], scaled).pvalue > P_MIN


@every_variant
def test_drawn_chsh_values_stay_below_tsirelson(name: str, variant: str) -> None:
    physics = physics_of(name, variant)
    patterns, answers = played(physics, Side.A, 13)
    found = counts(patterns, answers, len(physics.announced))
    signs = physics.experiment.frame_signs()[:, :2, None]
    both = found[:, :2, :2, :LOST, :LOST]
    turned = np.einsum("kxyab,ab->kxy", both, np.array([[1, -1], [-1, 1]])) * signs
    number = both.sum(axis=(0, 3, 4))
    if number.min() > 1_000:
        error = np.sqrt((1.0 / number).sum())
        assert chsh(turned.sum(axis=0) / number) <= TSIRELSON + SIGMAS * error
