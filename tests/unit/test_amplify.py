"""Toeplitz hashing: the stated matrix, exactly, at every size; 2-universality counted out."""

import hashlib
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from bellhop.stack.diqkd import amplify
from bellhop.stack.diqkd.amplify import (
    Bits,
    InexactProduct,
    seed_bits_needed,
    toeplitz_hash,
    toeplitz_hash_by_integers,
    toeplitz_hash_by_transforms,
)


def random_bits(rng: np.random.Generator, size: int) -> Bits:
    return rng.integers(0, 2, size, dtype=np.uint8)


def by_matrix(bits: Bits, seed_bits: Bits, output_bits: int) -> Bits:
    """The definition, entry by entry: T[i, j] = seed[i - j + n - 1]."""
    n = bits.size
    rows = np.arange(output_bits)[:, None]
    columns = np.arange(n)[None, :]
    matrix = seed_bits[rows - columns + n - 1].astype(np.int64)
    outputs: Bits = (matrix @ bits.astype(np.int64) % 2).astype(np.uint8)
    return outputs


@pytest.mark.parametrize(
    ("n", "output_bits"),
    [(1, 1), (2, 1), (7, 7), (64, 1), (1000, 999), (3000, 250), (20_001, 37)],
)
def test_all_ways_agree(n: int, output_bits: int) -> None:
    rng = np.random.default_rng(n)
    bits = random_bits(rng, n)
    seed_bits = random_bits(rng, seed_bits_needed(n, output_bits))
    expected = by_matrix(bits, seed_bits, output_bits)
    for by in (toeplitz_hash, toeplitz_hash_by_transforms, toeplitz_hash_by_integers):
        np.testing.assert_array_equal(by(bits, seed_bits, output_bits), expected)


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("output_bits", [1500, 2**13, 2**13 + 1, 3 * 2**13 - 1])
def test_many_blocks_with_ragged_last_ones(output_bits: int, extra: int) -> None:
    """Short outputs are transformed in blocks of 2^13: the last are ragged or full."""
    n = 4 * 2**13 + extra
    rng = np.random.default_rng(n + output_bits)
    bits = random_bits(rng, n)
    seed_bits = random_bits(rng, seed_bits_needed(n, output_bits))
    np.testing.assert_array_equal(
        toeplitz_hash_by_transforms(bits, seed_bits, output_bits),
        toeplitz_hash_by_integers(bits, seed_bits, output_bits),
    )


def test_golden_hash() -> None:
    """A change here makes two versions of the program distil different keys."""
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(b"string").digest(1250), np.uint8))
    seed = np.unpackbits(np.frombuffer(hashlib.shake_256(b"seed").digest(1375), np.uint8))
    key = toeplitz_hash(bits, seed[: 10_000 + 256 - 1], 256)
    assert np.packbits(key).tobytes().hex() == (
        "2356deabfb79481681251afbbdd14abd0d94d48d6b79feb709ef72e29e5c9d76"
    )


def test_unit_strings_read_columns_of_the_matrix() -> None:
    rng = np.random.default_rng(5)
    n, output_bits = 40, 12
    seed_bits = random_bits(rng, seed_bits_needed(n, output_bits))
    for j in range(n):
        unit = np.zeros(n, dtype=np.uint8)
        unit[j] = 1
        column = seed_bits[n - 1 - j : n - 1 - j + output_bits]
        np.testing.assert_array_equal(toeplitz_hash(unit, seed_bits, output_bits), column)


def test_family_is_universal_counted_over_all_seeds() -> None:
    """Each non-zero difference of two strings is hashed to each value by just 2^-l of the seeds."""
    n, output_bits = 4, 3
    seeds = [np.array(s, dtype=np.uint8) for s in product((0, 1), repeat=n + output_bits - 1)]
    for difference in product((0, 1), repeat=n):
        if not any(difference):
            continue
        string = np.array(difference, dtype=np.uint8)
        hashes = [toeplitz_hash(string, seed, output_bits).tobytes() for seed in seeds]
        assert {hashes.count(value) for value in hashes} == {len(seeds) >> output_bits}
        assert len(set(hashes)) == 1 << output_bits


