"""Heralded pairs of an emulated link, measured as its nodes would and ideally along Pauli axes.

The emulator answers in the XZ plane with the device's readout errors, as soon as the protocol
allows.  Experiments quote fidelities from XX, YY and ZZ, corrected for readout, and of pairs that
were kept for a while: so pairs are measured here along those axes, and at any age, too.

Pairs are made and measured block by block, and only counted: no run needs more memory than a block.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bellhop.hal.correlations import BELL_SIGNS, Effect
from bellhop.hal.emulator.born import Answers, Hidden, PairByPair
from bellhop.hal.emulator.link import LinkPhysics, Past
from bellhop.hal.experiment import LOST, Experiment
from bellhop.hal.operations import Side
from bellhop.hal.preset import Preset
from bellhop.hal.statistics import framed

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]

AXES = {"xx": 1, "yy": 2, "zz": 3}
VALUES = (-1, 0, 1)

BLOCK_ROUNDS = 65_536
"""Pairs heralded and measured at once."""


class Mean(NamedTuple):
    """A mean over rounds, and its standard error."""

    value: float
    stderr: float


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A block of heralded pairs.

    `attempts` (n,): numbers of the attempts that made them, through all blocks.  `patterns` (n,):
    indices of the states that they announce.  `hidden`: in what they differ beside.
    """

    attempts: NDArray[np.int64]
    patterns: NDArray[np.uint8]
    hidden: Hidden | None

    def __len__(self) -> int:
        return len(self.patterns)


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """Rounds that both ends answered, and those of them whose outcomes differed once flipped as
    the herald says, by setting (s,); `rounds` is how many were played."""

    answered: Counts
    different: Counts
    rounds: int


@dataclass(frozen=True, slots=True, eq=False)
class _Products:
    """Pairs measured along one Pauli axis at both ends, (n,) each.

    `axis`: 0 X, 1 Y, 2 Z.  `value`: both ends' +1 or -1 multiplied, and turned by the herald so
    that the announced Bell state has 1; 0 if a half was lost.
    """

    axis: NDArray[np.intp]
    value: NDArray[np.int8]

    def counted(self, among: NDArray[np.bool_] | slice = slice(None)) -> Counts:
        """(3, 3): rows by axis, columns by `VALUES`."""
        index = 3 * self.axis[among] + 1 + self.value[among]
        return np.bincount(index, minlength=9).reshape(3, 3).astype(np.int64)


class PauliAxes(Experiment):
    """The same experiment with ideal devices that measure X, Y and Z: settings 0, 1 and 2."""

    def effects(self, side: Side) -> Effect:
        axes = np.zeros((3, 2, 4))
        axes[..., 0] = 1.0
        for setting, axis in enumerate(AXES.values()):
            axes[setting, :, axis] = 1.0, -1.0
        return axes


