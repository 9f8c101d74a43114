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
  Elsewhere the product is a slice of the integer convolution of seed and string, by float64 Fourier
  transforms of pieces of the string, reduced modulo 2. It counts as exact for two reasons checked
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
# Below this length a transform costs mostly its call.
_TRANSFORM_LENGTH_MIN: Final = 1 << 14


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
    return _checked_parities(bits, seed_bits, _convolve(bits, seed_bits, output_bits))


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


def _convolve(bits: Bits, seed_bits: Bits, output_bits: int) -> NDArray[np.float64]:
    """Outputs n - 1 ... n + l - 2 of the convolution of seed and bits, nearly integers.

    A piece of p bits meets only l + p - 1 bits of the seed, and of their cyclic convolution of
    any length >= l + p - 1 the wanted l outputs are free of wrap-around. All pieces want the same
    places, so their spectra are added and one inverse transform ends the sum.

    Seed and piece share a complex transform: (u + iv) * (u + iv) has u * v twice in its imaginary
    part.
    """
    from scipy import fft

    n = bits.size
    wanted = max(min(3 * output_bits, n + output_bits - 1), _TRANSFORM_LENGTH_MIN)
    length = int(fft.next_fast_len(wanted))
    piece = length - output_bits + 1
    squares = np.zeros(length, dtype=np.complex128)
    for start in range(0, n, piece):
        part = bits[start : start + piece]
        # Where the column of the piece's last bit begins in the seed.
        first = n - start - part.size
        both = np.zeros(length, dtype=np.complex128)
        both.imag[: part.size] = part
        # Right-aligned, so that a short last piece puts its outputs where the others do.
        both.real[piece - part.size :] = seed_bits[first : first + part.size + output_bits - 1]
        spectrum = fft.fft(both, overwrite_x=True)
        spectrum *= spectrum
        squares += spectrum
    outputs = fft.ifft(squares, overwrite_x=True).imag[piece - 1 : piece - 1 + output_bits] / 2
    product: NDArray[np.float64] = outputs
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
