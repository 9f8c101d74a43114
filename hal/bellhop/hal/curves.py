"""A link's rate and fidelity by fibre length, and its fidelity by storage time: for plots."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from bellhop.hal.estimates import NOT_HERE, Estimate, Runs
from bellhop.hal.figures import Figure
from bellhop.hal.preset import Preset
from bellhop.hal.sections import Fibre, Fibres
from bellhop.hal.trials import Trials

BEYOND = 1.6
"""Storage times go so much beyond the one of interest."""


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
        runs = _runs(with_length(preset, length_m))
        rate, found = runs.experiment.pairs_per_s, runs.exact_fidelity(0.0)
        fidelity = NOT_HERE if found is None else Estimate(found, 0.0, found)
        yield LengthPoint(length_m, Estimate(rate, 0.0, rate), fidelity)


def by_storage(
    preset: Preset, stored_ms: Iterable[float], generator: np.random.Generator, pairs: int
) -> Iterator[StoragePoint]:
    runs = Runs(Trials(preset, generator), pairs)
    for ms in stored_ms:
        yield StoragePoint(ms, runs.after(ms)[0])


def exact_by_storage(preset: Preset, stored_ms: Iterable[float]) -> Iterator[StoragePoint]:
    runs = _runs(preset)
    for ms in stored_ms:
        found = runs.exact_fidelity(1e6 * ms)
        yield StoragePoint(ms, NOT_HERE if found is None else Estimate(found, 0.0, found))


def storage_span_ms(preset: Preset) -> float | None:
    """Storage times worth showing: beyond the crossing of 0.5, or else the coherence time, and all
    that was published.  None if no end stores anything."""
    runs = _runs(preset)
    if not runs.stores:
        return None
    times = [runs.coherence_ns() / 1e6, *map(float, preset.published.fidelity_after_ms)]
    crossing_ns = runs.crossing_ns()
    if crossing_ns is not None:
        times[0] = crossing_ns / 1e6
    return BEYOND * max(time for time in times if math.isfinite(time))


def _runs(preset: Preset) -> Runs:
    """For exact values: nothing is drawn."""
    return Runs(Trials(preset, np.random.default_rng(0)), 1)


def _long(fibre: Fibre, length_m: float) -> Fibre:
    length = Figure(length_m, "scaled", "set")
    return msgspec.structs.replace(fibre, length_m=length)
