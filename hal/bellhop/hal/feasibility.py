"""Whether an experiment can be run at all: heralds that come, within a time that can be counted.

Every single figure of a preset may be in its range and all of them together still be nothing: no
light arrives, detectors click all the time, a pair takes centuries.  Such a preset is refused when
it is read.  The error names a figure that a user can change (one that was set by hand, if any of
those at fault was; else the greatest contributor) and says by how much it misses.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isfinite, log10
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bellhop.hal import heralding
from bellhop.hal.errors import ConfigError
from bellhop.hal.figures import Figure
from bellhop.hal.operations import BLOCK_ROUNDS_MAX
from bellhop.hal.photonics import click_efficiency, mean_noise, noise_probability
from bellhop.hal.sampling import Multiplexed, RepeaterNode
from bellhop.hal.schedule import TIME_NS_MAX, Parts, Schedule, flight_ns
from bellhop.hal.sections import Device, Fibre

SUCCESS_MIN = 1e-9
"""Rarer heralds are not drawn exactly; see `sampling`.  Of each half, for a repeater node."""

NOISE_MAX = 10.0
"""Mean clicks of a detector in its window without a node's light: with more it always clicks."""

HERALD_NS_MAX = 86_400e9
"""No herald takes longer than a day on average: a full block of them must end within int64."""

assert HERALD_NS_MAX * BLOCK_ROUNDS_MAX < TIME_NS_MAX

ANSWERED_MIN = 1e-6
"""That both ends still have their halves when they are measured is no less likely."""


