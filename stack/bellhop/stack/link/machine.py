"""Measure-directly blocks of one request: both ends agree on each before anything is drawn for it.

Rules
  A request of n rounds is a row of *slots* of `block_rounds` rounds, the last one shorter.  A slot
  is filled by a *block*; if that is lost or mismatched, by another: block = slot + retry * slots.
  Each end persists what it saw of a block (the heralds, or that it lost them) before it tells, so
  what was told holds after a crash.
  A block is agreed if both ends saw the same attempts and patterns, void otherwise.  Both ends
  decide alike, for both decide from the same two reports and a report never changes.
  A repetition is no evidence: what is told twice, or told again because a device is slow, changes
  nothing.  Only time is, from when the peer first told its digest.
  Settings are drawn only for agreed blocks: heralds are filtered before, never after.

States of a block at one end

  state     | event                            | next
  ----------+----------------------------------+--------------------------------------------
  (none)    | window open                      | ORDERED: order Attempt
  ORDERED   | Heralded                         | SEEN: persist, tell its digest
  ORDERED   | MemoryLost                       | SEEN with nothing: persist, tell an empty digest
  ORDERED   | device is back, or we are        | ORDERED: order again; a device that has heralded
            |                                  | the block before reports MemoryLost
  (none)    | peer tells its digest            | ORDERED: we lost the order in a crash, or are late
  (none)    | peer tells it lost the block     | SEEN with nothing
  ORDERED   | peer told its digest, and        | SEEN with nothing: heralds come to both ends at
            | `HERALD_LATE_NS` have passed     | once, so ours is lost (the device forgot the block)
  SEEN      | peer's digest equal              | AGREED: deliver `PairsReady`
  SEEN      | peer's digest other or empty     | VOID: the slot's next block, at most RETRIES_MAX
            |                                  | (a slot's blocks are voided in their order)
"""

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import (
    Attempt,
    BellState,
    Heralded,
    LinkName,
    MemoryLost,
    NodeName,
    RequestId,
)
from bellhop.stack.codec import join, split
from bellhop.stack.core import Action, Fact, Note, Order, Persist, Refuse, Tell
from bellhop.stack.messages import BlockHeralded

RETRIES_MAX = 8
"""A slot whose blocks are void this many times fails the request: the link is out of order."""

HERALD_LATE_NS = 10_000_000_000
"""A herald that the peer has had for this long does not come here any more.

Both ends of a link are told of a herald at the same moment, so this bounds only how far the reports
of one memory lag behind those of the other.
"""

PATTERN_MAX = max(BellState)


