"""Many short sessions under faults drawn from the seed; invariants are watched all along."""

import os
from collections import Counter
from pathlib import Path

import pytest

from bellhop.node.sim.run import run_scenario
from bellhop.node.sim.scenario import Scenario, read_scenario

SEEDS = range(16)
CAMPAIGN_SEEDS = int(os.environ.get("BELLHOP_CAMPAIGN_SEEDS", "2000"))
CAMPAIGN_STEP = 100

SMALL = Path(__file__).parents[1] / "scenarios" / "small.toml"


@pytest.fixture(scope="module")
def small() -> Scenario:
    return read_scenario(SMALL)


@pytest.mark.parametrize("seed", SEEDS)
def test_invariants_hold_and_sessions_end(small: Scenario, seed: int) -> None:
    report = run_scenario(small, seed)
    assert report.sessions, "at least the session after the faults was proposed"
    assert report.checked > 100


@pytest.mark.campaign
@pytest.mark.parametrize("first", range(0, CAMPAIGN_SEEDS, CAMPAIGN_STEP))
def test_campaign(small: Scenario, first: int) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(first, min(first + CAMPAIGN_STEP, CAMPAIGN_SEEDS)):
        outcomes.update(str(session["outcome"]) for session in run_scenario(small, seed).sessions)
    assert outcomes["stored"] > 0 and outcomes["aborted"] > 0, "both ends of a session are reached"
