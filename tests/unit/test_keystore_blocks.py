"""The key store: facts and blocks are held back, confirmed, voided, and kept."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.distilled import (
    BOB,
    block_of,
    fill,
    open_store,
    session_id,
    slot_id,
)

from bellhop.node.keystore import (
    BlockState,
    FetchRequest,
    InsufficientKeys,
    KeyStore,
    NotFound,
    Taken,
    TakeRequest,
)
from bellhop.stack.core import (
    ConfirmKeys,
    Fact,
    Persist,
    RecordAllocations,
    StoreKeys,
    VoidKeys,
)
from bellhop.stack.ids import SaeId
from bellhop.stack.messages import Allocation

MASTER = SaeId("sae-a")
SLAVE = SaeId("sae-b")
STRANGER = SaeId("sae-c")
ONE = TakeRequest(peer=BOB, master=MASTER, slave=SLAVE, number=1, size_bits=256)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[KeyStore]:
    async with await open_store(tmp_path) as opened:
        yield opened


async def taken(store: KeyStore, request: TakeRequest) -> Taken:
    outcome = await store.take(request)
    assert isinstance(outcome, Taken)
    return outcome


# --- facts ----------------------------------------------------------------------------------------


async def test_facts_outlive_the_process(tmp_path: Path) -> None:
    async with await open_store(tmp_path) as store:
        await store.persist(Persist(put=(Fact("a/1", b"one"), Fact("a/2", b"two"))))
        await store.persist(Persist(put=(Fact("a/2", b"later"), Fact("b", b""))))
    async with await open_store(tmp_path) as store:
        assert await store.load_facts("a/") == [Fact("a/1", b"one"), Fact("a/2", b"later")]
        assert [fact.name for fact in await store.load_facts()] == ["a/1", "a/2", "b"]


async def test_forgetting_goes_by_prefix_and_before_putting(store: KeyStore) -> None:
    names = ("a", "a/1", "a/2", "a0", "aé", "b")
    await store.persist(Persist(put=tuple(Fact(name, b"old") for name in names)))
    await store.persist(Persist(put=(Fact("a/2", b"new"),), forget=("a/",)))
    kept = {fact.name: fact.payload for fact in await store.load_facts()}
    assert kept == {"a": b"old", "a/2": b"new", "a0": b"old", "aé": b"old", "b": b"old"}
    await store.persist(Persist(forget=("a",)))
    assert [fact.name for fact in await store.load_facts()] == ["b"]
    await store.persist(Persist(forget=("",)))
    assert await store.load_facts() == []


# --- blocks ---------------------------------------------------------------------------------------


async def test_held_keys_are_not_handed_out(store: KeyStore) -> None:
    await store.store_keys(StoreKeys(block_of(1, 4), Persist(put=(Fact("f", b"x"),))))
    assert await store.held_sessions() == [session_id(1)]
    assert await store.take(ONE) == InsufficientKeys(0)
    assert (await store.stock(BOB, 256)).keys == 0
    assert [fact.name for fact in await store.load_facts()] == ["f"]
    await store.confirm_keys(ConfirmKeys(session_id(1), Persist(forget=("f",))))
    assert await store.held_sessions() == [] and await store.load_facts() == []
    assert (await store.stock(BOB, 256)).keys == 2


async def test_a_receipt_is_completed_when_the_block_is_confirmed(store: KeyStore) -> None:
    await store.store_keys(StoreKeys(block_of(1, 4), Persist()))
    assert await store.receipt(session_id(1)) == block_of(1, 4).receipt
    await store.confirm_keys(ConfirmKeys(session_id(1), Persist(), "with both words"))
    await store.confirm_keys(ConfirmKeys(session_id(1), Persist(), "another"))
    assert await store.receipt(session_id(1)) == "with both words"
    await fill(store, block_of(2, 4))
    assert await store.receipt(session_id(2)) == block_of(2, 4).receipt, "none came with it"


async def test_the_same_block_again_changes_nothing(store: KeyStore) -> None:
    await fill(store, block_of(1, 4))
    await taken(store, ONE)
    before = await store.blocks()
    await fill(store, block_of(1, 4))
    assert await store.blocks() == before
    other = replace(block_of(1, 4), receipt="{}")
    with pytest.raises(AssertionError, match="one block"):
        await store.store_keys(StoreKeys(other, Persist(put=(Fact("f", b"x"),))))
    assert await store.load_facts() == []


async def test_void_keys_are_gone_and_named(store: KeyStore) -> None:
    await store.store_keys(StoreKeys(block_of(1, 4), Persist()))
    for _ in range(2):
        await store.void_keys(VoidKeys(session_id(1), "the peer lost it"))
    (block,) = await store.blocks()
    assert (block.state, block.void_why) == (BlockState.VOID, "the peer lost it")
    assert block.own_free == block.peer_free == 0 and block.own_slots == 2
    key_id = slot_id(session_id(1), 1)
    assert await store.fetch(FetchRequest(MASTER, SLAVE, (key_id,))) == NotFound((key_id,))
    told = Allocation(session_id(1), key_id, (1,), 256, MASTER, SLAVE)
    (refused,) = await store.record_allocations(RecordAllocations(BOB, (told,)))
    assert refused.reason == "the block is void"
    with pytest.raises(AssertionError):
        await store.confirm_keys(ConfirmKeys(session_id(1), Persist()))
    await store.void_keys(VoidKeys(session_id(2), "never stored"))


async def test_a_block_in_delivery_cannot_be_voided(store: KeyStore) -> None:
    await fill(store, block_of(1, 4))
    with pytest.raises(AssertionError, match="held"):
        await store.void_keys(VoidKeys(session_id(1), ""))
    assert (await store.stock(BOB, 256)).keys == 2


async def test_a_block_without_keys_is_spent_at_once(store: KeyStore) -> None:
    await fill(store, block_of(1, 0))
    (block,) = await store.blocks()
    assert block.state is BlockState.SPENT
