"""A node stops right after one action, or after two: from wherever it stops, it comes back.

Every action from the last round on is struck; of the rounds, where a crash costs outcomes, a few.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bellhop.node.sim.faults import Faults
from bellhop.node.sim.run import SECOND_NS, Report, Run, decided_by_physics
from bellhop.node.sim.scenario import Scenario, read_scenario
from bellhop.node.sim.world import World
from bellhop.stack.core import Action, RunSession, Tell
from bellhop.stack.messages import SyndromeExtra, SyndromeWanted, Tagged

SMALL = Path(__file__).parents[1] / "scenarios" / "small.toml"
SEED = 2
FEW_ERRORS = 0.0005


@cache
def small() -> Scenario:
    return replace(read_scenario(SMALL), sessions=1, faults="none", name=str(SMALL))


@cache
def actions_without_faults(qber: float | None = None) -> tuple[Action, ...]:
    seen: list[Action] = []

    def watch(_world: World, _name: str, action: Action) -> None:
        seen.append(action)

    scenario = small() if qber is None else made_for(qber)
    link = scenario.links[0]
    world = World(scenario.links, scenario.policy, SEED, watch=watch)
    world.run(SECOND_NS)
    world.ask(link.a, RunSession(link.b, scenario.rounds))
    world.run(100 * SECOND_NS)
    assert world.settled and world.nodes[link.a].store.deliverable
    return tuple(seen)


def first_tag() -> int:
    """The number of the first action that tells a tagged message."""
    for number, action in enumerate(actions_without_faults(), start=1):
        if isinstance(action, Tell) and isinstance(action.message, Tagged):
            return number
    raise AssertionError("nothing was tagged")


def made_for(qber: float) -> Scenario:
    """With a code for so few errors that even this link's decoder asks for more syndrome."""
    scenario = small()
    return replace(scenario, policy=replace(scenario.policy, qber_design=qber))


def crashed_at(*actions: int, scenario: Scenario | None = None) -> Report:
    faults = Faults(crash_at=actions)
    report = Run(scenario or small(), SEED, faults).report()
    assert report.counts["crash"] == len(actions), "the run has come that far"
    return report


@pytest.mark.parametrize("part", range(4))
def test_after_the_rounds_no_crash_costs_the_key(part: int) -> None:
    last = len(actions_without_faults())
    for number in range(first_tag() + part, last + 1, 4):
        outcome = crashed_at(number).sessions[0]
        assert outcome["outcome"] == "stored", f"after action {number}: {outcome}"


def test_no_crash_amid_extra_syndrome_costs_the_key() -> None:
    actions = actions_without_faults(FEW_ERRORS)
    kinds = [type(action.message) if isinstance(action, Tell) else None for action in actions]
    asked, given = kinds.index(SyndromeWanted), kinds.index(SyndromeExtra)
    assert asked < given
    for number in range(asked, given + 6):  # before and after asking, giving, having, decoding
        outcome = crashed_at(number, scenario=made_for(FEW_ERRORS)).sessions[0]
        assert outcome["outcome"] == "stored", f"after action {number}: {outcome}"


def test_two_crashes_in_a_row_cost_no_key_either() -> None:
    first = first_tag()
    last = len(actions_without_faults())
    for number in range(first, last - 4, 5):
        outcome = crashed_at(number, number + 4).sessions[0]
        assert outcome["outcome"] == "stored", f"after action {number}: {outcome}"


def test_a_crash_among_the_rounds_ends_in_a_key_or_a_clean_abort() -> None:
    for number in range(3, first_tag(), 67):
        outcome = crashed_at(number).sessions[0]
        reason = str(outcome["reason"])
        assert outcome["outcome"] == "stored" or decided_by_physics(reason), (number, outcome)
