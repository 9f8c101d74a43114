"""Works that hand out keys: each key once to its master, once to its slave, then it is gone.

Rules.  A key longer than a slot is joined from the next free slots of one block and one issuer, in
their order, cut to its size, and named by the first of them.  A delivery is all or nothing, and
the keys are erased in the transaction that answers it.
"""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby, islice
from typing import Final

from bellhop.hal.operations import NodeName, Source
from bellhop.node.keystore.blocks import shred_if_spent
from bellhop.node.keystore.database import Transaction
from bellhop.node.keystore.records import (
    DeliveredKey,
    EmulatedRefused,
    Fetched,
    FetchOutcome,
    InsufficientKeys,
    NotFound,
    NotYetAllocated,
    NotYours,
    SourceUnmet,
    Stock,
    Taken,
    TakeOutcome,
)
from bellhop.stack.core import KeysTaken
from bellhop.stack.ids import KeyId, SaeId, SessionId
from bellhop.stack.keys.ledger import SLOT_BYTES
from bellhop.stack.messages import Allocation

SLOT_BITS: Final = 8 * SLOT_BYTES


@dataclass(frozen=True, slots=True)
class TakeRequest:
    """`number` keys of `size_bits` towards `peer`, for `master` to share with `slave`.

    `production`: emulated keys are not handed out.  `source`: only keys of this one.
    """

    peer: NodeName
    master: SaeId
    slave: SaeId
    number: int
    size_bits: int
    production: bool = False
    source: str | None = None


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """Keys that `master` was handed at the peer, for `slave`."""

    master: SaeId
    slave: SaeId
    key_ids: tuple[KeyId, ...]
    production: bool = False


@dataclass(frozen=True, slots=True)
class _Slot:
    key_id: KeyId
    block: int
    slot: int
    session: SessionId
    source: str
    dek: bytes = field(repr=False)
    sealed: bytes = field(repr=False)


