"""What the figures of a preset may be; whatever is not names the field."""

import math
from dataclasses import dataclass

import msgspec

from bellhop.hal import states
from bellhop.hal.configuration import require, require_all
from bellhop.hal.figures import Figure
from bellhop.hal.operations import SETTINGS_MAX
from bellhop.hal.sections import (
    Device,
    Devices,
    Fibre,
    Fibres,
    MeasuredState,
    Noise,
    Published,
    Qubit,
    Settings,
    Station,
    Storage,
)

PATTERNS_MAX = 16
"""No heralding station has more detector patterns than this."""

MODES_MAX = 65_535
"""No attempt has more modes (ions times time bins)."""

DURATION_NS_MAX = 10**15
"""No duration in a preset is longer (about eleven days)."""

LENGTH_M_MAX = 1e8
"""No fibre is longer: well beyond twice around the Earth."""

RATE_HZ_MAX = 1e9
"""No detector counts faster."""


@dataclass(frozen=True, slots=True)
class Range:
    """From `least` to `most`; `above`: `least` itself is not in it."""

    least: float
    most: float
    above: bool = False
    whole: bool = False

    def holds(self, value: float) -> bool:
        enough = value > self.least if self.above else value >= self.least
        return enough and value <= self.most and (not self.whole or value == int(value))

    def __str__(self) -> str:
        kind = "a whole number " if self.whole else ""
        start = f"above {self.least:g}, at most" if self.above else f"from {self.least:g} to"
        return f"is {kind}{start} {self.most:g}"


PROBABILITY = Range(0.0, 1.0)
EFFICIENCY = Range(0.0, 1.0, above=True)
# A depolarised qubit has the average infidelity 1/2, a depolarised pair 3/4.
QUBIT_ERROR = Range(0.0, 0.5)
PAIR_ERROR = Range(0.0, 0.75)
DURATION = Range(0.0, DURATION_NS_MAX)
WHOLE_DURATION = Range(0.0, DURATION_NS_MAX, whole=True)
PERIOD = Range(1.0, DURATION_NS_MAX)
WHOLE_PERIOD = Range(1.0, DURATION_NS_MAX, whole=True)
RATE = Range(0.0, RATE_HZ_MAX)

RANGES: dict[type[msgspec.Struct], dict[str, Range]] = {
    Qubit: {
        "coherence_ns": PERIOD,
        "pulse_interval_ns": PERIOD,
        "pulse_error": QUBIT_ERROR,
        "decay_ns": PERIOD,
    },
    Device: {
        "preparation_ns": DURATION,
        "collection_efficiency": EFFICIENCY,
        "readout_error": PROBABILITY,
        "transfer_error": QUBIT_ERROR,
        "transfer_ns": DURATION,
        "bright_probability": EFFICIENCY,
        "emission_dephasing": PROBABILITY,
        "emission_depolarising": PROBABILITY,
        "photon_ns": Range(0.0, DURATION_NS_MAX, above=True),
        "ions": Range(1, MODES_MAX, whole=True),
        "bins": Range(1, MODES_MAX, whole=True),
        "bin_spacing_ns": DURATION,
        "ion_preparation_ns": DURATION,
        "shuttle_ns": DURATION,
        "attempts_on_ns": WHOLE_PERIOD,
        "cooling_ns": WHOLE_DURATION,
        "single_qubit_error": QUBIT_ERROR,
        "two_qubit_error": PAIR_ERROR,
        "no_answer_probability": PROBABILITY,
        "loss_every_ns": PERIOD,
        "reload_ns": DURATION,
        "calibration_every_ns": WHOLE_PERIOD,
        "calibration_ns": WHOLE_DURATION,
    },
    Fibre: {
        "length_m": Range(0.0, LENGTH_M_MAX),
        "wavelength_nm": Range(0.0, 1e6, above=True),
        "attenuation_db_per_km": Range(0.0, 1e4),
        "conversion_efficiency": EFFICIENCY,
        "transmission": EFFICIENCY,
        "noise_hz": RATE,
        "phase_diffusion_rad2_per_s": Range(0.0, 1e12),
        "phase_stabilised_every_ns": PERIOD,
        "polarisation_diffusion_rad2_per_s": Range(0.0, 1e12),
        "polarisation_stabilised_every_ns": PERIOD,
        "temperature_amplitude_k": Range(0.0, 1e3),
        "temperature_period_ns": PERIOD,
        "delay_ps_per_km_k": Range(-1e4, 1e4),
        "delay_stabilised_every_ns": PERIOD,
    },
    Station: {
        "detector_efficiency": EFFICIENCY,
        "window_ns": Range(0.0, DURATION_NS_MAX, above=True),
        "detector_dark_hz": RATE,
        "phase_visibility": PROBABILITY,
        "hom_visibility": PROBABILITY,
        "analyser_error": PROBABILITY,
        "cutoff_attempts": Range(1, 1e9, whole=True),
    },
    Storage: {"window_ns": PERIOD},
    Noise: {"white": PROBABILITY, "phase": PROBABILITY},
}


