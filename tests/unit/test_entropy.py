"""The entropy bound against published figures, a slow twin and an independent optimiser."""

import math
from decimal import Context, localcontext
from fractions import Fraction

import numpy as np
import pytest

from bellhop.stack.diqkd.bounds.chsh import (
    S_MAX,
    WIN_QUANTUM,
    binary_entropy,
    entropy_rate,
    published_syndrome_bits,
    threshold_probability,
    winning_probability,
)
from bellhop.stack.diqkd.bounds.entropy import (
    EatChoice,
    EatProblem,
    Form,
    KeyLength,
    eat_problem,
    evaluate,
    key_length,
    objection,
    optimise,
)

OXFORD_ROUNDS = 1_500_000
OXFORD_GAMMA = Fraction(13, 256)
LN2 = math.log(2.0)


def planned(
    rounds: int, s: float, qber: float, form: Form = "trevisan", epsilon: float = 1e-10
) -> EatProblem:
    return eat_problem(
        rounds=rounds,
        gamma=OXFORD_GAMMA,
        threshold=threshold_probability(rounds, OXFORD_GAMMA, s),
        leak_bits=published_syndrome_bits(rounds, OXFORD_GAMMA, s, qber),
        epsilon=epsilon,
        form=form,
    )


def best(problem: EatProblem) -> KeyLength:
    return evaluate(problem, optimise(problem))


# --- The theorem --------------------------------------------------------------------------------


def test_published_key_length() -> None:
    length = best(planned(OXFORD_ROUNDS, 2.64, 0.018))
    assert abs(length.key_bits - 95_884) <= 20
    assert length.epsilon_soundness == 1e-10
    assert "2109.14600v2" in length.theorem
    assert length.assumptions


def test_the_observed_oxford_run_without_a_margin() -> None:
    """Threshold at the observed score, error correction at 1.10 times Shannon's limit."""
    gamma, wins = float(OXFORD_GAMMA), winning_probability(2.677)
    shannon = (1 - gamma) * binary_entropy(0.0144) + gamma * binary_entropy(1 - wins)
    problem = eat_problem(
        rounds=OXFORD_ROUNDS,
        gamma=OXFORD_GAMMA,
        threshold=wins,
        leak_bits=round(1.10 * OXFORD_ROUNDS * shannon),
        epsilon=1e-10,
        form="trevisan",
    )
    assert best(problem).key_bits / OXFORD_ROUNDS == pytest.approx(0.2005, abs=6e-5)


def test_two_universal_form_saves_only_the_extractor() -> None:
    trevisan = best(planned(OXFORD_ROUNDS, 2.64, 0.018))
    hashed = best(planned(OXFORD_ROUNDS, 2.64, 0.018, "two-universal"))
    # 3 log2(1/eps_PA) + 264 + 4 log2(y), about 129 + 264 + 66, less what the tags' error costs.
    assert 300 < hashed.key_bits - trevisan.key_bits < 460
    assert "leftover hash lemma" in hashed.theorem


def test_positive_from_about_three_hundred_thousand_rounds() -> None:
    ideal = {n: best(planned(n, S_MAX, 0.0)).key_bits for n in (280_000, 330_000)}
    assert ideal[280_000] == 0
    assert ideal[330_000] > 0


def test_no_key_at_the_figures_of_ten_kilometres() -> None:
    assert best(planned(405_145, 2.5758, 0.036)).key_bits == 0
    assert best(planned(405_145, 2.5758, 0.036, "two-universal")).key_bits == 0


def test_no_key_without_a_violation_or_without_rounds() -> None:
    assert best(planned(OXFORD_ROUNDS, 2.0, 0.0)).key_bits == 0
    assert best(planned(1, S_MAX, 0.0)).key_bits == 0


def test_rate_approaches_the_asymptotic_one() -> None:
    rounds = 10**12
    gamma = Fraction(1, 100)
    problem = eat_problem(
        rounds=rounds,
        gamma=gamma,
        threshold=winning_probability(2.677),
        leak_bits=0,
        epsilon=1e-10,
        form="two-universal",
    )
    rate = best(problem).key_bits / rounds
    asymptotic = entropy_rate(winning_probability(2.677)) - float(gamma)
    assert asymptotic - 1e-3 < rate < asymptotic


# --- A slow, obviously right twin ---------------------------------------------------------------


