"""The client of ARTIQ's network RPC: conversations recorded from sipyco, and servers that fail.

`tests/support/recordings` holds what a server of sipyco 1.8 (PYON v1) and one of 1.10 (PYON v2)
sent, line by line, to the calls below; the object behind it had one method of each kind of answer.
"""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bellhop.hal.drivers.pyon import LINE_BYTES_MAX, ControllerNonsense
from bellhop.hal.drivers.sipyco_rpc import (
    ANSWER_BYTES_MAX,
    ControllerFailed,
    ControllerGone,
    SipycoConnection,
)
from bellhop.hal.errors import HardwareError

RECORDINGS = Path("tests/support/recordings")
VERSIONS = ("1.8", "1.10")
SECONDS = 10.0

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """A server whose every connection is handled by `serve`, then closed; its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def scripted(lines: list[bytes]) -> Serve:
    """Answers exactly what was recorded, as long as the client says exactly what was recorded."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            if line.startswith(b"> "):
                assert await reader.readline() == line[2:]
            else:
                writer.write(line[2:])
        await reader.readline()

    return serve


def recorded(version: str) -> list[bytes]:
    return (RECORDINGS / f"sipyco-{version}.txt").read_bytes().splitlines(keepends=True)


@asynccontextmanager
async def connected(lines: list[bytes]) -> AsyncIterator[SipycoConnection]:
    async with serving(scripted(lines)) as port:
        connection = await SipycoConnection.open("127.0.0.1", port, None, SECONDS)
        try:
            yield connection
        finally:
            connection.close()


HELLO = [
    b"> ARTIQ pc_rpc\n",
    b'< {"targets":["trap"],"description":null,"features":["pyon_v2"]}\n',
    b"> trap pyon_v2\n",
    b'< {"__jsonclass__":["set",[["ping"]]]}\n',
]
CALL = b'> {"action":"call","name":"ping","args":[],"kwargs":{}}\n'


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_recorded_conversation(version: str) -> None:
    async with connected(recorded(version)) as trap:
        assert (trap.target, trap.targets, trap.description) == ("trap", ("trap",), "one trap")
        assert {"ping", "ports", "heralds"} < trap.methods
        call = trap.call
        assert await call("ping", seconds=SECONDS) is True
        port = {"link": "alice-bob", "side": "a", "idealisations": (), "one": (1,)}
        assert await call("ports", seconds=SECONDS) == [port]
        heralds = await call("heralds", "alice-bob", "00ff", 2, 0, seconds=SECONDS)
        assert heralds == [(7, 3, 1234567890123), (9, 1, 1234567899999)]
        assert_array(await call("array", seconds=SECONDS), [[7, 3, 1234], [9, 1, 5678]], "<i8")
        assert_array(await call("bits", seconds=SECONDS), [True, False], "|b1")
        assert await call("bit", seconds=SECONDS) == 1
        assert_array(await call("empty", seconds=SECONDS), np.zeros((0, 3)).tolist(), "<f8")
        assert await call("mixed", seconds=SECONDS) == {
            "none": None,
            "bytes": b"\x00'\\\n\xff",
            "complex": 1.5 - 2j,
            "real": -1e-300,
            "infinite": -math.inf,
            "fraction": Fraction(13, 256),
            3: {1.5, "a"},
            "text": 'µ"\n',
            "ordered": {"b": 1},
        }
        with pytest.raises(ControllerFailed, match=r'ValueError: the other end "bob" gave up') as e:
            await call("refuse", 'the other end "bob" gave up', seconds=SECONDS)
        assert (e.value.kind, e.value.who_must_act[:5]) == ("ValueError", "whoev")
        assert 'File "controller.py", line 14, in refuse' in e.value.message
        with pytest.raises(ControllerFailed, match="Stalled: no ion"):
            await call("own", seconds=SECONDS)
        with pytest.raises(ControllerFailed, match="missing 4 required positional"):
            await call("heralds", seconds=SECONDS)
        documentation = await trap.documentation(SECONDS)
        assert documentation["refuse"] == (("self", "why"), "")
        assert documentation["terminate"] == (("self",), "Terminate the server.")
        assert not trap.closed


def assert_array(value: object, content: Sequence[object], kind: str) -> None:
    assert isinstance(value, np.ndarray)
    assert (value.tolist(), value.dtype) == (content, np.dtype(kind))


async def test_a_private_failure_shows_nothing_that_was_said() -> None:
    secret = b'< {"status":"failed","exception":{"class":"ValueError","message":"0110"}}\n'
    async with connected([*HELLO, CALL, secret]) as trap:
        with pytest.raises(ControllerFailed) as caught:
            await trap.call("ping", seconds=SECONDS, private=True)
    assert caught.value.message == "ping failed at the controller with ValueError"


async def test_calls_of_several_tasks_get_their_own_answers() -> None:
    calls, expected = [], list(range(20))
    for number in expected:
        calls += [CALL, b'< {"status":"ok","ret":%d}\n' % number]
    async with connected([*HELLO, *calls]) as trap:
        answers = await asyncio.gather(*(trap.call("ping", seconds=SECONDS) for _ in expected))
    assert answers == expected


async def test_a_caller_who_leaves_does_not_disturb_the_next() -> None:
    """The answer to a cancelled call is read, and is not taken for the next call's."""
    lines = [*HELLO, CALL, b'< {"status":"ok","ret":1}\n', CALL, b'< {"status":"ok","ret":2}\n']
    async with connected(lines) as trap:
        first = asyncio.create_task(trap.call("ping", seconds=SECONDS))
        await asyncio.sleep(0)  # The call begins, and no answer can have come.
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await trap.call("ping", seconds=SECONDS) == 2


