"""Calibrations in a world where everything goes wrong, and a crash after every single action."""

from functools import cache
from pathlib import Path

import pytest

from bellhop.hal.operations import NodeName
from bellhop.node.sim.checkers import Invariants
from bellhop.node.sim.faults import NO_FAULTS, Faults, swarm_faults
from bellhop.node.sim.run import SECOND_NS
from bellhop.node.sim.scenario import Scenario, read_scenario
from bellhop.node.sim.world import World
from bellhop.stack.core import Action, Answer, CalibrateLink
from bellhop.stack.diqkd.calibrate import Calibration, Calibrations
from bellhop.stack.diqkd.device_use import read_use
from bellhop.stack.ids import SessionId

SMALL = Path(__file__).parents[1] / "scenarios" / "small.toml"
ROUNDS = 2_000
ASKED = 3
PATIENCE_NS = 400 * SECOND_NS


@cache
def small() -> Scenario:
    return read_scenario(SMALL)


class Calibrated:
    """A world in which operators ask for nothing but calibrations."""

    def __init__(self, seed: int, faults: Faults = NO_FAULTS) -> None:
        scenario = small()
        self.invariants = Invariants()
        self.actions: list[Action] = []
        self.link = scenario.links[0]
        self.world = World(scenario.links, scenario.policy, seed, faults, watch=self._watch)
        self.world.run(SECOND_NS)

    def _watch(self, world: World, name: NodeName, action: Action) -> None:
        self.actions.append(action)
        self.invariants.watch(world, name, action)

    def ask(self, *, at_b: bool = False) -> Answer | None:
        """One calibration, as far as it comes."""
        own, peer = (self.link.b, self.link.a) if at_b else (self.link.a, self.link.b)
        number = self.world.ask(own, CalibrateLink(peer, ROUNDS))
        world = self.world
        world.run(world.now_ns + PATIENCE_NS, lambda: world.answered(number))
        return world.happened.answers.get(number)

    def settle(self) -> None:
        """Until nothing is under way and nothing comes of what is on its way."""
        world = self.world
        for _ in range(8):
            world.run(world.now_ns + PATIENCE_NS, lambda: world.settled)
            world.run(world.now_ns + 10 * SECOND_NS)
            if world.settled:
                break
        self.invariants.check_settled(world)

    def kept(self, name: NodeName) -> dict[SessionId, Calibration]:
        known = Calibrations(self.world.nodes[name].store.facts).of(self.link.name)
        assert len({one.session for one in known}) == len(known), "none is kept twice"
        return {one.session: one for one in known}

    def published(self, name: NodeName) -> int:
        fact = self.world.nodes[name].store.facts.get(f"device/{self.link.name}", b"")
        return read_use(fact).published_bits

    def agree(self) -> None:
        """Bob counts: Alice has nothing that he has not, and the same of what both have.

        She may have lost one: a crash before she heard it, and his memory of it is the last of 64.
        """
        of_alice, of_bob = self.kept(self.link.a), self.kept(self.link.b)
        for session, calibration in of_alice.items():
            assert of_bob[session].counts == calibration.counts
        for name, known in ((self.link.a, of_alice), (self.link.b, of_bob)):
            assert self.published(name) >= sum(one.counts.total for one in known.values())


@pytest.mark.parametrize("seed", range(12))
def test_under_faults_both_ends_keep_the_same_and_go_on(seed: int) -> None:
    faults = swarm_faults(seed, 4 * SECOND_NS, ASKED)
    run = Calibrated(seed, faults)
    for number in range(ASKED):
        run.ask(at_b=bool((seed + number) % 2))
    run.world.run(max(faults.until_ns, run.world.now_ns) + 1)
    run.settle()
    run.agree()
    answer = run.ask()
    assert answer is not None and answer.outcome == "calibrated", "without faults one is made"
    run.settle()
    run.agree()
    session = SessionId(str(answer.fields["session"]))
    assert run.kept(run.link.a)[session].counts == run.kept(run.link.b)[session].counts


@cache
def actions_without_faults() -> int:
    run = Calibrated(1)
    answer = run.ask()
    assert answer is not None and answer.outcome == "calibrated"
    run.settle()
    return len(run.actions)


@pytest.mark.parametrize("part", range(4))
def test_a_crash_after_any_action_leaves_both_ends_alike(part: int) -> None:
    for number in range(3 + part, actions_without_faults() + 1, 4):
        run = Calibrated(1, Faults(crash_at=(number,)))
        run.ask()
        run.settle()
        run.agree()
        kept = run.kept(run.link.a)
        assert kept == {} or len(kept) == len(run.kept(run.link.b)) == 1, number
        if not kept:
            # The operator's node went down before the other had agreed: nobody asks again for him.
            assert not run.kept(run.link.b), number