@dataclass(frozen=True, slots=True)
class MeasureDirectly:
    """One request as both ends know it."""

    link: LinkName
    peer: NodeName
    request: RequestId
    rounds: int
    block_rounds: int
    window: int

    @property
    def slots(self) -> int:
        return -(-self.rounds // self.block_rounds)

    def slot_rounds(self, slot: int) -> int:
        return min(self.block_rounds, self.rounds - slot * self.block_rounds)

    def span(self, slot: int) -> slice:
        """The rounds of a slot among all rounds of the request."""
        start = slot * self.block_rounds
        return slice(start, start + self.slot_rounds(slot))


@dataclass(frozen=True, slots=True, eq=False)
class PairsReady:
    """A slot's pairs are heralded and agreed: what passes to the layer above."""

    slot: int
    block: int
    patterns: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """The request cannot go on: what passes to the layer above."""

    reason: str


Delivery = PairsReady | LinkFailed


@dataclass(slots=True)
class _Block:
    own: bytes | None = None  # our digest, empty if lost
    peer: bytes | None = None
    told_ns: int = 0  # when the peer first told its digest
    patterns: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @property
    def agreed(self) -> bool:
        return bool(self.own) and self.own == self.peer

    @property
    def void(self) -> bool:
        return self.own is not None and self.peer is not None and not self.agreed


def herald_digest(attempts: NDArray[np.int64], patterns: NDArray[np.uint8]) -> bytes:
    """What both ends compare: SHA-256 of attempt numbers and patterns."""
    return hashlib.sha256(
        join(attempts.astype("<i8").tobytes(), patterns.astype(np.uint8).tobytes())
    ).digest()


class BlockExchange:
    """One end of one request."""

    def __init__(
        self, request: MeasureDirectly, facts: Mapping[str, bytes], *, device_away: bool
    ) -> None:
        self.request = request
        self.device_away = device_away
        self.prefix = f"link/{request.request}/"
        self._blocks: dict[int, _Block] = {}
        self._retry = [0] * request.slots
        self._finished = [False] * request.slots
        self._delivered = [False] * request.slots
        for name, payload in facts.items():
            if name.startswith(self.prefix):
                self._restore(int(name.removeprefix(self.prefix)), payload)

    def _restore(self, block: int, payload: bytes) -> None:
        digest, patterns = split(payload, 2)
        self._blocks[block] = _Block(own=digest, patterns=np.frombuffer(patterns, np.uint8))
        slot = block % self.request.slots
        self._retry[slot] = max(self._retry[slot], block // self.request.slots)

    # --- downwards ---------------------------------------------------------------------------

    def fill(self) -> list[Action]:
        """Order the next blocks, as many as the window leaves room for."""
        open_slots = [slot for slot, done in enumerate(self._finished) if not done]
        actions: list[Action] = []
        for slot in open_slots[: self.request.window]:
            block = self._current(slot)
            if block not in self._blocks:
                self._blocks[block] = _Block()
                actions += self._attempt(block)
        return actions

    def reorder(self) -> list[Action]:
        """The device is back and nothing is under way: order again what it has not reported."""
        actions: list[Action] = []
        for block, state in sorted(self._blocks.items()):
            if state.own is None and not self._finished[block % self.request.slots]:
                actions += self._attempt(block)
        return actions

    def resume(self, slot: int) -> None:
        """The layer above had this slot's pairs before a restart."""
        self._delivered[slot] = True

    def resume_finished(self, slot: int) -> None:
        """The layer above was done with this slot before a restart; `fill` comes after."""
        self._finished[slot] = True

    def finish(self, slot: int) -> list[Action]:
        """The layer above is done with a slot at both ends: its place in the window is free."""
        self._finished[slot] = True
        return self.fill()

    def retell(self, slots: Container[int]) -> list[Action]:
        """Tell again what we saw of the blocks of these slots."""
        return [
            self._tell(block, state.own)
            for block, state in sorted(self._blocks.items())
            if state.own is not None and block % self.request.slots in slots
        ]

    # --- events ------------------------------------------------------------------------------

    def heralded(self, report: Heralded) -> tuple[list[Action], list[Delivery]]:
        rounds = self.request.slot_rounds(report.block % self.request.slots)
        shapes_fit = report.attempts.shape == report.patterns.shape == (rounds,)
        if not shapes_fit or int(report.patterns.max()) > PATTERN_MAX:
            return self._see(report.block, b"", np.zeros(0, np.uint8))
        return self._see(
            report.block, herald_digest(report.attempts, report.patterns), report.patterns
        )

    def lost(self, report: MemoryLost) -> tuple[list[Action], list[Delivery]]:
        return self._see(report.block, b"", np.zeros(0, np.uint8))

    def told(self, now_ns: int, message: BlockHeralded) -> tuple[list[Action], list[Delivery]]:
        block = message.block
        slot, retry = block % self.request.slots, block // self.request.slots
        if why := self._objection(message):
            return [Refuse(self.request.peer, *why)], []
        if block not in self._blocks and retry < self._retry[slot]:
            return [], []  # settled long ago
        actions: list[Action] = []
        if block not in self._blocks:
            self._blocks[block] = _Block()
            actions = self._attempt(block) if message.digest else []
        state = self._blocks[block]
        if state.peer is None:
            state.peer, state.told_ns = message.digest, now_ns
        if state.own is None and not message.digest:
            return self._see(block, b"", np.zeros(0, np.uint8))
        more, deliveries = self._settle(block)
        return actions + more, deliveries

    def overdue(self, now_ns: int) -> tuple[list[Action], list[Delivery]]:
        """Give up the reports that would have come by now: their blocks are lost here."""
        late = [
            block
            for block, state in sorted(self._blocks.items())
            if state.own is None and state.peer and now_ns >= state.told_ns + HERALD_LATE_NS
        ]
        actions: list[Action] = []
        deliveries: list[Delivery] = []
        for block in late:
            more, delivered = self._see(block, b"", np.zeros(0, np.uint8))
            actions += more
            deliveries += delivered
        return actions, deliveries

    # --- inside ------------------------------------------------------------------------------

    def _horizon(self) -> int:
        first_open = next((s for s, done in enumerate(self._finished) if not done), 0)
        return first_open + 2 * self.request.window

    def _ahead(self, block: int) -> bool:
        """Whether an honest peer cannot have come to this block yet: it voids none without us."""
        slot, retry = block % self.request.slots, block // self.request.slots
        block = self._current(slot)
        while block in self._blocks and self._blocks[block].own is not None:
            block += self.request.slots
        return slot > self._horizon() or retry > block // self.request.slots

    def _current(self, slot: int) -> int:
        return slot + self._retry[slot] * self.request.slots

    def _attempt(self, block: int) -> list[Action]:
        """Order a block, unless the device is away: `reorder` does when it is back."""
        if self.device_away:
            return []
        link, request = self.request.link, self.request.request
        rounds = self.request.slot_rounds(block % self.request.slots)
        return [Order(Attempt(link, request, block, rounds))]

    def _tell(self, block: int, digest: bytes) -> Tell:
        message = BlockHeralded(self.request.link, self.request.request, block, digest)
        return Tell(self.request.peer, message)

    def _objection(self, message: BlockHeralded) -> tuple[str, str] | None:
        block = message.block
        last = (RETRIES_MAX + 1) * self.request.slots - 1
        if message.link != self.request.link or len(message.digest) not in (0, 32):
            return "link_block", f"block {block} cannot be"
        if not 0 <= block <= last:
            return "link_block", "a block that cannot be"
        if block not in self._blocks and self._ahead(block):
            return "link_window", f"block {block} is beyond the window"
        state = self._blocks.get(block)
        if state is not None and state.peer not in (None, message.digest):
            return "link_digest", f"block {block} was told otherwise before"
        return None

    def _see(
        self, block: int, digest: bytes, patterns: NDArray[np.uint8]
    ) -> tuple[list[Action], list[Delivery]]:
        state = self._blocks.get(block)
        if state is None or state.own is not None:
            return [], []  # not ordered by us, or reported before
        state.own, state.patterns = digest, patterns.astype(np.uint8)
        fact = Fact(f"{self.prefix}{block}", join(digest, state.patterns.tobytes()))
        actions: list[Action] = [Persist((fact,)), self._tell(block, digest)]
        more, deliveries = self._settle(block)
        return actions + more, deliveries

    def _settle(self, block: int) -> tuple[list[Action], list[Delivery]]:
        state = self._blocks[block]
        slot, retry = block % self.request.slots, block // self.request.slots
        if state.agreed and not self._delivered[slot]:
            self._delivered[slot] = True
            return [], [PairsReady(slot, block, state.patterns)]
        if not state.void or retry != self._retry[slot]:
            return [], []
        note = Note("block_void", {"link": self.request.link, "block": block})
        if retry >= RETRIES_MAX:
            return [note], [LinkFailed(f"{RETRIES_MAX + 1} blocks in a row were lost")]
        self._retry[slot] = retry + 1
        actions: list[Action] = [note, *self.fill()]
        following = self._current(slot)
        if following not in self._blocks:
            return actions, []
        more, deliveries = self._settle(following)  # both reports may be here already
        return actions + more, deliveries