def slow_entropy_bits(problem: EatProblem, choice: EatChoice, points: int = 400_001) -> float:
    """Eq. (73) spelled out on the three outcomes of a round, with w taken from a fine grid."""
    n, gamma, t = problem.rounds, float(problem.gamma), choice.tangent
    alpha, beta = choice.alpha_prime, choice.alpha_double_prime
    eps_ea = problem.epsilon - problem.hash_error
    eps_s = (eps_ea - choice.privacy_error) / 2

    def eta_at(w: float) -> float:
        return 1 - binary_entropy(0.5 + 0.5 * math.sqrt(16 * w * (w - 1) + 3))

    step = 1e-5 * (WIN_QUANTUM - t)
    slope = (eta_at(t + step) - eta_at(t - step)) / (2 * step)

    def g(w: float) -> float:
        return eta_at(t) + slope * (w - t)

    f_lost, f_won = g(0) / gamma + (1 - 1 / gamma) * g(1), g(1)
    low = (1 - 1 / math.sqrt(2)) / 2
    w = np.linspace(low, WIN_QUANTUM, points)
    q_lost = gamma * (1 - w)
    mean = q_lost * f_lost + (1 - q_lost) * f_won
    variance = q_lost * f_lost**2 + (1 - q_lost) * f_won**2 - mean**2
    x = np.sqrt(np.clip(16 * w * (w - 1) + 3, 0, 1)) * (w > 0.75)
    p = np.clip((1 + x) / 2, 1e-300, 1 - 1e-16)
    eta = 1 + p * np.log2(p) + (1 - p) * np.log2(1 - p)
    v = LN2 / 2 * (math.log2(33) + np.sqrt(2 + variance)) ** 2
    inner = float(np.min(eta - mean - (alpha - 1) * v))

    e = 2 + g(1) - g(low)
    k = 2 ** ((alpha - 1) * e) * math.log(2**e + math.e**2) ** 3 / (6 * (2 - alpha) ** 3 * LN2)

    def theta(x: float) -> float:
        # log(1 - sqrt(1 - x^2)) = log(x^2 / 2) + O(x^2), which a double cannot tell apart here.
        return 1 - 2 * math.log2(x)

    unlikely = -math.log2(eps_ea)
    left = eps_s - choice.smoothing_prime - 2 * choice.smoothing_double_prime
    return (
        n * g(problem.threshold)
        + n * inner
        - n * (alpha - 1) ** 2 * k
        - n * gamma
        - n * (beta - 1) * math.log2(5) ** 2
        - (theta(choice.smoothing_prime) + alpha * unlikely) / (alpha - 1)
        - (theta(choice.smoothing_double_prime) + beta * unlikely) / (beta - 1)
        - 3 * theta(left)
    )


TWIN_CASES = [
    planned(OXFORD_ROUNDS, 2.64, 0.018),
    planned(OXFORD_ROUNDS, 2.64, 0.018, "two-universal", 1e-6),
    planned(405_145, 2.5758, 0.036),
    planned(350_000, S_MAX, 0.0),
]


@pytest.mark.parametrize("problem", TWIN_CASES, ids=range(len(TWIN_CASES)))
def test_formula_against_its_slow_twin(problem: EatProblem) -> None:
    choice = optimise(problem)
    twin = slow_entropy_bits(problem, choice)
    assert evaluate(problem, choice).entropy_bits == pytest.approx(twin, abs=0.05)


def test_formula_against_its_slow_twin_far_from_the_optimum() -> None:
    problem = planned(OXFORD_ROUNDS, 2.64, 0.018)
    for tangent in (0.751, 0.80, 0.853):
        for alpha in (1.00002, 1.02, 1.3):
            choice = EatChoice(tangent, alpha, 1.01, 1e-11, 1e-12, 1e-11)
            twin = slow_entropy_bits(problem, choice)
            found = evaluate(problem, choice).entropy_bits
            assert found == pytest.approx(twin, rel=1e-6, abs=1.0), (tangent, alpha)


