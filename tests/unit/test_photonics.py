"""Heralded pairs against the state of both ions and of all the light."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from tests.support import photonics_twin as twin
from tests.support.photonics_twin import Clicks, Complex, Node

from bellhop.hal import photonics, states
from bellhop.hal.figures import assumed
from bellhop.hal.operations import BellState, Side
from bellhop.hal.photonics import Arm, Detection, Herald
from bellhop.hal.sections import Device, Fibre, Qubit, Scheme, Station
from bellhop.hal.statistics import framed

EXACT = 1e-12
PORT_PLUS, PORT_MINUS = frozenset({0}), frozenset({1})
SAME_PORT = (frozenset({0, 1}), frozenset({2, 3}))
DIFFERENT_PORTS = (frozenset({0, 3}), frozenset({1, 2}))
LARGE = Arm(0.9, 0.9, 0.05, 0.1), Arm(0.6, 0.7, 0.02, 0.2)


def arms(seed: int) -> tuple[Arm, Arm, Detection]:
    """Two unequal nodes and a station, anywhere in what is allowed."""
    draw = np.random.default_rng(seed).random(11)
    noise = draw[4:8] * 0.4
    return (
        Arm(float(draw[0]), 0.01 + 0.89 * float(draw[1]), float(noise[0]), float(noise[1])),
        Arm(float(draw[2]), 0.01 + 0.89 * float(draw[3]), float(noise[2]), float(noise[3])),
        Detection(0.1 * float(draw[8]), float(draw[9]), float(draw[10])),
    )


def grid() -> Iterator[tuple[Arm, Arm, Detection]]:
    for eta_a, eta_b, alpha, dark in product((1e-4, 1.0), (0.03, 0.8), (0.01, 0.9), (0.0, 0.1)):
        for phase, hom in ((1.0, 1.0), (0.9, 0.0)):
            yield Arm(eta_a, alpha), Arm(eta_b, 0.3), Detection(dark, phase, hom)
    yield Arm(0.0, 0.5), Arm(0.4, 0.5), Detection(0.01)
    yield Arm(0.0, 0.0), Arm(0.0, 1.0), Detection(1e-6)
    yield *LARGE, Detection(0.1, 0.0, 0.3)


CASES = [*grid(), *(arms(seed) for seed in range(24))]


def node(arm: Arm) -> Node:
    return Node(
        arm.efficiency, arm.bright_probability, arm.emission_dephasing, arm.emission_depolarising
    )


def agree(herald: Herald, ions: Complex) -> None:
    probability = float(np.trace(ions).real)
    assert herald.probability == pytest.approx(probability, rel=EXACT, abs=1e-15)
    # What is compared is the pair times its probability, in parts of the probability.
    np.testing.assert_allclose(herald.state, ions / probability, rtol=0.0, atol=EXACT)


@pytest.mark.parametrize(("a", "b", "detection"), CASES)
def test_single_photon_pairs_are_those_of_the_full_state(
    a: Arm, b: Arm, detection: Detection
) -> None:
    ions = twin.single_photon(
        node(a),
        node(b),
        detection.dark_probability,
        detection.phase_visibility,
        detection.hom_visibility,
    )
    assert sum(np.trace(part).real for part in ions.values()) == pytest.approx(1.0, abs=EXACT)
    plus, minus = photonics.single_photon(a, b, detection)
    assert (plus.announces, minus.announces) == (BellState.PSI_PLUS, BellState.PSI_MINUS)
    agree(plus, ions[PORT_PLUS])
    agree(minus, ions[PORT_MINUS])


@pytest.mark.parametrize(("a", "b", "detection"), CASES)
def test_two_photon_pairs_are_those_of_the_full_state(a: Arm, b: Arm, detection: Detection) -> None:
    dark, hom = detection.dark_probability, detection.hom_visibility
    # Whatever the phase of the light is.
    ions = twin.two_photon(node(a), node(b), dark, 10.0 * detection.phase_visibility, hom)
    assert sum(np.trace(part).real for part in ions.values()) == pytest.approx(1.0, abs=EXACT)
    heralds = photonics.two_photon(a, b, detection)
    possible = a.efficiency * b.efficiency > 0.0 or dark > 0.0
    assert len(heralds) == (4 if possible else 0)
    announced = [h.announces for h in heralds]
    assert announced == [BellState.PSI_PLUS] * 2 + [BellState.PSI_MINUS] * 2
    for herald, pattern in zip(heralds, (*SAME_PORT, *DIFFERENT_PORTS), strict=True):
        agree(herald, ions[pattern])


@pytest.mark.parametrize(("a", "b", "detection"), CASES)
def test_direct_pairs_are_those_of_the_full_state(a: Arm, b: Arm, detection: Detection) -> None:
    for arm in (a, b):
        ions = twin.direct(node(arm), detection.dark_probability)
        heralds = photonics.direct(arm, detection)
        assert len(heralds) == (1 if arm.efficiency or detection.dark_probability else 0)
        for herald in heralds:
            assert herald.announces is BellState.PHI_PLUS
            agree(herald, ions)


def test_a_photon_is_measured_at_any_angle_as_the_pair_says() -> None:
    """The detector that clicked is the outcome: dark clicks included, exact at every angle."""
    arm, dark = Arm(0.3, emission_dephasing=0.1, emission_depolarising=0.05), 0.07
    (herald,) = photonics.direct(arm, Detection(dark))
    for angle in (0.0, 0.4, np.pi / 2, -np.pi / 4):
        half = angle / 2.0
        analyser = np.array([[np.cos(half), -np.sin(half)], [np.sin(half), np.cos(half)]])
        ions = twin.direct_measured(node(arm), dark, analyser.astype(np.complex128))
        for outcome, effect in enumerate(states.effects(angle)):
            expected = herald.probability * states.remaining(herald.state, Side.B, effect)
            np.testing.assert_allclose(ions[frozenset({outcome})], expected, atol=EXACT)


def test_a_pattern_that_never_comes_is_left_out() -> None:
    silent, quiet = Arm(0.0), Detection(0.0)
    assert photonics.single_photon(silent, silent, quiet) == ()
    assert photonics.two_photon(silent, Arm(1.0), quiet) == ()
    assert photonics.direct(silent, quiet) == ()


IDEAL = Arm(1e-3, 1e-5)
IDEAL_HERALDS = (
    *photonics.single_photon(IDEAL, IDEAL, Detection()),
    *photonics.two_photon(IDEAL, IDEAL, Detection()),
    *photonics.direct(IDEAL, Detection()),
)


@pytest.mark.parametrize("herald", IDEAL_HERALDS)
def test_ideal_pairs_are_the_announced_ones_in_the_frame_of_the_nodes(herald: Herald) -> None:
    """With the nodes' flips every pattern gives the CHSH value that Phi+ gives."""
    assert states.fidelity(herald.state, herald.announces) > 1.0 - 2e-5
    angles_a, angles_b = (0.0, np.pi / 2), (np.pi / 4, -np.pi / 4)
    s = 0.0
    for x, y, a, b in product((0, 1), repeat=4):
        table = states.joint_probabilities(herald.state, angles_a[x], angles_b[y])
        pattern = np.array([herald.announces], dtype=np.uint8)
        one = [np.array([value], dtype=np.uint8) for value in (x, a, b)]
        framed_a, framed_b = framed(pattern, *one)
        sign = (-1.0) ** (int(framed_a[0]) + int(framed_b[0]) + x * y)
        s += sign * float(table[a, b])
    assert s == pytest.approx(2.0 * np.sqrt(2.0), abs=1e-4)


