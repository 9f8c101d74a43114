"""The sections of a preset: devices, fibres and a station that compose, and what was published.

Lengths are in metres, times in nanoseconds, rates in hertz, temperatures in kelvin, phases in
radians.  A device and a fibre belong to one end of the link; the station is shared.
"""

from typing import Literal

import msgspec

from bellhop.hal.figures import Figure, Figures, Grade, Matrix, assumed
from bellhop.hal.operations import Side
from bellhop.hal.states import CoherenceShape

Scheme = Literal["single-photon", "two-photon", "direct", "repeater-node"]
"""single-photon: one click at a midpoint.  two-photon: a coincidence at a midpoint.
direct: side A's photon is detected at side B, which has detectors and no memory.
repeater-node: a node in the middle has one memory towards either end, and swaps; both ends have
detectors and no memory."""


class Qubit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one kind of qubit keeps its state; see `storage`.

    `pulse_error` is the average infidelity of one decoupling pulse; `decay_ns` the lifetime of
    |1>, whose decay leaves the qubit and is seen as a loss.
    """

    coherence_ns: Figure
    coherence_shape: CoherenceShape = "exponential"
    pulse_interval_ns: Figure | None = None
    pulse_error: Figure = assumed(0.0)
    decay_ns: Figure | None = None


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node's memories and their light.

    An attempt is `preparation_ns` (state preparation, its share of other overheads), then for each
    of `ions` in turn `ion_preparation_ns` and `bins` excitations `bin_spacing_ns` apart, with
    `shuttle_ns` between ions, then the way of the light and of the answer.  Attempts run for
    `attempts_on_ns`, then `cooling_ns` of cooling, in turns.

    `communication`: the qubit that emits, if another one, `memory`, takes its state over when the
    herald is known, in `transfer_ns` with the average infidelity `transfer_error`.
    Errors of gates are average infidelities; `readout_error` flips an outcome either way.
    The atom is lost once in `loss_every_ns` on average and comes back after `reload_ns`.
    """

    preparation_ns: Figure
    collection_efficiency: Figure
    memory: Qubit
    readout_error: Figure
    communication: Qubit | None = None
    transfer_error: Figure = assumed(0.0)
    transfer_ns: Figure = assumed(0.0)
    bright_probability: Figure = assumed(0.5, "used by the single-photon scheme only")
    emission_dephasing: Figure = assumed(0.0)
    emission_depolarising: Figure = assumed(0.0)
    photon_ns: Figure = assumed(10.0, "full width at half maximum, used by timing drift only")
    ions: Figure = assumed(1, "one ion emits")
    bins: Figure = assumed(1, "one photon an ion and attempt")
    bin_spacing_ns: Figure = assumed(0.0)
    ion_preparation_ns: Figure = assumed(0.0)
    shuttle_ns: Figure = assumed(0.0)
    attempts_on_ns: Figure | None = None
    cooling_ns: Figure = assumed(0.0)
    single_qubit_error: Figure = assumed(0.0)
    two_qubit_error: Figure = assumed(0.0)
    no_answer_probability: Figure = assumed(0.0, "readout is deterministic: every round counts")
    loss_every_ns: Figure | None = None
    reload_ns: Figure = assumed(0.0)
    calibration_every_ns: Figure | None = None
    calibration_ns: Figure = assumed(0.0)


