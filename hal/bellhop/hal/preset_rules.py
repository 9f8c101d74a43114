"""What the figures of a preset may be; whatever is not names the field."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from bellhop.hal import states
from bellhop.hal.configuration import require, require_all
from bellhop.hal.figures import Figure
from bellhop.hal.operations import SETTINGS_MAX
from bellhop.hal.schedule import Parts
from bellhop.hal.sections import (
    Device,
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

CUTOFF_ATTEMPTS_MAX = 100_000
"""No repeater node keeps a half for more attempts; each possible wait has its own probability."""

PHOTON_NS_MIN = 1e-6
"""No photon is shorter than a femtosecond."""

LOSS_EVERY_NS_MIN = 1e6
"""No atom is lost more often than every millisecond."""

AFTER_MS_MAX = 1e9
"""No pair is looked at after more than some eleven days."""

ALIKE_NM = 0.1
"""Photons that interfere have wavelengths nearer than this: still some ten gigahertz."""

NAME_CHARACTERS_MAX = 63
TITLE_CHARACTERS_MAX = 200
TEXT_CHARACTERS_MAX = 1_000


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
        "photon_ns": Range(PHOTON_NS_MIN, DURATION_NS_MAX),
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
        "loss_every_ns": Range(LOSS_EVERY_NS_MIN, DURATION_NS_MAX),
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
        "cutoff_attempts": Range(1, CUTOFF_ATTEMPTS_MAX, whole=True),
    },
    Storage: {"window_ns": PERIOD},
    Noise: {"white": PROBABILITY, "phase": PROBABILITY},
}


PER_SECOND = Range(0.0, 1e12)
COUNT = Range(0.0, 1e18)
AFTER_MS = Range(0.0, AFTER_MS_MAX)

REPORTED: dict[str, Range] = {
    "attempts_per_s": PER_SECOND,
    "success_probability": PROBABILITY,
    "pairs_per_s": PER_SECOND,
    "pairs_per_s_with_pauses": PER_SECOND,
    "fidelity": PROBABILITY,
    "s": Range(0.0, 4.0),
    "qber": PROBABILITY,
    "fidelity_half_ms": AFTER_MS,
    "fidelity_next_pair": PROBABILITY,
    "fidelity_next_pair_window": PROBABILITY,
    "link_efficiency": COUNT,
    "gain_over_no_memory": COUNT,
    "key_rate_asymptotic": PROBABILITY,
    "rounds": COUNT,
    "key_bits": COUNT,
    "soundness": PROBABILITY,
}
"""What was published, and its errors."""


class Sections(Parts, Protocol):
    """A preset, whose sections these are the rules of."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def state(self) -> MeasuredState | None: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def noise(self) -> Noise: ...
    @property
    def published(self) -> Published: ...


def check(preset: Sections) -> None:
    """Raises ConfigError naming the first field that is out of its range."""
    _check_text("name", preset.name, NAME_CHARACTERS_MAX)
    _check_text("title", preset.title, TITLE_CHARACTERS_MAX)
    for end, one in (("a", preset.device.a), ("b", preset.device.b)):
        _check_device(one, f"device.{end}")
    _check_ranges(preset.fibre.a, "fibre.a")
    _check_ranges(preset.fibre.b, "fibre.b")
    _check_ranges(preset.station, "station")
    _check_scheme(preset.station, preset.fibre)
    _check_ranges(preset.storage, "storage")
    _check_ranges(preset.noise, "noise")
    _check_settings(preset.settings)
    if preset.state is not None:
        _check_state(preset.state)
        _check_nothing_else_makes_the_state(preset)
    _check_published(preset.published, preset.settings)


def _check_text(field: str, text: str, characters_max: int) -> None:
    rule = f"has 1 to {characters_max} printable characters"
    require(0 < len(text) <= characters_max and text.isprintable(), field, rule)


def check_sources(sources: Iterable[tuple[str, str]]) -> None:
    """Of figures, by path: they are shown as they are.  Raises ConfigError."""
    for path, source in sources:
        _check_text(f"{path}.source", source, TEXT_CHARACTERS_MAX)


def _check_scheme(station: Station, fibre: Fibres) -> None:
    if station.scheme == "repeater-node":
        require(
            station.cutoff_attempts is not None,
            "station.cutoff_attempts",
            'is missing: a "repeater-node" needs it',
        )
    if station.scheme in ("single-photon", "two-photon"):
        a, b = fibre.a.wavelength_nm, fibre.b.wavelength_nm
        end = "a" if a.grade == "set" and b.grade != "set" else "b"
        require(
            abs(a.value - b.value) <= ALIKE_NM,
            f"fibre.{end}.wavelength_nm",
            f"is within {ALIKE_NM} nm of the other fibre's, as photons interfere in the"
            f" {station.scheme} scheme: not {a.value:g} at side A and {b.value:g} at side B",
        )


def _check_nothing_else_makes_the_state(preset: Sections) -> None:
    """A measured state has all imperfections in it: another one would change no more than a rate,
    and look as if it had been counted."""
    ends = (("a", preset.device.a, preset.fibre.a), ("b", preset.device.b, preset.fibre.b))
    zero = {"station.detector_dark_hz": preset.station.detector_dark_hz.value}
    for end, device, fibre in ends:
        zero[f"fibre.{end}.noise_hz"] = fibre.noise_hz.value
        for name in ("emission_dephasing", "emission_depolarising"):
            zero[f"device.{end}.{name}"] = getattr(device, name).value
    for field, value in zero.items():
        require(value == 0.0, field, "is 0 where [state] is given, which has it in it already")
    for name in ("phase_visibility", "hom_visibility"):
        value = getattr(preset.station, name).value
        rule = "is 1 where [state] is given, which has it in it already"
        require(value == 1.0, f"station.{name}", rule)
    for end, device, _ in ends:
        bright = device.bright_probability
        single = preset.station.scheme == "single-photon"
        rule = "cannot be set where [state] is given: it would change the rate and not the state"
        require(bright.grade != "set" or not single, f"device.{end}.bright_probability", rule)


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
    if device.communication is None:
        for name in ("transfer_ns", "transfer_error"):
            value = getattr(device, name).value
            require(value == 0.0, f"{path}.{name}", f"is given without {path}.communication")
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
            _check_reported(figure, f"published.{name}", REPORTED[name])
    for stored_ms, figure in published.fidelity_after_ms.items():
        field = f"published.fidelity_after_ms.{stored_ms}"
        rule = f"is no time in milliseconds from 0 to {AFTER_MS_MAX:g}"
        require(_is_duration(stored_ms), field, rule)
        _check_reported(figure, field, PROBABILITY)
    counts = len(settings.angles_a.value), len(settings.angles_b.value)
    for index, entry in enumerate(published.table):
        where = f"published.table[{index}]"
        require(0 <= entry.x < counts[0], f"{where}.x", "is not one of side A's settings")
        require(0 <= entry.y < counts[1], f"{where}.y", "is not one of side B's settings")
        for value in entry.value:
            require_all({f"{where}.value": value}, PROBABILITY.holds, str(PROBABILITY))


def _check_reported(figure: Figure, field: str, allowed: Range) -> None:
    values = {field: figure.value, f"{field}.error": figure.error or 0.0}
    require_all(values, allowed.holds, str(allowed))


def _is_duration(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and AFTER_MS.holds(value)
