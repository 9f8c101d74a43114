"""A long Toeplitz product over GF(2) by the processor's carry-less multiplication, exactly.

Words of 64 bits are polynomials, bit k the coefficient of x^k. Output bit i of the Toeplitz hash
is coefficient n - 1 + i of the product of the seed's polynomial and the string's. With the string
moved up so that this coefficient is a whole word's first for i = 0, and with its words in reverse
order, the product's words are a correlation

    sums[i] = sum over m of seed[i + m] string[m],

whose entries are polynomials of degree up to 126, two words each: output word i is the low word of
sums[i] plus the high word of sums[i - 1].

The correlation's matrix [i, m] -> seed[i + m] is cut into square blocks, and each block of 2 h by
2 h words into halves (A B; B C), whose product costs three half-sized ones instead of four:

    (A + B) x,   B (x + y),   (B + C) y

add up to A x + B y and B x + C y (Karatsuba, transposed: Winograd; Fan and Hasan, IEEE Trans.
Comput. 56, 224 (2007)). Blocks on one anti-diagonal have the same matrix, and products are added up
before they are put together again.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bellhop.stack.diqkd.carryless_kernels import LEAF_WORDS, Words, correlate

Bits = NDArray[np.uint8]

WORD_BITS: Final = 64
HALVINGS_MAX: Final = 9
# Cost of handling a word once in a tree of halves, in products: 0.5 ns beside 0.1.
_TREE_COST: Final = 5
_TOGETHER: Final = 2


def toeplitz_words(bits: Bits, seed_bits: Bits, output_bits: int) -> Bits:
    """`amplify.toeplitz_hash`, for a processor that multiplies without carries."""
    up = (1 - bits.size) % WORD_BITS
    string = _words(bits, up)[::-1]
    # One word of zeros more in front gives the sum whose high word the first output needs.
    count = -(-output_bits // WORD_BITS) + 1
    seed = _words(seed_bits, WORD_BITS)
    sums = correlation(seed, string, count, halvings(count, string.size))
    outputs = sums[1:, 0] ^ sums[:-1, 1]
    return np.unpackbits(outputs.view(np.uint8), count=output_bits, bitorder="little")


def correlation(seed: Words, string: Words, count: int, depth: int) -> Words:
    """The first `count` sums over m of seed[i + m] string[m], shape (count, 2), low word first.

    The seed counts as zero beyond its end. Blocks are halved `depth` times.
    """
    block = LEAF_WORDS << depth
    rows, columns = -(-count // block), -(-string.size // block)
    strings = list(_leaves(_split_strings, _cut(string, columns, block, block), depth))
    windows = _leaves(_split_windows, _cut(seed, rows + columns - 1, block, 2 * block), depth)
    sums = np.zeros((rows, 3**depth, 2 * LEAF_WORDS), dtype=np.uint64)
    for diagonal, window in enumerate(windows):
        for row in range(max(0, diagonal - columns + 1), min(rows, diagonal + 1)):
            correlate(window, strings[diagonal - row], sums[row])
    joined = _join_sums(sums, depth).reshape(-1, 2, LEAF_WORDS // 2, 2)
    return np.ascontiguousarray(joined.transpose(0, 2, 1, 3)).reshape(-1, 2)[:count]


def halvings(count: int, size: int) -> int:
    """How often to halve a block: the least work for `count` sums over `size` words."""

    def cost(depth: int) -> int:
        block = LEAF_WORDS << depth
        rows, columns = -(-count // block), -(-size // block)
        leaves: int = 3**depth * LEAF_WORDS
        trees = 3 * columns + 4 * (rows + columns) + 4 * rows
        return leaves * (rows * columns * LEAF_WORDS + _TREE_COST * trees)

    return min(range(HALVINGS_MAX + 1), key=cost)


def _words(bits: Bits, zeros: int) -> Words:
    """Bits as words, the low bit first, behind so many zeros."""
    packed = np.packbits(bits, bitorder="little")
    plain = np.zeros(-(-bits.size // WORD_BITS), dtype="<u8")
    plain.view(np.uint8)[: packed.size] = packed
    whole, part = divmod(zeros, WORD_BITS)
    words = np.zeros(-(-(zeros + bits.size) // WORD_BITS), dtype=np.uint64)
    words[whole : whole + plain.size] = plain << np.uint64(part)
    if part:
        above = words[whole + 1 :]
        above |= plain[: above.size] >> np.uint64(WORD_BITS - part)
    return words


def _cut(words: Words, count: int, step: int, size: int) -> Words:
    """Pieces of `size` words, one every `step`, shape (count, size); zeros beyond the end."""
    padded = np.zeros((count - 1) * step + size, dtype=np.uint64)
    kept = min(padded.size, words.size)
    padded[:kept] = words[:kept]
    return sliding_window_view(padded, size)[::step]


def _leaves(split: Callable[[Words, int], Words], blocks: Words, depth: int) -> Iterator[Words]:
    """The leaves of each block; a few blocks at a time, so that the levels stay in the caches."""
    for start in range(0, len(blocks), _TOGETHER):
        yield from split(blocks[start : start + _TOGETHER], depth)


def _split_strings(strings: Words, depth: int) -> Words:
    """The leaves x, x + y, y of strings (c, block), level by level: shape (c, leaves, words)."""
    count = len(strings)
    for _ in range(depth):
        half = strings.shape[1] // 2
        split = np.empty((len(strings), 3, half), dtype=np.uint64)
        x, y = strings[:, :half], strings[:, half:]
        split[:, 0], split[:, 2] = x, y
        np.bitwise_xor(x, y, out=split[:, 1])
        strings = split.reshape(-1, half)
    return np.ascontiguousarray(strings).reshape(count, -1, LEAF_WORDS)


def _split_windows(windows: Words, depth: int) -> Words:
    """The leaves A + B, B, B + C of windows of two blocks each: shape (c, leaves, 2 words)."""
    count = len(windows)
    for _ in range(depth):
        half = windows.shape[1] // 2
        split = np.empty((len(windows), 3, half), dtype=np.uint64)
        middle = windows[:, half // 2 : half // 2 + half]
        np.bitwise_xor(windows[:, :half], middle, out=split[:, 0])
        split[:, 1] = middle
        np.bitwise_xor(windows[:, half:], middle, out=split[:, 2])
        windows = split.reshape(-1, half)
    return np.ascontiguousarray(windows).reshape(count, -1, 2 * LEAF_WORDS)


def _join_sums(sums: Words, depth: int) -> Words:
    """The sums of whole blocks from those of their leaves (rows, leaves, 2 words)."""
    for level in range(depth):
        parts = sums.reshape(-1, 3, 2 * LEAF_WORDS << level)
        sums = np.bitwise_xor(parts[:, :2], parts[:, 1:])
    return sums
