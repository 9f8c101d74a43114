"""Bits and byte strings in facts and tagged messages: exact bytes, one spelling a value."""

import numpy as np
import pytest

from bellhop.stack.codec import Malformed, join, pack, split, unpack


def test_bits_are_packed_low_bit_first_and_filled_with_zeros() -> None:
    bits = np.array([1, 0, 0, 0, 0, 0, 0, 1, 0, 1], np.uint8)
    assert pack(bits) == b"\x81\x02"
    assert pack(bits.astype(np.bool_)) == b"\x81\x02"
    assert pack(np.zeros(0, np.uint8)) == b""


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 1001])
def test_what_was_packed_is_unpacked(count: int) -> None:
    bits = np.random.default_rng(count).integers(0, 2, count, dtype=np.uint8)
    unpacked = unpack(pack(bits), count)
    assert unpacked.dtype == np.uint8
    np.testing.assert_array_equal(unpacked, bits)


@pytest.mark.parametrize(
    ("packed", "count"), [(b"", 1), (b"\0", 0), (b"\0\0", 8), (b"\0", 9), (b"\2", 1), (b"\x80", 7)]
)
def test_one_value_has_one_spelling(packed: bytes, count: int) -> None:
    with pytest.raises(Malformed):
        unpack(packed, count)


def test_byte_strings_stand_behind_their_lengths() -> None:
    assert join(b"ab", b"") == bytes(7) + b"\2ab" + bytes(8)
    assert join() == b""


@pytest.mark.parametrize("parts", [[], [b""], [b"ab", b"c"], [b"a", b"bc"], [b"", b"", b"abc"]])
def test_what_was_joined_is_split(parts: list[bytes]) -> None:
    assert split(join(*parts), len(parts)) == parts


def test_different_lists_never_read_alike() -> None:
    lists = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), (b"", b"abc")]
    assert len({join(*parts) for parts in lists}) == len(lists)


@pytest.mark.parametrize(
    ("joined", "count"),
    [
        (b"", 1),
        (bytes(7), 1),
        (bytes(7) + b"\2a", 1),
        (join(b"a"), 0),
        (join(b"a"), 2),
        (join(b"a", b"b"), 1),
        (b"\xff" * 8, 1),
        (b"\xff" * 16, 1),
    ],
)
def test_anything_else_is_malformed(joined: bytes, count: int) -> None:
    with pytest.raises(Malformed):
        split(joined, count)


def test_an_error_shows_nothing_of_the_bytes() -> None:
    secret = b"\x93\x5a\x93\x5a"
    with pytest.raises(Malformed) as caught:
        unpack(secret, 3)
    assert secret.hex() not in str(caught.value) and repr(secret)[2:-1] not in str(caught.value)
