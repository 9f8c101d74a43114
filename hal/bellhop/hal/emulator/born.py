"""Born's rule pair by pair, where pairs differ: by age, by drift, by what their halves waited.

The end that is asked first answers from its own half's state.  That leaves the other half in a
state of its own, by the first end's setting and outcome, from which the second end answers.  The
joint law is P(a, b) = (1/4) e_a^T R e_b whoever is asked first (see `correlations`), and the first
end's outcomes cannot depend on the second's settings.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.correlations import Correlations, Effect
from bellhop.hal.experiment import LOST, Experiment
from bellhop.hal.operations import Side

Rounds = NDArray[np.uint8]
Chances = NDArray[np.float64]
PerRound = NDArray[np.float32] | NDArray[np.float64]

NOTHING_KNOWN = np.array([2.0, 0.0, 0.0, 0.0])
"""The identity as an effect: whatever happened to the qubit."""


@dataclass(frozen=True, slots=True, eq=False)
class Hidden:
    """What is of each pair alone, (n,) each, and told to nobody; None where pairs do not differ.

    `age_a_ns`, `age_b_ns`: at the measurement, if not the experiment's `measured_ns`; `wait_a_ns`,
    `wait_b_ns`: what comes on top, see `ages`.  The rest is `drift.Wander`'s.
    """

    age_a_ns: PerRound | None = None
    age_b_ns: PerRound | None = None
    phase: PerRound | None = None
    overlap: PerRound | None = None
    tilt_a: PerRound | None = None
    tilt_b: PerRound | None = None
    wait_a_ns: PerRound | None = None
    wait_b_ns: PerRound | None = None

    @property
    def bytes(self) -> int:
        """Two columns may be one array."""
        arrays = {
            id(array): array
            for one in fields(self)
            if (array := getattr(self, one.name)) is not None
        }
        return sum(array.nbytes for array in arrays.values())

    def age_ns(self, side: Side) -> PerRound | None:
        return self.age_a_ns if side is Side.A else self.age_b_ns

    def wait_ns(self, side: Side) -> PerRound | None:
        return self.wait_a_ns if side is Side.A else self.wait_b_ns

    def tilt(self, side: Side) -> PerRound | None:
        return self.tilt_a if side is Side.A else self.tilt_b


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What was asked of one end's halves, and what they answered: 0, 1 or `LOST`."""

    side: Side
    settings: Rounds
    outcomes: Rounds


