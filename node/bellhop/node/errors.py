"""What each error means to the outside: one table of exit code, gRPC status and HTTP status."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bellhop.hal.errors import (
    BellhopError,
    ConfigError,
    HardwareError,
    KeyStoreError,
    PeerError,
    RequestError,
)

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True, slots=True)
class Meaning:
    """How an error leaves the program.

    `http_status` is one of the three that ETSI GS QKD 014 (V1.1.1, section 5) knows: 400 for what
    the caller must change, 401 for what is not his, 503 for everything on our side.
    """

    exit_code: int
    grpc_status: str
    http_status: int


MEANINGS: dict[type[BellhopError], Meaning] = {
    BellhopError: Meaning(1, "UNKNOWN", 503),
    ConfigError: Meaning(2, "FAILED_PRECONDITION", 503),
    RequestError: Meaning(3, "INVALID_ARGUMENT", 400),
    PeerError: Meaning(4, "UNAVAILABLE", 503),
    HardwareError: Meaning(5, "UNAVAILABLE", 503),
    KeyStoreError: Meaning(6, "DATA_LOSS", 503),
}


def meaning_of(error: BellhopError) -> Meaning:
    """The row of the nearest class of `error` that has one; the root has one."""
    return next(MEANINGS[kind] for kind in type(error).__mro__ if kind in MEANINGS)


def grpc_status_of(error: BellhopError) -> "grpc.StatusCode":
    """The status with which a gRPC service answers.  Loads grpc only when asked."""
    import grpc

    return grpc.StatusCode[meaning_of(error).grpc_status]
