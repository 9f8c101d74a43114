"""The pictures of `bellhop emulator characterise`; loaded only to draw one."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from bellhop.hal.curves import (
    by_length,
    by_storage,
    exact_by_length,
    exact_by_storage,
    fibre_length_m,
    storage_span_ms,
)
from bellhop.hal.errors import ConfigError
from bellhop.hal.estimates import Estimate
from bellhop.hal.figures import Figure as Published
from bellhop.hal.preset import Preset
from bellhop.node.cli.characterise import printable

COUNTED_POINTS = 9
CURVE_POINTS = 80
PAIRS = 200_000
"""Drawn for each counted point of a rate; a quarter of them are measured for its fidelity."""

SHORTEST_M = 1_000.0
BEYOND = 9.0
BEYOND_MAX_M = 150_000.0
"""Lengths go beyond the preset's own by so many times that, but no more than this."""

ROOM = 0.02
"""Above and below fidelities that hardly differ, lest their errors fill the picture."""

Told = Callable[[str, float], None]


def plot_by_length(file: Path, preset: Preset, seed: int, told: Told) -> None:
    """Rate above, fidelity below, against the fibre between the ends, both arms scaled alike."""
    own_m, longest_m = fibre_length_m(preset), longest_length_m(preset)
    generator = np.random.default_rng(seed)
    lengths_m = np.linspace(longest_m / COUNTED_POINTS, longest_m, COUNTED_POINTS)
    counted = []
    for point in by_length(preset, lengths_m.tolist(), generator, PAIRS):
        counted.append(point)
        told("rate by length", len(counted) / COUNTED_POINTS)
    exact = list(exact_by_length(preset, np.linspace(0.0, longest_m, CURVE_POINTS).tolist()))
    figure, (rates, fidelities) = _axes(2)
    _entitle(figure, preset)
    exact_km = [point.length_m / 1e3 for point in exact]
    counted_km = [point.length_m / 1e3 for point in counted]
    _curve(rates, exact_km, [point.pairs_per_s for point in exact])
    _points(rates, counted_km, [point.pairs_per_s for point in counted])
    _curve(fidelities, exact_km, [point.fidelity for point in exact])
    _points(fidelities, counted_km, [point.fidelity for point in counted])
    _reported(rates, own_m / 1e3, preset.published.pairs_per_s)
    _reported(fidelities, own_m / 1e3, preset.published.fidelity)
    logarithmic(rates)
    least, most = fidelities.get_ylim()
    fidelities.set_ylim(max(0.0, least - ROOM), min(1.0, most + ROOM))
    rates.set_ylabel("heralded pairs a second")
    fidelities.set_ylabel("fidelity")
    fidelities.set_xlabel("fibre between the ends (km)")
    rates.legend(fontsize="small")
    fidelities.legend(fontsize="small")
    save(figure, file)


def plot_by_storage(file: Path, preset: Preset, seed: int, told: Told) -> None:
    """Fidelity against how long both ends kept the pair after its herald."""
    longest_ms = storage_span_ms(preset)
    assert longest_ms is not None, "checked before anything was drawn"
    generator = np.random.default_rng(seed)
    times_ms = np.linspace(0.0, longest_ms, COUNTED_POINTS)
    counted = []
    for point in by_storage(preset, times_ms.tolist(), generator, PAIRS):
        counted.append(point)
        told("fidelity by storage", len(counted) / COUNTED_POINTS)
    exact = list(exact_by_storage(preset, np.linspace(0.0, longest_ms, CURVE_POINTS).tolist()))
    figure, (axes,) = _axes(1)
    _entitle(figure, preset)
    _curve(axes, [point.stored_ms for point in exact], [point.fidelity for point in exact])
    _points(axes, [point.stored_ms for point in counted], [point.fidelity for point in counted])
    published = preset.published
    _reported(axes, 0.0, published.fidelity)
    for ms, one in published.fidelity_after_ms.items():
        _reported(axes, float(ms), one)
    if published.fidelity_half_ms is not None:
        half = published.fidelity_half_ms
        axes.errorbar([half.value], [0.5], xerr=half.error, fmt="D", color="C3", mfc="none")
    axes.axhline(0.5, color="0.7", linewidth=0.8)
    axes.set_xlabel("storage after the herald (ms)")
    axes.set_ylabel("fidelity")
    axes.legend(fontsize="small")
    save(figure, file)


def longest_length_m(preset: Preset) -> float:
    """Where a picture against fibre length ends."""
    own_m = fibre_length_m(preset)
    return max(SHORTEST_M, own_m + min(BEYOND * own_m, BEYOND_MAX_M))


def _axes(rows: int) -> tuple[Figure, Sequence[Axes]]:
    """Without pyplot, whose figures live on in a global table."""
    figure = Figure(figsize=(7.0, 3.2 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)
    return figure, [row[0] for row in axes]


def _entitle(figure: Figure, preset: Preset) -> None:
    """As it is written: a dollar sign begins no formula."""
    title = printable(preset.description).replace("$", r"\$")
    figure.suptitle(title, fontsize="medium", wrap=True)


def logarithmic(axes: Axes) -> None:
    """With plain numbers, between powers of ten too where those are few."""
    axes.set_yscale("log")
    least, most = axes.get_ylim()
    few = most / least < 30.0
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if few else NullFormatter())


def _curve(axes: Axes, x: Sequence[float], estimates: Sequence[Estimate]) -> None:
    known = [(at, one.value) for at, one in zip(x, estimates, strict=True) if one.value is not None]
    if known:  # With drift there is no closed form.
        axes.plot(*zip(*known, strict=True), color="C0", linewidth=1.0, label="exact")


def _points(axes: Axes, x: Sequence[float], estimates: Sequence[Estimate]) -> None:
    values = [np.nan if one.value is None else one.value for one in estimates]
    errors = [0.0 if one.stderr is None else one.stderr for one in estimates]
    axes.errorbar(x, values, yerr=errors, fmt=".", color="C1", capsize=2, label="counted")


def _reported(axes: Axes, x: float, published: Published | None) -> None:
    if published is None:
        return
    # What is only known to be exceeded points upwards.
    name, mark = ("published: above", "^") if published.bound == "above" else ("published", "D")
    # One entry in the legend for all of a kind.
    label = name if name not in axes.get_legend_handles_labels()[1] else None
    axes.errorbar(
        [x], [published.value], yerr=published.error, fmt=mark, color="C3", mfc="none", label=label
    )


def save(figure: Figure, file: Path) -> None:
    """Raises ConfigError if the file cannot be written."""
    try:
        figure.savefig(file, dpi=120)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}", str(file)) from error
