"""What a link's figures would come to in endless runs: closed forms, and exact sums over them.

Drift is left out throughout, and leaves none of what it touches: see `Expectations.drifts`.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.correlations import BELL_SIGNS
from bellhop.hal.experiment import Experiment
from bellhop.hal.operations import Side
from bellhop.hal.states import coherence
from bellhop.hal.storage import Keeping

Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]

STORED_NS_MAX = 1e15
ROUNDING = 1e-9
"""A level that is reached by less than this is not crossed."""

BISECTIONS = 60
STEPS_MAX = 4_000
"""More steps than these to the next herald are taken at so many quantiles of their law."""

TAIL = 30.0
"""Waiting times beyond so many mean ones are left out: exp(-30) of all."""


class Expectations:
    """Of one experiment; times count from when both halves are ready to be kept."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self.stores = any(experiment.has_memory(side) for side in Side)
        self.drifts = not experiment.drift.off

    # States

    def fidelities(self, stored_ns: Numbers) -> Numbers:
        """Of pairs kept so long, shape (...)."""
        return self._experiment.fidelity(*self._ages_ns(stored_ns))

    def fidelity(self, stored_ns: float) -> float:
        return float(self.fidelities(np.asarray(stored_ns)))

    def correlators(self, stored_ns: float) -> tuple[float, float, float]:
        """XX, YY and ZZ, turned so that the announced Bell state has 1."""
        e = self._experiment
        pairs = e.pairs(*self._ages_ns(np.asarray(stored_ns)))
        turned = np.diagonal(pairs, axis1=-2, axis2=-1) * BELL_SIGNS[e.announced]
        _, xx, yy, zz = (float(one) for one in e.shares @ turned)
        return xx, yy, zz

    def answered(self) -> float:
        """The share of rounds that both ends answer; no loss depends on the settings."""
        e = self._experiment
        kept = e.shares @ e.probabilities()[:, 0, 0, :2, :2].sum(axis=(-2, -1))
        return float(kept) * math.prod(1.0 - e.no_answer_probability(side) for side in Side)

    def _ages_ns(self, stored_ns: Numbers) -> tuple[Numbers, Numbers]:
        """Of both sides' qubits; detectors keep nothing."""
        e = self._experiment
        a, b = (e.kept_from_ns[side] + stored_ns * e.has_memory(side) for side in Side)
        return a, b

    # Times

    def falls_below_ns(self, level: float) -> float | None:
        """When a kept pair's fidelity does; 0 if it starts there, None if it never does."""
        if self.fidelity(STORED_NS_MAX) > level - ROUNDING:
            return None
        return _falls_below(self.fidelity, level)

    def coherence_ns(self) -> float:
        """When dephasing of both memories has brought the pair's coherence to 1/e."""
        e = self._experiment
        keepings = [e.storage[side].memory for side in Side if e.has_memory(side)]
        return _falls_below(lambda ns: _coherence(keepings, ns), math.exp(-1.0)) or math.inf

    # The next pair

    def until_next(self, window_ns: float = math.inf) -> float | None:
        """The mean fidelity of pairs kept until the next herald, if that comes within the window;
        None if none can.

        Steps to the next herald are geometric; how many coolings fall in between depends on where
        in its turn a pair came, and all places are alike.  Calibrations never come in between.
        """
        schedule = replace(self._experiment.schedule, calibration_every_ns=None)
        steps, chances = self._steps(window_ns)
        stored_ns, shares = schedule.between_ns(steps)
        weights = shares * chances * (stored_ns <= window_ns)
        met = weights > 0.0
        if not met.any():
            return None
        fidelities = self.fidelities(stored_ns[met].astype(np.float64))
        return float(np.average(fidelities, weights=weights[met]))

    def _steps(self, window_ns: float) -> tuple[Whole, Numbers]:
        """How many attempts until the next herald, and how likely, up to a common factor."""
        success = self._experiment.success_probability
        rate = -math.log1p(-success) if success < 1.0 else math.inf
        longest = max(1.0, math.ceil(TAIL / rate))
        last = int(min(longest, window_ns // self._experiment.schedule.period_ns))
        if last <= STEPS_MAX:
            steps = np.arange(1, last + 1)
            return steps, np.exp(-rate * (steps - 1)) if success < 1.0 else np.ones(last)
        u = (np.arange(STEPS_MAX) + 0.5) / STEPS_MAX * -math.expm1(-rate * last)
        drawn = np.ceil(-np.log1p(-u) / rate).astype(np.int64)
        return np.clip(drawn, 1, last), np.ones(STEPS_MAX)


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
