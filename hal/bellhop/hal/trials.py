"""Heralded pairs of an emulated link, measured as its nodes would and ideally along Pauli axes.

The emulator answers in the XZ plane with the device's readout errors, as soon as the protocol
allows.  Experiments quote fidelities from XX, YY and ZZ, corrected for readout, and of pairs that
were kept for a while: so pairs are measured here along those axes, and at any age, too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.correlations import BELL_SIGNS, Effect
from bellhop.hal.emulator.born import Answers, Hidden, PairByPair
from bellhop.hal.emulator.link import LinkPhysics, Past
from bellhop.hal.experiment import LOST, Experiment
from bellhop.hal.operations import Side
from bellhop.hal.preset import Preset
from bellhop.hal.statistics import Outcomes, framed

Numbers = NDArray[np.float64]

AXES = {"xx": 1, "yy": 2, "zz": 3}

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
    """Rounds that both ends answered: settings, and outcomes flipped as the herald says, (n,)."""

    x: Outcomes
    y: Outcomes
    a: Outcomes
    b: Outcomes


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """Pairs measured along one Pauli axis at both ends, (n,) each.

    `axis`: 1 X, 2 Y, 3 Z.  `value`: both ends' +1 or -1 multiplied, and turned by the herald so
    that the announced Bell state has 1; 0 if a half was lost.  `stored_ns`: kept how long.
    """

    axis: NDArray[np.intp]
    value: NDArray[np.int8]
    stored_ns: Numbers

    def among(self, kept: NDArray[np.bool_]) -> "Products":
        return Products(self.axis[kept], self.value[kept], self.stored_ns[kept])


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
        played = []
        for block in self.blocks(pairs):
            x, y = turns[np.arange(len(block)) % len(turns)].T
            answer = self.physics.answer
            a = answer(Side.A, block.patterns, x, self._chances(block), block.hidden)
            first = Answers(Side.A, x, a)
            b = answer(Side.B, block.patterns, y, self._chances(block), block.hidden, first)
            kept = (a != LOST) & (b != LOST)
            x, y = x[kept], y[kept]
            announced = self.experiment.announced[block.patterns[kept]]
            played.append((x, y, *framed(announced, x, a[kept], b[kept])))
        return Played(*(np.concatenate(column) for column in zip(*played, strict=True)))

    # Along Pauli axes

    def kept(self, pairs: int, stored_ns: float = 0.0) -> Products:
        """Measured so long after their heralds have come, along X, Y and Z in turn."""
        measured = []
        for block in self.blocks(pairs):
            measured.append(self._measured(block, np.asarray(stored_ns)))
        return _joined(measured)

    def until_next(self, pairs: int) -> Products:
        """Measured when the next pair of the link is heralded: pauses never come in between."""
        measured = []
        for block in self.blocks(pairs + 1):
            if len(block) == 1:
                continue
            # The last pair of a block has its successor in another one, and is left out.
            ended_ns = self.experiment.schedule.active_ns(block.attempts)
            waiting = Pairs(block.attempts[:-1], block.patterns[:-1], _but_last(block.hidden))
            measured.append(self._measured(waiting, np.diff(ended_ns).astype(np.float64)))
        return _joined(measured)

    def _measured(self, block: Pairs, stored_ns: Numbers) -> Products:
        settings = (np.arange(len(block)) % len(AXES)).astype(np.uint8)
        hidden = self._kept(block.hidden or Hidden(), stored_ns)
        answer = self._axes.answer
        a = answer(Side.A, block.patterns, settings, self._chances(block), hidden)
        first = Answers(Side.A, settings, a)
        b = answer(Side.B, block.patterns, settings, self._chances(block), hidden, first)
        axis = settings.astype(np.intp) + 1
        announced = self.experiment.announced[block.patterns].astype(np.intp)
        value = (BELL_SIGNS[announced, axis] * np.where(a == b, 1, -1)).astype(np.int8)
        value[(a == LOST) | (b == LOST)] = 0
        return Products(axis, value, np.broadcast_to(stored_ns, value.shape))

    def _kept(self, hidden: Hidden, stored_ns: Numbers) -> Hidden:
        """Memories keep their halves from when the herald has come; detectors keep nothing."""
        ages = []
        for side in Side:
            waited = hidden.age_ns(side)
            since = self.experiment.herald_wait_ns[side] if waited is None else waited
            longer = stored_ns if self.experiment.has_memory(side) else 0.0
            ages.append(np.asarray(since + longer, dtype=np.float64))
        return replace(hidden, age_a_ns=ages[0], age_b_ns=ages[1])

    def _chances(self, block: Pairs) -> Numbers:
        return self._generator.random(len(block))


def fidelity(products: Products) -> Mean:
    """With the announced states, (II + XX + YY + ZZ)/4 turned by the herald.

    Pairs that lost a half count as none: II is the share that did not.
    """
    value = variance = 0.0
    for axis in AXES.values():
        along = products.value[products.axis == axis]
        # Each axis sees a third of II.
        part = mean(along + np.abs(along) / 3.0)
        value += part.value / 4.0
        variance += (part.stderr / 4.0) ** 2
    return Mean(value, math.sqrt(variance))


def mean(values: Numbers) -> Mean:
    """Its error counts one more value that is off by one, lest a short run seem certain."""
    count = max(1, len(values))
    value = float(values.sum()) / count
    spread = float(((values - value) ** 2).sum()) / count + 1.0 / count
    return Mean(value, math.sqrt(spread / count))


def _but_last(hidden: Hidden | None) -> Hidden | None:
    if hidden is None:
        return None
    columns = (getattr(hidden, field.name) for field in fields(hidden))
    return Hidden(*(None if column is None else column[:-1] for column in columns))


def _joined(parts: list[Products]) -> Products:
    columns = zip(*((part.axis, part.value, part.stored_ns) for part in parts), strict=True)
    return Products(*(np.concatenate(column) for column in columns))
