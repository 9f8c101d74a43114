"""What is fixed before a session: the design, the code, and what a session must promise."""

from dataclasses import astuple, replace

import pytest

from bellhop.hal.operations import LinkName, NodeName
from bellhop.stack.diqkd.agreement import objections
from bellhop.stack.diqkd.bounds.design import EAT, FILTERED, RENYI, CertifiedDesign
from bellhop.stack.diqkd.bounds.designs import certified_designs
from bellhop.stack.diqkd.bounds.eat_choice import optimise
from bellhop.stack.diqkd.code import expected_leak_bits
from bellhop.stack.diqkd.jobs import Plan
from bellhop.stack.diqkd.parameters import (
    EatDesign,
    Parameters,
    SessionPolicy,
    classes_of,
    expected_key_bits,
    key_bits_of,
    problem_of,
)
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import REASON_CHARACTERS_MAX

OXFORD = SessionPolicy(s_design=2.677, qber_design=0.0144)
ROUNDS = 1_500_000


def planned(
    policy: SessionPolicy, rounds: int = ROUNDS, *, even_at_a_loss: bool = False
) -> Parameters:
    names = (LinkName("fibre"), NodeName("alice"), NodeName("bob"))
    plan = Plan(SessionId("0" * 32), *names, "", rounds, 1, policy, even_at_a_loss)
    parameters = plan.run()
    assert isinstance(parameters, Parameters), parameters
    return parameters


def by_eat(policy: SessionPolicy) -> tuple[Parameters, EatDesign]:
    p = planned(policy)
    assert isinstance(p.design, EatDesign)
    return p, p.design


# --- the theorem of fixed length ------------------------------------------------------------------


def test_the_choice_has_few_digits_and_costs_next_to_nothing() -> None:
    """It does not hang on the last digits of a mathematical library."""
    policy = SessionPolicy(bound=EAT, s_design=2.64, qber_design=0.018)
    p, design = by_eat(policy)
    assert objections(p, policy) is None
    for figure in astuple(design.choice):
        beyond_one = figure - 1.0 if figure > 1.0 else figure
        few = float(f"{beyond_one:.5e}")
        assert few == pytest.approx(beyond_one, rel=1e-9, abs=0.0), f"{figure!r} has few digits"
    exact = optimise(problem_of(p.rounds, p.gamma, design.threshold, p.leak_bits_max, p.epsilon))
    best = key_bits_of(replace(p, design=replace(design, choice=exact)), 0, 0, p.steps_max)
    # The choice was made for the syndrome alone; what comes to it moves no optimum far.
    assert best - 40 <= design.key_bits <= best + 4


def test_a_key_of_fixed_length_pays_for_the_steps_it_may_need() -> None:
    p, design = by_eat(SessionPolicy(bound=EAT, s_design=2.64, qber_design=0.018))
    classes = classes_of(p.gamma, p.s_design, p.qber_design)
    needed = expected_leak_bits(p.rounds, classes)
    assert needed * 1.02 < p.code.leak_bits(p.steps_max) < needed * 1.04
    for steps in (0, p.steps_max):
        assert key_bits_of(p, 76_000, 12_000, steps) == design.key_bits


# --- certified designs ----------------------------------------------------------------------------


def test_the_best_shipped_design_is_taken() -> None:
    p = planned(OXFORD)
    assert objections(p, OXFORD) is None
    assert p.bound == RENYI and p.design in certified_designs()
    others = [d for d in certified_designs() if d.bound == RENYI]
    keys = {d.name: expected_key_bits(with_design(p, d)) for d in others}
    assert isinstance(p.design, CertifiedDesign)
    assert keys[p.design.name] >= 0.999 * max(keys.values())
    assert keys[p.design.name] / ROUNDS == pytest.approx(0.44, abs=0.01)


