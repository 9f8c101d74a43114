"""A command's end of the control socket."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before grpc: a command's stderr is for people

import grpc

from bellhop.hal.errors import BellhopError, KeyStoreError, RequestError
from bellhop.v1 import control_pb2 as pb

SERVICE = "/bellhop.v1.ControlService/"
CONNECT_S = 3.0

T = TypeVar("T")


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...


_ERRORS: dict[grpc.StatusCode, type[BellhopError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: RequestError,
    grpc.StatusCode.DATA_LOSS: KeyStoreError,
}


class NotRunning(BellhopError):
    """Nobody answers at the control socket."""

    who_must_act = "the operator of this node"


class NodeStopped(BellhopError):
    """The node ended while a session was waited for."""

    who_must_act = "the operator of this node: start it again"

    def __init__(self) -> None:
        super().__init__(
            "the node stopped; the session goes on when it runs again: see 'bellhop status'"
        )


_STOPPED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""How a stream ends when its server is killed, or stopped in good order."""


class NodeControl:
    """The calls of the control service; each waits for its answer.

    A call that fails raises the node's own error, as it was there.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def status(self) -> str:
        """JSON text."""
        return self._call("Status", pb.StatusRequest(), pb.StatusReply.FromString).status_json

    def keys_status(self) -> str:
        """JSON text."""
        reply = self._call("KeysStatus", pb.KeysStatusRequest(), pb.KeysStatusReply.FromString)
        return reply.status_json

    def receipt(self, request: pb.ReceiptRequest) -> str:
        """JSON text."""
        return self._call("Receipt", request, pb.ReceiptReply.FromString).receipt_json

    def abort_session(self, peer: str) -> pb.SessionEnd:
        request = pb.AbortSessionRequest(peer=peer)
        return self._call("AbortSession", request, pb.SessionEnd.FromString)

    def pause_session(self, peer: str, paused: bool) -> pb.SessionEnd:
        request = pb.PauseSessionRequest(peer=peer, paused=paused)
        return self._call("PauseSession", request, pb.SessionEnd.FromString)

    def run_session(
        self, peer: str, rounds: int, *, even_at_a_loss: bool
    ) -> Iterator[pb.SessionReply]:
        request = pb.RunSessionRequest(peer=peer, rounds=rounds, even_at_a_loss=even_at_a_loss)
        return self._session("RunSession", request)

    def calibrate(self, peer: str, rounds: int) -> Iterator[pb.SessionReply]:
        return self._session("Calibrate", pb.CalibrateRequest(peer=peer, rounds=rounds))

    def calibrations(self) -> str:
        """JSON text."""
        read = pb.CalibrationsReply.FromString
        return self._call("Calibrations", pb.CalibrationsRequest(), read).calibrations_json

    def _session(self, name: str, request: _Message) -> Iterator[pb.SessionReply]:
        method = self._channel.unary_stream(
            f"{SERVICE}{name}",
            request_serializer=_bytes_of,
            response_deserializer=pb.SessionReply.FromString,
        )
        try:
            yield from method(request)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call), "what a call raises says how it ended"
            if error.code() in _STOPPED:
                raise NodeStopped from None
            raise _own_error(error) from None

    def _call(self, name: str, request: _Message, read: Callable[[bytes], T]) -> T:
        method = self._channel.unary_unary(
            f"{SERVICE}{name}", request_serializer=_bytes_of, response_deserializer=read
        )
        with _own_errors():
            return method(request)


@contextmanager
def node_at(socket: Path) -> Iterator[NodeControl]:
    """The node that listens at `socket`; NotRunning if none does."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            if not socket.is_socket():
                raise grpc.FutureTimeoutError
            grpc.channel_ready_future(channel).result(CONNECT_S)
        except grpc.FutureTimeoutError:
            raise NotRunning(
                f"no node answers at {socket}: start it with 'bellhop run', as the same user"
            ) from None
        yield NodeControl(channel)


def _bytes_of(message: _Message) -> bytes:
    return message.SerializeToString()


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call), "what a call raises says how it ended"
        raise _own_error(error) from None


def _own_error(error: grpc.Call) -> BellhopError:
    kind = _ERRORS.get(error.code(), BellhopError)
    return kind(error.details() or error.code().name)
