"""The bound ``eat-2109.14600`` for plans: how many secret bits a run is worth at its best choice.

The theorem is in ``eat``, the search for its free parameters in ``eat_choice``; this module is the
door to both. ``library`` has all bounds, this one as sessions and receipts use it.
"""

from __future__ import annotations

from fractions import Fraction

from bellhop.stack.diqkd.bounds.eat import (
    PAPER_HASH_ERROR,
    ROUNDS_MAX,
    SESSION_HASH_ERROR,
    EatChoice,
    EatErrors,
    EatProblem,
    Form,
    KeyLength,
    evaluate,
    objection,
)
from bellhop.stack.diqkd.bounds.eat_choice import optimise

__all__ = [
    "PAPER_HASH_ERROR",
    "ROUNDS_MAX",
    "SESSION_HASH_ERROR",
    "EatChoice",
    "EatErrors",
    "EatProblem",
    "Form",
    "KeyLength",
    "eat_problem",
    "evaluate",
    "key_length",
    "objection",
    "optimise",
]


def key_length(
    *,
    rounds: int,
    gamma: Fraction,
    threshold: float,
    leak_bits: int,
    epsilon: float,
    form: Form,
    hash_error: float | None = None,
) -> KeyLength:
    """The key length at the best parameters found. See ``EatProblem`` for what goes in.

    ``hash_error`` is 4 eps_h = 2^-59 in the published form and may only be given in the other, as
    the sum of verification and authentication errors (default ``SESSION_HASH_ERROR``).
    Deterministic on one machine; to agree across machines, send ``KeyLength.choice`` and
    ``evaluate`` it at the far end.
    """
    problem = eat_problem(
        rounds=rounds,
        gamma=gamma,
        threshold=threshold,
        leak_bits=leak_bits,
        epsilon=epsilon,
        form=form,
        hash_error=hash_error,
    )
    return evaluate(problem, optimise(problem))


def eat_problem(
    *,
    rounds: int,
    gamma: Fraction,
    threshold: float,
    leak_bits: int,
    epsilon: float,
    form: Form,
    hash_error: float | None = None,
) -> EatProblem:
    """An ``EatProblem`` with the hash error that belongs to its form."""
    if form == "trevisan":
        if hash_error is not None:
            raise ValueError("hash_error is part of the published form and cannot be chosen")
        hash_error = PAPER_HASH_ERROR
    elif hash_error is None:
        hash_error = SESSION_HASH_ERROR
    return EatProblem(rounds, gamma, threshold, leak_bits, epsilon, form, hash_error)