def check(
    device: Devices,
    fibre: Fibres,
    station: Station,
    state: MeasuredState | None,
    storage: Storage,
    settings: Settings,
    noise: Noise,
    published: Published,
) -> None:
    """Raises ConfigError naming the first field that is out of its range."""
    for end, one in (("a", device.a), ("b", device.b)):
        _check_device(one, f"device.{end}")
    _check_ranges(fibre.a, "fibre.a")
    _check_ranges(fibre.b, "fibre.b")
    _check_ranges(station, "station")
    if station.scheme == "repeater-node":
        require(
            station.cutoff_attempts is not None,
            "station.cutoff_attempts",
            'is missing: a "repeater-node" needs it',
        )
    _check_ranges(storage, "storage")
    _check_ranges(noise, "noise")
    _check_settings(settings)
    if state is not None:
        _check_state(state)
    _check_published(published, settings)


def _check_ranges(struct: msgspec.Struct, path: str) -> None:
    for name, allowed in RANGES[type(struct)].items():
        figure = getattr(struct, name)
        if figure is not None:
            require_all({f"{path}.{name}": figure.value}, allowed.holds, str(allowed))


def _check_device(device: Device, path: str) -> None:
    _check_ranges(device, path)
    modes = device.ions.value * device.bins.value
    require(modes <= MODES_MAX, f"{path}.bins", f"times ions is at most {MODES_MAX}")
    _require_period(device.cooling_ns, device.attempts_on_ns, path, "cooling_ns", "attempts_on_ns")
    _require_period(device.reload_ns, device.loss_every_ns, path, "reload_ns", "loss_every_ns")
    _require_period(
        device.calibration_ns,
        device.calibration_every_ns,
        path,
        "calibration_ns",
        "calibration_every_ns",
    )
    for name in ("memory", "communication"):
        qubit: Qubit | None = getattr(device, name)
        if qubit is not None:
            where = f"{path}.{name}"
            _check_ranges(qubit, where)
            _require_period(
                qubit.pulse_error,
                qubit.pulse_interval_ns,
                where,
                "pulse_error",
                "pulse_interval_ns",
            )


def _require_period(
    figure: Figure, period: Figure | None, path: str, name: str, period_name: str
) -> None:
    """What happens again and again needs to say how often."""
    require(
        figure.value == 0.0 or period is not None,
        f"{path}.{name}",
        f"is given without {period_name}",
    )


def _check_settings(settings: Settings) -> None:
    for name, least in (("angles_a", 2), ("angles_b", 3)):
        angles = getattr(settings, name).value
        field = f"settings.{name}"
        require(least <= len(angles) <= SETTINGS_MAX, field, f"has {least} to {SETTINGS_MAX}")
        for angle in angles:
            require_all({field: angle}, lambda t: abs(t) <= 360.0, "is within a turn")


def _check_state(state: MeasuredState) -> None:
    for name in ("bloch_a", "bloch_b"):
        require(len(getattr(state, name).value) == 3, f"state.{name}", "has three components")
    components = {
        "state.bloch_a": state.bloch_a.value,
        "state.bloch_b": state.bloch_b.value,
        "state.correlations": sum(state.correlations.value, ()),
    }
    for field, values in components.items():
        for value in values:
            require_all({field: value}, lambda c: -1.0 <= c <= 1.0, "is from -1 to 1")
    fitted = states.from_correlations(
        state.bloch_a.value, state.bloch_b.value, state.correlations.value
    )
    smallest = float(states.smallest_eigenvalue(fitted))
    require(smallest > -1e-9, "state", f"is not a state: it has the eigenvalue {smallest:.3g}")
    _check_patterns(state)


def _check_patterns(state: MeasuredState) -> None:
    patterns = state.pattern
    require(1 <= len(patterns) <= PATTERNS_MAX, "state.pattern", f"has 1 to {PATTERNS_MAX}")
    for index, pattern in enumerate(patterns):
        where = f"state.pattern[{index}]"
        values = {
            f"{where}.fidelity": pattern.fidelity.value,
            f"{where}.phase_flip": pattern.phase_flip.value,
        }
        require_all(values, PROBABILITY.holds, str(PROBABILITY))
        share = {f"{where}.probability": pattern.probability.value}
        require_all(share, EFFICIENCY.holds, str(EFFICIENCY))
    total = sum(pattern.probability.value for pattern in patterns)
    require(abs(total - 1.0) < 1e-9, "state.pattern", f"has probabilities that sum to {total}")


def _check_published(published: Published, settings: Settings) -> None:
    for name in published.__struct_fields__:
        figure = getattr(published, name)
        if isinstance(figure, Figure):
            _check_reported(figure, f"published.{name}")
    for stored_ms, figure in published.fidelity_after_ms.items():
        field = f"published.fidelity_after_ms.{stored_ms}"
        require(_is_duration(stored_ms), field, "is not a time in milliseconds")
        _check_reported(figure, field)
    counts = len(settings.angles_a.value), len(settings.angles_b.value)
    for index, entry in enumerate(published.table):
        where = f"published.table[{index}]"
        require(0 <= entry.x < counts[0], f"{where}.x", "is not one of side A's settings")
        require(0 <= entry.y < counts[1], f"{where}.y", "is not one of side B's settings")
        for value in entry.value:
            require_all({f"{where}.value": value}, PROBABILITY.holds, str(PROBABILITY))


def _check_reported(figure: Figure, field: str) -> None:
    values = {field: figure.value, f"{field}.error": figure.error or 0.0}
    require_all(values, lambda value: value >= 0.0, "is at least 0")


def _is_duration(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and value >= 0.0