class Trials:
    """A link under test, and the chance that its pairs are drawn with."""

    def __init__(self, preset: Preset, generator: np.random.Generator) -> None:
        self.physics = LinkPhysics(preset)
        self.experiment = self.physics.experiment
        self._generator = generator
        self._past = Past(generator)
        self._axes = PairByPair(PauliAxes(preset))

    def blocks(self, pairs: int) -> Iterator[Pairs]:
        """The link's next pairs, so many."""
        for begun in range(0, pairs, BLOCK_ROUNDS):
            before = self._past.attempts
            rounds = min(BLOCK_ROUNDS, pairs - begun)
            heralds = self.physics.herald(self._generator, rounds, self._past)
            yield Pairs(heralds.attempts + before, heralds.patterns, heralds.hidden)

    # As nodes measure

    def play(self, pairs: int, settings: tuple[tuple[int, int], ...]) -> Played:
        """The emulator's answers to the settings (x, y), each in its turn."""
        turns = np.array(settings, dtype=np.uint8)
        answered, different = np.zeros((2, len(turns)), dtype=np.int64)
        for block in self.blocks(pairs):
            turn = np.arange(len(block)) % len(turns)
            x, y = turns[turn].T
            answer = self.physics.answer
            a = answer(Side.A, block.patterns, x, self._chances(block), block.hidden)
            first = Answers(Side.A, x, a)
            b = answer(Side.B, block.patterns, y, self._chances(block), block.hidden, first)
            kept = (a != LOST) & (b != LOST) & self._answers(block)
            announced = self.experiment.announced[block.patterns[kept]]
            framed_a, framed_b = framed(announced, x[kept], a[kept], b[kept])
            answered += np.bincount(turn[kept], minlength=len(turns))
            different += np.bincount(turn[kept][framed_a != framed_b], minlength=len(turns))
        return Played(answered, different, pairs)

    def _answers(self, block: Pairs) -> NDArray[np.bool_]:
        """Whether both readouts gave an answer, whatever the outcome."""
        answers = np.ones(len(block), dtype=np.bool_)
        for side in Side:
            missing = self.experiment.no_answer_probability(side)
            if missing > 0.0:
                answers &= self._chances(block) >= missing
        return answers

    # Along Pauli axes

    def kept(self, pairs: int, stored_ns: float = 0.0) -> Counts:
        """Measured so long after they were ready to be kept, along X, Y and Z in turn: counts
        (3, 3), rows by axis, columns by `VALUES`."""
        counts = np.zeros((3, 3), dtype=np.int64)
        for block in self.blocks(pairs):
            counts += self._measured(block, stored_ns).counted()
        return counts

    def until_next(self, pairs: int, window_ns: float = math.inf) -> tuple[Counts, Counts]:
        """Measured when the next pair of the link is heralded: pauses never come in between.
        All of them, and those whose successor came within the window."""
        counts, within = np.zeros((2, 3, 3), dtype=np.int64)
        for block in self.blocks(pairs + 1):
            if len(block) == 1:
                continue
            # The last pair of a block has its successor in another one, and is left out.
            stored_ns = np.diff(self.experiment.schedule.active_ns(block.attempts))
            waiting = Pairs(block.attempts[:-1], block.patterns[:-1], _but_last(block.hidden))
            products = self._measured(waiting, stored_ns)
            counts += products.counted()
            within += products.counted(stored_ns <= window_ns)
        return counts, within

    def _measured(self, block: Pairs, stored_ns: ArrayLike) -> _Products:
        settings = (np.arange(len(block)) % len(AXES)).astype(np.uint8)
        hidden = self._kept(block.hidden or Hidden(), np.asarray(stored_ns, dtype=np.float64))
        answer = self._axes.answer
        a = answer(Side.A, block.patterns, settings, self._chances(block), hidden)
        first = Answers(Side.A, settings, a)
        b = answer(Side.B, block.patterns, settings, self._chances(block), hidden, first)
        axis = settings.astype(np.intp)
        announced = self.experiment.announced[block.patterns].astype(np.intp)
        value = (BELL_SIGNS[announced, axis + 1] * np.where(a == b, 1, -1)).astype(np.int8)
        value[(a == LOST) | (b == LOST)] = 0
        return _Products(axis, value)

    def _kept(self, hidden: Hidden, stored_ns: Numbers) -> Hidden:
        """Memories keep their halves from when they are ready; detectors keep nothing."""
        e = self.experiment
        a, b = (e.kept_from_ns[side] + stored_ns * e.has_memory(side) for side in Side)
        return replace(hidden, age_a_ns=a, age_b_ns=b)

    def _chances(self, block: Pairs) -> Numbers:
        return self._generator.random(len(block))


def fidelity(counts: Counts) -> Mean:
    """With the announced states, (II + XX + YY + ZZ)/4 turned by the herald, from counts (3, 3).

    Pairs that lost a half count as none: II is the share that did not.
    """
    # Each axis sees a third of II.
    parts = [mean(along, (1.0 / 3.0 - 1.0, 0.0, 1.0 / 3.0 + 1.0)) for along in counts]
    variance = sum(part.stderr**2 for part in parts)
    return Mean(sum(part.value for part in parts) / 4.0, math.sqrt(variance) / 4.0)


def mean(counts: Counts, values: tuple[float, float, float] = VALUES) -> Mean:
    """Of the values that came so often (3,), at least one of them.

    The error is that of one more product of each sign, Laplace's rule: never having seen a thing
    is no certainty.
    """
    number, weights = int(counts.sum()), np.array(values)
    smoothed = counts + np.array([1, 0, 1])
    shares = smoothed / smoothed.sum()
    centre = float(shares @ weights)
    variance = float(shares @ (weights - centre) ** 2)
    return Mean(float(counts @ weights) / number, math.sqrt(variance / number))


def _but_last(hidden: Hidden | None) -> Hidden | None:
    if hidden is None:
        return None
    columns = (getattr(hidden, field.name) for field in fields(hidden))
    return Hidden(*(None if column is None else column[:-1] for column in columns))