class PairByPair:
    """An experiment's pairs, answered one by one but in arrays."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._effects = {side: experiment.effects(side)[:, 1] for side in Side}
        self._lossy = {side: self._loses(side) for side in Side}
        correlations = experiment.correlations
        self._announced = len(correlations)
        coherent = np.zeros_like(correlations)
        coherent[:, 1:3, 1:3] = correlations[:, 1:3, 1:3]
        self._correlations, self._coherent = correlations, coherent
        # A photon at an end is tilted after what its partner's memory in the node has suffered.
        self._tilt_last = experiment.scheme == "repeater-node"

    def answer(
        self,
        side: Side,
        patterns: Rounds,
        settings: Rounds,
        uniforms: Chances,
        hidden: Hidden,
        first: Answers | None = None,
    ) -> Rounds:
        """The outcomes 0, 1 and `LOST` at one end; `first`: the other end's, if it was asked."""
        half = self._half(side, patterns, hidden, first)
        scale = np.divide(0.5, half[:, 0], out=np.zeros(len(half)), where=half[:, 0] > 0.0)
        one = self._aged(side, self._effects[side].take(settings, axis=0), hidden)
        outcomes = (uniforms < _dot(one, half) * scale).view(np.uint8)
        if self._lossy[side]:
            kept = self._aged(side, NOTHING_KNOWN[None], hidden)
            outcomes[uniforms >= _dot(kept, half) * scale] = LOST
        return outcomes

    def _loses(self, side: Side) -> bool:
        """Whether a half may decay out of its qubit; if so, sooner or later it does."""
        kept = self._experiment.storage[side].aged(NOTHING_KNOWN, np.asarray(1e18))
        return not np.array_equal(kept, NOTHING_KNOWN)

    def _half(
        self, side: Side, patterns: Rounds, hidden: Hidden, first: Answers | None
    ) -> NDArray[np.float64]:
        """The halves' states up to their norm, as r_j = Tr(rho sigma_j): (n, 4)."""
        if first is None:
            own = self._correlations[:, :, 0] if side is Side.A else self._correlations[:, 0]
            return np.asarray(own.take(patterns, axis=0), dtype=np.float64)
        assert first.side is not side, "an end is asked once"
        effect = self._effect_of(first, hidden)
        if hidden.overlap is None:
            return self._left(side, patterns, effect, self._correlations)
        fixed = self._left(side, patterns, effect, self._correlations - self._coherent)
        moving = self._left(side, patterns, effect, self._coherent)
        return fixed + moving * hidden.overlap[:, None]

    def _left(
        self, side: Side, patterns: Rounds, effect: Effect, correlations: Correlations
    ) -> NDArray[np.float64]:
        """What the other end's `effect` (n, 4) leaves of halves with these correlations."""
        turned = correlations if side is Side.B else correlations.swapaxes(-1, -2)
        if self._announced == 1:
            return np.asarray(effect @ turned[0], dtype=np.float64)
        candidates = effect @ np.concatenate(turned, axis=1)
        index = np.arange(len(effect), dtype=np.intp)
        index *= self._announced
        index += patterns
        return np.asarray(candidates.reshape(-1, 4).take(index, axis=0), dtype=np.float64)

    def _effect_of(self, answers: Answers, hidden: Hidden) -> Effect:
        """The effects of outcomes that came, at emission."""
        side = answers.side
        one = self._aged(side, self._effects[side].take(answers.settings, axis=0), hidden)
        kept = NOTHING_KNOWN[None]
        if self._lossy[side]:
            kept = self._aged(side, kept, hidden)
        effect = np.where((answers.outcomes == 1)[:, None], one, kept - one)
        if self._lossy[side]:
            effect = np.where((answers.outcomes == LOST)[:, None], NOTHING_KNOWN - kept, effect)
        return effect

    def _aged(self, side: Side, effects: Effect, hidden: Hidden) -> Effect:
        """Effects (n, 4) at the measurement as they are at emission."""
        if self._tilt_last:
            return self._stored(side, _tilted(effects, hidden.tilt(side)), hidden)
        aged = _tilted(self._stored(side, effects, hidden), hidden.tilt(side))
        if side is Side.A and hidden.phase is not None:
            aged = _turned(aged, hidden.phase)
        return aged

    def _stored(self, side: Side, effects: Effect, hidden: Hidden) -> Effect:
        age_ns = hidden.age_ns(side)
        if age_ns is None:
            age_ns = np.asarray(self._experiment.measured_ns[side])
        waited_ns = hidden.wait_ns(side)
        return self._experiment.aged(side, effects, age_ns, waited_ns)


def _dot(effects: Effect, half: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ni,ni->n", np.broadcast_to(effects, half.shape), half))


def _tilted(effects: Effect, tilt: PerRound | None) -> Effect:
    """The polarisation turned by `tilt`, hence the Bloch vector about Y by twice that."""
    if tilt is None:
        return effects
    cosine, sine = np.cos(2.0 * tilt), np.sin(2.0 * tilt)
    x, z = effects[:, 1], effects[:, 3]
    columns = (effects[:, 0], x * cosine - z * sine, effects[:, 2], z * cosine + x * sine)
    return np.stack(np.broadcast_arrays(*columns), axis=1)


def _turned(effects: Effect, phase: PerRound) -> Effect:
    """The light's phase off by `phase`: the Bloch vector turned about Z."""
    cosine, sine = np.cos(phase), np.sin(phase)
    x, y = effects[:, 1], effects[:, 2]
    columns = (effects[:, 0], x * cosine + y * sine, y * cosine - x * sine, effects[:, 3])
    return np.stack(np.broadcast_arrays(*columns), axis=1)
