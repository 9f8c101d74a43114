"""One stream of envelopes with one authenticated peer, whichever end called.

Rules.  The first envelope each way is a greeting.  Sequence numbers rise by one from 1: a repeat
or a gap ends the stream, for within one stream it can only be a replay or a fault.  Sender and
recipient are the names in the two certificates.  What waits to be sent is bounded; when it is full
the stream ends, and the cores say again what was lost.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from bellhop.hal.errors import PeerError
from bellhop.hal.operations import NodeName
from bellhop.node.clock import RealClock
from bellhop.node.envelope import ENVELOPE_BYTES_MAX, Envelope, Greeting, Heartbeat, Word
from bellhop.node.wire import decode, encode
from bellhop.node.witness import Witness
from bellhop.stack.messages import Message

SOFTWARE = "bellhop/0.1"

OUTGOING_ENVELOPES_MAX = 1024
OUTGOING_BYTES_MAX = 64 * 1024 * 1024
"""What waits for a slow peer; beyond either the stream ends."""

GREETING_S = 10.0
"""A stream that has not greeted by then is ended."""

BEAT_S = 2.0
SILENCE_S = 8.0
"""Each end says something every so often; one that is silent for longer is lost."""

CLOCK_OFFSET_MAX_NS = 5 * 10**9
"""Clocks further apart than this are reported: deadlines are in synchronised time."""


class Reason(StrEnum):
    """Why something of a peer is refused: the words that become labels."""

    STRANGER = "stranger"
    WRONG_CALLER = "wrong_caller"
    WRONG_NAME = "wrong_name"
    SEQUENCE = "sequence"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    CLOCK = "clock"
    GREETING = "greeting"
    UNKNOWN_MESSAGE = "unknown_message"


class Refused(PeerError):
    """The peer broke a rule of the stream; `reason` is the rule."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail, reason=str(reason))
        self.reason = reason


class Wire(Protocol):
    """A gRPC call, seen from either end.  `read` gives None at the end of the stream."""

    async def read(self) -> bytes | None: ...

    async def write(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What every conversation of a node shares."""

    own: NodeName
    clock: RealClock
    witness: Witness
    said: Callable[[NodeName, Message], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Conversation:
    """The live stream with `peer`.  `ended` is set when it is over, `why` says why."""

    context: Context
    peer: NodeName
    why: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _dropped: asyncio.Event = field(default_factory=asyncio.Event)
    _outgoing: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    _outgoing_bytes: int = 0
    _sent: int = 0
    _heard: int = 0
    _heard_s: float = 0.0

    def tell(self, message: Word) -> None:
        """Queue `message`; if there is no room the stream ends."""
        if self._dropped.is_set():
            return
        self._sent += 1
        data = encode(
            Envelope(self._sent, self.context.own, self.peer, self.context.clock.read(), message)
        )
        full = self._outgoing.qsize() >= OUTGOING_ENVELOPES_MAX
        if full or self._outgoing_bytes + len(data) > OUTGOING_BYTES_MAX:
            self.drop("too much waits to be sent")
            return
        self._outgoing_bytes += len(data)
        self._outgoing.put_nowait(data)

    def drop(self, why: str) -> None:
        """End the stream as soon as its tasks run."""
        self.why = self.why or why
        self._dropped.set()

    async def greet(self, wire: Wire) -> None:
        """Exchange greetings.  Raises Refused if the peer's first word is anything else."""
        self.tell(Greeting(SOFTWARE))
        await wire.write(self._next_out())
        try:
            async with asyncio.timeout(GREETING_S):
                data = await wire.read()
        except TimeoutError as error:
            raise Refused(Reason.GREETING, "no greeting in time") from error
        if data is None:
            raise ConnectionError("the stream ended before a greeting")
        envelope = self._taken(data)
        if not isinstance(envelope.message, Greeting):
            raise Refused(Reason.GREETING, "the first envelope is no greeting")
        self._compare_clocks(envelope)

    async def run(self, wire: Wire) -> None:
        """Carry messages both ways until either end stops or `drop`.

        Raises Refused for what the peer did; a broken connection ends it quietly.
        """
        tasks = [
            asyncio.ensure_future(job)
            for job in (
                self._read(wire),
                self._write(wire),
                self._beat(),
                self._dropped.wait(),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._dropped.set()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for task, result in zip(tasks, results, strict=True):
            if task in done and isinstance(result, Exception):
                raise result

    def _next_out(self) -> bytes:
        data = self._outgoing.get_nowait()
        self._outgoing_bytes -= len(data)
        return data

    async def _write(self, wire: Wire) -> None:
        while True:
            data = await self._outgoing.get()
            self._outgoing_bytes -= len(data)
            await wire.write(data)

    async def _beat(self) -> None:
        """Say that we are there, and listen whether the peer is.

        gRPC's pings alone did not tell of a frozen process within many times their time-out.
        """
        loop = asyncio.get_running_loop()
        while loop.time() - self._heard_s < SILENCE_S:
            self.tell(Heartbeat())
            await asyncio.sleep(BEAT_S)
        self.drop("the peer is silent")

    async def _read(self, wire: Wire) -> None:
        while (data := await wire.read()) is not None:
            message = self._taken(data).message
            if message is None:
                self.context.witness.refused(
                    self.peer,
                    Reason.UNKNOWN_MESSAGE,
                    "a message this version does not know is ignored",
                    who="whoever runs the older software",
                )
            elif isinstance(message, Heartbeat):
                continue
            elif isinstance(message, Greeting):
                raise Refused(Reason.GREETING, "a second greeting")
            else:
                await self.context.said(self.peer, message)
        self.why = self.why or "the peer closed the stream"

    def _taken(self, data: bytes) -> Envelope:
        """The envelope in `data`, if it is the next one of this peer to this node."""
        if len(data) > ENVELOPE_BYTES_MAX:
            raise Refused(Reason.OVERSIZED, f"an envelope of {len(data)} bytes")
        try:
            envelope = decode(data)
        except PeerError as error:
            shown = ", ".join(f"{name} {value}" for name, value in error.fields.items())
            raise Refused(
                Reason.MALFORMED, f"{error.message} ({shown})" if shown else error.message
            ) from error
        if envelope.sequence != self._heard + 1:
            detail = f"sequence number {envelope.sequence} after {self._heard}"
            raise Refused(Reason.SEQUENCE, detail)
        if (envelope.sender, envelope.recipient) != (self.peer, self.context.own):
            detail = f"an envelope from {envelope.sender!r} to {envelope.recipient!r}"
            raise Refused(Reason.WRONG_NAME, detail)
        if envelope.time.clock is not self.context.clock.kind:
            raise Refused(Reason.CLOCK, f"the peer's clock is {envelope.time.clock.value}")
        self._heard += 1
        self._heard_s = asyncio.get_running_loop().time()
        return envelope

    def _compare_clocks(self, envelope: Envelope) -> None:
        offset_ns = envelope.time.nanoseconds - self.context.clock.now_ns()
        if abs(offset_ns) > CLOCK_OFFSET_MAX_NS:
            self.context.witness.note(
                "clock_offset",
                {
                    "peer": self.peer,
                    "offset_ns": offset_ns,
                    "who_must_act": "the operators of both nodes: synchronise the clocks",
                },
                logging.WARNING,
            )
