"""Sealing: what the key store writes is encrypted, and a spent block's key is destroyed.

Rules.  Three kinds of key, all AES-256-GCM with random 96-bit nonces (NIST SP 800-38D, 8.2.2: at
most 2^32 sealings under one key):

    key-encryption key (KEK)   in a file of its own; seals the keys below and nothing else
    facts key                  one for the store, sealed under the KEK; seals every fact
    data key (DEK)             one a block, sealed under the KEK; seals the keys of the block

Everything is sealed to its place (table, name, ...), so that no sealed value can be moved to
another.  Nothing here tells a fresh value from an older one of the same place: a disk put back to
an earlier state is not noticed.

When a block holds no key any more its sealed data key is erased, so that old copies of its rows
that the file system or the medium may keep cannot be opened.  The sealed data key itself is 60
bytes that are overwritten in the file; a medium that keeps old sectors (flash, copy-on-write,
snapshots) may keep those too, and they open under the KEK.  Memory is not scrubbed: Python and
OpenSSL copy.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bellhop.hal.errors import ConfigError, KeyStoreError
from bellhop.node.files import SECRET_MODE, write_atomically

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Seal:
    """One AES-256-GCM key in use."""

    _cipher: AESGCM = field(repr=False)

    def close(self, plain: bytes, *place: str | int) -> bytes:
        """The nonce and the ciphertext of `plain`, bound to `place`."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, _bytes_of_place(place))

    def open(self, sealed: bytes, *place: str | int) -> bytes:
        """The plain bytes again.  Raises KeyStoreError if they were not sealed so, here."""
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, ciphertext, _bytes_of_place(place))
        except (InvalidTag, ValueError):
            raise KeyStoreError(
                f"what the key store holds as {place[0]} cannot be opened: it is damaged, or was "
                "sealed under another key-encryption key; stop, and restore the state folder",
                what=place[0],
            ) from None

    def new_key(self, *place: str | int) -> tuple["Seal", bytes]:
        """A fresh key to seal with, and that key sealed under this one."""
        key = os.urandom(KEY_BYTES)
        return new_seal(key), self.close(key, *place)

    def open_key(self, sealed: bytes, *place: str | int) -> "Seal":
        """A key that `new_key` sealed."""
        return new_seal(self.open(sealed, *place))


def new_seal(key: bytes) -> Seal:
    """A 32-byte key in use."""
    assert len(key) == KEY_BYTES, "an AES-256 key has 32 bytes"
    return Seal(AESGCM(key))


def create_kek(path: Path) -> bytes:
    """Draw a key-encryption key and keep it in a new file of mode 0600.

    Raises ConfigError if the file exists or cannot be written.
    """
    key = os.urandom(KEY_BYTES)
    try:
        write_atomically(path, key, SECRET_MODE)
    except OSError as error:
        raise ConfigError(
            f"cannot make the key-encryption key {path}: {error.strerror or error}",
            field="keys.key_encryption_key",
        ) from error
    return key


def read_kek(path: Path) -> bytes:
    """The key-encryption key of a file.

    Raises ConfigError if there is none, if others than its owner may open it, or if it is not of
    32 bytes.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read the key-encryption key {path}: {error.strerror or error}",
            field="keys.key_encryption_key",
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"others may open the key-encryption key {path}: run chmod 600 on it",
            field="keys.key_encryption_key",
        )
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path} is no key-encryption key: it must have {KEY_BYTES} bytes",
            field="keys.key_encryption_key",
        )
    return key


def _bytes_of_place(place: tuple[str | int, ...]) -> bytes:
    """Each part behind its length, so that no two places read alike."""
    parts = [str(part).encode() for part in place]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
