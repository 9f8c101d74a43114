"""The runs by which a link is characterised: each counts a figure, with its standard error."""

import math
from dataclasses import dataclass

import numpy as np

from bellhop.hal.expectations import STORED_NS_MAX, Expectations, Numbers
from bellhop.hal.figures import Figure
from bellhop.hal.heralding import halves
from bellhop.hal.statistics import proportion
from bellhop.hal.trials import AXES, BLOCK_ROUNDS, Counts, Mean, Trials, fidelity, mean

OTHER_RUNS = 2
"""Other runs have the CHSH run's pairs over this."""

KEY_RUN = 1.5
"""The run of key settings has so many times the CHSH run's pairs: its share is small, and is asked
for to a few parts in a hundred of itself."""

RELOADS = 10_000
"""Reloads are counted over at least the time in which so many are due."""

CURVE_POINTS = 9
CURVE_WIDTH = 0.9
"""The crossing of 0.5 is sought in fidelities after so many storage times, so much of it around."""

SLOPE_ERRORS = 5.0
LEVEL_ERRORS = 4.0
"""A crossing is sought where the slope of counted fidelities is known to be so many of its errors,
and where the law itself falls so many errors of the level below 0.5."""

HALF = 0.5

TEST_SETTINGS = ((0, 0), (0, 1), (1, 0), (1, 1))
CORRELATORS = tuple(f"e{x}{y}" for x, y in TEST_SETTINGS)
KEY_SETTINGS = ((0, 2),)

