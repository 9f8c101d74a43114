"""The pictures of `bellhop diqkd plan`; loaded only to draw one."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bellhop.hal.curves import with_length
from bellhop.hal.experiment import Experiment
from bellhop.hal.preset import Preset
from bellhop.node.cli.characterise import printable
from bellhop.node.cli.plots import Told, logarithmic, longest_length_m, save
from bellhop.node.planning import ExpectedLink
from bellhop.stack.diqkd.agreement import QBER_MIN
from bellhop.stack.diqkd.beside import DEVIATIONS, eat_plan, endless_rate
from bellhop.stack.diqkd.bounds.design import EAT, FILTERED, RENYI
from bellhop.stack.diqkd.parameters import ROUNDS_MAX
from bellhop.stack.diqkd.plan import PlannedSession, plan

POINTS = 24
ROUNDS_FIRST = 1e4
LEAST_PER_ROUND = 1e-3
"""Below this a logarithmic axis shows the end of a curve and nothing else."""

EAT_TESTS = Fraction(13, 256)
"""The experiment's own test probability; a curve of the best would look the same."""

QBER_MOST = 0.499
"""From `QBER_MIN` to here is what codes are made for."""

KM = 1e3


@dataclass(frozen=True, slots=True)
class Published:
    """What was published of a run: secret bits a round and a second, by the authors' analysis.

    `rounds` is None for a rate without end.
    """

    label: str
    length_km: float
    rounds: int | None
    per_round: float
    per_s: float | None
    analysis: str


PUBLISHED = (
    # arXiv:2109.14600: 95,884 bits of 1.5e6 rounds in 7.9 h, S = 2.677, QBER 1.44 %; the threshold
    # 3 deviations below S = 2.64.
    Published("Oxford 2022", 0.0035, 1_500_000, 0.0639, 3.37, "entropy accumulation"),
    # arXiv:2602.08472: 1,917 bits of 405,145 rounds in 386.1 h, S = 2.5758, QBER 3.60 %.
    Published("Liu 2026, 10 km", 10.0, 405_145, 0.00473, 0.00138, "complementarity"),
    # arXiv:2602.09596: 0.112 a round "estimated extractable" of 1.2e6 in 624 h, S = 2.612; the QBER
    # is not published.
    Published("Lu 2026, 11 km", 11.0, 1_200_000, 0.112, 0.06, "Renyi entropy accumulation"),
    # arXiv:2602.08472: S = 2.504, QBER 6.9 %, 2,799 rounds: no finite key.
    Published("Liu 2026, 101 km", 101.0, None, 0.0974, None, "without end"),
    # Nature 607, 687 (2022): S = 2.578, QBER 7.8 %, random key basis, 700 m of fibre.
    Published("Munich 2022", 0.7, None, 0.07, None, "without end"),
)

CAPTION = (
    "Curves: expectations for honest devices at the link's own S and QBER, epsilon {epsilon:g}, "
    "the leak that this program's codes are expected to have; {renyi}: certified designs; {eat}: "
    "test probability {tests}, threshold {deviations:g} deviations below S. {distance}"
    "Points: as published, by their authors' analyses, thresholds, codes and errors, which are not "
    "the curves'; hollow: rates without end. The QBER of Lu's run is not published."
)
DISTANCE = "By distance: runs of {rounds:,} rounds, both arms scaled alike, pauses counted. "


def plot_plan(
    file: Path, preset: Preset | None, link: ExpectedLink, session: PlannedSession, told: Told
) -> None:
    """Draw `plan_figure` into a file.  Raises ConfigError if it cannot be written."""
    save(plan_figure(preset, link, session, told), file)


def plan_figure(
    preset: Preset | None,
    link: ExpectedLink,
    session: PlannedSession,
    told: Told,
    points: int = POINTS,
) -> Figure:
    """Key a round against rounds; with a preset, which says how a link falls off, first key a
    second and a pair against fibre length.  `points` of each curve."""
    rows = 1 if preset is None else 3
    figure = Figure(figsize=(7.6, 3.1 * rows + 2.0), layout="constrained")
    panels = figure.subplots(rows, 1, squeeze=False)[:, 0].tolist()
    if preset is not None:
        _by_distance(panels[0], panels[1], preset, session, told, points)
    _by_rounds(panels[-1], session, told, points)
    # Above the panels, where it covers no curve; the last one has every name.
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize="x-small")
    panels[0].set_title(printable(link.source).replace("$", r"\$"), fontsize="medium")
    distance = DISTANCE.format(rounds=session.rounds) if preset is not None else ""
    caption = CAPTION.format(
        epsilon=session.epsilon,
        renyi=RENYI,
        eat=EAT,
        tests=EAT_TESTS,
        deviations=DEVIATIONS,
        distance=distance,
    )
    figure.supxlabel(textwrap.fill(caption, 118), fontsize="x-small", x=0.02, ha="left")
    return figure


