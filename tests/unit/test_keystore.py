"""The key store: one delivery a recipient, all or nothing, and whose a key is."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.distilled import (
    ALICE,
    BOB,
    NOW_NS,
    block_of,
    fill,
    open_store,
    session_id,
    slot_id,
    slot_key,
)

from bellhop.hal.operations import NodeName
from bellhop.node.keystore import (
    BlockState,
    EmulatedRefused,
    Fetched,
    FetchRequest,
    InsufficientKeys,
    KeyState,
    KeyStore,
    NotFound,
    NotYetAllocated,
    NotYours,
    SourceUnmet,
    Taken,
    TakeRequest,
)
from bellhop.stack.core import (
    ConfirmKeys,
    ForgetAllocations,
    Persist,
    RecordAllocations,
    StoreKeys,
)
from bellhop.stack.ids import KeyId, SaeId
from bellhop.stack.messages import Allocation

MASTER = SaeId("sae-a")
SLAVE = SaeId("sae-b")
STRANGER = SaeId("sae-c")
ONE = TakeRequest(peer=BOB, master=MASTER, slave=SLAVE, number=1, size_bits=256)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[KeyStore]:
    async with await open_store(tmp_path) as opened:
        yield opened


def allocation(slots: tuple[int, ...], size_bits: int, number: int = 1) -> Allocation:
    session = session_id(number)
    return Allocation(session, slot_id(session, slots[0]), slots, size_bits, MASTER, SLAVE)


def record(*allocations: Allocation) -> RecordAllocations:
    return RecordAllocations(BOB, allocations)


def ask(*slots: int, slave: SaeId = SLAVE, master: SaeId = MASTER) -> FetchRequest:
    return FetchRequest(master, slave, tuple(slot_id(session_id(1), slot) for slot in slots))


async def taken(store: KeyStore, request: TakeRequest) -> Taken:
    outcome = await store.take(request)
    assert isinstance(outcome, Taken)
    return outcome


# --- taking ---------------------------------------------------------------------------------------


async def test_keys_go_oldest_first_and_once(store: KeyStore) -> None:
    await fill(store, block_of(1, 4))
    await fill(store, block_of(2, 4))
    got = [(await taken(store, ONE)).keys[0] for _ in range(4)]
    places = [(session_id(1), 0), (session_id(1), 2), (session_id(2), 0), (session_id(2), 2)]
    assert [(key.key_id, key.key) for key in got] == [
        (slot_id(*place), slot_key(*place)) for place in places
    ]
    assert await store.take(ONE) == InsufficientKeys(0)


async def test_a_long_key_is_joined_from_own_slots_of_one_block(store: KeyStore) -> None:
    await fill(store, block_of(1, 6))  # own slots 0, 2, 4: one key of two slots, one left over
    await fill(store, block_of(2, 4))
    assert (await store.stock(BOB, 512)).keys == 2
    got = await taken(store, replace(ONE, number=2, size_bits=504))
    assert [a.slots for a in got.told.allocations] == [(0, 2), (0, 2)]
    first = session_id(1)
    assert got.keys[0].key == (slot_key(first, 0) + slot_key(first, 2))[:63]
    assert await store.take(replace(ONE, size_bits=264)) == InsufficientKeys(0)
    assert (await taken(store, ONE)).keys[0].key == slot_key(first, 4)
    # a slot that was joined is no key any more
    assert await store.key_record(slot_id(first, 2)) is None
    assert await store.fetch(ask(2)) == NotFound((slot_id(first, 2),))


async def test_a_short_key_is_cut_and_its_rest_is_never_used(store: KeyStore) -> None:
    await fill(store, block_of(1, 4))
    got = await taken(store, replace(ONE, number=2, size_bits=8))
    first = session_id(1)
    assert [key.key for key in got.keys] == [slot_key(first, 0)[:1], slot_key(first, 2)[:1]]


async def test_taking_is_all_or_nothing(store: KeyStore) -> None:
    await fill(store, block_of(1, 6))
    assert await store.take(replace(ONE, number=4)) == InsufficientKeys(3)
    assert await store.outbox(BOB) == []
    assert len((await taken(store, replace(ONE, number=3))).keys) == 3


async def test_other_peers_keys_are_not_touched(store: KeyStore) -> None:
    carol = NodeName("carol")
    await fill(store, block_of(1, 4, peer=carol))
    assert await store.take(ONE) == InsufficientKeys(0)
    got = await taken(store, replace(ONE, peer=carol))
    assert got.told.peer == carol and await store.outbox(BOB) == []
    assert await store.outbox(carol) == list(got.told.allocations)


async def test_production_refuses_emulated_keys(store: KeyStore) -> None:
    await fill(store, block_of(1, 4, source="emulated"))
    in_production = replace(ONE, production=True)
    assert await store.take(in_production) == EmulatedRefused(0)
    await fill(store, block_of(2, 2, source="hardware"))
    assert await store.take(replace(in_production, number=2)) == EmulatedRefused(1)
    assert (await store.stock(BOB, 256)).sources == ("emulated", "hardware")
    assert (await store.stock(BOB, 256, production=True)).sources == ("hardware",)
    assert (await taken(store, in_production)).keys[0].source == "hardware"
    assert await store.take(replace(in_production, number=3)) == InsufficientKeys(0)


async def test_production_refuses_emulated_keys_to_slaves_too(store: KeyStore) -> None:
    await fill(store, block_of(1, 2))
    assert await store.record_allocations(record(allocation((1,), 256))) == []
    assert await store.fetch(replace(ask(1), production=True)) == EmulatedRefused(0)
    assert isinstance(await store.fetch(ask(1)), Fetched)


async def test_a_demanded_source_is_met_or_said_to_be_unmet(store: KeyStore) -> None:
    await fill(store, block_of(1, 4, source="emulated"))
    await fill(store, block_of(2, 2, source="hardware"))
    hardware = replace(ONE, source="hardware")
    assert await store.take(replace(hardware, number=2)) == SourceUnmet(1)
    assert (await taken(store, hardware)).keys[0].session == session_id(2)
    assert await store.take(replace(hardware, number=3)) == InsufficientKeys(0)


async def test_the_outbox_keeps_what_the_peer_has_not_recorded(tmp_path: Path) -> None:
    async with await open_store(tmp_path) as store:
        await fill(store, block_of(1, 8))
        got = await taken(store, replace(ONE, number=2, size_bits=512))
        first, second = got.told.allocations
        assert first == allocation((0, 2), 512)
    async with await open_store(tmp_path) as store:
        assert await store.outbox(BOB) == [first, second]
        await store.forget_allocations(ForgetAllocations(NodeName("carol"), (first.key_id,)))
        await store.forget_allocations(ForgetAllocations(BOB, (first.key_id, KeyId("unknown"))))
        assert await store.outbox(BOB) == [second]


# --- allocations and fetching ---------------------------------------------------------------------


async def test_a_slave_fetches_what_its_master_took(tmp_path: Path) -> None:
    async with (
        await open_store(tmp_path / "a") as alice,
        await open_store(tmp_path / "b", BOB) as bob,
    ):
        await fill(alice, block_of(1, 8))
        await fill(bob, block_of(1, 8, peer=ALICE, me=BOB))
        for size_bits in (8, 256, 264):
            got = await taken(alice, replace(ONE, size_bits=size_bits))
            told = RecordAllocations(ALICE, got.told.allocations)
            assert await bob.record_allocations(told) == []
            request = FetchRequest(MASTER, SLAVE, (got.keys[0].key_id,))
            assert await bob.fetch(request) == Fetched(got.keys)
            assert await bob.fetch(request) == NotFound(request.key_ids)


async def test_a_key_is_its_slaves_alone_before_and_after(store: KeyStore) -> None:
    await fill(store, block_of(1, 4))
    assert await store.record_allocations(record(allocation((1,), 256))) == []
    (key_id,) = ask(1).key_ids
    for _ in range(2):
        assert await store.fetch(ask(1, slave=STRANGER)) == NotYours((key_id,))
        assert await store.fetch(ask(1, slave=MASTER)) == NotYours((key_id,))
    assert await store.fetch(ask(1, master=STRANGER)) == NotFound((key_id,))
    assert isinstance(await store.fetch(ask(1)), Fetched)
    assert await store.fetch(ask(1, slave=STRANGER)) == NotYours((key_id,))
    assert await store.fetch(ask(1)) == NotFound((key_id,))


async def test_masters_do_not_fetch_their_own_keys(store: KeyStore) -> None:
    await fill(store, block_of(1, 4))
    key_id = (await taken(store, ONE)).keys[0].key_id
    request = FetchRequest(MASTER, MASTER, (key_id,))
    assert await store.fetch(request) == NotYours((key_id,))
    # an own key that nobody has is like one that does not exist
    assert await store.fetch(ask(2)) == NotFound((slot_id(session_id(1), 2),))


async def test_fetching_is_all_or_nothing(store: KeyStore) -> None:
    await fill(store, block_of(1, 8))
    assert await store.record_allocations(record(allocation((1,), 256))) == []
    one, three = ask(1, 3).key_ids
    assert await store.fetch(ask(1, 3)) == NotYetAllocated((three,))
    unknown = FetchRequest(MASTER, SLAVE, (one, KeyId("unknown"), three))
    assert await store.fetch(unknown) == NotFound((KeyId("unknown"),))
    assert await store.record_allocations(record(allocation((3,), 256))) == []
    fetched = await store.fetch(ask(3, 1))
    assert isinstance(fetched, Fetched)
    assert [key.key for key in fetched.keys] == [slot_key(session_id(1), s) for s in (3, 1)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (allocation((1,), 256, number=2), "the session left no block here"),
        (allocation((0,), 256), "a slot is not the peer's to hand out"),
        (allocation((1, 2), 512), "a slot is not the peer's to hand out"),
        (allocation((1, 99), 512), "unknown slot"),
        (allocation((99,), 256), "unknown slot"),
        (allocation((2**70,), 256), "unknown slot"),
        (allocation((-1,), 256), "unknown slot"),
        (allocation((3, 1), 512), "slots are not in their order"),
        (allocation((1, 1), 512), "slots are not in their order"),
        (replace(allocation((1,), 256), slots=()), "slots are not in their order"),
        (allocation((1, 3), 256), "the size does not fit the slots"),
        (allocation((1,), 257), "the size is not a positive multiple of 8"),
        (allocation((1,), 0), "the size is not a positive multiple of 8"),
        (replace(allocation((1,), 256), key_id=slot_id(session_id(1), 3)), "the key id is not"),
        (replace(allocation((5,), 256), slave=STRANGER), "handed out otherwise already"),
        (allocation((5, 7), 512), "handed out otherwise already"),
        (allocation((3, 5), 512), "handed out otherwise already"),
    ],
)
async def test_a_peers_nonsense_is_refused_and_the_rest_recorded(
    store: KeyStore, wrong: Allocation, reason: str
) -> None:
    await fill(store, block_of(1, 8))
    assert await store.record_allocations(record(allocation((5,), 256))) == []
    good = allocation((7,), 256)
    (refused,) = await store.record_allocations(record(wrong, good))
    assert refused.key_id == wrong.key_id and refused.reason.startswith(reason)
    assert isinstance(await store.fetch(ask(5, 7)), Fetched)


async def test_allocations_of_another_peer_are_refused(store: KeyStore) -> None:
    await fill(store, block_of(1, 8))
    action = RecordAllocations(NodeName("carol"), (allocation((1,), 256),))
    (refused,) = await store.record_allocations(action)
    assert refused.reason == "the session left no block here"


async def test_a_recorded_allocation_may_come_again(store: KeyStore) -> None:
    await fill(store, block_of(1, 8))
    for _ in range(2):
        assert await store.record_allocations(record(allocation((1, 3), 512))) == []
    assert isinstance(await store.fetch(ask(1)), Fetched)
    assert await store.record_allocations(record(allocation((1, 3), 512))) == []
    assert await store.fetch(ask(1)) == NotFound(ask(1).key_ids)


async def test_the_peer_may_be_quicker_than_its_confirmation(store: KeyStore) -> None:
    await store.store_keys(StoreKeys(block_of(1, 2), Persist()))
    assert await store.record_allocations(record(allocation((1,), 256))) == []
    assert isinstance(await store.fetch(ask(1)), Fetched)
    await store.confirm_keys(ConfirmKeys(session_id(1), Persist()))
    assert len((await taken(store, ONE)).keys) == 1
    assert (await store.blocks())[0].state is BlockState.SPENT


async def test_a_fetch_that_is_early_waits_for_the_peers_word(store: KeyStore) -> None:
    await fill(store, block_of(1, 8))
    early = asyncio.create_task(store.fetch(ask(1), wait_s=60))
    other = asyncio.create_task(store.fetch(ask(3), wait_s=60))
    assert await store.record_allocations(record(allocation((1,), 256))) == []
    assert isinstance(await early, Fetched) and not other.done()
    assert await store.record_allocations(record(allocation((3,), 256))) == []
    assert isinstance(await other, Fetched)
    assert await store.fetch(ask(5), wait_s=0.01) == NotYetAllocated(ask(5).key_ids)


async def test_tombstones_and_receipts_stay(tmp_path: Path) -> None:
    async with await open_store(tmp_path) as store:
        await fill(store, block_of(1, 2))
        key_id = (await taken(store, replace(ONE, size_bits=128))).keys[0].key_id
        assert await store.record_allocations(record(allocation((1,), 256))) == []
        await store.fetch(ask(1))
    async with await open_store(tmp_path) as store:
        (block,) = await store.blocks()
        assert block.state is BlockState.SPENT and block.stored_ns == NOW_NS
        receipt = block_of(1, 2).receipt
        assert await store.receipt(key_id) == await store.receipt(session_id(1)) == receipt
        assert await store.receipt(KeyId("unknown")) is None
        known = await store.key_record(key_id)
        assert known is not None
        assert (known.state, known.session) == (KeyState.DELIVERED, session_id(1))
        assert (known.master, known.slave, known.size_bits) == (MASTER, SLAVE, 128)
        assert known.done_ns == NOW_NS


# --- many at once ---------------------------------------------------------------------------------


async def test_fifty_at_once_get_fifty_keys(store: KeyStore) -> None:
    await fill(store, block_of(1, 80))
    outcomes = await asyncio.gather(*(store.take(ONE) for _ in range(50)))
    keys = [
        key.key_id for outcome in outcomes if isinstance(outcome, Taken) for key in outcome.keys
    ]
    assert len(keys) == len(set(keys)) == 40
    assert outcomes.count(InsufficientKeys(0)) == 10


async def test_one_that_fails_does_not_undo_the_others(store: KeyStore) -> None:
    await fill(store, block_of(1, 4))
    bad = StoreKeys(replace(block_of(1, 4), receipt="{}"), Persist())
    first, failed, second = await asyncio.gather(
        store.take(ONE), store.store_keys(bad), store.take(ONE), return_exceptions=True
    )
    assert isinstance(first, Taken) and isinstance(second, Taken)
    assert isinstance(failed, AssertionError)


async def test_who_goes_away_before_his_turn_takes_no_key(store: KeyStore) -> None:
    await fill(store, block_of(1, 2))
    gone = asyncio.create_task(store.take(ONE))
    served = asyncio.create_task(store.take(ONE))
    await asyncio.sleep(0)  # both have asked, nothing has been committed yet
    gone.cancel()
    assert isinstance(await served, Taken)
    with pytest.raises(asyncio.CancelledError):
        await gone
