"""The runs by which a link is characterised: each counts a figure, with its standard error."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bellhop.hal.correlations import BELL_SIGNS
from bellhop.hal.figures import Figure
from bellhop.hal.heralding import halves
from bellhop.hal.operations import Side
from bellhop.hal.states import coherence
from bellhop.hal.statistics import correlation, proportion
from bellhop.hal.storage import Keeping
from bellhop.hal.trials import AXES, Mean, Numbers, Trials, fidelity, mean

OTHER_RUNS = 2
"""Other runs have the CHSH run's pairs over this."""

CURVE_POINTS = 9
CURVE_WIDTH = 0.2
"""The crossing of 0.5 is sought in fidelities after so many storage times, so much of it around."""

STORED_NS_MAX = 1e15
QUANTILES = 20_000
HALF = 0.5
BISECTIONS = 60

TEST_SETTINGS = ((0, 0), (0, 1), (1, 0), (1, 1))
KEY_SETTINGS = ((0, 2),)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure: counted, with its standard error; exact, if there is a closed form; published.

    `value` is None where the figure does not exist for this link, as how long detectors keep.
    """

    value: float | None = None
    stderr: float | None = None
    exact: float | None = None
    published: Figure | None = None

    @property
    def apart(self) -> float | None:
        """How many standard errors, counted and published together, value and published are apart;
        None if one is missing, or the published error is."""
        if self.value is None or self.published is None or self.published.error is None:
            return None
        error = math.hypot(self.stderr or 0.0, self.published.error)
        return (self.value - self.published.value) / error if error > 0.0 else None


NOT_HERE = Estimate()


class Runs:
    """A link under test; every run has pairs of its own."""

    def __init__(self, trials: Trials, pairs: int) -> None:
        self.experiment = trials.experiment
        self.pairs = pairs
        self.others = max(3 * len(AXES), pairs // OTHER_RUNS)
        self._trials = trials
        self.stores = any(self.experiment.has_memory(side) for side in Side)

    # Rates

    def rates(self, generator: np.random.Generator) -> dict[str, Estimate]:
        """What heralds come to while attempts run, and over all time."""
        e = self.experiment
        draw = e.law.draw(generator, self.pairs)
        gaps = np.diff(draw.attempts, prepend=-1)
        share = float(gaps.std(ddof=1) / gaps.mean()) / math.sqrt(self.pairs)
        attempts, last = int(draw.attempts[-1]) + 1, draw.attempts[-1:]
        active_ns = int(e.schedule.active_ns(last)[0])
        all_ns = int(e.schedule.end_ns(last)[0]) + e.schedule.reload_ns(generator, active_ns)
        reloads = sum(active_ns / every * each**2 for every, each in e.schedule.losses)
        paused_share = math.hypot(share, math.sqrt(reloads) / all_ns)
        # Attempts come by a clock; only the turn in which the run ends is cut off at any point.
        turn_share = e.schedule.turn_ns / active_ns / math.sqrt(12.0)
        efficiency, gain = self._per_link_efficiency(), self._per_gain()
        success, per_s = self.pairs / attempts, 1e9 * self.pairs / active_ns
        return {
            "attempts_per_s": _scaled(
                1e9 * attempts / active_ns, turn_share, e.schedule.attempts_per_s
            ),
            "success_probability": _scaled(success, share, e.success_probability),
            "pairs_per_s": _scaled(per_s, share, e.pairs_per_s),
            "pairs_per_s_with_pauses": _scaled(
                1e9 * self.pairs / all_ns, paused_share, e.pairs_per_s_with_pauses
            ),
            "link_efficiency": _scaled(per_s, share, e.pairs_per_s, efficiency),
            "gain_over_no_memory": _scaled(success, share, e.success_probability, gain),
        }

    def _per_link_efficiency(self) -> float | None:
        """Rate times the pair's coherence time: the quantum link efficiency of P. C. Humphreys et
        al., Nature 558, 268 (2018)."""
        kept_ns = self.coherence_ns()
        return kept_ns / 1e9 if self.stores and math.isfinite(kept_ns) else None

    def _per_gain(self) -> float | None:
        if self.experiment.scheme != "repeater-node":
            return None
        p_a, p_b = halves(self.experiment.preset, self.experiment.schedule.modes)
        return 1.0 / (p_a * p_b)

    def coherence_ns(self) -> float:
        """When dephasing of both memories has brought the pair's coherence to 1/e."""
        storage = self.experiment.storage
        keepings = [storage[side].memory for side in Side if self.experiment.has_memory(side)]
        return _falls_below(lambda ns: _coherence(keepings, ns), math.exp(-1.0)) or math.inf

    # States

    def fidelity(self) -> dict[str, Estimate]:
        """The fidelity, and the correlators xx, yy and zz that it comes from."""
        products = self._trials.kept(self.others)
        exact = self._exact_correlators(0.0)
        found = {"fidelity": _beside(fidelity(products), self.exact_fidelity(0.0))}
        for name, axis in AXES.items():
            along = mean(products.value[products.axis == axis].astype(np.float64))
            found[name] = _beside(along, None if exact is None else exact[axis - 1])
        return found

    def after(self, stored_ms: float) -> tuple[Estimate, Estimate]:
        """Fidelity, and coherence (the mean of XX and YY), of pairs kept for so long."""
        if not self.stores:
            return NOT_HERE, NOT_HERE
        stored_ns = 1e6 * stored_ms
        products = self._trials.kept(self.others, stored_ns)
        exact = self._exact_correlators(stored_ns)
        across = products.value[products.axis < AXES["zz"]]
        return (
            _beside(fidelity(products), self.exact_fidelity(stored_ns)),
            _beside(
                mean(across.astype(np.float64)),
                None if exact is None else (exact[0] + exact[1]) / 2.0,
            ),
        )

    def half_ms(self) -> Estimate:
        """Where a parabola through counted fidelities falls below 0.5.

        The exact law only says where to look, as a first glance at data would.  None if it never
        does, and if there are too few pairs to say.
        """
        crossing_ns = self.crossing_ns()
        if not crossing_ns:
            return NOT_HERE
        x = np.linspace(-CURVE_WIDTH, CURVE_WIDTH, CURVE_POINTS)
        pairs = max(3 * len(AXES), self.others // 2)
        curve = [fidelity(self._trials.kept(pairs, crossing_ns * (1.0 + one))) for one in x]
        values, errors = (np.array(column) for column in zip(*curve, strict=True))
        found = _root(x, values - HALF, errors)
        if found is None:
            return NOT_HERE
        around_ms = crossing_ns / 1e6
        exact_ms = None if self._drifts else around_ms
        return Estimate(around_ms * (1.0 + found.value), around_ms * found.stderr, exact_ms)

    def next_pair(self) -> dict[str, Estimate]:
        """Fidelity of pairs that were kept until the next herald came."""
        names = ("fidelity_next_pair", "fidelity_next_pair_window")
        if not self.stores:
            return dict.fromkeys(names, NOT_HERE)
        products = self._trials.until_next(self.others)
        estimates = [_beside(fidelity(products), self._exact_until_next(math.inf)), NOT_HERE]
        window = self.experiment.preset.storage.window_ns
        if window is not None:
            within = products.among(products.stored_ns <= window.value)
            if len(within.value) >= len(AXES):
                exact = self._exact_until_next(window.value)
                estimates[1] = _beside(fidelity(within), exact)
        return dict(zip(names, estimates, strict=True))

    # Bell values

    def chsh(self) -> dict[str, Estimate]:
        """S, and its correlators e00 to e11."""
        played = self._trials.play(self.pairs, TEST_SETTINGS)
        found: dict[str, Estimate] = {}
        value = variance = 0.0
        for x, y in TEST_SETTINGS:
            among = (played.x == x) & (played.y == y)
            one, error = correlation(played.a[among], played.b[among])
            found[f"e{x}{y}"] = Estimate(one, error)
            value += -one if x and y else one
            variance += error**2
        exact = None if self._drifts else self.experiment.chsh()
        return {"s": Estimate(value, math.sqrt(variance), exact), **found}

    def qber(self) -> Estimate:
        played = self._trials.play(self.others, KEY_SETTINGS)
        found = proportion(int(np.count_nonzero(played.a ^ played.b)), len(played.a))
        return Estimate(*found, None if self._drifts else self.experiment.qber())

    # Exact values

    def crossing_ns(self) -> float | None:
        """Where a kept pair's fidelity falls below 0.5, drift left out; None if it never does."""
        return _falls_below(self._fidelity_without_drift, HALF) if self.stores else None

    @property
    def _drifts(self) -> bool:
        return not self.experiment.drift.off

    def exact_fidelity(self, stored_ns: float) -> float | None:
        """Of a pair kept so long after its herald; None where drift leaves no closed form."""
        return None if self._drifts else self._fidelity_without_drift(stored_ns)

    def _fidelity_without_drift(self, stored_ns: float) -> float:
        return float(self._fidelities(np.asarray(stored_ns)))

    def _fidelities(self, stored_ns: Numbers) -> Numbers:
        return self.experiment.fidelity(*self._ages_ns(stored_ns))

    def _exact_correlators(self, stored_ns: float) -> tuple[float, ...] | None:
        """XX, YY and ZZ, turned so that the announced Bell state has 1."""
        if self._drifts:
            return None
        e = self.experiment
        pairs = e.pairs(*self._ages_ns(np.asarray(stored_ns)))
        turned = np.diagonal(pairs, axis1=-2, axis2=-1) * BELL_SIGNS[e.announced]
        return tuple(float(one) for one in (e.shares @ turned)[1:])

    def _ages_ns(self, stored_ns: Numbers) -> tuple[Numbers, Numbers]:
        """Of both sides' qubits, kept so long after their herald; detectors keep nothing."""
        e = self.experiment
        a, b = (e.herald_wait_ns[s] + stored_ns * e.has_memory(s) for s in Side)
        return a, b

    def _exact_until_next(self, window_ns: float) -> float | None:
        """Mean over the waiting time's law, at its quantiles: geometric steps of a mean attempt."""
        if self._drifts:
            return None
        e = self.experiment
        failing, attempt_ns = math.log1p(-e.success_probability), 1e9 / e.schedule.attempts_per_s
        within = -math.expm1(failing * (window_ns / attempt_ns))
        u = (np.arange(QUANTILES) + 0.5) / QUANTILES * within
        steps = np.ceil(np.log1p(-u) / failing)
        return float(self._fidelities(steps * attempt_ns).mean())


def _scaled(value: float, share: float, exact: float, factor: float | None = 1.0) -> Estimate:
    """`share`: the relative standard error.  Without a factor there is no such figure."""
    if factor is None:
        return NOT_HERE
    return Estimate(factor * value, factor * value * share, factor * exact)


def _beside(found: Mean, exact: float | None) -> Estimate:
    return Estimate(found.value, found.stderr, exact)


def _falls_below(curve: Callable[[float], float], level: float) -> float | None:
    """Where a falling curve of times from 0 crosses `level`, in ns; 0 if it starts below it, None
    if it stays above for as long as anyone would wait."""
    if curve(0.0) < level:
        return 0.0
    after = 1.0
    while curve(after) >= level:
        after *= 2.0
        if after > STORED_NS_MAX:
            return None
    before = 0.0
    for _ in range(BISECTIONS):
        middle = (before + after) / 2.0
        before, after = (middle, after) if curve(middle) >= level else (before, middle)
    return after


def _coherence(keepings: list[Keeping], stored_ns: float) -> float:
    parts = (coherence(stored_ns, one.coherence_ns, one.shape) for one in keepings)
    return math.prod(float(part) for part in parts)


def _root(x: Numbers, y: Numbers, stderr: Numbers) -> Mean | None:
    """Where the parabola through (x, y) falls below 0 nearest to x = 0, with its standard error
    from those of y; None if it does nowhere near."""
    coefficients, covariance = np.polyfit(x, y, 2, w=1.0 / stderr, cov="unscaled")
    slope = np.polyder(coefficients)
    roots = [float(root.real) for root in np.roots(coefficients) if abs(root.imag) < 1e-12]
    falling = [r for r in roots if np.polyval(slope, r) < 0.0 and abs(r) <= 2.0 * x.max()]
    if not falling:
        return None
    root = min(falling, key=abs)
    powers = np.array([root**2, root, 1.0])
    spread = math.sqrt(float(powers @ covariance @ powers))
    return Mean(root, spread / abs(float(np.polyval(slope, root))))
