"""A file encrypted under one delivered key: AES-256-GCM in chunks, the key named and never stored.

The chunks form a STREAM (V. T. Hoang, R. Reyhanitabar, P. Rogaway, D. Vizár, "Online
authenticated-encryption and its nonce-reuse misuse-resistance", CRYPTO 2015): the nonce of a chunk
is its number and whether it is the last, so that chunks cannot be reordered, dropped or appended.
The header is associated data of every chunk.  A key seals one file, so the nonces need no random
part.

    file    = header, chunks, SHA-256 of header and chunks
    header  = magic (8), version (1), length of the rest (2), rest
    rest    = chunk bytes (4), plaintext bytes (8), then key ID, master SAE and slave SAE, each as
              length (2) and UTF-8
    chunk   = ciphertext (chunk bytes, the last one less or none), tag (16)

All numbers are big-endian.  The digest at the end guards against accidents, not against an
attacker, who can recompute it; it lets damage be found before the key, which can be fetched only
once, is fetched.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bellhop.hal.errors import RequestError

MAGIC = b"BHSEALED"
VERSION = 1
KEY_BITS = 256
CHUNK_BYTES = 2**20
CHUNK_BYTES_MAX = 2**24
TAG_BYTES = 16
DIGEST_BYTES = hashlib.sha256().digest_size
FIELD_BYTES_MAX = 1024
PLAINTEXT_BYTES_MAX = 2**44
"""2^40 cipher blocks under one key: at their square over 2^128 GCM is still far from its limit."""

_START = struct.Struct(">8sBH")
_NUMBERS = struct.Struct(">IQ")
_LENGTH = struct.Struct(">H")
_NONCE_COUNTER_BYTES = 11

Progress = Callable[[int], None]
"""Told how many bytes more are done."""


class DamagedFileError(RequestError):
    """A sealed file that is not what was sealed; who holds an intact copy must send it again."""

    who_must_act = "whoever sent the file"


@dataclass(frozen=True, slots=True)
class SealedHeader:
    """What a sealed file says in clear.  `plaintext_bytes` is the length of what is inside."""

    key_id: str
    master_sae: str
    slave_sae: str
    plaintext_bytes: int
    chunk_bytes: int = CHUNK_BYTES

    def __post_init__(self) -> None:
        assert 1 <= self.chunk_bytes <= CHUNK_BYTES_MAX
        assert 0 <= self.plaintext_bytes <= PLAINTEXT_BYTES_MAX
        assert all(0 < len(name) <= FIELD_BYTES_MAX for name in self._names())

    def _names(self) -> tuple[bytes, ...]:
        return tuple(name.encode() for name in (self.key_id, self.master_sae, self.slave_sae))

    @property
    def chunks(self) -> int:
        """How many chunks there are; an empty file has one, which vouches that it is empty."""
        return max(1, -(-self.plaintext_bytes // self.chunk_bytes))

    @property
    def sealed_bytes(self) -> int:
        """The length of the whole sealed file."""
        body = self.plaintext_bytes + self.chunks * TAG_BYTES
        return len(encode_header(self)) + body + DIGEST_BYTES


def encode_header(header: SealedHeader) -> bytes:
    """The header's bytes, which are also the associated data of every chunk."""
    rest = _NUMBERS.pack(header.chunk_bytes, header.plaintext_bytes)
    for name in header._names():
        rest += _LENGTH.pack(len(name)) + name
    return _START.pack(MAGIC, VERSION, len(rest)) + rest


def read_header(source: BinaryIO) -> SealedHeader:
    """Read the header and leave `source` behind it.  Raises DamagedFileError if it is none."""
    start = source.read(_START.size)
    if len(start) < _START.size or not start.startswith(MAGIC):
        raise DamagedFileError("this is not a sealed file")
    _, version, length = _START.unpack(start)
    if version != VERSION:
        raise RequestError(
            f"the file is sealed in version {version} of the format, and this program knows "
            f"{VERSION}; open it with a newer one"
        )
    rest = source.read(length)
    try:
        header = _parse_rest(rest)
    except (struct.error, ValueError, AssertionError) as error:
        raise DamagedFileError("the header of the sealed file is damaged") from error
    if encode_header(header) != start + rest:
        raise DamagedFileError("the header of the sealed file is damaged")
    return header


