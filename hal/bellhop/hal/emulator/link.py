"""The physics of one link: when attempts succeed, and what two halves of a pair answer.

Nothing here knows a node, a request or a clock: chance comes in as arrays of uniform numbers, one
entry a round, and what happens in a round depends on that round's entries alone.  So a device that
answers a whole block at once still sees one setting at a time: its answer to round i is the same
whatever the settings of later rounds are.

How old a half is when it is measured depends on the preset and on which attempts and modes gave the
pair (see `ages`), never on which end's order came first: otherwise an end could read off its own
half's losses whether the other has measured.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.drift import Drifted
from bellhop.hal.emulator.born import Answers, Hidden, PairByPair, Rounds
from bellhop.hal.experiment import LOST, Experiment
from bellhop.hal.operations import Side
from bellhop.hal.preset import Preset
from bellhop.hal.sampling import Draw

OUTCOMES = 3
"""0, 1 and `LOST`."""


@dataclass(frozen=True, slots=True, eq=False)
class Heralds:
    """The heralds of one block.

    `attempts`: their numbers within the block (rising, from 0).  `patterns`: indices into the
    link's announced states.  `lead_ns`: from the end of the attempt before the block's first one to
    that one's start, cooling or calibration; `duration_ns`: from then to the end of the last one.
    `hidden`: what differs from pair to pair beside, and nobody is told.
    """

    attempts: NDArray[np.int64]
    patterns: Rounds
    lead_ns: int
    duration_ns: int
    hidden: Hidden | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a link stands between two blocks: attempts made, and the drift's state."""

    attempts: int = 0
    drift: Drifted | None = None


class Past:
    """What a link's next heralds depend on of those before: the moment that they led to.

    Pauses and drift have chance of their own: they move no draw of heralds and outcomes.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self.pauses, self.wandering = generator.spawn(2)
        self.attempts = 0
        self.drift: Drifted | None = None

    @property
    def moment(self) -> Moment:
        return Moment(self.attempts, self.drift)

    def go_back(self, moment: Moment, attempts: int) -> None:
        """So many attempts were made since, and what was to come after them will not."""
        self.attempts, self.drift = moment.attempts + attempts, moment.drift


class LinkPhysics:
    """One link's preset, made ready for drawing.

    `announced`: the `BellState` that each pattern index stands for.
    """

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        self.experiment = Experiment(preset)
        self.announced: Rounds = self.experiment.announced
        self._thresholds = [float(t) for t in np.cumsum(self.experiment.shares)[:-1]]
        waits = self.experiment.ages.waits
        self._waiting = bool(waits.a_ns.any() or waits.b_ns.any())
        self._drifting = not self.experiment.drift.off
        self._pair_by_pair = PairByPair(self.experiment)
        tables = self.experiment.probabilities()
        self._first = {side: _Tables(_marginals(tables, side)) for side in Side}
        self._second = {side: _Tables(_conditionals(tables, side)) for side in Side}

    @property
    def ends_at_a_detector(self) -> bool:
        """Whether an end has no memory, so that the click there is the herald."""
        return not all(self.experiment.has_memory(side) for side in Side)

    def settings(self, side: Side) -> int:
        return len(self.experiment.angles[side])

    def no_answer_probability(self, side: Side) -> float:
        return self.experiment.no_answer_probability(side)

    def herald(self, generator: np.random.Generator, rounds: int, past: Past) -> Heralds:
        """The next `rounds` heralds.  Raises ConfigError if they would take centuries."""
        schedule = self.experiment.schedule
        draw = self.experiment.law.draw(generator, rounds)
        drawn = generator.random(rounds)
        patterns = np.zeros(rounds, dtype=np.uint8)
        for threshold in self._thresholds:
            patterns += drawn >= threshold
        before, last = past.attempts, int(draw.attempts[-1])
        starts = schedule.start_ns(np.array([before], dtype=np.int64))
        ends = schedule.end_ns(np.array([max(before - 1, 0), before + last], dtype=np.int64))
        active = schedule.active_ns(np.array([before, before + last], dtype=np.int64))
        active_ns = int(active[1] - active[0]) + schedule.period_ns
        reload_ns = schedule.reload_ns(past.pauses, active_ns)
        hidden = self._hidden(draw, before, past)
        past.attempts = before + last + 1
        return Heralds(
            draw.attempts,
            patterns,
            int(starts[0] - ends[0]) if before else 0,
            int(ends[1] - starts[0]) + reload_ns,
            hidden,
        )

    def answer(
        self,
        side: Side,
        patterns: Rounds,
        settings: Rounds,
        uniforms: NDArray[np.float64],
        hidden: Hidden | None = None,
        first: Answers | None = None,
    ) -> Rounds:
        """The outcomes 0, 1 and `LOST` of one end.

        `first`: what the other end was asked and answered, if it was; that left this end's halves
        in the states that Born's rule is applied to.
        """
        if hidden is not None:
            return self._pair_by_pair.answer(side, patterns, settings, uniforms, hidden, first)
        index = patterns.astype(np.intp)
        if first is not None:
            index *= self.settings(side.other)
            index += first.settings
            index *= OUTCOMES
            index += first.outcomes
        index *= self.settings(side)
        index += settings
        tables = self._first[side] if first is None else self._second[side]
        return tables.answer(index, uniforms)

    def _hidden(self, draw: Draw, before: int, past: Past) -> Hidden | None:
        """What differs from pair to pair; `before`: the number of the draw's first attempt."""
        experiment = self.experiment
        hidden = None
        if self._drifting:
            times_ns = experiment.schedule.end_ns(before + draw.attempts)
            wander, past.drift = experiment.drift.draw(past.wandering, times_ns, past.drift)
            tilts = (_single(tilt) for tilt in (wander.tilt_a, wander.tilt_b))
            hidden = Hidden(None, None, _single(wander.phase), _single(wander.overlap), *tilts)
        if self._waiting:
            a_ns, b_ns = experiment.ages.drawn(draw, experiment.schedule, before)
            at_a = _single(a_ns)
            at_b = at_a if b_ns is a_ns else _single(b_ns)
            hidden = replace(hidden or Hidden(), wait_a_ns=at_a, wait_b_ns=at_b)
        return hidden


