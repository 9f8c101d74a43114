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

    def begin(self) -> list[Action]:
        """Start, or go on after a restart: what was in the device's hands then is lost."""
        record = self._record
        actions: list[Action] = []
        for slot in np.flatnonzero(record.drawn).tolist():
            self._exchange.resume(slot)
        for slot in np.flatnonzero(record.measured).tolist():
            if not record.is_alice:
                self._exchange.finish(slot)
        actions += self._lose_all()
        return actions + self._exchange.fill()

    def all_done(self) -> bool:
        """Whether every round is answered at both ends, as far as this end knows."""
        record = self._record
        return bool(record.measured.all() and (record.peer_done.all() or not record.is_alice))

    def retell(self, slots_done: Flags) -> list[Action]:
        """Say again what a peer lacks that has done these slots."""
        record = self._record
        actions: list[Action] = []
        if not (self.all_done() and slots_done.all()):
            actions += self._exchange.retell(slots_done)
        for slot in np.flatnonzero(record.measured & ~slots_done).tolist():
            actions.append(self._tell_answered(slot))
        if record.is_alice:
            for slot in np.flatnonzero(slots_done & record.measured).tolist():
                actions += self.hear_done(SlotDone(record.session, slot))
        return actions

    # --- the memory -----------------------------------------------------------------------------

    def heralded(self, report: Heralded) -> list[Action]:
        return self._linked(*self._exchange.heralded(report))

    def measured(self, report: Measured) -> list[Action]:
        slot = self._measuring(report.block)
        if slot is None or len(report.outcomes) != self._record.request.slot_rounds(slot):
            return []
        outcomes = np.where(report.answered, report.outcomes & 1, 0).astype(np.uint8)
        missing = int(np.count_nonzero(~report.answered))
        note = Note("no_answer", {"slot": slot, "rounds": missing})
        return [*([note] if missing else []), *self._answered(slot, outcomes)]

    def lost(self, report: MemoryLost) -> list[Action]:
        if report.operation == "attempt":
            return self._linked(*self._exchange.lost(report))
        slot = self._measuring(report.block)
        return [] if slot is None else self._lose(slot, report.reason)

    def device_gone(self) -> list[Action]:
        """What the device was asked is lost: outcomes count as 0, attempts are ordered again."""
        self._exchange.device_away = True
        return self._lose_all()

    def device_ready(self) -> list[Action]:
        self._exchange.device_away = False
        actions = self._exchange.reorder()
        for slot in sorted(self._waiting):
            actions += self._draw(slot)
        return actions

    def _measuring(self, block: int) -> int | None:
        slot = block % self._record.request.slots
        in_hand = self._record.drawn[slot] and not self._record.measured[slot]
        return slot if in_hand else None

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
        return [Persist((fact,)), Order(Measure(p.link, p.request, pairs.block, settings))]

    # --- the peer -------------------------------------------------------------------------------

    def hear_block(self, message: BlockHeralded) -> list[Action]:
        return self._linked(*self._exchange.told(message))

    def hear_tests(self, message: TestRounds) -> list[Action]:
        record, slot = self._record, message.slot
        if why := self._tests_objection(message):
            return [Refuse(record.peer, why, f"slot {slot}")]
        if record.measured[slot]:
            return [self._tell_answered(slot)]
        if record.drawn[slot]:
            return []
        self._announced[slot] = message.tests
        self.moved = True
        return self._draw(slot)

    def _tests_objection(self, message: TestRounds) -> str | None:
        record, slot = self._record, message.slot
        if record.is_alice or slot >= record.request.slots:
            return "tests_unexpected"
        if len(message.tests) != record.request.slot_rounds(slot):
            return "tests_length"
        if slot not in self._announced and len(self._announced) >= 4 * record.request.window:
            return "tests_window"
        known = self._announced.get(slot)
        if record.drawn[slot]:
            known = record.tests[record.request.span(slot)]
        if known is not None and not np.array_equal(known, message.tests):
            return "tests_changed"
        return None

    def hear_done(self, message: SlotDone) -> list[Action]:
        record, slot = self._record, message.slot
        if not record.is_alice or slot >= record.request.slots or not record.measured[slot]:
            return [Refuse(record.peer, "slot_done_unexpected", f"slot {slot}")]
        if record.peer_done[slot]:
            return []
        record.peer_done[slot] = True
        self.moved = True
        return self._exchange.finish(slot)
