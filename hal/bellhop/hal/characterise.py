"""What an emulated link is worth: rates, states and Bell values, drawn, beside what was published.

Every figure is counted as an experiment counts it, from pairs that the emulator's own physics
heralds and measures.  Beside it stand the exact value, where there is a closed form, and what the
experiment reported.  `DEFINITIONS` says what each figure is.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from bellhop.hal.estimates import Estimate, Runs
from bellhop.hal.figures import Figure, Grade
from bellhop.hal.preset import Preset, figures
from bellhop.hal.sections import Device, Fibre, Noise, Published, Qubit, Station
from bellhop.hal.trials import Trials

PAIRS = 2_000_000
"""Pairs of the CHSH run if nobody says otherwise: the standard error of S is then below 0.003."""

PAIRS_MIN = 100

AFTER_MS = (1.0, 10.0, 100.0)
"""Storage times for a preset whose experiment published none."""

DEFINITIONS: dict[str, str] = {
    "attempts_per_s": "attempts a second while attempts run: cooling counted, pauses not",
    "success_probability": "heralded pairs an attempt",
    "pairs_per_s": "heralded pairs a second while attempts run: cooling counted, pauses not",
    "pairs_per_s_with_pauses": "the same over all time: calibrations and reloads counted",
    "fidelity": "with the announced Bell state as soon as the herald is known, from XX, YY and ZZ, "
    "corrected for readout; a pair that lost a half counts as none",
    "s": "CHSH value at the preset's angles, flipped as the herald says, with readout errors, of "
    "the rounds that both ends answered",
    "answered": "the share of the CHSH run's rounds that both ends answered",
    "qber": "how often the key settings (0 and 2) disagree, with readout errors",
    "fidelity_half_ms": "how long after the herald the fidelity of a kept pair falls below 0.5",
    "fidelity_next_pair": "fidelity of a kept pair when the next herald comes",
    "fidelity_next_pair_window": "the same, of pairs whose next herald comes within "
    "storage.window_ns",
    "link_efficiency": "pairs_per_s times the pair's coherence time, after which dephasing alone "
    "(no pulse errors, no decay) leaves 1/e of its coherence",
    "gain_over_no_memory": "success_probability over the product of both sides' own: what a "
    "repeater node's memories are worth",
}

CORRELATORS = ("xx", "yy", "zz", "e00", "e01", "e10", "e11")
"""XX, YY and ZZ turned so that the announced Bell state has 1; the CHSH value's E(x, y)."""

Progress = Callable[[str, float], None]
"""Is told which run begins, and which share of all work is done."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """A figure of the preset that is not the experiment's own; `path` names it."""

    path: str
    value: float
    grade: Grade
    source: str


@dataclass(frozen=True, slots=True)
class Characterisation:
    """All figures of one link: `estimates` by the names of `DEFINITIONS`.

    `fidelity_after_ms` and `coherence_after_ms` (the mean of XX and YY) by storage time since the
    herald, as "450"; `correlators` by `CORRELATORS`.
    """

    preset: str
    title: str
    seed: int
    pairs: int
    estimates: dict[str, Estimate]
    fidelity_after_ms: dict[str, Estimate]
    coherence_after_ms: dict[str, Estimate]
    correlators: dict[str, Estimate]
    assumptions: tuple[Assumption, ...]
    published: Published


def characterise(
    preset: Preset,
    *,
    pairs: int = PAIRS,
    seed: int = 1,
    after_ms: Iterable[float] = (),
    told: Progress = lambda _name, _done: None,
) -> Characterisation:
    """Draw and measure `pairs` (at least `PAIRS_MIN`) in the CHSH run, in others more or fewer.

    `after_ms`: storage times; if empty those that were published, or else `AFTER_MS`.
    """
    assert pairs >= PAIRS_MIN
    times = tuple(after_ms) or tuple(map(float, preset.published.fidelity_after_ms)) or AFTER_MS
    found, after = _counted(preset, pairs, seed, times, told)
    published = preset.published
    return Characterisation(
        preset=preset.name,
        title=preset.description,
        seed=seed,
        pairs=pairs,
        estimates={
            name: replace(found[name], published=getattr(published, name, None))
            for name in DEFINITIONS
        },
        fidelity_after_ms={
            ms: replace(one, published=_at(published, float(ms))) for ms, (one, _) in after.items()
        },
        coherence_after_ms={ms: one for ms, (_, one) in after.items()},
        correlators={name: found[name] for name in CORRELATORS},
        assumptions=assumptions(preset),
        published=published,
    )


def _counted(
    preset: Preset, pairs: int, seed: int, after_ms: tuple[float, ...], told: Progress
) -> tuple[dict[str, Estimate], dict[str, tuple[Estimate, Estimate]]]:
    """All figures by name, and fidelity and coherence by storage time."""
    generator = np.random.default_rng(seed)
    runs = Runs(Trials(preset, generator), pairs)
    told("rates", 0.0)
    found = runs.rates(generator)
    told("fidelity", 0.05)
    found |= runs.fidelity()
    told("CHSH value", 0.1)
    found |= runs.chsh()
    told("key setting", 0.25)
    found["qber"] = runs.qber()
    told("storage", 0.3)
    after = {f"{ms:g}": runs.after(ms) for ms in after_ms}
    told("half", 0.4)
    found["fidelity_half_ms"] = runs.half_ms()
    told("next pair", 0.9)
    found |= runs.next_pair()
    told("done", 1.0)
    return found, after


def assumptions(preset: Preset) -> tuple[Assumption, ...]:
    """Every figure that was inferred, fitted, assumed, given in a user's file or set; once where
    both ends have the same.  What a preset leaves at its default is not listed: nothing of it is in
    the model."""
    defaults = _defaults()
    found: dict[str, Assumption] = {}
    for section in ("device", "fibre", "station", "state", "storage", "noise"):
        struct = getattr(preset, section)
        for path, figure in figures(struct, section) if struct is not None else ():
            if figure.grade not in ("P", "A", "S", "B") and figure not in defaults:
                found[path] = Assumption(path, figure.value, figure.grade, figure.source)
    for path in [path for path in found if path.startswith(("device.a.", "fibre.a."))]:
        section, _, name = path.split(".", 2)
        own, other = found[path], found.get(f"{section}.b.{name}")
        if other is not None and replace(other, path=path) == own:
            found[path] = replace(own, path=f"{section}.{name}")
            del found[other.path]
    return tuple(found.values())


def _defaults() -> frozenset[Figure]:
    """What sections are given that do not say otherwise."""
    sections = (Device, Fibre, Station, Noise, Qubit)
    values = (field.default for one in sections for field in msgspec.structs.fields(one))
    return frozenset(value for value in values if isinstance(value, Figure))


def _at(published: Published, ms: float) -> Figure | None:
    return next((f for t, f in published.fidelity_after_ms.items() if float(t) == ms), None)
