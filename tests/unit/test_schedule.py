"""When attempts are made, against a clock moved from event to event and against closed forms."""

from random import Random

import numpy as np
import pytest
from scipy import stats
from tests.support.attempts_twin import Pauses, clocked, reloaded
from tests.support.link_parts import LinkParts, link

from bellhop.hal.errors import ConfigError
from bellhop.hal.operations import Side
from bellhop.hal.sampling import Multiplexed
from bellhop.hal.schedule import (
    LIGHT_IN_FIBRE_M_PER_NS,
    Schedule,
    announcement_ns,
    herald_wait_ns,
)
from bellhop.hal.sections import Scheme

PAUSES = [
    Pauses(1000),
    Pauses(1000, on_ns=500_000, cooling_ns=300_000),
    Pauses(700, on_ns=2500, cooling_ns=10),  # 400 ns of each turn are too short for an attempt
    Pauses(700, on_ns=2100, cooling_ns=123),
    Pauses(700, on_ns=100, cooling_ns=50),  # an attempt is longer than its turn
    Pauses(1000, calibration_every_ns=7300, calibration_ns=2600),
    Pauses(1000, calibration_every_ns=5000, calibration_ns=1),
    Pauses(1000, calibration_every_ns=300, calibration_ns=77),  # several due at once
    Pauses(700, 2500, 400, calibration_every_ns=9100, calibration_ns=1313),
    Pauses(700, 2500, 9000, calibration_every_ns=4000, calibration_ns=10),
]


def of(pauses: Pauses) -> Schedule:
    return Schedule(
        pauses.period_ns,
        attempts_on_ns=pauses.on_ns,
        cooling_ns=pauses.cooling_ns,
        calibration_every_ns=pauses.calibration_every_ns,
        calibration_ns=pauses.calibration_ns,
    )


@pytest.mark.parametrize("pauses", PAUSES)
def test_every_attempt_starts_and_ends_when_the_clock_says(pauses: Pauses) -> None:
    attempts = np.arange(3000, dtype=np.int64)
    schedule = of(pauses)
    made = zip(
        schedule.start_ns(attempts).tolist(), schedule.end_ns(attempts).tolist(), strict=True
    )
    assert list(made) == clocked(pauses, len(attempts))


@pytest.mark.parametrize("pauses", PAUSES)
def test_rates_and_duty_are_those_of_a_long_run(pauses: Pauses) -> None:
    schedule = of(pauses)
    last = np.array([10_000_000 * schedule.attempts_per_turn - 1], dtype=np.int64)
    attempts = float(last[0] + 1)
    turns_ns = float(schedule.active_ns(last)[0]) + schedule.turn_ns - pauses.period_ns
    if schedule.attempts_per_turn == 1:
        assert schedule.attempts_per_s == pytest.approx(1e9 / schedule.turn_ns, rel=1e-12)
    assert 1e9 * attempts / turns_ns == pytest.approx(schedule.attempts_per_s, rel=1e-5)
    share = schedule.active_ns(last)[0] / schedule.end_ns(last)[0]
    assert share == pytest.approx(schedule.duty, rel=1e-5)


def test_a_million_attempts_a_second_with_cooling() -> None:
    schedule = of(Pauses(1000, on_ns=500_000, cooling_ns=300_000))
    assert schedule.attempts_per_s == pytest.approx(1e6 * 5 / 8, rel=1e-12)
    assert schedule.duty == 1.0


def test_attempts_of_any_shape_have_times() -> None:
    schedule = of(PAUSES[8])
    attempts = np.arange(12, dtype=np.int64).reshape(3, 4)
    assert schedule.end_ns(attempts).shape == (3, 4)
    assert schedule.end_ns(attempts)[1, 2] == schedule.end_ns(attempts.ravel())[6]
    assert schedule.end_ns(attempts[:0]).shape == (0, 4)