def with_design(p: Parameters, design: CertifiedDesign) -> Parameters:
    """The same session by another design, with the code that its test probability asks for."""
    draft = replace(p, design=design)
    classes = classes_of(draft.gamma, p.s_design, draft.error_rate)
    leak = round(expected_leak_bits(p.rounds, classes))
    return replace(draft, code=replace(p.code, syndrome_bits=leak, steps_max=0), steps_max=0)


def test_the_unrefereed_bound_is_planned_and_agreed_to_by_whoever_allows_it() -> None:
    policy = replace(OXFORD, bound=FILTERED)
    p = planned(policy)
    assert (
        objections(p, policy)
        == f"no referee has read {FILTERED}: diqkd.allow_unrefereed is false here"
    )
    assert objections(p, OXFORD) is not None
    assert objections(p, replace(policy, allow_unrefereed=True)) is None
    assert objections(p, replace(OXFORD, allow_unrefereed=True)) is None, "the peer chose it"


def test_noisy_preprocessing_is_in_the_code_and_in_the_decoders_priors() -> None:
    p = planned(replace(OXFORD, s_design=2.5, qber_design=0.08))
    flips = float(p.flip_probability)
    assert flips > 0
    assert p.error_rate == pytest.approx(0.08 * (1 - flips) + 0.92 * flips)
    classes = classes_of(p.gamma, 2.5, p.error_rate)
    leak = expected_leak_bits(ROUNDS, classes)
    assert p.code.leak_bits(0) < leak < p.code.leak_bits(p.steps_max)


# --- what a session must promise ------------------------------------------------------------------


def test_a_session_that_would_lose_is_not_started_unless_told() -> None:
    policy = replace(OXFORD, s_design=2.3, qber_design=0.06)
    losing = planned(policy, 100_000)
    assert expected_key_bits(losing) < 0
    assert objections(losing, policy) == (
        "not started unless told: expected no key, wanted at least 1,024 (768 of them are spent):"
        " take more rounds, a better link, or --even-at-a-loss"
    )
    willing = replace(policy, accept_losing_sessions=True)
    assert objections(replace(losing, even_at_a_loss=True), willing) is None
    assert planned(policy, 100_000, even_at_a_loss=True).even_at_a_loss


def test_a_loss_is_agreed_to_by_each_node_for_itself() -> None:
    policy = replace(OXFORD, s_design=2.3, qber_design=0.06)
    losing = replace(planned(policy, 100_000), even_at_a_loss=True)
    why = objections(losing, policy)
    assert why is not None and why.startswith(
        "expected no key, wanted at least 1,024 (768 of them are spent)"
    )
    assert "the other agrees if its configuration has diqkd.accept_losing_sessions = true" in why
    assert len("declined by " + "n" * 40 + ": " + why) <= REASON_CHARACTERS_MAX
    willing = replace(policy, accept_losing_sessions=True)
    assert objections(losing, willing) is None
    assert objections(replace(losing, even_at_a_loss=False), willing) is not None
    gaining = planned(OXFORD)
    net = expected_key_bits(gaining) - 768
    asked = replace(gaining, even_at_a_loss=True)
    assert objections(asked, replace(OXFORD, net_bits_min=net)) is None
    assert objections(asked, replace(OXFORD, net_bits_min=net + 1)) is not None


def test_the_least_gain_is_each_nodes_own() -> None:
    p = planned(OXFORD)
    net = expected_key_bits(p) - 768
    assert objections(p, replace(OXFORD, net_bits_min=net)) is None
    why = objections(p, replace(OXFORD, net_bits_min=net + 1))
    assert why is not None
    assert f"expected a key of {net + 768:,} bits, wanted at least {net + 769:,}" in why


def test_what_can_be_no_key_at_all_is_refused_however_much_it_is_wanted() -> None:
    policy = SessionPolicy(bound=EAT, s_design=2.3, qber_design=0.06)
    p = planned(policy, 100_000, even_at_a_loss=True)
    assert objections(p, policy) == "no key can come of this: take more rounds, or a better link"
