"""The physics of one link: when attempts succeed, and what two halves of a pair answer.

Nothing here knows a node, a request or a clock: chance comes in as arrays of uniform numbers, one
entry a round, and what happens in a round depends on that round's entries alone.  So a device that
answers a whole block at once still sees one setting at a time: its answer to round i is the same
whatever the settings of later rounds are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bellhop.hal import states
from bellhop.hal.operations import Side
from bellhop.hal.preset import Preset

Rounds = NDArray[np.uint8]

LIGHT_IN_FIBRE_M_PER_NS = 0.2041
"""The vacuum's 0.29979 m/ns over the refractive index of silica, about 1.469."""


@dataclass(frozen=True, slots=True)
class Heralds:
    """The heralds of one block: attempt numbers within the block (rising, from 0), patterns as
    indices into the link's announced states, and the time from the block's first attempt to the
    end of its last one."""

    attempts: NDArray[np.int64]
    patterns: Rounds
    duration_ns: int


def other(side: Side) -> Side:
    return Side.B if side is Side.A else Side.A


class LinkPhysics:
    """One link's preset, made ready for drawing.

    `announced`: the `BellState` that each pattern index stands for.
    """

    def __init__(self, preset: Preset) -> None:
        mixture = preset.announced()
        shares = np.array([share for share, _ in mixture.values()])
        self.preset = preset
        self.announced: Rounds = np.array([int(state) for state in mixture], dtype=np.uint8)
        self._thresholds = [float(threshold) for threshold in np.cumsum(shares)[:-1]]
        self._states = np.stack([state for _, state in mixture.values()])
        self._first = {side: self._marginals(side) for side in Side}
        self._second = {side: self._conditionals(side) for side in Side}

    @property
    def announcement_ns(self) -> float:
        """What light takes from the one end by the station to the other."""
        fibre = self.preset.fibre
        return (fibre.length_a_m.value + fibre.length_b_m.value) / LIGHT_IN_FIBRE_M_PER_NS

    def settings(self, side: Side) -> int:
        return len(self.preset.angles(side))

    def herald(self, generator: np.random.Generator, rounds: int) -> Heralds:
        """Attempts are independent: the numbers of the successful rise in geometric steps."""
        success = self.preset.station.success_probability.value
        steps = generator.geometric(success, rounds)
        attempts = np.cumsum(steps, dtype=np.int64) - 1
        drawn = generator.random(rounds)
        patterns = np.zeros(rounds, dtype=np.uint8)
        for threshold in self._thresholds:
            patterns += drawn >= threshold
        return Heralds(attempts, patterns, self._end_ns(int(attempts[-1])))

    def _end_ns(self, attempt: int) -> int:
        """The end of an attempt: whole cycles of attempting and cooling, and a part of one."""
        device = self.preset.device
        period_ns = int(device.attempt_period_ns.value)
        on_ns = int(device.attempts_on_ns.value)
        cycle, within = divmod(attempt, on_ns // period_ns)
        return cycle * (on_ns + int(device.cooling_ns.value)) + (within + 1) * period_ns

    def answer_first(
        self, side: Side, patterns: Rounds, settings: Rounds, uniforms: NDArray[np.float64]
    ) -> Rounds:
        """The outcomes of the side that is measured first, from its own half's state."""
        ones = self._first[side].take(patterns * np.uint8(self.settings(side)) + settings)
        return (uniforms < ones).view(np.uint8)

    def answer_second(
        self,
        side: Side,
        patterns: Rounds,
        settings: Rounds,
        uniforms: NDArray[np.float64],
        *,
        first: tuple[Rounds, Rounds],
    ) -> Rounds:
        """The outcomes of `side`, whose halves waited for the announcement after the others
        answered.

        `first`: the other side's settings and outcomes, which left this half in the state that
        Born's rule is applied to.
        """
        their_settings, their_outcomes = first
        index = patterns.astype(np.intp)
        index *= self.settings(other(side))
        index += their_settings
        index *= 2
        index += their_outcomes
        index *= self.settings(side)
        index += settings
        ones = self._second[side].take(index)
        return (uniforms < ones).view(np.uint8)

    def _effects(self, side: Side) -> states.State:
        return states.effects(self.preset.angles(side), self.preset.readout_error(side))

    def _marginals(self, side: Side) -> NDArray[np.float64]:
        """P(1), flat over (pattern, setting)."""
        effect = self._effects(side)[None, :, 1]
        half = states.remaining(self._states[:, None], side, effect)
        return np.asarray(np.trace(half, axis1=-2, axis2=-1).real.ravel(), dtype=np.float64)

    def _conditionals(self, side: Side) -> NDArray[np.float64]:
        """P(1), flat over (pattern, the other's setting, the other's outcome, own setting)."""
        device = self.preset.device
        kept = states.coherence(
            self.announcement_ns, device.coherence_ns.value, device.coherence_shape
        )
        halves = states.remaining(
            self._states[:, None, None], other(side), self._effects(other(side))[None]
        )
        aged = halves * np.array([[1.0, kept], [kept, 1.0]])
        # Tr(E_1 state) for each own setting, over the probability of what the other end saw.
        ones = np.einsum("psaij,tji->psat", aged, self._effects(side)[:, 1]).real
        seen = np.trace(aged, axis1=-2, axis2=-1).real[..., None]
        ratio = np.divide(ones, seen, out=np.zeros_like(ones), where=seen > 0.0)
        return np.asarray(ratio.ravel(), dtype=np.float64)
