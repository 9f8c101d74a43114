"""What is fixed before a session does not hang on the last digits of a mathematical library."""

from dataclasses import astuple, replace

import pytest

from bellhop.hal.operations import LinkName, NodeName
from bellhop.stack.diqkd.bounds.eat_choice import optimise
from bellhop.stack.diqkd.jobs import Plan
from bellhop.stack.diqkd.parameters import (
    Parameters,
    SessionPolicy,
    key_length_of,
    objections,
    problem_of,
)
from bellhop.stack.ids import SessionId


def test_the_choice_has_few_digits_and_costs_next_to_nothing() -> None:
    policy = SessionPolicy()
    names = (LinkName("fibre"), NodeName("alice"), NodeName("bob"))
    planned = Plan(SessionId("0" * 32), *names, "", 1_500_000, 1, policy).run()
    assert isinstance(planned, Parameters)
    assert objections(planned, policy) is None
    for figure in astuple(planned.choice):
        beyond_one = figure - 1.0 if figure > 1.0 else figure
        few = float(f"{beyond_one:.5e}")
        assert few == pytest.approx(beyond_one, rel=1e-9, abs=0.0), f"{figure!r} has few digits"
    exact = optimise(
        problem_of(
            planned.rounds, planned.gamma, planned.threshold, planned.leak_bits, planned.epsilon
        )
    )
    best = key_length_of(replace(planned, choice=exact)).key_bits
    assert best - 4 <= planned.key_bits <= best + 4
