"""Works on facts and whole blocks: stored, confirmed, voided, listed."""

from collections import Counter
from typing import Final

from bellhop.hal.operations import NodeName
from bellhop.node.keystore.database import Transaction
from bellhop.node.keystore.records import BlockState, BlockSummary, KeyRecord, KeyState
from bellhop.stack.core import ConfirmKeys, DistilledBlock, Fact, Persist, StoreKeys, VoidKeys
from bellhop.stack.ids import KeyId, SaeId, SessionId
from bellhop.stack.keys.ledger import SLOT_BYTES

BLOCKS_SHOWN_MAX: Final = 1000
"""Most blocks in one listing: the latest."""

_LAST_CHARACTER: Final = "\U0010ffff"


def persist(tx: Transaction, facts: Persist) -> None:
    """Forget, then put."""
    for prefix in facts.forget:
        gone = tx.sql.execute(
            "DELETE FROM facts WHERE name >= ? AND name < ?", (prefix, prefix + _LAST_CHARACTER)
        )
        tx.burns += gone.rowcount
    for fact in facts.put:
        assert _LAST_CHARACTER not in fact.name, "the last character bounds a prefix"
    tx.sql.executemany(
        "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed",
        ((fact.name, tx.facts.close(fact.payload, "facts", fact.name)) for fact in facts.put),
    )


def load_facts(tx: Transaction, prefix: str) -> list[Fact]:
    """The facts whose name begins with `prefix`, by name."""
    rows = tx.sql.execute(
        "SELECT name, sealed FROM facts WHERE name >= ? AND name < ? ORDER BY name",
        (prefix, prefix + _LAST_CHARACTER),
    )
    return [Fact(name, tx.facts.open(sealed, "facts", name)) for name, sealed in rows]


def store_keys(tx: Transaction, action: StoreKeys) -> None:
    """Hold a block back.  The same block again changes nothing but its facts."""
    block = action.block
    stored = _metadata(tx, block.session)
    if stored is None:
        _insert_block(tx, block)
    else:
        slots = tuple((slot.index, slot.key_id, slot.issuer == tx.node) for slot in block.slots)
        given = (block.peer, block.source, block.receipt, tuple(sorted(slots)))
        assert stored == given, "a session leaves one block behind"
    persist(tx, action.persist)


def confirm_keys(tx: Transaction, action: ConfirmKeys) -> None:
    """Release a held block.  Again, it changes nothing but its facts."""
    block, state = _block(tx, action.session)
    assert state not in {None, BlockState.VOID}, "a confirmed block is stored and not voided"
    tx.sql.execute(
        "UPDATE blocks SET state = 'deliverable',"
        " receipt = CASE ? WHEN '' THEN receipt ELSE ? END WHERE block = ? AND state = 'held'",
        (action.receipt, action.receipt, block),
    )
    shred_if_spent(tx, block)
    persist(tx, action.persist)


def void_keys(tx: Transaction, action: VoidKeys) -> None:
    """Erase a held block.  Nothing to do if there is none, or it is void already."""
    block, state = _block(tx, action.session)
    if state in {None, BlockState.VOID}:
        return
    assert state is BlockState.HELD, "only a held block can be voided"
    gone = tx.sql.execute(
        "UPDATE keys SET state = 'void', sealed = NULL, done_ns = ?"
        " WHERE block = ? AND sealed IS NOT NULL",
        (tx.now_ns, block),
    )
    tx.burns += gone.rowcount + 1
    tx.sql.execute(
        "UPDATE blocks SET state = 'void', dek = NULL, void_why = ? WHERE block = ?",
        (action.why, block),
    )


def shred_if_spent(tx: Transaction, block: int) -> None:
    """Erase the data key of a block that holds no key any more."""
    shredded = tx.sql.execute(
        "UPDATE blocks SET dek = NULL,"
        " state = CASE state WHEN 'deliverable' THEN 'spent' ELSE state END"
        " WHERE block = ? AND state IN ('held', 'deliverable')"
        " AND NOT EXISTS (SELECT 1 FROM keys WHERE block = ? AND sealed IS NOT NULL)",
        (block, block),
    )
    tx.burns += shredded.rowcount


def summaries(tx: Transaction) -> list[BlockSummary]:
    """The latest blocks, the oldest of them first."""
    rows = tx.sql.execute(
        "SELECT * FROM (SELECT block, session, peer, state, source, stored_ns, own_slots,"
        " peer_slots, void_why FROM blocks ORDER BY block DESC LIMIT ?) ORDER BY block",
        (BLOCKS_SHOWN_MAX,),
    ).fetchall()
    return [_summary(tx, row) for row in rows]


