"""The rounds of a session: who draws what, the flips a herald asks for, and the CHSH score.

Settings (arXiv:2109.14600): Alice 0 and 1 along Z and X; Bob 0 and 1 between them, 2 along Z.  A
generation round has settings (0, 2), a test round is uniform over {0, 1} x {0, 1}.  A test round is
won if the outcomes satisfy a xor b = x y.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import BellState
from bellhop.stack.rng import Rng, chosen, uniform_bits

KEY_SETTING_BOB = 2

Bits = NDArray[np.uint8]
Flags = NDArray[np.bool_]


def draw_alice(rng: Rng, test_probability: Fraction, rounds: int) -> tuple[Flags, Bits]:
    """Which rounds are tests, and Alice's settings: 0 in a generation round, uniform in a test."""
    tests = chosen(rng.child("tests"), test_probability, rounds)
    settings = uniform_bits(rng.child("settings"), rounds)
    return tests, np.where(tests, settings, 0).astype(np.uint8)


def draw_flips(rng: Rng, flip_probability: Fraction, tests: Flags) -> Flags:
    """Which key bits Alice flips before they are used (noisy preprocessing): none of a test."""
    if not flip_probability:
        return np.zeros_like(tests)
    return chosen(rng.child("flips"), flip_probability, len(tests)) & ~tests


def draw_bob(rng: Rng, tests: Flags) -> Bits:
    """Bob's settings: the key setting in a generation round, uniform over 0 and 1 in a test."""
    settings = uniform_bits(rng.child("settings"), len(tests))
    return np.where(tests, settings, KEY_SETTING_BOB).astype(np.uint8)


def flip_alice(outcomes: Bits, settings: Bits, patterns: Bits) -> Bits:
    """Alice's bits in the frame of Phi+: flipped with her setting for Psi+ and Phi-.

    Psi+ and Phi- have zz and xx of opposite sign; a flip of her X-like outcomes makes them equal.
    Either end may flip by the public herald: it is part of the black box.
    """
    opposite = (patterns == BellState.PSI_PLUS) | (patterns == BellState.PHI_MINUS)
    flips: Bits = (opposite & (settings == 1)).astype(np.uint8)
    return np.bitwise_xor(outcomes, flips)


def flip_bob(outcomes: Bits, patterns: Bits) -> Bits:
    """Bob's bits in the frame of Phi+: flipped for both Psi states, whose zz is negative."""
    flips: Bits = np.bitwise_and(patterns, np.uint8(1))
    return np.bitwise_xor(outcomes, flips)


def expected_of_alice(bits_b: Bits, tests: Flags, settings_a: Bits, settings_b: Bits) -> Bits:
    """Bob's guess of Alice's bits: his own, flipped where winning asks for unequal outcomes.

    It errs with the error rate of the key in generation rounds, with 1 - w in test rounds.
    """
    flips: Bits = (tests & (settings_a == 1) & (settings_b == 1)).astype(np.uint8)
    return np.bitwise_xor(bits_b, flips)


@dataclass(frozen=True, slots=True)
class Score:
    """What a run's rounds say, in counts."""

    rounds: int
    tests: int
    losses: int
    errors: int

    @property
    def s(self) -> float:
        """CHSH value of the observed winning frequency: 8 w - 4."""
        return 8 * (1 - self.losses / self.tests) - 4 if self.tests else float("nan")

    @property
    def qber(self) -> float:
        """Share of unequal bits among generation rounds."""
        generation = self.rounds - self.tests
        return self.errors / generation if generation else float("nan")


def score(bits_a: Bits, guess: Bits, tests: Flags) -> Score:
    """Counts from Alice's bits and Bob's guess of them (`expected_of_alice`)."""
    wrong = bits_a != guess
    return Score(
        rounds=len(bits_a),
        tests=int(np.count_nonzero(tests)),
        losses=int(np.count_nonzero(wrong & tests)),
        errors=int(np.count_nonzero(wrong & ~tests)),
    )
