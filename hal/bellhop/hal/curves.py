"""A link's rate and fidelity by fibre length, and its fidelity by storage time: for plots."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from bellhop.hal.estimates import DRIFT, HALF, Estimate, Runs, missing
from bellhop.hal.expectations import Expectations
from bellhop.hal.experiment import Experiment
from bellhop.hal.figures import Figure
from bellhop.hal.preset import Preset
from bellhop.hal.sections import Fibre, Fibres
from bellhop.hal.trials import Trials

BEYOND = 1.6
"""Storage times go so much beyond the one of interest."""

NEVER_MS = 1e3
"""The one of interest for memories that neither dephase nor bring a pair below 0.5."""


@dataclass(frozen=True, slots=True)
class LengthPoint:
    """What a link is worth with so much fibre between its ends."""

    length_m: float
    pairs_per_s: Estimate
    fidelity: Estimate


@dataclass(frozen=True, slots=True)
class StoragePoint:
    """The fidelity of pairs that were kept so long after their herald."""

    stored_ms: float
    fidelity: Estimate


def fibre_length_m(preset: Preset) -> float:
    """Between the ends; a direct link has fibre on side A alone."""
    a, b = preset.fibre.a.length_m.value, preset.fibre.b.length_m.value
    return a if preset.station.scheme == "direct" else a + b


def with_length(preset: Preset, length_m: float) -> Preset:
    """The same link with both arms scaled to so much fibre; arms without any get half each."""
    fibre, total_m = preset.fibre, fibre_length_m(preset)
    if preset.station.scheme == "direct":
        return msgspec.structs.replace(preset, fibre=Fibres(_long(fibre.a, length_m), fibre.b))
    share = fibre.a.length_m.value / total_m if total_m > 0.0 else 0.5
    arms = _long(fibre.a, share * length_m), _long(fibre.b, (1.0 - share) * length_m)
    return msgspec.structs.replace(preset, fibre=Fibres(*arms))


def by_length(
    preset: Preset, lengths_m: Iterable[float], generator: np.random.Generator, pairs: int
) -> Iterator[LengthPoint]:
    """Counted from about so many `pairs` at each length, each with its exact value."""
    for length_m in lengths_m:
        runs = Runs(Trials(with_length(preset, length_m), generator), pairs)
        rate = runs.rates(generator)["pairs_per_s"]
        yield LengthPoint(length_m, rate, runs.fidelity()["fidelity"])


def exact_by_length(preset: Preset, lengths_m: Iterable[float]) -> Iterator[LengthPoint]:
    """Without counting.  Fidelities are missing where drift leaves no closed form."""
    for length_m in lengths_m:
        experiment = Experiment(with_length(preset, length_m))
        rate = experiment.pairs_per_s
        yield LengthPoint(length_m, Estimate(rate, 0.0, rate), _exact(Expectations(experiment)))


def by_storage(
    preset: Preset, stored_ms: Iterable[float], generator: np.random.Generator, pairs: int
) -> Iterator[StoragePoint]:
    runs = Runs(Trials(preset, generator), pairs)
    for ms in stored_ms:
        yield StoragePoint(ms, runs.after(ms)[0])


def exact_by_storage(preset: Preset, stored_ms: Iterable[float]) -> Iterator[StoragePoint]:
    expected = Expectations(Experiment(preset))
    for ms in stored_ms:
        yield StoragePoint(ms, _exact(expected, 1e6 * ms))


def storage_span_ms(preset: Preset) -> float | None:
    """Storage times worth showing: beyond the crossing of 0.5, or else the coherence time, and all
    that was published.  None if no end stores anything."""
    expected = Expectations(Experiment(preset))
    if not expected.stores:
        return None
    times = [expected.coherence_ns() / 1e6, *map(float, preset.published.fidelity_after_ms)]
    crossing_ns = expected.falls_below_ns(HALF)
    if crossing_ns:
        times[0] = crossing_ns / 1e6
    return BEYOND * max((time for time in times if math.isfinite(time)), default=NEVER_MS)


def _exact(expected: Expectations, stored_ns: float = 0.0) -> Estimate:
    if expected.drifts:
        return missing(DRIFT)
    found = expected.fidelity(stored_ns)
    return Estimate(found, 0.0, found)


def _long(fibre: Fibre, length_m: float) -> Fibre:
    length = Figure(length_m, "scaled", "set")
    return msgspec.structs.replace(fibre, length_m=length)
