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
  Blocks are ordered for the first slots that are not finished, `window` of them, and never further
  than `reach` above the first.  What is known of a slot is let go when it is finished: all that is
  held lies within a few windows, however many slots there are.
  On hold nothing is ordered that is not under way already.

States of a block at one end

  state     | event                            | next
  ----------+----------------------------------+--------------------------------------------
  (none)    | window open                      | ORDERED: order Attempt (on hold, when that ends)
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

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

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
from bellhop.stack.core import Action, Fact, Note, Order, Persist, Refuse, Tell
from bellhop.stack.link.block import LOST, Block, Seen, Span, decode_seen, herald_digest
from bellhop.stack.link.slots import Slots
from bellhop.stack.messages import BlockHeralded

RETRIES_MAX = 8
"""A slot whose blocks are void this many times fails the request: the link is out of order."""

HERALD_LATE_NS = 10_000_000_000
"""A herald that the peer has had for this long does not come here any more.

Both ends of a link are told of a herald at the same moment, so this bounds only how far the reports
of one memory lag behind those of the other.
"""

PATTERN_MAX = max(BellState)

REACH_WINDOWS = 4
"""No slot is ordered this many windows above the first that is not finished."""

PAGE_ROUNDS = 4_096
"""Slots are kept together in pages of about so many rounds."""


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

    @property
    def reach(self) -> int:
        return REACH_WINDOWS * self.window

    @property
    def page_slots(self) -> int:
        """Slots of a page; the last page may have fewer."""
        return max(1, PAGE_ROUNDS // self.block_rounds)

    def page(self, slot: int) -> int:
        return slot // self.page_slots

    def slot_rounds(self, slot: int) -> int:
        return min(self.block_rounds, self.rounds - slot * self.block_rounds)

    def span(self, slot: int) -> slice:
        """The rounds of a slot among all rounds of the request."""
        start = slot * self.block_rounds
        return slice(start, start + self.slot_rounds(slot))

    @property
    def pages(self) -> int:
        return self.page(self.slots - 1) + 1

    def slots_of(self, page: int) -> range:
        start = page * self.page_slots
        return range(start, min(start + self.page_slots, self.slots))

    def page_span(self, page: int) -> slice:
        """The rounds of a page's slots among all rounds of the request."""
        slots = self.slots_of(page)
        return slice(self.span(slots[0]).start, self.span(slots[-1]).stop)


@dataclass(frozen=True, slots=True, eq=False)
class PairsReady:
    """A slot's pairs are heralded and agreed: what passes to the layer above."""

    slot: int
    block: int
    patterns: NDArray[np.uint8]
    span: Span


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """The request cannot go on: what passes to the layer above."""

    reason: str


Delivery = PairsReady | LinkFailed


class BlockExchange:
    """One end of one request."""

    def __init__(
        self, request: MeasureDirectly, facts: Mapping[str, bytes], *, device_away: bool
    ) -> None:
        self.request = request
        self.device_away = device_away
        self.on_hold = False
        self.prefix = f"link/{request.request}/"
        self._slots = request.slots
        self._blocks: dict[int, Block] = {}
        self._retry: dict[int, int] = {}  # of slots that had a void block and are not finished
        self._finished = Slots(request.slots)
        self._delivered: set[int] = set()
        for name, payload in facts.items():
            if name.startswith(self.prefix):
                self._restore(int(name.rpartition("/")[2]), payload)

    def _restore(self, block: int, payload: bytes) -> None:
        self._blocks[block] = Block(seen=decode_seen(payload))
        slot, retry = block % self._slots, block // self._slots
        if retry > self._retry.get(slot, 0):
            self._retry[slot] = retry

    @property
    def held(self) -> int:
        """Blocks of which something is remembered."""
        return len(self._blocks)

    @property
    def delivered(self) -> int:
        """Slots whose pairs the layer above has, and is not done with."""
        return len(self._delivered)

    @property
    def awaits_heralds(self) -> bool:
        """Whether a device that is there has orders that it has not reported."""
        return any(state.ordered and state.seen is None for state in self._blocks.values())

    # --- downwards ---------------------------------------------------------------------------

    def fill(self) -> list[Action]:
        """Order the next blocks, as many as the window leaves room for."""
        actions: list[Action] = []
        for slot in [] if self.on_hold else self._open():
            block = self._current(slot)
            if block not in self._blocks:
                self._blocks[block] = Block()
                actions += self._attempt(block)
        return actions

    def _open(self) -> list[int]:
        """The slots in the window."""
        first = self._finished.first
        reach = range(first, min(first + self.request.reach, self._slots))
        return [slot for slot in reach if slot not in self._finished][: self.request.window]

    def device_back(self) -> list[Action]:
        """The device is there and nothing is under way: order what it has not reported."""
        self.device_away = False
        for state in self._blocks.values():
            state.ordered = False
        return self._order_again()

    def hold(self, on_hold: bool) -> list[Action]:
        """Order nothing new from now on, or go on."""
        self.on_hold = on_hold
        return [] if on_hold else [*self._order_again(), *self.fill()]

    def _order_again(self) -> list[Action]:
        actions: list[Action] = []
        for block, state in sorted(self._blocks.items()):
            if state.seen is None and not state.ordered:
                actions += self._attempt(block)
        return actions

    def resume(self, delivered: Iterable[int], finished: Slots) -> None:
        """What the layer above had, and was done with, before a restart; `fill` comes after."""
        self._finished = Slots(finished.size)
        self._finished.add_run(0, finished.first)
        for slot in range(finished.first, finished.end):
            if slot in finished:
                self._finished.add(slot)
        self._delivered = {slot for slot in delivered if slot not in finished}
        for slot in {block % self._slots for block in self._blocks}:
            if slot in finished:
                self._let_go(slot)

    def finish(self, slots: Iterable[int]) -> list[Action]:
        """The layer above is done with slots at both ends: their places in the window are free."""
        for slot in slots:
            self._finished.add(slot)
            self._let_go(slot)
        return self.fill()

    def _let_go(self, slot: int) -> None:
        self._delivered.discard(slot)
        self._retry.pop(slot, None)
        block = slot
        while self._blocks.pop(block, None) is not None:  # none is told of before the one before
            block += self._slots

    def retell(self, slots: Container[int]) -> list[Action]:
        """Tell again what we saw of the blocks of these slots."""
        return [
            self._tell(block, state.seen.digest)
            for block, state in sorted(self._blocks.items())
            if state.seen is not None and block % self._slots in slots
        ]

    # --- events ------------------------------------------------------------------------------

    def heralded(self, report: Heralded) -> tuple[list[Action], list[Delivery]]:
        rounds = self.request.slot_rounds(report.block % self._slots)
        shapes_fit = report.attempts.shape == report.patterns.shape == (rounds,)
        if not shapes_fit or int(report.patterns.max()) > PATTERN_MAX:
            return self._see(report.block, LOST)
        digest = herald_digest(report.attempts, report.patterns)
        patterns = report.patterns.astype(np.uint8)
        seen = Seen(digest, patterns, Span(report.begun_ns, report.ended_ns))
        return self._see(report.block, seen)

    def lost(self, report: MemoryLost) -> tuple[list[Action], list[Delivery]]:
        return self._see(report.block, LOST)

    def told(self, now_ns: int, message: BlockHeralded) -> tuple[list[Action], list[Delivery]]:
        block = message.block
        slot, retry = block % self._slots, block // self._slots
        if why := self._objection(message):
            return [Refuse(self.request.peer, *why)], []
        settled = slot in self._finished or retry < self._retry.get(slot, 0)
        if block not in self._blocks and settled:
            return [], []  # long ago
        actions: list[Action] = []
        if block not in self._blocks:
            self._blocks[block] = Block()
            actions = self._attempt(block) if message.digest else []
        state = self._blocks[block]
        if state.peer is None:
            state.peer, state.told_ns = message.digest, now_ns
        if state.seen is None and not message.digest:
            return self._see(block, LOST)
        more, deliveries = self._settle(block)
        return actions + more, deliveries

    def overdue(self, now_ns: int) -> tuple[list[Action], list[Delivery]]:
        """Give up the reports that would have come by now: their blocks are lost here."""
        late = [
            block
            for block, state in sorted(self._blocks.items())
            if state.seen is None and state.peer and now_ns >= state.told_ns + HERALD_LATE_NS
        ]
        actions: list[Action] = []
        deliveries: list[Delivery] = []
        for block in late:
            more, delivered = self._see(block, LOST)
            actions += more
            deliveries += delivered
        return actions, deliveries

    # --- inside ------------------------------------------------------------------------------

    def _ahead(self, block: int) -> bool:
        """Whether an honest peer cannot have come to this block yet: it voids none without us.

        Its first unfinished slot is none that we have not ordered, so below our reach; and it
        orders within its own.
        """
        slot, retry = block % self._slots, block // self._slots
        block = self._current(slot)
        while block in self._blocks and self._blocks[block].seen is not None:
            block += self._slots
        horizon = self._finished.first + 2 * self.request.reach
        return slot >= horizon or retry > block // self._slots

    def _current(self, slot: int) -> int:
        return slot + self._retry.get(slot, 0) * self._slots

    def _attempt(self, block: int) -> list[Action]:
        """Order a block, unless the device is away or we are on hold: it is ordered after that."""
        if self.device_away or self.on_hold:
            return []
        self._blocks[block].ordered = True
        link, request = self.request.link, self.request.request
        rounds = self.request.slot_rounds(block % self._slots)
        return [Order(Attempt(link, request, block, rounds))]

    def _tell(self, block: int, digest: bytes) -> Tell:
        message = BlockHeralded(self.request.link, self.request.request, block, digest)
        return Tell(self.request.peer, message)

    def _objection(self, message: BlockHeralded) -> tuple[str, str] | None:
        block = message.block
        last = (RETRIES_MAX + 1) * self._slots - 1
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

    def _see(self, block: int, seen: Seen) -> tuple[list[Action], list[Delivery]]:
        state = self._blocks.get(block)
        if state is None or state.seen is not None:
            return [], []  # not ordered by us, or reported before
        state.seen = seen
        page = self.request.page(block % self._slots)
        fact = Fact(f"{self.prefix}{page}/{block}", seen.encode())
        actions: list[Action] = [Persist((fact,)), self._tell(block, seen.digest)]
        more, deliveries = self._settle(block)
        return actions + more, deliveries

    def _settle(self, block: int) -> tuple[list[Action], list[Delivery]]:
        state = self._blocks[block]
        slot, retry = block % self._slots, block // self._slots
        if state.agreed and slot not in self._delivered:
            assert state.seen is not None, "else nothing is agreed"
            self._delivered.add(slot)
            return [], [PairsReady(slot, block, state.seen.patterns, state.seen.span)]
        if not state.void or retry != self._retry.get(slot, 0):
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
