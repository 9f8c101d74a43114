"""What a laboratory implements so that its devices serve a node: physics only.

`bellhop.hal.serve` puts the memory service around it: who may connect, the order of reports,
refusals, time limits, and that no setting is seen before the round before it is answered.

Rules for a subclass

* All methods run on one event loop.  None may block it: put blocking calls into a thread.
* A method that cannot do what it is asked raises LaboratoryError with a reason; whoever reads it in
  the node's log must be able to act on it.  Any other exception is a fault of the driver: its
  traceback is logged, and the node's connection ends.
* A reason names no setting and no outcome: it goes to the node as it is, and into logs.  Of another
  exception of `measure` only the type and the place are logged.
* Methods are cancelled when a request is released, the node is gone or a time limit is over.  Then
  they end within a second: one that does not is left behind, and named in the log.  That holds for
  `finally` too: do not wait there for a device that may be the one that is silent.
* A method never ends as cancelled by itself, as when it awaits a task that another one cancelled.
* Both ends of a link are given the same orders by their nodes, in the same order, but not at the
  same time.  What the ends have in common (a station, its triggers) is the laboratory's.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Self

from bellhop.hal.errors import HardwareError
from bellhop.hal.operations import (
    Attempt,
    BellState,
    LinkName,
    NodeName,
    RequestId,
    Side,
    Source,
)


class LaboratoryError(HardwareError):
    """The device cannot do what was ordered; `message` says why, and what is to be done."""


@dataclass(frozen=True, slots=True)
class LabPort:
    """One end of one link.

    `settings`: side A has at least 2, side B at least 3.  `pairs_held_max`: how many heralded pairs
    the device holds at once, 1 for a single ion; no block is longer.  `source` is EMULATED only if
    the outcomes are computed, which every key made from them then says.  `herald_is_measurement`:
    the detection that heralds a pair is also its measurement at an end, as where photons end on
    detectors there; nodes then make no device-independent keys.
    """

    link: LinkName
    side: Side
    peer: NodeName
    settings: int
    description: str
    idealisations: tuple[str, ...] = ()
    pairs_held_max: int = 1
    source: Source = Source.HARDWARE
    herald_is_measurement: bool = False


@dataclass(frozen=True, slots=True)
class Herald:
    """One heralded pair.

    `attempt`: its number within the request, from 0, rising over all of the request's blocks, the
    same at both ends.  `announces`: the Bell state of its click pattern, the same at both ends.
    `at_ns`: the device's clock, at least 0 and never falling.
    """

    attempt: int
    announces: BellState
    at_ns: int


class Laboratory(ABC):
    """The devices of one node."""

    @classmethod
    @abstractmethod
    def from_options(cls, node: NodeName, options: Mapping[str, object]) -> Self:
        """Made from the `options` table of the laboratory's file, for the node it serves.

        Opens nothing yet.  Raises ConfigError naming the option (`laboratory.options.NAME`).
        """

    @abstractmethod
    async def open(self) -> tuple[LabPort, ...]:
        """Connect to the devices.  Called once, before a node may connect; LaboratoryError ends the
        service.  May take as long as it needs; cancelled if the service is stopped meanwhile."""

    @abstractmethod
    async def synchronise(self, order: Attempt) -> int:
        """Offer an attempt to the station; return the device's clock, in ns, when it is let go.

        All orders of a link that wait are offered at once, as the two nodes may order in different
        sequences.  The station lets one go that both ends offer, and with that all other offers on
        the link are void at both ends: these calls are cancelled, and made anew when this attempt
        is over and there is room.  There is no time limit: the other node may be late by hours.
        Raises LaboratoryError if the other end offers this block with another number of rounds, or
        gives up the request.  `rendezvous.Rendezvous` does this within one process.
        """

    @abstractmethod
    def attempt(self, order: Attempt) -> AsyncIterator[Herald]:
        """Attempt until `order.rounds` pairs are heralded, and hold them; an async generator.

        Called after `synchronise` of the same order, and only when the pairs held and the rounds
        ordered are together at most `pairs_held_max`.  One at a time on a link; pairs of other
        blocks may be measured meanwhile.  Ends by itself after the last herald.  If it is closed or
        cancelled before, or raises LaboratoryError, the pairs of this block are given up.
        """

    @abstractmethod
    async def measure(
        self, link: LinkName, request: RequestId, block: int, round_index: int, setting: int
    ) -> int | None:
        """Measure one held pair, which is then free; 0 or 1, or None if there is no sure answer.

        Rounds come in order from 0, the setting of one only after the one before was answered.
        Never repeat a measurement whose setting was shown: a late or ambiguous outcome is None.
        If this raises or is cancelled, the pairs left of the block are given up.
        """

    @abstractmethod
    async def release(self, link: LinkName, request: RequestId) -> None:
        """Give up the pairs of a request at this end, and leave what the other end has.

        Also for requests that this end does not know, and for several requests at once.
        """

    @abstractmethod
    async def close(self) -> None:
        """Leave the devices safe and disconnect.  Called once, also after `open` failed.

        Cancelled after `limits.close_seconds`.
        """
