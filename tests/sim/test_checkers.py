"""The invariants can fail: each is shown an action that breaks it, amid an honest run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bellhop.hal.operations import Measure, NodeName
from bellhop.node.sim.checkers import Invariants, Violation
from bellhop.node.sim.scenario import Scenario, read_scenario
from bellhop.node.sim.world import World
from bellhop.stack.core import (
    Action,
    ConfirmKeys,
    Fact,
    Order,
    Persist,
    RecordAllocations,
    RunSession,
    StoreKeys,
    Tell,
    VoidKeys,
)
from bellhop.stack.messages import (
    Abort,
    BlockHeralded,
    BlockStored,
    Propose,
    SlotDone,
    Stage,
    SyndromeExtra,
    Tagged,
    TestRounds,
)

SMALL = Path(__file__).parents[1] / "scenarios" / "small.toml"
SECOND_NS = 1_000_000_000
ALICE, BOB = NodeName("alice"), NodeName("bob")


@dataclass
class Run:
    """An honest run up to its end, with everything that was done in it."""

    world: World
    invariants: Invariants
    done: list[tuple[NodeName, Action]]

    def shown(self, name: NodeName, action: Action) -> None:
        self.invariants.watch(self.world, name, action)

    def told(self, kind: type, stage: Stage | None = None) -> tuple[NodeName, Tell]:
        """Who told a message of a kind first, and the action."""
        for name, action in self.done:
            if not isinstance(action, Tell) or not isinstance(action.message, kind):
                continue
            if stage is None or getattr(action.message, "stage", None) is stage:
                return name, action
        raise AssertionError(f"no {kind.__name__} was told")


def start(scenario: Scenario) -> Run:
    invariants = Invariants()
    done: list[tuple[NodeName, Action]] = []

    def watch(world: World, name: NodeName, action: Action) -> None:
        invariants.watch(world, name, action)
        done.append((name, action))

    world = World(scenario.links, scenario.policy, 2, watch=watch)
    world.run(SECOND_NS)
    world.ask(ALICE, RunSession(BOB, scenario.rounds))
    return Run(world, invariants, done)


@pytest.fixture(scope="module")
def ended() -> Run:
    run = start(read_scenario(SMALL))
    run.world.run(60 * SECOND_NS)
    assert run.world.nodes[ALICE].store.deliverable
    return run


@pytest.fixture
def amid() -> Iterator[Run]:
    """Alice has told the syndrome."""
    run = start(read_scenario(SMALL))

    def syndrome_told() -> bool:
        return any(
            isinstance(action, Tell)
            and isinstance(action.message, Tagged)
            and action.message.stage is Stage.SYNDROME
            for _, action in run.done
        )

    run.world.run(60 * SECOND_NS, syndrome_told)
    yield run


def test_the_honest_actions_pass_again(amid: Run) -> None:
    """What was told may be told again: only other contents are violations."""
    for name, action in amid.done:
        if isinstance(action, Tell) and not isinstance(action.message, Propose):
            amid.shown(name, action)


def test_a_mask_under_two_messages(amid: Run) -> None:
    name, action = amid.told(Tagged, Stage.INPUTS_A)
    assert isinstance(action.message, Tagged)
    other = replace(action.message, body=b"other")
    with pytest.raises(Violation, match="a mask is under one message"):
        amid.shown(name, replace(action, message=other))


def test_a_tagged_message_that_is_not_stored(amid: Run) -> None:
    name, action = amid.told(Tagged, Stage.SYNDROME)
    message = action.message
    assert isinstance(message, Tagged)
    del amid.world.nodes[name].store.facts[f"session/{message.session}/said/syndrome"]
    with pytest.raises(Violation, match="a tagged message is stored before it is told"):
        amid.shown(name, action)


def test_extra_syndrome_that_is_not_stored(amid: Run) -> None:
    name, action = amid.told(Tagged, Stage.SYNDROME)
    assert isinstance(action.message, Tagged)
    extra = SyndromeExtra(action.message.session, 1, b"bits")
    with pytest.raises(Violation, match="extra syndrome is stored before it is told"):
        amid.shown(name, replace(action, message=extra))


def test_extra_syndrome_that_no_receipt_pays_for(ended: Run) -> None:
    name, store = next((n, a) for n, a in ended.done if isinstance(a, StoreKeys))
    told, session = ended.invariants._extra_told, store.block.session
    known = told.get(session, 0)
    told[session] = known + 1
    with pytest.raises(Violation, match="all syndrome is paid for"):
        ended.shown(name, store)
    told[session] = known


def test_a_mask_that_is_not_spent(amid: Run) -> None:
    name, action = amid.told(Tagged, Stage.SYNDROME)
    facts = amid.world.nodes[name].store.facts
    facts["pool/bob/used/provisioned"] = (
        bytes(7) + b"\x08" + bytes(8) + bytes(7) + b"\x08" + bytes(8)
    )
    with pytest.raises(Violation, match="a mask is spent before its tag is told"):
        amid.shown(name, action)


def test_settings_drawn_twice(amid: Run) -> None:
    name, measure = next(
        (name, action.operation)
        for name, action in amid.done
        if isinstance(action, Order) and isinstance(action.operation, Measure)
    )
    other = replace(measure, settings=np.bitwise_xor(measure.settings, 1))
    with pytest.raises(Violation, match="settings are drawn once"):
        amid.shown(name, Order(other))
    drawn = next(
        fact
        for _, action in amid.done
        if isinstance(action, Persist)
        for fact in action.put
        if "/drawn/" in fact.name
    )
    with pytest.raises(Violation, match="stored one way"):
        amid.shown(name, Persist((Fact(drawn.name, b"other"),)))


def test_rounds_told_before_they_are_stored(amid: Run) -> None:
    for kind in (TestRounds, SlotDone):
        name, action = amid.told(kind)
        message = action.message
        assert isinstance(message, TestRounds | SlotDone)
        assert message.slot == 0
        del amid.world.nodes[name].store.facts[f"session/{message.session}/pages/0"]
        with pytest.raises(Violation, match="outcomes are stored before a slot is told"):
            amid.shown(name, action)


def test_a_page_that_says_other_than_the_facts_that_it_replaces() -> None:
    run = start(read_scenario(SMALL))
    altered: list[str] = []

    def watch(world: World, name: NodeName, action: Action) -> None:
        """The first page is shown altered, before it is stored."""
        if not isinstance(action, Persist) or not action.put or altered:
            return
        page = action.put[0]
        if "/pages/" in page.name:
            altered.append(page.name)
            content = page.payload[:-1] + bytes([page.payload[-1] ^ 1])
            run.invariants.watch(world, name, replace(action, put=(Fact(page.name, content),)))

    run.world._watch = watch
    with pytest.raises(Violation, match="a page says what the facts said"):
        run.world.run(60 * SECOND_NS)
    assert altered


def test_a_herald_told_two_ways(amid: Run) -> None:
    name, action = amid.told(BlockHeralded)
    message = action.message
    assert isinstance(message, BlockHeralded)
    with pytest.raises(Violation, match="a herald is told one way"):
        amid.shown(name, replace(action, message=replace(message, digest=bytes(32))))


def test_an_abort_told_before_it_is_stored(amid: Run) -> None:
    session = next(iter(amid.invariants.sessions))
    with pytest.raises(Violation, match="an abort is stored before it is told"):
        amid.shown(ALICE, Tell(BOB, Abort(session, "no reason")))


def test_a_block_told_or_confirmed_before_it_is_stored(amid: Run) -> None:
    session = next(iter(amid.invariants.sessions))
    with pytest.raises(Violation, match="a block is stored before it is told"):
        amid.shown(ALICE, Tell(BOB, BlockStored(session, confirmed=False)))
    with pytest.raises(Violation, match="confirmed is held"):
        amid.shown(ALICE, ConfirmKeys(session, Persist()))


def test_two_keys_under_one_id(ended: Run) -> None:
    name, stored = next((n, a) for n, a in ended.done if isinstance(a, StoreKeys))
    slot = stored.block.slots[0]
    other = replace(stored.block, slots=(replace(slot, key=bytes(32)), *stored.block.slots[1:]))
    with pytest.raises(Violation, match="one key under one key id"):
        ended.shown(name, replace(stored, block=other))


def test_a_void_key_that_the_peer_may_deliver(ended: Run) -> None:
    session = next(iter(ended.invariants.sessions))
    with pytest.raises(Violation, match="void here is not deliverable there"):
        ended.shown(BOB, VoidKeys(session, "no reason"))


def test_a_key_of_an_aborted_session(ended: Run) -> None:
    session = next(iter(ended.invariants.sessions))
    with pytest.raises(Violation, match="an aborted session has no key"):
        ended.shown(ALICE, Persist((Fact(f"ended/{session}", b"no reason"),)))


def test_a_key_handed_out_at_both_ends(ended: Run) -> None:
    taken = ended.world.nodes[ALICE].store.take(ALICE, 1)[0].allocations
    with pytest.raises(Violation, match="a key is handed out at one end"):
        ended.shown(ALICE, RecordAllocations(BOB, taken))


def test_what_is_left_over_at_the_end(amid: Run) -> None:
    with pytest.raises(Violation, match="every session comes to an end"):
        amid.invariants.check_settled(amid.world)