class Probable(Protocol):
    """What of an experiment says how likely outcomes are; the third one is a lost half."""

    @property
    def preset(self) -> Parts: ...
    @property
    def shares(self) -> NDArray[np.float64]: ...
    def probabilities(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class _Cause:
    """A figure that contributes to what is wrong, by so many orders of magnitude."""

    field: str
    figure: Figure
    orders: float


def check_heralds(preset: Parts) -> None:
    """Raises ConfigError if no herald comes, or too rarely.  To be called before the photonics are
    worked out, as they have no state without a herald."""
    _check_noise(preset)
    schedule = Schedule.of(preset)
    _check_turns(preset, schedule)
    _check_window(preset, schedule)
    success = _check_success(preset, schedule.modes)
    _check_time(preset, schedule, success)


def check(experiment: Probable) -> None:
    """Raises ConfigError if no pair lives until both ends have measured it."""
    preset = experiment.preset
    causes = list(_decays(preset))
    if not causes:
        return
    kept = experiment.probabilities()[..., :2, :2].sum(axis=(-2, -1))
    in_each = experiment.shares @ kept.reshape(len(experiment.shares), -1)
    answered = max(0.0, float(in_each.min()))
    if not answered >= ANSWERED_MIN:
        _refuse(
            causes,
            f"leaves both halves of a pair with probability {answered:.3g} until they are"
            f" measured, which is below {ANSWERED_MIN:g}",
        )


def _refuse(causes: list[_Cause], rule: str) -> None:
    """Blames what a user set, then what the file's author wrote by hand, then the worst."""
    hands = {"set": 0, "own": 1}
    cause = min(causes, key=lambda one: (hands.get(one.figure.grade, 2), -one.orders))
    raise ConfigError(f"{cause.field} = {cause.figure.value:g} {rule}", cause.field)


def _ends(preset: Parts) -> Iterator[tuple[str, Device, Fibre]]:
    """Those whose memories emit."""
    yield "a", preset.device.a, preset.fibre.a
    if preset.station.scheme != "direct":
        yield "b", preset.device.b, preset.fibre.b


def _places(preset: Parts) -> list[tuple[Fibre, ...]]:
    """The fibres that end at the same detectors."""
    a, b = preset.fibre.a, preset.fibre.b
    match preset.station.scheme:
        case "repeater-node":
            return [(a,), (b,)]
        case "direct":
            return [(a,)]
        case _:
            return [(a, b)]


# Clicks without light


def _check_noise(preset: Parts) -> None:
    station = preset.station
    noise = max(mean_noise(fibres, station) for fibres in _places(preset))
    if noise <= NOISE_MAX:
        return
    causes = [
        _grown("station.window_ns", station.window_ns),
        _grown("station.detector_dark_hz", station.detector_dark_hz),
    ]
    for end, _, fibre in _ends(preset):
        causes.append(_grown(f"fibre.{end}.noise_hz", fibre.noise_hz))
    _refuse(
        causes,
        f"makes a detector click {noise:.3g} times in a window of {station.window_ns.value:g} ns"
        f" without a node's light: at most {NOISE_MAX:g} of {station.detector_dark_hz.value:g} Hz"
        " dark clicks and the fibres' noise_hz tell anything",
    )


# Attempts


def _check_turns(preset: Parts, schedule: Schedule) -> None:
    on_ns = schedule.attempts_on_ns
    if on_ns is None or on_ns >= schedule.period_ns:
        return
    causes = [
        _Cause(f"device.{end}.attempts_on_ns", device.attempts_on_ns, inf)
        for end, device, _ in _ends(preset)
        if device.attempts_on_ns is not None and round(device.attempts_on_ns.value) == on_ns
    ]
    _refuse(
        [*causes, *_slow(preset, schedule)],
        f"leaves no room for an attempt of {schedule.period_ns} ns in the {on_ns} ns from one"
        " cooling to the next (device.attempts_on_ns)",
    )


def _check_window(preset: Parts, schedule: Schedule) -> None:
    """Two modes' clicks must not be taken for each other's."""
    ends = list(_ends(preset))
    bins = min(device.bins.value for _, device, _ in ends)
    spacing_ns = max(device.bin_spacing_ns.value for _, device, _ in ends)
    window_ns = preset.station.window_ns
    if bins == 1 or window_ns.value <= spacing_ns or preset.station.scheme == "repeater-node":
        return  # A repeater node has one mode, or is refused for that.
    causes = [_Cause("station.window_ns", window_ns, inf)]
    for end, device, _ in ends:
        causes.append(_grown(f"device.{end}.bins", device.bins))
        causes.append(_grown(f"device.{end}.bin_spacing_ns", device.bin_spacing_ns))
    _refuse(
        causes,
        f"makes a window of {window_ns.value:g} ns (station.window_ns) longer than the"
        f" {spacing_ns:g} ns from one of {bins:g} time bins to the next (device.bin_spacing_ns)",
    )


# Success


def _check_success(preset: Parts, modes: int) -> float:
    """The probability that an attempt heralds."""
    each = [Multiplexed(p, modes).success_probability for p in heralding.per_mode(preset)]
    worst = min(each)
    success = worst
    if preset.station.scheme == "repeater-node" and worst >= SUCCESS_MIN:
        assert preset.station.cutoff_attempts is not None, "checked with the preset"
        cutoff = int(preset.station.cutoff_attempts.value)
        success = RepeaterNode(each[0], each[1], cutoff).success_probability
    if isfinite(success) and success >= SUCCESS_MIN:
        return success
    station = preset.station
    causes = list(_losses(preset))
    if worst >= SUCCESS_MIN and station.cutoff_attempts is not None:
        causes.append(_Cause("station.cutoff_attempts", station.cutoff_attempts, inf))
    efficiencies = ", ".join(
        f"{click_efficiency(device, fibre, station):.3g} on side {end.upper()}"
        for end, device, fibre in _ends(preset)
    )
    noise = max(noise_probability(fibres, station) for fibres in _places(preset))
    _refuse(
        causes,
        f"makes an attempt succeed with probability {success:.3g}, which is below"
        f" {SUCCESS_MIN:g}: a photon clicks with {efficiencies}, a detector by noise with"
        f" {noise:.3g}",
    )
    raise AssertionError("refused")


def _losses(preset: Parts) -> Iterator[_Cause]:
    """What keeps light from the detectors."""
    for end, device, fibre in _ends(preset):
        yield _shrunk(f"device.{end}.collection_efficiency", device.collection_efficiency)
        if preset.station.scheme == "single-photon":
            yield _shrunk(f"device.{end}.bright_probability", device.bright_probability)
        yield _shrunk(f"fibre.{end}.conversion_efficiency", fibre.conversion_efficiency)
        yield _shrunk(f"fibre.{end}.transmission", fibre.transmission)
        lost = fibre.attenuation_db_per_km.value * fibre.length_m.value / 1e4
        yield _Cause(f"fibre.{end}.length_m", fibre.length_m, lost)
        yield _Cause(f"fibre.{end}.attenuation_db_per_km", fibre.attenuation_db_per_km, lost)
    yield _shrunk("station.detector_efficiency", preset.station.detector_efficiency)


def _grown(field: str, figure: Figure) -> _Cause:
    return _Cause(field, figure, log10(figure.value) if figure.value > 0.0 else -inf)


def _shrunk(field: str, figure: Figure) -> _Cause:
    return _Cause(field, figure, -log10(figure.value))


# Time


def _check_time(preset: Parts, schedule: Schedule, success: float) -> None:
    herald_ns = 1e9 / schedule.attempts_per_s / schedule.duty / success
    if herald_ns <= HERALD_NS_MAX:
        return
    _refuse(
        [*_slow(preset, schedule), *_losses(preset)],
        f"makes a herald take {herald_ns / 1e9:.3g} s on average, more than"
        f" {HERALD_NS_MAX / 1e9:g} s: an attempt takes {schedule.period_ns} ns"
        f" ({1e9 / schedule.attempts_per_s / schedule.duty:.3g} ns with pauses) and succeeds with"
        f" probability {success:.3g}",
    )


USUAL_NS = 1e3
"""An attempt without fibre takes about as long, where times are weighed against lost light."""


def _slow(preset: Parts, schedule: Schedule) -> Iterator[_Cause]:
    for field, figure, spent_ns in _spent(preset, schedule):
        if spent_ns > 0.0:
            yield _Cause(field, figure, log10(spent_ns / USUAL_NS))


def _spent(preset: Parts, schedule: Schedule) -> Iterator[tuple[str, Figure, float]]:
    """What an attempt, and its share of the pauses, takes its time for, in ns."""
    attempt_ns = 1e9 / schedule.attempts_per_s
    for end, device, fibre in _ends(preset):
        where = f"device.{end}"
        ions, bins = device.ions.value, device.bins.value
        pairs = {
            "preparation_ns": device.preparation_ns.value,
            "ion_preparation_ns": ions * device.ion_preparation_ns.value,
            "bin_spacing_ns": ions * bins * device.bin_spacing_ns.value,
            "shuttle_ns": (ions - 1) * device.shuttle_ns.value,
            "cooling_ns": schedule.cooling_ns / schedule.attempts_per_turn,
        }
        if device.calibration_every_ns is not None:
            share = device.calibration_ns.value / device.calibration_every_ns.value
            pairs["calibration_ns"] = attempt_ns * share
        if device.loss_every_ns is not None:
            pairs["reload_ns"] = attempt_ns * device.reload_ns.value / device.loss_every_ns.value
        for name, spent_ns in pairs.items():
            yield f"{where}.{name}", getattr(device, name), spent_ns
        yield f"fibre.{end}.length_m", fibre.length_m, 2.0 * flight_ns(fibre)


# Halves that decay


def _decays(preset: Parts) -> Iterator[_Cause]:
    for end, device, _ in _ends(preset):
        for kind in ("memory", "communication"):
            qubit = getattr(device, kind)
            if qubit is not None and qubit.decay_ns is not None:
                field = f"device.{end}.{kind}.decay_ns"
                yield _Cause(field, qubit.decay_ns, -log10(qubit.decay_ns.value))
