"""Verification: equal strings agree, any error is seen, and the bound counts what it must."""

import numpy as np
import pytest

from bellhop.stack.diqkd.authenticate import polynomial_hash
from bellhop.stack.diqkd.verify import (
    strings_agree,
    undetected_error_probability,
    verification_tag,
)

KEY = bytes(range(100, 116))


def packed_string(n_bits: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    return np.packbits(rng.integers(0, 2, n_bits, dtype=np.uint8)).tobytes()


def test_golden_tag() -> None:
    assert verification_tag(KEY, bytes(range(64))).hex() == "a6f3630245981fa9"


def test_tag_is_the_leading_half_of_the_hash() -> None:
    string = packed_string(1000, 1)
    assert int.from_bytes(verification_tag(KEY, string), "big") == (
        polynomial_hash(KEY, string) >> 64
    )


def test_equal_strings_agree_at_full_size() -> None:
    string = packed_string(1_500_000, 2)
    assert len(string) == 187_500
    assert strings_agree(KEY, string, verification_tag(KEY, string))


def test_a_single_wrong_bit_anywhere_is_seen() -> None:
    string = packed_string(1024, 3)
    genuine = verification_tag(KEY, string)
    for bit in range(1024):
        wrong = bytearray(string)
        wrong[bit // 8] ^= 1 << bit % 8
        assert not strings_agree(KEY, bytes(wrong), genuine)


def test_another_key_gives_another_tag() -> None:
    string = packed_string(1024, 4)
    tags = {verification_tag(bytes([k]) + KEY[1:], string) for k in range(256)}
    assert len(tags) == 256


@pytest.mark.parametrize("peer_tag", [b"", bytes(7), bytes(9)])
def test_a_misshapen_tag_agrees_with_nothing(peer_tag: bytes) -> None:
    assert not strings_agree(KEY, bytes(16), peer_tag)


def test_the_key_has_sixteen_bytes() -> None:
    with pytest.raises(AssertionError):
        verification_tag(KEY[:8], b"string")


@pytest.mark.parametrize(
    ("n_bits", "degree"), [(0, 1), (1, 2), (128, 2), (129, 3), (1_500_000, 11_720)]
)
def test_bound_is_degree_over_tags(n_bits: int, degree: int) -> None:
    assert undetected_error_probability(n_bits) == degree * 2.0**-64
    assert undetected_error_probability(n_bits, tag_bits=32) == degree * 2.0**-32


def test_bound_at_full_size_is_far_below_any_budget() -> None:
    assert undetected_error_probability(1_500_000) < 1e-15
