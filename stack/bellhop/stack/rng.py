"""Chance, handed in: one generator a node, split by name so that a draw here moves none there."""

from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Rng(Protocol):
    """A source of uniform bytes.

    In a daemon it is the operating system's generator or a hardware one (device independence needs
    real input randomness); in a simulation it is seeded.  `source` says which, in a receipt.
    """

    @property
    def source(self) -> str: ...

    @property
    def health(self) -> str:
        """Which tests of it ran, in words."""
        ...

    def child(self, *names: str | int) -> "Rng":
        """The generator of that name: equal names give equal draws where draws can be repeated."""
        ...

    def draw(self, count: int) -> bytes:
        """`count` uniform bytes."""
        ...


def uniform_bits(rng: Rng, count: int) -> NDArray[np.uint8]:
    """`count` uniform bits, uint8 of 0 or 1."""
    raw = np.frombuffer(rng.draw((count + 7) // 8), dtype=np.uint8)
    return np.unpackbits(raw, count=count, bitorder="little")


def chosen(rng: Rng, probability: Fraction, count: int) -> NDArray[np.bool_]:
    """`count` independent yes or no; yes has exactly `probability`, of denominator dividing 2**16.

    Exactness matters: the theorem takes exact input distributions, and a bias of the test
    probability would cost entropy that nobody accounts for.
    """
    scale = 1 << 16
    assert scale % probability.denominator == 0, "checked where a session's parameters are"
    words = np.frombuffer(rng.draw(2 * count), dtype="<u2")
    return words < probability.numerator * (scale // probability.denominator)
