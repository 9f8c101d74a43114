"""Hostile hands in the wires: relays with the certificates of both ends, and callers of any kind.

`Relay` stands between two ends with mutual TLS and passes on, changes, repeats, invents or drops
what they say: as much as somebody could who had stolen both private keys.  `Caller` is anybody who
dials.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from bellhop.node.peers import METHOD as CONVERSE
from bellhop.node.tls import (
    Credentials,
    channel_options,
    grpc_channel_credentials,
    grpc_server_credentials,
)
from bellhop.v1 import peer_pb2, types_pb2

T = TypeVar("T")

OPERATE = "/bellhop.v1.MemoryService/Operate"
PATIENCE_S = 30.0
_BIG = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_SERVED = [
    *_BIG,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
]

Said = peer_pb2.Envelope | bytes
"""What a relay passes on: an envelope gets its place in the stream, bytes go as they are."""

Meddle = Callable[[str, peer_pb2.Envelope], Iterable[Said]]


class Loop:
    """An event loop in a thread of its own: what is under test runs in other processes."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()


@dataclass(frozen=True, slots=True)
class Ends:
    """Whom a relay is to its caller and to the one it calls, and where that one is."""

    method: str
    callee: Credentials  # shown to the caller
    caller: Credentials  # shown to the callee
    address: str
    server_name: str


class Relay:
    """Passes bytes both ways.  `distort(up, data)` says what becomes of each message.

    `up`: from the caller to the called end.
    """

    def __init__(self, loop: Loop, ends: Ends) -> None:
        self.loop = loop
        self.ends = ends
        self._live: dict[bool, asyncio.Queue[Any]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._server: grpc.aio.Server | None = None
        self.distort: Callable[[bool, bytes], Iterable[Any]] = faithful
        self.cut = False
        self.streams = 0

    def place(self, up: bool, said: Any) -> bytes:
        """The bytes of what is passed on, at the moment they leave."""
        assert isinstance(said, bytes)
        return said

    def begun(self) -> None:
        """A new stream."""

    def start(self, listen: str = "127.0.0.1:0") -> int:
        """Returns the port."""
        return self.loop.run(self._start(listen))

    def stop(self) -> None:
        assert self._server is not None
        self.drop()
        self.loop.run(self._server.stop(None))

    def drop(self) -> None:
        """End the live stream; a new one may come unless `cut` is set."""

        async def cancel() -> None:
            for call in self._calls:
                call.cancel()

        self.loop.run(cancel())

    def inject(self, up: bool, *said: Any) -> None:
        """Say something of one's own; from any thread."""

        def put() -> None:
            for one in said:
                self._live[up].put_nowait(one)

        self.loop.loop.call_soon_threadsafe(put)

    async def _start(self, listen: str) -> int:
        service, name = self.ends.method.strip("/").split("/")
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            self._called
        )
        self._server = grpc.aio.server(options=_SERVED)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {name: handler}),)
        )
        credentials = grpc_server_credentials(self.ends.callee)
        port = self._server.add_secure_port(listen, credentials)
        await self._server.start()
        return port

    async def _called(self, _requests: object, context: Any) -> None:
        if self.cut:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        task = asyncio.ensure_future(self._carry(context))
        self._calls.add(task)
        await asyncio.wait([task])
        self._calls.discard(task)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream is over")

    async def _carry(self, context: Any) -> None:
        ends = self.ends
        options = [*channel_options(ends.server_name), *_BIG]
        credentials = grpc_channel_credentials(ends.caller)
        async with grpc.aio.secure_channel(ends.address, credentials, options=options) as channel:
            call: Any = channel.stream_stream(ends.method)()
            queues: dict[bool, asyncio.Queue[Any]] = {True: asyncio.Queue(), False: asyncio.Queue()}
            self._live = queues
            self.streams += 1
            self.begun()
            jobs = [
                self._listen(True, context.read, queues[True]),
                self._listen(False, call.read, queues[False]),
                self._speak(True, call.write, queues[True]),
                self._speak(False, context.write, queues[False]),
            ]
            tasks = [asyncio.ensure_future(job) for job in jobs]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                call.cancel()

    async def _listen(
        self, up: bool, read: Callable[[], Awaitable[object]], out: "asyncio.Queue[Any]"
    ) -> None:
        while isinstance(data := await read(), bytes):
            for said in self.distort(up, data):
                out.put_nowait(said)

    async def _speak(
        self, up: bool, write: Callable[[bytes], Awaitable[None]], out: "asyncio.Queue[Any]"
    ) -> None:
        while True:
            await write(self.place(up, await out.get()))


