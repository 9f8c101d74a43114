"""GF(2^128) and polynomials over it, in the bit order of GHASH.

The field is GF(2)[x] / (x^128 + x^7 + x^2 + x + 1). An element is a 128-bit integer read from 16
bytes, most significant first, whose *most* significant bit is the coefficient of x^0 (NIST SP
800-38D, section 6.3). That order is taken because every library that speaks AES-GCM can then
check this one.

Table look-ups at places that depend on the point are not constant in time against somebody who
shares the processor's caches; a node's host is trusted (it holds the key anyway).
"""

from typing import Final

ELEMENT_BYTES: Final = 16
ELEMENT_BITS: Final = 8 * ELEMENT_BYTES
ONE: Final = 1 << (ELEMENT_BITS - 1)
_REDUCTION: Final = 0xE1 << (ELEMENT_BITS - 8)
_BYTE_VALUES: Final = 256

Tables = tuple[tuple[int, ...], ...]


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


def multiplication_tables(point: int) -> Tables:
    """Products with a fixed point: entry [k][v] is (byte value v at byte k of an element) * point.

    16 tables of 256 elements, 0.5 ms and 0.2 MB: made for each message rather than kept, since
    they are as secret as the point.
    """
    tables = []
    power = point
    for _ in range(ELEMENT_BYTES):
        table = [0] * _BYTE_VALUES
        for bit in range(7, -1, -1):
            table[1 << bit] = power
            power = times_x(power)
        for value in range(_BYTE_VALUES):
            lowest = value & -value
            table[value] = table[value ^ lowest] ^ table[lowest]
        tables.append(tuple(table))
    return tuple(tables)


def evaluate(point: int, coefficients: bytes) -> int:
    """The sum of c_k * point^(m - k + 1) over the 16-byte coefficients c_1 ... c_m (Horner).

    This is GHASH with hash key `point` (SP 800-38D, algorithm 2): the constant term is zero.
    """
    assert len(coefficients) % ELEMENT_BYTES == 0, "whole elements only"
    t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, ta, tb, tc, td, te, tf = multiplication_tables(point)
    value = 0
    # Unrolled: a loop over the tables doubles the time, and a transcript has 12,000 coefficients.
    for start in range(0, len(coefficients), ELEMENT_BYTES):
        coefficient = int.from_bytes(coefficients[start : start + ELEMENT_BYTES], "big")
        v = (value ^ coefficient).to_bytes(ELEMENT_BYTES, "big")
        value = t0[v[0]] ^ t1[v[1]] ^ t2[v[2]] ^ t3[v[3]] ^ t4[v[4]] ^ t5[v[5]] ^ t6[v[6]]
        value ^= t7[v[7]] ^ t8[v[8]] ^ t9[v[9]] ^ ta[v[10]] ^ tb[v[11]] ^ tc[v[12]]
        value ^= td[v[13]] ^ te[v[14]] ^ tf[v[15]]
    return value


def evaluate_bitwise(point: int, coefficients: bytes) -> int:
    """`evaluate` by bitwise products: its slow twin."""
    assert len(coefficients) % ELEMENT_BYTES == 0, "whole elements only"
    value = 0
    for start in range(0, len(coefficients), ELEMENT_BYTES):
        coefficient = int.from_bytes(coefficients[start : start + ELEMENT_BYTES], "big")
        value = multiply(value ^ coefficient, point)
    return value
