"""Fibre that drifts: laws of the walks, closed forms of what they cost, and blocks that join."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, special, stats
from tests.support.link_parts import link

from bellhop.hal.drift import Drift, Drifted, Swing, Walk, Wander, mean_cosine
from bellhop.hal.sections import Scheme

MS = 1_000_000
SCHEMES: tuple[Scheme, ...] = ("single-photon", "two-photon", "direct", "repeater-node")


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def rising(count: int, until_ns: int, seed: int = 9) -> NDArray[np.int64]:
    return np.sort(rng(seed).integers(0, until_ns, count))


def angles(drift: Drift, times_ns: NDArray[np.int64], seed: int = 1) -> NDArray[np.float64]:
    phase = drift.draw(rng(seed), times_ns)[0].phase
    assert phase is not None
    return phase


# Walks


def test_an_angle_gathers_variance_with_time() -> None:
    """E[x(s) x(t)] = D min(s, t), over many seeds."""
    times = np.array([10, 10, 40, 45, 400]) * MS
    drift = Drift(phase=(Walk(30.0, None),))
    generator = rng()
    runs = np.array([drift.draw(generator, times)[0].phase for _ in range(20_000)])
    expected = 30.0 * np.minimum.outer(times, times) * 1e-9
    found = runs.T @ runs / len(runs)
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / len(runs))
    assert (np.abs(found - expected) < 6 * error).all()
    assert (runs[:, 0] == runs[:, 1]).all(), "no time, no drift"


@pytest.mark.parametrize("every", [None, 50 * MS])
def test_steps_are_independent_and_normal(every: int | None) -> None:
    times = rising(200_000, 10**12)
    found = angles(Drift(phase=(Walk(7.0, every),)), times)
    before, since = np.concatenate([[0.0], found[:-1]]), np.diff(times, prepend=0)
    if every is not None:
        anew = times // every != np.concatenate([[0], times[:-1]]) // every
        before[anew], since[anew] = 0.0, times[anew] % every
    normal = ((found - before) / np.sqrt(7e-9 * since))[since > 0]
    bins = stats.norm.cdf(normal) * 50
    assert stats.chisquare(np.bincount(bins.astype(int), minlength=50)).pvalue > 1e-8
    assert abs(np.corrcoef(normal[1:], normal[:-1])[0, 1]) < 6 / np.sqrt(len(normal))


def test_stabilisation_sets_the_angle_to_zero() -> None:
    every = 20 * MS
    times = np.array([19, 20, 39, 40, 60, 65]) * MS
    generator = rng()
    drift = Drift(phase=(Walk(1000.0, every),))
    runs = np.array([drift.draw(generator, times)[0].phase for _ in range(5000)])
    assert (runs[:, [1, 3, 4]] == 0.0).all()
    spread = np.sqrt(2 / 5000)
    for column, elapsed in ((0, 19), (2, 19), (5, 5)):
        assert runs[:, column].var() == pytest.approx(elapsed, rel=6 * spread)
    assert abs(np.corrcoef(runs[:, 0], runs[:, 2])[0, 1]) < 6 / np.sqrt(5000)


@pytest.mark.parametrize("diffusion", [0.5, 40.0, 3000.0])
def test_the_mean_coherence_between_stabilisations(diffusion: float) -> None:
    every = 10 * MS
    times = rising(200_000, 200_000 * every)
    cosines = np.cos(angles(Drift(phase=(Walk(diffusion, every),)), times))
    expected = mean_cosine(diffusion, every)
    assert cosines.mean() == pytest.approx(expected, abs=6 * cosines.std() / np.sqrt(len(times)))
    x = diffusion * 0.01 / 2
    assert expected == pytest.approx((1 - np.exp(-x)) / x, rel=1e-12)


def test_no_drift_keeps_the_coherence() -> None:
    assert mean_cosine(0.0, 1e9) == 1.0
    assert mean_cosine(1e-12, 1e3) == pytest.approx(1.0)


def test_a_phase_is_the_sum_of_both_arms() -> None:
    every = 10 * MS
    parts = link().fibres(phase_stabilised_every_ns=every)
    parts = parts.fibre_a(phase_diffusion_rad2_per_s=30.0).fibre_b(phase_diffusion_rad2_per_s=90.0)
    times = rising(200_000, 200_000 * every)
    cosines = np.cos(angles(Drift.of(parts), times))
    error = 6 * cosines.std() / np.sqrt(len(times))
    assert cosines.mean() == pytest.approx(mean_cosine(120.0, every), abs=error)


# Blocks


@pytest.mark.parametrize("every", [None, 3 * MS, 400 * MS])
def test_one_block_or_many_is_the_same_walk(every: int | None) -> None:
    """A walk takes one normal number a herald, so the same seed must give the same angles."""
    times = rising(1000, 10**10)
    drift = Drift(phase=(Walk(5.0, every),))
    whole, end = drift.draw(rng(), times)
    assert whole.phase is not None
    for cuts in ([0, 1000], [0, 1, 2, 500, 500, 999, 1000], range(0, 1001, 10)):
        generator, drifted, parts = rng(), None, []
        for begin, stop in pairwise(cuts):
            wander, drifted = drift.draw(generator, times[begin:stop], drifted)
            assert wander.phase is not None
            parts.append(wander.phase)
        assert np.allclose(np.concatenate(parts), whole.phase, rtol=0, atol=1e-12)
        assert drifted is not None and drifted.time_ns == end.time_ns
        assert drifted.angles == pytest.approx(end.angles, abs=1e-12)


def test_all_walks_go_on_over_a_blocks_end() -> None:
    """Each arm's angle differs from where it stood by what the time in between allows."""
    parts = link("two-photon").fibres(polarisation_diffusion_rad2_per_s=2.0)
    drift = Drift.of(parts)
    differences = []
    generator = rng()
    for _ in range(5000):
        before, drifted = drift.draw(generator, np.array([10**9, 2 * 10**9]))
        after, _ = drift.draw(generator, np.array([2 * 10**9 + MS]), drifted)
        tilts = [(before.tilt_a, after.tilt_a), (before.tilt_b, after.tilt_b)]
        differences.append([b[0] - a[-1] for a, b in tilts if a is not None and b is not None])
    variances = np.var(differences, axis=0)
    assert variances == pytest.approx([2e-3, 2e-3], rel=6 * np.sqrt(2 / 5000))


