"""Heralded entanglement by photons: how often each detector pattern comes and what pair it leaves.

Exact in every efficiency and noise: nothing here is expanded in small efficiencies.  Detectors tell
only whether they clicked (no number resolution), each has a dark click of its own with the same
probability in each window, and a pattern heralds when exactly its detectors clicked.

Emission: a node's light is one photon or none, and entangled with the qubit as the scheme says.
Emission noise (dephasing, depolarising) acts on the emitting qubit after that and before all
storage, so it changes no click; a photon scattered twice, which would, is not in the model.
Partial distinguishability: the two photons' wave packets overlap by sqrt(hom_visibility), so the
Hong-Ou-Mandel visibility of equally bright beams is `hom_visibility` (C. K. Hong, Z. Y. Ou,
L. Mandel, Phys. Rev. Lett. 59, 2044 (1987)).

Pairs are 4x4 density matrices as in `states`, side A first.
"""

import math
from dataclasses import dataclass

import numpy as np

from bellhop.hal.operations import BellState, Side
from bellhop.hal.sections import Device, Fibre, Scheme, Station
from bellhop.hal.states import State, bell_density, depolarise, phase_flip

DETECTORS: dict[Scheme, int] = {
    "single-photon": 2,
    "two-photon": 4,
    "direct": 2,
    "repeater-node": 2,  # at either end
}
"""How many detectors look at the light that arrives at one place."""

BOTH_DARK, ONLY_B_BRIGHT, ONLY_A_BRIGHT, BOTH_BRIGHT = (np.diag(row) for row in np.eye(4))


@dataclass(frozen=True, slots=True)
class Arm:
    """One node's light on its way to the detectors.

    `efficiency`: that the emitted photon makes a detector click, everything included.
    `bright_probability`: that the node emits, in the single-photon scheme; no other one uses it.
    `emission_dephasing`: that the qubit suffers a Z; `emission_depolarising`: that it is replaced
    by a maximally mixed one.
    """

    efficiency: float
    bright_probability: float = 0.5
    emission_dephasing: float = 0.0
    emission_depolarising: float = 0.0

    def __post_init__(self) -> None:
        for value in (
            self.efficiency,
            self.bright_probability,
            self.emission_dephasing,
            self.emission_depolarising,
        ):
            assert 0.0 <= value <= 1.0, value


@dataclass(frozen=True, slots=True)
class Detection:
    """The station: `dark_probability` is that of a click without light, per detector and window.

    `phase_visibility` is the mean of cos(phase error), and multiplies the coherence of the
    single-photon scheme; the others do not depend on the phase of the light.
    """

    dark_probability: float = 0.0
    phase_visibility: float = 1.0
    hom_visibility: float = 1.0

    def __post_init__(self) -> None:
        assert 0.0 <= self.dark_probability < 1.0, self.dark_probability
        for value in (self.phase_visibility, self.hom_visibility):
            assert 0.0 <= value <= 1.0, value


@dataclass(frozen=True, slots=True, eq=False)
class Herald:
    """A detector pattern: the Bell state it announces, its probability in one mode, and the pair
    it leaves (4, 4), trace 1, as it is when the light has been emitted: nothing has aged yet."""

    announces: BellState
    probability: float
    state: State


def single_photon(a: Arm, b: Arm, detection: Detection) -> tuple[Herald, ...]:
    """A click of one of two detectors behind a 50:50 beam splitter: Psi+ or Psi-.

    Each node is in sqrt(1 - alpha) |0, no photon> + sqrt(alpha) |1, a photon>.  For small
    efficiencies both patterns together have probability alpha (eta_a + eta_b), and leave
    (1 - alpha) Psi + alpha |11>.  C. Cabrillo et al., Phys. Rev. A 59, 1025 (1999); S. Bose et al.,
    Phys. Rev. Lett. 83, 5158 (1999); the imperfections: S. L. N. Hermans et al., New J. Phys. 25,
    013011 (2023).  A pattern that never comes is left out.
    """
    p = detection.dark_probability
    nothing = _no_photon(a, b)
    heralds = []
    for announces, sign in ((BellState.PSI_PLUS, 1.0), (BellState.PSI_MINUS, -1.0)):
        light = _photons_in_one_detector(a, b, detection, sign)
        # The other detector is silent; without light, this one clicked by itself.
        heralds.append((announces, (1.0 - p) * (light + p * nothing)))
    return _heralds(heralds, a, b)


def _no_photon(a: Arm, b: Arm) -> State:
    """The pair, not normalised, when no photon arrived: lost photons tell who was bright."""
    alone = [
        np.diag([1.0 - arm.bright_probability, arm.bright_probability * (1.0 - arm.efficiency)])
        for arm in (a, b)
    ]
    return np.kron(*alone).astype(np.complex128)


def _photons_in_one_detector(a: Arm, b: Arm, detection: Detection, sign: float) -> State:
    """The pair, not normalised, when one or two photons went to the one detector and none to the
    other: that of (a + sign b) / sqrt(2)."""
    eta_a, eta_b = a.efficiency, b.efficiency
    alpha_a, alpha_b = a.bright_probability, b.bright_probability
    from_a = alpha_a * (1.0 - alpha_b) * eta_a
    from_b = alpha_b * (1.0 - alpha_a) * eta_b
    visibility = detection.phase_visibility * math.sqrt(detection.hom_visibility)
    coherence = sign * visibility * math.sqrt(from_a * from_b)
    one_lost = eta_a * (1.0 - eta_b) + eta_b * (1.0 - eta_a)
    # Two photons leave by the same port with (1 + V) / 2: Hong, Ou, Mandel.
    bunched = eta_a * eta_b * (1.0 + detection.hom_visibility) / 2.0
    result = from_a * ONLY_A_BRIGHT + from_b * ONLY_B_BRIGHT
    result = result + alpha_a * alpha_b * (one_lost + bunched) * BOTH_BRIGHT
    result[1, 2] = result[2, 1] = coherence
    return np.asarray(result / 2.0, dtype=np.complex128)


