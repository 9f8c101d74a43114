"""How a distilled block becomes keys, and the masks with which it refills the pool.

Rules. Both ends hold the same block and apply the same cut, so no message names a key:

    bytes 0..63     eight 8-byte masks for the tags of a later session
    bytes 64..95    the id key: derives the key ids of this block, then is burnt
    the rest        slots of 32 bytes, one key each; less than a slot left over is discarded

Slot i is handed out by one end only: even slots by the node whose name sorts first, odd ones by
the other. So both ends can hand out keys at once and never hand out the same one.

A key id is unguessable only computationally (HMAC-SHA256 as a pseudo-random function); the secrecy
of the keys does not rest on it, for the id key is used for nothing else and is paid for in full.
"""

import hmac
from dataclasses import dataclass, field
from typing import Final

from bellhop.hal.operations import NodeName
from bellhop.stack.core import Slot
from bellhop.stack.diqkd.authenticate import MASK_BYTES
from bellhop.stack.ids import KeyId

ID_KEY_BYTES: Final = 32
SLOT_BYTES: Final = 32


MASKS_ALICE: Final = 5
MASKS_BOB: Final = 3
MASKS_A_SESSION: Final = MASKS_ALICE + MASKS_BOB
"""A session tags five messages of Alice's and three of Bob's."""

POOL_BYTES_A_BLOCK: Final = MASKS_A_SESSION * MASK_BYTES
BLOCK_BYTES_MIN: Final = POOL_BYTES_A_BLOCK + ID_KEY_BYTES
"""A shorter block cannot pay for its own session: the session aborts instead of cutting it."""


@dataclass(frozen=True, slots=True)
class CutBlock:
    """A block cut into masks and keys, with its account in bits."""

    link: str
    session: str
    alice: NodeName
    bob: NodeName
    slots: tuple[Slot, ...]
    alice_masks: tuple[bytes, ...] = field(repr=False)
    bob_masks: tuple[bytes, ...] = field(repr=False)
    gross_bits: int
    tag_bits_spent: int

    @property
    def net_bits(self) -> int:
        """What the session gained: gross less the tags it spent and the id key it burns."""
        return self.gross_bits - self.tag_bits_spent - 8 * ID_KEY_BYTES

    @property
    def deliverable_bits(self) -> int:
        """What applications can get."""
        return 8 * SLOT_BYTES * len(self.slots)

    @property
    def discarded_bits(self) -> int:
        """What was left over after the last whole slot."""
        return self.gross_bits - 8 * BLOCK_BYTES_MIN - self.deliverable_bits


def cut_block(
    block: bytes, link: str, session: str, nodes: tuple[NodeName, NodeName], tag_bits_spent: int
) -> CutBlock:
    """Cut a distilled block of at least `BLOCK_BYTES_MIN` bytes; `nodes` are (Alice, Bob).

    Both ends get equal results from equal arguments. `tag_bits_spent` is what the session's own
    tags took out of the pool.
    """
    assert len(block) >= BLOCK_BYTES_MIN, "a block pays for its masks and its id key"
    assert nodes[0] != nodes[1] and tag_bits_spent >= 0
    alice_masks, bob_masks = _cut_masks(block[:POOL_BYTES_A_BLOCK])
    id_key = block[POOL_BYTES_A_BLOCK:BLOCK_BYTES_MIN]
    slots = tuple(
        Slot(
            index=index,
            key_id=derive_key_id(id_key, link, session, index),
            issuer=slot_issuer(nodes, index),
            key=block[start : start + SLOT_BYTES],
        )
        for index, start in enumerate(
            range(BLOCK_BYTES_MIN, len(block) - SLOT_BYTES + 1, SLOT_BYTES)
        )
    )
    return CutBlock(
        link=link,
        session=session,
        alice=nodes[0],
        bob=nodes[1],
        slots=slots,
        alice_masks=alice_masks,
        bob_masks=bob_masks,
        gross_bits=8 * len(block),
        tag_bits_spent=tag_bits_spent,
    )


def slot_issuer(nodes: tuple[NodeName, NodeName], index: int) -> NodeName:
    """The node that hands out slot `index`, whichever way round the two are named."""
    return min(nodes) if index % 2 == 0 else max(nodes)


def derive_key_id(id_key: bytes, link: str, session: str, index: int) -> KeyId:
    """The id of a slot's key: HMAC-SHA256 of its place, shaped as a version 8 UUID (122 bits)."""
    assert len(id_key) == ID_KEY_BYTES, "an id key has 32 bytes"
    digest = bytearray(hmac.digest(id_key, _place(link, session, index), "sha256")[:16])
    digest[6] = 0x80 | digest[6] & 0x0F  # version 8
    digest[8] = 0x80 | digest[8] & 0x3F  # the variant of RFC 9562
    text = digest.hex()
    return KeyId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")


def _place(link: str, session: str, index: int) -> bytes:
    """A slot's place as bytes: names behind their lengths, so that no two places read alike."""
    names = [name.encode() for name in (link, session)]
    return b"".join(len(name).to_bytes(4, "big") + name for name in names) + index.to_bytes(
        8, "big"
    )


def _cut_masks(material: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """A session's masks out of 64 bytes: those of Alice's direction, then those of Bob's."""
    assert len(material) == POOL_BYTES_A_BLOCK
    masks = tuple(material[k : k + MASK_BYTES] for k in range(0, len(material), MASK_BYTES))
    return masks[:MASKS_ALICE], masks[MASKS_ALICE:]