# Distance


def _by_distance(
    seconds: Axes,
    pairs: Axes,
    preset: Preset,
    session: PlannedSession,
    told: Told,
    points: int,
) -> None:
    """Bits a second, and bits a heralded pair, of runs of the planned length."""
    longest_m = longest_length_m(preset)
    lengths_m = np.linspace(0.0, longest_m, points).tolist()
    rates: list[float] = []
    keys = _no_keys()
    for place, length_m in enumerate(lengths_m):
        experiment = Experiment(with_length(preset, length_m))
        rates.append(experiment.pairs_per_s_with_pauses)
        _add(keys, session.rounds, experiment.chsh(), experiment.qber(), session.epsilon)
        told("key by distance", (place + 1) / points)
    km = [length_m / KM for length_m in lengths_m]
    for name, per_round in keys.items():
        per_s = [key * rate for key, rate in zip(per_round, rates, strict=True)]
        _curve(seconds, km, per_s, name, LEAST_PER_ROUND * min(rates))
        _curve(pairs, km, per_round, name, LEAST_PER_ROUND)
    for marker, one in zip(MARKERS, PUBLISHED, strict=True):
        if one.length_km > longest_m / KM:
            continue
        _point(pairs, one.length_km, one.per_round, one, marker)
        if one.per_s is not None:
            _point(seconds, one.length_km, one.per_s, one, marker)
    logarithmic(seconds)
    seconds.set_ylabel("bits a second")
    pairs.set_ylim(bottom=0.0)
    pairs.set_ylabel("bits a heralded pair")
    pairs.set_xlabel("fibre between the ends (km)")


# Rounds


def _by_rounds(axes: Axes, session: PlannedSession, told: Told, points: int) -> None:
    rounds = np.unique(np.geomspace(ROUNDS_FIRST, ROUNDS_MAX, points).round().astype(int))
    keys = _no_keys()
    for place, count in enumerate(rounds.tolist()):
        _add(keys, count, session.s, session.qber, session.epsilon)
        told("key by rounds", (place + 1) / len(rounds))
    for name, per_round in keys.items():
        _curve(axes, rounds.tolist(), per_round, name, 0.0)
    for marker, one in zip(MARKERS, PUBLISHED, strict=True):
        _point(axes, one.rounds or ROUNDS_MAX, one.per_round, one, marker)
    planned = max(0.0, session.key_bits / session.rounds)
    axes.plot([session.rounds], [planned], "x", color="black", label="this plan")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("rounds")
    axes.set_ylabel("bits a round")


# What both draw

WITHOUT_END = "run without end"
COLOURS = {RENYI: "C0", FILTERED: "C2", EAT: "C1", WITHOUT_END: "0.5"}
LABELS = {FILTERED: f"{FILTERED} (no referee has read it)"}
MARKERS = ("D", "s", "o", "s", "^")


Keys = dict[str, list[float]]
"""Secret bits a round by the name of a bound, a point after the other."""


def _no_keys() -> Keys:
    return {name: [] for name in COLOURS}


def _add(keys: Keys, rounds: int, s: float, qber: float, epsilon: float) -> None:
    """One point more; 0 where there is no key."""
    qber = min(max(qber, QBER_MIN), QBER_MOST)
    for name in (RENYI, FILTERED):
        session = plan(rounds, s, qber, bound=name, epsilon=epsilon)
        if isinstance(session, str) or not session.keyed:
            keys[name].append(0.0)
        else:
            keys[name].append(session.key_bits / rounds)
    # Where the default gives none, neither does the theorem of fixed length.
    worth_it = keys[RENYI][-1] > 0.0
    key = eat_plan(rounds, s, qber, epsilon, (EAT_TESTS,)).key_bits if worth_it else 0
    keys[EAT].append(max(0, key) / rounds)
    keys[WITHOUT_END].append(endless_rate(s, qber))


def _curve(axes: Axes, x: Sequence[float], y: Sequence[float], name: str, least: float) -> None:
    """What is not above `least` is left out, but for zeros where a curve begins or ends; one that
    is never above says so in the legend."""
    above = [value > least for value in y]
    beside = [any(above[max(0, place - 1) : place + 2]) for place in range(len(above))]
    shown = [value if near else np.nan for value, near in zip(y, beside, strict=True)]
    nothing = not any(above)
    label = LABELS.get(name, name) + (": no key" if nothing else "")
    axes.plot(x, shown, color=COLOURS[name], linewidth=1.2, label=label)


def _point(axes: Axes, x: float, y: float, one: Published, marker: str) -> None:
    face = "none" if one.rounds is None else "C3"
    label = f"{one.label}: {one.analysis}"
    axes.plot([x], [y], marker, color="C3", markerfacecolor=face, linestyle="none", label=label)