def two_photon(a: Arm, b: Arm, detection: Detection) -> tuple[Herald, ...]:
    """A click in each of two detectors of a partial Bell-state analyser: four patterns.

    Each qubit is in Phi+ with its photon's polarisation (or time bin), |0> with h and |1> with v.
    Behind a 50:50 beam splitter either port has an h and a v detector: h and v of the same port
    herald Psi+, of different ports Psi-.  Without dark clicks all four together have probability
    eta_a eta_b / 2 and leave a Bell state whose coherence is `hom_visibility`.  C. Simon,
    W. T. M. Irvine, Phys. Rev. Lett. 91, 110405 (2003); S. D. Barrett, P. Kok, Phys. Rev. A 71,
    060310(R) (2005).  A pattern that never comes is left out.

    Dark clicks complete one photon, or two photons that went to one detector, or nothing.
    """
    p = detection.dark_probability
    eta_a, eta_b = a.efficiency, b.efficiency
    hom = detection.hom_visibility
    lone_a, lone_b = eta_a * (1.0 - eta_b), eta_b * (1.0 - eta_a)
    nothing = (1.0 - eta_a) * (1.0 - eta_b) * np.eye(4) / 4.0
    # One detector alone had light, summed over the pattern's h and v detector: two photons of the
    # same polarisation, or one, which tells its own qubit and leaves the other mixed.
    same = eta_a * eta_b * (1.0 + hom) / 16.0 * (BOTH_DARK + BOTH_BRIGHT)
    one = (lone_a + lone_b) / 8.0 * np.eye(4)
    heralds: list[tuple[BellState, State]] = []
    for announces, sign in ((BellState.PSI_PLUS, 1.0), (BellState.PSI_MINUS, -1.0)):
        light = ONLY_A_BRIGHT + ONLY_B_BRIGHT
        light[1, 2] = light[2, 1] = sign * hom
        pair = eta_a * eta_b / 16.0 * light + p * (same + one) + p**2 * nothing
        # Two ports or two assignments of h and v to them; the other two detectors are silent.
        heralds += [(announces, ((1.0 - p) ** 2 * pair).astype(np.complex128))] * 2
    return _heralds(heralds, a, b)


def direct(a: Arm, detection: Detection) -> tuple[Herald, ...]:
    """A click of one of the two detectors that analyse the photon's qubit at side B: Phi+.

    The photon is side B's qubit, in Phi+ with side A's when emitted (B. B. Blinov et al., Nature
    428, 153 (2004)).  The detector that clicked is the outcome of its measurement, whatever the
    basis: without a photon, a dark click is an outcome that knows nothing of side A's mixed qubit.
    Exactly one detector clicks.  The pair is the same with its ends exchanged.  No click ever: an
    empty tuple.
    """
    p, eta = detection.dark_probability, a.efficiency
    pair = eta * bell_density(BellState.PHI_PLUS) + 2.0 * p * (1.0 - eta) * np.eye(4) / 4.0
    return _heralds([(BellState.PHI_PLUS, (1.0 - p) * pair)], a)


def _heralds(
    patterns: list[tuple[BellState, State]], a: Arm, b: Arm | None = None
) -> tuple[Herald, ...]:
    """Patterns with their pairs not normalised, without the emission noise of the emitting ends."""
    heralds = []
    for announces, pair in patterns:
        probability = float(np.trace(pair).real)
        if probability > 0.0:
            state = _emission_noise(pair / probability, a, Side.A)
            if b is not None:
                state = _emission_noise(state, b, Side.B)
            heralds.append(Herald(announces, probability, state))
    return tuple(heralds)


def _emission_noise(state: State, arm: Arm, side: Side) -> State:
    dephased = phase_flip(state, arm.emission_dephasing, side)
    return depolarise(dephased, arm.emission_depolarising, side)


def fibre_efficiency(fibre: Fibre) -> float:
    """That a photon gets from behind the conversion to the station's detectors."""
    attenuation_db = fibre.attenuation_db_per_km.value * fibre.length_m.value / 1000.0
    return float(fibre.transmission.value * 10.0 ** (-attenuation_db / 10.0))


def click_efficiency(device: Device, fibre: Fibre, station: Station) -> float:
    """An arm's efficiency: collection, conversion, fibre and detector."""
    return (
        device.collection_efficiency.value
        * fibre.conversion_efficiency.value
        * fibre_efficiency(fibre)
        * station.detector_efficiency.value
    )


def noise_probability(fibres: tuple[Fibre, ...], station: Station) -> float:
    """That a detector clicks in its window without a node's light: 1 - exp(-rate window)."""
    return -math.expm1(-mean_noise(fibres, station))


def mean_noise(fibres: tuple[Fibre, ...], station: Station) -> float:
    """Clicks of a detector in its window without a node's light, on average.

    Its own dark clicks, and its even share of what conversion added at the head of each of the
    `fibres` that end there: those photons are lost on the way and at the detector as others are.
    """
    arriving_hz = sum(fibre.noise_hz.value * fibre_efficiency(fibre) for fibre in fibres)
    arriving_hz *= station.detector_efficiency.value
    rate_hz = station.detector_dark_hz.value + arriving_hz / DETECTORS[station.scheme]
    return rate_hz * station.window_ns.value * 1e-9
