"""The key store after `kill -9` in the midst of deliveries: no key twice, no key half taken."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

from tests.support.distilled import ALICE, BOB, KEK, NOW_NS, block_of, session_id, slot_key

from bellhop.hal.operations import NodeName
from bellhop.node.keystore import (
    BlockState,
    InsufficientKeys,
    KeyState,
    KeyStore,
    Taken,
    TakeRequest,
)
from bellhop.stack.core import ConfirmKeys, DistilledBlock, Persist, StoreKeys
from bellhop.stack.ids import KeyId, SaeId

KILLS = 5
KEYS_A_TAKE = 3
SLOTS_A_KEY = 2
SLOTS = 24  # of them 12 Alice's: two takes empty a block
DELIVERIES_MAX = 40
TAKE = TakeRequest(BOB, SaeId("sae-a"), SaeId("sae-b"), KEYS_A_TAKE, 256 * SLOTS_A_KEY)


async def deliver_for_ever(folder: Path, first_session: int) -> None:
    """In the child: store a block, deliver it, and say each key id once `take` has returned."""
    store = await KeyStore.open(folder, KEK, NodeName(ALICE), lambda: NOW_NS)
    number = first_session
    while True:
        block = block_of(number, SLOTS)
        await store.store_keys(StoreKeys(block, Persist()))
        await store.confirm_keys(ConfirmKeys(block.session, Persist()))
        for outcome in await asyncio.gather(store.take(TAKE), store.take(TAKE)):
            if isinstance(outcome, Taken):
                sys.stdout.write(" ".join(key.key_id for key in outcome.keys) + "\n")
                sys.stdout.flush()
        number += 1


def killed_child(folder: Path, first_session: int, deliveries: int) -> list[KeyId]:
    """What a child said it had delivered when it was killed after so many deliveries, or later."""
    code = (
        "import asyncio, sys; from pathlib import Path;"
        "from tests.e2e.test_keystore_kill import deliver_for_ever;"
        "asyncio.run(deliver_for_ever(Path(sys.argv[1]), int(sys.argv[2])))"
    )
    said: list[KeyId] = []
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(first_session)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        for _ in range(deliveries):
            said += map(KeyId, child.stdout.readline().split())
        child.kill()
        for line in child.stdout:
            said += map(KeyId, line.split())
    return said


async def taken_out(folder: Path, blocks: list[DistilledBlock]) -> tuple[set[KeyId], set[KeyId]]:
    """Check a store after a kill, then empty it: keys delivered before, and keys delivered now."""
    async with await KeyStore.open(folder, KEK, ALICE, lambda: NOW_NS) as store:
        summaries = {block.session: block for block in await store.blocks()}
        assert len(await store.held_sessions()) <= 1
        waiting = {allocation.key_id for allocation in await store.outbox(BOB)}
        before = set()
        for block in blocks:
            records = [await store.key_record(slot.key_id) for slot in block.slots]
            done = [r.key_id for r in records if r and r.state is KeyState.DELIVERED]
            assert len(done) % KEYS_A_TAKE == 0 and set(done) <= waiting
            before |= set(done)
            summary = summaries.get(block.session)
            if summary is not None:
                left = SLOTS // 2 - SLOTS_A_KEY * len(done)
                assert summary.own_free == left and summary.peer_free == SLOTS // 2
        for session in await store.held_sessions():
            await store.confirm_keys(ConfirmKeys(session, Persist()))
        now = await empty(store)
        assert {block.state for block in await store.blocks()} <= {BlockState.DELIVERABLE}
    return before, now


async def empty(store: KeyStore) -> set[KeyId]:
    """Take all there is, and check its bytes."""
    ids: set[KeyId] = set()
    while isinstance(outcome := await store.take(TAKE), Taken):
        for key, allocation in zip(outcome.keys, outcome.told.allocations, strict=True):
            slots = [slot_key(allocation.session, slot) for slot in allocation.slots]
            assert key.key == b"".join(slots) and key.key_id not in ids
            ids.add(key.key_id)
    assert outcome == InsufficientKeys(0)
    return ids


def test_no_key_is_delivered_twice_or_half(tmp_path: Path) -> None:
    chance = random.Random(14)
    said: list[KeyId] = []
    first_session = 1
    emptied: set[KeyId] = set()
    for _ in range(KILLS):
        deliveries = chance.randint(0, DELIVERIES_MAX)
        said += killed_child(tmp_path, first_session, deliveries)
        blocks = [block_of(n, SLOTS) for n in range(1, first_session + 20 * DELIVERIES_MAX)]
        known = asyncio.run(sessions_in(tmp_path))
        blocks = [block for block in blocks if block.session in known]
        before, now = asyncio.run(taken_out(tmp_path, blocks))
        assert len(said) == len(set(said)), "a key was delivered twice"
        assert set(said) <= before, "a key was delivered and is not recorded"
        assert not now & before
        # one commit at most had been made and not been said: two takes share it
        emptied |= now
        unsaid = before - set(said) - emptied
        assert len(unsaid) <= 2 * KEYS_A_TAKE * KILLS
        first_session = len(known) + 1
        assert known == {session_id(number) for number in range(1, first_session)}
    assert said, "some deliveries were seen"


async def sessions_in(folder: Path) -> set[str]:
    async with await KeyStore.open(folder, KEK, ALICE, lambda: NOW_NS) as store:
        return {str(block.session) for block in await store.blocks()}
