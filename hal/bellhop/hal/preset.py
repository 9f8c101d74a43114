"""Published experiments as data: every figure with its value, source and grade."""

from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bellhop.hal import states
from bellhop.hal.configuration import decode_toml, read_text, require, require_all
from bellhop.hal.errors import ConfigError
from bellhop.hal.operations import SETTINGS_MAX, BellState, Side

PATTERNS_MAX = 16
"""No heralding station has more detector patterns than this."""

DURATION_NS_MAX = 10**15
"""No duration in a preset is longer (about eleven days)."""

Grade = Literal["P", "A", "S", "B", "I", "fitted", "assumed", "set"]
"""P full text, A abstract, S secondary source, B public report, I inferred, set by an override."""


Row = tuple[float, float, float]


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of an experiment; `error` is its published standard error."""

    value: float
    source: str
    grade: Grade
    error: float | None = None


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several numbers that belong together."""

    value: tuple[float, ...]
    source: str
    grade: Grade


class Matrix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Three rows of three numbers."""

    value: tuple[Row, Row, Row]
    source: str
    grade: Grade


class OutcomeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """P(00), P(01), P(10), P(11) of the outcomes (a, b) for the settings x, y."""

    x: int
    y: int
    value: tuple[float, float, float, float]
    source: str
    grade: Grade


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The memories of either side.  Attempts run for `attempts_on_ns`, then cooling, in turns."""

    attempt_period_ns: Figure
    attempts_on_ns: Figure
    cooling_ns: Figure
    readout_error_a: Figure
    readout_error_b: Figure
    no_answer_probability_a: Figure
    no_answer_probability_b: Figure
    coherence_ns: Figure
    coherence_shape: states.CoherenceShape