def _single(column: NDArray[np.float64] | None) -> NDArray[np.float32] | None:
    """Seven digits are enough, and half as long."""
    return None if column is None else column.astype(np.float32)


class _Tables:
    """P(1), and P(not lost), flat over whatever outcomes depend on."""

    def __init__(self, probabilities: NDArray[np.float64]) -> None:
        """From P(0), P(1), P(lost) in the last axis."""
        flat = probabilities.reshape(-1, OUTCOMES)
        self._ones = np.ascontiguousarray(flat[:, 1])
        # Rounding must not lose a half where nothing decays.
        self._kept = None if flat[:, LOST].max() < 1e-14 else flat[:, 0] + flat[:, 1]

    def answer(self, index: NDArray[np.intp], uniforms: NDArray[np.float64]) -> Rounds:
        outcomes = (uniforms < self._ones.take(index)).view(np.uint8)
        if self._kept is not None:
            outcomes[uniforms >= self._kept.take(index)] = LOST
        return outcomes


def _marginals(joint: NDArray[np.float64], side: Side) -> NDArray[np.float64]:
    """P(outcome) by (pattern, own setting); the other's setting makes no difference to it."""
    if side is Side.A:
        return np.asarray(joint[:, :, 0].sum(axis=-1))
    return np.asarray(joint[:, 0].sum(axis=-2))


def _conditionals(joint: NDArray[np.float64], side: Side) -> NDArray[np.float64]:
    """P(outcome) by (pattern, the other's setting, the other's outcome, own setting)."""
    order = (0, 1, 3, 2, 4) if side is Side.B else (0, 2, 4, 1, 3)
    turned = joint.transpose(order)
    seen = turned.sum(axis=-1, keepdims=True)
    conditional = np.divide(turned, seen, out=np.zeros_like(turned), where=seen > 0.0)
    return np.asarray(conditional, dtype=np.float64)