def test_a_state_from_before_a_stabilisation_is_forgotten() -> None:
    drift = Drift(phase=(Walk(1.0, 10 * MS),))
    wander, _ = drift.draw(rng(), np.array([10 * MS, 11 * MS]), Drifted(9 * MS, (100.0,)))
    assert wander.phase is not None
    assert wander.phase[0] == 0.0 and abs(wander.phase[1]) < 1.0
    wander, _ = drift.draw(rng(), np.array([9 * MS + 1]), Drifted(9 * MS, (100.0,)))
    assert wander.phase is not None and wander.phase[0] == pytest.approx(100.0, abs=1e-3)


def test_a_block_without_heralds_leaves_all_as_it_is() -> None:
    parts = link("single-photon", 1000).fibres(phase_diffusion_rad2_per_s=1.0)
    drift = Drift.of(parts.fibre_a(temperature_amplitude_k=1.0))
    _, drifted = drift.draw(rng(), np.array([5 * MS]))
    wander, after = drift.draw(rng(), np.empty(0, dtype=np.int64), drifted)
    assert after == drifted
    assert wander.phase is not None and len(wander.phase) == 0
    assert wander.overlap is not None and len(wander.overlap) == 0


# Polarisation


def test_two_polarisations_overlap_by_the_angle_between_them() -> None:
    every = 10 * MS
    parts = link().fibres(polarisation_stabilised_every_ns=every)
    parts = parts.fibre_a(polarisation_diffusion_rad2_per_s=20.0)
    parts = parts.fibre_b(polarisation_diffusion_rad2_per_s=70.0)
    times = rising(200_000, 200_000 * every)
    overlap = Drift.of(parts).draw(rng(), times)[0].overlap
    assert overlap is not None
    error = 6 * overlap.std() / np.sqrt(len(times))
    assert overlap.mean() == pytest.approx(mean_cosine(90.0, every), abs=error)


def test_polarisations_and_delays_overlap_both() -> None:
    """The same seed with and without a swing: the overlaps multiply."""
    plain = link("single-photon", 20_000).fibres(polarisation_diffusion_rad2_per_s=1.0)
    times = rising(50, 10**9)
    warm = plain.fibre_a(temperature_amplitude_k=8.0, temperature_period_ns=1e9)
    swings = link("single-photon", 20_000).fibre_a(
        temperature_amplitude_k=8.0, temperature_period_ns=1e9
    )
    both, turned, late = (
        Drift.of(parts).draw(rng(), times)[0].overlap for parts in (warm, plain, swings)
    )
    assert both is not None and turned is not None and late is not None
    assert late.min() < 0.9 and np.allclose(both, turned * late, rtol=0, atol=1e-14)


# Temperature


def test_a_delay_follows_the_temperature_since_it_was_set_right() -> None:
    day, every = 86_400 * 10**9, 3_600 * 10**9
    times = rising(500, 400 * day)
    for stabilised in (every, None):
        found = Swing(2.5, day, stabilised).delay_ns(times)
        for time, delay in zip(times.tolist(), found.tolist(), strict=True):
            right = time // stabilised * stabilised if stabilised else 0
            now, then = (2.5 * np.sin(2 * np.pi * (t % day) / day) for t in (time, right))
            assert delay == pytest.approx(now - then, abs=1e-9)


