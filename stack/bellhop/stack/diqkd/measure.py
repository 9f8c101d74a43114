"""The rounds of a session at one end: draw, persist, measure, persist, announce.

Rules
  1. A slot goes: Alice draws tests and settings, persists, her device answers, she persists,
     announces the tests; then Bob draws, persists, his device answers, he persists.
     (Her device answers before anybody hears which rounds are tests.)
  2. Every round of an agreed block counts.  A lost outcome is 0.
  3. What was lost is noted in sum when nothing more can be measured.  During the run, which
     outcomes a device gives not, and what it says of that, may tell something of the others.
"""

from collections.abc import Mapping

import numpy as np

from bellhop.hal.operations import Heralded, Measure, Measured, MemoryLost
from bellhop.stack.core import Action, Note, Order, Persist, Refuse, Tell
from bellhop.stack.diqkd.pages import Bits, Flags
from bellhop.stack.diqkd.record import Record
from bellhop.stack.diqkd.rounds import draw_alice, draw_bob, draw_flips
from bellhop.stack.link.machine import BlockExchange, Delivery, LinkFailed, PairsReady
from bellhop.stack.messages import (
    POSITION_AHEAD_MAX,
    BlockHeralded,
    Position,
    SlotDone,
    TestRounds,
)
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
        self._exchange.on_hold = record.on_hold
        self._announced: dict[int, Flags] = {}  # Bob: tests of slots that still wait for pairs
        self._waiting: dict[int, PairsReady] = {}  # for the device, and Bob's for their tests
        self._in_hand: dict[int, int] = {}  # block of the device to slot, until it answers
        self._lost_blocks = self._lost_rounds = self._unanswered = 0  # since this node started

    def begin(self) -> list[Action]:
        """Start, or go on after a restart: what was in the device's hands then is lost."""
        record = self._record
        if record.is_alice and record.said:
            # She says nothing before both ends have done all rounds.
            record.peer_done.add_run(0, record.request.slots)
        drawn = range(record.answered.first, record.drawn.end)
        delivered = [slot for slot in drawn if slot in record.drawn]
        self._exchange.resume(delivered, record.answered)
        return [*self._lose_all(), *record.fold(), *self.hold()]

    def all_done(self) -> bool:
        """Whether every round is answered at both ends, as far as this end knows."""
        record = self._record
        return record.measured.all() and (record.peer_done.all() or not record.is_alice)

    def hold(self) -> list[Action]:
        """Order pairs, or no new ones, by whether an end is paused."""
        return self._exchange.hold(self._record.on_hold)

    @property
    def under_way(self) -> int:
        """Slots that have their pairs and are not answered at both ends: a kill may cost them."""
        return self._exchange.delivered

    @property
    def device_away(self) -> bool:
        return self._exchange.device_away

    @property
    def awaits_heralds(self) -> bool:
        """Whether it is the device's turn, to give the pairs that are ordered."""
        return self._exchange.awaits_heralds

    # --- positions ------------------------------------------------------------------------------

    def position(self) -> tuple[int, Flags]:
        """The first slot that is not answered at both ends, and from there on which are."""
        answered = self._record.answered
        stop = min(answered.end, answered.first + POSITION_AHEAD_MAX)
        return answered.first, answered.flags(answered.first, stop)

    def unknown_to(self, message: Position) -> bool:
        """Whether this end has done a slot that the peer has not."""
        measured = self._record.measured
        beyond = range(measured.first, measured.end)
        if message.first < measured.first:
            return True
        return any(slot in measured and not message.done(slot) for slot in beyond)

    def retell(self, message: Position) -> list[Action]:
        """Say again what the peer lacks.

        Bob's own position says which slots he has done; what he needs of a slot he has not, he gets
        for the first of them.  So one message asks for few.
        """
        record = self._record
        most = RETOLD_WINDOWS * record.request.window
        stop = min(message.first + len(message.ahead) + most, record.request.slots)
        lacking = [slot for slot in range(message.first, stop) if not message.done(slot)]
        if not record.is_alice:
            lacking = [slot for slot in lacking if slot not in record.measured]
        slots = lacking[:most]
        actions = self._exchange.retell(slots)
        if record.is_alice:
            actions += [self._tell_answered(slot) for slot in slots if slot in record.measured]
        return actions

    def learn(self, message: Position) -> list[Action]:
        """Alice takes note of what Bob has done.  She has measured it, so it is not far ahead."""
        record = self._record
        if not record.is_alice:
            return []
        beyond = range(record.peer_done.first, record.measured.end)
        new = [
            slot
            for slot in beyond
            if slot not in record.peer_done and slot in record.measured and message.done(slot)
        ]
        return self._done(new)

    # --- the memory -----------------------------------------------------------------------------

    def heralded(self, report: Heralded) -> list[Action]:
        return self._linked(*self._exchange.heralded(report))

    def measured(self, report: Measured) -> list[Action]:
        slot = self._in_hand.get(report.block)
        if slot is None:
            return []
        rounds = self._record.request.slot_rounds(slot)
        if not report.outcomes.shape == report.answered.shape == (rounds,):
            return self._lose(slot)
        answered = report.answered & (report.outcomes <= 1)
        outcomes = np.where(answered, report.outcomes, 0).astype(np.uint8)
        self._unanswered += int(np.count_nonzero(~answered))
        return self._answered(slot, outcomes)

    def lost(self, report: MemoryLost) -> list[Action]:
        if report.operation == "attempt":
            return self._linked(*self._exchange.lost(report))
        slot = self._in_hand.get(report.block)
        return [] if slot is None else self._lose(slot)

    def device_gone(self) -> list[Action]:
        """What the device was asked is lost: outcomes count as 0, attempts are ordered again."""
        self._exchange.device_away = True
        return self._lose_all()

    def device_ready(self) -> list[Action]:
        actions = self._lose_all()  # nothing ordered before is under way any more
        actions += self._exchange.device_back()
        for slot in sorted(self._waiting):
            actions += self._draw(slot)
        return actions

    def _lose_all(self) -> list[Action]:
        record = self._record
        actions: list[Action] = []
        for slot in range(record.measured.first, record.drawn.end):
            if slot in record.drawn and slot not in record.measured:
                actions += self._lose(slot)
        return actions

    def _lose(self, slot: int) -> list[Action]:
        self._lost_blocks += 1
        self._lost_rounds += self._record.request.slot_rounds(slot)
        return self._answered(slot, None)

    def _answered(self, slot: int, outcomes: Bits | None) -> list[Action]:
        record = self._record
        self.moved = True
        self._in_hand = {block: s for block, s in self._in_hand.items() if s != slot}
        persist = Persist((record.measure(slot, outcomes),))
        more = [] if record.is_alice else self._done([slot])
        last = self.losses() if record.measured.all() else []
        return [persist, self._tell_answered(slot), *more, *last]

    def losses(self) -> list[Action]:
        """Notes of what counted as 0, once: after this end's last round, or when there is none."""
        session, notes = self._record.session, list[Action]()
        if self._lost_blocks:
            lost = {"blocks": self._lost_blocks, "rounds": self._lost_rounds}
            notes.append(Note("outcomes_lost", {"session": session, **lost}))
        if self._unanswered:
            notes.append(Note("no_answer", {"session": session, "rounds": self._unanswered}))
        self._lost_blocks = self._lost_rounds = self._unanswered = 0
        return notes

    def _done(self, slots: list[int]) -> list[Action]:
        """These slots are answered at both ends."""
        if not slots:
            return []
        record = self._record
        self.moved = True
        for slot in slots:
            record.answered.add(slot)
        return [*record.fold(), *self._exchange.finish(slots)]

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
                    self.failure = f"link failed: {reason}: check devices and fibre, run again"
        return actions

    def _pairs(self, pairs: PairsReady) -> list[Action]:
        self.moved = True
        if pairs.slot in self._record.drawn:
            return []
        self._waiting[pairs.slot] = pairs
        return self._draw(pairs.slot)

    def _draw(self, slot: int) -> list[Action]:
        """Draw for a slot if its pairs, the device and (for Bob) its tests are there."""
        record = self._record
        pairs = self._waiting.get(slot)
        if pairs is None or self._exchange.device_away:
            return []
        p, rounds = record.parameters, len(pairs.patterns)
        flips: Flags | None = None
        if record.is_alice:
            rng = self._rng.child("alice", pairs.block)
            tests, settings = draw_alice(rng, p.gamma, rounds)
            flips = draw_flips(rng, p.flip_probability, tests)
        elif slot in self._announced:
            tests = self._announced.pop(slot)
            settings = draw_bob(self._rng.child("bob", pairs.block), tests)
        else:
            return []
        del self._waiting[slot]
        fact = record.draw(slot, tests, settings, pairs.patterns, flips, pairs.span)
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
        if slot in record.measured:
            return [self._tell_answered(slot)]
        if slot in record.drawn or slot in self._announced:
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
        if slot not in self._announced and full and slot not in record.drawn:
            return "tests_window"
        known = self._announced.get(slot)
        if slot in record.drawn:
            known = record.tests[record.request.span(slot)]
        if known is not None and not np.array_equal(known, message.tests):
            return "tests_changed"
        return None

    def hear_done(self, message: SlotDone) -> list[Action]:
        record, slot = self._record, message.slot
        if not record.is_alice or slot not in record.measured:
            return [Refuse(record.peer, "slot_done_unexpected", f"slot {slot}")]
        return [] if slot in record.peer_done else self._done([slot])