def held_sessions(tx: Transaction, peer: NodeName | None) -> list[SessionId]:
    """Sessions whose blocks wait for the peer's word."""
    rows = tx.sql.execute(
        "SELECT session FROM blocks WHERE state = 'held' AND (? IS NULL OR peer = ?)"
        " ORDER BY block",
        (peer, peer),
    )
    return [SessionId(session) for (session,) in rows]


def receipt(tx: Transaction, name: KeyId | SessionId) -> str | None:
    """The receipt of a session, or of the block of a key, delivered or not."""
    row = tx.sql.execute(
        "SELECT receipt FROM blocks WHERE session = ?"
        " OR block = (SELECT block FROM keys WHERE key_id = ?)",
        (name, name),
    ).fetchone()
    return None if row is None else str(row[0])


def key_record(tx: Transaction, key_id: KeyId) -> KeyRecord | None:
    """Who was handed the key when."""
    row = tx.sql.execute(
        "SELECT b.session, k.state, k.size_bits, k.master, k.slave, k.done_ns"
        " FROM keys k JOIN blocks b USING (block) WHERE k.key_id = ? AND k.lead IS NULL",
        (key_id,),
    ).fetchone()
    if row is None:
        return None
    session, state, size_bits, master, slave, done_ns = row
    return KeyRecord(
        key_id,
        SessionId(session),
        KeyState(state),
        size_bits,
        None if master is None else SaeId(master),
        None if slave is None else SaeId(slave),
        done_ns,
    )


def _insert_block(tx: Transaction, block: DistilledBlock) -> None:
    issuers = Counter(slot.issuer for slot in block.slots)
    assert set(issuers) <= {tx.node, block.peer}, "a slot is handed out by one of the two"
    assert all(len(slot.key) == SLOT_BYTES for slot in block.slots), "slots are of one size"
    seal, dek = tx.keys.new_key("blocks", block.session)
    row = tx.sql.execute(
        "INSERT INTO blocks (session, peer, source, receipt, state, own_slots, peer_slots, dek,"
        " stored_ns) VALUES (?, ?, ?, ?, 'held', ?, ?, ?, ?)",
        (
            block.session,
            block.peer,
            block.source,
            block.receipt,
            issuers[tx.node],
            issuers[block.peer],
            dek,
            tx.now_ns,
        ),
    ).lastrowid
    assert row is not None, "a row was inserted"
    tx.sql.executemany(
        "INSERT INTO keys (key_id, block, slot, own, state, sealed) VALUES (?, ?, ?, ?, 'free', ?)",
        (
            (
                slot.key_id,
                row,
                slot.index,
                slot.issuer == tx.node,
                seal.close(slot.key, "keys", slot.key_id, block.session, slot.index),
            )
            for slot in block.slots
        ),
    )
    shred_if_spent(tx, row)


def _metadata(
    tx: Transaction, session: SessionId
) -> tuple[str, str, str, tuple[tuple[int, str, bool], ...]] | None:
    row = tx.sql.execute(
        "SELECT block, peer, source, receipt FROM blocks WHERE session = ?", (session,)
    ).fetchone()
    if row is None:
        return None
    block, peer, source, text = row
    slots = tx.sql.execute(
        "SELECT slot, key_id, own FROM keys WHERE block = ? ORDER BY slot", (block,)
    )
    return peer, source, text, tuple((slot, key_id, bool(own)) for slot, key_id, own in slots)


def _block(tx: Transaction, session: SessionId) -> tuple[int, BlockState | None]:
    row = tx.sql.execute("SELECT block, state FROM blocks WHERE session = ?", (session,)).fetchone()
    return (0, None) if row is None else (row[0], BlockState(row[1]))


def _summary(
    tx: Transaction, row: tuple[int, str, str, str, str, int, int, int, str]
) -> BlockSummary:
    block, session, peer, state, source, stored_ns, own_slots, peer_slots, why = row
    live = {
        (own, key_state): count
        for own, key_state, count in tx.sql.execute(
            "SELECT own, state, COUNT(*) FROM keys WHERE block = ? AND sealed IS NOT NULL"
            " GROUP BY own, state",
            (block,),
        )
    }
    return BlockSummary(
        session=SessionId(session),
        peer=NodeName(peer),
        state=BlockState(state),
        source=source,
        stored_ns=stored_ns,
        own_slots=own_slots,
        own_free=live.get((1, "free"), 0),
        peer_slots=peer_slots,
        peer_free=live.get((0, "free"), 0),
        peer_allocated=live.get((0, "allocated"), 0),
        void_why=why,
    )
