"""Privacy amplification: a Toeplitz matrix over GF(2) times the corrected string, exactly.

The l x n matrix is T[i, j] = seed[i - j + n - 1], so the seed has n + l - 1 bits: its bit n - 1 is
the matrix's upper left corner, the first column runs up the seed from there and the first row
down. With a uniform seed the family is 2-universal: for any two different strings the hashes
collide with probability 2^-l (Mansour, Nisan, Tiwari, STOC 1990; Krawczyk, CRYPTO '94).

The seed
  It is drawn after the last quantum round and after the decision to distil, and said only then: the
  leftover hash theorem takes a seed that is independent of the string and of all that an
  eavesdropper held when she prepared the states.
  It may be public. The hash is a strong extractor: the key is close to uniform together with
  the seed, which is why the seed is neither secret nor consumed.
  It serves one session. States of a later one can be prepared by somebody who has read it, so it is
  never used again for another.

Two ways to the same bits
  `carryless` multiplies words without carries, where the processor can: exact as it stands, and
  compared with direct sums at some outputs all the same, for compilers and processors err too.
  Elsewhere the product is a correlation of seed and string over the integers, by float64 Fourier
  transforms of blocks, reduced modulo 2. It counts as exact for two reasons checked
  at every call: no value lies further than 0.25 from an integer, and 64 outputs spread over the
  whole result agree, as integers, with direct sums.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]

DEVIATION_MAX: Final = 0.25
CHECKED_OUTPUTS: Final = 64
# Nothing is rounded there, and a direct sum takes as long as thousands of outputs.
CHECKED_CARRYLESS_OUTPUTS: Final = 8
# Rows of blocks that the outputs are cut into, and the shortest block: below, a transform costs
# mostly its call.
_ROWS: Final = 4
_BLOCK_MIN: Final = 1 << 13


class InexactProduct(AssertionError):
    """The fast product is not the true one: a defect of ours or of the machine."""


def seed_bits_needed(input_bits: int, output_bits: int) -> int:
    """The length of the seed of an l x n Toeplitz matrix, n + l - 1 bits."""
    assert input_bits > 0 and output_bits > 0
    return input_bits + output_bits - 1


def toeplitz_hash(bits: Bits, seed_bits: Bits, output_bits: int) -> Bits:
    """The product of the seed's Toeplitz matrix (l, n) and the bits (n,), modulo 2: shape (l,).

    `bits` and `seed_bits` hold one bit a byte. Raises `InexactProduct`, never a wrong bit that
    a check could see. Loads numba at the first call, and scipy on a processor that has no
    carry-less multiplication.
    """
    from bellhop.stack.diqkd.carryless_kernels import width

    by = toeplitz_hash_by_words if width() else toeplitz_hash_by_transforms
    return by(bits, seed_bits, output_bits)


def toeplitz_hash_by_words(bits: Bits, seed_bits: Bits, output_bits: int) -> Bits:
    """`toeplitz_hash` by carry-less multiplication; only for a processor that has it."""
    from bellhop.stack.diqkd.carryless import toeplitz_words

    _check_shapes(bits, seed_bits, output_bits)
    hashed = toeplitz_words(bits, seed_bits, output_bits)
    for place, direct in _direct_sums(bits, seed_bits, output_bits, CHECKED_CARRYLESS_OUTPUTS):
        if direct & 1 != int(hashed[place]):
            raise InexactProduct("a Toeplitz product differs from its direct sum")
    return hashed


def toeplitz_hash_by_transforms(bits: Bits, seed_bits: Bits, output_bits: int) -> Bits:
    """`toeplitz_hash` by Fourier transforms, for every processor. Needs scipy."""
    _check_shapes(bits, seed_bits, output_bits)
    return _checked_parities(bits, seed_bits, _correlate(bits, seed_bits, output_bits))


def toeplitz_hash_by_integers(bits: Bits, seed_bits: Bits, output_bits: int) -> Bits:
    """`toeplitz_hash` by one product of two big integers (Kronecker substitution): its slow twin.

    A 32-bit limb a bit, too wide for a carry to reach the next. Exact by construction.
    """
    _check_shapes(bits, seed_bits, output_bits)
    string = int.from_bytes(bits.astype("<u4").tobytes(), "little")
    seed = int.from_bytes(seed_bits.astype("<u4").tobytes(), "little")
    product = (string * seed).to_bytes(4 * (bits.size + seed_bits.size), "little")
    limbs = np.frombuffer(product, dtype="<u4")
    return (limbs[bits.size - 1 :][:output_bits] & 1).astype(np.uint8)


def _check_shapes(bits: Bits, seed_bits: Bits, output_bits: int) -> None:
    assert bits.ndim == seed_bits.ndim == 1, "strings of bits"
    assert bits.dtype == seed_bits.dtype == np.uint8, "one bit a byte"
    assert 0 < output_bits <= bits.size, "amplification shortens"
    assert seed_bits.size == seed_bits_needed(bits.size, output_bits), "seed of n + l - 1 bits"
    assert int(bits.max()) <= 1 and int(seed_bits.max()) <= 1, "bits are 0 or 1"


def _correlate(bits: Bits, seed_bits: Bits, output_bits: int) -> NDArray[np.float64]:
    """Outputs i: the sums over m of seed[i + m] bits[n - 1 - m], nearly integers.

    The matrix of them is cut into square blocks, of which those on one anti-diagonal are equal. A
    block meets twice its size of the seed; with the string filled up to that length no cyclic
    correlation wraps around where it counts. Spectra are added up along a row of blocks.
    """
    from scipy import fft

    block = int(fft.next_fast_len(max(-(-output_bits // _ROWS), _BLOCK_MIN), real=True))
    rows, columns = -(-output_bits // block), -(-bits.size // block)
    backwards = np.zeros(columns * block)
    backwards[: bits.size] = bits[::-1]
    seed = np.zeros((rows + columns) * block)
    seed[: seed_bits.size] = seed_bits
    strings = fft.rfft(backwards.reshape(columns, block), n=2 * block, axis=1)
    np.conjugate(strings, out=strings)
    sums = np.zeros((rows, block + 1), dtype=np.complex128)
    for diagonal in range(rows + columns - 1):
        window = fft.rfft(seed[diagonal * block :][: 2 * block])
        for row in range(max(0, diagonal - columns + 1), min(rows, diagonal + 1)):
            sums[row] += window * strings[diagonal - row]
    outputs = fft.irfft(sums, n=2 * block, axis=1, overwrite_x=True)[:, :block]
    product: NDArray[np.float64] = outputs.reshape(-1)[:output_bits]
    return product


def _checked_parities(bits: Bits, seed_bits: Bits, product: NDArray[np.float64]) -> Bits:
    """The products modulo 2, known to be integers and, at fixed places, the right ones.

    Integers are compared rather than parities: a broken transform is off by an even number as
    easily as by an odd one.
    """
    nearest = np.rint(product)
    # Written so that a not-a-number fails as well.
    if not float(np.abs(product - nearest).max()) <= DEVIATION_MAX:
        raise InexactProduct("a Toeplitz product is too far from an integer")
    counts = nearest.astype(np.int64)
    for place, direct in _direct_sums(bits, seed_bits, counts.size, CHECKED_OUTPUTS):
        if direct != int(counts[place]):
            raise InexactProduct("a Toeplitz product differs from its direct sum")
    return (counts & 1).astype(np.uint8)


def _direct_sums(
    bits: Bits, seed_bits: Bits, outputs: int, checked_max: int
) -> Iterator[tuple[int, int]]:
    """Integer outputs by their definition, at places spread evenly, both ends among them."""
    backwards = np.packbits(np.ascontiguousarray(bits[::-1]))
    both = np.zeros(-(-backwards.size // 8), dtype=np.uint64)
    met = both.view(np.uint8)[: backwards.size]
    for place in np.linspace(0, outputs - 1, min(checked_max, outputs)).astype(np.int64).tolist():
        np.bitwise_and(np.packbits(seed_bits[place : place + bits.size]), backwards, out=met)
        yield place, int(np.bitwise_count(both).sum(dtype=np.int64))
