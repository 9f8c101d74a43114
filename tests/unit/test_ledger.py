"""Cutting a block: same keys and ids at both ends, disjoint stripes, every bit accounted for."""

import hashlib
import hmac
import uuid

import pytest

from bellhop.stack.keys.ledger import (
    BLOCK_BYTES_MIN,
    MASKS_A_SESSION,
    SENDER,
    AuthenticationPool,
    CutBlock,
    Direction,
    Role,
    Tagged,
    cut_block,
    derive_key_id,
    mask_direction,
    mask_number,
    mask_offset,
    pool_need,
    provision,
    replenish,
    slot_issuer,
)

BLOCK = hashlib.shake_256(b"a distilled block").digest(96 + 7 * 32 + 5)
POOL_SECRET = hashlib.shake_256(b"a pool").digest(16 + 3 * 64)
NODES = ("bob.example", "alice.example")  # here Alice's part is played by the name sorting second


def cut(block: bytes = BLOCK, nodes: tuple[str, str] = NODES) -> CutBlock:
    return cut_block(block, "fibre-1", "session-9", nodes, tag_bits_spent=512)


def pool() -> AuthenticationPool:
    return provision("alice", "bob", POOL_SECRET)


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


def test_no_secret_shows_in_a_repr() -> None:
    block = cut()
    shown = repr(block) + repr(pool()) + repr(replenish(provision(*NODES, POOL_SECRET), block))
    for secret in (*block.alice_masks, *block.bob_masks, *(slot.key for slot in block.slots)):
        assert secret.hex() not in shown and repr(secret)[2:-1] not in shown
    for start in range(0, len(POOL_SECRET), 8):
        assert repr(POOL_SECRET[start : start + 8])[2:-1] not in shown


def test_eight_tags_five_of_alice_three_of_bob() -> None:
    assert set(SENDER) == set(Tagged) and MASKS_A_SESSION == 8
    assert [pool_need(Role.ALICE), pool_need(Role.BOB)] == [5, 3]
    for role in Role:
        offsets = [mask_offset(item) for item in Tagged if SENDER[item] is role]
        assert offsets == list(range(pool_need(role)))


def test_directions_number_their_masks_apart() -> None:
    assert mask_direction(("b", "a"), "a") is mask_direction(("a", "b"), "a") is Direction.LOW
    assert mask_direction(("b", "a"), "b") is Direction.HIGH
    low = {mask_number(Direction.LOW, k) for k in range(100)}
    high = {mask_number(Direction.HIGH, k) for k in range(100)}
    assert not low & high and len(low | high) == 200
    with pytest.raises(AssertionError):
        mask_direction(("a", "b"), "c")
    with pytest.raises(AssertionError):
        mask_direction(("a", "a"), "a")


def test_slots_and_masks_use_one_order_of_names() -> None:
    for index in range(4):
        issuer = slot_issuer(NODES, index)
        assert mask_direction(NODES, issuer) == index % 2


def test_provisioned_pool() -> None:
    fresh = pool()
    assert fresh.hash_key == POOL_SECRET[:16]
    assert [m.number for m in fresh.unused("alice")] == list(range(0, 30, 2))
    assert [m.number for m in fresh.unused("bob")] == list(range(1, 18, 2))
    assert fresh.unused("alice")[5].mask == POOL_SECRET[16 + 64 : 16 + 72]
    assert fresh.unused("bob")[0].mask == POOL_SECRET[16 + 40 : 16 + 48]
    assert fresh.masks_added == (15, 9)


@pytest.mark.parametrize("size", [0, 16, 17, 16 + 63, 16 + 65])
def test_a_pool_is_whole_sessions(size: int) -> None:
    with pytest.raises(AssertionError):
        provision("alice", "bob", bytes(size))


def test_a_mask_is_spent_once() -> None:
    numbers = [mask.number for mask in pool().unused("alice")[:5]]
    rest = pool().without(numbers)
    assert not {mask.number for mask in rest.masks} & set(numbers)
    with pytest.raises(AssertionError):
        rest.without(numbers[:1])
    with pytest.raises(AssertionError):
        pool().without([0, 0])
    with pytest.raises(AssertionError):
        pool().without([1000])


def test_pool_covers_sessions_until_it_is_spent() -> None:
    left, sessions = pool(), 0
    while left.covers_session("alice", "bob"):
        spent = left.unused("alice")[:5] + left.unused("bob")[:3]
        left = left.without([mask.number for mask in spent])
        sessions += 1
    assert sessions == 3 and left.masks == ()


def test_a_block_pays_for_the_next_session_and_numbers_go_on() -> None:
    nodes = ("bob", "alice")  # Bob plays Alice's part, so five masks go to his direction
    block = cut(nodes=nodes)
    full = pool()
    before = full.without([mask.number for mask in full.masks])
    after = replenish(before, block)
    assert [mask.mask for mask in after.unused("bob")] == list(block.alice_masks)
    assert [mask.mask for mask in after.unused("alice")] == list(block.bob_masks)
    assert [mask.number for mask in after.unused("bob")] == [2 * k + 1 for k in range(9, 14)]
    assert [mask.number for mask in after.unused("alice")] == [2 * k for k in range(15, 18)]
    assert after.covers_session(*nodes) and not after.covers_session("alice", "bob")
