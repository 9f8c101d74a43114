"""Decimal arithmetic in which keys' lengths are computed, the same on every machine.

Logarithms, exponentials and roots of decimals are correctly rounded by specification: two machines
that hold the same doubles find the same number of bits, whatever their mathematical library.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow

EXACT = Context(
    prec=60,
    rounding=ROUND_HALF_EVEN,
    Emin=-999_999,
    Emax=999_999,
    traps=[InvalidOperation, DivisionByZero, Overflow],
)
LN2 = EXACT.ln(Decimal(2))


def log2(x: Decimal) -> Decimal:
    """Within `EXACT`."""
    return x.ln() / LN2
