"""Both ends of a session of very many slots, their stores, and a device that does as it is told."""

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from tests.support.cores import ALICE, BOB, OTHER, plan, records

from bellhop.hal.operations import Attempt, Heralded, Measure, Measured, NodeName, Report
from bellhop.node.chance import SeededRng
from bellhop.stack.core import Action, Order, Persist, Tell
from bellhop.stack.diqkd.measure import Measuring
from bellhop.stack.diqkd.record import Record, restore
from bellhop.stack.link.machine import HERALD_LATE_NS
from bellhop.stack.messages import BlockHeralded, Message, Position, SlotDone, TestRounds

POSITIONS_MAX = 20
"""So often may a run need a repetition, after one crash."""


@dataclass
class End:
    """One end, what its store has, and what is on its way to it."""

    record: Record
    facts: dict[str, bytes] = field(default_factory=dict)
    most_facts: int = 0
    life: int = 0
    measuring: Measuring = field(init=False)
    reports: deque[Report] = field(default_factory=deque)
    mail: deque[Message] = field(default_factory=deque)

    def __post_init__(self) -> None:
        fact = self.record.parameters_fact()
        self.facts[fact.name] = fact.payload
        self.measuring = self._new()

    def _new(self) -> Measuring:
        self.life += 1
        rng = SeededRng(5, self.record.own, self.life)
        return Measuring(self.record, rng, self.facts, device_ready=True)

    def persist(self, persist: Persist) -> None:
        if persist.forget:
            gone = [name for name in self.facts if name.startswith(persist.forget)]
            for name in gone:
                del self.facts[name]
        for fact in persist.put:
            drawn_anew = "/drawn/" in fact.name and fact.name in self.facts
            assert not drawn_anew, "settings are never drawn again"
            self.facts[fact.name] = fact.payload
        self.most_facts = max(self.most_facts, len(self.facts))

    def restart(self) -> list[Action]:
        (self.record,) = restore(self.record.own, self.facts)
        self.measuring = self._new()
        return self.measuring.begin()


class LongRun:
    """A session's rounds, carried from the first attempt to the last answer.

    `crash_after`: the end that performs so many actions as the first stops there, and starts again.
    """

    def __init__(self, rounds: int, block_rounds: int = 1, crash_after: int = 0) -> None:
        self.parameters = replace(plan(), rounds=rounds, block_rounds=block_rounds)
        self.crash_after = crash_after
        self.actions = 0
        both = records(self.parameters)
        self.ends = {own: End(both[own]) for own in (ALICE, BOB)}
        self.attempted: set[int] = set()
        self.attempts = 0
        for own in (ALICE, BOB):
            self.perform(own, self.ends[own].measuring.begin())

    def perform(self, own: NodeName, actions: list[Action]) -> None:
        end = self.ends[own]
        for action in actions:
            match action:
                case Persist():
                    end.persist(action)
                case Tell(peer, message):
                    self.ends[peer].mail.append(message)
                case Order(Attempt(block=block)):
                    self.attempt(block)
                case Order(Measure() as order):
                    end.reports.append(self.measure(order))
                case _:
                    pass
            self.actions += 1
            if self.actions == self.crash_after:
                self.restart(own)
                return

    def attempt(self, block: int) -> None:
        """Heralds come to both ends when both have ordered them."""
        if block not in self.attempted:
            self.attempted.add(block)
            return
        self.attempted.discard(block)
        p, request = self.parameters, self.ends[ALICE].record.request
        rounds = request.slot_rounds(block % request.slots)
        numbers = np.arange(self.attempts, self.attempts + rounds)
        self.attempts += rounds
        times = (int(numbers[0]), self.attempts)
        patterns = (numbers % 4).astype(np.uint8)
        for end in self.ends.values():
            end.reports.append(Heralded(p.link, p.request, block, numbers, patterns, *times))

    def measure(self, order: Measure) -> Measured:
        rounds = len(order.settings)
        outcomes = (np.arange(rounds) + order.block & 1).astype(np.uint8)
        answered = np.ones(rounds, np.bool_)
        return Measured(order.link, order.request, order.block, outcomes, answered)

    def run(self, slots: int) -> None:
        """Until Alice knows that so many slots are done; where nothing moves, time passes."""
        alice, told = self.ends[ALICE], 0
        while alice.record.peer_done.count < slots:
            if not any(end.reports or end.mail for end in self.ends.values()):
                told += 1
                assert told < POSITIONS_MAX, "nothing moves any more"
                for own, end in self.ends.items():
                    self.perform(own, end.measuring.overdue(HERALD_LATE_NS))
                self.tell_positions()
            for own, end in self.ends.items():
                while end.reports or end.mail:
                    self.step(own, end)

    def step(self, own: NodeName, end: End) -> None:
        if end.reports:
            report = end.reports.popleft()
            if isinstance(report, Heralded):
                self.perform(own, end.measuring.heralded(report))
            elif isinstance(report, Measured):
                self.perform(own, end.measuring.measured(report))
            return
        message = end.mail.popleft()
        match message:
            case BlockHeralded():
                self.perform(own, end.measuring.hear_block(0, message))
            case TestRounds():
                self.perform(own, end.measuring.hear_tests(message))
            case SlotDone():
                self.perform(own, end.measuring.hear_done(message))
            case Position():
                self.perform(own, end.measuring.retell(message))
                self.perform(own, end.measuring.learn(message))

    def restart(self, *names: NodeName) -> None:
        """These ends stop and start again; the device forgets what it was asked."""
        self.attempted.clear()
        for end in self.ends.values():
            end.mail.clear()
            end.reports.clear()
        for own, end in self.ends.items():
            again = end.restart() if own in names else end.measuring.device_ready()
            self.perform(own, again)
        self.tell_positions()

    def tell_positions(self) -> None:
        for own, end in self.ends.items():
            position = Position(end.record.session, *end.measuring.position())
            self.ends[OTHER[own]].mail.append(position)
