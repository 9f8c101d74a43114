"""Wegman-Carter tags: the field, the polynomial hash, masks, tampering, and the stated bound."""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bellhop.stack.diqkd.authenticate import (
    MESSAGE_BYTES_MAX,
    coefficient_count,
    coefficients,
    forgery_probability,
    polynomial_hash,
    tag,
    verify_tag,
)
from bellhop.stack.diqkd.field import ONE, evaluate, evaluate_bitwise, multiply, times_x

HASH_KEY = bytes(range(16))
MASK = bytes(range(0xA0, 0xA8))
MESSAGE = b"the settings of Alice, then those of Bob"


def aes_block(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # one block: the bare cipher
    return encryptor.update(block) + encryptor.finalize()


def ghash_of_the_library(key: bytes, message: bytes) -> tuple[bytes, int]:
    """A hash key and GHASH under it, taken out of AES-GCM: tag = GHASH xor AES_K(nonce || 1)."""
    nonce = b"twelve bytes"
    gmac = AESGCM(key).encrypt(nonce, b"", message)
    blind = aes_block(key, nonce + (1).to_bytes(4, "big"))
    return aes_block(key, bytes(16)), int.from_bytes(gmac, "big") ^ int.from_bytes(blind, "big")


def test_ghash_vector_of_the_gcm_specification() -> None:
    """McGrew and Viega, The Galois/Counter Mode of Operation (GCM), appendix B, test case 2."""
    hash_key = 0x66E94BD4EF8A2C3B884CFA59CA342B2E
    ciphertext = bytes.fromhex("0388dace60b6a392f328c2b971b2fe78")
    lengths = (0).to_bytes(8, "big") + (128).to_bytes(8, "big")
    assert evaluate(hash_key, ciphertext + lengths) == 0xF38CBB1AD69223DCC3457AE5B6B0F885


def test_one_is_neutral_and_x_has_the_field_s_order() -> None:
    a = int.from_bytes(MESSAGE[:16], "big")
    assert multiply(ONE, a) == multiply(a, ONE) == a
    assert multiply(times_x(ONE), a) == times_x(a)
    power = a
    for _ in range(128):  # the Frobenius map, 128 times, is the identity of GF(2^128)
        power = multiply(power, power)
    assert power == a


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 1000, 190_001])
def test_hash_is_the_library_s_ghash(size: int) -> None:
    message = (MESSAGE * (size // len(MESSAGE) + 1))[:size]
    hash_key, expected = ghash_of_the_library(b"an AES key of 16", message)
    assert polynomial_hash(hash_key, message) == expected


def test_tables_agree_with_bitwise_products() -> None:
    point = int.from_bytes(HASH_KEY, "big")
    padded = coefficients(MESSAGE * 20)
    assert evaluate(point, padded) == evaluate_bitwise(point, padded)


def test_golden_tags() -> None:
    """A change here breaks tags between versions of the program."""
    assert polynomial_hash(HASH_KEY, b"") == 0
    assert f"{polynomial_hash(HASH_KEY, MESSAGE):032x}" == "713bf6a4b712ac42a8c0299b7a43c346"
    assert tag(HASH_KEY, MASK, MESSAGE).hex() == "d19a540713b70ae5"


def test_tag_is_the_leading_half_of_the_hash_under_the_mask() -> None:
    leading = polynomial_hash(HASH_KEY, MESSAGE) >> 64
    masked = (leading ^ int.from_bytes(MASK, "big")).to_bytes(8, "big")
    assert tag(HASH_KEY, MASK, MESSAGE) == masked


def test_a_genuine_tag_verifies() -> None:
    assert verify_tag(HASH_KEY, MASK, MESSAGE, tag(HASH_KEY, MASK, MESSAGE))


def test_every_changed_bit_of_the_message_is_seen() -> None:
    genuine = tag(HASH_KEY, MASK, MESSAGE)
    for bit in range(8 * len(MESSAGE)):
        changed = bytearray(MESSAGE)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify_tag(HASH_KEY, MASK, bytes(changed), genuine)


def test_every_changed_bit_of_tag_mask_and_key_is_seen() -> None:
    genuine = tag(HASH_KEY, MASK, MESSAGE)
    for bit in range(64):
        flip = 1 << bit
        other_tag = (int.from_bytes(genuine, "big") ^ flip).to_bytes(8, "big")
        other_mask = (int.from_bytes(MASK, "big") ^ flip).to_bytes(8, "big")
        assert not verify_tag(HASH_KEY, MASK, MESSAGE, other_tag)
        assert not verify_tag(HASH_KEY, other_mask, MESSAGE, genuine)
    for bit in range(128):
        other_key = (int.from_bytes(HASH_KEY, "big") ^ 1 << bit).to_bytes(16, "big")
        assert not verify_tag(other_key, MASK, MESSAGE, genuine)


def test_padding_is_injective() -> None:
    """Messages that zero padding alone would confuse."""
    messages = [bytes(k) for k in range(50)] + [MESSAGE + bytes(k) for k in range(50)]
    padded = {coefficients(message) for message in messages}
    assert len(padded) == len(messages)
    # All-zero messages give different tags too: only their lengths tell them apart.
    assert len({tag(HASH_KEY, MASK, message) for message in messages}) == len(messages)


def test_a_message_cannot_imitate_its_own_length_coefficient() -> None:
    closed = coefficients(MESSAGE)
    assert coefficients(closed) != closed
    assert not verify_tag(HASH_KEY, MASK, closed, tag(HASH_KEY, MASK, MESSAGE))


@pytest.mark.parametrize("received", [b"", b"1234567", b"123456789", bytes(16)])
def test_a_misshapen_tag_is_not_authentic(received: bytes) -> None:
    assert not verify_tag(HASH_KEY, MASK, MESSAGE, received)


def test_an_overlong_message_is_refused_not_hashed() -> None:
    longest = bytes(MESSAGE_BYTES_MAX + 1)
    assert not verify_tag(HASH_KEY, MASK, longest, bytes(8))
    with pytest.raises(AssertionError):
        tag(HASH_KEY, MASK, longest)


def test_wrong_sizes_of_secrets_are_our_own_defect() -> None:
    with pytest.raises(AssertionError):
        tag(HASH_KEY[:15], MASK, MESSAGE)
    with pytest.raises(AssertionError):
        tag(HASH_KEY, MASK + b"x", MESSAGE)


@pytest.mark.parametrize("size", [0, 1, 16, 17, 190_000])
def test_bound_counts_the_coefficients_there_are(size: int) -> None:
    degree = len(coefficients(bytes(size))) // 16
    assert coefficient_count(size) == degree
    assert forgery_probability(size) == degree / 2**64
    assert forgery_probability(size, tag_bits=128) == degree / 2**128


def test_bound_is_a_probability_and_small_for_the_largest_message() -> None:
    assert forgery_probability(190_000, tag_bits=1) == 1.0
    assert forgery_probability(MESSAGE_BYTES_MAX) < 1e-14
