"""The key store's files: encrypted, erased, and refused when they cannot be trusted."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.distilled import (
    BOB,
    KEK,
    block_of,
    bytes_in,
    fill,
    open_store,
    session_id,
    slot_id,
    slot_key,
)

from bellhop.hal.errors import ConfigError, KeyStoreError
from bellhop.node.keystore import (
    Fetched,
    FetchRequest,
    Taken,
    TakeRequest,
    create_kek,
    read_kek,
)
from bellhop.stack.core import (
    Fact,
    Persist,
    RecordAllocations,
)
from bellhop.stack.ids import SaeId
from bellhop.stack.messages import Allocation

ONE = TakeRequest(peer=BOB, master=SaeId("sae-a"), slave=SaeId("sae-b"), number=1, size_bits=256)


# --- at rest --------------------------------------------------------------------------------------


def sealed_values(folder: Path) -> list[bytes]:
    """Every ciphertext, read beside the store (which must be closed)."""
    sql = sqlite3.connect(folder / "keystore.sqlite3")
    query = (
        "SELECT sealed FROM keys WHERE sealed IS NOT NULL"
        " UNION ALL SELECT sealed FROM facts"
        " UNION ALL SELECT dek FROM blocks WHERE dek IS NOT NULL"
    )
    try:
        return [value for (value,) in sql.execute(query)]
    finally:
        sql.close()


async def test_no_key_is_in_a_file_and_the_files_are_the_owners(tmp_path: Path) -> None:
    secret = b"a fact that nobody may read"
    async with await open_store(tmp_path) as store:
        await store.persist(Persist(put=(Fact("f", secret),)))
        await fill(store, block_of(1, 8))
        files = bytes_in(tmp_path)
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        content = b"".join(files.values())
        assert secret not in content and KEK not in content
        assert slot_id(session_id(1), 3).encode() in content  # what is looked for would be found
        assert all(slot_key(session_id(1), index) not in content for index in range(8))


async def test_what_was_delivered_is_in_no_file_even_sealed(tmp_path: Path) -> None:
    async with await open_store(tmp_path) as store:
        await store.persist(Persist(put=(Fact("f", b"x" * 10_000),)))
        await fill(store, block_of(1, 4))
    before = sealed_values(tmp_path)
    assert len(before) == 4 + 1 + 1
    assert all(
        value in b"".join(bytes_in(tmp_path).values()) for value in before if len(value) < 99
    )
    async with await open_store(tmp_path) as store:
        assert isinstance(await store.take(replace(ONE, number=2)), Taken)
        await store.persist(Persist(forget=("f",)))
        told = tuple(
            Allocation(session_id(1), key_id, (slot,), 256, ONE.master, ONE.slave)
            for slot, key_id in ((1, slot_id(session_id(1), 1)), (3, slot_id(session_id(1), 3)))
        )
        assert await store.record_allocations(RecordAllocations(BOB, told)) == []
        request = FetchRequest(ONE.master, ONE.slave, tuple(each.key_id for each in told))
        assert isinstance(await store.fetch(request), Fetched)
    after = b"".join(bytes_in(tmp_path).values())
    assert all(value not in after for value in before)
    assert sealed_values(tmp_path) == []


async def test_the_log_is_emptied_soon_after_a_delivery(tmp_path: Path) -> None:
    async with await open_store(tmp_path) as store:
        await fill(store, block_of(1, 4))
        assert isinstance(await store.take(ONE), Taken)
        log = tmp_path / "keystore.sqlite3-wal"
        async with asyncio.timeout(10):
            while log.stat().st_size:
                await store.held_sessions()
        assert (await store.stock(BOB, 256)).keys == 1


async def test_nothing_secret_in_a_repr(tmp_path: Path) -> None:
    async with await open_store(tmp_path) as store:
        await fill(store, block_of(1, 4))
        shown = repr(await store.take(ONE)) + repr(store) + repr(vars(store))
    key = slot_key(session_id(1), 0)
    assert key.hex() not in shown and repr(key)[2:-1] not in shown and repr(KEK) not in shown


# --- refusing to open -----------------------------------------------------------------------------


async def test_another_kek_is_told_at_once(tmp_path: Path) -> None:
    await open_and_close(tmp_path)
    with pytest.raises(KeyStoreError, match="another key-encryption key"):
        await open_store(tmp_path, kek=bytes(32))
    await open_and_close(tmp_path)


async def test_another_nodes_store_is_refused(tmp_path: Path) -> None:
    await open_and_close(tmp_path)
    with pytest.raises(ConfigError, match="'alice', not of 'bob'") as refused:
        await open_store(tmp_path, node=BOB)
    assert refused.value.field == "node.name"


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    await open_and_close(tmp_path)
    sql = sqlite3.connect(tmp_path / "keystore.sqlite3")
    sql.execute("PRAGMA user_version = 2")
    sql.close()
    with pytest.raises(KeyStoreError, match="newer Bellhop"):
        await open_store(tmp_path)


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keystore.sqlite3").write_bytes(b"not a database" * 1000)
    with pytest.raises(KeyStoreError, match="cannot open the key store"):
        await open_store(tmp_path)


async def test_a_store_is_opened_once_in_a_process(tmp_path: Path) -> None:
    async with await open_store(tmp_path) as store:
        with pytest.raises(ConfigError, match="locked"):
            await open_store(tmp_path)
        await store.persist(Persist(put=(Fact("f", b"x"),)))


async def open_and_close(folder: Path) -> None:
    await (await open_store(folder)).close()


HOLDS_THE_LOCK = """
import sys
from pathlib import Path
from bellhop.node.keystore.schema import lock
held = lock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_store_is_opened_by_one_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_LOCK, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigError, match=r"keystore\.lock is locked"):
            asyncio.run(open_store(tmp_path))
        other.stdin.close()
    asyncio.run(open_and_close(tmp_path))


