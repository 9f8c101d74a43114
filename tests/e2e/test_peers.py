"""Two nodes' peer streams over loopback with mutual TLS, and what strangers and liars get."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import grpc
import pytest
from tests.support.identities import Authority
from tests.support.waiting import until

from bellhop.hal.operations import NodeName
from bellhop.node.clock import Clock, ClockReading, RealClock
from bellhop.node.config_values import Address
from bellhop.node.conversation import OUTGOING_ENVELOPES_MAX, Reason
from bellhop.node.envelope import ENVELOPE_BYTES_MAX, Envelope, Greeting
from bellhop.node.metrics import Metrics
from bellhop.node.peers import METHOD, Peers
from bellhop.node.tls import (
    PartyKind,
    channel_options,
    grpc_channel_credentials,
    grpc_server_credentials,
)
from bellhop.node.wire import encode
from bellhop.node.witness import Witness
from bellhop.stack.core import Event, PeerJoined, PeerLost, PeerSaid
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import STAGE_BODY_BYTES_MAX, Message, SlotDone, Stage, Tagged

ALICE, BOB, CAROL = NodeName("alice"), NodeName("bob"), NodeName("carol")
SESSION = SessionId("0f" * 16)
PATIENCE_S = 20.0
ANYWHERE = Address("127.0.0.1:0")
NOWHERE = Address("127.0.0.1:1")


@dataclass(frozen=True)
class End:
    """One node's peers, the events they give, and where they listen."""

    peers: Peers
    metrics: Metrics
    events: asyncio.Queue[Event]
    address: Address

    async def next(self) -> Event:
        return await asyncio.wait_for(self.events.get(), PATIENCE_S)

    def refusals(self, peer: str, reason: Reason) -> float:
        labels = {"peer": peer, "reason": str(reason)}
        return self.metrics.registry.get_sample_value("bellhop_refusals_total", labels) or 0.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("foreign"))


@contextlib.asynccontextmanager
async def node(
    authority: Authority,
    own: NodeName,
    peers: dict[NodeName, Address],
    listen: Address = ANYWHERE,
) -> AsyncIterator[End]:
    metrics = Metrics(peers, [], Reason, [])
    events: asyncio.Queue[Event] = asyncio.Queue()
    credentials = authority.credentials(PartyKind.NODE, own)
    crashes: list[BaseException] = []
    witness = Witness(metrics)
    shell = Peers(own, peers, credentials, RealClock(), witness, events.put, crashes.append)
    address = await shell.start(listen)
    try:
        yield End(shell, metrics, events, address)
    finally:
        await shell.close()
        assert not crashes


def said(message: Message | Greeting, sequence: int, sender: str = ALICE) -> Envelope:
    time = ClockReading(RealClock().now_ns(), Clock.REAL)
    return Envelope(sequence, NodeName(sender), BOB, time, message)


GREETING = said(Greeting("test/1"), 1)


