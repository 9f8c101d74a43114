"""A `Hardware` over the memory service of an emulator or a laboratory, by gRPC with mutual TLS."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
from grpc import aio

from bellhop.hal.errors import HardwareError
from bellhop.hal.memory_wire import (
    MESSAGE_BYTES_MAX,
    operation_to_wire,
    printable,
    report_from_wire,
)
from bellhop.hal.operations import DeviceGone, Operation, Ready, Report
from bellhop.v1 import memory_pb2, memory_pb2_grpc

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 5.0
"""Waits between connections double from the one to the other, and start anew after a stream that
lasted longer than the other."""

READY_SECONDS_MAX = 10.0
"""A service that has not said within this time that it is ready is not."""

KEEPALIVE_MS = 20_000

log = logging.getLogger(__name__)

Call = aio.StreamStreamCall[memory_pb2.MemoryOperation, memory_pb2.MemoryReport]


@dataclass(frozen=True, slots=True)
class MemoryServiceAccess:
    """Where a memory service is, and how either side proves who it is; all PEM.

    `server_name` is the DNS alternative name that the service's certificate must have, as in
    `emulator-1.emulator.bellhop`.
    """

    address: str
    server_name: str
    certificate: bytes
    authority: bytes
    key: bytes = field(repr=False)


class MemoryServiceClient:
    """Connects when `reports` is first read, and again whenever the connection breaks.

    Nothing is read ahead of the caller, so `submit` speaks to the device whose `Ready` the caller
    saw last, or to none: an order given to a device that is gone is dropped, and the `DeviceGone`
    that says so is the next report.
    """

    def __init__(self, access: MemoryServiceAccess, keepalive_ms: int = KEEPALIVE_MS) -> None:
        self._access = access
        self._keepalive_ms = keepalive_ms
        self._call: Call | None = None
        self._ready = False
        self._closed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._reading = False

    async def submit(self, operation: Operation) -> None:
        """See `Hardware`.  Waits while the service is behind with what was ordered before."""
        message = operation_to_wire(operation)
        async with self._writing:
            call = self._call
            if call is None or not self._ready or call.done():
                return
            try:
                await call.write(message)
            except (aio.AioRpcError, asyncio.InvalidStateError) as error:
                log.debug("an order is lost with its stream: %s", type(error).__name__)

    async def reports(self) -> AsyncIterator[Report]:
        """See `Hardware`.  To be read by one."""
        assert not self._reading, "reports have one reader"
        self._reading = True
        loop = asyncio.get_running_loop()
        retry_seconds = RETRY_SECONDS_MIN
        while not self._closed.is_set():
            begun = loop.time()
            reason = ""
            was_ready = False
            async with self._channel() as channel:
                self._call = memory_pb2_grpc.MemoryServiceStub(channel).Operate()
                try:
                    while not self._closed.is_set():
                        report = await self._next(self._call)
                        self._ready = was_ready = True
                        yield report
                except HardwareError as error:
                    reason = error.message
                finally:
                    self._ready = False
                    self._call.cancel()
                    self._call = None
            if self._closed.is_set():
                return
            log.warning("memory service at %s: %s", self._access.address, reason)
            if was_ready:
                yield DeviceGone(reason)
            if loop.time() - begun > RETRY_SECONDS_MAX:
                retry_seconds = RETRY_SECONDS_MIN
            await self._pause(retry_seconds)
            retry_seconds = min(2.0 * retry_seconds, RETRY_SECONDS_MAX)

    async def close(self) -> None:
        """See `Hardware`.  The reader of `reports` sees its end."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    async def _next(self, call: Call) -> Report:
        """Raises HardwareError, with the reason, if there are no more reports."""
        try:
            async with asyncio.timeout(None if self._ready else READY_SECONDS_MAX):
                message = await call.read()
        except TimeoutError as error:
            raise HardwareError(f"not ready within {READY_SECONDS_MAX:g} seconds") from error
        except aio.AioRpcError as error:
            detail = printable(error.details() or "")
            raise HardwareError(f"{error.code().name}: {detail}") from error
        except asyncio.CancelledError:
            if self._closed.is_set() and call.cancelled():
                raise HardwareError("closed") from None
            raise
        if message is aio.EOF:
            detail = printable(await call.details() or "")
            raise HardwareError(f"the service ended the stream: {detail}")
        if not isinstance(message, memory_pb2.MemoryReport):
            raise HardwareError("the service sent bytes that are no report")
        report = report_from_wire(message)
        if isinstance(report, Ready) == self._ready:
            raise HardwareError("a service is ready first, and once")
        return report

    def _channel(self) -> aio.Channel:
        access = self._access
        credentials = grpc.ssl_channel_credentials(access.authority, access.key, access.certificate)
        options: list[tuple[str, str | int]] = [
            ("grpc.ssl_target_name_override", access.server_name),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.keepalive_time_ms", self._keepalive_ms),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.use_local_subchannel_pool", 1),  # Each attempt connects anew, at once.
            ("grpc.enable_http_proxy", 0),
        ]
        return aio.secure_channel(access.address, credentials, options=options)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            pass  # Time to try again.
