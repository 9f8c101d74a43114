"""A calcium node and a rubidium node on unequal fibres, from a topology file to counted outcomes,
against photon numbers in modes, added up here from the figures alone."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.nature import Link, Nature
from bellhop.hal.emulator.topology import parse_topology
from bellhop.hal.experiment import Experiment
from bellhop.hal.operations import (
    Attempt,
    BellState,
    Heralded,
    Measure,
    Measured,
    Operation,
    RequestId,
    Side,
)

State = NDArray[np.complex128]

PRESET = """
name = "unequal"
title = "Calcium in town, rubidium in the next one"
device.a = { preset = "liu-10km", bright_probability = 0.06 }
device.b = { preset = "lu-11km", side = "a", bright_probability = 0.03 }
fibre.a = { preset = "liu-10km", length_m = 3_000 }
[fibre.b]
preset = "lu-11km"
wavelength_nm = 1550
length_m = 17_000
noise_hz = 300
transmission = 0.4
[station]
preset = "liu-10km"
hom_visibility = 0.85
"""
TOPOLOGY = """
[emulator]
listen = "127.0.0.1:0"
clock = "fast"
tls = { certificate = "e.crt", key = "e.key", authority = "ca.crt" }
[[link]]
name = "between-towns"
a = "alice"
b = "bob"
preset_file = "unequal.toml"
set = { "device.b.memory.coherence_ns" = 5e5, "device.b.memory.decay_ns" = 2e6 }
"""
SPEED_M_PER_NS = 0.2041


@pytest.fixture
def link(tmp_path: Path) -> Link:
    (tmp_path / "unequal.toml").write_text(PRESET, encoding="utf-8")
    (link,) = parse_topology(TOPOLOGY, tmp_path / "network.toml").links
    return link


# From the figures alone


def arm_efficiency(link: Link, side: Side) -> float:
    device = link.preset.device.a if side is Side.A else link.preset.device.b
    return device.collection_efficiency.value * link_efficiency(link, side, converting=True)


def link_efficiency(link: Link, side: Side, converting: bool) -> float:
    fibre = link.preset.fibre.a if side is Side.A else link.preset.fibre.b
    lost_db = fibre.attenuation_db_per_km.value * fibre.length_m.value / 1_000
    into = fibre.conversion_efficiency.value if converting else 1.0
    detected = link.preset.station.detector_efficiency.value
    return float(into * fibre.transmission.value * 10 ** (-lost_db / 10) * detected)


def dark_click(link: Link, detectors: int) -> float:
    station = link.preset.station
    noise_hz = sum(
        fibre.noise_hz.value * link_efficiency(link, side, converting=False)
        for side, fibre in ((Side.A, link.preset.fibre.a), (Side.B, link.preset.fibre.b))
    )
    rate_hz = station.detector_dark_hz.value + noise_hz / detectors
    return 1.0 - math.exp(-rate_hz * station.window_ns.value * 1e-9)


# Light as photon numbers of modes, two photons at most

CREATE = np.diag(np.sqrt([1.0, 2.0]), -1).astype(np.complex128)
MODES = 4
"""Either port of the beam splitter, and in it the shape of A's photon and what is unlike it."""


def creation(amplitudes: list[complex]) -> State:
    total = np.zeros((3**MODES, 3**MODES), dtype=np.complex128)
    for mode, amplitude in enumerate(amplitudes):
        operator: State = np.eye(1, dtype=np.complex128)
        for other in range(MODES):
            factor = CREATE if other == mode else np.eye(3)
            operator = np.asarray(np.kron(operator, factor), dtype=np.complex128)
        total += amplitude * operator
    return total


def numbers_in(port: int) -> NDArray[np.int64]:
    counts = np.array(list(itertools.product(range(3), repeat=MODES)))
    return np.asarray(counts[:, 2 * port] + counts[:, 2 * port + 1], dtype=np.int64)


def single_photon_pairs(link: Link) -> dict[BellState, State]:
    """Not normalised: its trace is how often one detector and not the other clicks."""
    station = link.preset.station
    alike = math.sqrt(station.hom_visibility.value)
    split = math.sqrt(0.5)
    pairs: dict[BellState, State] = {}
    dark = dark_click(link, 2)
    clicks = {}
    for port in (0, 1):
        clicks[port] = 1.0 - (1.0 - dark) * (numbers_in(port) == 0)
    phase_error = math.acos(station.phase_visibility.value)
    for port, announced in ((0, BellState.PSI_PLUS), (1, BellState.PSI_MINUS)):
        pair = np.zeros((4, 4), dtype=np.complex128)
        # The phase is off one way or the other, half of the time each.
        for phase in (phase_error, -phase_error):
            turned = np.exp(1j * phase)
            from_a = creation([split, 0, split, 0])
            from_b = creation(
                [
                    turned * split * alike,
                    turned * split * math.sqrt(1 - alike**2),
                    -turned * split * alike,
                    -turned * split * math.sqrt(1 - alike**2),
                ]
            )
            herald = clicks[port] * (1.0 - clicks[1 - port])
            pair += 0.5 * after_herald(link, from_a, from_b, herald)
        pairs[announced] = pair
    return pairs


