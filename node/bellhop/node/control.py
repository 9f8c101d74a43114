"""The operator's way into a running node: gRPC over a Unix socket that only its user may open."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import grpc

from bellhop.hal.errors import BellhopError, ConfigError, RequestError
from bellhop.hal.operations import NodeName
from bellhop.node.errors import grpc_status_of
from bellhop.stack.core import AbortSession, Answer, Ask, CalibrateLink, PauseSession, RunSession
from bellhop.stack.ids import KeyId, SessionId
from bellhop.v1 import control_pb2 as pb
from bellhop.v1 import control_pb2_grpc

PROGRESS_S = 0.2
"""How often a caller hears how far its session is."""

SOCKET_MODE = 0o600
STOP_S = 0.5


class Node(Protocol):
    """What the control service is a way into."""

    async def status(self) -> dict[str, Any]: ...
    def snapshot(self) -> dict[str, Any]: ...
    async def ask(self, ask: Ask) -> Answer: ...
    async def keys_status(self) -> dict[str, Any]: ...
    async def receipt(self, name: KeyId | SessionId) -> str | None: ...


class Control(control_pb2_grpc.ControlServiceServicer):
    """Answers for one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusReply:
        status = await _mapped(context, self._node.status)
        return pb.StatusReply(status_json=json.dumps(status))

    async def KeysStatus(self, request: pb.KeysStatusRequest, context: Any) -> pb.KeysStatusReply:
        status = await _mapped(context, self._node.keys_status)
        return pb.KeysStatusReply(status_json=json.dumps(status))

    async def Receipt(self, request: pb.ReceiptRequest, context: Any) -> pb.ReceiptReply:
        async def receipt() -> str:
            named = request.key_id or request.session
            text = await self._node.receipt(KeyId(named) if request.key_id else SessionId(named))
            if text is None:
                raise RequestError("this node knows no key and no session of that name")
            return text

        return pb.ReceiptReply(receipt_json=await _mapped(context, receipt))

    async def AbortSession(self, request: pb.AbortSessionRequest, context: Any) -> pb.SessionEnd:
        answer = await self._node.ask(AbortSession(NodeName(request.peer)))
        return _end(answer)

    async def PauseSession(self, request: pb.PauseSessionRequest, context: Any) -> pb.SessionEnd:
        answer = await self._node.ask(PauseSession(NodeName(request.peer), request.paused))
        return _end(answer)

    async def RunSession(
        self, request: pb.RunSessionRequest, context: Any
    ) -> AsyncIterator[pb.SessionReply]:
        peer = NodeName(request.peer)
        ask = RunSession(peer, request.rounds, request.even_at_a_loss)
        async for reply in self._until_it_ends(peer, ask):
            yield reply

    async def Calibrate(
        self, request: pb.CalibrateRequest, context: Any
    ) -> AsyncIterator[pb.SessionReply]:
        peer = NodeName(request.peer)
        async for reply in self._until_it_ends(peer, CalibrateLink(peer, request.rounds)):
            yield reply

    async def Calibrations(
        self, request: pb.CalibrationsRequest, context: Any
    ) -> pb.CalibrationsReply:
        snapshot = self._node.snapshot()
        known = {name: snapshot.get(name, {}) for name in ("calibrations", "drifts")}
        return pb.CalibrationsReply(calibrations_json=json.dumps(known))

    async def _until_it_ends(self, peer: NodeName, ask: Ask) -> AsyncIterator[pb.SessionReply]:
        """The session goes on if the caller leaves; only its question is forgotten."""
        away = f"waiting for {peer}"
        begun_ns = time.monotonic_ns()
        asked = asyncio.ensure_future(self._node.ask(ask))
        try:
            while not asked.done():
                await asyncio.wait([asked], timeout=PROGRESS_S)
                snapshot = self._node.snapshot()
                known = snapshot.get("peers", {}).get(peer, {})
                for session in snapshot.get("sessions", []):
                    if session["peer"] == peer and not asked.done():
                        stage = _stage(session) if known.get("joined", True) else away
                        yield pb.SessionReply(progress=_progress(session, stage, begun_ns))
            yield pb.SessionReply(end=_end(await asked))
        finally:
            asked.cancel()


async def start_control(node: Node, socket: Path) -> grpc.aio.Server:
    """Listen at `socket`.  Raises ConfigError if that cannot be."""
    server = grpc.aio.server()
    control_pb2_grpc.add_ControlServiceServicer_to_server(Control(node), server)
    _bind(server, socket)
    await server.start()
    return server


def _bind(server: grpc.aio.Server, socket: Path) -> None:
    before = os.umask(0o777 & ~SOCKET_MODE)  # a socket has its mode from its first moment
    try:
        socket.unlink(missing_ok=True)  # of a process that was killed: the store's lock is ours
        server.add_insecure_port(f"unix:{socket}")
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"cannot listen on {socket}", field="control.socket") from error
    finally:
        os.umask(before)


async def _mapped(context: Any, work: Callable[[], Awaitable[Any]]) -> Any:
    """What `work` returns; an error of ours ends the call with its status."""
    try:
        return await work()
    except BellhopError as error:
        await context.abort(grpc_status_of(error), error.message)


def _stage(session: dict[str, Any]) -> str:
    paused_by = " and ".join(session.get("paused_by", []))
    return f"paused by {paused_by}" if paused_by else str(session["stage"])


def _progress(session: dict[str, Any], stage: str, begun_ns: int) -> pb.SessionProgress:
    return pb.SessionProgress(
        session=session["session"],
        stage=stage,
        rounds=session["rounds"],
        rounds_done=session["rounds_done"],
        elapsed_ns=time.monotonic_ns() - begun_ns,
    )


def _end(answer: Answer) -> pb.SessionEnd:
    return pb.SessionEnd(outcome=answer.outcome, fields_json=json.dumps(answer.fields))
