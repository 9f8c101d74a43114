"""Cutting a block: same keys and ids at both ends, disjoint stripes, every bit accounted for."""

import hashlib
import hmac
import uuid

import pytest

from bellhop.hal.operations import NodeName
from bellhop.stack.keys.ledger import (
    BLOCK_BYTES_MIN,
    MASKS_A_SESSION,
    MASKS_ALICE,
    MASKS_BOB,
    CutBlock,
    cut_block,
    derive_key_id,
    slot_issuer,
)

BLOCK = hashlib.shake_256(b"a distilled block").digest(96 + 7 * 32 + 5)
NODES = (
    NodeName("bob.example"),
    NodeName("alice.example"),
)  # here Alice's part is played by the name sorting second


def cut(block: bytes = BLOCK, nodes: tuple[NodeName, NodeName] = NODES) -> CutBlock:
    return cut_block(block, "fibre-1", "session-9", nodes, tag_bits_spent=512)


def test_golden_cut() -> None:
    """A change here makes two versions of the program disagree about their keys."""
    slots = cut().slots
    assert [slot.key_id for slot in slots[:2]] == [
        "1fb1c2d7-a5cb-8ace-ad6b-fbd56a52b1a1",
        "7e9592c1-dfbd-8dc6-9d88-1acedea2da35",
    ]
    assert slots[0].key.hex() == "e3f43b45358553f7cb944df05b84037b59ea734c6bc4b6d6bac30ab99f93863d"
    assert cut().alice_masks[0].hex() == "3cc8ccfcbccde444"


def test_layout_of_a_block() -> None:
    block = cut()
    assert b"".join(block.alice_masks + block.bob_masks) == BLOCK[:64]
    assert [len(block.alice_masks), len(block.bob_masks)] == [5, 3]
    assert b"".join(slot.key for slot in block.slots) == BLOCK[96:-5]
    assert [slot.index for slot in block.slots] == list(range(7))


def test_account() -> None:
    block = cut()
    assert block.gross_bits == 8 * len(BLOCK)
    assert block.net_bits == block.gross_bits - 512 - 256
    assert block.deliverable_bits == 7 * 256
    assert block.discarded_bits == 40
    assert block.net_bits == block.deliverable_bits + block.discarded_bits


@pytest.mark.parametrize(
    ("size", "slots", "discarded"), [(96, 0, 0), (127, 0, 248), (128, 1, 0), (18_750, 582, 240)]
)
def test_only_whole_slots_are_keys(size: int, slots: int, discarded: int) -> None:
    block = cut(bytes(size))
    assert len(block.slots) == slots
    assert block.discarded_bits == discarded


def test_a_block_that_cannot_pay_for_itself_is_not_cut() -> None:
    with pytest.raises(AssertionError):
        cut(bytes(BLOCK_BYTES_MIN - 1))


def test_key_id_against_the_definition() -> None:
    """HMAC-SHA256 over both names behind their lengths, then the slot's index in 8 bytes."""
    place = b"\0\0\0\x07fibre-1" + b"\0\0\0\x09session-9" + b"\0\0\0\0\0\0\0\x03"
    digest = hmac.new(BLOCK[64:96], place, hashlib.sha256).digest()[:16]
    key_id = uuid.UUID(cut().slots[3].key_id)
    fixed = 0xF << 76 | 0x3 << 62  # version and variant
    assert key_id.int & ~fixed == int.from_bytes(digest, "big") & ~fixed


def test_key_ids_are_version_8_uuids_and_all_different() -> None:
    slots = cut(BLOCK * 40).slots
    ids = [uuid.UUID(slot.key_id) for slot in slots]
    assert {key_id.version for key_id in ids} == {8}
    assert {key_id.variant for key_id in ids} == {uuid.RFC_4122}
    assert [str(key_id) for key_id in ids] == [slot.key_id for slot in slots]
    assert len(set(ids)) == len(slots) > 300


def test_key_ids_depend_on_every_part_of_the_place_and_on_the_id_key() -> None:
    id_key = bytes(32)
    ids = {
        derive_key_id(id_key, "ab", "c", 0),
        derive_key_id(id_key, "a", "bc", 0),
        derive_key_id(id_key, "abc", "", 0),
        derive_key_id(id_key, "", "abc", 0),
        derive_key_id(id_key, "ab", "c", 1),
        derive_key_id(bytes(31) + b"\x01", "ab", "c", 0),
    }
    assert len(ids) == 6


def test_key_ids_do_not_depend_on_the_keys() -> None:
    other = BLOCK[:96] + bytes(len(BLOCK) - 96)
    assert [s.key_id for s in cut(other).slots] == [s.key_id for s in cut().slots]


def test_both_ends_cut_alike() -> None:
    assert cut() == cut()
    turned = cut(nodes=(NODES[1], NODES[0]))
    assert turned.slots == cut().slots  # parts may change, stripes go by name


def test_stripes_are_disjoint_and_near_equal() -> None:
    for extra in range(6):
        slots = cut(bytes(96 + 32 * extra)).slots
        low = [slot for slot in slots if slot.issuer == "alice.example"]
        high = [slot for slot in slots if slot.issuer == "bob.example"]
        assert len(low) + len(high) == len(slots)
        assert len(low) - len(high) in (0, 1)
        assert all(slot.index % 2 == 0 for slot in low)


def test_slots_go_by_the_order_of_names_whoever_plays_alice() -> None:
    low, high = min(NODES), max(NODES)
    assert [slot_issuer(NODES, index) for index in range(4)] == [low, high, low, high]
    assert [slot_issuer(NODES[::-1], index) for index in range(4)] == [low, high, low, high]


def test_eight_masks_five_of_alice_three_of_bob() -> None:
    assert (MASKS_ALICE, MASKS_BOB, MASKS_A_SESSION) == (5, 3, 8)
    block = cut(nodes=(NODES[1], NODES[0]))
    assert (block.alice, block.bob) == (NODES[1], NODES[0])
    assert block.alice_masks == cut().alice_masks  # they go by part, not by name


def test_no_secret_shows_in_a_repr() -> None:
    block = cut()
    shown = repr(block)
    for secret in (*block.alice_masks, *block.bob_masks, *(slot.key for slot in block.slots)):
        assert secret.hex() not in shown and repr(secret)[2:-1] not in shown
