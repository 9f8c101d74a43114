"""Who draws what, the flips a herald asks for, and the score, against their definitions."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from bellhop.hal.operations import BellState
from bellhop.node.chance import SeededRng
from bellhop.stack.diqkd.rounds import (
    KEY_SETTING_BOB,
    Score,
    draw_alice,
    draw_bob,
    draw_flips,
    expected_of_alice,
    flip_alice,
    flip_bob,
    score,
)

ROUNDS = 40_000


def test_alice_draws_tests_and_settings() -> None:
    tests, settings = draw_alice(SeededRng(1), Fraction(1, 4), ROUNDS)
    assert tests.dtype == np.bool_ and settings.dtype == np.uint8
    assert not settings[~tests].any(), "setting 0 makes the key"
    assert set(settings[tests].tolist()) == {0, 1}
    assert abs(np.count_nonzero(tests) - ROUNDS / 4) < 5 * (ROUNDS * 3 / 16) ** 0.5
    assert abs(int(settings.sum()) - ROUNDS / 8) < 5 * (ROUNDS / 8) ** 0.5


def test_bob_draws_for_the_tests_he_is_told() -> None:
    tests = np.arange(ROUNDS) % 4 == 0
    settings = draw_bob(SeededRng(2), tests)
    assert (settings[~tests] == KEY_SETTING_BOB).all()
    assert set(settings[tests].tolist()) == {0, 1}
    assert abs(int(settings[tests].sum()) - ROUNDS / 8) < 5 * (ROUNDS / 16) ** 0.5


def test_alice_flips_key_bits_alone_with_exactly_the_designs_probability() -> None:
    tests = np.arange(ROUNDS) % 4 == 0
    flips = draw_flips(SeededRng(3), Fraction(1, 8), tests)
    assert flips.dtype == np.bool_ and not flips[tests].any()
    keys = ROUNDS * 3 / 4
    assert abs(np.count_nonzero(flips) - keys / 8) < 5 * (keys * 7 / 64) ** 0.5
    assert not draw_flips(SeededRng(3), Fraction(0), tests).any()


def test_flips_move_no_other_draw() -> None:
    rng = SeededRng(4)
    alone = draw_alice(rng, Fraction(1, 4), 100)
    draw_flips(rng, Fraction(1, 8), alone[0])
    again = draw_alice(rng, Fraction(1, 4), 100)
    assert all((one == other).all() for one, other in zip(alone, again, strict=True))


# <zz> and <xx> of a Bell state: what two ends find along Z, and along X, relative to one another.
CORRELATIONS = {
    BellState.PHI_PLUS: (+1, +1),
    BellState.PHI_MINUS: (+1, -1),
    BellState.PSI_PLUS: (-1, +1),
    BellState.PSI_MINUS: (-1, -1),
}


@pytest.mark.parametrize("state", BellState)
@pytest.mark.parametrize("setting", [0, 1])
def test_flips_make_every_bell_state_look_like_phi_plus(state: BellState, setting: int) -> None:
    """Along Z (setting 0) and X (setting 1) both ends find equal bits after their flips."""
    sign = CORRELATIONS[state][setting]
    raw_a = np.array([0, 1], np.uint8)
    raw_b = raw_a if sign > 0 else 1 - raw_a
    settings, patterns = np.full(2, setting, np.uint8), np.full(2, state, np.uint8)
    bits_a = flip_alice(raw_a, settings, patterns)
    np.testing.assert_array_equal(bits_a, flip_bob(raw_b, patterns))


def test_a_guess_is_right_exactly_where_a_round_is_won() -> None:
    cases = np.array(list(product((0, 1), repeat=4)), np.uint8)
    a, b, x, y = cases.T
    won = (a ^ b) == (x & y)
    tests = np.ones(len(cases), np.bool_)
    np.testing.assert_array_equal(expected_of_alice(b, tests, x, y) == a, won)


def test_a_guess_of_a_key_round_is_bobs_own_bit() -> None:
    b = np.array([0, 1], np.uint8)
    settings = np.full(2, KEY_SETTING_BOB, np.uint8)
    guess = expected_of_alice(b, np.zeros(2, np.bool_), np.zeros(2, np.uint8), settings)
    np.testing.assert_array_equal(guess, b)


def test_score_counts_losses_in_tests_and_errors_elsewhere() -> None:
    bits = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.uint8)
    guess = np.array([0, 1, 0, 1, 1, 0, 1, 0], np.uint8)
    tests = np.array([1, 1, 1, 0, 0, 0, 0, 0], np.bool_)
    counts = score(bits, guess, tests)
    assert counts == Score(rounds=8, tests=3, losses=1, errors=3)
    assert counts.s == pytest.approx(8 * 2 / 3 - 4) and counts.qber == pytest.approx(3 / 5)


def test_quantum_and_classical_values_of_s() -> None:
    assert Score(rounds=100, tests=4, losses=1, errors=0).s == 2.0
    assert Score(rounds=100, tests=4, losses=0, errors=0).s == 4.0
    assert np.isnan(Score(rounds=3, tests=0, losses=0, errors=0).s)
    assert np.isnan(Score(rounds=3, tests=3, losses=0, errors=0).qber)