async def test_a_damaged_key_stops_the_store(tmp_path: Path) -> None:
    async with await open_store(tmp_path) as store:
        await fill(store, block_of(1, 6))
    sql = sqlite3.connect(tmp_path / "keystore.sqlite3")
    with sql:  # the sealed key of slot 2 in the place of that of slot 0
        sql.execute(
            "UPDATE keys SET sealed = (SELECT sealed FROM keys WHERE slot = 2) WHERE slot = 0"
        )
    sql.close()
    store = await open_store(tmp_path)
    failure = asyncio.create_task(store.failure())
    outcomes = await asyncio.gather(
        store.persist(Persist(put=(Fact("f", b"x"),))), store.take(ONE), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [KeyStoreError, KeyStoreError]
    assert "cannot be opened" in (await failure).message
    with pytest.raises(KeyStoreError):
        await store.blocks()
    await store.close()
    async with await open_store(tmp_path) as again:
        assert await again.load_facts() == []


async def test_a_damaged_file_is_not_opened(tmp_path: Path) -> None:
    """Damage far from what opening reads: a page in the middle."""
    async with await open_store(tmp_path) as store:
        await fill(store, block_of(1, 2000))
    path = tmp_path / "keystore.sqlite3"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    with pytest.raises(KeyStoreError, match="empty state folder and a new pool"):
        await open_store(tmp_path)


async def names_in(folder: Path) -> list[str]:
    async with await open_store(folder) as store:
        return [fact.name for fact in await store.load_facts()]


FILLS_THE_DISK = """
import asyncio, os, resource, sys
from pathlib import Path
from bellhop.hal.errors import KeyStoreError
from bellhop.hal.operations import NodeName
from bellhop.node.keystore import KeyStore
from bellhop.stack.core import Fact, Persist

async def main():
    store = await KeyStore.open(Path(sys.argv[1]), bytes(range(32)), NodeName("alice"), lambda: 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    kept = 0
    try:
        while kept < 100:
            await store.persist(Persist(put=(Fact(f"{kept:03}", bytes(20_000)),)))
            kept += 1
    except KeyStoreError as error:
        print(kept, error.fields["sqlite"], flush=True)
    try:
        await store.load_facts()
    except KeyStoreError:
        print("refused", flush=True)
    await store.close()

asyncio.run(main())
"""


def test_a_full_disk_stops_the_store_and_loses_nothing(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(tmp_path)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    report, refused = child.stdout.splitlines()
    kept, name = report.split()
    assert refused == "refused" and name.startswith(("SQLITE_IOERR", "SQLITE_FULL"))
    assert asyncio.run(names_in(tmp_path)) == [f"{n:03}" for n in range(int(kept))] != []


# --- the key-encryption key -----------------------------------------------------------------------


def test_a_kek_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    key = create_kek(path)
    assert len(key) == 32 and read_kek(path) == key and path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="exists"):
        create_kek(path)
    assert read_kek(path) == key


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_kek_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "kek"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="32 bytes"):
        read_kek(path)


def test_a_kek_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    create_kek(path)
    os.chmod(path, 0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_kek(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_kek(tmp_path / "none")