def faithful(_up: bool, data: bytes) -> list[bytes]:
    """Pass everything on as it is."""
    return [data]


class PeerRelay(Relay):
    """Between alice, who dials, and bob.  `meddle(sender, envelope)` says what is passed on."""

    def __init__(self, loop: Loop, ends: Ends) -> None:
        super().__init__(loop, ends)
        self.meddle: Meddle = honest
        self.distort = self._to_envelope
        self._sequence = {True: 0, False: 0}

    def begun(self) -> None:
        self._sequence = {True: 0, False: 0}

    def _to_envelope(self, _up: bool, data: bytes) -> Iterable[Said]:
        envelope = peer_pb2.Envelope.FromString(data)
        return list(self.meddle(envelope.sender, envelope))

    def place(self, up: bool, said: Any) -> bytes:
        if isinstance(said, bytes):
            return said
        assert isinstance(said, peer_pb2.Envelope)
        self._sequence[up] += 1
        said.sequence = self._sequence[up]
        return said.SerializeToString()


def honest(_sender: str, envelope: peer_pb2.Envelope) -> list[Said]:
    """Pass everything on as it is."""
    return [envelope]


class Caller:
    """Somebody who dials a node and says what he likes; in the test's own thread."""

    def __init__(self, channel: grpc.Channel, method: str) -> None:
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call: Any = channel.stream_stream(method)
        self._call = call(iter(self._out.get, None), timeout=PATIENCE_S)

    def say(self, *messages: bytes) -> None:
        for message in messages:
            self._out.put(message)

    def hear(self) -> bytes:
        heard = next(self._call)
        assert isinstance(heard, bytes)
        return heard

    def end(self) -> tuple[str, str]:
        """How the called end ends the call, whatever it says before."""
        try:
            for _ in self._call:
                pass
        except grpc.RpcError:
            pass
        return self._call.code().name, self._call.details()

    def hang_up(self) -> None:
        self._out.put(None)
        self._call.cancel()


@contextmanager
def calling(
    address: str, credentials: grpc.ChannelCredentials, server_name: str, method: str = CONVERSE
) -> Iterator[Caller]:
    """Dial `address`."""
    options = [*channel_options(server_name), *_BIG, ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options=options) as channel:
        caller = Caller(channel, method)
        try:
            yield caller
        finally:
            caller.hang_up()


def envelope(sender: str, recipient: str, sequence: int, **message: Any) -> peer_pb2.Envelope:
    """An envelope of the real clock, now; `message`: one member of the oneof."""
    head = types_pb2.Time(nanoseconds=time.time_ns(), clock=types_pb2.CLOCK_REAL)
    return peer_pb2.Envelope(
        version=1, sequence=sequence, sender=sender, recipient=recipient, time=head, **message
    )


class Once:
    """Changes the first message that `fits`, and lets everything else pass."""

    def __init__(
        self,
        fits: Callable[[peer_pb2.Envelope], bool],
        change: Callable[[peer_pb2.Envelope], Iterable[Said]],
    ) -> None:
        self._fits = fits
        self._change = change
        self.done = False

    def __call__(self, _sender: str, said: peer_pb2.Envelope) -> Iterable[Said]:
        if self.done or not self._fits(said):
            return [said]
        self.done = True
        return self._change(said)


def is_a(member: str) -> Callable[[peer_pb2.Envelope], bool]:
    """Whether an envelope's message is this member of the oneof."""
    return lambda said: said.WhichOneof("message") == member


def is_stage(stage: str) -> Callable[[peer_pb2.Envelope], bool]:
    """Whether an envelope's message is the tagged one of a stage."""
    number = peer_pb2.Stage.Value(f"STAGE_{stage}")
    return lambda said: is_a("tagged")(said) and said.tagged.stage == number
