"""A client of ARTIQ's network RPC, the PC-RPC protocol of sipyco, over TCP or TLS.

The protocol (https://github.com/m-labs/sipyco, sipyco/pc_rpc.py).  Every message is a line.

    client   ARTIQ pc_rpc
    server   {"targets": [...], "description": ..., "features": ["pyon_v2"]}
    client   TARGET pyon_v2             without the feature: TARGET, and all that follows is PYON v1
    server   the set of the target's methods
    client   {"action": "call", "name": ..., "args": [...], "kwargs": {}}
    server   {"status": "ok", "ret": ...}
             {"status": "failed", "exception": {"class": ..., "message": ..., "traceback": [...]}}
    client   {"action": "get_rpc_method_list"}      and so on; either side ends by closing

A server answers in order, one call at a time, and closes without a word on a target it does not
have.  Answers have no number.  One that is late would be taken for the next one, so a call that is
not answered in time ends the connection; and so does anything that comes without a call.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self, SupportsIndex

from bellhop.hal.drivers import pyon, pyon_v1
from bellhop.hal.drivers.pyon import LINE_BYTES_MAX, ControllerNonsense, printable
from bellhop.hal.errors import HardwareError

BANNER = b"ARTIQ pc_rpc\n"
FEATURE_V2 = "pyon_v2"
NAMES_MAX = 1_024
"""No server has more targets, and no target more methods."""

ANSWER_BYTES_MAX = 256 * 1024
"""No answer is longer, but where the caller allows it: heralds, ports, documentation."""

INLINE_BYTES_MAX = 16 * 1024
"""Longer lines are decoded in a thread: all else that runs on the event loop goes on."""

REASON_CHARACTERS_MAX = 200
"""What a controller says of a failure is repeated up to this length."""


class ControllerGone(HardwareError):
    """The controller cannot be reached, or the connection to it ended; a new one may help."""

    who_must_act = "whoever runs the controller: is it up, is its address right, does it speak TLS?"


class ControllerFailed(HardwareError):
    """The controller's method raised; `kind` is the name of its exception."""

    who_must_act = "whoever wrote or runs the controller"

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message, kind=kind)
        self.kind = kind


class _Lines(asyncio.StreamReader):
    """A reader that knows whether anything came that was not read."""

    def __init__(self) -> None:
        super().__init__(limit=LINE_BYTES_MAX)
        self._left_bytes = 0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        came = bytes(data)
        self._left_bytes += len(came)
        super().feed_data(came)

    async def readline(self) -> bytes:
        line = await super().readline()
        self._left_bytes -= len(line)
        return line

    @property
    def unread(self) -> bool:
        return self._left_bytes > 0


@dataclass(frozen=True, slots=True)
class _Call:
    """What a caller wants of an answer."""

    method: str
    seconds: float
    private: bool
    bytes_max: int