def wave_overlap(delay_ns: float, width_a_ns: float, width_b_ns: float) -> float:
    """Of two Gaussian amplitudes, by integration, relative to no delay."""

    def product(t: float, delay: float) -> float:
        a = np.exp(-4 * np.log(2) * t**2 / width_a_ns**2)  # half of it at half the width
        b = np.exp(-4 * np.log(2) * (t - delay) ** 2 / width_b_ns**2)
        return float(np.sqrt(a * b))

    late, prompt = (
        integrate.quad(product, -200, 200, args=(delay,), points=[0, delay])[0]
        for delay in (delay_ns, 0.0)
    )
    return float(late / prompt)


@pytest.mark.parametrize(("width_a", "width_b"), [(20.0, 20.0), (8.0, 30.0)])
def test_wave_packets_overlap_as_integrated(width_a: float, width_b: float) -> None:
    """20 km at 37 ps/(km K) and 10 K: 7.4 ns, at the quarter of the swing's period."""
    found = {}
    for scheme in ("single-photon", "two-photon"):
        parts = link(scheme, 20_000).device_a(photon_ns=width_a).device_b(photon_ns=width_b)
        parts = parts.fibre_b(temperature_amplitude_k=10.0, temperature_period_ns=4e9)
        overlap = Drift.of(parts).draw(rng(), np.array([10**9]))[0].overlap
        assert overlap is not None
        found[scheme] = float(overlap[0])
    expected = wave_overlap(7.4, width_a, width_b)
    assert expected < 0.95
    assert found["single-photon"] == pytest.approx(expected, rel=1e-8)
    # The visibility of two photons' interference is the amplitudes' overlap squared.
    assert found["two-photon"] == pytest.approx(expected**2, rel=1e-8)


def test_the_mean_overlap_of_a_swing() -> None:
    """The mean of exp(-c sin^2) is exp(-c/2) I_0(c/2)."""
    parts = link("single-photon", 20_000).devices(photon_ns=12.0)
    parts = parts.fibre_a(temperature_amplitude_k=10.0, temperature_period_ns=1e9)
    times = np.arange(1_000_000, dtype=np.int64) * 1000
    overlap = Drift.of(parts).draw(rng(), times)[0].overlap
    assert overlap is not None
    c = np.log(2) * (7.4 / 12.0) ** 2
    assert overlap.mean() == pytest.approx(special.ive(0, c / 2), rel=1e-9)


def test_equal_arms_in_one_weather_cancel() -> None:
    parts = link("single-photon", 20_000).fibres(temperature_amplitude_k=10.0)
    overlap = Drift.of(parts).draw(rng(), rising(100, 10**14))[0].overlap
    assert overlap is not None and (overlap == 1.0).all()


# What a scheme feels


def test_fibres_do_not_drift_by_default() -> None:
    for scheme in SCHEMES:
        drift = Drift.of(link(scheme, 50_000))
        assert drift.off
        wander, _ = drift.draw(rng(), rising(10, 10**9))
        assert all(getattr(wander, name) is None for name in Wander.__slots__)


@pytest.mark.parametrize(
    ("scheme", "felt"),
    [
        ("single-photon", {"phase", "overlap"}),
        ("two-photon", {"overlap", "tilt_a", "tilt_b"}),
        ("direct", {"tilt_a"}),
        ("repeater-node", {"tilt_a", "tilt_b"}),
    ],
)
def test_a_scheme_feels_what_its_photons_carry(scheme: Scheme, felt: set[str]) -> None:
    parts = link(scheme, 1000).fibres(
        phase_diffusion_rad2_per_s=1.0,
        polarisation_diffusion_rad2_per_s=1.0,
        temperature_amplitude_k=1.0,
    )
    drift = Drift.of(parts)
    assert not drift.off
    wander, _ = drift.draw(rng(), rising(10, 10**9))
    assert {name for name in Wander.__slots__ if getattr(wander, name) is not None} == felt


def test_the_figures_of_a_fibre_reach_its_walks() -> None:
    parts = link("single-photon", 3000).fibre_a(
        phase_diffusion_rad2_per_s=3.0,
        phase_stabilised_every_ns=1000,
        polarisation_diffusion_rad2_per_s=4.0,
        polarisation_stabilised_every_ns=2000,
        temperature_amplitude_k=5.0,
        temperature_period_ns=7e9,
        delay_ps_per_km_k=40.0,
        delay_stabilised_every_ns=3000,
    )
    drift = Drift.of(parts)
    assert drift.phase == (Walk(3.0, 1000),)
    assert drift.polarisation == (Walk(4.0, 2000), None)
    swing, none = drift.swings
    assert swing is not None and none is None
    assert swing.amplitude_ns == pytest.approx(3 * 40e-3 * 5)
    assert (swing.period_ns, swing.stabilised_every_ns) == (7 * 10**9, 3000)
