"""How many keys a second the key store delivers, durably, beside the commits its disk can make.

    python bench/keystore.py [--json FILE] [--folder FOLDER]

The floor is a bare loop that appends 4 KiB to a file and calls `fdatasync`, on the same disk in the
same run: a store that committed each key alone could not deliver more keys a second than that.
`truncating each time` is one client at a time who has the write-ahead log emptied after each
delivery instead of in the next pause.
"""

import asyncio
import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bellhop.hal.operations import NodeName
from bellhop.node.keystore import KeyStore, Taken, TakeRequest
from bellhop.node.keystore.database import Database
from bellhop.node.keystore.delivery import take
from bellhop.stack.core import ConfirmKeys, DistilledBlock, Persist, Slot, StoreKeys
from bellhop.stack.ids import KeyId, SaeId, SessionId

ALICE, BOB = NodeName("alice"), NodeName("bob")
KEK = bytes(32)
BLOCK_SLOTS = 1000
BLOCKS = 16
SYNCS = 400
CLIENTS = (1, 16, 128)
KEYS = {1: 400, 16: 2400, 128: 3600}
MANY = 128
ONE = TakeRequest(BOB, SaeId("sae-a"), SaeId("sae-b"), number=1, size_bits=256)


@dataclass(frozen=True, slots=True)
class Rate:
    """Something counted, a second, and how often that is in one bare commit."""

    name: str
    count: int
    seconds: float
    per_second: float
    ratio_to_commits: float


def block(number: int) -> DistilledBlock:
    """A block whose slots are all Alice's to hand out; its keys are no secrets."""
    session = SessionId(f"{number:032x}")
    slots = tuple(
        Slot(
            index,
            KeyId(str(uuid.uuid5(uuid.UUID(session), str(index)))),
            ALICE,
            hashlib.sha256(b"%d %d" % (number, index)).digest(),
        )
        for index in range(BLOCK_SLOTS)
    )
    return DistilledBlock(session, BOB, "emulated", "{}", slots)


def bare_commits(folder: Path) -> float:
    """Seconds for `SYNCS` appends that are each on the disk before the next."""
    page = os.urandom(4096)
    path = folder / "bare"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        begin = time.perf_counter()
        for _ in range(SYNCS):
            os.write(descriptor, page)
            os.fdatasync(descriptor)
        return time.perf_counter() - begin
    finally:
        os.close(descriptor)
        path.unlink()


async def store_blocks(store: KeyStore) -> None:
    """Fill a store."""
    for number in range(BLOCKS):
        distilled = block(number)
        await store.store_keys(StoreKeys(distilled, Persist()))
        await store.confirm_keys(ConfirmKeys(distilled.session, Persist()))


async def take_keys(store: KeyStore, clients: int, request: TakeRequest = ONE) -> int:
    """Clients who ask again as soon as they are answered; returns the keys they got."""
    rounds = KEYS[clients] // clients

    async def client() -> int:
        got = 0
        for _ in range(rounds):
            outcome = await store.take(request)
            assert isinstance(outcome, Taken)
            got += len(outcome.keys)
        return got

    return sum(await asyncio.gather(*(client() for _ in range(clients))))


async def take_many(store: KeyStore) -> int:
    """One client who asks for many keys at once."""
    request = TakeRequest(BOB, ONE.master, ONE.slave, number=MANY, size_bits=256)
    got = 0
    for _ in range(16):
        outcome = await store.take(request)
        assert isinstance(outcome, Taken)
        got += len(outcome.keys)
    return got


def take_truncating(folder: Path) -> tuple[int, float]:
    """One client at a time, and the log emptied each time: keys and seconds."""
    database = Database(folder, KEK, ALICE, time.time_ns)
    try:
        begin = time.perf_counter()
        for _ in range(KEYS[1]):
            outcome = database.run(lambda tx: take(tx, ONE))
            assert isinstance(outcome, Taken)
            database.checkpoint()
        return KEYS[1], time.perf_counter() - begin
    finally:
        database.close()


async def measure(folder: Path, advance: Callable[[str], None]) -> list[tuple[str, int, float]]:
    """Names, counts and seconds of what an open store does."""
    done = []

    async def timed(name: str, run: Awaitable[int | None], count: int = 0) -> None:
        begin = time.perf_counter()
        counted = await run or count
        done.append((name, counted, time.perf_counter() - begin))
        advance(name)

    async with await KeyStore.open(folder, KEK, ALICE, time.time_ns) as store:
        await timed("slots stored, blocks of 1,000", store_blocks(store), BLOCKS * BLOCK_SLOTS)
        for clients in CLIENTS:
            shown = "1 client" if clients == 1 else f"{clients} clients"
            await timed(f"keys delivered, {shown}", take_keys(store, clients))
        await timed(f"keys delivered, {MANY} a request", take_many(store))
    return done


def run(folder: Path, console: Console) -> list[Rate]:
    """All measurements, the floor first and last so that a changing disk shows."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("bare commits", total=8)

        def advance(name: str) -> None:
            progress.update(task, advance=1, description=name)

        first = bare_commits(folder)
        advance("bare commits")
        counted = asyncio.run(measure(folder, advance))
        truncated = take_truncating(folder)
        advance("truncating each time")
        last = bare_commits(folder)
        advance("bare commits again")
    commits = 2 * SYNCS / (first + last)
    rows = [
        ("bare commits, before", SYNCS, first),
        *counted,
        ("keys delivered, 1 client, truncating each time", *truncated),
        ("bare commits, after", SYNCS, last),
    ]
    return [
        Rate(name, count, seconds, count / seconds, count / seconds / commits)
        for name, count, seconds in rows
    ]


@click.command()
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the rates here.")
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True), help="A folder on the disk to try."
)
def main(json_file: Path | None, folder: Path | None) -> None:
    """Measure the key store and show a table."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="bellhop-bench-", dir=folder) as scratch:
        rates = run(Path(scratch), console)
    table = Table(title="Key store: a second, and in the time of one bare commit")
    for heading in ("what", "count", "a second", "per bare commit"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for rate in rates:
        shown = (f"{rate.count:,}", f"{rate.per_second:,.0f}", f"{rate.ratio_to_commits:.2f}")
        table.add_row(rate.name, *shown)
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(rate) for rate in rates], indent=2) + "\n")


if __name__ == "__main__":
    main()
