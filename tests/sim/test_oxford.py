"""Whole sessions of the Oxford experiment, 1.5 million rounds each, in virtual time."""

from dataclasses import replace

import pytest
from bench.campaign import DEGRADED, NET_BITS_MIN, degraded, run_one, summary

from bellhop.node.sim.scenario import two_nodes
from bellhop.stack.diqkd.bounds.design import EAT

CAMPAIGN_SEEDS = range(1, 21)


def test_the_published_link_makes_a_key() -> None:
    outcome = run_one(two_nodes(), seed=1)
    session = outcome.session
    assert outcome.stored and outcome.keys_alike
    # One session has about 76,000 tests: S deviates by 8 sqrt(w (1 - w) / 76,000) = 0.011.
    assert session["s"] == pytest.approx(2.677, abs=0.045)
    assert session["qber"] == pytest.approx(0.0144, abs=0.0005)
    assert int(session["net_bits"]) >= NET_BITS_MIN
    assert outcome.report.pairs == 1_500_000


def test_a_dephased_link_makes_none() -> None:
    outcome = run_one(degraded("dephased"), seed=1)
    assert outcome.session["outcome"] == "aborted"
    assert "Bell test too weak" in str(outcome.session["reason"])
    assert outcome.keys_at_a == 0 and outcome.keys_alike


def test_the_theorem_of_the_experiment_makes_a_shorter_one() -> None:
    scenario = two_nodes()
    policy = replace(scenario.policy, bound=EAT, s_design=2.64, qber_design=0.018)
    outcome = run_one(replace(scenario, policy=policy), seed=1)
    assert outcome.stored and outcome.keys_alike
    assert 120_000 < int(outcome.session["net_bits"]) < 150_000


@pytest.mark.campaign
def test_twenty_sessions_give_the_published_figures() -> None:
    good = [run_one(two_nodes(), seed) for seed in CAMPAIGN_SEEDS]
    bad = [run_one(degraded(kind), seed) for kind in DEGRADED for seed in CAMPAIGN_SEEDS]
    result = summary(good, bad)
    assert result["unmet"] == [], result