def slots_for(size_bits: int) -> int:
    """How many slots a key of this size takes."""
    assert size_bits > 0 and size_bits % 8 == 0, "a key is of whole bytes"
    return -(-size_bits // SLOT_BITS)


_OF_PEER = (
    "b.peer = :peer AND b.state = 'deliverable' AND (:source IS NULL OR b.source = :source)"
    f" AND NOT (:production AND b.source = '{Source.EMULATED.value}')"
)
_FREE = "k.own = 1 AND k.state = 'free' AND k.sealed IS NOT NULL"
# CROSS JOIN keeps the order of the loops, so that the reading stops when it has enough
_JOIN = f"FROM blocks b CROSS JOIN keys k ON k.block = b.block WHERE {_OF_PEER} AND {_FREE}"
_COLUMNS = "k.key_id, b.block, k.slot, b.session, b.source, b.dek, k.sealed"
_FREE_SLOTS = f"SELECT {_COLUMNS} {_JOIN} ORDER BY b.block, k.slot"
_FREE_COUNTS = f"SELECT b.source, COUNT(*) {_JOIN} GROUP BY b.block"
_SLOTS_OF_KEY = (
    f"SELECT {_COLUMNS} FROM keys k JOIN blocks b USING (block)"  # noqa: S608 - made of constants
    " WHERE k.block = ? AND (k.slot = ? OR k.lead = ?) ORDER BY k.slot"
)


def stock(
    tx: Transaction, peer: NodeName, size_bits: int, production: bool, source: str | None = None
) -> Stock:
    """What this node may hand to masters towards `peer`, in keys of `size_bits`."""
    rows = tx.sql.execute(
        _FREE_COUNTS,
        {"peer": peer, "production": production, "source": source},
    )
    joined = slots_for(size_bits)
    counts = [(of_source, free // joined) for of_source, free in rows]
    return Stock(
        sum(keys for _, keys in counts),
        tuple(sorted({of_source for of_source, keys in counts if keys})),
    )


def take(tx: Transaction, request: TakeRequest) -> TakeOutcome:
    """Hand the oldest free keys to their master; what the peer must know goes to the outbox."""
    assert request.number > 0
    picked = _pick(tx.sql, request)
    if len(picked) < request.number:
        return _shortage(tx, request)
    keys = tuple(_open(tx, slots, request.size_bits) for slots in picked)
    allocations = tuple(
        Allocation(
            session=slots[0].session,
            key_id=slots[0].key_id,
            slots=tuple(slot.slot for slot in slots),
            size_bits=request.size_bits,
            master=request.master,
            slave=request.slave,
        )
        for slots in picked
    )
    for slots in picked:
        _mark_taken(tx, request, slots)
    for block in {slots[0].block for slots in picked}:
        shred_if_spent(tx, block)
    return Taken(keys, KeysTaken(request.peer, allocations))


def fetch(tx: Transaction, request: FetchRequest) -> FetchOutcome:
    """Hand keys to their slave, in the order asked for."""
    assert len(set(request.key_ids)) == len(request.key_ids), "a key is asked for once"
    standing: dict[_Standing, list[KeyId]] = {kind: [] for kind in _Standing}
    for key_id in request.key_ids:
        standing[_standing(tx.sql, request, key_id)].append(key_id)
    if standing[_Standing.OF_ANOTHER]:
        return NotYours(tuple(standing[_Standing.OF_ANOTHER]))
    if standing[_Standing.UNKNOWN]:
        return NotFound(tuple(standing[_Standing.UNKNOWN]))
    if standing[_Standing.WAITING]:
        return NotYetAllocated(tuple(standing[_Standing.WAITING]))
    found = [_slots_of(tx.sql, key_id) for key_id in request.key_ids]
    if request.production and any(s[0].source == Source.EMULATED.value for s, _ in found):
        return EmulatedRefused(0)
    keys = tuple(_open(tx, slots, size_bits) for slots, size_bits in found)
    for slots, _ in found:
        _erase(tx, slots)
    for block in {slots[0].block for slots, _ in found}:
        shred_if_spent(tx, block)
    return Fetched(keys)


def _pick(sql: sqlite3.Connection, request: TakeRequest) -> list[tuple[_Slot, ...]]:
    """At most `number` keys as their slots, the oldest first."""
    joined = slots_for(request.size_bits)
    with closing(_free_slots(sql, request)) as free:
        of_blocks = (slots for _, slots in groupby(free, key=lambda slot: slot.block))
        keys = (key for slots in of_blocks for key in _whole_keys(slots, joined))
        return list(islice(keys, request.number))


def _whole_keys(slots: Iterator[_Slot], joined: int) -> Iterator[tuple[_Slot, ...]]:
    while len(key := tuple(islice(slots, joined))) == joined:
        yield key


def _free_slots(sql: sqlite3.Connection, request: TakeRequest) -> Generator[_Slot]:
    with closing(sql.cursor()) as rows:
        rows.execute(
            _FREE_SLOTS,
            {"peer": request.peer, "production": request.production, "source": request.source},
        )
        for row in rows:
            yield _Slot(*row)


def _shortage(tx: Transaction, request: TakeRequest) -> TakeOutcome:
    """Why there are too few: there are none, or none of those that may be handed out."""

    def available(production: bool, source: str | None) -> int:
        return stock(tx, request.peer, request.size_bits, production, source).keys

    here = available(request.production, request.source)
    if request.source is not None and available(request.production, None) >= request.number:
        return SourceUnmet(here)
    if request.production and available(False, request.source) >= request.number:
        return EmulatedRefused(here)
    return InsufficientKeys(here)


def _open(tx: Transaction, slots: tuple[_Slot, ...], size_bits: int) -> DeliveredKey:
    first = slots[0]
    seal = tx.keys.open_key(first.dek, "blocks", first.session)
    key = b"".join(
        seal.open(slot.sealed, "keys", slot.key_id, slot.session, slot.slot) for slot in slots
    )
    return DeliveredKey(first.key_id, first.session, first.source, key[: size_bits // 8])


def _mark_taken(tx: Transaction, request: TakeRequest, slots: tuple[_Slot, ...]) -> None:
    join_slots(tx, slots[0].block, tuple(slot.slot for slot in slots))
    tx.sql.execute(
        "UPDATE keys SET size_bits = ?, master = ?, slave = ? WHERE key_id = ?",
        (request.size_bits, request.master, request.slave, slots[0].key_id),
    )
    _erase(tx, slots)
    tx.sql.execute(
        "INSERT INTO outbox (key_id, peer) VALUES (?, ?)", (slots[0].key_id, request.peer)
    )


def join_slots(tx: Transaction, block: int, slots: tuple[int, ...]) -> None:
    """Join the slots behind the first one into its key."""
    tx.sql.executemany(
        "UPDATE keys SET lead = ? WHERE block = ? AND slot = ?",
        ((slots[0], block, slot) for slot in slots[1:]),
    )


def _erase(tx: Transaction, slots: tuple[_Slot, ...]) -> None:
    tx.sql.executemany(
        "UPDATE keys SET state = 'delivered', sealed = NULL, done_ns = ?"
        " WHERE block = ? AND slot = ?",
        ((tx.now_ns, slot.block, slot.slot) for slot in slots),
    )
    tx.burns += len(slots)


class _Standing(Enum):
    READY = "ready"
    WAITING = "waiting"
    UNKNOWN = "unknown"
    OF_ANOTHER = "of another"


def _standing(sql: sqlite3.Connection, request: FetchRequest, key_id: KeyId) -> _Standing:
    row = sql.execute(
        "SELECT own, state, master, slave FROM keys WHERE key_id = ? AND lead IS NULL", (key_id,)
    ).fetchone()
    if row is None:
        return _Standing.UNKNOWN
    own, state, master, slave = row
    if slave is None:
        # a key that this node may hand out first, and has not, is nobody's business yet
        return _Standing.WAITING if not own and state == "free" else _Standing.UNKNOWN
    if slave != request.slave:
        return _Standing.OF_ANOTHER
    if own or state != "allocated" or master != request.master:
        return _Standing.UNKNOWN
    return _Standing.READY


def _slots_of(sql: sqlite3.Connection, key_id: KeyId) -> tuple[tuple[_Slot, ...], int]:
    """An allocated key as its slots, and its size in bits."""
    block, first, size_bits = sql.execute(
        "SELECT block, slot, size_bits FROM keys WHERE key_id = ?", (key_id,)
    ).fetchone()
    rows = sql.execute(_SLOTS_OF_KEY, (block, first, first))
    return tuple(_Slot(*row) for row in rows), size_bits
