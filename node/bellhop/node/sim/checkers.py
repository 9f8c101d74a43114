"""What must hold whatever goes wrong: looked at before each action of each node is performed.

    store before tell   what a peer is told is on the teller's disk, mask and all
    drawn once          a slot's settings and test rounds are drawn once and never otherwise
    one-time masks      a mask is under one message for ever, across crashes
    order of rounds     Bob's device is asked once Alice's outcomes of the slot are fixed
    one key             no two ends hold different bits under one key id
    aborted is aborted  no key of a session that ended without one at either end
    both or none        what is deliverable at one end is held or deliverable at the other
    paid leaks          no more is said about Alice's string than its parameters subtract

An invariant looks at both stores, which no node can: this is the place where that is allowed.
"""

import hashlib
import json
from typing import Any, assert_never

import numpy as np

from bellhop.hal.operations import Measure, NodeName
from bellhop.node.sim.store import SimulatedStore
from bellhop.node.sim.stored_rounds import drawn_of, is_true, outcomes_of, request_of
from bellhop.node.sim.trace import canonical
from bellhop.node.sim.world import World
from bellhop.stack.codec import join, split
from bellhop.stack.core import (
    Action,
    Compute,
    ConfirmKeys,
    Fact,
    ForgetAllocations,
    Note,
    Order,
    Persist,
    RecordAllocations,
    Refuse,
    StoreKeys,
    Tell,
    VoidKeys,
)
from bellhop.stack.core import Answer as Answered
from bellhop.stack.diqkd.endings import read_past
from bellhop.stack.diqkd.parameters import decode_parameters
from bellhop.stack.diqkd.stages import CODE_DIGEST_BYTES, COUNT_BYTES
from bellhop.stack.diqkd.verify import VERIFICATION_KEY_BYTES, VERIFICATION_TAG_BITS
from bellhop.stack.ids import KeyId, SessionId
from bellhop.stack.link.machine import MeasureDirectly
from bellhop.stack.messages import (
    Abort,
    AllocationsRecorded,
    BlockHeralded,
    BlockStored,
    Message,
    Propose,
    SlotDone,
    Stage,
    SyndromeExtra,
    Tagged,
    TestRounds,
)

STORED_ONCE = "a fact of a session is stored one way, for ever"

FIXED = ("drawn", "outcomes", "pages", "said", "heard")


class Violation(AssertionError):
    """An invariant does not hold."""


def require(holds: object, invariant: str, *where: object) -> None:
    if not holds:
        raise Violation(f"{invariant}: {' '.join(str(item) for item in where)}")


