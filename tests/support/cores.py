"""Parts of a session by hand: a plan, records whose rounds went as one likes, pools, a port.

The sessions are those of `two_cores`: their keys are worth nothing, but few rounds make them.
"""

import functools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tests.support.two_cores import (
    ALICE,
    BOB,
    EAT_POLICY,
    LINK,
    NOISY_POLICY,
    OTHER,
    POLICY,
    ROUNDS,
    pool_file,
)

from bellhop.hal.operations import LinkName, NodeName, Port, RequestId, Side, Source
from bellhop.node.chance import SeededRng
from bellhop.stack.core import Action, Fact, Persist, StoreKeys, Tell
from bellhop.stack.diqkd.jobs import Plan
from bellhop.stack.diqkd.parameters import Parameters, SessionPolicy
from bellhop.stack.diqkd.pool import Pool
from bellhop.stack.diqkd.record import Record
from bellhop.stack.diqkd.rounds import (
    draw_alice,
    draw_bob,
    draw_flips,
    expected_of_alice,
    flip_alice,
)
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import Message

__all__ = ["ALICE", "BOB", "EAT_POLICY", "LINK", "NOISY_POLICY", "OTHER", "POLICY", "ROUNDS"]

SESSION = SessionId("0123456789abcdef" * 2)
REQUEST = RequestId(SESSION)


@functools.cache
def plan(rounds: int = ROUNDS, policy: SessionPolicy = POLICY) -> Parameters:
    """What a session of the policy is, at a loss or not: computed once."""
    job = Plan(SESSION, LINK.name, ALICE, BOB, pool_file().pool_id, rounds, 7, policy)
    planned = job.run()
    assert isinstance(planned, Parameters), planned
    return planned


def port(side: Side = Side.A, link: LinkName = LINK.name) -> Port:
    peer = BOB if side is Side.A else ALICE
    return Port(link, side, peer, 3, Source.EMULATED, "ideal pairs", ("an idealisation",))


def pools(masks: int = 16) -> dict[NodeName, Pool]:
    """Both ends of one pool."""
    content = Pool.provision(SeededRng(3, "pool"), (ALICE, BOB), masks)
    return {
        own: Pool(peer, {f.name: f.payload for f in Pool.facts(content, own, peer)})
        for own, peer in ((ALICE, BOB), (BOB, ALICE))
    }


def records(parameters: Parameters | None = None) -> dict[NodeName, Record]:
    """Both ends' records of an agreed session before its first round."""
    p = parameters or plan()
    return {own: Record(p, own, OTHER[own], agreed=True) for own in (ALICE, BOB)}


def measured_records(
    losses: int = 0, errors: int = 0, parameters: Parameters | None = None
) -> dict[NodeName, Record]:
    """Records after the last round: ideal outcomes but for so many lost tests and wrong key bits.

    What was persisted on the way is the caller's to make up for.
    """
    both = records(parameters)
    alice, bob = both[ALICE], both[BOB]
    chance = np.random.default_rng(11)
    for slot in range(alice.request.slots):
        rounds = alice.request.slot_rounds(slot)
        rng = SeededRng(2, "rounds", slot)
        tests, settings = draw_alice(rng.child("alice"), alice.parameters.gamma, rounds)
        patterns = np.zeros(rounds, np.uint8)
        flips = draw_flips(rng.child("alice"), alice.parameters.flip_probability, tests)
        alice.draw(slot, tests, settings, patterns, flips)
        bob.draw(slot, tests, draw_bob(rng.child("bob"), tests), patterns)
    bits = chance.integers(0, 2, alice.parameters.rounds, dtype=np.uint8)
    wrong = np.zeros_like(bits)
    wrong[np.flatnonzero(alice.tests)[:losses]] = 1
    wrong[np.flatnonzero(~alice.tests)[:errors]] = 1
    # What Bob must have found for his guess of her bits to be right but where it is to be wrong.
    # An error of the key is one of hers as she has flipped them.
    wrong ^= alice.flips
    found = expected_of_alice(bits ^ wrong, alice.tests, alice.settings, bob.settings)
    for record, outcomes in ((alice, bits), (bob, found)):
        for slot in range(record.request.slots):
            record.measure(slot, outcomes[record.request.span(slot)])
    alice.peer_done.add_run(0, alice.request.slots)
    return both


NO_SLOTS = np.zeros(0, np.bool_)
"""What a position lists one by one, of an end that has done all slots below its first."""


def bits_of(record: Record) -> NDArray[np.uint8]:
    """A copy of the string that Alice's end makes of what it found."""
    return flip_alice(record.outcomes, record.settings, record.patterns) ^ record.flips


def facts_of(actions: list[Action]) -> list[Fact]:
    """All facts put, in order."""
    persists = [
        action.persist if isinstance(action, StoreKeys) else action
        for action in actions
        if isinstance(action, Persist | StoreKeys)
    ]
    return [fact for persist in persists for fact in persist.put]


def kinds(actions: list[Action]) -> list[str]:
    """The actions' types, in order."""
    return [type(action).__name__ for action in actions]


def told(actions: list[Action]) -> list[Message]:
    return [action.message for action in actions if isinstance(action, Tell)]


def with_other(parameters: Parameters, **changes: object) -> bytes:
    """The proposal with some fields changed, canonically encoded."""
    return replace(parameters, **changes).encode()  # type: ignore[arg-type] # of any type