def _parse_rest(rest: bytes) -> SealedHeader:
    chunk_bytes, plaintext_bytes = _NUMBERS.unpack_from(rest)
    names: list[str] = []
    at = _NUMBERS.size
    for _ in range(3):
        (length,) = _LENGTH.unpack_from(rest, at)
        at += _LENGTH.size
        names.append(rest[at : at + length].decode())
        at += length
    key_id, master_sae, slave_sae = names
    return SealedHeader(key_id, master_sae, slave_sae, plaintext_bytes, chunk_bytes)


def check_sealed(source: BinaryIO, progress: Progress = lambda _: None) -> SealedHeader:
    """Find what damage can be found without the key; `source` is left after the header.

    `source` must be seekable.  Raises DamagedFileError if the file is too short or too long for its
    header, or differs from what was written.
    """
    header = read_header(source)
    body_at = source.tell()
    length = source.seek(0, 2)
    if length != header.sealed_bytes:
        what = "cut off" if length < header.sealed_bytes else "too long"
        raise DamagedFileError(
            f"the sealed file is {what}: it has {length} bytes and should have "
            f"{header.sealed_bytes}; the key was not fetched, ask for an intact copy"
        )
    source.seek(0)
    digest = hashlib.sha256()
    left = header.sealed_bytes - DIGEST_BYTES
    while left:
        block = source.read(min(left, header.chunk_bytes))
        if not block:
            raise DamagedFileError("the sealed file became shorter while it was read")
        digest.update(block)
        left -= len(block)
        progress(len(block))
    if source.read() != digest.digest():
        raise DamagedFileError(
            "the sealed file is damaged; the key was not fetched, ask for an intact copy"
        )
    source.seek(body_at)
    return header


def seal_stream(
    source: BinaryIO,
    sink: BinaryIO,
    key: bytearray,
    header: SealedHeader,
    progress: Progress = lambda _: None,
) -> None:
    """Encrypt `source` to `sink` under `key` (32 bytes), which must never seal anything else.

    Raises RequestError if `source` has not the length that `header` says.
    """
    cipher, associated = _cipher(key), encode_header(header)
    digest = hashlib.sha256(associated)
    sink.write(associated)
    for nonce, length in _chunks(header):
        plaintext = _read_exactly(source, length)
        if len(plaintext) != length:
            raise RequestError("the file became shorter while it was sealed; seal it again")
        sealed = cipher.encrypt(nonce, plaintext, associated)
        digest.update(sealed)
        sink.write(sealed)
        progress(length)
    if source.read(1):
        raise RequestError("the file became longer while it was sealed; seal it again")
    sink.write(digest.digest())


def open_stream(
    source: BinaryIO,
    sink: BinaryIO,
    key: bytearray,
    header: SealedHeader,
    progress: Progress = lambda _: None,
) -> None:
    """Decrypt to `sink` what follows the header in `source`.

    Every chunk is authenticated before it is written, but only a return without an exception means
    that the file is whole: the caller must discard the sink otherwise.  Raises DamagedFileError.
    """
    cipher, associated = _cipher(key), encode_header(header)
    for nonce, length in _chunks(header):
        sealed = _read_exactly(source, length + TAG_BYTES)
        try:
            plaintext = cipher.decrypt(nonce, sealed, associated)
        except InvalidTag as error:
            raise DamagedFileError(
                "the sealed file was altered after it was sealed, or sealed under another key"
            ) from error
        sink.write(plaintext)
        progress(length)


def wipe(secret: bytearray) -> None:
    """Overwrite `secret`.  Copies that Python, the cipher or the system made remain."""
    secret[:] = bytes(len(secret))


def _cipher(key: bytearray) -> AESGCM:
    if 8 * len(key) != KEY_BITS:
        raise RequestError(f"sealing takes a key of {KEY_BITS} bits, not of {8 * len(key)}")
    return AESGCM(key)


def _chunks(header: SealedHeader) -> Iterator[tuple[bytes, int]]:
    """The nonce of each chunk and the length of its plaintext."""
    left = header.plaintext_bytes
    for number in range(header.chunks):
        length = min(left, header.chunk_bytes)
        left -= length
        last = number == header.chunks - 1
        yield number.to_bytes(_NONCE_COUNTER_BYTES, "big") + bytes([last]), length


def _read_exactly(source: BinaryIO, length: int) -> bytes:
    """As many bytes as asked for, or fewer at the end only; a pipe gives fewer now and then."""
    parts: list[bytes] = []
    while length and (part := source.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
