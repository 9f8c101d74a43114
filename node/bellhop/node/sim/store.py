"""The key store of a simulated node: what a crash leaves behind."""

from dataclasses import dataclass, field, replace

from bellhop.hal.operations import NodeName
from bellhop.stack.core import (
    ConfirmKeys,
    DistilledBlock,
    ForgetAllocations,
    KeysTaken,
    Persist,
    RecordAllocations,
    StoreKeys,
    VoidKeys,
)
from bellhop.stack.ids import KeyId, SaeId, SessionId
from bellhop.stack.keys.ledger import SLOT_BYTES
from bellhop.stack.messages import Allocation
from bellhop.stack.node import Restored

Durable = Persist | StoreKeys | ConfirmKeys | VoidKeys | RecordAllocations | ForgetAllocations

MASTER, SLAVE = SaeId("master"), SaeId("slave")
"""The two applications of every simulated network."""


@dataclass(slots=True)
class SimulatedStore:
    """Everything that survives.  `held` blocks wait for the peer, `deliverable` ones do not."""

    facts: dict[str, bytes] = field(default_factory=dict, repr=False)
    held: dict[SessionId, DistilledBlock] = field(default_factory=dict)
    deliverable: dict[SessionId, DistilledBlock] = field(default_factory=dict)
    outbox: dict[NodeName, dict[KeyId, Allocation]] = field(default_factory=dict)
    recorded: dict[KeyId, Allocation] = field(default_factory=dict)
    taken: dict[KeyId, Allocation] = field(default_factory=dict)

    def perform(self, action: Durable) -> None:
        match action:
            case Persist():
                self._persist(action)
            case StoreKeys(block, persist):
                self.held[block.session] = block
                self._persist(persist)
            case ConfirmKeys(session, persist, receipt):
                block = self.held.pop(session)
                self.deliverable[session] = replace(block, receipt=receipt or block.receipt)
                self._persist(persist)
            case VoidKeys(session):
                self.held.pop(session, None)
            case RecordAllocations(_, allocations):
                self.recorded |= {allocation.key_id: allocation for allocation in allocations}
            case ForgetAllocations(peer, key_ids):
                for key_id in key_ids:
                    self.outbox[peer].pop(key_id, None)

    def _persist(self, persist: Persist) -> None:
        gone = [name for name in self.facts if name.startswith(persist.forget)]
        for name in gone if persist.forget else []:
            del self.facts[name]
        self.facts |= {fact.name: fact.payload for fact in persist.put}

    def take(self, own: NodeName, count: int) -> list[KeysTaken]:
        """Up to `count` keys are handed to their master here: gone, and in the outbox."""
        chosen: dict[NodeName, list[Allocation]] = {}
        for session, block in self.deliverable.items():
            for slot in block.slots:
                if count and slot.issuer == own and slot.key_id not in self.taken:
                    slots = (slot.index,)
                    allocation = Allocation(
                        session, slot.key_id, slots, 8 * SLOT_BYTES, MASTER, SLAVE
                    )
                    self.taken[slot.key_id] = allocation
                    chosen.setdefault(block.peer, []).append(allocation)
                    count -= 1
        for peer, allocations in chosen.items():
            self.outbox.setdefault(peer, {}).update({a.key_id: a for a in allocations})
        return [KeysTaken(peer, tuple(allocations)) for peer, allocations in chosen.items()]

    def restored(self) -> Restored:
        boxes = {peer: tuple(box.values()) for peer, box in self.outbox.items()}
        return replace(Restored(), facts=dict(self.facts), held=tuple(self.held), outbox=boxes)