def after_herald(link: Link, from_a: State, from_b: State, herald: NDArray[np.float64]) -> State:
    vacuum = np.zeros(3**MODES, dtype=np.complex128)
    vacuum[0] = 1.0
    ends = []
    for side, operator in ((Side.A, from_a), (Side.B, from_b)):
        device = link.preset.device.a if side is Side.A else link.preset.device.b
        alpha, eta = device.bright_probability.value, arm_efficiency(link, side)
        stay = (0, math.sqrt(1 - alpha), None)
        arrive = (1, math.sqrt(alpha * eta), operator)
        lost = (1, math.sqrt(alpha * (1 - eta)), None)
        # What the environment keeps of a lost photon tells that history from the others.
        ends.append(((stay, arrive), (lost,)))
    pair = np.zeros((4, 4), dtype=np.complex128)
    for histories_a, histories_b in itertools.product(*ends):
        joint = np.zeros((4, 3**MODES), dtype=np.complex128)
        for (a, weight_a, make_a), (b, weight_b, make_b) in itertools.product(
            histories_a, histories_b
        ):
            light = vacuum if make_b is None else make_b @ vacuum
            light = light if make_a is None else make_a @ light
            joint[2 * a + b] += weight_a * weight_b * light
        pair += (joint * herald) @ joint.conj().T
    return pair


ONE: State = np.eye(2, dtype=np.complex128)
X: State = np.array([[0, 1], [1, 0]], dtype=np.complex128)
Y: State = np.array([[0, -1j], [1j, 0]], dtype=np.complex128)
Z: State = np.array([[1, 0], [0, -1]], dtype=np.complex128)


def on(side: Side, operator: State) -> State:
    product = np.kron(operator, ONE) if side is Side.A else np.kron(ONE, operator)
    return np.asarray(product, dtype=np.complex128)


def through(pair: State, side: Side, operators: list[State]) -> State:
    terms = [on(side, kraus) @ pair @ on(side, kraus).conj().T for kraus in operators]
    return np.asarray(np.sum(terms, axis=0), dtype=np.complex128)


def emitted(link: Link, pair: State) -> State:
    for side in Side:
        device = link.preset.device.a if side is Side.A else link.preset.device.b
        flip = device.emission_dephasing.value
        pair = through(pair, side, [math.sqrt(1 - flip) * ONE, math.sqrt(flip) * Z])
        mixed = device.emission_depolarising.value / 4
        paulis = [math.sqrt(mixed) * pauli for pauli in (X, Y, Z)]
        pair = through(pair, side, [math.sqrt(1 - 3 * mixed) * ONE, *paulis])
    return pair


def ages_ns(link: Link) -> tuple[float, float]:
    """From what happens when: both photons meet at time 0, side A hears of it and announces which
    rounds are tests, side B hears that."""
    flight_a = link.preset.fibre.a.length_m.value / SPEED_M_PER_NS
    flight_b = link.preset.fibre.b.length_m.value / SPEED_M_PER_NS
    emitted_a, emitted_b = 0.0 - flight_a, 0.0 - flight_b
    known_at_a = 0.0 + flight_a
    announcement_at_station = known_at_a + flight_a
    announcement_at_b = announcement_at_station + flight_b
    return known_at_a - emitted_a, announcement_at_b - emitted_b


def aged(link: Link, pair: State) -> State:
    for side, age_ns in zip(Side, ages_ns(link), strict=True):
        device = link.preset.device.a if side is Side.A else link.preset.device.b
        memory = device.memory
        flip = (1 - math.exp(-age_ns / memory.coherence_ns.value)) / 2
        pair = through(pair, side, [math.sqrt(1 - flip) * ONE, math.sqrt(flip) * Z])
        if memory.pulse_interval_ns is not None:
            assert age_ns < memory.pulse_interval_ns.value, "no pulse has come yet"
        if memory.decay_ns is not None:
            left = math.exp(-age_ns / (2 * memory.decay_ns.value))
            pair = through(pair, side, [np.diag([1.0, left]).astype(np.complex128)])
    return pair


