"""Nodes whose devices hold one pair at once: every round a slot, through crashes at page borders.

The epsilon is 0.9, so that few rounds make a key; it is worth nothing.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bellhop.hal.emulator.nature import Link, Nature
from bellhop.hal.operations import NodeName, Port, Side
from bellhop.node.sim.checkers import Invariants
from bellhop.node.sim.faults import NO_FAULTS, Faults
from bellhop.node.sim.run import SECOND_NS
from bellhop.node.sim.scenario import Scenario, read_scenario
from bellhop.node.sim.world import World
from bellhop.stack.core import Action, PauseSession, Persist, RunSession
from bellhop.stack.diqkd.endings import read_past
from bellhop.stack.link import machine

SMALL = Path(__file__).parents[1] / "scenarios" / "small.toml"
ROUNDS = 2_000
PAGE_ROUNDS = 128
ALICE, BOB = NodeName("alice"), NodeName("bob")


class SinglePairs(Nature):
    """Its devices hold one pair at once."""

    def _port(self, link: Link, side: Side) -> Port:
        return replace(super()._port(link, side), rounds_max=1)


class SinglePairWorld(World):
    def _new_nature(self) -> Nature:
        self._nature_life += 1
        return SinglePairs(self._links, np.random.default_rng([self._seed, 2, self._nature_life]))


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PAGE_ROUNDS", PAGE_ROUNDS)


@cache
def scenario() -> Scenario:
    small = read_scenario(SMALL)
    return replace(small, policy=replace(small.policy, block_rounds=1, accept_losing_sessions=True))


class Run:
    """A world of single pairs; how many facts its nodes had at most."""

    def __init__(self, faults: Faults = NO_FAULTS, seed: int = 5) -> None:
        self.invariants = Invariants()
        self.most_facts = 0
        self.pages: list[int] = []
        links, policy = scenario().links, scenario().policy
        self.world = SinglePairWorld(links, policy, seed, faults, watch=self.watch)
        self.world.run(SECOND_NS)
        self.ask = self.world.ask(ALICE, RunSession(BOB, ROUNDS, even_at_a_loss=True))

    def watch(self, world: World, name: NodeName, action: Action) -> None:
        self.invariants.watch(world, name, action)
        self.most_facts = max(self.most_facts, len(world.nodes[name].store.facts))
        if isinstance(action, Persist) and any("/pages/" in fact.name for fact in action.put):
            self.pages.append(world.happened.actions)

    def end(self) -> set[str]:
        """Run to the end of the session; how it ended at each end."""
        world = self.world
        world.run(world.now_ns + 400 * SECOND_NS, lambda: world.settled)
        world.run(world.now_ns + 10 * SECOND_NS)
        self.invariants.check_settled(world)
        (session,) = self.invariants.sessions
        stores = [node.store for node in world.nodes.values()]
        return {read_past(store.facts[f"ended/{session}"]).how for store in stores}


@cache
def without_faults() -> Run:
    run = Run()
    run.end()
    return run


def test_a_session_of_single_pairs_ends_in_a_key() -> None:
    run = without_faults()
    pages = -(-ROUNDS // PAGE_ROUNDS)
    assert len(run.pages) == 2 * pages
    answer = run.world.happened.answers[run.ask]
    assert answer.outcome == "stored" and answer.fields["rounds"] == ROUNDS
    others = 40  # ports, pools, the session's few
    assert run.most_facts <= 3 * PAGE_ROUNDS + pages + 3 * 24 + others


def of_lost_outcomes(reason: str) -> bool:
    """What a device had in hand at a crash counts as 0: of few rounds too many, perhaps."""
    why = reason.removeprefix("by bob: ").removeprefix("by alice: ")
    return why.startswith(("Bell test", "reconciliation failed"))


def test_crashes_about_a_page_leave_both_ends_with_the_same_rounds() -> None:
    """The transcripts' tags cover test rounds and patterns: the ends compare them."""
    border = without_faults().pages[7]
    for number in (border - 1, border, border + 1):
        run = Run(Faults(crash_at=(number, number + 40)))
        how = run.end()
        assert how == {"stored"} or all(map(of_lost_outcomes, how)), (number, how)
        assert run.world.happened.counts["crash"] == 2


def test_a_paused_session_of_single_pairs_survives_crashes() -> None:
    number = without_faults().pages[5]
    run = Run(Faults(crash_at=(number + 20, number + 60)))
    world = run.world
    world.run(world.now_ns + 60 * SECOND_NS, lambda: len(run.pages) == 5)
    paused = world.ask(BOB, PauseSession(ALICE, True))
    world.run(world.now_ns + 600 * SECOND_NS)
    assert world.happened.answers[paused].outcome == "paused"
    assert 5 <= len(run.pages) < len(without_faults().pages) and not world.settled
    resumed = world.ask(BOB, PauseSession(ALICE, False))
    how = run.end()
    assert how == {"stored"} or all(map(of_lost_outcomes, how)), how
    assert world.happened.answers[resumed].outcome == "resumed"
    assert world.happened.counts["crash"] == 2
