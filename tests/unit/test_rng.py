"""Chance handed in: uniform bits, and choices of exactly the stated probability."""

from fractions import Fraction

import numpy as np
import pytest

from bellhop.node.chance import SeededRng
from bellhop.stack.rng import chosen, uniform_bits


class Listed:
    """A generator of the bytes it was given; asking for more or fewer than all is an error."""

    source = "a list"
    health = "none"

    def __init__(self, listed: bytes) -> None:
        self._listed = listed

    def child(self, *names: str | int) -> "Listed":
        return self

    def draw(self, count: int) -> bytes:
        assert count == len(self._listed)
        return self._listed


EVERY_WORD = np.arange(1 << 16, dtype="<u2").tobytes()


def test_every_bit_drawn_is_used_once() -> None:
    assert uniform_bits(Listed(b"\x05\x80"), 16).tolist() == [1, 0, 1] + 12 * [0] + [1]
    assert uniform_bits(Listed(b"\x05\x80"), 9).tolist() == [1, 0, 1] + 6 * [0]
    assert uniform_bits(Listed(b""), 0).size == 0


@pytest.mark.parametrize(
    "probability",
    [Fraction(0), Fraction(1, 65536), Fraction(13, 256), Fraction(1, 2), Fraction(1)],
)
def test_a_choice_has_exactly_its_probability(probability: Fraction) -> None:
    """Of all words that can be drawn exactly this share says yes."""
    yes = chosen(Listed(EVERY_WORD), probability, 1 << 16)
    assert Fraction(int(np.count_nonzero(yes)), 1 << 16) == probability


@pytest.mark.parametrize("probability", [Fraction(1, 3), Fraction(1, 1 << 17)])
def test_a_probability_that_cannot_be_exact_is_our_bug(probability: Fraction) -> None:
    with pytest.raises(AssertionError):
        chosen(Listed(b"\0\0"), probability, 1)


def test_a_draw_of_one_name_moves_none_of_another() -> None:
    one, other = SeededRng(7, "node"), SeededRng(7, "node")
    one.child("tests").draw(100)
    one.child("more").draw(3)
    assert one.child("settings").draw(16) == other.child("settings").draw(16)
    assert one.child("settings").draw(16) != other.child("tests").draw(16)
