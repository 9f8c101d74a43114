"""What a memory is asked and what it reports.

A *block* is a run of heralded rounds of one measure-directly request, numbered from 0 within the
request.  Everything about its rounds travels as arrays of one entry a round, never as an object a
round.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NewType

import numpy as np
from numpy.typing import NDArray

NodeName = NewType("NodeName", str)
LinkName = NewType("LinkName", str)
RequestId = NewType("RequestId", str)  # 32 hexadecimal digits, agreed by both ends of the link

BLOCK_ROUNDS_MAX = 65_536
"""No block is longer: it bounds every message and every buffer that holds one."""

SETTINGS_MAX = 16
"""No device offers more measurement settings than this."""


class BellState(IntEnum):
    """A Bell state as two bits: 2 * (phase flip z) + (bit flip x) with respect to Phi+.

    With this numbering the state after swapping is the exclusive or of the numbers.
    """

    PHI_PLUS = 0
    PSI_PLUS = 1
    PHI_MINUS = 2
    PSI_MINUS = 3


class Side(Enum):
    """Which end of a link a device is.  Side A has the two CHSH settings Z- and X-like (0, 1);
    side B the two between them (0, 1) and a third along A's setting 0 (2)."""

    A = "a"
    B = "b"

    @property
    def other(self) -> "Side":
        return Side.B if self is Side.A else Side.A


class Source(Enum):
    """Where outcomes come from; shown with every key."""

    EMULATED = "emulated"
    HARDWARE = "hardware"


@dataclass(frozen=True, slots=True)
class Port:
    """One end of one link as its device describes it.

    `rounds_max`: how many heralded pairs it holds at once, so no block is longer.
    `herald_is_measurement`: whether a click that heralds is at an end the measurement itself, so
    that rounds are chosen by what settings may have decided (the detection loophole): nothing
    measured on such a link is certified device-independently.
    """

    link: LinkName
    side: Side
    peer: NodeName
    settings: int
    source: Source
    description: str
    idealisations: tuple[str, ...] = ()
    rounds_max: int = BLOCK_ROUNDS_MAX
    herald_is_measurement: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """Attempt on `link` until `rounds` heralds of this block have come.

    Starts when both ends have ordered the same (request, block, rounds).
    """

    link: LinkName
    request: RequestId
    block: int
    rounds: int


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """Measure every round of a heralded block; the device sees one setting at a time, in order.

    `settings`: uint8, shape (rounds,).  A block is measured once: a second order is refused.
    """

    link: LinkName
    request: RequestId
    block: int
    settings: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Release:
    """Give up a request's blocks at this end; its memories are free again."""

    link: LinkName
    request: RequestId


Operation = Attempt | Measure | Release


@dataclass(frozen=True, slots=True)
class Ready:
    """The device is there and these are its ports.  Comes first, and again after each reconnection.

    After it nothing ordered before is under way any more.
    """

    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Heralded:
    """A block is heralded at this end.

    `attempts`: int64, shape (rounds,), rising: the number, within the request, of the attempt that
    heralded each round.
    `patterns`: uint8, shape (rounds,): the `BellState` each herald announces.
    `begun_ns`, `ended_ns`: the device's clock at the first attempt and the last herald.
    """

    link: LinkName
    request: RequestId
    block: int
    attempts: NDArray[np.int64]
    patterns: NDArray[np.uint8]
    begun_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The outcomes of a block at this end.

    `outcomes`: uint8 of 0 or 1, shape (rounds,), 0 where not answered.
    `answered`: bool, shape (rounds,): False where the device gave no or a late outcome.
    """

    link: LinkName
    request: RequestId
    block: int
    outcomes: NDArray[np.uint8] = field(repr=False)
    answered: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True, slots=True)
class MemoryLost:
    """What was ordered for this block will not come: `operation` is "attempt" or "measure"."""

    link: LinkName
    request: RequestId
    block: int
    operation: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceGone:
    """The connection to the device broke; every order under way is lost."""

    reason: str


Report = Ready | Heralded | Measured | MemoryLost | DeviceGone
