"""Distilled blocks for tests: both nodes get the same slots, as after a session."""

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bellhop.hal.operations import NodeName
from bellhop.node.keystore import KeyStore
from bellhop.stack.core import ConfirmKeys, DistilledBlock, Persist, Slot, StoreKeys
from bellhop.stack.ids import KeyId, SessionId
from bellhop.stack.keys.ledger import SLOT_BYTES

ALICE: Final = NodeName("alice")
BOB: Final = NodeName("bob")
KEK: Final = bytes(range(32))
NOW_NS: Final = 1_700_000_000 * 10**9


def session_id(number: int) -> SessionId:
    """The session of this number."""
    return SessionId(f"{number:032x}")


def slot_key(session: SessionId, index: int) -> bytes:
    """The key of a slot, the same at both ends."""
    key = hashlib.sha256(f"{session} {index}".encode()).digest()
    assert len(key) == SLOT_BYTES
    return key


def slot_id(session: SessionId, index: int) -> KeyId:
    """The key id of a slot, the same at both ends."""
    return KeyId(str(uuid.uuid5(uuid.UUID(session), str(index))))


def block_of(
    number: int, slots: int, peer: NodeName = BOB, me: NodeName = ALICE, source: str = "emulated"
) -> DistilledBlock:
    """What session `number` leaves in the store of `me`: even slots are the first name's."""
    session = session_id(number)
    issuers = (min(me, peer), max(me, peer))
    return DistilledBlock(
        session=session,
        peer=peer,
        source=source,
        receipt=f'{{"session":"{session}"}}',
        slots=tuple(
            Slot(
                index=index,
                key_id=slot_id(session, index),
                issuer=issuers[index % 2],
                key=slot_key(session, index),
            )
            for index in range(slots)
        ),
    )


async def open_store(folder: Path, node: NodeName = ALICE, kek: bytes = KEK) -> KeyStore:
    """A store whose clock stands still."""
    return await KeyStore.open(folder, kek, node, lambda: NOW_NS)


async def fill(store: KeyStore, block: DistilledBlock) -> None:
    """Store a block and confirm it."""
    await store.store_keys(StoreKeys(block, Persist()))
    await store.confirm_keys(ConfirmKeys(block.session, Persist()))


def bytes_in(folder: Path) -> Mapping[Path, bytes]:
    """Every file of a folder."""
    return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