@pytest.mark.parametrize("pattern", [PORT_PLUS, PORT_MINUS])
def test_the_twin_finds_the_sign_of_the_port(pattern: Clicks) -> None:
    ions = twin.single_photon(Node(0.01, 1e-4), Node(0.01, 1e-4), 0.0, 1.0, 1.0)[pattern]
    announced = BellState.PSI_PLUS if pattern == PORT_PLUS else BellState.PSI_MINUS
    assert states.fidelity(ions / np.trace(ions), announced) > 0.999


# Efficiencies and noise from the sections of a preset


def device(collection: float) -> Device:
    return Device(
        preparation_ns=assumed(1000.0),
        collection_efficiency=assumed(collection),
        memory=Qubit(coherence_ns=assumed(1e9)),
        readout_error=assumed(0.0),
    )


def fibre(length_m: float, noise_hz: float) -> Fibre:
    return Fibre(
        length_m=assumed(length_m),
        wavelength_nm=assumed(1550.0),
        attenuation_db_per_km=assumed(0.2),
        conversion_efficiency=assumed(0.4),
        transmission=assumed(0.5),
        noise_hz=assumed(noise_hz),
    )


def station(scheme: Scheme, dark_hz: float) -> Station:
    return Station(
        scheme=scheme,
        detector_efficiency=assumed(0.8),
        window_ns=assumed(100.0),
        detector_dark_hz=assumed(dark_hz),
    )


def test_efficiencies_multiply_and_fifty_kilometres_cost_ten_decibels() -> None:
    found = photonics.click_efficiency(device(0.1), fibre(50e3, 0.0), station("direct", 0.0))
    assert found == pytest.approx(0.1 * 0.4 * 0.5 * 0.1 * 0.8)


@pytest.mark.parametrize(
    ("scheme", "detectors"),
    [("single-photon", 2), ("two-photon", 4), ("direct", 2), ("repeater-node", 2)],
)
def test_noise_is_shared_by_the_detectors_and_their_own_is_not(
    scheme: Scheme, detectors: int
) -> None:
    fibres = (fibre(50e3, 1e6), fibre(0.0, 2e6))
    arriving_hz = 0.5 * 0.8 * (0.1 * 1e6 + 2e6)
    found = photonics.noise_probability(fibres, station(scheme, 5e4))
    # No click in the window: the Poisson law with none.
    mean = (5e4 + arriving_hz / detectors) * 100e-9
    assert found == pytest.approx(1.0 - np.exp(-mean), rel=1e-9)
    assert photonics.noise_probability((), station(scheme, 0.0)) == 0.0


def test_a_window_full_of_noise_always_clicks() -> None:
    """The mean has no bound where the probability has one."""
    loud = photonics.mean_noise((fibre(0.0, 1e9),), station("direct", 1e9))
    assert loud == pytest.approx((1e9 + 0.5 * 0.8 * 1e9 / 2) * 100e-9)
    assert photonics.noise_probability((fibre(0.0, 1e9),), station("direct", 1e9)) == 1.0