async def test_a_late_answer_ends_the_connection() -> None:
    async with connected([*HELLO, CALL]) as trap:
        with pytest.raises(ControllerGone, match=r"did not answer ping within 0.05 s"):
            await trap.call("ping", seconds=0.05)
        assert trap.closed
        with pytest.raises(ControllerGone, match="is closed"):
            await trap.call("ping", seconds=SECONDS)


ONE = b'< {"status":"ok","ret":1}\n'


async def test_a_call_that_is_answered_twice_ends_the_connection() -> None:
    """Its second answer would be the next call's, and so on: outcomes shifted by one round."""
    async with connected([*HELLO, CALL, ONE + ONE[2:]]) as trap:
        with pytest.raises(ControllerNonsense, match="besides the answer to ping"):
            await trap.call("ping", seconds=SECONDS)
        assert trap.closed


async def test_what_came_without_a_call_is_no_answer() -> None:
    async with connected([*HELLO[:3], HELLO[3] + ONE[2:], CALL, ONE]) as trap:
        with pytest.raises(ControllerNonsense, match="before it was asked to ping"):
            await trap.call("ping", seconds=SECONDS)
        assert trap.closed


async def test_half_a_line_too_many_is_seen_as_well() -> None:
    async with connected([*HELLO, CALL, ONE + b"{"]) as trap:
        with pytest.raises(ControllerNonsense, match="answer a call twice"):
            await trap.call("ping", seconds=SECONDS)


LONG = b'< {"status":"ok","ret":"%s"}\n' % (b"x" * ANSWER_BYTES_MAX)


async def test_an_answer_is_as_long_as_its_caller_allows() -> None:
    async with connected([*HELLO, CALL, LONG, CALL, LONG]) as trap:
        answer = await trap.call("ping", seconds=SECONDS, bytes_max=LINE_BYTES_MAX)
        assert answer == "x" * ANSWER_BYTES_MAX
        with pytest.raises(ControllerNonsense, match=f"over {ANSWER_BYTES_MAX} bytes"):
            await trap.call("ping", seconds=SECONDS)
        assert trap.closed


async def test_only_short_answers_are_decoded_on_the_event_loop() -> None:
    threads: list[int] = []
    async with connected([*HELLO, CALL, ONE, CALL, LONG]) as trap:
        decode = trap._decode

        def noting(line: bytes) -> object:
            threads.append(threading.get_ident())
            return decode(line)

        trap._decode = noting
        for _ in range(2):
            await trap.call("ping", seconds=SECONDS, bytes_max=LINE_BYTES_MAX)
    assert threads[0] == threading.get_ident() != threads[1]


async def test_close_ends_a_call_that_is_under_way() -> None:
    async with connected([*HELLO, CALL]) as trap:
        call = asyncio.create_task(trap.call("ping", seconds=SECONDS))
        await asyncio.sleep(0)
        trap.close()
        with pytest.raises(ControllerGone):
            await call


@pytest.mark.parametrize(
    "answer",
    [
        b"< null\n",
        b"< []\n",
        b'< {"status":"ok"}\n',
        b'< {"status":"late","ret":1}\n',
        b'< {"status":"failed"}\n',
        b'< {"status":"failed","exception":[]}\n',
        b'< {"status":"ok","ret":{"__jsonclass__":["slice",[1,2,null]]}}\n',
        b"< {\xff}\n",
        b"< " + b" " * (LINE_BYTES_MAX + 1) + b"\n",
    ],
    ids=lambda answer: answer[:40],
)
async def test_nonsense_ends_the_connection(answer: bytes) -> None:
    async with connected([*HELLO, CALL, answer]) as trap:
        with pytest.raises(ControllerNonsense) as caught:
            await trap.call("ping", seconds=SECONDS)
        assert trap.closed
    assert caught.value.who_must_act == "whoever wrote the controller"


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([], ControllerGone),
        ([b"< SSH-2.0-OpenSSH_9.6\n"], ControllerNonsense),
        ([b"< []\n"], ControllerNonsense),
        ([b'< {"description":null}\n'], ControllerNonsense),
        ([b'< {"targets":[]}\n'], ControllerNonsense),
        ([b'< {"targets":["a","b"]}\n'], ControllerNonsense),
        ([b'< {"targets":["a b"]}\n'], ControllerNonsense),
        ([b'< {"targets":[["a"]]}\n'], ControllerNonsense),
        ([b'< {"targets":["trap"]}'], ControllerGone),
        ([b'< {"targets":["trap"]}\n'], ControllerGone),
        ([b'< {"targets":["trap"]}\n', b'< {"ping": 1}\n'], ControllerNonsense),
        ([b'< {"targets":["trap"],"features":7}\n', b"< {1, 2}\n"], ControllerNonsense),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_greeting_that_is_none(lines: list[bytes], error: type[HardwareError]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in lines:
            await reader.readline()
            writer.write(line[2:])
        writer.write_eof()
        await reader.read()

    async with serving(serve) as port:
        with pytest.raises(error):
            await SipycoConnection.open("127.0.0.1", port, None, SECONDS)


async def test_a_target_that_is_not_there_is_named() -> None:
    async with serving(scripted(HELLO[:2])) as port:
        with pytest.raises(ControllerNonsense, match="no target 'trapp', only: trap"):
            await SipycoConnection.open("127.0.0.1", port, "trapp", SECONDS)


async def test_nobody_there_and_nobody_answering() -> None:
    async with serving(scripted(HELLO[:1])) as port:
        with pytest.raises(ControllerGone, match=r"did not answer within 0.05 s"):
            await SipycoConnection.open("127.0.0.1", port, None, 0.05)
    with pytest.raises(ControllerGone, match="no connection"):
        await SipycoConnection.open("127.0.0.1", port, None, SECONDS)
