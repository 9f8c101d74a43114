"""What the key store must do, as plain dictionaries: slow, in memory, and easy to read."""

from collections import Counter
from dataclasses import dataclass, field

from bellhop.hal.operations import NodeName
from bellhop.node.keystore import (
    BlockState,
    EmulatedRefused,
    FetchRequest,
    InsufficientKeys,
    KeyState,
    NotFound,
    NotYetAllocated,
    NotYours,
    SourceUnmet,
    TakeRequest,
)
from bellhop.stack.core import DistilledBlock, Persist
from bellhop.stack.ids import KeyId, SaeId, SessionId
from bellhop.stack.messages import Allocation

Refused = InsufficientKeys | EmulatedRefused | SourceUnmet | NotFound | NotYours | NotYetAllocated


@dataclass
class ModelSlot:
    key_id: KeyId
    own: bool
    key: bytes
    state: KeyState = KeyState.FREE
    joined: bool = False
    allocation: Allocation | None = None


@dataclass
class ModelBlock:
    block: DistilledBlock
    slots: dict[int, ModelSlot]
    state: BlockState = BlockState.HELD

    def free_own(self) -> list[int]:
        return [i for i, s in sorted(self.slots.items()) if s.own and s.state is KeyState.FREE]

    def spend(self) -> None:
        live = [s for s in self.slots.values() if s.state in {KeyState.FREE, KeyState.ALLOCATED}]
        if self.state is BlockState.DELIVERABLE and not live:
            self.state = BlockState.SPENT

    def key_of(self, allocation: Allocation) -> bytes:
        joined = b"".join(self.slots[index].key for index in allocation.slots)
        return joined[: allocation.size_bits // 8]


@dataclass
class Model:
    """The store of `node`."""

    node: NodeName
    blocks: dict[SessionId, ModelBlock] = field(default_factory=dict)
    facts: dict[str, bytes] = field(default_factory=dict)
    outbox: dict[NodeName, list[Allocation]] = field(default_factory=dict)
    handed_out: Counter[KeyId] = field(default_factory=Counter)

    def persist(self, facts: Persist) -> None:
        kept = {n: p for n, p in self.facts.items() if not n.startswith(facts.forget)}
        self.facts = kept | {fact.name: fact.payload for fact in facts.put}

    def store(self, block: DistilledBlock) -> None:
        slots = {
            slot.index: ModelSlot(slot.key_id, slot.issuer == self.node, slot.key)
            for slot in block.slots
        }
        self.blocks.setdefault(block.session, ModelBlock(block, slots))

    def confirm(self, session: SessionId) -> None:
        block = self.blocks[session]
        if block.state is BlockState.HELD:
            block.state = BlockState.DELIVERABLE
            block.spend()

    def void(self, session: SessionId) -> None:
        block = self.blocks[session]
        block.state = BlockState.VOID
        for slot in block.slots.values():
            if slot.state is not KeyState.DELIVERED:
                slot.state = KeyState.VOID

    def available(
        self, peer: NodeName, size_bits: int, production: bool, source: str | None
    ) -> list[tuple[ModelBlock, tuple[int, ...]]]:
        """Every key that could be taken, the oldest first, as its slots."""
        joined = -(-size_bits // 256)
        keys = []
        for block in self.blocks.values():
            wanted = block.block.peer == peer and block.state is BlockState.DELIVERABLE
            allowed = source in {None, block.block.source}
            if not wanted or not allowed or (production and block.block.source == "emulated"):
                continue
            free = block.free_own()
            keys += [
                (block, tuple(free[i : i + joined]))
                for i in range(0, len(free) - joined + 1, joined)
            ]
        return keys

    def take(self, r: TakeRequest) -> Refused | list[tuple[Allocation, bytes]]:
        keys = self.available(r.peer, r.size_bits, r.production, r.source)
        if len(keys) < r.number:
            anything = self.available(r.peer, r.size_bits, r.production, None)
            emulated_too = self.available(r.peer, r.size_bits, False, r.source)
            if len(anything) >= r.number:
                return SourceUnmet(len(keys))
            if len(emulated_too) >= r.number:
                return EmulatedRefused(len(keys))
            return InsufficientKeys(len(keys))
        return [self._hand_out(r, block, slots) for block, slots in keys[: r.number]]

    def _hand_out(
        self, r: TakeRequest, block: ModelBlock, slots: tuple[int, ...]
    ) -> tuple[Allocation, bytes]:
        lead = block.slots[slots[0]]
        allocation = Allocation(
            block.block.session, lead.key_id, slots, r.size_bits, r.master, r.slave
        )
        self.outbox.setdefault(r.peer, []).append(allocation)
        self._mark(block, allocation, KeyState.DELIVERED)
        self.handed_out[lead.key_id] += 1
        return allocation, block.key_of(allocation)

    def _mark(self, block: ModelBlock, allocation: Allocation, state: KeyState) -> None:
        for index in allocation.slots:
            slot = block.slots[index]
            slot.state = state
            slot.joined = index != allocation.slots[0]
            slot.allocation = None if slot.joined else allocation
        block.spend()

    def record(self, peer: NodeName, allocation: Allocation) -> bool:
        """Whether the allocation stands."""
        block = self.blocks.get(allocation.session)
        if block is None or block.block.peer != peer or block.state is BlockState.VOID:
            return False
        slots = [block.slots.get(index) for index in allocation.slots]
        ordered = list(allocation.slots) == sorted(set(allocation.slots))
        fits = allocation.size_bits > 0 and len(slots) == -(-allocation.size_bits // 256)
        if not ordered or not fits or allocation.size_bits % 8:
            return False
        if any(slot is None or slot.own for slot in slots):
            return False
        there = [slot for slot in slots if slot is not None]
        if there[0].key_id != allocation.key_id:
            return False
        if there[0].allocation == allocation:
            return True
        if any(slot.state is not KeyState.FREE for slot in there):
            return False
        self._mark(block, allocation, KeyState.ALLOCATED)
        return True

    def find(self, key_id: KeyId) -> tuple[ModelBlock, ModelSlot] | None:
        for block in self.blocks.values():
            for slot in block.slots.values():
                if slot.key_id == key_id and not slot.joined:
                    return block, slot
        return None

    def fetch(self, r: FetchRequest) -> Refused | list[tuple[KeyId, bytes]]:
        standing = {key_id: self._standing(r, key_id) for key_id in r.key_ids}
        for kind in (NotYours, NotFound, NotYetAllocated):
            if named := tuple(key_id for key_id in r.key_ids if standing[key_id] is kind):
                return kind(named)
        found = [place for key_id in r.key_ids if (place := self.find(key_id))]
        if r.production and any(block.block.source == "emulated" for block, _ in found):
            return EmulatedRefused(0)
        keys = []
        for block, slot in found:
            assert slot.allocation is not None
            keys.append((slot.key_id, block.key_of(slot.allocation)))
            self._mark(block, slot.allocation, KeyState.DELIVERED)
            self.handed_out[slot.key_id] += 1
        return keys

    def _standing(
        self, r: FetchRequest, key_id: KeyId
    ) -> type[NotYours] | type[NotFound] | type[NotYetAllocated] | None:
        place = self.find(key_id)
        if place is None:
            return NotFound
        _, slot = place
        if slot.allocation is None:
            return NotYetAllocated if slot.state is KeyState.FREE and not slot.own else NotFound
        if slot.allocation.slave != r.slave:
            return NotYours
        ready = slot.state is KeyState.ALLOCATED and slot.allocation.master == r.master
        return None if ready else NotFound

    def forget(self, peer: NodeName, key_ids: tuple[KeyId, ...]) -> None:
        kept = [a for a in self.outbox.get(peer, []) if a.key_id not in key_ids]
        self.outbox[peer] = kept

    def parties(self, slot: ModelSlot) -> tuple[SaeId | None, SaeId | None]:
        return (
            (None, None)
            if slot.allocation is None
            else (slot.allocation.master, slot.allocation.slave)
        )