class SipycoConnection:
    """One connection to one target of a server.  Calls of several tasks are made one by one."""

    def __init__(self, where: str, reader: _Lines, writer: asyncio.StreamWriter) -> None:
        self.where = where
        self.targets: tuple[str, ...] = ()
        self.description = ""
        self.target = ""
        self.methods: frozenset[str] = frozenset()
        self._decode: Callable[[bytes], object] = pyon.decode
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()
        self._calls: set[asyncio.Task[object]] = set()

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        target: str | None,
        seconds: float,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Connect and select `target`, or the only one if it is None, all within `seconds`.

        Raises ControllerGone or ControllerNonsense.
        """
        where = f"{host}:{port}"
        connection: Self | None = None
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await _connected(host, port, tls)
                connection = cls(where, reader, writer)
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                await connection._greet(target)
                return connection
        except TimeoutError:
            error: HardwareError = ControllerGone(
                f"the controller at {where} did not answer within {seconds:g} s"
            )
        except OSError as problem:
            reason = printable(problem.strerror or type(problem).__name__, REASON_CHARACTERS_MAX)
            error = ControllerGone(f"no connection to the controller at {where}: {reason}")
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if connection is not None:
            connection.close()
        raise error

    @property
    def closed(self) -> bool:
        """Whether this side gave the connection up, or the other was seen to."""
        return self._writer.is_closing() or self._reader.at_eof()

    async def call(
        self,
        method: str,
        *arguments: object,
        seconds: float,
        private: bool = False,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> object:
        """What `method` returns, a value of PYON.

        `arguments` are what `pyon.encode` takes.  `private`: what the controller says of a failure
        is not repeated, as it may show a setting or an outcome.  `bytes_max`: a longer answer is
        nonsense.  Cancelling gives the answer up and leaves the connection in order.  Raises
        ControllerFailed if the method raised, and ControllerGone or ControllerNonsense; then the
        connection is closed.
        """
        request: dict[str, object] = {
            "action": "call", "name": method, "args": list(arguments), "kwargs": {},
        }  # fmt: skip
        return await self._answered(request, _Call(method, seconds, private, bytes_max))

    async def documentation(self, seconds: float) -> dict[str, tuple[tuple[str, ...], str]]:
        """The arguments and the text of each method, as the controller tells; errors as `call`."""
        call = _Call("get_rpc_method_list", seconds, private=False, bytes_max=LINE_BYTES_MAX)
        answer = await self._answered({"action": call.method}, call)
        methods = answer.get("methods") if isinstance(answer, dict) else None
        if not isinstance(methods, dict) or len(methods) > NAMES_MAX:
            raise self._nonsense("a documentation of methods that is none")
        return {str(name): self._documented(about) for name, about in methods.items()}

    def close(self) -> None:
        """Give the connection up, at once.  Calls under way raise ControllerGone."""
        self._writer.transport.abort()

    async def _greet(self, target: str | None) -> None:
        self._writer.write(BANNER)
        hello = pyon.decode(await self._line())
        if not isinstance(hello, dict):
            raise self._nonsense("a first line that is no identification")
        self.targets = self._names(hello.get("targets"), "targets")
        description = hello.get("description")
        self.description = printable(description, 256) if isinstance(description, str) else ""
        self.target = self._chosen(target)
        features = hello.get("features", [])
        modern = isinstance(features, list) and FEATURE_V2 in features
        self._decode = pyon.decode if modern else pyon_v1.decode
        choice = f"{self.target} {FEATURE_V2}\n" if modern else f"{self.target}\n"
        self._writer.write(choice.encode("ascii"))
        methods = await self._decoded(await self._line())
        self.methods = frozenset(self._names(methods, "methods"))

    def _chosen(self, target: str | None) -> str:
        offered = ", ".join(self.targets) or "none"
        if target is None:
            if len(self.targets) != 1:
                raise ControllerNonsense(
                    f"the controller at {self.where} has the targets {offered}: name one"
                )
            return self.targets[0]
        if target not in self.targets:
            raise ControllerNonsense(
                f"the controller at {self.where} has no target {target!r}, only: {offered}"
            )
        return target

    def _names(self, value: object, what: str) -> tuple[str, ...]:
        if isinstance(value, (list, tuple, set)) and len(value) <= NAMES_MAX:
            names = [name for name in value if isinstance(name, str) and _plain(name)]
            if len(names) == len(value):
                return tuple(sorted(names))
        raise self._nonsense(f"{what} that are no names")

    async def _answered(self, request: dict[str, object], call: _Call) -> object:
        """A caller who is cancelled leaves the answer to be read: the next is another call's."""
        line = pyon.encode(request)
        task = asyncio.create_task(self._exchange(line, call))
        self._calls.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # Nobody may be left to hear it.

    async def _exchange(self, line: bytes, call: _Call) -> object:
        async with self._lock:
            if self.closed:
                raise self._gone("is closed")
            try:
                async with asyncio.timeout(call.seconds):
                    answer = await self._decoded(await self._said_to(line, call))
            except TimeoutError:
                self.close()
                raise self._gone(
                    f"did not answer {call.method} within {call.seconds:g} s"
                ) from None
            except OSError as problem:
                self.close()
                raise self._gone(f"broke: {type(problem).__name__}") from None
            except BaseException:
                self.close()
                raise
            return self._result(answer, call.method, call.private)

    async def _said_to(self, line: bytes, call: _Call) -> bytes:
        """The line that answers `line`, nothing before it and nothing after it."""
        self._require_silence(f"before it was asked to {call.method}")
        self._writer.write(line)
        await self._writer.drain()
        answer = await self._line()
        self._require_silence(f"besides the answer to {call.method}")
        if len(answer) > call.bytes_max:
            raise self._nonsense(f"an answer to {call.method} of over {call.bytes_max} bytes")
        return answer

    def _require_silence(self, when: str) -> None:
        """A line too many would be taken for the answer to the next call, and that one's for the
        answer to the call after it, without end."""
        if self._reader.unread:
            raise self._nonsense(f"something {when}: does it answer a call twice?")

    def _result(self, answer: object, method: str, private: bool) -> object:
        if isinstance(answer, dict):
            if answer.get("status") == "ok" and "ret" in answer:
                return answer["ret"]
            exception = answer.get("exception")
            if answer.get("status") == "failed" and isinstance(exception, dict):
                raise self._failure(exception, method, private)
        self.close()
        raise self._nonsense(f"an answer to {method} that is none")

    def _failure(
        self, exception: dict[object, object], method: str, private: bool
    ) -> ControllerFailed:
        kind, message = exception.get("class"), exception.get("message")
        kind = printable(kind) if isinstance(kind, str) else "unknown"
        said = ""
        if isinstance(message, str) and not private:
            said = f": {printable(message, REASON_CHARACTERS_MAX)}"
        where = _raised_at(exception.get("traceback"))
        return ControllerFailed(f"{method} failed at the controller with {kind}{said}{where}", kind)

    def _documented(self, about: object) -> tuple[tuple[str, ...], str]:
        if isinstance(about, (list, tuple)) and len(about) == 2 and isinstance(about[0], dict):
            arguments = about[0].get("args")
            text = about[1] if isinstance(about[1], str) else ""
            return self._names_in_order(arguments), text
        raise self._nonsense("a documentation of methods that is none")

    def _names_in_order(self, value: object) -> tuple[str, ...]:
        if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
            return tuple(printable(name) for name in value)
        raise self._nonsense("a documentation of methods that is none")

    async def _decoded(self, line: bytes) -> object:
        if len(line) <= INLINE_BYTES_MAX:
            return self._decode(line)
        return await asyncio.to_thread(self._decode, line)

    async def _line(self) -> bytes:
        """The next line.  Raises ControllerGone or ControllerNonsense."""
        try:
            line = await self._reader.readline()
        except ValueError:
            raise self._nonsense(f"a line longer than {LINE_BYTES_MAX} bytes") from None
        if not line.endswith(b"\n"):
            raise self._gone("ended the connection")
        return line

    def _gone(self, what: str) -> ControllerGone:
        return ControllerGone(f"the connection to the controller at {self.where} {what}")

    def _nonsense(self, what: str) -> ControllerNonsense:
        return ControllerNonsense(f"the controller at {self.where} sent {what}")


async def _connected(
    host: str, port: int, tls: ssl.SSLContext | None
) -> tuple[_Lines, asyncio.StreamWriter]:
    """As `asyncio.open_connection`, with a reader that counts."""
    loop = asyncio.get_running_loop()
    reader = _Lines()
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, ssl=tls)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _plain(name: str) -> bool:
    """Whether a name can stand in a line of the protocol."""
    return 0 < len(name) <= 256 and name.isascii() and name.isprintable() and " " not in name


def _raised_at(traceback: object) -> str:
    """File, line and function of a traceback's last frame, without the line's text."""
    if isinstance(traceback, (list, tuple)) and traceback and isinstance(traceback[-1], str):
        frame = traceback[-1].strip().partition("\n")[0]
        return f" ({printable(frame, REASON_CHARACTERS_MAX)})"
    return ""
