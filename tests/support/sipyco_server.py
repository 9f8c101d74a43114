"""A server of ARTIQ's network RPC, written from the protocol; `version` is the PYON it speaks."""

import asyncio
import inspect
import json
import traceback
from collections.abc import Callable
from typing import Any

BANNER = b"ARTIQ pc_rpc\n"


def encode_v2(value: object) -> str:
    def marked(item: object) -> object:
        if isinstance(item, tuple):
            return {"__jsonclass__": ["tuple", [[marked(one) for one in item]]]}
        if isinstance(item, set):
            return {"__jsonclass__": ["set", [[marked(one) for one in item]]]}
        if isinstance(item, list):
            return [marked(one) for one in item]
        if isinstance(item, dict):
            return {key: marked(one) for key, one in item.items()}
        return item

    return json.dumps(marked(value), separators=(",", ":"))


def encode_v1(value: object) -> str:
    """Python's notation, but for the names of constants and for text."""
    match value:
        case None | bool() | str():
            return json.dumps(value)
        case int() | float():
            return repr(value)
        case [one] if isinstance(value, tuple):
            return f"({encode_v1(one)}, )"
        case tuple():
            return f"({', '.join(map(encode_v1, value))})"
        case list():
            return f"[{', '.join(map(encode_v1, value))}]"
        case set():
            return f"{{{', '.join(map(encode_v1, value))}}}"
        case dict():
            pairs = (f"{encode_v1(key)}: {encode_v1(one)}" for key, one in value.items())
            return f"{{{', '.join(pairs)}}}"
    raise TypeError(type(value).__name__)


class Server:
    """One call at a time; a banner, target or line that is wrong ends the connection."""

    def __init__(
        self, targets: dict[str, object], version: str, description: str | None = None
    ) -> None:
        self._targets = targets
        self._description = description
        self._version = version
        self._one_at_a_time = asyncio.Lock()
        self._conversations: set[asyncio.Task[Any]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """To be handed to `asyncio.start_server`."""
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        try:
            await self._converse(reader, writer)
        except ConnectionError:
            pass  # The client is gone.
        finally:
            writer.close()

    async def quiet(self) -> None:
        """Wait until all clients are gone."""
        if self._conversations:
            await asyncio.wait(self._conversations)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() != BANNER:
            return
        hello: dict[str, object] = {
            "targets": sorted(self._targets),
            "description": self._description,
        }
        if self._version == "v2":
            hello["features"] = ["pyon_v2"]
        _send(writer, json.dumps(hello))
        name, *features = (await reader.readline()).decode().strip("\n").split(" ")
        encode = encode_v2 if features == ["pyon_v2"] else encode_v1
        if name not in self._targets:
            return
        target = self._targets[name]
        _send(
            writer, encode({method for method in dir(target) if callable(getattr(target, method))})
        )
        while line := await reader.readline():
            async with self._one_at_a_time:
                _send(writer, encode(await _answer(target, json.loads(line))))
            await writer.drain()


def _send(writer: asyncio.StreamWriter, line: str) -> None:
    writer.write(f"{line}\n".encode())


async def _answer(target: object, request: dict[str, Any]) -> dict[str, object]:
    try:
        if request["action"] != "call":
            raise ValueError("Unknown action")
        method: Callable[..., Any] = getattr(target, request["name"])
        answer = method(*request["args"], **request["kwargs"])
        return {"status": "ok", "ret": await answer if inspect.iscoroutine(answer) else answer}
    except Exception as error:  # noqa: BLE001 - whatever a method raises is its answer
        told = {
            "class": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_tb(error.__traceback__),
        }
        return {"status": "failed", "exception": told}


def simple_server_loop(
    targets: dict[str, object],
    host: str,
    port: int,
    description: str | None = None,
    *,
    version: str,
) -> None:
    """Serves until it is killed; named and called as sipyco's, whose place it takes."""

    async def run() -> None:
        own = Server(targets, version, description)
        server = await asyncio.start_server(own.connected, host, port, limit=4 * 2**20)
        await server.serve_forever()

    asyncio.run(run())
