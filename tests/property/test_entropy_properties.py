"""What must hold for every run: monotonicity, safe answers to any choice, exact bookkeeping."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bellhop.stack.diqkd.bounds.chsh import (
    S_MAX,
    WIN_QUANTUM,
    binary_entropy,
    chsh_value,
    entropy_rate,
    entropy_rate_slope,
    false_abort_probability,
    losses_max,
    threshold_probability,
    winning_probability,
)
from bellhop.stack.diqkd.bounds.entropy import (
    EatChoice,
    EatProblem,
    Form,
    eat_problem,
    evaluate,
    objection,
    optimise,
)

FORMS: st.SearchStrategy[Form] = st.sampled_from(["trevisan", "two-universal"])
GAMMAS = st.fractions(Fraction(1, 200), Fraction(1, 3), max_denominator=256)
WINS = st.floats(0.75, WIN_QUANTUM)


@st.composite
def problems(draw: st.DrawFn) -> EatProblem:
    rounds, gamma = draw(st.integers(1, 10**8)), draw(GAMMAS)
    return eat_problem(
        rounds=rounds,
        gamma=gamma,
        threshold=threshold_probability(rounds, gamma, draw(st.floats(2.0, S_MAX))),
        leak_bits=draw(st.integers(0, rounds // 4)),
        epsilon=10.0 ** draw(st.floats(-11.0, -3.0)),
        form=draw(FORMS),
    )


def choices_for(problem: EatProblem) -> st.SearchStrategy[EatChoice]:
    total = problem.epsilon - problem.hash_error
    return st.builds(
        EatChoice,
        tangent=st.floats(0.7501, WIN_QUANTUM - 1e-6),
        alpha_prime=st.floats(-14.0, -0.1).map(lambda x: 1.0 + math.exp(x)),
        alpha_double_prime=st.floats(-14.0, -0.9).map(lambda x: 1.0 + math.exp(x)),
        smoothing_prime=st.floats(0.01, 0.4).map(lambda x: x * total / 2),
        smoothing_double_prime=st.floats(0.01, 0.25).map(lambda x: x * total / 2),
        privacy_error=st.floats(1e-4, 0.09).map(lambda x: x * total),
    )


@given(st.floats(0.0, 1.0))
def test_binary_entropy_is_symmetric_and_bounded(x: float) -> None:
    assert 0.0 <= binary_entropy(x) <= 1.0 + 1e-15
    assert binary_entropy(x) == pytest.approx(binary_entropy(1.0 - x), abs=1e-13)


@given(st.floats(-4.0, 4.0))
def test_the_two_names_of_a_score_agree(s: float) -> None:
    assert chsh_value(winning_probability(s)) == pytest.approx(s, abs=1e-14)


@given(WINS, WINS)
def test_entropy_rate_lies_above_its_tangents(w: float, t: float) -> None:
    slope = entropy_rate_slope(t)
    if math.isfinite(slope):
        tangent_at_w = entropy_rate(t) + slope * (w - t)
        assert entropy_rate(w) >= tangent_at_w - 1e-9


@given(st.integers(1, 10**7), GAMMAS, st.floats(0.0, WIN_QUANTUM))
def test_an_accepted_count_meets_the_threshold(n: int, gamma: Fraction, threshold: float) -> None:
    allowed = losses_max(n, gamma, threshold)
    demanded = Fraction(threshold)
    assert 1 - Fraction(allowed) / (n * gamma) >= demanded
    assert 1 - Fraction(allowed + 1) / (n * gamma) < demanded


@given(st.integers(1, 20_000), GAMMAS, WINS, st.floats(0.7, 0.85))
def test_false_aborts_are_rarer_for_better_devices(
    n: int, gamma: Fraction, win: float, threshold: float
) -> None:
    better = min(1.0, win + 0.01)
    worse_aborts = false_abort_probability(n, gamma, win, threshold)
    assert 0.0 <= worse_aborts <= 1.0
    assert false_abort_probability(n, gamma, better, threshold) <= worse_aborts + 1e-9


@settings(max_examples=20, deadline=None)
@given(problems(), st.data())
def test_no_admissible_choice_beats_the_search(problem: EatProblem, data: st.DataObject) -> None:
    rival = evaluate(problem, data.draw(choices_for(problem)))
    ours = evaluate(problem, optimise(problem))
    assert 0 <= ours.key_bits <= problem.rounds
    # The search stops where what is left to gain is of this order.
    assert rival.key_bits <= ours.key_bits * (1 + 1e-4) + 2


def easier_than(problem: EatProblem) -> tuple[EatProblem, ...]:
    return (
        replace(problem, rounds=problem.rounds * 2),
        replace(problem, threshold=min(WIN_QUANTUM, problem.threshold + 0.002)),
        replace(problem, leak_bits=problem.leak_bits // 2),
        replace(problem, epsilon=problem.epsilon * 2),
    )


@settings(max_examples=20, deadline=None)
@given(problems(), st.integers(0, 3))
def test_what_makes_a_run_easier_never_costs_key(problem: EatProblem, way: int) -> None:
    easier = easier_than(problem)[way]
    key_bits = evaluate(problem, optimise(problem)).key_bits
    assert evaluate(easier, optimise(easier)).key_bits >= key_bits * (1 - 1e-6) - 2


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(0, 5000), st.data())
def test_a_leaked_bit_costs_a_bit(problem: EatProblem, bits: int, data: st.DataObject) -> None:
    choice = data.draw(choices_for(problem))
    before = evaluate(problem, choice)
    after = evaluate(replace(problem, leak_bits=problem.leak_bits + bits), choice)
    assert after.entropy_bits == before.entropy_bits
    lost = before.key_bits - after.key_bits
    assert lost <= bits
    if after.key_bits and problem.form == "two-universal":
        assert lost == bits


@settings(max_examples=40, deadline=None)
@given(problems(), st.data())
def test_the_key_fits_into_what_was_certified(problem: EatProblem, data: st.DataObject) -> None:
    choice = data.draw(choices_for(problem))
    length = evaluate(problem, choice)
    privacy = -math.log2(choice.privacy_error)
    room = length.entropy_bits - problem.leak_bits

    def cost(bits: int) -> float:
        if problem.form == "two-universal":
            return bits + 2 * privacy
        return bits + 4 * math.log2(bits) + 5 * privacy + 264 if bits else 0.0

    if length.key_bits:
        assert cost(length.key_bits) <= room + 1e-6
    assert cost(length.key_bits + 1) > room - 1e-6


@settings(max_examples=60, deadline=None)
@given(problems(), st.lists(st.floats(), min_size=6, max_size=6))
def test_any_six_doubles_are_refused_or_evaluated(
    problem: EatProblem, doubles: list[float]
) -> None:
    choice = EatChoice(*doubles)
    if objection(problem, choice) is None:
        assert evaluate(problem, choice).key_bits >= 0
    else:
        with pytest.raises(ValueError, match=r"must|exceed"):
            evaluate(problem, choice)


EXTREME_EXCESS = st.sampled_from([2.0**-52, 1e-12, 1e-3, 0.4])
EXTREME_ERRORS = st.sampled_from([5e-324, 1e-300, 1e-30])


@settings(max_examples=40, deadline=None)
@given(problems(), EXTREME_EXCESS, EXTREME_EXCESS, EXTREME_ERRORS, EXTREME_ERRORS)
def test_the_edges_of_what_is_admissible_can_be_evaluated(
    problem: EatProblem, first: float, second: float, error: float, privacy: float
) -> None:
    for tangent in (math.nextafter(0.75, 1.0), WIN_QUANTUM - 2e-12):
        for alpha_prime in (1.0 + first, math.nextafter(2.0, 1.0)):
            choice = EatChoice(tangent, alpha_prime, 1.0 + second, error, error, privacy)
            assert evaluate(problem, choice).key_bits >= 0