class Fibre(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From either side to the heralding station."""

    length_a_m: Figure
    length_b_m: Figure
    wavelength_nm: Figure


class Pattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One detector pattern: how often it heralds, what it announces, how good its pairs are."""

    name: str
    announces: Literal["PHI_PLUS", "PSI_PLUS", "PHI_MINUS", "PSI_MINUS"]
    probability: Figure
    fidelity: Figure
    phase_flip: Figure


class Station(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the photons meet."""

    scheme: Literal["two-photon"]
    success_probability: Figure
    detection_probability: Figure
    pattern: tuple[Pattern, ...]


class PairState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pair in the Phi+ frame (X, Y, Z components) and the measured angles in degrees."""

    bloch_a: Figures
    bloch_b: Figures
    correlations: Matrix
    angles_a: Figures
    angles_b: Figures


class Noise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a topology may add to degrade a link."""

    white: Figure
    phase: Figure = Figure(0.0, "none in the experiment", "assumed")


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the experiment reported: shown beside ours, never sampled."""

    herald_rate_hz: Figure
    herald_rate_with_reloads_hz: Figure
    fidelity: Figure
    chsh: Figure
    qber: Figure
    rounds: Figure
    key_bits: Figure
    soundness: Figure
    table: tuple[OutcomeTable, ...]


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An experiment: device, fibre, station, the state they make, and what was published."""

    name: str
    title: str
    device: Device
    fibre: Fibre
    station: Station
    state: PairState
    noise: Noise
    published: Published

    @property
    def description(self) -> str:
        """The title, and every figure that an override set."""
        changed = [
            f"{section}.{field}={figure.value:g}"
            for section in ("device", "fibre", "station", "noise")
            for field, figure in msgspec.structs.asdict(getattr(self, section)).items()
            if isinstance(figure, Figure) and figure.grade == "set"
        ]
        return f"{self.title}; set: {', '.join(changed)}" if changed else self.title

    def angles(self, side: Side) -> NDArray[np.float64]:
        """In radians, one a setting."""
        degrees = self.state.angles_a if side is Side.A else self.state.angles_b
        return np.deg2rad(np.array(degrees.value, dtype=np.float64))

    def readout_error(self, side: Side) -> float:
        device = self.device
        return (device.readout_error_a if side is Side.A else device.readout_error_b).value

    def no_answer_probability(self, side: Side) -> float:
        device = self.device
        figure = (
            device.no_answer_probability_a if side is Side.A else device.no_answer_probability_b
        )
        return figure.value

    def framed_state(self, pattern: Pattern) -> states.State:
        """The pair of one detector pattern, turned into the Phi+ frame, noise included."""
        fitted = states.from_correlations(
            self.state.bloch_a.value, self.state.bloch_b.value, self.state.correlations.value
        )
        state = states.phase_flip(fitted, pattern.phase_flip.value, Side.A)
        state = states.phase_flip(state, self.noise.phase.value, Side.A)
        return states.white_noise(state, self.noise.white.value)

    def announced(self) -> dict[BellState, tuple[float, states.State]]:
        """For each announced Bell state its probability given a herald, and the pair as it is.

        Patterns that announce the same state are mixed, as nobody is told which it was.
        """
        mixture: dict[BellState, tuple[float, states.State]] = {}
        for pattern in self.station.pattern:
            bell_state = BellState[pattern.announces]
            weight, state = mixture.get(bell_state, (0.0, np.zeros((4, 4), dtype=np.complex128)))
            share = pattern.probability.value
            mixture[bell_state] = (weight + share, state + share * self.framed_state(pattern))
        return {
            bell_state: (weight, states.announced_as(state / weight, bell_state))
            for bell_state, (weight, state) in mixture.items()
        }


def load_preset(name: str, overrides: dict[str, float] | None = None) -> Preset:
    """A preset that comes with Bellhop, by name.  Raises ConfigError."""
    known = preset_names()
    require(name in known, "preset", f"is one of {', '.join(known)}, not {name!r}")
    text = (_folder() / f"{name}.toml").read_text(encoding="utf-8")
    return parse_preset(text, f"preset {name}", overrides)


def read_preset(path: Path, overrides: dict[str, float] | None = None) -> Preset:
    """A preset from the operator's own file.  Raises ConfigError."""
    return parse_preset(read_text(path), str(path), overrides)


def preset_names() -> tuple[str, ...]:
    names = (entry.name for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def parse_preset(text: str, origin: str, overrides: dict[str, float] | None = None) -> Preset:
    """Decode, override ("noise.white": 0.05 sets that figure) and check.  Raises ConfigError."""
    preset = decode_toml(text, Preset, origin)
    for path, value in (overrides or {}).items():
        preset = _override(preset, path, value)
    _check(preset)
    return preset


def _folder() -> resources.abc.Traversable:
    return resources.files("bellhop.hal").joinpath("presets")


def _override(preset: Preset, path: str, value: float) -> Preset:
    section_name, _, field = path.partition(".")
    section = getattr(preset, section_name, None) if section_name != "published" else None
    figure = getattr(section, field, None) if isinstance(section, msgspec.Struct) else None
    if section is None or not isinstance(figure, Figure):
        raise ConfigError(f"{path} is not a figure that can be set", path)
    figure = Figure(value, "set in the topology", "set")
    section = msgspec.structs.replace(section, **{field: figure})
    return msgspec.structs.replace(preset, **{section_name: section})


def _check(preset: Preset) -> None:
    _check_device(preset.device)
    _check_station(preset.station)
    fibre = preset.fibre
    require_all(
        {"fibre.length_a_m": fibre.length_a_m.value, "fibre.length_b_m": fibre.length_b_m.value},
        lambda metres: metres >= 0.0,
        "is at least 0",
    )
    noise = {"noise.white": preset.noise.white.value, "noise.phase": preset.noise.phase.value}
    require_all(noise, _is_probability, "is from 0 to 1")
    _check_state(preset)


def _is_probability(value: float) -> bool:
    return 0.0 <= value <= 1.0


def _check_device(device: Device) -> None:
    periods = {
        "device.attempt_period_ns": device.attempt_period_ns.value,
        "device.attempts_on_ns": device.attempts_on_ns.value,
        "device.coherence_ns": device.coherence_ns.value,
    }
    require_all(periods, lambda ns: 1 <= ns <= DURATION_NS_MAX, f"is from 1 to {DURATION_NS_MAX}")
    cooling = {"device.cooling_ns": device.cooling_ns.value}
    require_all(cooling, lambda ns: 0 <= ns <= DURATION_NS_MAX, f"is from 0 to {DURATION_NS_MAX}")
    require_all(
        {field: ns for field, ns in (periods | cooling).items() if field != "device.coherence_ns"},
        lambda ns: ns == int(ns),
        "is a whole number",
    )
    require(
        device.attempts_on_ns.value >= device.attempt_period_ns.value,
        "device.attempts_on_ns",
        "leaves no room for one device.attempt_period_ns",
    )
    require_all(
        {
            "device.readout_error_a": device.readout_error_a.value,
            "device.readout_error_b": device.readout_error_b.value,
            "device.no_answer_probability_a": device.no_answer_probability_a.value,
            "device.no_answer_probability_b": device.no_answer_probability_b.value,
        },
        _is_probability,
        "is from 0 to 1",
    )


def _check_station(station: Station) -> None:
    require_all(
        {"station.success_probability": station.success_probability.value},
        # Below this an attempt number could outgrow 64 bits within one session.
        lambda p: 1e-9 <= p <= 1.0,
        "is from 1e-9 to 1",
    )
    patterns = station.pattern
    require(1 <= len(patterns) <= PATTERNS_MAX, "station.pattern", f"has 1 to {PATTERNS_MAX}")
    for index, pattern in enumerate(patterns):
        where = f"station.pattern[{index}]"
        values = {
            f"{where}.fidelity": pattern.fidelity.value,
            f"{where}.phase_flip": pattern.phase_flip.value,
        }
        require_all(values, _is_probability, "is from 0 to 1")
        share = {f"{where}.probability": pattern.probability.value}
        require_all(share, lambda p: 0.0 < p <= 1.0, "is above 0, at most 1")
    total = sum(pattern.probability.value for pattern in patterns)
    require(abs(total - 1.0) < 1e-9, "station.pattern", f"has probabilities that sum to {total}")


def _check_state(preset: Preset) -> None:
    state = preset.state
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
    for name, least in (("angles_a", 2), ("angles_b", 3)):
        values = getattr(state, name).value
        require(
            least <= len(values) <= SETTINGS_MAX, f"state.{name}", f"has {least} to {SETTINGS_MAX}"
        )
        for angle in values:
            require_all({f"state.{name}": angle}, lambda t: abs(t) <= 360.0, "is within a turn")
    for pattern in preset.station.pattern:
        smallest = float(states.smallest_eigenvalue(preset.framed_state(pattern)))
        require(smallest > -1e-9, "state", f"is not a state: it has the eigenvalue {smallest:.3g}")
