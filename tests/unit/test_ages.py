"""How old halves are, from what happens when: emission, herald, announcement, transfer, pause."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.stopwatch import starts_ns

from bellhop.hal.ages import NO_WAITS
from bellhop.hal.emulator.born import Answers
from bellhop.hal.emulator.link import LinkPhysics, Past
from bellhop.hal.errors import ConfigError
from bellhop.hal.experiment import Experiment
from bellhop.hal.operations import Side
from bellhop.hal.preset import parse_preset
from bellhop.hal.sampling import Draw

NS_PER_M = 1.0 / 0.2041
FLIGHTS = {Side.A: 4_000 * NS_PER_M, Side.B: 9_000 * NS_PER_M}
LINK = """
name = "made-up"
title = "Numbers for a test"
[device]
preparation_ns = 1000
collection_efficiency = 0.2
readout_error = 0.01
[device.memory]
coherence_ns = 3e6
decay_ns = 5e7
[fibre]
wavelength_nm = 1550
[fibre.a]
length_m = 4_000
[fibre.b]
length_m = 9_000
[station]
scheme = "{scheme}"
detector_efficiency = 0.9
window_ns = 50
cutoff_attempts = 40
"""
COMMUNICATION = """
[device.communication]
coherence_ns = 5e5
"""
MODES = {"device.bins": 3.0, "device.ions": 2.0, "device.bin_spacing_ns": 10_000.0}
SHUTTLED = MODES | {"device.shuttle_ns": 50_000.0, "device.ion_preparation_ns": 7_000.0}
MIDPOINT = ("single-photon", "two-photon")


def made_up(scheme: str, figures: dict[str, float] | None = None, text: str = "") -> Experiment:
    scheme = LINK.format(scheme=scheme)
    return Experiment(parse_preset(scheme + text, "made up", figures or {}))


@pytest.mark.parametrize("scheme", MIDPOINT)
@pytest.mark.parametrize("transfer_ns", [0.0, 3_000.0, 1e6])
def test_halves_of_a_midpoint_are_as_old_as_events_say(scheme: str, transfer_ns: float) -> None:
    figures = {f"device.{s}.transfer_ns": transfer_ns * (1 + (s == "b")) for s in "ab"}
    experiment = made_up(scheme, figures, COMMUNICATION)
    met = 0.0
    emitted = {side: met - FLIGHTS[side] for side in Side}
    known = {side: met + FLIGHTS[side] for side in Side}
    ready = {Side.A: known[Side.A] + transfer_ns, Side.B: known[Side.B] + 2 * transfer_ns}
    announced_at_b = known[Side.A] + FLIGHTS[Side.A] + FLIGHTS[Side.B]
    measured = {Side.A: ready[Side.A], Side.B: max(announced_at_b, ready[Side.B])}
    for side in Side:
        assert experiment.herald_wait_ns[side] == pytest.approx(known[side] - emitted[side])
        assert experiment.kept_from_ns[side] == pytest.approx(ready[side] - emitted[side])
        assert experiment.measured_ns[side] == pytest.approx(measured[side] - emitted[side])


def test_a_photons_memory_is_transferred_and_measured_and_a_detector_does_not_wait() -> None:
    experiment = made_up("direct", {"device.transfer_ns": 3_000.0}, COMMUNICATION)
    back_ns = 2 * FLIGHTS[Side.A]
    assert experiment.kept_from_ns == pytest.approx({Side.A: back_ns + 3_000, Side.B: 0.0})
    assert experiment.measured_ns == experiment.kept_from_ns
    assert made_up("direct").kept_from_ns == pytest.approx({Side.A: back_ns, Side.B: 0.0})


# Modes


@pytest.mark.parametrize("scheme", ["direct", *MIDPOINT])
def test_early_modes_wait_for_the_late_ones(scheme: str) -> None:
    experiment = made_up(scheme, SHUTTLED)
    # Two ions, each prepared and then excited three times.
    emitted = [7e3, 17e3, 27e3, 87e3 + 7e3, 97e3 + 7e3, 107e3 + 7e3]
    assert np.diff(experiment.schedule.mode_offsets_ns) == pytest.approx(np.diff(emitted))
    waits = experiment.ages.waits
    expected = [emitted[-1] - at for at in emitted]
    assert waits.a_ns == pytest.approx(expected)
    assert waits.b_ns == pytest.approx(expected if scheme != "direct" else [0.0] * 6)
    per_mode = sum(herald.probability for herald in experiment.heralds)
    first = [per_mode * (1 - per_mode) ** mode for mode in range(6)]
    assert waits.shares == pytest.approx(first / np.sum(first))


def test_a_mode_that_waits_does_so_before_its_transfer() -> None:
    """Its communication qubit dephases meanwhile, however good its memory qubit is."""
    figures = SHUTTLED | {"device.memory.coherence_ns": 1e15, "device.transfer_error": 0.01}
    experiment = made_up("direct", figures, COMMUNICATION)
    pair = experiment.pairs(experiment.kept_from_ns[Side.A] + 1e9, 0.0)[0]
    left = 0.0
    for emitted, share in zip(
        experiment.schedule.mode_offsets_ns, experiment.ages.waits.shares, strict=True
    ):
        known = experiment.schedule.mode_offsets_ns[-1] + 2 * FLIGHTS[Side.A]
        left += share * np.exp(-(known - emitted) / 5e5) * (1 - 2 * 0.01)
    # What decays in the memory decays with its 50 ms, from a state without a preferred level.
    left *= np.exp(-1e9 / 5e7 / 2)
    assert pair[1, 1] == pytest.approx(experiment.correlations[0, 1, 1] * left)


@pytest.mark.parametrize("scheme", ["direct", "two-photon"])
@pytest.mark.parametrize("text", ["", COMMUNICATION])
def test_drawn_modes_have_the_exact_mean(scheme: str, text: str) -> None:
    physics = LinkPhysics(made_up(scheme, SHUTTLED, text).preset)
    rounds = 200_000
    generator = np.random.default_rng(1)
    draw = physics.experiment.law.draw(generator, rounds)
    a_ns, b_ns = physics.experiment.ages.drawn(draw, physics.experiment.schedule, 0)
    assert a_ns is not None and draw.modes is not None
    assert (b_ns is a_ns) if scheme == "two-photon" else b_ns is None
    waits = physics.experiment.ages.waits
    for mode, share in enumerate(waits.shares):
        assert np.all(a_ns[draw.modes == mode] == waits.a_ns[mode])
        error = 5 * np.sqrt(share * (1 - share) / rounds)
        assert np.mean(draw.modes == mode) == pytest.approx(share, abs=error)


def test_many_modes_are_taken_in_groups_that_cost_no_accuracy() -> None:
    figures = {"device.bins": 3000.0, "device.bin_spacing_ns": 1000.0}
    experiment = made_up("direct", figures)
    waits = experiment.ages.waits
    assert len(waits) == 256 and waits.shares.sum() == pytest.approx(1.0)
    p = experiment.heralds[0].probability
    modes = np.arange(3000)
    shares = (1 - p) ** modes / ((1 - p) ** modes).sum()
    exact = shares @ np.exp(-(2999 - modes) * 1000 / 3e6)
    assert waits.shares @ np.exp(-waits.a_ns / 3e6) == pytest.approx(exact, rel=1e-5)


# A repeater node


PAUSES = {
    "device.attempts_on_ns": 500_000.0,
    "device.cooling_ns": 170_000.0,
    "device.calibration_every_ns": 7_100_000.0,
    "device.calibration_ns": 330_000.0,
}


def test_times_between_attempts_have_the_law_of_all_phases() -> None:
    schedule = made_up("repeater-node", PAUSES).schedule
    starts = starts_ns(schedule.period_ns, PAUSES, 200_000)
    times, shares = schedule.between_ns(np.arange(12))
    assert shares.sum(axis=0) == pytest.approx(np.ones(12))
    for later in range(12):
        found = starts[later:] - starts[: len(starts) - later]
        met = np.unique(times[:, later][shares[:, later] > 0.0])
        assert set(np.unique(found)) == set(met)
        for time in met:
            share = shares[:, later][times[:, later] == time].sum()
            # Not by chance, but 20,000 calibrations do not come round to where they began.
            assert np.mean(found == time) == pytest.approx(share, abs=2e-3)


def node_ages(
    experiment: Experiment, draw: Draw, before: int, starts: NDArray[np.int64]
) -> dict[Side, NDArray[np.float64]]:
    """Of both halves at the swap, event by event."""
    ages: dict[Side, list[float]] = {side: [] for side in Side}
    assert draw.waits is not None and draw.first is not None
    for attempt, wait, first in zip(draw.attempts, draw.waits, draw.first, strict=True):
        late = starts[before + attempt]
        early = starts[before + attempt - wait]
        emitted = {Side.A: early, Side.B: late} if first == 0 else {Side.A: late, Side.B: early}
        ready = {}
        for side in Side:
            device = experiment.preset.device.a if side is Side.A else experiment.preset.device.b
            back = emitted[side] + 2 * FLIGHTS[side]
            ready[side] = back + (device.transfer_ns.value if device.communication else 0.0)
        swapped = max(ready.values())
        for side in Side:
            ages[side].append(swapped - emitted[side])
    return {side: np.array(column) for side, column in ages.items()}


@pytest.mark.parametrize("pauses", [False, True])
@pytest.mark.parametrize("transfer_ns", [0.0, 120_000.0])
def test_halves_of_a_node_are_as_old_as_events_say(pauses: bool, transfer_ns: float) -> None:
    figures = (PAUSES if pauses else {}) | {"device.a.transfer_ns": transfer_ns}
    experiment = made_up("repeater-node", figures, COMMUNICATION if transfer_ns else "")
    schedule = experiment.schedule
    rounds, before = 20_000, 123
    draw = experiment.law.draw(np.random.default_rng(2), rounds)
    count = before + int(draw.attempts[-1]) + 1
    if pauses:
        starts = starts_ns(schedule.period_ns, PAUSES, count)
    else:
        starts = np.arange(count) * schedule.period_ns
    expected = node_ages(experiment, draw, before, starts)
    drawn = dict(zip(Side, experiment.ages.drawn(draw, schedule, before), strict=True))
    waits = experiment.ages.waits
    assert waits.shares.sum() == pytest.approx(1.0)
    for side in Side:
        waited = drawn[side]
        assert waited is not None
        np.testing.assert_allclose(
            experiment.measured_ns[side] + waited, expected[side], rtol=1e-12, atol=1e-3
        )
        # The exact mean of what is left after such a wait, and of the wait itself.
        for scale_ns in (3e5, 3e6):
            left = np.exp(-waited / scale_ns)
            exact = waits.shares @ np.exp(-waits.of(side) / scale_ns)
            error = 5 * left.std() / np.sqrt(rounds)
            assert left.mean() == pytest.approx(exact, abs=error + 1e-12)
        exact = waits.shares @ waits.of(side)
        assert waited.mean() == pytest.approx(exact, abs=5 * waited.std() / np.sqrt(rounds) + 1e-6)


def test_blocks_carry_the_waits_of_their_own_attempts() -> None:
    physics = LinkPhysics(made_up("repeater-node", PAUSES).preset)
    schedule, law = physics.experiment.schedule, physics.experiment.law
    generator, twin = np.random.default_rng(3), np.random.default_rng(3)
    past = Past(generator)
    starts = starts_ns(schedule.period_ns, PAUSES, 200_000)
    for rounds in (1, 500, 2_000):
        before = past.attempts
        heralds = physics.herald(generator, rounds, past)
        draw = law.draw(twin, rounds)
        twin.random(rounds)
        ages = node_ages(physics.experiment, draw, before, starts)
        assert heralds.hidden is not None
        for side in Side:
            waited = heralds.hidden.wait_ns(side)
            assert waited is not None
            found = physics.experiment.measured_ns[side] + waited.astype(float)
            np.testing.assert_allclose(found, ages[side], rtol=1e-6)


def test_a_repeater_node_with_several_modes_is_refused_by_name() -> None:
    for figure in ("bins", "ions"):
        with pytest.raises(ConfigError, match="one mode") as caught:
            made_up("repeater-node", {f"device.{figure}": 2.0})
        assert caught.value.field == f"device.{figure}"


@pytest.mark.parametrize(
    ("scheme", "figures"),
    [
        ("direct", SHUTTLED),
        ("two-photon", SHUTTLED),
        ("repeater-node", PAUSES | {"device.memory.coherence_ns": 4e5}),
    ],
)
@pytest.mark.parametrize("first", list(Side))
def test_drawn_outcomes_have_the_exact_mean(
    scheme: str, figures: dict[str, float], first: Side
) -> None:
    """Where halves wait for longer than they keep, so that each pair's own wait matters."""
    transfer = {"device.transfer_ns": 70_000.0, "device.transfer_error": 0.02}
    physics = LinkPhysics(made_up(scheme, figures | transfer, COMMUNICATION).preset)
    rounds = 100_000
    generator = np.random.default_rng(4)
    heralds = physics.herald(generator, rounds, Past(generator))
    answers: dict[Side, Answers] = {}
    for side in (first, first.other):
        settings = generator.integers(0, physics.settings(side), rounds, dtype=np.uint8)
        uniforms = generator.random(rounds)
        earlier = answers.get(side.other)
        outcomes = physics.answer(
            side, heralds.patterns, settings, uniforms, heralds.hidden, earlier
        )
        answers[side] = Answers(side, settings, outcomes)
    a, b = answers[Side.A], answers[Side.B]
    exact = physics.experiment.probabilities()
    columns = (heralds.patterns, a.settings, b.settings, a.outcomes, b.outcomes)
    counts = np.zeros(exact.shape)
    np.add.at(counts, columns, 1.0)
    number = counts.sum(axis=(-2, -1), keepdims=True)
    error = 5 * np.sqrt(exact * (1 - exact) / number) + 5 / number
    assert np.all(np.abs(counts / number - exact) < error)
    # Without the waits it would be another law.
    ages = physics.experiment.ages
    never = replace(ages, waits=NO_WAITS)
    physics.experiment.ages = never
    assert np.any(np.abs(counts / number - physics.experiment.probabilities()) > error)
