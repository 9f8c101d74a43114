"""The bounds by name: what each is worth, says of itself, and refuses."""

from dataclasses import replace
from fractions import Fraction

import pytest

from bellhop.stack.diqkd.bounds.chsh import losses_max, threshold_probability
from bellhop.stack.diqkd.bounds.design import EAT, FILTERED, RENYI, CertifiedDesign, Design
from bellhop.stack.diqkd.bounds.eat import EatProblem, evaluate
from bellhop.stack.diqkd.bounds.eat_choice import optimise
from bellhop.stack.diqkd.bounds.library import (
    DEFAULT,
    THEOREMS,
    Bound,
    EatBound,
    FilteredBound,
    RenyiBound,
    Shown,
)

DESIGN = Design(1.001, 0.10, 16.0, -65.0)
MADE_FOR = (1_200_000, 2.612, 0.03)
RENYI_DESIGN = CertifiedDesign("test", RENYI, DESIGN, True, 0.38226633, MADE_FOR)
FILTERED_DESIGN = CertifiedDesign("test", FILTERED, DESIGN, True, 0.36079875, MADE_FOR)
SHOWN = Shown(1_200_000, 120_000, 21_000, 300_000 + 64 + 10)


def eat_bound() -> EatBound:
    gamma = Fraction(13, 256)
    threshold = threshold_probability(10_000_000, gamma, 2.64)
    problem = EatProblem(10_000_000, gamma, threshold, 2_000_000, 1e-10, "two-universal", 2**-40)
    return EatBound(problem, optimise(problem))


def test_the_known_runs() -> None:
    assert RenyiBound(RENYI_DESIGN, 1e-10).key_bits(SHOWN) == 264_113
    assert FilteredBound(FILTERED_DESIGN, 1e-10).key_bits(SHOWN) == 318_633


def test_every_bit_said_and_every_loss_is_paid() -> None:
    bound = RenyiBound(RENYI_DESIGN, 1e-10)
    said_more = replace(SHOWN, leak_bits=SHOWN.leak_bits + 1000)
    assert bound.key_bits(SHOWN) - bound.key_bits(said_more) == 1000
    assert bound.key_bits(replace(SHOWN, losses=21_001)) < bound.key_bits(SHOWN)
    assert RenyiBound(RENYI_DESIGN, 1e-12).key_bits(SHOWN) < bound.key_bits(SHOWN)


def test_no_tests_no_test_string() -> None:
    certified = replace(RENYI_DESIGN, design=replace(DESIGN, alpha=1 + 2**-10), kappa=0.5)
    assert RenyiBound(certified, 0.5).key_bits(Shown(10_000, 0, 0, 0)) == 5_000 + 2 - 1025


def test_a_key_is_never_longer_than_the_string() -> None:
    bound = RenyiBound(RENYI_DESIGN, 1e-10)
    assert bound.key_bits(Shown(1_200_000, 200_000, 0, 0)) == 1_200_000


def test_fixed_length_and_threshold() -> None:
    bound = eat_bound()
    most = losses_max(bound.problem.rounds, bound.problem.gamma, bound.problem.threshold)
    shown = Shown(10_000_000, 507_000, most, 2_000_000)
    planned = evaluate(bound.problem, bound.choice).key_bits
    assert bound.key_bits(shown) == planned > 0
    assert bound.key_bits(replace(shown, losses=0, leak_bits=0)) == planned
    assert bound.key_bits(replace(shown, losses=most + 1)) == 0
    assert bound.key_bits(replace(shown, leak_bits=2_000_001)) == 0
    with pytest.raises(ValueError, match="10000000 rounds"):
        bound.key_bits(replace(shown, rounds=9_999_999))


def test_each_says_what_it_rests_on() -> None:
    bounds: list[Bound] = [
        RenyiBound(RENYI_DESIGN, 1e-10),
        FilteredBound(FILTERED_DESIGN, 1e-10),
        eat_bound(),
    ]
    assert [bound.name for bound in bounds] == [RENYI, FILTERED, EAT] == list(THEOREMS)
    assert DEFAULT == RENYI
    for bound, source in zip(bounds, ("2405.05912", "UNREFEREED", "2109.14600v2"), strict=True):
        assert source in bound.theorem
        assert set(THEOREMS[bound.name].assumptions) <= set(bound.assumptions)
        assert bound.refereed == (bound.name != FILTERED) == ("unrefereed" not in bound.name)


def test_the_parts_of_the_soundness_error() -> None:
    assert RenyiBound(RENYI_DESIGN, 1e-10).errors.soundness(1e-12) == 1e-10 + 1e-12
    errors = eat_bound().errors
    assert errors.soundness(2**-40) == pytest.approx(1e-10, rel=1e-9)
    assert 0 < errors.privacy < 1e-10 and errors.smoothing > 0


def test_an_eve_who_acts_between_rounds_is_spoken_of() -> None:
    adaptive = RenyiBound(RENYI_DESIGN, 1e-10).assumptions
    static = RenyiBound(replace(RENYI_DESIGN, adaptive=False), 1e-10).assumptions
    assert set(adaptive) ^ set(static) == {adaptive[-1], static[-1]}
    assert "before the last round" in static[-1]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"renyi-2405\.05912, not for"):
        FilteredBound(RENYI_DESIGN, 1e-10)
    with pytest.raises(ValueError, match="epsilon_privacy"):
        RenyiBound(RENYI_DESIGN, 0.0)
    for counts in ((10, 11, 0, 0.0), (10, 5, 6, 0.0), (10, 5, -1, 0.0), (0, 0, 0, 0.0)):
        with pytest.raises(ValueError, match="losses"):
            Shown(*counts)
    with pytest.raises(ValueError, match="leak_bits"):
        Shown(10, 5, 1, float("nan"))
