"""The other nodes: mutual TLS, one live stream a peer, dialled by the node whose name sorts first.

A caller is who its certificate says (URI bellhop:node:NAME); a called node must own the DNS name
NAME.node.bellhop in a certificate of our authority.  A newer authenticated stream replaces the
older one, whose end may not have been noticed yet.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeAlias

import grpc

from bellhop.hal.errors import ConfigError, PeerError
from bellhop.hal.identity import peer_identity
from bellhop.hal.operations import NodeName
from bellhop.node.clock import RealClock
from bellhop.node.config_values import Address
from bellhop.node.conversation import Context, Conversation, Reason, Refused, Wire
from bellhop.node.envelope import ENVELOPE_BYTES_MAX
from bellhop.node.observe import Fields
from bellhop.node.tasks import Tasks
from bellhop.node.tls import (
    Credentials,
    Party,
    PartyKind,
    channel_options,
    grpc_channel_credentials,
    grpc_server_credentials,
)
from bellhop.node.witness import Witness
from bellhop.stack.core import Event, PeerJoined, PeerLost, PeerSaid
from bellhop.stack.messages import Message

METHOD = "/bellhop.v1.PeerService/Converse"
_Method: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"

REDIAL_FIRST_S = 0.1
REDIAL_MAX_S = 5.0
REDIAL_GROWTH = 1.7
REDIAL_JITTER = 0.2

STOP_S = 1.0
RPCS_A_PEER_MAX = 4

# Of the connection; whether anybody is behind it, the heartbeats of a conversation tell.
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 3_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
]
# What the C core says of a called end whose certificate is not that of the peer.
_NOT_THE_PEER = ("Hostname Verification", "CERTIFICATE_VERIFY_FAILED", "No match found for server")
# One byte more than our own bound, so that what just breaks it is refused with a reason.
_LIMITS = [
    ("grpc.max_receive_message_length", ENVELOPE_BYTES_MAX + 1),
    ("grpc.max_send_message_length", ENVELOPE_BYTES_MAX),
]


class Peers:
    """Every peer of one node.  `deliver` takes the events, in order."""

    def __init__(
        self,
        own: NodeName,
        addresses: Mapping[NodeName, Address],
        credentials: Credentials,
        clock: RealClock,
        witness: Witness,
        deliver: Callable[[Event], Awaitable[None]],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._own = own
        self._addresses = dict(addresses)
        self._credentials = credentials
        self._witness = witness
        self._deliver = deliver
        self._context = Context(own, clock, witness, self._said)
        self._live: dict[NodeName, Conversation] = {}
        self._tasks = Tasks(on_crash)
        self._server: grpc.aio.Server | None = None
        self._failures: dict[NodeName, tuple[int, str]] = {}
        self._closing = False

    async def start(self, listen: Address) -> Address:
        """Listen and dial; returns where it listens.  ConfigError if the address is not free."""
        server = grpc.aio.server(
            options=[*_KEEPALIVE, *_LIMITS, ("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=RPCS_A_PEER_MAX * max(1, len(self._addresses)),
        )
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            self._called
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("bellhop.v1.PeerService", {"Converse": handler}),)
        )
        try:
            port = server.add_secure_port(listen, grpc_server_credentials(self._credentials))
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {listen}", field="peers.listen") from error
        await server.start()
        self._server = server
        for peer, address in self._addresses.items():
            if self._own < peer:
                self._tasks.spawn(self._dial(peer, address))
        return Address(f"{listen.rpartition(':')[0]}:{port}")

    def tell(self, peer: NodeName, message: Message) -> None:
        """Queue `message` for `peer`; without a live stream it is lost, and the cores know that."""
        conversation = self._live.get(peer)
        if conversation is not None:
            conversation.tell(message)

    def status(self) -> dict[str, dict[str, str | int | bool]]:
        """Of each peer: is its stream up, and if we dial, how often in vain and why."""
        return {
            peer: {
                "connected": peer in self._live,
                "address": self._addresses[peer],
                "dials_failed": self._failures.get(peer, (0, ""))[0],
                "why": self._failures.get(peer, (0, ""))[1],
            }
            for peer in sorted(self._addresses)
        }

    async def close(self) -> None:
        """End every stream and stop listening."""
        self._closing = True
        for conversation in self._live.values():
            conversation.drop("this node stops")
        await self._tasks.close()
        if self._server is not None:
            await self._server.stop(STOP_S)

    async def _said(self, peer: NodeName, message: Message) -> None:
        await self._deliver(PeerSaid(peer, message))

    # --- called ---------------------------------------------------------------------------------

    async def _called(
        self, _requests: object, context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> None:
        try:
            peer = self._caller(context.auth_context())
        except Refused as error:
            self._witness.refused(str(error.fields["peer"]), error.reason, error.message)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.message)
        # In a task of its own, because gRPC cancels this one when the peer goes, and what follows a
        # stream's end must still be done.
        conversation = Conversation(self._context, peer)
        outcome: list[Refused] = []
        task = self._tasks.spawn(self._converse(conversation, _CalledWire(context), outcome))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            conversation.drop("the connection ended")
            raise
        if outcome:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, outcome[0].message)

    def _caller(self, auth_context: Mapping[str, object]) -> NodeName:
        """Who calls.  Refused unless it is a configured node that is to call us."""
        try:
            identity = peer_identity(auth_context)  # type: ignore[arg-type] # stubs differ
        except PeerError as error:
            raise _refused_caller(Reason.STRANGER, "", error.message) from error
        name = NodeName(identity.name)
        if identity.kind != "node" or name not in self._addresses:
            raise _refused_caller(
                Reason.STRANGER, name, f"{identity.kind} {identity.name!r} is no peer of this node"
            )
        if self._own < name:
            raise _refused_caller(
                Reason.WRONG_CALLER, name, "of two nodes the one whose name sorts first calls"
            )
        return name

    # --- dialling -------------------------------------------------------------------------------

    async def _dial(self, peer: NodeName, address: Address) -> None:
        """Keep a stream to `peer`, with longer and longer pauses while there is none."""
        pause_s, failures = REDIAL_FIRST_S, 0
        while not self._closing:
            conversation = Conversation(self._context, peer)
            why = await self._dialled(conversation, address)
            if conversation.ended.is_set():  # it was up
                pause_s, failures = REDIAL_FIRST_S, 0
            else:
                failures += 1
                self._failures[peer] = (failures, why)
                if failures & (failures - 1) == 0:  # the 1st, 2nd, 4th ...: the log stays short
                    who = _who_must_act(why)
                    fields: Fields = {
                        "peer": peer,
                        "tried": failures,
                        "why": why,
                        "who_must_act": who,
                    }
                    self._witness.note("peer_unreachable", fields, logging.WARNING)
            await asyncio.sleep(pause_s * random.uniform(1 - REDIAL_JITTER, 1 + REDIAL_JITTER))  # noqa: S311 - no secret
            pause_s = min(pause_s * REDIAL_GROWTH, REDIAL_MAX_S)

    async def _dialled(self, conversation: Conversation, address: Address) -> str:
        """One attempt, until its stream ends; returns why it did."""
        server_name = Party(PartyKind.NODE, conversation.peer).dns_name
        assert server_name is not None, "a node's name is a DNS label; the configuration checks it"
        options = [
            *channel_options(server_name),
            *_KEEPALIVE,
            *_LIMITS,
            # Without a pool of its own a channel inherits the back-off of the one before.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        credentials = grpc_channel_credentials(self._credentials)
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            converse: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                METHOD
            )
            call = converse()
            try:
                await self._converse(conversation, _DialledWire(call), [])
            finally:
                call.cancel()
        return conversation.why

    # --- both -----------------------------------------------------------------------------------

    async def _converse(
        self, conversation: Conversation, wire: Wire, outcome: list[Refused]
    ) -> None:
        """One stream from its greeting to its end.  What is refused is put into `outcome`."""
        try:
            await conversation.greet(wire)
            async with self._joined(conversation):
                await conversation.run(wire)
        except Refused as error:
            conversation.drop(error.message)
            outcome.append(error)
            self._witness.refused(conversation.peer, error.reason, error.message)
        except (grpc.RpcError, grpc.aio.BaseError, ConnectionError) as error:
            conversation.drop(_described(error))

    @contextlib.asynccontextmanager
    async def _joined(self, conversation: Conversation) -> AsyncIterator[None]:
        """`conversation` is the live one of its peer; events tell of both ends of that time."""
        peer = conversation.peer
        while (older := self._live.get(peer)) is not None:
            older.drop("replaced by a newer stream")
            await older.ended.wait()
        self._live[peer] = conversation
        self._failures.pop(peer, None)
        self._witness.connected(peer, True)
        try:
            await self._deliver(PeerJoined(peer))
            yield
        except Exception as error:
            conversation.drop(_described(error))
            raise
        finally:
            del self._live[peer]
            self._witness.connected(peer, False, conversation.why)
            try:
                if not self._closing:
                    await self._deliver(PeerLost(peer))
            finally:
                conversation.ended.set()


class _DialledWire:
    def __init__(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call

    async def read(self) -> bytes | None:
        data = await self._call.read()
        return data if isinstance(data, bytes) else None

    async def write(self, data: bytes) -> None:
        try:
            await self._call.write(data)
        except asyncio.InvalidStateError as error:  # the call has ended meanwhile
            raise ConnectionError("the stream has ended") from error


class _CalledWire:
    def __init__(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        self._context = context

    async def read(self) -> bytes | None:
        data: object = await self._context.read()
        return data if isinstance(data, bytes) else None

    async def write(self, data: bytes) -> None:
        await self._context.write(data)


def _refused_caller(reason: Reason, peer: str, detail: str) -> Refused:
    error = Refused(reason, detail)
    error.fields["peer"] = peer
    return error


def _who_must_act(why: str) -> str:
    """Who can help where nobody answers, or somebody else does: the words are the C core's."""
    if any(mark in why for mark in _NOT_THE_PEER):
        return "the operator of the peer"
    return "the operator of this node if the address is wrong, else that of the peer"


def _described(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
