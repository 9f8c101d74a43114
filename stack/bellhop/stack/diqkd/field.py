"""GF(2^128) and polynomials over it, in the bit order of GHASH.

The field is GF(2)[x] / (x^128 + x^7 + x^2 + x + 1). An element is a 128-bit integer read from 16
bytes, most significant first, whose *most* significant bit is the coefficient of x^0 (NIST SP
800-38D, section 6.3). That order is taken because every library that speaks AES-GCM can then
check this one.

Table look-ups at places that depend on the point are not constant in time against somebody who
shares the processor's caches; a node's host is trusted (it holds the key anyway).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Elements = NDArray[np.uint64]  # (m, 2): the 16 bytes of m elements, as they stand in memory

ELEMENT_BYTES: Final = 16
ELEMENT_BITS: Final = 8 * ELEMENT_BYTES
ONE: Final = 1 << (ELEMENT_BITS - 1)
_REDUCTION: Final = 0xE1 << (ELEMENT_BITS - 8)
_BYTE_VALUES: Final = 256
_FOLD: Final = 16
"""Neighbouring coefficients that are folded into one: more fill the vectors worse, fewer need more
tables."""
_TOGETHER: Final = 1024
"""Groups that are folded at once: what is looked up for them stays in the processor's caches."""
_FEW: Final = 8
"""So many coefficients are multiplied bit by bit: a table takes as long."""
_TABLE_STARTS: Final = (_BYTE_VALUES * np.arange(ELEMENT_BYTES, dtype=np.intp))[:, None]


def times_x(a: int) -> int:
    """The product of an element and x."""
    return (a >> 1) ^ (_REDUCTION if a & 1 else 0)


def multiply(a: int, b: int) -> int:
    """The product of two elements, bit by bit (SP 800-38D, algorithm 1). Slow and obvious."""
    product = 0
    for shift in range(ELEMENT_BITS - 1, -1, -1):
        if (a >> shift) & 1:
            product ^= b
        b = times_x(b)
    return product


def evaluate(point: int, coefficients: bytes) -> int:
    """The sum of c_k * point^(m - k + 1) over the 16-byte coefficients c_1 ... c_m.

    This is GHASH with hash key `point` (SP 800-38D, algorithm 2): the constant term is zero.

    Horner's rule side by side: every 16 neighbours become the value of their own polynomial at the
    point, all groups at once; the values are the coefficients of a polynomial in point^16.
    """
    assert len(coefficients) % ELEMENT_BYTES == 0, "whole elements only"
    left = np.frombuffer(coefficients, dtype=np.uint64).reshape(-1, 2)
    folded = point
    while len(left) > _FEW:
        left = _fold(folded, left)
        folded = power(folded, _FOLD)
    value = 0
    for coefficient in left:
        value = multiply(value, folded) ^ int.from_bytes(coefficient.tobytes(), "big")
    return multiply(value, point)


def power(a: int, exponent: int) -> int:
    """An element to a power that is itself a power of two."""
    assert exponent > 0 and exponent & (exponent - 1) == 0
    for _ in range(exponent.bit_length() - 1):
        a = multiply(a, a)
    return a


def _fold(point: int, coefficients: Elements) -> Elements:
    """The values at the point of the polynomials of 16 neighbours each, the highest power first."""
    zeros = np.zeros((-len(coefficients) % _FOLD, 2), dtype=np.uint64)
    groups = np.concatenate((zeros, coefficients)).reshape(-1, _FOLD, 2)
    table = _table(point)
    values = np.empty((len(groups), 2), dtype=np.uint64)
    for start in range(0, len(groups), _TOGETHER):
        some = groups[start : start + _TOGETHER]
        value = some[:, 0].copy()
        for k in range(1, _FOLD):
            value = _times(table, value) ^ some[:, k]
        values[start : start + _TOGETHER] = value
    return values


def _table(point: int) -> NDArray[np.complex128]:
    """Products with the point: entry 256 k + v is (byte value v at byte k of an element) * point.

    64 kB, made for each message rather than kept, since it is as secret as the point. An entry
    rides as a complex number, numpy's one type of 16 bytes, and is never computed with as such.
    """
    multiples = bytearray()
    multiple = point
    for _ in range(ELEMENT_BITS):
        multiples += multiple.to_bytes(ELEMENT_BYTES, "big")
        multiple = times_x(multiple)
    of_bit = np.frombuffer(bytes(multiples), dtype=np.uint64).reshape(ELEMENT_BYTES, 8, 2)
    table = np.zeros((ELEMENT_BYTES, _BYTE_VALUES, 2), dtype=np.uint64)
    for bit in range(8):
        known = 1 << bit
        # The most significant bit of a byte is the lowest power of x.
        np.bitwise_xor(table[:, :known], of_bit[:, 7 - bit, None], out=table[:, known : 2 * known])
    return table.reshape(-1).view(np.complex128)


def _times(table: NDArray[np.complex128], elements: Elements) -> Elements:
    """The products of elements with a table's point."""
    places = elements.view(np.uint8).reshape(-1, ELEMENT_BYTES).T + _TABLE_STARTS
    parts = table.take(places).view(np.uint64).reshape(ELEMENT_BYTES, -1, 2)
    product: Elements = np.bitwise_xor.reduce(parts, axis=0)
    return product


def evaluate_bitwise(point: int, coefficients: bytes) -> int:
    """`evaluate` by bitwise products: its slow twin."""
    assert len(coefficients) % ELEMENT_BYTES == 0, "whole elements only"
    value = 0
    for start in range(0, len(coefficients), ELEMENT_BYTES):
        coefficient = int.from_bytes(coefficients[start : start + ELEMENT_BYTES], "big")
        value = multiply(value ^ coefficient, point)
    return value
