"""How a distilled block becomes keys, and the pool of authentication key it refills. Pure.

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
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final, NewType

from bellhop.stack.diqkd.authenticate import HASH_KEY_BYTES, MASK_BYTES

KeyId = NewType("KeyId", str)
"""The lower-case text of a version 8 UUID (RFC 9562, section 5.8)."""

ID_KEY_BYTES: Final = 32
SLOT_BYTES: Final = 32
POOL_MASKS_MAX: Final = 1 << 16


class Role(StrEnum):
    """The two parts in a session."""

    ALICE = "alice"
    BOB = "bob"


class Direction(IntEnum):
    """Which of two nodes acts: the one whose name sorts first (by code points) or the other."""

    LOW = 0
    HIGH = 1


class Tagged(StrEnum):
    """What a session tags, in the order of the session."""

    TRANSCRIPT_ALICE = "transcript_alice"
    TRANSCRIPT_BOB = "transcript_bob"
    INPUTS_ALICE = "inputs_alice"
    INPUTS_BOB = "inputs_bob"
    SYNDROME = "syndrome"
    VERIFICATION = "verification"
    DECISION = "decision"
    AMPLIFICATION_SEED = "amplification_seed"


SENDER: Final[Mapping[Tagged, Role]] = MappingProxyType(
    {
        Tagged.TRANSCRIPT_ALICE: Role.ALICE,
        Tagged.TRANSCRIPT_BOB: Role.BOB,
        Tagged.INPUTS_ALICE: Role.ALICE,
        Tagged.INPUTS_BOB: Role.BOB,
        Tagged.SYNDROME: Role.ALICE,
        Tagged.VERIFICATION: Role.ALICE,
        Tagged.DECISION: Role.BOB,
        Tagged.AMPLIFICATION_SEED: Role.ALICE,
    }
)

MASKS_A_SESSION: Final = len(SENDER)
POOL_BYTES_A_BLOCK: Final = MASKS_A_SESSION * MASK_BYTES
BLOCK_BYTES_MIN: Final = POOL_BYTES_A_BLOCK + ID_KEY_BYTES
"""A shorter block cannot pay for its own session: the session aborts instead of cutting it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One key, and the only node that may hand it out first."""

    index: int
    key_id: KeyId
    issuer: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CutBlock:
    """A block cut into masks and keys, with its account in bits."""

    link: str
    session: str
    alice: str
    bob: str
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


@dataclass(frozen=True, slots=True)
class Mask:
    """A one-time mask. Its number belongs to its sender alone and never comes back."""

    number: int
    sender: str
    mask: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthenticationPool:
    """The secret two nodes share for tagging: a reusable hash key and the masks not yet spent.

    Both ends add the masks of the same blocks in the same order, so a number means the same mask at
    both. The sender names the number; what has left `masks` is spent and stays so.
    """

    nodes: tuple[str, str]
    hash_key: bytes = field(repr=False)
    masks: tuple[Mask, ...]
    masks_added: tuple[int, int]
    """Masks ever added for the low and the high sender: where numbering goes on."""

    def unused(self, sender: str) -> tuple[Mask, ...]:
        """The masks a sender may still spend, lowest number first."""
        return tuple(mask for mask in self.masks if mask.sender == sender)

    def without(self, numbers: Collection[int]) -> "AuthenticationPool":
        """The pool after these masks are spent. Every one must have been there: none goes twice."""
        spent = frozenset(numbers)
        left = tuple(mask for mask in self.masks if mask.number not in spent)
        assert len(left) + len(numbers) == len(self.masks), "a mask is spent once, and known"
        return AuthenticationPool(self.nodes, self.hash_key, left, self.masks_added)

    def covers_session(self, alice: str, bob: str) -> bool:
        """Whether there are masks for all tags of one session with these parts."""
        return len(self.unused(alice)) >= pool_need(Role.ALICE) and len(
            self.unused(bob)
        ) >= pool_need(Role.BOB)

    def replenished(self, sender: str, masks: tuple[bytes, ...]) -> "AuthenticationPool":
        """The pool with fresh masks for one sender."""
        assert len(self.masks) + len(masks) <= POOL_MASKS_MAX, "a pool is bounded"
        assert all(len(mask) == MASK_BYTES for mask in masks), "a mask has 8 bytes"
        direction = mask_direction(self.nodes, sender)
        added = list(self.masks_added)
        fresh = tuple(
            Mask(mask_number(direction, added[direction] + k), sender, mask)
            for k, mask in enumerate(masks)
        )
        added[direction] += len(masks)
        ordered = tuple(sorted(self.masks + fresh, key=lambda mask: mask.number))
        return AuthenticationPool(self.nodes, self.hash_key, ordered, (added[0], added[1]))


def pool_need(role: Role) -> int:
    """How many masks a session spends from the direction in which this part sends."""
    return sum(sender is role for sender in SENDER.values())


def mask_offset(tagged: Tagged) -> int:
    """Which of its sender's masks in a session an item takes: its place among that sender's."""
    own = [item for item in Tagged if SENDER[item] is SENDER[tagged]]
    return own.index(tagged)


def mask_direction(nodes: tuple[str, str], sender: str) -> Direction:
    """The direction in which a node sends to the other of two."""
    assert nodes[0] != nodes[1] and sender in nodes, "a sender is one of two different nodes"
    return Direction.LOW if sender == min(nodes) else Direction.HIGH


def mask_number(direction: Direction, count: int) -> int:
    """The number of a direction's mask after `count` others: low senders even, high senders odd."""
    assert count >= 0
    return 2 * count + direction


def provision(alice: str, bob: str, secret: bytes) -> AuthenticationPool:
    """The pool two nodes begin with.

    `secret`: the 16-byte hash key, then 64 bytes for each session it shall pay for, cut like the
    first 64 bytes of a block. Uniform, known to both ends and to nobody else.
    """
    sessions, rest = divmod(len(secret) - HASH_KEY_BYTES, POOL_BYTES_A_BLOCK)
    assert sessions >= 1 and rest == 0, "a hash key and whole sessions of masks"
    pool = AuthenticationPool(
        (min(alice, bob), max(alice, bob)), secret[:HASH_KEY_BYTES], (), (0, 0)
    )
    for session in range(sessions):
        start = HASH_KEY_BYTES + session * POOL_BYTES_A_BLOCK
        alice_masks, bob_masks = _cut_masks(secret[start : start + POOL_BYTES_A_BLOCK])
        pool = pool.replenished(alice, alice_masks).replenished(bob, bob_masks)
    return pool


def replenish(pool: AuthenticationPool, block: CutBlock) -> AuthenticationPool:
    """The pool with the masks of a block: the first five for Alice's tags, three for Bob's."""
    with_alice = pool.replenished(block.alice, block.alice_masks)
    return with_alice.replenished(block.bob, block.bob_masks)


def cut_block(
    block: bytes, link: str, session: str, nodes: tuple[str, str], tag_bits_spent: int
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


def slot_issuer(nodes: tuple[str, str], index: int) -> str:
    """The node that hands out slot `index`, whichever way round the two are named."""
    return min(nodes) if index % 2 == Direction.LOW else max(nodes)


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
    return masks[: pool_need(Role.ALICE)], masks[pool_need(Role.ALICE) :]
