"""A command's end of the control socket."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before grpc: a command's stderr is for people

import grpc

from bellhop.hal.errors import BellhopError, KeyStoreError, RequestError
from bellhop.v1 import control_pb2_grpc

T = TypeVar("T")

CONNECT_S = 3.0

_ERRORS: dict[grpc.StatusCode, type[BellhopError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: RequestError,
    grpc.StatusCode.DATA_LOSS: KeyStoreError,
}


class NotRunning(BellhopError):
    """Nobody answers at the control socket."""

    who_must_act = "the operator of this node"


def with_node(
    socket: Path, conversation: Callable[[control_pb2_grpc.ControlServiceStub], Awaitable[T]]
) -> T:
    """What `conversation` with the node at `socket` returns.

    Raises NotRunning if there is none, and the node's own errors as they were there.
    """

    async def talk() -> T:
        async with connected(socket) as node:
            return await conversation(node)

    return run(talk())


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, with a failed call as an error of ours."""
    try:
        return asyncio.run(work)
    except grpc.aio.AioRpcError as error:
        kind = _ERRORS.get(error.code(), BellhopError)
        raise kind(error.details() or error.code().name) from None


@asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[control_pb2_grpc.ControlServiceStub]:
    """The node that listens at `socket`; NotRunning if none does."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        try:
            async with asyncio.timeout(CONNECT_S):
                await channel.channel_ready()
        except TimeoutError:
            raise NotRunning(
                f"no node answers at {socket}: start it with 'bellhop run', as the same user"
            ) from None
        yield control_pb2_grpc.ControlServiceStub(channel)
