"""The rounds of a session at one end: draw, persist, measure, persist, announce.

Rules
  1. A slot goes: Alice draws tests and settings, persists, her device answers, she persists,
     announces the tests; then Bob draws, persists, his device answers, he persists.
     (Her device answers before anybody hears which rounds are tests.)
  2. Every round of an agreed block counts.  A lost outcome is 0.
"""

from collections.abc import Mapping

import numpy as np

from bellhop.hal.operations import Heralded, Measure, Measured, MemoryLost
from bellhop.stack.core import Action, Note, Order, Persist, Refuse, Tell
from bellhop.stack.diqkd.record import Bits, Flags, Record
from bellhop.stack.diqkd.rounds import draw_alice, draw_bob
from bellhop.stack.link.machine import BlockExchange, Delivery, LinkFailed, PairsReady
from bellhop.stack.messages import BlockHeralded, SlotDone, TestRounds
from bellhop.stack.rng import Rng

RETOLD_WINDOWS = 4
"""What a position asks for is said again for this many windows of slots at most."""

ANNOUNCED_WINDOWS = 4
"""Bob keeps the tests of this many windows of slots that still wait for their pairs."""


class Measuring:
    """The part of a session up to its last round.

    `failure`: why the session cannot go on.  `moved`: something came in since it was last cleared.
    """

    def __init__(
        self, record: Record, rng: Rng, link_facts: Mapping[str, bytes], *, device_ready: bool
    ) -> None:
        self.failure: str | None = None
        self.moved = False
        self._record = record
        self._rng = rng
        self._exchange = BlockExchange(record.request, link_facts, device_away=not device_ready)
        self._announced: dict[int, Flags] = {}  # Bob: tests of slots that still wait for pairs
        self._waiting: dict[int, PairsReady] = {}  # for the device, and Bob's for their tests
        self._in_hand: dict[int, int] = {}  # block of the device to slot, until it answers

    def begin(self) -> list[Action]:
        """Start, or go on after a restart: what was in the device's hands then is lost."""
        record = self._record
        actions: list[Action] = []
        for slot in np.flatnonzero(record.drawn).tolist():
            self._exchange.resume(slot)
        if record.is_alice and record.said:
            record.peer_done[:] = True  # she says nothing before both ends have done all rounds
        done = record.peer_done if record.is_alice else record.measured
        for slot in np.flatnonzero(done).tolist():
            self._exchange.resume_finished(slot)
        actions += self._lose_all()
        return actions + self._exchange.fill()

    def all_done(self) -> bool:
        """Whether every round is answered at both ends, as far as this end knows."""
        record = self._record
        return bool(record.measured.all() and (record.peer_done.all() or not record.is_alice))

    def retell(self, slots_done: Flags) -> list[Action]:
        """Say again what a peer lacks that has done these slots.

        Bob's own position says which slots he has done; what he needs of a slot he has not, he gets
        for the first of them.  So one message asks for few.
        """
        record = self._record
        actions: list[Action] = []
        lacking = ~slots_done if record.is_alice else ~(slots_done | record.measured)
        slots = np.flatnonzero(lacking)[: RETOLD_WINDOWS * record.request.window].tolist()
        actions += self._exchange.retell(slots)
        if record.is_alice:
            actions += [self._tell_answered(slot) for slot in slots if record.measured[slot]]
            for slot in np.flatnonzero(slots_done & record.measured & ~record.peer_done).tolist():
                actions += self.hear_done(SlotDone(record.session, slot))
        return actions

    # --- the memory -----------------------------------------------------------------------------

    def heralded(self, report: Heralded) -> list[Action]:
        return self._linked(*self._exchange.heralded(report))

    def measured(self, report: Measured) -> list[Action]:
        slot = self._in_hand.get(report.block)
        if slot is None:
            return []
        rounds = self._record.request.slot_rounds(slot)
        if not report.outcomes.shape == report.answered.shape == (rounds,):
            return self._lose(slot, "the device answered another number of rounds")
        answered = report.answered & (report.outcomes <= 1)
        outcomes = np.where(answered, report.outcomes, 0).astype(np.uint8)
        missing = int(np.count_nonzero(~answered))
        note = Note("no_answer", {"slot": slot, "rounds": missing})
        return [*([note] if missing else []), *self._answered(slot, outcomes)]

    def lost(self, report: MemoryLost) -> list[Action]:
        if report.operation == "attempt":
            return self._linked(*self._exchange.lost(report))
        slot = self._in_hand.get(report.block)
        return [] if slot is None else self._lose(slot, report.reason)

    def device_gone(self) -> list[Action]:
        """What the device was asked is lost: outcomes count as 0, attempts are ordered again."""
        self._exchange.device_away = True
        return self._lose_all()

    def device_ready(self) -> list[Action]:
        self._exchange.device_away = False
        actions = self._lose_all()  # nothing ordered before is under way any more
        actions += self._exchange.reorder()
        for slot in sorted(self._waiting):
            actions += self._draw(slot)
        return actions

    def _lose_all(self) -> list[Action]:
        record = self._record
        actions: list[Action] = []
        for slot in np.flatnonzero(record.drawn & ~record.measured).tolist():
            actions += self._lose(slot, "the device or this node went away")
        return actions

    def _lose(self, slot: int, why: str) -> list[Action]:
        rounds = self._record.request.slot_rounds(slot)
        note = Note("outcomes_lost", {"slot": slot, "rounds": rounds, "why": why})
        return [note, *self._answered(slot, None)]

    def _answered(self, slot: int, outcomes: Bits | None) -> list[Action]:
        record = self._record
        self.moved = True
        self._in_hand = {block: s for block, s in self._in_hand.items() if s != slot}
        persist = Persist((record.measure(slot, outcomes),))
        more = [] if record.is_alice else self._exchange.finish(slot)
        return [persist, self._tell_answered(slot), *more]

    def _tell_answered(self, slot: int) -> Tell:
        record = self._record
        if not record.is_alice:
            return Tell(record.peer, SlotDone(record.session, slot))
        tests = record.tests[record.request.span(slot)].copy()
        return Tell(record.peer, TestRounds(record.session, slot, tests))

    # --- the link -------------------------------------------------------------------------------

    def _linked(self, actions: list[Action], deliveries: list[Delivery]) -> list[Action]:
        for delivery in deliveries:
            match delivery:
                case PairsReady():
                    actions = actions + self._pairs(delivery)
                case LinkFailed(reason):
                    self.failure = f"link failed: {reason}"
        return actions

    def _pairs(self, pairs: PairsReady) -> list[Action]:
        self.moved = True
        if self._record.drawn[pairs.slot]:
            return []
        self._waiting[pairs.slot] = pairs
        return self._draw(pairs.slot)

    def _draw(self, slot: int) -> list[Action]:
        """Draw for a slot if its pairs, the device and (for Bob) its tests are there."""
        record = self._record
        pairs = self._waiting.get(slot)
        if pairs is None or self._exchange.device_away:
            return []
        rounds = len(pairs.patterns)
        if record.is_alice:
            rng = self._rng.child("alice", pairs.block)
            tests, settings = draw_alice(rng, record.parameters.gamma, rounds)
        elif slot in self._announced:
            tests = self._announced.pop(slot)
            settings = draw_bob(self._rng.child("bob", pairs.block), tests)
        else:
            return []
        del self._waiting[slot]
        p = record.parameters
        fact = record.draw(slot, tests, settings, pairs.patterns)
        self._in_hand[pairs.block] = slot
        return [Persist((fact,)), Order(Measure(p.link, p.request, pairs.block, settings))]

    # --- the peer -------------------------------------------------------------------------------

    def hear_block(self, now_ns: int, message: BlockHeralded) -> list[Action]:
        return self._linked(*self._exchange.told(now_ns, message))

    def overdue(self, now_ns: int) -> list[Action]:
        """What should long have been reported here counts as lost."""
        return self._linked(*self._exchange.overdue(now_ns))

    def hear_tests(self, message: TestRounds) -> list[Action]:
        record, slot = self._record, message.slot
        if why := self._tests_objection(message):
            return [Refuse(record.peer, why, f"slot {slot}")]
        if record.measured[slot]:
            return [self._tell_answered(slot)]
        if record.drawn[slot] or slot in self._announced:
            return []
        self._announced[slot] = message.tests
        self.moved = True
        return self._draw(slot)

    def _tests_objection(self, message: TestRounds) -> str | None:
        record, slot = self._record, message.slot
        if record.is_alice or not 0 <= slot < record.request.slots:
            return "tests_unexpected"
        if len(message.tests) != record.request.slot_rounds(slot):
            return "tests_length"
        full = len(self._announced) >= ANNOUNCED_WINDOWS * record.request.window
        if slot not in self._announced and full and not record.drawn[slot]:
            return "tests_window"
        known = self._announced.get(slot)
        if record.drawn[slot]:
            known = record.tests[record.request.span(slot)]
        if known is not None and not np.array_equal(known, message.tests):
            return "tests_changed"
        return None

    def hear_done(self, message: SlotDone) -> list[Action]:
        record, slot = self._record, message.slot
        known = record.is_alice and 0 <= slot < record.request.slots
        if not known or not record.measured[slot]:
            return [Refuse(record.peer, "slot_done_unexpected", f"slot {slot}")]
        if record.peer_done[slot]:
            return []
        record.peer_done[slot] = True
        self.moved = True
        return self._exchange.finish(slot)
