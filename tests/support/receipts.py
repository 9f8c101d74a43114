"""Receipts of sessions that two cores had, and what may be done to them."""

import copy
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.two_cores import ALICE, BOB, EAT_POLICY, POLICY, TwoCores

from bellhop.hal.operations import NodeName
from bellhop.node.receipt_verifier import Outcome, verify
from bellhop.node.sim.identities import simulated_authority, simulated_identity
from bellhop.stack.diqkd.endorsements import Endorsements
from bellhop.stack.diqkd.parameters import SessionPolicy
from bellhop.stack.ids import SessionId

AUTHORITY = simulated_authority().public_bytes(Encoding.PEM)
IDENTITIES = {role: simulated_identity(NodeName(role)) for role in ("alice", "bob")}
POLICIES = {"renyi": POLICY, "eat": EAT_POLICY}


def after_a_session(policy: SessionPolicy = POLICY, seed: int = 12) -> TwoCores:
    """Two cores that had one session and settled it."""
    two = TwoCores(seed=seed, policy=policy)
    two.meet()
    two.now_ns += 10**9
    two.ask(ALICE)
    two.go_on()
    assert two.store[ALICE].deliverable and two.store[BOB].deliverable, two.core[ALICE].snapshot()
    return two


@functools.cache
def _text(name: str) -> str:
    (block,) = after_a_session(POLICIES[name]).store[ALICE].deliverable.values()
    return block.receipt


def receipt(name: str = "renyi") -> dict[str, Any]:
    """A completed receipt by this bound; a new copy each time."""
    read: dict[str, Any] = json.loads(_text(name))
    return read


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all values that hold no others."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            yield from leaves(inner, (*path, name))
    else:
        yield path


def with_leaf(document: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy of the document in which this place holds `value`."""
    changed = copy.deepcopy(document)
    place: Any = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return changed


def at(document: dict[str, Any], path: tuple[str | int, ...]) -> Any:
    place: Any = document
    for name in path:
        place = place[name]
    return place


def signed_anew(
    document: dict[str, Any], change: Callable[[dict[str, Any]], None], identities: dict[str, Any]
) -> dict[str, Any]:
    """The receipt with a changed account, signed by both ends again: two liars, or one forger."""
    account = copy.deepcopy(document["session"])
    change(account)
    ends = {}
    for role, end in document["ends"].items():
        words = Endorsements(end["statement"]["node"], identities[role], {})
        text, _ = words.write(SessionId("s"), BOB, account, end["statement"])
        ends[role] = json.loads(text)["ends"][role]
    return {"schema": document["schema"], "session": account, "ends": ends}


def outcome_of(document: dict[str, Any], authority: bytes | None = AUTHORITY) -> Outcome:
    return verify(json.dumps(document).encode(), authority)


def failing(outcome: Outcome) -> dict[str, str]:
    return {check.name: check.detail for check in outcome.checks if check.result == "fails"}


def places_of(bound: str) -> list[tuple[str | int, ...]]:
    """All leaves of a receipt; of the second kind those that the first has not."""
    known = set(leaves(receipt("renyi"))) if bound != "renyi" else set()
    return [place for place in leaves(receipt(bound)) if place not in known]
