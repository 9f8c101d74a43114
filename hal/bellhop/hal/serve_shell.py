"""What all memory services have in common: where they listen, and who may connect."""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

import grpc
from cryptography import x509
from grpc import aio

from bellhop.hal.configuration import read_text
from bellhop.hal.door import Door
from bellhop.hal.errors import ConfigError, PeerError
from bellhop.hal.identity import identity_of, peer_identity
from bellhop.hal.memory_wire import MESSAGE_BYTES_MAX
from bellhop.hal.operations import NodeName
from bellhop.v1 import memory_pb2, memory_pb2_grpc

STOP_GRACE_SECONDS = 1.0
KEEPALIVE_MS = 20_000

Context = aio.ServicerContext[
    AsyncIterator[memory_pb2.MemoryOperation], AsyncIterator[memory_pb2.MemoryReport]
]


async def admit(
    context: Context, nodes: Collection[NodeName], refusal: str, log: logging.Logger
) -> NodeName:
    """The node of the client's certificate; ends the call if it is none of `nodes`.

    `refusal`: what is wrong with anybody else, and who must do what.
    """
    try:
        identity = peer_identity(context.auth_context())
    except PeerError as error:
        log.warning("refused %s: %s", context.peer(), error.message)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, error.message)
    if identity.kind != "node" or identity.name not in nodes:
        message = f"{identity.kind} {identity.name} {refusal}"
        log.warning("refused %s: %s", context.peer(), message)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, message)
    return NodeName(identity.name)


async def keep_open(
    door: Door,
    service: memory_pb2_grpc.MemoryServiceServicer,
    end: Callable[[], None],
    on_listening: Callable[[str], None],
    stop: asyncio.Event,
    log: logging.Logger,
    keepalive_ms: int = KEEPALIVE_MS,
) -> None:
    """Serve until `stop` is set, then call `end`, which ends the streams.

    `on_listening` gets HOST:PORT once nodes can connect.  Raises ConfigError.
    """
    server = aio.server(options=server_options(keepalive_ms))
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(service, server)
    credentials = check_door(door)
    try:
        port = server.add_secure_port(door.listen, credentials)
    except RuntimeError as error:
        field = f"{door.section}.listen"
        raise ConfigError(f"{field}: cannot listen on {door.listen}", field) from error
    await server.start()
    address = f"{door.listen.rpartition(':')[0]}:{port}"
    log.info("listening on %s", address)
    try:
        if door.port_file:
            _write_port_file(door.port_file, address)
        on_listening(address)
        await stop.wait()
    finally:
        if door.port_file:
            door.port_file.unlink(missing_ok=True)
        end()
        await server.stop(STOP_GRACE_SECONDS)


def server_options(keepalive_ms: int = KEEPALIVE_MS) -> list[tuple[str, int]]:
    """Limits of every memory service, in gRPC's own names.

    A node may ping four times as often as the service does, with nothing else to say: by default
    the core expects five minutes between pings, and ends an idle connection at the fifth.
    """
    return [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_concurrent_streams", 8),
        ("grpc.so_reuseport", 0),  # A second service on one port is a mistake.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 4),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def check_door(door: Door) -> grpc.ServerCredentials:
    """What the service shows of itself; a port file of an earlier run is gone.

    Raises ConfigError naming the field, for whatever gRPC would call "cannot listen" or nodes would
    be the first to see.
    """
    certificate = read_text(door.certificate).encode()
    key = read_text(door.key).encode()
    authority = read_text(door.authority).encode()
    _check_identity(door, certificate)
    _check_files(door)
    _check_port_file(door)
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


def _check_identity(door: Door, certificate: bytes) -> None:
    field = f"{door.section}.tls.certificate"
    try:
        names = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    except ValueError as error:
        raise ConfigError(f"{field}: {door.certificate} holds no certificate", field) from error
    except x509.ExtensionNotFound:
        uris = []
    try:
        identity = identity_of(uris)
    except PeerError as error:
        raise ConfigError(f"{field}: {door.certificate}: {error.message}", field) from error
    if identity.kind != "emulator":
        raise ConfigError(
            f"{field}: {door.certificate} is that of {identity.kind} {identity.name}; a memory"
            f" service shows one with the URI bellhop:emulator:NAME (bellhop pki emulator NAME)",
            field,
        )


def _check_files(door: Door) -> None:
    """That the key is the certificate's, and the authority is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key must not ask for its password at a terminal that nobody looks at.
        context.load_cert_chain(door.certificate, door.key, password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        field = f"{door.section}.tls.key"
        raise ConfigError(
            f"{field}: {door.key} is not the unencrypted key of {door.certificate}", field
        ) from error
    try:
        context.load_verify_locations(door.authority)
    except (ssl.SSLError, OSError) as error:
        field = f"{door.section}.tls.authority"
        raise ConfigError(f"{field}: {door.authority} holds no certificate", field) from error


def _check_port_file(door: Door) -> None:
    if door.port_file is None:
        return
    field = f"{door.section}.port_file"
    try:
        door.port_file.unlink(missing_ok=True)
        _beside(door.port_file).touch()
        _beside(door.port_file).unlink()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConfigError(f"{field}: {door.port_file} cannot be written: {why}", field) from error


def _write_port_file(path: Path, address: str) -> None:
    """Atomically, so that whoever sees the file sees all of it."""
    temporary = _beside(path)
    temporary.write_text(f"{address}\n", encoding="utf-8")
    temporary.replace(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