class Invariants:
    """`watch` is handed to a world.  `sessions`: the ids that were ever proposed, in order."""

    def __init__(self) -> None:
        self.sessions: dict[SessionId, None] = {}
        self.checked = 0
        self._fixed: dict[tuple[object, ...], bytes] = {}
        self._requests: dict[SessionId, MeasureDirectly] = {}
        self._ends: dict[SessionId, tuple[NodeName, NodeName]] = {}
        self._keys: dict[KeyId, bytes] = {}
        self._receipts: dict[SessionId, dict[str, Any]] = {}
        self._extra_told: dict[SessionId, int] = {}

    def watch(  # noqa: C901, PLR0912 - a table of actions
        self, world: World, name: NodeName, action: Action
    ) -> None:
        self.checked += 1
        own = world.nodes[name].store
        match action:
            case Order(Measure() as measure):
                self._measure(world, name, measure)
            case Order():
                pass
            case Tell(peer, message):
                self._tell(own, name, peer, message)
            case Persist(put, _):
                self._persist(own, name, put)
            case StoreKeys(block, persist):
                self._persist(own, name, persist.put)
                self._store(world, name, action)
                require(block.session not in own.deliverable, "stored once", name, block.session)
            case ConfirmKeys(session):
                require(session in own.held, "confirmed is held", name, session)
                for other in _others(world, name, action.session):
                    both = session in other.held or session in other.deliverable
                    require(both, "deliverable here is held there", name, session)
            case VoidKeys(session):
                for other in _others(world, name, session):
                    gone = session not in other.deliverable
                    require(gone, "void here is not deliverable there", name, session)
            case RecordAllocations(_, allocations):
                for allocation in allocations:
                    once = allocation.key_id not in own.taken
                    require(once, "a key is handed out at one end", name, allocation.key_id)
            case ForgetAllocations(peer, key_ids):
                known = world.nodes[peer].store.recorded
                require(set(key_ids) <= set(known), "forgotten here is recorded there", name)
            case Compute() | Answered() | Refuse() | Note():
                pass
            case _:
                assert_never(action)

    def _once(self, content: object, invariant: str, *key: object) -> None:
        """The first content of a key is the only one, for ever."""
        digest = hashlib.sha256(canonical(content)).digest()
        known = self._fixed.setdefault((invariant, *key), digest)
        require(known == digest, invariant, *key)

    # --- rounds -----------------------------------------------------------------------------------

    def _measure(self, world: World, name: NodeName, order: Measure) -> None:
        store, session = world.nodes[name].store, order.request
        request = self._request(store, SessionId(session))
        slot = order.block % request.slots
        where = (name, session, slot)
        self._once((order.block, order.settings), "settings are drawn once", *where)
        drawn = drawn_of(store.facts, request, slot)
        require(drawn is not None, "settings are stored before the device sees them", *where)
        same = drawn is not None and np.array_equal(drawn.settings, order.settings)
        require(same, "the device sees what was stored", *where)
        alice, bob = self._ends[SessionId(session)]
        if name == bob:
            # Stored at some time: Alice may have given the session up since, and forgotten them.
            fact = f"session/{session}/outcomes/{request.page(slot)}/{slot}"
            fixed = (STORED_ONCE, alice, fact) in self._fixed
            require(fixed, "Alice's outcomes are fixed before Bob's device is asked", *where)

    def _request(self, own: SimulatedStore, session: SessionId) -> MeasureDirectly:
        if session not in self._requests:
            p = decode_parameters(split(own.facts[f"session/{session}/parameters"], 3)[0])
            self._requests[session] = request_of(p)
            self._ends[session] = p.alice, p.bob
        return self._requests[session]

    def _persist(self, own: SimulatedStore, name: NodeName, put: tuple[Fact, ...]) -> None:
        for fact in put:
            parts = fact.name.split("/")
            if parts[0] == "session" and parts[2] in FIXED:
                self._once(fact.payload, STORED_ONCE, name, fact.name)
            if parts[0] == "session" and parts[2] == "pages":
                request = self._request(own, SessionId(parts[1]))
                same = is_true(own.facts, request, int(parts[3]), fact.payload)
                require(same, "a page says what the facts said that it replaces", name, fact.name)
            if parts[0] == "link":
                self._once(fact.payload, STORED_ONCE, name, fact.name)
            if parts[0] == "ended" and fact.payload != b"stored":
                session = SessionId(parts[1])
                kept = session in own.held or session in own.deliverable
                require(not kept, "an aborted session has no key", name, session)

    # --- messages ---------------------------------------------------------------------------------

    def _tell(self, own: SimulatedStore, name: NodeName, peer: NodeName, message: Message) -> None:
        match message:
            case Propose(session, _):
                self.sessions.setdefault(session)
                known = f"session/{session}/parameters" in own.facts
                require(known, "a proposal is stored before it is told", name, session)
            case BlockHeralded(_, request, block, digest):
                self._once(digest, "a herald is told one way", name, request, block)
                slots = self._request(own, SessionId(request))
                page = slots.page(block % slots.slots)
                fact = own.facts.get(f"link/{request}/{page}/{block}", b"")
                folded = f"session/{request}/pages/{page}" in own.facts
                stored = folded or (fact and split(fact, 3)[0] == digest)
                require(stored, "a herald is stored before it is told", name, request, block)
            case TestRounds(session, slot, tests):
                self._once(tests, "test rounds are announced one way", session, slot)
                self._answered(own, name, session, slot)
                drawn = drawn_of(own.facts, self._request(own, session), slot)
                same = drawn is not None and np.array_equal(drawn.tests, tests)
                require(same, "the announced test rounds are the drawn ones", session, slot)
            case SlotDone(session, slot):
                self._answered(own, name, session, slot)
            case Tagged():
                self._tagged(own, name, peer, message)
            case SyndromeExtra(session, steps, bits):
                stored = own.facts.get(f"session/{session}/extra") == bytes([steps]) + bits
                require(stored, "extra syndrome is stored before it is told", name, session)
                self._once(bits, "extra syndrome is said one way", session, steps)
                self._extra_told[session] = max(steps, self._extra_told.get(session, 0))
            case BlockStored(session, _):
                has = session in own.held or session in own.deliverable
                require(has, "a block is stored before it is told", name, session)
            case Abort(session, _):
                forgotten = f"session/{session}/parameters" not in own.facts
                require(forgotten, "an abort is stored before it is told", name, session)
            case AllocationsRecorded(key_ids):
                known = set(key_ids) <= set(own.recorded)
                require(known, "allocations are stored before they are told", name)
            case _:
                pass

    def _answered(self, own: SimulatedStore, name: NodeName, session: SessionId, slot: int) -> None:
        stored = outcomes_of(own.facts, self._request(own, session), slot)
        require(
            stored is not None, "outcomes are stored before a slot is told", name, session, slot
        )

    def _tagged(self, own: SimulatedStore, name: NodeName, peer: NodeName, m: Tagged) -> None:
        content = (m.session, m.stage, m.body, m.tag)
        self._once(content, "a mask is under one message", name, peer, m.batch, m.number)
        self._once((m.body, m.tag), "a stage is said one way", m.session, m.stage.value)
        said = own.facts.get(f"session/{m.session}/said/{m.stage.value}")
        payload = join(m.body, m.batch.encode(), m.number.to_bytes(8, "big"), m.tag)
        require(said == payload, "a tagged message is stored before it is told", name, m.stage)
        used = own.facts.get(f"pool/{peer}/used/{m.batch}")
        # A batch that neither end can spend from any more is let go of.
        spent = int.from_bytes(split(used, 2)[0], "big") if used else m.number + 1
        require(spent > m.number, "a mask is spent before its tag is told", name, m.batch, m.number)
        p = decode_parameters(split(own.facts[f"session/{m.session}/parameters"], 3)[0])
        said_bits = {
            Stage.SYNDROME: 8 * (-(-p.code.syndrome_bits // 8) + CODE_DIGEST_BYTES),
            Stage.VERIFICATION: VERIFICATION_TAG_BITS + 8 * (VERIFICATION_KEY_BYTES + 1),
            Stage.DECISION: 2 * 8 * COUNT_BYTES,
        }.get(m.stage)  # fmt: skip
        paid = said_bits is None or 8 * len(m.body) == said_bits
        require(paid, "what is said of the string is paid for", m.session, m.stage)

    # --- keys -------------------------------------------------------------------------------------

    def _store(self, world: World, name: NodeName, action: StoreKeys) -> None:
        block = action.block
        for node_name, node in world.nodes.items():
            ended = node.store.facts.get(f"ended/{block.session}", b"stored")
            require(
                read_past(ended).how == "stored",
                "no key of an aborted session",
                node_name,
                block.session,
            )
        for slot in block.slots:
            known = self._keys.setdefault(slot.key_id, slot.key)
            require(known == slot.key, "one key under one key id", name, slot.key_id)
        said = json.loads(block.receipt)["session"]
        told = self._extra_told.get(block.session, 0)
        require(said["leak"]["extra_steps"] >= told, "all syndrome is paid for", block.session)
        known_receipt = self._receipts.setdefault(block.session, said)
        differing = [k for k in said if known_receipt.get(k) != said[k]]
        require(not differing, "both receipts say the same", block.session, differing)
        leak = said["leak"]
        kinds = ("syndrome", "extra_syndrome", "requests", "verification", "counts")
        require(sum(leak[kind] for kind in kinds) == leak["total"], "leaks add up", block.session)

    # --- the end ----------------------------------------------------------------------------------

    def check_settled(self, world: World) -> None:
        """Nothing is under way any more: both ends have the same keys, and nothing is left over."""
        require(world.settled, "liveness: every session comes to an end", world.now_ns)
        for name, node in world.nodes.items():
            store = node.store
            left = [n for n in store.facts if n.startswith(("session/", "link/"))]
            require(not left, "an ended session leaves no rounds", name, left[:3])
            require(not store.held, "every stored block is confirmed", name, list(store.held))
            waiting = [key_id for box in store.outbox.values() for key_id in box]
            require(not waiting, "every allocation reaches the peer", name, waiting[:3])
            for session, block in store.deliverable.items():
                theirs = world.nodes[block.peer].store.deliverable.get(session)
                require(theirs is not None, "deliverable at both ends", name, session)
                same = theirs is not None and theirs.slots == block.slots
                require(same, "both ends have the same keys", name, session)
                same = theirs is not None and theirs.receipt == block.receipt
                require(same, "both ends have the same receipt", name, session)
                ends = json.loads(block.receipt)["ends"].values()
                require(all(ends), "both ends signed the receipt", name, session)
                recorded = world.nodes[block.peer].store.recorded
                told = all(
                    key_id in recorded for key_id, a in store.taken.items() if a.session == session
                )
                require(told, "what is taken here is recorded there", name, session)


def _others(world: World, name: NodeName, session: SessionId) -> list[SimulatedStore]:
    """The stores of the peers a node shares a session with."""
    own = world.nodes[name].store
    block = own.held.get(session) or own.deliverable.get(session)
    return [world.nodes[block.peer].store] if block else []