@pytest.mark.parametrize("problem", TWIN_CASES[:3], ids=range(3))
def test_an_independent_search_finds_no_more(problem: EatProblem) -> None:
    """Nelder-Mead from three starts over all six parameters, on the slow twin."""
    from scipy.optimize import minimize

    total = problem.epsilon - problem.hash_error
    privacy_cost = 5 if problem.form == "trevisan" else 2

    def choice_at(x: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> EatChoice:
        shares = np.exp(np.append(x[3:], 0.0))
        shares /= shares.sum()
        smoothing = total * (1 - shares[0]) / 2
        rest = shares[1:] / shares[1:].sum()
        return EatChoice(
            tangent=0.75 + (WIN_QUANTUM - 0.75) / (1 + math.exp(-float(x[0]))),
            alpha_prime=1 + math.exp(float(x[1])),
            alpha_double_prime=1 + math.exp(float(x[2])),
            smoothing_prime=float(smoothing * rest[0]),
            smoothing_double_prime=float(smoothing * rest[1] / 2),
            privacy_error=float(total * shares[0]),
        )

    def loss(x: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
        choice = choice_at(x)
        if not 1.0 < choice.alpha_prime < 1.9 or not 1.0 < choice.alpha_double_prime < 1.4:
            return 1e12
        entropy = slow_entropy_bits(problem, choice, 4001)
        return -(entropy + privacy_cost * math.log2(choice.privacy_error))

    starts = ([0.5, -7.5, -5.6, 0, 5, 3], [-1.0, -5.0, -4.0, 2, 2, 2], [2.0, -9.0, -7.0, 3, 6, 6])
    searches = [
        minimize(loss, np.array(s, dtype=float), method="Nelder-Mead",
                 options={"maxiter": 1500, "xatol": 1e-4, "fatol": 1e-2, "adaptive": True})
        for s in starts
    ]  # fmt: skip
    choice = choice_at(min(searches, key=lambda search: float(search.fun)).x)
    rival, ours = evaluate(problem, choice), best(problem)
    score = [a.entropy_bits + privacy_cost * math.log2(a.errors.privacy) for a in (rival, ours)]
    assert score[0] < score[1] + 1.0
    assert score[0] > score[1] - 500.0, "the rival search is too poor to say anything"


# --- Agreement between machines, and refusals ---------------------------------------------------


def test_the_callers_decimal_context_changes_nothing() -> None:
    problem = planned(OXFORD_ROUNDS, 2.64, 0.018)
    choice = optimise(problem)
    usual = evaluate(problem, choice)
    with localcontext(Context(prec=5)):
        assert evaluate(problem, choice) == usual


def test_key_length_is_the_value_of_its_own_choice() -> None:
    problem = planned(OXFORD_ROUNDS, 2.64, 0.018, "two-universal")
    length = key_length(
        rounds=problem.rounds,
        gamma=problem.gamma,
        threshold=problem.threshold,
        leak_bits=problem.leak_bits,
        epsilon=1e-10,
        form="two-universal",
    )
    assert evaluate(problem, length.choice) == length


GOOD = EatChoice(0.81, 1.0006, 1.0037, 4e-11, 3e-12, 1e-13)


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        (EatChoice(0.75, 1.0006, 1.0037, 4e-11, 3e-12, 1e-13), "tangent"),
        (EatChoice(0.86, 1.0006, 1.0037, 4e-11, 3e-12, 1e-13), "tangent"),
        (EatChoice(math.nan, 1.0006, 1.0037, 4e-11, 3e-12, 1e-13), "tangent"),
        (EatChoice(0.81, 1.0, 1.0037, 4e-11, 3e-12, 1e-13), "alpha'"),
        (EatChoice(0.81, 2.0, 1.0037, 4e-11, 3e-12, 1e-13), "alpha'"),
        (EatChoice(0.81, 1.0006, 1.44, 4e-11, 3e-12, 1e-13), "alpha''"),
        (EatChoice(0.81, 1.0006, 1.0037, 0.0, 3e-12, 1e-13), "error"),
        (EatChoice(0.81, 1.0006, 1.0037, 4e-11, -3e-12, 1e-13), "error"),
        (EatChoice(0.81, 1.0006, 1.0037, 4e-11, 3e-12, 2e-10), "epsilon"),
        (EatChoice(0.81, 1.0006, 1.0037, 4e-11, 6e-12, 1e-13), "epsilon"),
    ],
)
def test_inadmissible_choices_are_refused(choice: EatChoice, why: str) -> None:
    problem = planned(OXFORD_ROUNDS, 2.64, 0.018)
    assert objection(problem, GOOD) is None
    said = objection(problem, choice)
    assert said is not None
    assert why in said
    with pytest.raises(ValueError, match=why):
        evaluate(problem, choice)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", 0),
        ("rounds", 10**13),
        ("gamma", Fraction(0)),
        ("gamma", Fraction(1)),
        ("threshold", -0.1),
        ("threshold", 0.9),
        ("threshold", math.nan),
        ("leak_bits", -1),
        ("epsilon", 1e-13),
        ("epsilon", 1.0),
        ("epsilon", math.nan),
        ("hash_error", -1.0),
        ("form", "magic"),
    ],
)
def test_impossible_problems_are_refused(field: str, value: object) -> None:
    fields: dict[str, object] = {
        "rounds": 1000,
        "gamma": OXFORD_GAMMA,
        "threshold": 0.82,
        "leak_bits": 0,
        "epsilon": 1e-10,
        "form": "two-universal",
        "hash_error": 1e-12,
    }
    EatProblem(**fields)  # type: ignore[arg-type]  # a table of fields, right ones first
    with pytest.raises(ValueError, match=field):
        EatProblem(**(fields | {field: value}))  # type: ignore[arg-type]  # wrong on purpose


def test_the_published_form_has_its_own_hash_error() -> None:
    with pytest.raises(ValueError, match="hash_error"):
        eat_problem(
            rounds=1000,
            gamma=OXFORD_GAMMA,
            threshold=0.82,
            leak_bits=0,
            epsilon=1e-10,
            form="trevisan",
            hash_error=1e-12,
        )