def outcome_table(link: Link, pair: State, x: int, y: int) -> NDArray[np.float64]:
    """P(a, b) of what both ends answer; the rest was lost."""
    settings = link.preset.settings
    degrees = settings.angles_a.value[x], settings.angles_b.value[y]
    table = np.zeros((2, 2))
    for a, b in itertools.product((0, 1), repeat=2):
        effect = np.eye(4, dtype=np.complex128)
        for side, angle, outcome in zip(Side, degrees, (a, b), strict=True):
            device = link.preset.device.a if side is Side.A else link.preset.device.b
            contrast = (1 - 2 * device.readout_error.value) * (-1) ** outcome
            t = math.radians(angle)
            spin = math.cos(t) * Z + math.sin(t) * X
            effect = effect @ on(side, (ONE + contrast * spin) / 2)
        table[a, b] = np.trace(effect @ pair).real
    return table


# Compared


def test_each_herald_leaves_the_pair_that_photon_numbers_give(link: Link) -> None:
    experiment = Experiment(link.preset)
    expected = single_photon_pairs(link)
    assert {herald.announces for herald in experiment.heralds} == set(expected)
    for herald in experiment.heralds:
        pair = emitted(link, expected[herald.announces])
        probability = float(np.trace(pair).real)
        assert herald.probability == pytest.approx(probability, rel=1e-9)
        np.testing.assert_allclose(herald.state, pair / probability, atol=1e-12)


def test_the_slower_node_and_the_longer_arm_set_the_pace(link: Link) -> None:
    experiment = Experiment(link.preset)
    a, b = link.preset.device.a, link.preset.device.b
    assert a.preparation_ns.value != b.preparation_ns.value
    slower = max(a.preparation_ns.value, b.preparation_ns.value)
    period_ns = slower + 2 * 17_000 / SPEED_M_PER_NS
    success = sum(np.trace(pair).real for pair in single_photon_pairs(link).values())
    assert experiment.success_probability == pytest.approx(success, rel=1e-9)
    assert experiment.pairs_per_s == pytest.approx(success * 1e9 / period_ns, rel=1e-6)
    # Only the rubidium node pauses to calibrate.
    assert b.calibration_every_ns is not None
    share = b.calibration_ns.value / b.calibration_every_ns.value
    with_pauses = experiment.pairs_per_s / (1 + share)
    assert experiment.pairs_per_s_with_pauses == pytest.approx(with_pauses)


def test_probabilities_at_either_end_are_those_of_kraus_operators(link: Link) -> None:
    experiment = Experiment(link.preset)
    table = experiment.probabilities()
    pairs = single_photon_pairs(link)
    for index, announced in enumerate(experiment.announced):
        pair = emitted(link, pairs[BellState(announced)])
        pair = aged(link, pair / np.trace(pair).real)
        for x, y in itertools.product(range(2), range(3)):
            expected = outcome_table(link, pair, x, y)
            assert expected.sum() < 0.98, "some halves decay"
            np.testing.assert_allclose(table[index, x, y, :2, :2], expected, atol=1e-12)


def test_counted_outcomes_are_those_of_photon_numbers(link: Link) -> None:
    rounds, request = 60_000, RequestId("0" * 32)
    nature = Nature((link,), np.random.default_rng(1), Clock(fast=True))
    chance = np.random.default_rng(2)

    def ordered(node_side: Side, operation: Operation) -> object:
        deliveries = nature.step(0, link.node(node_side), operation)
        return deliveries[-1].report if deliveries else None

    ordered(Side.A, Attempt(link.name, request, 0, rounds))
    heralded = ordered(Side.B, Attempt(link.name, request, 0, rounds))
    assert isinstance(heralded, Heralded)
    x, y = (chance.integers(0, top, rounds, dtype=np.uint8) for top in (2, 3))
    told = {
        side: ordered(side, Measure(link.name, request, 0, settings))
        for side, settings in ((Side.A, x), (Side.B, y))
    }
    a, b = told[Side.A], told[Side.B]
    assert isinstance(a, Measured) and isinstance(b, Measured)
    # Calcium does not decay here, rubidium does.
    assert a.answered.all() and not b.answered.all()
    success = sum(np.trace(pair).real for pair in single_photon_pairs(link).values())
    per_attempt = rounds / (int(heralded.attempts[-1]) + 1)
    assert per_attempt == pytest.approx(success, rel=5 / math.sqrt(rounds))
    for announced, raw in single_photon_pairs(link).items():
        pair = emitted(link, raw)
        pair = aged(link, pair / np.trace(pair).real)
        for x_setting, y_setting in itertools.product(range(2), range(3)):
            among = (heralded.patterns == announced) & (x == x_setting) & (y == y_setting)
            number = np.count_nonzero(among)
            expected = outcome_table(link, pair, x_setting, y_setting)
            for outcome_a, outcome_b in itertools.product((0, 1), repeat=2):
                p = expected[outcome_a, outcome_b]
                found = np.mean(
                    (a.outcomes[among] == outcome_a)
                    & (b.outcomes[among] == outcome_b)
                    & b.answered[among]
                )
                assert found == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / number))