def test_full_size_against_direct_sums_and_for_balance() -> None:
    n, output_bits = 1_500_000, 150_000
    rng = np.random.default_rng(6)
    bits = random_bits(rng, n)
    seed_bits = random_bits(rng, seed_bits_needed(n, output_bits))
    key = toeplitz_hash(bits, seed_bits, output_bits)
    backwards = np.ascontiguousarray(bits[::-1])
    for i in rng.integers(0, output_bits, 100).tolist():
        assert np.count_nonzero(backwards & seed_bits[i : i + n]) % 2 == key[i]
    # Six standard deviations of a fair coin.
    assert abs(int(key.sum()) - output_bits / 2) < 6 * np.sqrt(output_bits) / 2


def test_all_ones_at_full_size_stay_exact() -> None:
    """The largest sums there are: every output counts all n bits."""
    n, output_bits = 1_500_001, 150_000
    seed_bits = np.ones(seed_bits_needed(n, output_bits), dtype=np.uint8)
    for by in (toeplitz_hash, toeplitz_hash_by_transforms):
        assert by(np.ones(n, dtype=np.uint8), seed_bits, output_bits).all()


def direct_sums() -> tuple[Bits, Bits, NDArray[np.float64]]:
    """A string, a seed and the 30 integers that a transform must come close to."""
    rng = np.random.default_rng(7)
    bits, seed_bits = random_bits(rng, 100), random_bits(rng, 129)
    sums = [float(np.count_nonzero(seed_bits[i : i + 100] & bits[::-1])) for i in range(30)]
    return bits, seed_bits, np.array(sums)


def test_rounding_noise_is_rounded_away() -> None:
    bits, seed_bits, sums = direct_sums()
    noise = np.random.default_rng(8).uniform(-0.24, 0.24, sums.size)
    parities = amplify._checked_parities(bits, seed_bits, sums + noise)
    np.testing.assert_array_equal(parities, by_matrix(bits, seed_bits, 30))


@pytest.mark.parametrize("place", range(30))
def test_a_wrong_sum_in_the_sample_is_caught(place: int) -> None:
    """Even by two, which would leave the parity as it is."""
    bits, seed_bits, sums = direct_sums()
    sums[place] += 2
    with pytest.raises(InexactProduct, match="direct sum"):
        amplify._checked_parities(bits, seed_bits, sums)


@pytest.mark.parametrize("error", [0.26, -0.26, 0.5, float("nan")])
def test_a_value_far_from_integers_is_caught(error: float) -> None:
    bits, seed_bits, sums = direct_sums()
    sums[11] += error
    with pytest.raises(InexactProduct, match="too far"):
        amplify._checked_parities(bits, seed_bits, sums)


@pytest.mark.parametrize(
    ("bits", "seed_size", "output_bits"),
    [
        (np.zeros(10, dtype=np.uint8), 13, 5),
        (np.zeros(10, dtype=np.uint8), 15, 5),
        (np.zeros(10, dtype=np.uint8), 20, 11),
        (np.zeros(10, dtype=np.uint8), 9, 0),
        (np.full(10, 2, dtype=np.uint8), 14, 5),
    ],
)
def test_misshapen_inputs_are_our_own_defect(bits: Bits, seed_size: int, output_bits: int) -> None:
    with pytest.raises(AssertionError):
        toeplitz_hash(bits, np.zeros(seed_size, dtype=np.uint8), output_bits)


def test_packed_bytes_are_not_taken_for_bits() -> None:
    packed = np.frombuffer(b"\xff" * 10, dtype=np.uint8)
    with pytest.raises(AssertionError):
        toeplitz_hash(packed, np.ones(14, dtype=np.uint8), 5)
