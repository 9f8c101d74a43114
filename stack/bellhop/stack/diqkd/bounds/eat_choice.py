"""Search for the free parameters of the entropy bound; only the key's length depends on it.

The bound is concave in the slope of the tangent at fixed order and in the order at fixed slope, so
nested golden sections find both. The orders and errors that are left have closed forms, given the
rest: the max-entropy order balances a n x + b/x, and the errors enter, as long as they are small,
as a sum of c_i ln(eps_i) under one linear constraint, whose optimum shares them out as the c_i.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bellhop.stack.diqkd.bounds.asymptotic import lowest
from bellhop.stack.diqkd.bounds.chsh import (
    LN2,
    WIN_CLASSICAL,
    WIN_QUANTUM,
    entropy_rate,
    entropy_rate_slope,
)
from bellhop.stack.diqkd.bounds.eat import ALPHA_DOUBLE_PRIME_MAX, EatChoice, EatProblem

_SWEEPS = 4
_WIN_MIN = (2.0 - math.sqrt(2.0)) / 4.0
_LOG33 = math.log2(33.0)
_LOG5_SQUARED = math.log2(5.0) ** 2


def optimise(problem: EatProblem) -> EatChoice:
    """A good choice for this problem; always admissible, even where no key can be had."""
    total = problem.epsilon - problem.hash_error
    unlikely = -math.log2(total)
    privacy_weight = 5.0 if problem.form == "trevisan" else 2.0
    first = second = total / 8.0
    privacy, tangent, prime, double_prime = total / 4.0, 0.8, 1e-3, 1e-3
    for _ in range(_SWEEPS):
        double_prime = _balance(problem.rounds, _theta(second) + unlikely)
        tangent, prime = _tangent_and_order(problem, _theta(first) + unlikely)
        weights = (2.0 / prime, 2.0 / double_prime, 6.0)
        privacy = total * privacy_weight / (privacy_weight + sum(weights))
        smoothing = (total - privacy) / 2.0
        first = smoothing * weights[0] / sum(weights)
        second = smoothing * weights[1] / sum(weights) / 2.0
    return EatChoice(
        tangent=tangent,
        alpha_prime=1.0 + prime,
        alpha_double_prime=1.0 + double_prime,
        smoothing_prime=first,
        smoothing_double_prime=second,
        privacy_error=privacy,
    )


def _balance(rounds: int, cost: float) -> float:
    """a'' - 1 that minimises n x log2(5)^2 + cost / x, kept inside the theorem's range."""
    return min(math.sqrt(cost / (rounds * _LOG5_SQUARED)), 0.99 * (ALPHA_DOUBLE_PRIME_MAX - 1.0))


def _tangent_and_order(problem: EatProblem, cost: float) -> tuple[float, float]:
    """The tangent t and a' - 1 that maximise the terms in which they stand."""
    gamma = float(problem.gamma)

    def gain(tangent: float, log_prime: float) -> float:
        slope, prime = entropy_rate_slope(tangent), math.exp(log_prime)
        per_round = slope * problem.threshold + _least_score(slope, gamma, prime)
        per_round -= prime**2 * _third_order(slope, prime)
        return per_round - cost / (prime * problem.rounds)

    def best_tangent(log_prime: float) -> float:
        return _peak(lambda t: gain(t, log_prime), WIN_CLASSICAL + 1e-9, WIN_QUANTUM - 1e-7)

    log_prime = _peak(lambda x: gain(best_tangent(x), x), math.log(1e-8), math.log(0.5))
    return best_tangent(log_prime), math.exp(log_prime)


def _peak(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one peak has it, to 1e-5 of the bracket: flat enough there."""
    return lowest(lambda x: -function(x), low, high, precision=1e-5)


def _least_score(slope: float, gamma: float, prime: float) -> float:
    """Floating twin of ``eat._least_score``: min over w of eta - slope w - (a' - 1) V."""
    low, high = _WIN_MIN, WIN_QUANTUM
    for _ in range(44):
        w = (low + high) / 2.0
        root = math.sqrt(2.0 + slope * slope * (1.0 - w) * (1.0 / gamma - 1.0 + w))
        v_slope = LN2 * (_LOG33 + root) * slope * slope * (2.0 - 2.0 * w - 1.0 / gamma) / (2 * root)
        if entropy_rate_slope(w) - slope - prime * v_slope < 0.0:
            low = w
        else:
            high = w
    root = math.sqrt(2.0 + slope * slope * (1.0 - low) * (1.0 / gamma - 1.0 + low))
    return entropy_rate(low) - slope * low - prime * LN2 / 2.0 * (_LOG33 + root) ** 2


def _third_order(slope: float, prime: float) -> float:
    exponent = 2.0 + slope * (1.0 - _WIN_MIN)
    grown = math.log(math.exp2(exponent) + math.exp(2.0))
    return math.exp2(prime * exponent) * grown**3 / (6.0 * (1.0 - prime) ** 3 * LN2)


def _theta(error: float) -> float:
    return -math.log2(error * error / (1.0 + math.sqrt(1.0 - error * error)))
