"""Whole sessions by each bound: with flips, with more errors than planned, and too weak."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from tests.support.two_cores import (
    ALICE,
    BOB,
    EAT_POLICY,
    IDEAL,
    LINK,
    NOISY_POLICY,
    POLICY,
    TwoCores,
)

from bellhop.hal.emulator.nature import Link
from bellhop.hal.preset import read_preset
from bellhop.stack.core import Answer
from bellhop.stack.diqkd.bounds.design import EAT, FILTERED, RENYI
from bellhop.stack.diqkd.parameters import SessionPolicy, decode_parameters, key_bits_of
from bellhop.stack.diqkd.receipt import canonical
from bellhop.stack.messages import SyndromeExtra, Tagged


def flawed(**noise: float) -> Link:
    """The ideal link with noise of these names."""
    overrides = {f"noise.{name}": value for name, value in noise.items()}
    return Link(LINK.name, ALICE, BOB, read_preset(IDEAL, overrides))


def run(
    policy: SessionPolicy = POLICY,
    link: Link = LINK,
    *,
    even_at_a_loss: bool = False,
) -> TwoCores:
    two = TwoCores(4, policy=policy, link=link)
    two.meet()
    two.ask(ALICE, even_at_a_loss=even_at_a_loss)
    two.settle()
    return two


def answer(two: TwoCores) -> dict[str, Any]:
    (one,) = [a for a in two.actions if isinstance(a, Answer)]
    return {"outcome": one.outcome, **one.fields}


def account(two: TwoCores) -> dict[str, Any]:
    """What both receipts say alike."""
    texts = [
        block.receipt for name in (ALICE, BOB) for block in two.store[name].deliverable.values()
    ]
    alice, bob = (json.loads(text)["session"] for text in texts)
    assert alice == bob
    said: dict[str, Any] = alice
    return said


def told(two: TwoCores, kind: type) -> list[Any]:
    messages = [getattr(action, "message", None) for action in two.actions]
    return [message for message in messages if isinstance(message, kind)]


FIXED = replace(EAT_POLICY, s_design=2.8)
UNREFEREED = replace(POLICY, bound=FILTERED, allow_unrefereed=True)


@pytest.mark.parametrize(
    ("policy", "bound"), [(POLICY, RENYI), (FIXED, EAT), (UNREFEREED, FILTERED)]
)
def test_both_ends_have_the_key_that_the_bound_allows(policy: SessionPolicy, bound: str) -> None:
    two = run(policy)
    assert two.keys(ALICE) == two.keys(BOB) != {}
    said = account(two)
    p = decode_parameters(canonical(said["parameters"]))
    assert p.bound == bound and said["theorem"]["refereed"] == (bound != FILTERED)
    seen, steps = said["run"], said["leak"]["extra_steps"]
    bits = key_bits_of(p, seen["tests"], seen["losses"], steps)
    assert said["key"]["bound_bits"] == bits
    assert answer(two)["gross_bits"] == said["key"]["gross_bits"] == bits - bits % 8
    assert answer(two)["leak_bits"] == said["leak"]["total"] == p.leak_bits(steps)


def test_a_session_with_flips_counts_the_errors_of_flipped_bits() -> None:
    two = run(NOISY_POLICY, even_at_a_loss=True)
    assert two.keys(ALICE) == two.keys(BOB) != {}
    said = account(two)
    flips = said["parameters"]["design"]["design"]["flip_probability"]
    assert flips > 0
    assert said["run"]["qber"] == pytest.approx(flips, abs=0.005), "pairs are ideal, bits flipped"


def test_a_session_that_would_lose_is_not_started_unless_told() -> None:
    two = run(NOISY_POLICY)
    assert answer(two)["outcome"] == "refused"
    assert answer(two)["reason"].startswith("not started unless told")
    assert not told(two, Tagged) and two.core[ALICE].idle and two.core[BOB].idle


def test_a_loss_is_agreed_to_by_both_nodes_or_none() -> None:
    two = TwoCores(4, policy=replace(NOISY_POLICY, accept_losing_sessions=False))
    two.meet()
    two.ask(ALICE, even_at_a_loss=True)
    two.settle()
    end = answer(two)
    assert end["outcome"] == "refused" and end["reason"].startswith(
        "declined by bob: expected no key"
    )
    assert "accept_losing_sessions = true" in end["reason"]
    assert not told(two, Tagged) and two.core[ALICE].idle and two.core[BOB].idle


def test_more_errors_than_planned_cost_more_syndrome_and_no_session() -> None:
    policy = replace(POLICY, s_design=2.7, qber_design=0.01)
    few, many = (run(policy, flawed(white=noise)) for noise in (0.02, 0.026))
    leaks = [account(two)["leak"] for two in (few, many)]
    assert leaks[0]["extra_steps"] < leaks[1]["extra_steps"]
    for two, leak in zip((few, many), leaks, strict=True):
        given = told(two, SyndromeExtra)
        assert max(message.steps for message in given) == leak["extra_steps"]
        assert two.keys(ALICE) == two.keys(BOB) != {}


def test_errors_beyond_the_code_end_the_session_with_what_to_do() -> None:
    policy = replace(EAT_POLICY, s_design=2.8, qber_design=0.001)
    two = run(policy, flawed(white=0.05))
    end = answer(two)
    assert end["outcome"] == "aborted" and not two.keys(ALICE) | two.keys(BOB)
    assert "reconciliation failed: there are more errors" in end["reason"]
    assert "calibrate the link" in end["reason"]


@pytest.mark.parametrize(("policy", "phase"), [(POLICY, 0.35), (EAT_POLICY, 0.03)])
def test_a_weak_bell_test_says_what_was_seen_what_was_needed_and_what_to_do(
    policy: SessionPolicy, phase: float
) -> None:
    """Phases that turn at random cost S and no key bit: the code has nothing to say of it."""
    two = run(replace(policy, s_design=2.8), flawed(phase=phase))
    end = answer(two)
    assert end["outcome"] == "aborted" and not two.keys(ALICE) | two.keys(BOB)
    found = re.fullmatch(
        r"by bob: Bell test too weak: S = (\d\.\d{3}) \+- (\d\.\d{3}), .*?(\d\.\d{3})"
        r"( at 0\.00% of errors)?; (realign, or plan with .*)",
        end["reason"],
    )
    assert found is not None, end["reason"]
    seen, deviation, needed = map(float, found.groups()[:3])
    assert seen < needed <= 2.83 and 0.01 < deviation < 0.1