DRIFT = "drift leaves no closed form"
KEEPS_NOTHING = "neither end keeps its half of a pair"
UNANSWERED = "no round of some setting was answered at both ends"
TOO_FLAT = "the fidelity passes 0.5 too gently to be located with so many pairs"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure: counted, with its standard error; exact, if there is a closed form; published.

    `value` is None where the figure does not exist for this link, as how long detectors keep.
    `reason`: why there is no value, or else why there is no exact one.
    """

    value: float | None = None
    stderr: float | None = None
    exact: float | None = None
    published: Figure | None = None
    reason: str | None = None

    @property
    def apart(self) -> float | None:
        """How many standard errors, counted and published together, value and published are apart;
        None if one is missing, or the published error is."""
        if self.value is None or self.published is None or self.published.error is None:
            return None
        error = math.hypot(self.stderr or 0.0, self.published.error)
        return (self.value - self.published.value) / error if error > 0.0 else None


def missing(reason: str, exact: float | None = None) -> Estimate:
    return Estimate(exact=exact, reason=reason)


class Runs:
    """A link under test; every run has pairs of its own."""

    def __init__(self, trials: Trials, pairs: int) -> None:
        self.experiment = trials.experiment
        self.expected = Expectations(trials.experiment)
        self.pairs = pairs
        self.others = max(3 * len(AXES), pairs // OTHER_RUNS)
        self._trials = trials

    # Rates

    def rates(self, generator: np.random.Generator) -> dict[str, Estimate]:
        """What heralds come to while attempts run, and over all time.

        Attempts, cooling and calibrations come by a clock, and are counted over whole turns and
        calibration periods: they have no error.  Chance are the heralds and the reloads.
        """
        e = self.experiment
        attempts, share = self._attempts(generator)
        per_s = self._attempts_per_s(attempts)
        pauses, pauses_error = self._pauses(generator, 1e9 * attempts / per_s)
        paused_share = math.hypot(share, pauses_error / (1.0 + pauses))
        success = self.pairs / attempts
        found = {
            "attempts_per_s": _scaled(per_s, 0.0, e.schedule.attempts_per_s),
            "success_probability": _scaled(success, share, e.success_probability),
            "pairs_per_s": _scaled(success * per_s, share, e.pairs_per_s),
            "pairs_per_s_with_pauses": _scaled(
                success * per_s / (1.0 + pauses), paused_share, e.pairs_per_s_with_pauses
            ),
        }
        return found | {
            "link_efficiency": self._link_efficiency(found["pairs_per_s"]),
            "gain_over_no_memory": self._gain(found["success_probability"]),
        }

    def _attempts(self, generator: np.random.Generator) -> tuple[int, float]:
        """Until all pairs are there, and the relative standard error of their mean number."""
        attempts, squares = 0, 0.0
        for begun in range(0, self.pairs, BLOCK_ROUNDS):
            draw = self.experiment.law.draw(generator, min(BLOCK_ROUNDS, self.pairs - begun))
            gaps = np.diff(draw.attempts, prepend=-1)
            attempts += int(gaps.sum())
            squares += float(np.square(gaps, dtype=np.float64).sum())
        gap = attempts / self.pairs
        # One more gap that is off by one, lest success in every attempt seem certain.
        variance = max(0.0, squares / self.pairs - gap**2) + 1.0 / self.pairs
        return attempts, math.sqrt(variance / self.pairs) / gap

    def _attempts_per_s(self, attempts: int) -> float:
        """Over the whole turns in which so many were made."""
        schedule = self.experiment.schedule
        whole = -(-attempts // schedule.attempts_per_turn) * schedule.attempts_per_turn
        next_ends_ns = int(schedule.active_ns(np.array([whole], dtype=np.int64))[0])
        return 1e9 * whole / (next_ends_ns - schedule.period_ns)

    def _pauses(self, generator: np.random.Generator, active_ns: float) -> tuple[float, float]:
        """The time of calibrations and reloads over that of attempts, with its standard error."""
        schedule = self.experiment.schedule
        pauses = 0.0
        if schedule.calibration_every_ns is not None:
            pauses = schedule.calibration_ns / schedule.calibration_every_ns
        if not schedule.losses:
            return pauses, 0.0
        seen_ns = max(active_ns, RELOADS * max(every for every, _ in schedule.losses))
        reloads_ns = schedule.reload_ns(generator, round(seen_ns))
        variance = sum(each**2 / every for every, each in schedule.losses) / seen_ns
        return pauses + reloads_ns / seen_ns, math.sqrt(variance)

    def _link_efficiency(self, rate: Estimate) -> Estimate:
        """Rate times the pair's coherence time: the quantum link efficiency of P. C. Humphreys et
        al., Nature 558, 268 (2018)."""
        if not self.expected.stores:
            return missing(KEEPS_NOTHING)
        kept_ns = self.expected.coherence_ns()
        if not math.isfinite(kept_ns):
            return missing("the memories do not dephase")
        return _times(rate, kept_ns / 1e9)

    def _gain(self, success: Estimate) -> Estimate:
        if self.experiment.scheme != "repeater-node":
            return missing("there is no repeater node")
        p_a, p_b = halves(self.experiment.preset, self.experiment.schedule.modes)
        return _times(success, 1.0 / (p_a * p_b))

    # States

    def fidelity(self) -> dict[str, Estimate]:
        """The fidelity, and the correlators xx, yy and zz that it comes from."""
        counts = self._trials.kept(self.others)
        found = {"fidelity": self._beside(fidelity(counts), self.expected.fidelity(0.0))}
        exact = self.expected.correlators(0.0)
        for name, along, one in zip(AXES, counts, exact, strict=True):
            found[name] = self._beside(mean(along), one)
        return found

    def after(self, stored_ms: float) -> tuple[Estimate, Estimate]:
        """Fidelity, and coherence (the mean of XX and YY), of pairs kept for so long."""
        if not self.expected.stores:
            return missing(KEEPS_NOTHING), missing(KEEPS_NOTHING)
        stored_ns = 1e6 * stored_ms
        counts = self._trials.kept(self.others, stored_ns)
        xx, yy, _ = self.expected.correlators(stored_ns)
        return (
            self._beside(fidelity(counts), self.expected.fidelity(stored_ns)),
            self._beside(mean(counts[0] + counts[1]), (xx + yy) / 2.0),
        )

    def half_ms(self) -> Estimate:
        """When fidelities of kept pairs fall below 0.5, counted at several storage times.

        The exact law says where to look, as a first glance at data would, and is the curve that is
        fitted: a line of counted fidelities against the law's has 0.5 where the law has some level,
        and the law has that level at the time sought.
        """
        if not self.expected.stores:
            return missing(KEEPS_NOTHING)
        around_ns = self.expected.falls_below_ns(HALF)
        if around_ns is None:
            return missing(f"the fidelity does not fall below 0.5 within {STORED_NS_MAX / 1e9:g} s")
        if around_ns == 0.0:
            return missing("the fidelity is below 0.5 from the start")
        exact_ms = None if self.expected.drifts else around_ns / 1e6
        times_ns = around_ns * np.linspace(1.0 - CURVE_WIDTH, 1.0 + CURVE_WIDTH, CURVE_POINTS)
        law, pairs = self.expected.fidelities(times_ns), max(3 * len(AXES), self.others // 4)
        if not self._locatable(law, pairs):
            return missing(TOO_FLAT, exact_ms)
        curve = [fidelity(self._trials.kept(pairs, float(ns))) for ns in times_ns]
        level = _level(law, curve)
        crossing = None if level is None else self._crossing(level)
        if crossing is None:
            return missing(TOO_FLAT, exact_ms)
        reason = DRIFT if self.expected.drifts else None
        return Estimate(crossing.value / 1e6, crossing.stderr / 1e6, exact_ms, reason=reason)

    def _locatable(self, law: Numbers, pairs: int) -> bool:
        """Before anything is counted, so that what was drawn does not decide what is shown."""
        x, error = law - HALF, 0.75 / math.sqrt(pairs)  # Three correlators at most.
        spread = float(np.square(x - x.mean()).sum())
        if spread < (SLOPE_ERRORS * error) ** 2:
            return False
        level_error = error * math.sqrt(1.0 / len(x) + float(x.mean()) ** 2 / spread)
        return self.expected.falls_below_ns(HALF - LEVEL_ERRORS * level_error) is not None

    def _crossing(self, level: Mean) -> Mean | None:
        """When the law has this level.

        The error is the longest way to the times of levels that are an error, or half that to those
        that are two errors, off: the law may be curved, and stepped by pulses.  None if it never
        falls so far.
        """
        ways = (0.0, -2.0, -1.0, 1.0, 2.0)
        times_ns = [self.expected.falls_below_ns(level.value + n * level.stderr) for n in ways]
        known = [ns for ns in times_ns if ns is not None]
        if len(known) < len(ways):
            return None
        value = known[0]
        spread = max(abs(ns - value) / abs(n) for n, ns in zip(ways[1:], known[1:], strict=True))
        # On a step all of them may be the same: no less than by the mean slope until then.
        fallen = self.expected.fidelity(0.0) - level.value
        return Mean(value, max(spread, value * level.stderr / fallen if fallen > 0.0 else 0.0))

    def next_pair(self) -> dict[str, Estimate]:
        """Fidelity of pairs that were kept until the next herald came."""
        names = ("fidelity_next_pair", "fidelity_next_pair_window")
        if not self.expected.stores:
            return dict.fromkeys(names, missing(KEEPS_NOTHING))
        window = self.experiment.preset.storage.window_ns
        window_ns = math.inf if window is None else window.value
        counts, within = self._trials.until_next(self.others, window_ns)
        found = [self._beside(fidelity(counts), self.expected.until_next())]
        if window is None:
            found.append(missing("storage.window_ns is not given"))
        else:
            exact = self.expected.until_next(window_ns)
            found.append(self._within(within, exact))
        return dict(zip(names, found, strict=True))

    def _within(self, counts: Counts, exact: float | None) -> Estimate:
        if counts.sum(axis=1).min() == 0:
            known = None if self.expected.drifts else exact
            return missing("too few pairs had a successor within storage.window_ns", known)
        return self._beside(fidelity(counts), exact)

    # Bell values

    def chsh(self) -> dict[str, Estimate]:
        """S, its correlators e00 to e11, and the share of rounds that they are counted from."""
        played = self._trials.play(self.pairs, TEST_SETTINGS)
        answered = proportion(int(played.answered.sum()), played.rounds)
        found = {"answered": self._beside(Mean(*answered), self.expected.answered())}
        if played.answered.min() == 0:
            return found | dict.fromkeys(("s", *CORRELATORS), missing(UNANSWERED))
        exact = self.experiment.bell_correlators()
        value = variance = 0.0
        for index, (x, y) in enumerate(TEST_SETTINGS):
            share, error = proportion(int(played.different[index]), int(played.answered[index]))
            one = Mean(1.0 - 2.0 * share, 2.0 * error)
            found[f"e{x}{y}"] = self._beside(one, float(exact[x, y]))
            value += -one.value if x and y else one.value
            variance += one.stderr**2
        found["s"] = self._beside(Mean(value, math.sqrt(variance)), self.experiment.chsh())
        return found

    def qber(self) -> Estimate:
        played = self._trials.play(round(KEY_RUN * self.pairs), KEY_SETTINGS)
        different, answered = int(played.different.sum()), int(played.answered.sum())
        if answered == 0:
            return missing(UNANSWERED)
        return self._beside(Mean(*proportion(different, answered)), self.experiment.qber())

    def _beside(self, found: Mean, exact: float | None) -> Estimate:
        """With the exact value, unless drift touches it."""
        if self.expected.drifts:
            return Estimate(found.value, found.stderr, None, reason=DRIFT)
        return Estimate(found.value, found.stderr, exact)


def _scaled(value: float, share: float, exact: float) -> Estimate:
    """`share`: the relative standard error."""
    return Estimate(value, value * share, exact)


def _times(one: Estimate, factor: float) -> Estimate:
    assert one.value is not None and one.stderr is not None and one.exact is not None
    return Estimate(factor * one.value, factor * one.stderr, factor * one.exact)


def _level(law: Numbers, curve: list[Mean]) -> Mean | None:
    """Where on the law's scale a line through counted fidelities has 0.5; None if the line is not
    known well enough to say."""
    counted, errors = (np.array(column) for column in zip(*curve, strict=True))
    line, covariance = np.polyfit(law - HALF, counted - HALF, 1, w=1.0 / errors, cov="unscaled")
    slope, offset = (float(one) for one in line)
    if slope < SLOPE_ERRORS * math.sqrt(float(covariance[0, 0])):
        return None
    root = -offset / slope
    powers = np.array([root, 1.0])
    return Mean(HALF + root, math.sqrt(float(powers @ covariance @ powers)) / slope)