def test_no_time_is_silently_negative() -> None:
    year_ns = 31_557_600 * 10**9
    schedule = Schedule(1_000_000, calibration_every_ns=10**9, calibration_ns=10**9)
    longest = np.array([146 * year_ns // 1_000_000], dtype=np.int64)
    assert 0 < schedule.end_ns(longest)[0] < 2**63
    for refused in (schedule.end_ns, schedule.start_ns):
        with pytest.raises(ConfigError, match="292 years"):
            refused(longest * 2)
    with pytest.raises(ConfigError, match="292 years"):
        Schedule(10**12).active_ns(np.array([2**62], dtype=np.int64))


# Reloads


LOSSES = ((30e6, 9e6), (70e6, 2e6))


def test_reloads_have_the_law_of_loss_after_loss() -> None:
    active_ns, seeds = 100e6, 4000
    schedule = Schedule(1000, losses=LOSSES)
    ours = [schedule.reload_ns(np.random.default_rng(s), int(active_ns)) for s in range(seeds)]
    chance = Random(1)
    theirs = [round(reloaded(chance, LOSSES, active_ns)) for _ in range(seeds)]
    values = sorted(set(ours) | set(theirs))
    table = np.array([[sample.count(value) for value in values] for sample in (ours, theirs)])
    often = table.sum(axis=0) >= 20
    table = np.hstack((table[:, often], table[:, ~often].sum(axis=1, keepdims=True)))
    assert stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue > 1e-8


def test_duty_counts_reloads_and_calibrations() -> None:
    schedule = Schedule(
        1000, calibration_every_ns=10_000_000, calibration_ns=400_000, losses=LOSSES
    )
    active_ns = 10**15
    reloads = schedule.reload_ns(np.random.default_rng(2), active_ns)
    calibrations = active_ns * 400_000 // 10_000_000
    share = active_ns / (active_ns + reloads + calibrations)
    assert schedule.duty == pytest.approx(share, rel=1e-3)
    assert schedule.duty == pytest.approx(1 / (1 + 0.04 + 9 / 30 + 2 / 70), rel=1e-12)


def test_no_reload_without_losses() -> None:
    assert Schedule(1000).reload_ns(np.random.default_rng(1), 10**18) == 0
    assert Schedule(1000).duty == 1.0


# From a preset's parts


def test_the_period_waits_for_the_longer_arm_and_the_slower_device() -> None:
    parts = link().fibre_a(length_m=5000).fibre_b(length_m=20_000)
    parts = parts.device_a(preparation_ns=3000).device_b(preparation_ns=800)
    assert Schedule.of(parts).period_ns == round(3000 + 2 * 20_000 / 0.2041)


@pytest.mark.parametrize("scheme", ["single-photon", "two-photon", "direct", "repeater-node"])
def test_heralds_and_announcements_travel_at_the_speed_of_light(scheme: Scheme) -> None:
    parts = link(scheme).fibre_a(length_m=1000).fibre_b(length_m=3000)
    there_and_back = {
        Side.A: 2000 / LIGHT_IN_FIBRE_M_PER_NS,
        Side.B: 6000 / LIGHT_IN_FIBRE_M_PER_NS,
    }
    if scheme == "direct":
        there_and_back[Side.B] = 0.0
    for side in Side:
        assert herald_wait_ns(parts, side) == pytest.approx(there_and_back[side], rel=1e-12)
    assert announcement_ns(parts) == pytest.approx(4000 / LIGHT_IN_FIBRE_M_PER_NS, rel=1e-12)


def test_only_side_a_counts_if_its_photons_are_sent_to_side_b() -> None:
    parts = link("direct").fibre_a(length_m=1000).fibre_b(length_m=50_000)
    parts = parts.device_b(preparation_ns=1e9, loss_every_ns=1e9, reload_ns=1e9, bins=1)
    schedule = Schedule.of(parts.device_a(bins=5, bin_spacing_ns=10))
    assert schedule.period_ns == round(1000 + 50 + 2 * 1000 / 0.2041)
    assert schedule.modes == 5 and schedule.losses == ()


def test_unequal_nodes_run_in_step() -> None:
    parts = (
        link()
        .device_a(bins=8, bin_spacing_ns=13, attempts_on_ns=50_000, cooling_ns=9000)
        .device_b(bins=5, bin_spacing_ns=20, attempts_on_ns=40_000, cooling_ns=2000)
        .device_a(calibration_every_ns=1e9, calibration_ns=1e6, loss_every_ns=2e9, reload_ns=1e7)
        .device_b(calibration_every_ns=3e9, calibration_ns=5e6, loss_every_ns=8e9, reload_ns=4e7)
    )
    assert Schedule.of(parts) == Schedule(
        period_ns=1000 + 5 * 20,
        modes=5,
        mode_offsets_ns=(1000.0, 1020.0, 1040.0, 1060.0, 1080.0),
        attempts_on_ns=40_000,
        cooling_ns=9000,
        calibration_every_ns=10**9,
        calibration_ns=5_000_000,
        losses=((2e9, 1e7), (8e9, 4e7)),
    )


def test_one_node_that_pauses_stops_both() -> None:
    one = link().device_b(attempts_on_ns=9000, cooling_ns=1000, preparation_ns=2000)
    one = one.device_b(calibration_every_ns=1e9, calibration_ns=1e6)
    schedule = Schedule.of(one)
    assert (schedule.attempts_on_ns, schedule.cooling_ns, schedule.period_ns) == (9000, 1000, 2000)
    assert schedule.duty == pytest.approx(1 / 1.001)
    assert Schedule.of(link()) == Schedule(1000, mode_offsets_ns=(1000.0,))


def test_pauses_that_take_no_time_are_none() -> None:
    parts = link().devices(attempts_on_ns=1500, calibration_every_ns=1000, loss_every_ns=1000)
    assert Schedule.of(parts) == Schedule(1000, mode_offsets_ns=(1000.0,))


def cui(bins: int, ions: int, length_m: float) -> LinkParts:
    """A multiplexed node as in Cui et al., arXiv 2503.13898, 200 ns bins and 25 us shuttles."""
    return (
        link("direct")
        .fibre_a(length_m=length_m)
        .device_a(preparation_ns=1180, bins=bins, ions=ions, bin_spacing_ns=200, shuttle_ns=25_000)
    )


def test_modes_share_the_lights_way() -> None:
    """T_eff = (2 L/c + overhead)/N + dt, and N modes gain T_0/T_eff while success is rare."""
    flight_ns, overhead_ns, spacing_ns, modes = 2 * 1000 / 0.2041, 1180, 200, 12
    many, one = Schedule.of(cui(modes, 1, 1000)), Schedule.of(cui(1, 1, 1000))
    effective_ns = (flight_ns + overhead_ns) / modes + spacing_ns
    assert many.period_ns / many.modes == pytest.approx(effective_ns, abs=0.5 / modes)
    alone_ns = flight_ns + overhead_ns + spacing_ns
    assert one.period_ns == pytest.approx(alone_ns, abs=0.5)
    p = 1e-8
    rates = [s.attempts_per_s * Multiplexed(p, s.modes).success_probability for s in (many, one)]
    assert rates[0] / rates[1] == pytest.approx(alone_ns / effective_ns, rel=1e-4)


def test_ions_are_shuttled_between_their_bins() -> None:
    """Four ions of eleven bins, 0.8 us of preparation each: a block of 87 us, as published."""
    schedule = Schedule.of(cui(11, 4, 12_000).device_a(ion_preparation_ns=800))
    assert schedule.period_ns == round(1180 + 87_000 + 2 * 12_000 / 0.2041)
    offsets = np.array(schedule.mode_offsets_ns)
    assert schedule.modes == len(offsets) == 44
    assert offsets[0] == 1180 + 800
    steps = np.diff(offsets)
    assert set(steps[np.arange(43) % 11 != 10]) == {200.0}
    assert set(steps[10::11]) == {200.0 + 25_000 + 800}
    assert offsets[-1] + 200 == 1180 + 87_000
