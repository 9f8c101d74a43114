"""Carry-less products: the instruction at every width, the halves of blocks, and no instruction."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bellhop.stack.diqkd.amplify import (
    InexactProduct,
    seed_bits_needed,
    toeplitz_hash_by_integers,
    toeplitz_hash_by_transforms,
    toeplitz_hash_by_words,
)
from bellhop.stack.diqkd.carryless import correlation, halvings
from bellhop.stack.diqkd.carryless_kernels import LEAF_WORDS, Words, correlator, width

WORD = 2**64 - 1

needs_instruction = pytest.mark.skipif(
    width() == 0, reason="this processor has no carry-less multiplication"
)


def random_words(rng: np.random.Generator, *shape: int) -> Words:
    return rng.integers(0, WORD, shape, dtype=np.uint64, endpoint=True)


def carryless_product(a: int, b: int) -> int:
    """The definition, bit by bit."""
    return int(np.bitwise_xor.reduce([0, *((a << k) * (b >> k & 1) for k in range(64))], dtype="O"))


def direct_correlation(seed: Words, string: Words, count: int) -> list[int]:
    def entry(k: int) -> int:
        return int(seed[k]) if k < seed.size else 0

    sums = []
    for i in range(count):
        total = 0
        for m, word in enumerate(string.tolist()):
            total ^= carryless_product(entry(i + m), word)
        sums.append(total)
    return sums


@needs_instruction
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_leaf_is_its_definition_at_every_width(lanes: int) -> None:
    if lanes > width():
        pytest.skip("wider than this processor's")
    rng = np.random.default_rng(lanes)
    windows = random_words(rng, 3, 2 * LEAF_WORDS)
    strings = random_words(rng, 3, LEAF_WORDS)
    windows[1], strings[1] = WORD, WORD  # the widest products there are
    before = random_words(rng, 3, 2 * LEAF_WORDS)
    sums = before.copy()
    correlator(lanes)(windows, strings, sums)
    added = (sums ^ before).reshape(3, 2, LEAF_WORDS // 2, 2)
    for c in range(3):
        for i, direct in enumerate(direct_correlation(windows[c], strings[c], LEAF_WORDS)):
            low, high = added[c, i % 2, i // 2].tolist()
            assert low | high << 64 == direct


@needs_instruction
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    ("count", "size"), [(1, 1), (2, 1), (1, 16), (16, 17), (17, 16), (33, 70), (65, 5)]
)
def test_blocks_and_halves_give_the_direct_sums(count: int, size: int, depth: int) -> None:
    rng = np.random.default_rng(count + 100 * size)
    seed, string = random_words(rng, count + size - 1), random_words(rng, size)
    sums = correlation(seed, string, count, depth)
    found = [low | high << 64 for low, high in sums.tolist()]
    assert found == direct_correlation(seed, string, count)


@needs_instruction
@pytest.mark.parametrize("output_bits", [1, 63, 64, 65, 127, 128, 1023, 1024, 1025])
@pytest.mark.parametrize("extra", [0, 1, 62, 63, 64, 65, 1024])
def test_every_edge_of_a_word_agrees_with_both_twins(output_bits: int, extra: int) -> None:
    n = output_bits + extra
    rng = np.random.default_rng(2000 * n + output_bits)
    bits = rng.integers(0, 2, n, dtype=np.uint8)
    seed = rng.integers(0, 2, seed_bits_needed(n, output_bits), dtype=np.uint8)
    hashed = toeplitz_hash_by_words(bits, seed, output_bits)
    np.testing.assert_array_equal(hashed, toeplitz_hash_by_integers(bits, seed, output_bits))
    np.testing.assert_array_equal(hashed, toeplitz_hash_by_transforms(bits, seed, output_bits))


@needs_instruction
@pytest.mark.parametrize(
    ("n", "output_bits"), [(1_200_000, 134_000), (1_200_000, 320_000), (1_500_000, 660_000)]
)
def test_full_sizes_agree_with_the_transforms(n: int, output_bits: int) -> None:
    rng = np.random.default_rng(output_bits)
    bits = rng.integers(0, 2, n, dtype=np.uint8)
    seed = rng.integers(0, 2, seed_bits_needed(n, output_bits), dtype=np.uint8)
    np.testing.assert_array_equal(
        toeplitz_hash_by_words(bits, seed, output_bits),
        toeplitz_hash_by_transforms(bits, seed, output_bits),
    )


def test_larger_products_are_halved_more_often() -> None:
    depths = [halvings(words // 8, words) for words in (64, 1_000, 20_000, 400_000)]
    assert depths == sorted(depths) and depths[0] < depths[-1]


@needs_instruction
def test_a_wrong_output_in_the_sample_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first output is always in it."""
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2, 300, dtype=np.uint8)
    seed = rng.integers(0, 2, seed_bits_needed(300, 70), dtype=np.uint8)
    wrong = toeplitz_hash_by_integers(bits, seed, 70)
    wrong[0] ^= 1
    monkeypatch.setattr("bellhop.stack.diqkd.carryless.toeplitz_words", lambda *_: wrong)
    with pytest.raises(InexactProduct, match="direct sum"):
        toeplitz_hash_by_words(bits, seed, 70)


WITHOUT = """
import numpy as np
from bellhop.stack.diqkd import amplify, carryless_kernels
assert carryless_kernels.width() == 0
ones = np.ones(199, dtype=np.uint8)
for n in (150, 151):
    print(amplify.toeplitz_hash(ones[:n], ones, 200 - n).sum())
"""


@pytest.mark.parametrize("setting", [{"NUMBA_CPU_NAME": "generic"}, {"NUMBA_DISABLE_JIT": "1"}])
def test_a_target_without_the_instruction_takes_the_transforms(setting: dict[str, str]) -> None:
    """Whatever the processor can: what numba compiles for is what counts."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        env={**os.environ, **setting},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["0", "49"]), done.stderr
