"""Bits and byte strings in facts and tagged messages: one encoding, no two values alike."""

import numpy as np
from numpy.typing import NDArray


class Malformed(ValueError):
    """Bytes that no encoder of ours wrote.  Says what was expected, never what was there."""


def pack(bits: NDArray[np.uint8] | NDArray[np.bool_]) -> bytes:
    """Bits as bytes, the low bit of a byte first; the last byte is filled with zeros."""
    return np.packbits(bits, bitorder="little").tobytes()


def unpack(packed: bytes, count: int) -> NDArray[np.uint8]:
    """`count` bits, uint8 of 0 or 1, of what `pack` wrote; Malformed unless it is exactly that."""
    if len(packed) != (count + 7) // 8:
        raise Malformed(f"{count} bits take {(count + 7) // 8} bytes, not {len(packed)}")
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
    if bits[count:].any():
        raise Malformed("bits beyond the end are zero")
    return bits[:count].copy()


def join(*parts: bytes) -> bytes:
    """Byte strings behind their lengths, so that different lists never read alike."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def split(joined: bytes, count: int) -> list[bytes]:
    """The `count` byte strings that `join` put together; Malformed if they are not that many."""
    parts = []
    start = 0
    for _ in range(count):
        end = start + 8 + int.from_bytes(joined[start : start + 8], "big")
        if len(joined) < start + 8 or len(joined) < end:
            raise Malformed("a byte string ends early")
        parts.append(joined[start + 8 : end])
        start = end
    if start != len(joined):
        raise Malformed("bytes behind the last byte string")
    return parts
