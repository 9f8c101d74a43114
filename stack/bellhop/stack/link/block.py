"""What the two ends of a link know of one block: what was seen here, what the peer has told."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.codec import join, split

TIME_NS_MAX = 2**63 - 1


def herald_digest(attempts: NDArray[np.int64], patterns: NDArray[np.uint8]) -> bytes:
    """What both ends compare: SHA-256 of attempt numbers and patterns."""
    return hashlib.sha256(
        join(attempts.astype("<i8").tobytes(), patterns.astype(np.uint8).tobytes())
    ).digest()


@dataclass(frozen=True, slots=True)
class Span:
    """From the first attempt to the last herald, as this end's device says it, by its clock."""

    begun_ns: int = 0
    ended_ns: int = 0

    def __or__(self, other: "Span") -> "Span":
        return Span(min(self.begun_ns, other.begun_ns), max(self.ended_ns, other.ended_ns))

    @property
    def length_ns(self) -> int:
        return self.ended_ns - self.begun_ns

    def encode(self) -> bytes:
        """Whatever the device claims fits."""
        times = (min(max(ns, 0), TIME_NS_MAX) for ns in (self.begun_ns, self.ended_ns))
        return b"".join(ns.to_bytes(8, "big") for ns in times)


def decode_span(payload: bytes) -> Span:
    return Span(int.from_bytes(payload[:8], "big"), int.from_bytes(payload[8:], "big"))


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What this end saw of a block.  `digest` empty: it lost the block."""

    digest: bytes = b""
    patterns: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    span: Span = Span()

    def encode(self) -> bytes:
        return join(self.digest, self.patterns.tobytes(), self.span.encode())


LOST = Seen()


def decode_seen(payload: bytes) -> Seen:
    digest, patterns, times = split(payload, 3)
    return Seen(digest, np.frombuffer(patterns, np.uint8), decode_span(times))


@dataclass(slots=True)
class Block:
    """`ordered`: the device that is there now has the order."""

    ordered: bool = False
    seen: Seen | None = None
    peer: bytes | None = None  # its digest, empty if lost
    told_ns: int = 0  # when the peer first told it

    @property
    def agreed(self) -> bool:
        return self.seen is not None and bool(self.seen.digest) and self.seen.digest == self.peer

    @property
    def void(self) -> bool:
        return self.seen is not None and self.peer is not None and not self.agreed
