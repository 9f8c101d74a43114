"""Works on allocations: what the peer says it handed out, and what it must still be told."""

from itertools import pairwise
from typing import Final

from bellhop.hal.operations import NodeName
from bellhop.node.keystore.database import Transaction
from bellhop.node.keystore.delivery import join_slots, slots_for
from bellhop.node.keystore.records import RefusedAllocation
from bellhop.stack.core import ForgetAllocations, RecordAllocations
from bellhop.stack.ids import KeyId, SaeId, SessionId
from bellhop.stack.messages import Allocation

_SLOTS_MAX: Final = 2**32
"""No block has as many slots; keeps a peer's numbers within what the tables can hold."""


def record_allocations(tx: Transaction, action: RecordAllocations) -> list[RefusedAllocation]:
    """Record what can be; again, it changes nothing.  Returns what cannot be, and why.

    A held block's keys are recorded too: a peer that hands out a key has the block.
    """
    refused = []
    for allocation in action.allocations:
        reason = _record(tx, action.peer, allocation)
        if reason:
            refused.append(RefusedAllocation(allocation.key_id, reason))
    return refused


def outbox(tx: Transaction, peer: NodeName) -> list[Allocation]:
    """What the peer has not recorded yet, in the order of the deliveries."""
    rows = tx.sql.execute(
        "SELECT k.key_id, k.block, k.slot, b.session, k.size_bits, k.master, k.slave"
        " FROM outbox o JOIN keys k USING (key_id) JOIN blocks b USING (block)"
        " WHERE o.peer = ? ORDER BY o.place",
        (peer,),
    ).fetchall()
    return [
        Allocation(
            session=SessionId(session),
            key_id=KeyId(key_id),
            slots=_slots(tx, block, slot),
            size_bits=size_bits,
            master=SaeId(master),
            slave=SaeId(slave),
        )
        for key_id, block, slot, session, size_bits, master, slave in rows
    ]


def forget_allocations(tx: Transaction, action: ForgetAllocations) -> None:
    """The peer has recorded these."""
    tx.sql.executemany(
        "DELETE FROM outbox WHERE key_id = ? AND peer = ?",
        ((key_id, action.peer) for key_id in action.key_ids),
    )


def _record(tx: Transaction, peer: NodeName, allocation: Allocation) -> str:
    """Record one; returns why not, or nothing."""
    row = tx.sql.execute(
        "SELECT block, state FROM blocks WHERE session = ? AND peer = ?",
        (allocation.session, peer),
    ).fetchone()
    if row is None or row[1] == "void":
        return "the session left no block here" if row is None else "the block is void"
    reason = _malformed(allocation)
    keys = [] if reason else [_key_row(tx, row[0], slot) for slot in allocation.slots]
    reason = reason or _misfit(allocation, keys)
    if reason or _recorded_alike(tx, row[0], allocation):
        return reason
    if any(key is not None and key[2] != "free" for key in keys):
        return "handed out otherwise already"
    _allocate(tx, row[0], allocation)
    return ""


def _malformed(allocation: Allocation) -> str:
    slots = allocation.slots
    if not slots or any(a >= b for a, b in pairwise(slots)):
        return "slots are not in their order"
    if slots[0] < 0 or slots[-1] >= _SLOTS_MAX:
        return "unknown slot"
    if allocation.size_bits <= 0 or allocation.size_bits % 8:
        return "the size is not a positive multiple of 8"
    if slots_for(allocation.size_bits) != len(slots):
        return "the size does not fit the slots"
    return ""


def _misfit(allocation: Allocation, keys: list[tuple[str, int, str] | None]) -> str:
    if keys[0] is None or None in keys:
        return "unknown slot"
    if keys[0][0] != allocation.key_id:
        return "the key id is not that of the first slot"
    if any(key is not None and key[1] for key in keys):
        return "a slot is not the peer's to hand out"
    return ""


def _key_row(tx: Transaction, block: int, slot: int) -> tuple[str, int, str] | None:
    """A slot's key id, whether this node may hand it out first, and its state."""
    row: tuple[str, int, str] | None = tx.sql.execute(
        "SELECT key_id, own, state FROM keys WHERE block = ? AND slot = ?", (block, slot)
    ).fetchone()
    return row


def _allocate(tx: Transaction, block: int, allocation: Allocation) -> None:
    join_slots(tx, block, allocation.slots)
    tx.sql.execute(
        "UPDATE keys SET size_bits = ?, master = ?, slave = ? WHERE key_id = ?",
        (allocation.size_bits, allocation.master, allocation.slave, allocation.key_id),
    )
    tx.sql.executemany(
        "UPDATE keys SET state = 'allocated' WHERE block = ? AND slot = ?",
        ((block, slot) for slot in allocation.slots),
    )


def _recorded_alike(tx: Transaction, block: int, allocation: Allocation) -> bool:
    stored = tx.sql.execute(
        "SELECT size_bits, master, slave FROM keys WHERE key_id = ? AND lead IS NULL",
        (allocation.key_id,),
    ).fetchone()
    given = (allocation.size_bits, allocation.master, allocation.slave)
    return stored == given and _slots(tx, block, allocation.slots[0]) == allocation.slots


def _slots(tx: Transaction, block: int, first: int) -> tuple[int, ...]:
    """The slots of the key named by slot `first`."""
    rows = tx.sql.execute(
        "SELECT slot FROM keys WHERE block = ? AND (slot = ? OR lead = ?) ORDER BY slot",
        (block, first, first),
    )
    return tuple(slot for (slot,) in rows)
