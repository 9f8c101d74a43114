"""Sealed files: they open under their key alone, whole or not at all."""

import hashlib
import io
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from bellhop.hal.errors import RequestError
from bellhop.node.sealing import (
    DIGEST_BYTES,
    TAG_BYTES,
    DamagedFileError,
    SealedHeader,
    check_sealed,
    encode_header,
    open_stream,
    read_header,
    seal_stream,
    wipe,
)

KEY = bytearray(range(32))
CHUNK = 16


def header_for(plaintext: bytes, chunk_bytes: int = CHUNK) -> SealedHeader:
    return SealedHeader("0190-key", "sae-alice", "Zürich/1", len(plaintext), chunk_bytes)


def seal(plaintext: bytes, key: bytearray = KEY) -> bytes:
    sink = io.BytesIO()
    seal_stream(io.BytesIO(plaintext), sink, key, header_for(plaintext))
    return sink.getvalue()


def unseal(sealed: bytes, key: bytearray = KEY) -> bytes:
    """As `bellhop open` does it, without the first check."""
    source, sink = io.BytesIO(sealed), io.BytesIO()
    open_stream(source, sink, key, read_header(source))
    return sink.getvalue()


def with_new_digest(sealed: bytes) -> bytes:
    """What an attacker makes of a file that he altered."""
    body = sealed[:-DIGEST_BYTES]
    return body + hashlib.sha256(body).digest()


@given(st.binary(max_size=5 * CHUNK))
def test_what_is_sealed_opens(plaintext: bytes) -> None:
    sealed = seal(plaintext)
    assert len(sealed) == header_for(plaintext).sealed_bytes
    source = io.BytesIO(sealed)
    assert check_sealed(source) == header_for(plaintext)
    sink = io.BytesIO()
    open_stream(source, sink, KEY, header_for(plaintext))
    assert sink.getvalue() == plaintext


def test_the_format_is_the_documented_one() -> None:
    plaintext = b"sixteen bytes ok" + b"tail"
    header = encode_header(header_for(plaintext))
    cipher = AESGCM(bytes(KEY))
    first = cipher.encrypt(bytes(11) + b"\0", plaintext[:16], header)
    last = cipher.encrypt(bytes(10) + b"\1" + b"\1", plaintext[16:], header)
    body = header + first + last
    assert seal(plaintext) == body + hashlib.sha256(body).digest()
    assert header.startswith(b"BHSEALED\x01")
    assert "Zürich/1".encode() in header


@given(st.binary(max_size=3 * CHUNK), st.data())
def test_any_altered_byte_is_found_without_and_with_the_key(
    plaintext: bytes, data: st.DataObject
) -> None:
    sealed = bytearray(seal(plaintext))
    at = data.draw(st.integers(0, len(sealed) - DIGEST_BYTES - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RequestError):
        check_sealed(io.BytesIO(sealed))
    with pytest.raises(RequestError):
        unseal(with_new_digest(bytes(sealed)))


@given(st.binary(max_size=3 * CHUNK), st.data())
def test_any_cut_is_found_before_the_key_is_fetched(plaintext: bytes, data: st.DataObject) -> None:
    sealed = seal(plaintext)
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    with pytest.raises(DamagedFileError):
        check_sealed(io.BytesIO(cut))


def test_bytes_after_the_end_are_found() -> None:
    with pytest.raises(DamagedFileError, match="too long"):
        check_sealed(io.BytesIO(seal(b"text") + b"x"))


def test_an_attacker_can_neither_swap_drop_nor_repeat_chunks() -> None:
    plaintext = b"one sixteen byte" * 2 + b"the last is less"
    sealed = seal(plaintext)
    start = len(encode_header(header_for(plaintext)))
    step = CHUNK + TAG_BYTES
    one, two, three = (sealed[start + i * step : start + (i + 1) * step] for i in range(3))
    for chunks in ([two, one, three], [one, three, two], [one, one, three], [one, two, two]):
        altered = with_new_digest(sealed[:start] + b"".join(chunks) + bytes(DIGEST_BYTES))
        check_sealed(io.BytesIO(altered))  # the digest is right, so only the key can tell
        with pytest.raises(DamagedFileError, match="altered"):
            unseal(altered)


def test_an_attacker_cannot_cut_off_whole_chunks() -> None:
    plaintext = bytes(3 * CHUNK)
    sealed = seal(plaintext)
    long, short = header_for(plaintext), header_for(plaintext[:CHUNK])
    start = len(encode_header(long))
    kept = sealed[start : start + CHUNK + TAG_BYTES]
    altered = with_new_digest(encode_header(short) + kept + bytes(DIGEST_BYTES))
    check_sealed(io.BytesIO(altered))
    with pytest.raises(DamagedFileError, match="altered"):
        unseal(altered)


@pytest.mark.parametrize("field", ["key_id", "master_sae", "slave_sae"])
def test_an_attacker_cannot_rename_the_parties(field: str) -> None:
    header = header_for(b"text")
    body = seal(b"text")[len(encode_header(header)) :]
    renamed = replace(header, **{field: "mallory"})  # type: ignore[arg-type]  # text fields only
    with pytest.raises(DamagedFileError):
        unseal(with_new_digest(encode_header(renamed) + body))


def test_another_key_opens_nothing() -> None:
    with pytest.raises(DamagedFileError, match="another key"):
        unseal(seal(b"text"), bytearray(32))


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_size_is_refused(length: int) -> None:
    with pytest.raises(RequestError, match="256 bits"):
        seal(b"text", bytearray(length))


def test_a_file_that_changes_while_it_is_sealed() -> None:
    for plaintext, what in ((b"tex", "shorter"), (b"text!", "longer")):
        with pytest.raises(RequestError, match=what):
            seal_stream(io.BytesIO(plaintext), io.BytesIO(), KEY, header_for(b"text"))


@pytest.mark.parametrize("content", [b"", b"BHSEALE", b"PK\3\4" + bytes(40), b"BHSEALED"])
def test_other_files_are_not_taken_for_sealed_ones(content: bytes) -> None:
    with pytest.raises(DamagedFileError, match="not a sealed file"):
        read_header(io.BytesIO(content))


def test_a_newer_version_is_not_called_damaged() -> None:
    sealed = bytearray(seal(b"text"))
    sealed[8] = 2
    with pytest.raises(RequestError, match="newer"):
        read_header(io.BytesIO(sealed))


@given(st.binary(max_size=80))
def test_no_header_surprises_the_reader(rest: bytes) -> None:
    start = b"BHSEALED\x01" + len(rest).to_bytes(2, "big")
    with pytest.raises(DamagedFileError):
        check_sealed(io.BytesIO(start + rest))


def test_progress_counts_the_plaintext() -> None:
    done: list[int] = []
    plaintext = bytes(40)
    sink = io.BytesIO()
    seal_stream(io.BytesIO(plaintext), sink, KEY, header_for(plaintext), done.append)
    assert done == [16, 16, 8]


def test_wiping_leaves_zeros() -> None:
    secret = bytearray(b"secret")
    wipe(secret)
    assert secret == bytes(6)
