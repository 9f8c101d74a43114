"""The example laboratory: a table that answers whatever it is told, and a trap that survives it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from bellhop.hal.examples.optical_table import OpticalTable, run_table
from bellhop.hal.examples.two_traps import Options, Trap
from bellhop.hal.laboratory import LaboratoryError
from bellhop.hal.operations import LinkName, RequestId, Side

LINK = LinkName("alice-bob")
REQUEST = RequestId("0f" * 16)
PATIENCE_SECONDS = 10.0


@asynccontextmanager
async def trap_at(address: str) -> AsyncIterator[Trap]:
    trap = Trap(Options(table=address, link=LINK, side=Side.A, peer="bob"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await trap.open()
        try:
            yield trap
        finally:
            await trap.close()


@asynccontextmanager
async def optical_table(table: OpticalTable) -> AsyncIterator[str]:
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_table("127.0.0.1:0", table, listening.set_result, stop))
    yield await listening
    stop.set()
    await task


async def test_a_pair_that_is_not_held_is_an_error_and_no_silence() -> None:
    table = OpticalTable(np.random.default_rng(1))
    async with optical_table(table) as address, trap_at(address) as trap:
        with pytest.raises(LaboratoryError, match="no such pair"):
            await trap.measure(LINK, REQUEST, 0, 0, 0)


async def test_an_order_that_cannot_be_is_answered() -> None:
    async with optical_table(OpticalTable(np.random.default_rng(1))) as address:
        host, _, port = address.rpartition(":")
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port))
            for order in ({"side": "a"}, {"side": "c"}, {"side": "a", "link": "l", "request": "r"}):
                writer.write(json.dumps({"id": 1, **order}).encode() + b"\n")
                answer = json.loads(await reader.readline())
                assert answer["id"] == 1 and "cannot be" in answer["error"]
            # What cannot be answered ends that connection alone.
            writer.write(b"[]\n")
            assert await reader.readline() == b""
            writer.close()
        async with trap_at(address) as trap:
            await trap.release(LINK, REQUEST)


def test_a_half_is_measured_once() -> None:
    table = OpticalTable(np.random.default_rng(1))
    ids = (str(LINK), str(REQUEST), 0)
    for side in Side:
        table.attempt(side, ids, 2)
    for side in Side:
        assert table.measure(side, ids, 1, 0) in (0, 1)
        with pytest.raises(LaboratoryError, match="measured already"):
            table.measure(side, ids, 1, 0)


NONSENSE = [b"lasers on\n", b"[]\n", b"{}\n", b'{"id": 1}\n', b'{"id": []}\n']


@pytest.mark.parametrize("line", NONSENSE)
async def test_a_table_that_answers_nonsense_is_named_and_the_trap_still_closes(
    line: bytes,
) -> None:
    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(line)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(attend, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, trap_at(f"127.0.0.1:{port}") as trap:
        with pytest.raises(LaboratoryError, match="said what is no answer"):
            await trap.release(LINK, REQUEST)
