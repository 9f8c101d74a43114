"""Laws of the hashes and of the cut, over inputs nobody chose."""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bellhop.hal.operations import NodeName
from bellhop.stack.diqkd.amplify import (
    Bits,
    toeplitz_hash,
    toeplitz_hash_by_integers,
    toeplitz_hash_by_transforms,
)
from bellhop.stack.diqkd.authenticate import coefficients, polynomial_hash, tag, verify_tag
from bellhop.stack.diqkd.field import (
    ELEMENT_BYTES,
    evaluate,
    evaluate_bitwise,
    multiply,
    power,
)
from bellhop.stack.keys.ledger import BLOCK_BYTES_MIN, cut_block

ELEMENTS = st.integers(0, 2**128 - 1)
HASH_KEYS = st.binary(min_size=16, max_size=16)
MASKS = st.binary(min_size=8, max_size=8)
MESSAGES = st.binary(max_size=300)
NAMES = st.text(max_size=8)
NODES = st.tuples(NAMES, NAMES).filter(lambda nodes: nodes[0] != nodes[1])


@st.composite
def toeplitz_cases(draw: st.DrawFn) -> tuple[Bits, Bits, Bits, int]:
    """Two strings, a seed and an output length that fit together."""
    n = draw(st.integers(1, 400) | st.integers(1, 3000))
    output_bits = draw(st.integers(1, n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = (n, n, n + output_bits - 1)
    one, two, seed = (rng.integers(0, 2, size, dtype=np.uint8) for size in sizes)
    return one, two, seed, output_bits


@given(ELEMENTS, ELEMENTS, ELEMENTS)
def test_field_laws(a: int, b: int, c: int) -> None:
    assert multiply(a, b) == multiply(b, a)
    assert multiply(a, multiply(b, c)) == multiply(multiply(a, b), c)
    assert multiply(a, b ^ c) == multiply(a, b) ^ multiply(a, c)


@given(ELEMENTS, ELEMENTS)
def test_field_has_no_zero_divisors(a: int, b: int) -> None:
    assert (multiply(a, b) == 0) == (a == 0 or b == 0)


@given(ELEMENTS, MESSAGES)
def test_folds_agree_with_bitwise_products(point: int, message: bytes) -> None:
    padded = coefficients(message)
    assert evaluate(point, padded) == evaluate_bitwise(point, padded)


@settings(max_examples=20, deadline=None)  # the slow twin is slow
@given(ELEMENTS, st.integers(0, 400), st.integers(0, 2**32))
def test_folds_of_folds_agree_with_bitwise_products(point: int, count: int, seed: int) -> None:
    """More than 16 * 16 coefficients are folded twice, and more than 8 values of it again."""
    message = np.random.default_rng(seed).bytes(ELEMENT_BYTES * count)
    assert evaluate(point, message) == evaluate_bitwise(point, message)


@given(ELEMENTS, st.integers(0, 7))
def test_powers_are_repeated_products(a: int, doublings: int) -> None:
    expected = a
    for _ in range(2**doublings - 1):
        expected = multiply(expected, a)
    assert power(a, 2**doublings) == expected


@given(HASH_KEYS, st.binary(min_size=12, max_size=12), MESSAGES)
def test_hash_is_ghash(key: bytes, nonce: bytes, message: bytes) -> None:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    hash_key = encryptor.update(bytes(16))
    blind = encryptor.update(nonce + b"\0\0\0\1")
    gmac = AESGCM(key).encrypt(nonce, b"", message)
    expected = int.from_bytes(gmac, "big") ^ int.from_bytes(blind, "big")
    assert polynomial_hash(hash_key, message) == expected


@given(MESSAGES, MESSAGES)
def test_different_messages_have_different_coefficients(one: bytes, two: bytes) -> None:
    assert (coefficients(one) == coefficients(two)) == (one == two)


@given(HASH_KEYS, MESSAGES, MESSAGES)
def test_hash_is_linear_in_messages_of_one_length_but_for_the_length(
    key: bytes, one: bytes, two: bytes
) -> None:
    size = min(len(one), len(two))
    one, two = one[:size], two[:size]
    both = bytes(a ^ b for a, b in zip(one, two, strict=True))
    zero = polynomial_hash(key, bytes(size))
    assert polynomial_hash(key, both) == (
        polynomial_hash(key, one) ^ polynomial_hash(key, two) ^ zero
    )


@given(HASH_KEYS, MASKS, MESSAGES, MESSAGES)
def test_a_tag_speaks_for_one_message(key: bytes, mask: bytes, one: bytes, two: bytes) -> None:
    assume(one != two and any(key))  # the zero key is one in 2^128, and counted by the bound
    genuine = tag(key, mask, one)
    assert verify_tag(key, mask, one, genuine)
    difference = polynomial_hash(key, one) ^ polynomial_hash(key, two)
    assert verify_tag(key, mask, two, genuine) == (difference >> 64 == 0)


@given(MASKS, MASKS, HASH_KEYS, MESSAGES)
def test_masks_shift_tags(one: bytes, two: bytes, key: bytes, message: bytes) -> None:
    """For a fixed message and hash key a uniform mask gives a uniform tag: the map is a shift."""
    shift = int.from_bytes(one, "big") ^ int.from_bytes(two, "big")
    tags = [int.from_bytes(tag(key, mask, message), "big") for mask in (one, two)]
    assert tags[0] ^ tags[1] == shift


@settings(deadline=None)  # the first call loads numba, scipy
@given(toeplitz_cases())
def test_toeplitz_agrees_with_its_twins_and_is_linear(
    case: tuple[Bits, Bits, Bits, int],
) -> None:
    one, two, seed, output_bits = case
    hash_one = toeplitz_hash(one, seed, output_bits)
    np.testing.assert_array_equal(hash_one, toeplitz_hash_by_integers(one, seed, output_bits))
    np.testing.assert_array_equal(hash_one, toeplitz_hash_by_transforms(one, seed, output_bits))
    hash_two = toeplitz_hash(two, seed, output_bits)
    np.testing.assert_array_equal(toeplitz_hash(one ^ two, seed, output_bits), hash_one ^ hash_two)


@settings(deadline=None)  # the first call loads numba, scipy
@given(toeplitz_cases(), st.integers(0, 2**32))
def test_toeplitz_is_linear_in_the_seed(case: tuple[Bits, Bits, Bits, int], other: int) -> None:
    string, _, seed, output_bits = case
    second = np.random.default_rng(other).integers(0, 2, seed.size, dtype=np.uint8)
    np.testing.assert_array_equal(
        toeplitz_hash(string, seed ^ second, output_bits),
        toeplitz_hash(string, seed, output_bits) ^ toeplitz_hash(string, second, output_bits),
    )


@given(
    st.binary(min_size=BLOCK_BYTES_MIN, max_size=BLOCK_BYTES_MIN + 400),
    NAMES,
    NAMES,
    NODES.map(lambda nodes: (NodeName(nodes[0]), NodeName(nodes[1]))),
)
def test_every_bit_of_a_block_has_one_use(
    block: bytes, link: str, session: str, nodes: tuple[NodeName, NodeName]
) -> None:
    cut = cut_block(block, link, session, nodes, tag_bits_spent=512)
    keys = b"".join(slot.key for slot in cut.slots)
    masks = b"".join(cut.alice_masks + cut.bob_masks)
    discarded = cut.discarded_bits // 8
    assert 0 <= discarded < 32
    assert masks + block[64:96] + keys + block[len(block) - discarded :] == block
    assert cut.net_bits == cut.deliverable_bits + cut.discarded_bits
    issued = [sum(slot.issuer == node for slot in cut.slots) for node in sorted(nodes)]
    assert sum(issued) == len(cut.slots) and issued[0] - issued[1] in (0, 1)
    turned = cut_block(block, link, session, (nodes[1], nodes[0]), tag_bits_spent=512)
    assert turned.slots == cut.slots
