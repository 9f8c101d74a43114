"""Both ends of a session after its last round, each with its facts; jobs are done at once."""

import numpy as np
from tests.support.cores import (
    ALICE,
    BOB,
    OTHER,
    bits_of,
    facts_of,
    measured_records,
    plan,
    pools,
    port,
    told,
)

from bellhop.hal.operations import NodeName, Side
from bellhop.node.chance import SeededRng
from bellhop.node.sim.identities import simulated_identity
from bellhop.stack.codec import pack
from bellhop.stack.core import Action, Compute, Refuse, StoreKeys
from bellhop.stack.diqkd.device_use import DeviceUse
from bellhop.stack.diqkd.distil import Distilling
from bellhop.stack.diqkd.endorsements import Endorsements
from bellhop.stack.diqkd.jobs import (
    Amplify,
    Corrected,
    Decode,
    Encode,
    Encoded,
    EncodeExtra,
    ExtraEncoded,
    ExtraWanted,
    Prepare,
)
from bellhop.stack.diqkd.parameters import Parameters
from bellhop.stack.diqkd.pool import Pool
from bellhop.stack.diqkd.record import Record, restore
from bellhop.stack.diqkd.stages import SENT_BY_ALICE
from bellhop.stack.ids import JobNumber
from bellhop.stack.messages import Decoded, Stage, SyndromeExtra, SyndromeWanted, Tagged

P = plan()
NOW_NS = 1_000


def syndrome_of(p: Parameters) -> Encoded:
    """What stands for a syndrome where no decoder looks at it."""
    return Encoded(bytes(range(32)), bytes(-(-p.code.syndrome_bits // 8)))


def extra_of(p: Parameters, steps: int) -> bytes:
    """What stands for the bits of the first `steps` steps of extra syndrome."""
    bits = p.code.leak_bits(steps) - p.code.syndrome_bits
    ones = np.arange(bits) % 3 == 0
    return pack(ones)


class OneEnd:
    """One end after its last round; jobs are done when they are ordered, with these results."""

    def __init__(self, own: NodeName, record: Record, pool: Pool, *decoded: object) -> None:
        self.own = own
        self.record = record
        self.pool = pool
        self.decoded = list(decoded)  # what the decoder finds, time after time; the last one stays
        self.facts: dict[str, bytes] = {}
        self.actions: list[Action] = []
        self.jobs = 0
        self.distilling = self._new()

    def _new(self) -> Distilling:
        side = Side.A if self.own == ALICE else Side.B
        rng = SeededRng(5, self.own, self.jobs)
        use, words = DeviceUse(3), Endorsements(self.own, simulated_identity(self.own), self.facts)
        return Distilling(self.record, self.pool, rng, port(side), use, words, self._number)

    def _number(self) -> JobNumber:
        self.jobs += 1
        return JobNumber(self.jobs)

    def do(self, actions: list[Action]) -> list[Action]:
        """What follows from these actions at this end alone."""
        self.facts |= {fact.name: fact.payload for fact in facts_of(actions)}
        done = list(actions)
        for action in actions:
            if isinstance(action, Compute):
                done += self.do(self.distilling.computed(NOW_NS, action.job, self.work(action)))
        return done

    def work(self, order: Compute) -> object:
        match order.work:
            case Prepare():
                return b""
            case Encode():
                return syndrome_of(self.record.parameters)
            case EncodeExtra(_, _, steps):
                return ExtraEncoded(steps, extra_of(self.record.parameters, steps))
            case Decode():
                return self.decoded.pop(0) if len(self.decoded) > 1 else self.decoded[0]
            case Amplify():
                return order.work.run()
        raise AssertionError(order)

    def advance(self) -> list[Action]:
        return self.note(self.do(self.distilling.advance(NOW_NS)))

    def hear(self, message: object) -> list[Action]:
        match message:
            case Tagged():
                return self.note(self.do(self.distilling.hear_tagged(NOW_NS, message)))
            case Decoded():
                return self.note(self.do(self.distilling.hear_decoded(NOW_NS)))
            case SyndromeWanted():
                return self.note(self.do(self.distilling.hear_wanted(message)))
            case SyndromeExtra():
                return self.note(self.do(self.distilling.hear_extra(NOW_NS, message)))
        return []

    def note(self, actions: list[Action]) -> list[Action]:
        self.actions += actions
        return actions


class Both:
    """Two ends; Bob's decoder wants steps in all, each of `wanted`, then finds Alice's string."""

    def __init__(
        self,
        losses: int = 0,
        errors: int = 0,
        masks: int = 16,
        parameters: Parameters = P,
        wanted: tuple[int, ...] = (),
    ) -> None:
        records, shared = measured_records(losses, errors, parameters), pools(masks)
        decoded = (*map(ExtraWanted, wanted), Corrected(bits_of(records[ALICE])))
        self.ends = {own: OneEnd(own, records[own], shared[own], *decoded) for own in (ALICE, BOB)}
        self.alice, self.bob = self.ends[ALICE], self.ends[BOB]
        self.said: list[Tagged] = []

    def run(self, until: Stage | None = None) -> None:
        """Carry what is said, up to and without hearing `until`."""
        waiting = [(ALICE, m) for m in told(self.alice.advance())]
        waiting += [(BOB, m) for m in told(self.bob.advance())]
        while waiting:
            speaker, message = waiting.pop(0)
            if isinstance(message, Tagged):
                self.said.append(message)
                if message.stage is until:
                    return
            listener = self.ends[OTHER[speaker]]
            waiting += [(listener.own, m) for m in told(listener.hear(message))]

    def last(self, stage: Stage) -> Tagged:
        return next(m for m in self.said if m.stage is stage)

    def listener(self, stage: Stage) -> OneEnd:
        return self.bob if SENT_BY_ALICE[stage] else self.alice


def stores(end: OneEnd) -> list[StoreKeys]:
    return [action for action in end.actions if isinstance(action, StoreKeys)]


def reasons(actions: list[Action]) -> list[str]:
    return [a.reason for a in actions if isinstance(a, Refuse)]


def restarted(end: OneEnd) -> OneEnd:
    """The same end from its facts alone; its memory is gone."""
    own, stored = end.own, end.record.stored
    p = end.record.parameters
    known = Record(p, own, OTHER[own], agreed=True, stored=stored).parameters_fact()
    facts = {known.name: known.payload} | end.facts
    for slot in range(0 if stored else end.record.request.slots):
        span = end.record.request.span(slot)
        was, fresh = end.record, Record(p, own, OTHER[own], agreed=True)
        drawn = fresh.draw(
            slot, was.tests[span], was.settings[span], was.patterns[span], was.flips[span]
        )
        both = (drawn, fresh.measure(slot, was.outcomes[span]))
        facts |= {fact.name: fact.payload for fact in both}
    (record,) = restore(own, facts)
    record.peer_done.add_run(0, record.request.slots)
    again = OneEnd(own, record, end.pool, *end.decoded)
    again.facts = facts
    again.actions = list(end.actions)
    again.jobs = end.jobs + 100
    again.distilling = again._new()
    return again