class Fibre(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From one node to the station, frequency conversion included.

    Efficiency: conversion, times `transmission` (filters, connectors: what does not grow with
    length), times the attenuation of the length.  `noise_hz`: what conversion adds at the head of
    the fibre, counted as photons that a detector window would accept.

    Drift, all off by default: phase and polarisation walk at random (rad^2/s) and are set back to
    zero every `..._stabilised_every_ns`; a temperature swing of the given amplitude and period
    changes the delay, which is set right every `delay_stabilised_every_ns`.
    """

    length_m: Figure
    wavelength_nm: Figure
    attenuation_db_per_km: Figure = assumed(0.0)
    conversion_efficiency: Figure = assumed(1.0, "no frequency conversion")
    transmission: Figure = assumed(1.0)
    noise_hz: Figure = assumed(0.0)
    phase_diffusion_rad2_per_s: Figure = assumed(0.0)
    phase_stabilised_every_ns: Figure | None = None
    polarisation_diffusion_rad2_per_s: Figure = assumed(0.0)
    polarisation_stabilised_every_ns: Figure | None = None
    temperature_amplitude_k: Figure = assumed(0.0)
    temperature_period_ns: Figure = assumed(86_400e9, "a day")
    delay_ps_per_km_k: Figure = assumed(37.0, "silica fibre, about 37 ps/(km K)")
    delay_stabilised_every_ns: Figure | None = None


class Station(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where photons are detected.

    `detector_dark_hz` is for each detector, stray light included, over `window_ns` after each
    excitation.  `phase_visibility` multiplies the coherence of the single-photon scheme;
    `hom_visibility` is the Hong-Ou-Mandel visibility of two nodes' photons.
    `analyser_error` flips the outcome of a photon measured at an end (direct, repeater-node).
    `cutoff_attempts`: a repeater node gives a stored half up after so many further attempts.
    """

    scheme: Scheme
    detector_efficiency: Figure
    window_ns: Figure
    detector_dark_hz: Figure = assumed(0.0)
    phase_visibility: Figure = assumed(1.0)
    hom_visibility: Figure = assumed(1.0)
    analyser_error: Figure = assumed(0.0)
    cutoff_attempts: Figure | None = None


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a stored pair is used: `window_ns` is how long one waits for the next pair at most."""

    window_ns: Figure | None = None


class Pattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One detector pattern of a measured state: its share of the heralds, what it announces."""

    name: str
    announces: Literal["PHI_PLUS", "PSI_PLUS", "PHI_MINUS", "PSI_MINUS"]
    probability: Figure
    fidelity: Figure
    phase_flip: Figure


class MeasuredState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pair known from measurements, taken instead of what the photonics derive.

    In the Phi+ frame (X, Y, Z components); each pattern adds its `phase_flip` on side A.
    """

    bloch_a: Figures
    bloch_b: Figures
    correlations: Matrix
    pattern: tuple[Pattern, ...]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Measured angles in degrees from Z towards X, a setting each."""

    angles_a: Figures = Figures((0.0, 90.0), "the CHSH test's own", "assumed")
    angles_b: Figures = Figures((45.0, -45.0, 0.0), "the CHSH test's own", "assumed")


class Noise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a topology may add to degrade a link: white noise, and phase flips on side A."""

    white: Figure = assumed(0.0, "none in the experiment")
    phase: Figure = assumed(0.0, "none in the experiment")


class OutcomeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """P(00), P(01), P(10), P(11) of the outcomes (a, b) for the settings x, y."""

    x: int
    y: int
    value: tuple[float, float, float, float]
    source: str
    grade: Grade


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the experiment reported: shown beside ours, never sampled.

    The names are those of `characterise`; `pairs_per_s` is while attempts run,
    `pairs_per_s_with_pauses` counts reloads and calibrations as well.
    """

    attempts_per_s: Figure | None = None
    success_probability: Figure | None = None
    pairs_per_s: Figure | None = None
    pairs_per_s_with_pauses: Figure | None = None
    fidelity: Figure | None = None
    s: Figure | None = None
    qber: Figure | None = None
    fidelity_after_ms: dict[str, Figure] = {}
    fidelity_half_ms: Figure | None = None
    fidelity_next_pair: Figure | None = None
    fidelity_next_pair_window: Figure | None = None
    link_efficiency: Figure | None = None
    gain_over_no_memory: Figure | None = None
    key_rate_asymptotic: Figure | None = None
    rounds: Figure | None = None
    key_bits: Figure | None = None
    soundness: Figure | None = None
    table: tuple[OutcomeTable, ...] = ()


class Devices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The devices of side A and side B."""

    a: Device
    b: Device

    def of(self, side: Side) -> Device:
        return self.a if side is Side.A else self.b


class Fibres(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fibres of side A and side B."""

    a: Fibre
    b: Fibre

    def of(self, side: Side) -> Fibre:
        return self.a if side is Side.A else self.b
