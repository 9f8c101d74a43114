"""The rounds of a session at one end, the facts it has persisted, and what its device says."""

import numpy as np
from tests.support.cores import ALICE, REQUEST, SESSION, facts_of, plan, records, told

from bellhop.hal.operations import Heralded, Measured, NodeName, Operation
from bellhop.node.chance import SeededRng
from bellhop.stack.core import Action, Order, Refuse
from bellhop.stack.diqkd.measure import Measuring
from bellhop.stack.diqkd.record import Record, restore
from bellhop.stack.messages import BlockHeralded, Position, SlotDone, TestRounds

P = plan()
SLOTS = -(-P.rounds // P.block_rounds)
LINK = P.link


class OneEnd:
    """The rounds of one end, and the facts it has persisted."""

    def __init__(self, own: NodeName, record: Record | None = None) -> None:
        self.record = record or records()[own]
        self.facts: dict[str, bytes] = {}
        self.measuring = self._new()

    def _new(self) -> Measuring:
        rng = SeededRng(4, self.record.own)
        return Measuring(self.record, rng, self.facts, device_ready=True)

    def keep(self, actions: list[Action]) -> list[Action]:
        self.facts |= {fact.name: fact.payload for fact in facts_of(actions)}
        return actions

    def begin(self) -> list[Action]:
        return self.keep(self.measuring.begin())

    def agree(self, block: int) -> list[Action]:
        """Both ends have seen the block."""
        slot = block % SLOTS
        actions = self.keep(self.measuring.heralded(herald(block)))
        word = next(m for m in told(actions) if isinstance(m, BlockHeralded))
        assert word.block == block
        more = self.keep(self.measuring.hear_block(0, word))
        assert slot == block % SLOTS
        return more

    def restart(self) -> "OneEnd":
        known = self.record.parameters_fact()
        (record,) = restore(self.record.own, {known.name: known.payload} | self.facts)
        again = OneEnd(self.record.own, record)
        again.facts = dict(self.facts)
        again.measuring = again._new()
        return again


def rounds_of(block: int) -> int:
    return min(P.block_rounds, P.rounds - block % SLOTS * P.block_rounds)


def herald(block: int) -> Heralded:
    numbers = np.arange(rounds_of(block), dtype=np.int64) + block
    patterns = np.arange(rounds_of(block)).astype(np.uint8) % 4
    return Heralded(LINK, REQUEST, block, numbers, patterns, 0, 1)


def outcome(block: int, seed: int = 1) -> Measured:
    bits = np.random.default_rng(seed).integers(0, 2, rounds_of(block), dtype=np.uint8)
    return Measured(LINK, REQUEST, block, bits, np.ones(rounds_of(block), np.bool_))


def orders(actions: list[Action]) -> list[Operation]:
    return [a.operation for a in actions if isinstance(a, Order)]


def reasons(actions: list[Action]) -> list[str]:
    return [a.reason for a in actions if isinstance(a, Refuse)]


def position(first: int, *beyond: int) -> Position:
    """Of an end that has done all slots below `first`, and these."""
    stop = max(beyond, default=first - 1) + 1
    return Position(SESSION, first, np.isin(np.arange(first, stop), beyond))


def announced(slot: int) -> TestRounds:
    tests = np.arange(rounds_of(slot)) % 7 == 0
    return TestRounds(SESSION, slot, tests)


def alice_measuring() -> OneEnd:
    alice = OneEnd(ALICE)
    alice.begin()
    alice.agree(0)
    return alice


def finished_alice() -> OneEnd:
    alice = OneEnd(ALICE)
    alice.begin()
    for slot in range(SLOTS):
        alice.agree(slot)
        alice.keep(alice.measuring.measured(outcome(slot)))
        alice.keep(alice.measuring.hear_done(SlotDone(SESSION, slot)))
    return alice