@contextlib.asynccontextmanager
async def call_bob(
    authority: Authority, bob: End, kind: PartyKind = PartyKind.NODE, name: str = ALICE
) -> AsyncIterator["grpc.aio.StreamStreamCall[bytes, bytes]"]:
    """A caller who may say anything, with the certificate of `name`."""
    credentials = grpc_channel_credentials(authority.credentials(kind, name))
    options = [*channel_options("bob.node.bellhop"), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.secure_channel(bob.address, credentials, options=options) as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
        call = method()
        yield call
        call.cancel()


async def ends_with(call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> tuple[str, str]:
    """The status with which Bob ends the call, whatever he says before."""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        return (await call.code()).name, str(await call.details())


async def test_two_nodes_join_and_talk_both_ways(authority: Authority) -> None:
    async with (
        node(authority, BOB, {ALICE: NOWHERE}) as bob,
        node(authority, ALICE, {BOB: bob.address}) as alice,
    ):
        assert await alice.next() == PeerJoined(BOB)
        assert await bob.next() == PeerJoined(ALICE)
        for slot in range(100):
            alice.peers.tell(BOB, SlotDone(SESSION, slot))
            bob.peers.tell(ALICE, SlotDone(SESSION, slot))
        for slot in range(100):
            assert await bob.next() == PeerSaid(ALICE, SlotDone(SESSION, slot))
            assert await alice.next() == PeerSaid(BOB, SlotDone(SESSION, slot))
        assert alice.peers.status()[BOB]["connected"]
        assert bob.peers.status()[ALICE]["connected"]


async def test_the_largest_message_passes(authority: Authority) -> None:
    largest = Tagged(SESSION, Stage.AMPLIFICATION, bytes(STAGE_BODY_BYTES_MAX), "b", 1, b"tag")
    async with (
        node(authority, BOB, {ALICE: NOWHERE}) as bob,
        node(authority, ALICE, {BOB: bob.address}) as alice,
    ):
        assert await alice.next() == PeerJoined(BOB)
        alice.peers.tell(BOB, largest)
        assert await bob.next() == PeerJoined(ALICE)
        assert await bob.next() == PeerSaid(ALICE, largest)


async def test_a_peer_that_stops_is_lost_and_found_again(authority: Authority) -> None:
    async with contextlib.AsyncExitStack() as lasting:
        async with node(authority, BOB, {ALICE: NOWHERE}) as bob:
            alice = await lasting.enter_async_context(node(authority, ALICE, {BOB: bob.address}))
            assert await alice.next() == PeerJoined(BOB)
        assert await alice.next() == PeerLost(BOB)
        alice.peers.tell(BOB, SlotDone(SESSION, 1))  # lost, and no error
        async with node(authority, BOB, {ALICE: NOWHERE}, bob.address):
            assert await alice.next() == PeerJoined(BOB)


async def test_a_newer_stream_replaces_the_older(authority: Authority) -> None:
    async with node(authority, BOB, {ALICE: NOWHERE}) as bob, call_bob(authority, bob) as older:
        await older.write(encode(GREETING))
        assert await bob.next() == PeerJoined(ALICE)
        async with call_bob(authority, bob) as newer:
            await newer.write(encode(GREETING))
            assert await bob.next() == PeerLost(ALICE)
            assert await bob.next() == PeerJoined(ALICE)
            await ends_with(older)
            await newer.write(encode(said(SlotDone(SESSION, 4), 2)))
            assert await bob.next() == PeerSaid(ALICE, SlotDone(SESSION, 4))


async def still_serves(authority: Authority, bob: End) -> None:
    """After whatever was refused, the true Alice is served."""
    while not bob.events.empty():
        assert isinstance(bob.events.get_nowait(), PeerJoined | PeerLost)
    async with node(authority, ALICE, {BOB: bob.address}) as alice:
        assert await alice.next() == PeerJoined(BOB)
        alice.peers.tell(BOB, SlotDone(SESSION, 9))
        while isinstance(event := await bob.next(), PeerJoined | PeerLost):
            pass
        assert event == PeerSaid(ALICE, SlotDone(SESSION, 9))


@pytest.mark.parametrize(
    ("kind", "name", "label", "reason"),
    [
        (PartyKind.NODE, "mallory", "other", Reason.STRANGER),
        (PartyKind.SAE, "alice", "alice", Reason.STRANGER),
        (PartyKind.KME, "alice", "alice", Reason.STRANGER),
        (PartyKind.NODE, "carol", "carol", Reason.WRONG_CALLER),
        (PartyKind.NODE, "bob", "other", Reason.STRANGER),
    ],
)
async def test_a_caller_who_is_not_expected_is_refused(
    authority: Authority, kind: PartyKind, name: str, label: str, reason: Reason
) -> None:
    async with node(authority, BOB, {ALICE: NOWHERE, CAROL: NOWHERE}) as bob:
        async with call_bob(authority, bob, kind, name) as call:
            status, _ = await ends_with(call)
        assert status == "PERMISSION_DENIED"
        assert bob.refusals(label, reason) == 1
        assert bob.events.empty()
        await still_serves(authority, bob)


async def test_a_certificate_of_another_authority_is_refused(
    authority: Authority, foreign: Authority
) -> None:
    async with node(authority, BOB, {ALICE: NOWHERE}) as bob:
        stolen_root = replace(
            foreign.credentials(PartyKind.NODE, ALICE),
            authority=authority.credentials(PartyKind.NODE, ALICE).authority,
        )
        options = channel_options("bob.node.bellhop")
        async with grpc.aio.secure_channel(
            bob.address, grpc_channel_credentials(stolen_root), options=options
        ) as channel:
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
            status, _ = await ends_with(method())
        assert status == "UNAVAILABLE"
        assert bob.events.empty()
        await still_serves(authority, bob)


OVERSIZED = encode(said(SlotDone(SESSION, 1), 2)) + b"\xf2\x7f" + bytes(ENVELOPE_BYTES_MAX)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([encode(said(SlotDone(SESSION, 1), 1))], Reason.GREETING),
        ([encode(GREETING), encode(said(Greeting("again"), 2))], Reason.GREETING),
        ([encode(GREETING), encode(GREETING)], Reason.SEQUENCE),
        ([encode(GREETING), encode(said(SlotDone(SESSION, 1), 3))], Reason.SEQUENCE),
        ([encode(said(Greeting("late"), 2))], Reason.SEQUENCE),
        ([encode(GREETING), encode(said(SlotDone(SESSION, 1), 2, CAROL))], Reason.WRONG_NAME),
        ([encode(replace(GREETING, recipient=CAROL))], Reason.WRONG_NAME),
        ([encode(replace(GREETING, time=ClockReading(1, Clock.VIRTUAL)))], Reason.CLOCK),
        ([encode(GREETING), b"\xff\xff\xff"], Reason.MALFORMED),
        ([encode(GREETING), b""], Reason.MALFORMED),
        ([encode(GREETING), OVERSIZED[: ENVELOPE_BYTES_MAX + 1]], Reason.OVERSIZED),
    ],
)
async def test_nonsense_of_an_authentic_peer_ends_its_stream(
    authority: Authority, words: list[bytes], reason: Reason
) -> None:
    async with node(authority, BOB, {ALICE: NOWHERE}) as bob:
        async with call_bob(authority, bob) as call:
            for word in words:
                await call.write(word)
            status, _ = await ends_with(call)
        assert status == "INVALID_ARGUMENT"
        assert bob.refusals(ALICE, reason) == 1
        await still_serves(authority, bob)


