"""Rounds as bytes of a fact: what was drawn, two bits where one does not do, what was answered."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.codec import join, pack, split, unpack
from bellhop.stack.link.block import Span, decode_span

Bits = NDArray[np.uint8]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Some rounds before they are measured; arrays of one entry a round.

    `settings` and `patterns` below 4.  `flips`: Alice's key bits that are flipped before use.
    """

    tests: Flags
    settings: Bits
    patterns: Bits
    flips: Flags
    span: Span

    def part(self, rounds: slice) -> "Drawn":
        return Drawn(
            self.tests[rounds],
            self.settings[rounds],
            self.patterns[rounds],
            self.flips[rounds],
            self.span,
        )

    def encode(self) -> bytes:
        return join(
            pack(self.tests),
            _two_bits(self.settings),
            _two_bits(self.patterns),
            pack(self.flips),
            self.span.encode(),
        )


def decode_drawn(payload: bytes, rounds: int) -> Drawn:
    tests, settings, patterns, flips, times = split(payload, 5)
    return Drawn(
        unpack(tests, rounds).astype(np.bool_),
        _of_two_bits(settings, rounds),
        _of_two_bits(patterns, rounds),
        unpack(flips, rounds).astype(np.bool_),
        decode_span(times),
    )


def encode_page(drawn: Drawn, outcomes: Bits) -> bytes:
    return join(drawn.encode(), pack(outcomes))


def decode_page(payload: bytes, rounds: int) -> tuple[Drawn, Bits]:
    drawn, outcomes = split(payload, 2)
    return decode_drawn(drawn, rounds), unpack(outcomes, rounds)


def _two_bits(values: Bits) -> bytes:
    return join(pack(values & np.uint8(1)), pack(values >> np.uint8(1)))


def _of_two_bits(packed: bytes, rounds: int) -> Bits:
    low, high = split(packed, 2)
    return unpack(low, rounds) | unpack(high, rounds) << np.uint8(1)