async def test_what_grpc_itself_finds_too_long_ends_the_stream(authority: Authority) -> None:
    async with node(authority, BOB, {ALICE: NOWHERE}) as bob:
        async with call_bob(authority, bob) as call:
            await call.write(encode(GREETING))
            await call.write(bytes(2 * ENVELOPE_BYTES_MAX))
            status, _ = await ends_with(call)
        assert status == "RESOURCE_EXHAUSTED"
        await still_serves(authority, bob)


async def test_an_unknown_message_is_counted_and_survived(authority: Authority) -> None:
    unknown = replace(said(SlotDone(SESSION, 1), 2))
    data = encode(unknown)
    known = len(encode(replace(unknown, message=SlotDone(SESSION, 1))))
    assert known == len(data)
    head = data[: data.index(SESSION.encode()) - 5]
    async with node(authority, BOB, {ALICE: NOWHERE}) as bob, call_bob(authority, bob) as call:
        await call.write(encode(GREETING))
        await call.write(head + b"\xf2\x7f\x03new")
        await call.write(encode(said(SlotDone(SESSION, 2), 3)))
        assert await bob.next() == PeerJoined(ALICE)
        assert await bob.next() == PeerSaid(ALICE, SlotDone(SESSION, 2))
        assert bob.refusals(ALICE, Reason.UNKNOWN_MESSAGE) == 1


async def test_a_peer_that_does_not_read_is_dropped(authority: Authority) -> None:
    async with node(authority, BOB, {ALICE: NOWHERE}) as bob, call_bob(authority, bob) as call:
        await call.write(encode(GREETING))
        assert await bob.next() == PeerJoined(ALICE)
        for _ in range(OUTGOING_ENVELOPES_MAX + 1):
            bob.peers.tell(ALICE, SlotDone(SESSION, 1))
        assert await bob.next() == PeerLost(ALICE)


@contextlib.asynccontextmanager
async def false_bob(
    authority: Authority,
    name: str,
    answer: Callable[["grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[None]],
) -> AsyncIterator[Address]:
    """Somebody at Bob's address, with the certificate of `name`."""

    async def converse(
        _requests: object, context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> None:
        await answer(context)

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(converse)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bellhop.v1.PeerService", {"Converse": handler}),)
    )
    credentials = grpc_server_credentials(authority.credentials(PartyKind.NODE, name))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield Address(f"127.0.0.1:{port}")
    finally:
        await server.stop(None)


async def test_a_called_node_that_lies_about_its_name_is_refused(authority: Authority) -> None:
    ended = asyncio.Event()

    async def answer(context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        await context.read()
        await context.write(encode(replace(GREETING, sender=CAROL, recipient=ALICE)))
        with contextlib.suppress(asyncio.CancelledError):
            await context.read()
        ended.set()

    async with (
        false_bob(authority, BOB, answer) as address,
        node(authority, ALICE, {BOB: address}) as alice,
    ):
        await asyncio.wait_for(ended.wait(), PATIENCE_S)
        assert alice.refusals(BOB, Reason.WRONG_NAME) >= 1
        assert alice.events.empty()


async def test_a_called_node_with_another_name_is_never_spoken_to(authority: Authority) -> None:
    spoken_to: list[str] = []

    async def answer(context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        spoken_to.append(context.peer())

    async with contextlib.AsyncExitStack() as lasting:
        address = await lasting.enter_async_context(false_bob(authority, "mallory", answer))
        true_bob = await lasting.enter_async_context(node(authority, BOB, {ALICE: NOWHERE}))
        peers = {BOB: address, CAROL: true_bob.address}
        alice = await lasting.enter_async_context(node(authority, ALICE, peers))
        status = alice.peers.status
        await until(lambda: all(peer["dials_failed"] for peer in status().values()))
        assert not spoken_to
        assert alice.events.empty()
