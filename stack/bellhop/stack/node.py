"""All cores of a node put together: what is about a session goes there, the rest is decided here.

Rules
  One session a peer is under way at a time.  A session that has stored its keys stays until the
  peer has stored them too, because the peer may still need to hear what was said.
  Of two proposals that cross, that of the node whose name sorts first holds.
  A session id is never used twice: ended ones are remembered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from bellhop.hal.operations import (
    DeviceGone,
    LinkName,
    NodeName,
    Port,
    Ready,
    Report,
    Side,
)
from bellhop.stack.core import (
    AbortSession,
    Action,
    Answer,
    Ask,
    Asked,
    Compute,
    Computed,
    ComputeFailed,
    ConfirmKeys,
    Event,
    Fact,
    KeysTaken,
    Note,
    PeerJoined,
    PeerLost,
    PeerSaid,
    Persist,
    Refuse,
    Reported,
    RunSession,
    Tell,
    Tick,
    VoidKeys,
)
from bellhop.stack.diqkd.jobs import Plan
from bellhop.stack.diqkd.parameters import (
    ROUNDS_MAX,
    Parameters,
    SessionPolicy,
    decode_parameters,
    objections,
)
from bellhop.stack.diqkd.pool import Pool
from bellhop.stack.diqkd.record import Record, restore
from bellhop.stack.diqkd.session import Session
from bellhop.stack.ids import AskNumber, JobNumber, SessionId
from bellhop.stack.keys.handover import Handover
from bellhop.stack.keys.ledger import MASKS_A_SESSION, MASKS_ALICE
from bellhop.stack.messages import (
    Abort,
    Accept,
    Allocation,
    AllocationsRecorded,
    BlockHeralded,
    BlockStored,
    KeysAllocated,
    Position,
    Propose,
)
from bellhop.stack.ports import port_fact, port_to, restore_ports
from bellhop.stack.rng import Rng

ENDED_MAX = 4096
"""Ids of ended sessions remembered."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node core is told once."""

    name: NodeName
    peers: tuple[NodeName, ...]
    session: SessionPolicy


@dataclass(frozen=True, slots=True)
class Restored:
    """What the store remembers: facts, sessions whose keys wait for the peer, allocations."""

    facts: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    held: tuple[SessionId, ...] = ()
    outbox: Mapping[NodeName, tuple[Allocation, ...]] = field(default_factory=dict)


class NodeCore:
    """The core of one node."""

    def __init__(self, settings: NodeSettings, rng: Rng, restored: Restored) -> None:
        facts = dict(restored.facts)
        self._settings = settings
        self._policy = settings.session
        self._rng = rng
        self._joined: set[NodeName] = set()
        self._ports: dict[LinkName, Port] = restore_ports(facts)
        self._device_ready = False
        self._device_sessions = {
            LinkName(name.removeprefix("device/")): int.from_bytes(payload, "big")
            for name, payload in facts.items()
            if name.startswith("device/")
        }
        self._pools = {peer: Pool(peer, facts) for peer in settings.peers}
        self._ended = {
            SessionId(name.removeprefix("ended/")): payload.decode()
            for name, payload in facts.items()
            if name.startswith("ended/")
        }
        self._proposals: dict[NodeName, Record] = {}
        self._sessions: dict[SessionId, Session] = {}
        self._held = set(restored.held)
        self._peer_stored: set[SessionId] = set()
        self._handover = Handover(restored.outbox)
        self._plans: dict[JobNumber, NodeName] = {}
        self._asks: dict[NodeName, AskNumber] = {}
        self._last: dict[str, str | int | float] = {}
        self._jobs = 0
        self._retold_ns = 0
        self._begun = False
        self._facts = facts

    # --- the contract -----------------------------------------------------------------------------

    def step(self, now_ns: int, event: Event) -> list[Action]:
        """Take an event and the time; return what to do, in order."""
        actions = [] if self._begun else self._begin(now_ns)
        match event:
            case Tick():
                actions += self._tick(now_ns)
            case PeerJoined(peer):
                actions += self._join(peer)
            case PeerLost(peer):
                self._joined.discard(peer)
            case PeerSaid(peer, message):
                actions += self._hear(now_ns, peer, message)
            case Reported(report):
                actions += self._report(now_ns, report)
            case Asked(number, ask):
                actions += self._asked(number, ask)
            case Computed(job, result):
                actions += self._computed(now_ns, job, result)
            case ComputeFailed(job, why):
                actions += self._compute_failed(now_ns, job, why)
            case KeysTaken():
                actions += self._handover.taken(event)
            case _:
                assert_never(event)
        return actions + self._settle()

    def next_deadline(self) -> int | None:
        deadlines = [session.next_deadline() for session in self._sessions.values()]
        known = [deadline for deadline in deadlines if deadline is not None]
        if self._retelling():
            known.append(self._retold_ns + self._policy.retry_ns)
        return min(known, default=None)

    def snapshot(self) -> dict[str, Any]:
        """The node's state for people, in plain values; no secrets."""
        return {
            "node": self._settings.name,
            "device_ready": self._device_ready,
            "ports": {
                port.link: {
                    "peer": port.peer,
                    "side": port.side.value,
                    "source": port.source.value,
                    "description": port.description,
                }
                for port in self._ports.values()
            },
            "peers": {
                peer: {
                    "joined": peer in self._joined,
                    "pool_provisioned": pool.provisioned,
                    "masks_left": pool.masks_left,
                    "masks_left_incoming": pool.masks_left_incoming,
                    "allocations_waiting": self._handover.waiting(peer),
                }
                for peer, pool in self._pools.items()
            },
            "sessions": [_progress(session) for session in self._sessions.values()]
            + [_proposed(record) for record in self._proposals.values()],
            "held": sorted(self._held),
            "last_session": dict(self._last),
        }

    # --- life -------------------------------------------------------------------------------------

    def _begin(self, now_ns: int) -> list[Action]:
        """Take up what was under way when the node stopped."""
        self._begun = True
        self._retold_ns = now_ns
        actions: list[Action] = []
        for record in restore(self._settings.name, self._facts):
            if record.peer not in self._pools:
                continue
            if record.agreed or record.stored:
                actions += self._start(now_ns, record)
            else:
                self._proposals[record.peer] = record
        self._facts = {}
        return actions

    def _start(self, now_ns: int, record: Record) -> list[Action]:
        link = record.parameters.link
        session = Session(
            record,
            self._policy,
            self._pools[record.peer],
            self._rng,
            self._ports[link],
            self._facts,
            self._device_sessions.get(link, 0),
            self._number_job,
            device_ready=self._device_ready,
        )
        self._sessions[record.session] = session
        return session.begin(now_ns)

    def _number_job(self) -> JobNumber:
        self._jobs += 1
        return JobNumber(self._jobs)

    def _retelling(self) -> bool:
        """Whether something waits for a joined peer that no session tells."""
        return any(
            peer in self._proposals or self._handover.waiting(peer) or self._held_with(peer)
            for peer in self._joined
        )

    def _held_with(self, peer: NodeName) -> list[SessionId]:
        return sorted(
            session
            for session in self._held
            if session in self._sessions and self._sessions[session].record.peer == peer
        )

    def _tick(self, now_ns: int) -> list[Action]:
        actions: list[Action] = []
        for session in list(self._sessions.values()):
            actions += session.tick(now_ns, peer_joined=session.record.peer in self._joined)
        if now_ns >= self._retold_ns + self._policy.retry_ns:
            self._retold_ns = now_ns
            for peer in sorted(self._joined):
                actions += self._retell(peer)
        return actions

    def _join(self, peer: NodeName) -> list[Action]:
        if peer not in self._pools:
            return [Refuse(peer, "peer_unknown", who="the operator of this node")]
        self._joined.add(peer)
        actions = self._retell(peer)
        for session in self._sessions.values():
            if session.record.peer == peer and not session.ended:
                actions += session.position()
        return actions

    def _retell(self, peer: NodeName) -> list[Action]:
        """What the peer must hear whatever it has heard before."""
        actions: list[Action] = []
        if (record := self._proposals.get(peer)) is not None:
            actions.append(Tell(peer, Propose(record.session, record.parameters.encode())))
        for session in self._held_with(peer):
            actions.append(Tell(peer, BlockStored(session, confirmed=False)))
        return actions + self._handover.retell(peer)

    def _settle(self) -> list[Action]:
        """Take note of sessions that ended in this step."""
        actions: list[Action] = []
        for id_, session in list(self._sessions.items()):
            ended = session.ended
            if ended is None or (id_ in self._held and id_ not in self._peer_stored):
                continue
            if ended.outcome == "aborted":
                actions += self._remember(id_, ended.reason)
                del self._sessions[id_]
            elif id_ in self._peer_stored:
                actions += self._confirm(id_)
            else:
                self._held.add(id_)
            actions += self._answer(session.record.peer, ended.outcome, ended.reason, ended.fields)
        return actions

    def _answer(
        self,
        peer: NodeName,
        outcome: str,
        reason: str = "",
        fields: Mapping[str, str | int | float] | None = None,
    ) -> list[Action]:
        self._last = {"outcome": outcome, "reason": reason, **(fields or {})}
        number = self._asks.pop(peer, None)
        return [] if number is None else [Answer(number, outcome, dict(self._last))]

    def _remember(self, session: SessionId, how: str) -> list[Action]:
        """Keep the id of an ended session, and let go of the oldest beyond the bound."""
        self._ended[session] = how
        if len(self._ended) <= ENDED_MAX:
            return []
        oldest = next(iter(self._ended))
        del self._ended[oldest]
        return [Persist((), (f"ended/{oldest}",))]

    # --- the memory -------------------------------------------------------------------------------

    def _report(self, now_ns: int, report: Report) -> list[Action]:
        if isinstance(report, Ready):
            return self._ready(now_ns, report)
        if isinstance(report, DeviceGone):
            self._device_ready = False
            actions: list[Action] = [Note("device_gone", {"why": report.reason})]
            for session in self._running():
                actions += session.reported(now_ns, report)
            return actions
        concerned = self._sessions.get(SessionId(report.request))
        if concerned is None or concerned.ended:
            return []
        return concerned.reported(now_ns, report)

    def _ready(self, now_ns: int, report: Ready) -> list[Action]:
        self._device_ready = True
        changed = [port for port in report.ports if self._ports.get(port.link) != port]
        self._ports |= {port.link: port for port in report.ports}
        actions: list[Action] = [Note("device_ready", {"ports": len(report.ports)})]
        if changed:
            actions.append(Persist(tuple(port_fact(port) for port in changed)))
        for session in self._running():
            actions += session.reported(now_ns, report)
        return actions

    def _running(self) -> list[Session]:
        return [session for session in self._sessions.values() if not session.ended]

    # --- the operator -----------------------------------------------------------------------------

    def _asked(self, number: AskNumber, ask: Ask) -> list[Action]:
        match ask:
            case RunSession():
                return self._run(number, ask)
            case AbortSession(peer):
                return self._give_up(number, peer)

    def _run(self, number: AskNumber, ask: RunSession) -> list[Action]:
        if why := self._run_objection(ask):
            return [Answer(number, "refused", {"reason": why, "peer": ask.peer})]
        port = port_to(self._ports.values(), ask.peer)
        assert port is not None
        own, peer = self._settings.name, ask.peer
        alice, bob = (own, peer) if port.side is Side.A else (peer, own)
        job = self._number_job()
        session = SessionId(self._rng.child("session id", job).draw(16).hex())
        seed = int.from_bytes(self._rng.child("code seed", job).draw(4), "big")
        self._plans[job] = peer
        self._asks[peer] = number
        plan = Plan(session, port.link, alice, bob, ask.rounds, seed, self._policy)
        return [Compute(job, plan)]

    def _run_objection(self, ask: RunSession) -> str | None:
        peer = ask.peer
        if peer not in self._pools:
            return f"{peer} is no peer of this node: see [[peer]] in its configuration"
        if not 0 < ask.rounds <= ROUNDS_MAX:
            return f"a session has 1 to {ROUNDS_MAX} rounds"
        if peer not in self._joined:
            return f"{peer} is not connected: see the logs of both nodes"
        if not self._device_ready:
            return "the memory is not connected: see [memory] in the configuration"
        port = port_to(self._ports.values(), peer)
        if port is None:
            return f"no port of the memory leads to {peer}"
        if self._busy(peer):
            return f"a session with {peer} is under way"
        return self._pool_objection(peer, is_alice=port.side is Side.A)

    def _busy(self, peer: NodeName) -> bool:
        return (
            peer in self._proposals
            or peer in self._plans.values()
            or any(session.record.peer == peer for session in self._running())
        )

    def _pool_objection(self, peer: NodeName, *, is_alice: bool) -> str | None:
        pool = self._pools[peer]
        own = MASKS_ALICE if is_alice else MASKS_A_SESSION - MASKS_ALICE
        if not pool.provisioned:
            return f"no authentication pool with {peer}: bellhop pool provision"
        if pool.masks_left < own or pool.masks_left_incoming < MASKS_A_SESSION - own:
            return f"the authentication pool with {peer} is used up: bellhop pool provision"
        return None

    def _give_up(self, number: AskNumber, peer: NodeName) -> list[Action]:
        for session in self._running():
            if session.record.peer == peer:
                if not session.abortable:
                    why = "it is past the point where one end may give up"
                    return [Answer(number, "refused", {"reason": why, "peer": peer})]
                done = Answer(number, "aborted", {"peer": peer})
                return [*session.abort("given up by the operator"), done]
        return [Answer(number, "refused", {"reason": "no session is under way", "peer": peer})]

    # --- jobs -------------------------------------------------------------------------------------

    def _computed(self, now_ns: int, job: JobNumber, result: object) -> list[Action]:
        if (peer := self._plans.pop(job, None)) is not None:
            return self._propose(peer, result)
        for session in self._running():
            if session.owns(job):
                return session.computed(now_ns, job, result)
        return []

    def _compute_failed(self, now_ns: int, job: JobNumber, why: str) -> list[Action]:
        if (peer := self._plans.pop(job, None)) is not None:
            return self._answer(peer, "refused", f"planning failed: {why}")
        for session in self._running():
            if session.owns(job):
                return session.compute_failed(now_ns, job, why)
        return []

    def _propose(self, peer: NodeName, planned: object) -> list[Action]:
        if not isinstance(planned, Parameters):
            return self._answer(peer, "refused", str(planned))
        if why := objections(planned, self._policy):
            return self._answer(peer, "refused", why)
        record = Record(planned, self._settings.name, peer, agreed=False)
        self._proposals[peer] = record
        persist = Persist((record.parameters_fact(),))
        return [persist, Tell(peer, Propose(planned.session, planned.encode()))]

    # --- the peer ---------------------------------------------------------------------------------

    def _hear(self, now_ns: int, peer: NodeName, message: object) -> list[Action]:
        if peer not in self._pools:
            return [Refuse(peer, "peer_unknown", who="the operator of this node")]
        match message:
            case Propose():
                return self._hear_propose(now_ns, peer, message)
            case Accept():
                return self._hear_accept(now_ns, peer, message)
            case Abort():
                return self._hear_abort(peer, message)
            case BlockStored():
                return self._hear_stored(peer, message)
            case KeysAllocated():
                return self._handover.hear_allocated(peer, message)
            case AllocationsRecorded():
                return self._handover.hear_recorded(peer, message)
            case _:
                return self._hear_session(now_ns, peer, message)

    def _hear_session(self, now_ns: int, peer: NodeName, message: Any) -> list[Action]:
        is_block = isinstance(message, BlockHeralded)
        id_ = SessionId(message.request) if is_block else message.session
        proposal = self._proposals.get(peer)
        if proposal is not None and proposal.session == id_ and isinstance(message, Position):
            accept = Accept(id_, b"")  # it speaks of the session as of its own: it has agreed
            return self._hear_accept(now_ns, peer, accept)
        session = self._sessions.get(id_)
        if session is not None and session.record.peer == peer:
            if session.ended and not isinstance(message, Position):
                return []
            return session.hear(now_ns, message)
        if id_ in self._ended:
            stored = self._ended[id_] == "stored"
            end = BlockStored(id_, confirmed=True) if stored else Abort(id_, self._ended[id_])
            return [Tell(peer, end)]
        if isinstance(message, Position):
            return [Tell(peer, Abort(id_, "not known here"))]
        return [Refuse(peer, "session_unknown")]

    def _hear_propose(self, now_ns: int, peer: NodeName, message: Propose) -> list[Action]:
        id_ = message.session
        if id_ in self._sessions:
            return [Tell(peer, Accept(id_, b""))] if self._is_with(id_, peer) else []
        if id_ in self._ended:
            return [Tell(peer, Abort(id_, self._ended[id_]))]
        try:
            parameters = decode_parameters(message.parameters)
        except ValueError as error:
            return [Refuse(peer, "proposal_malformed", str(error))]
        yielded: list[Action] = []
        if peer in self._proposals and peer < self._settings.name:
            yielded = self._withdraw(peer)
        if why := self._propose_objection(peer, id_, parameters):
            fields: dict[str, str | int | float] = {"peer": peer, "why": why}
            return [*yielded, Note("proposal_declined", fields), Tell(peer, Abort(id_, why))]
        record = Record(parameters, self._settings.name, peer, agreed=True)
        persist = Persist((record.parameters_fact(),))
        return [*yielded, persist, Tell(peer, Accept(id_, b"")), *self._start(now_ns, record)]

    def _is_with(self, id_: SessionId, peer: NodeName) -> bool:
        return self._sessions[id_].record.peer == peer

    def _withdraw(self, peer: NodeName) -> list[Action]:
        record = self._proposals.pop(peer)
        answered = self._answer(peer, "refused", f"{peer} proposed a session at the same time")
        return [Persist((), record.prefixes), *answered]

    def _propose_objection(
        self, peer: NodeName, session: SessionId, parameters: Parameters
    ) -> str | None:
        own = self._settings.name
        port = self._ports.get(parameters.link)
        if parameters.session != session or len(session) != 32 or not _is_hex(session):
            return "the session's id is malformed"
        if port is None or port.peer != peer:
            return f"link {parameters.link} does not lead to you from here"
        if (parameters.alice, parameters.bob) != (
            (own, peer) if port.side is Side.A else (peer, own)
        ):
            return "the devices have the other roles on this link"
        if not self._device_ready:
            return "the memory is not connected here"
        if self._busy(peer):
            return "a session is under way here"
        if why := self._pool_objection(peer, is_alice=port.side is Side.A):
            return why
        return objections(parameters, self._policy)

    def _hear_accept(self, now_ns: int, peer: NodeName, message: Accept) -> list[Action]:
        record = self._proposals.get(peer)
        if record is None or record.session != message.session:
            known = message.session in self._sessions or message.session in self._ended
            return [] if known else [Refuse(peer, "accept_unexpected")]
        del self._proposals[peer]
        record.agreed = True
        return [Persist((record.parameters_fact(),)), *self._start(now_ns, record)]

    def _hear_abort(self, peer: NodeName, message: Abort) -> list[Action]:
        id_ = message.session
        reason = f"by {peer}: {message.reason}"
        proposal = self._proposals.get(peer)
        if proposal is not None and proposal.session == id_:
            del self._proposals[peer]
            forget = Persist((), proposal.prefixes)
            return [forget, *self._answer(peer, "refused", f"declined {reason}")]
        session = self._sessions.get(id_)
        if session is None or session.record.peer != peer:
            return []
        if not session.record.stored:
            return session.abort(reason, tell=False)
        del self._sessions[id_]
        self._held.discard(id_)
        fact = Fact(f"ended/{id_}", reason.encode())
        gone = Persist((fact,), session.record.prefixes)
        return [VoidKeys(id_, reason), gone, *self._remember(id_, reason)]

    def _hear_stored(self, peer: NodeName, message: BlockStored) -> list[Action]:
        id_ = message.session
        if id_ in self._sessions and self._is_with(id_, peer):
            self._peer_stored.add(id_)
            if not self._sessions[id_].record.stored:
                return self._sessions[id_].position()  # it may have what we still lack
            confirmed = Tell(peer, BlockStored(id_, confirmed=True))
            told: list[Action] = [] if message.confirmed else [confirmed]
            return [*self._confirm(id_), *told]
        if message.confirmed:
            return []
        if self._ended.get(id_) == "stored":
            return [Tell(peer, BlockStored(id_, confirmed=True))]
        return [Tell(peer, Abort(id_, self._ended.get(id_, "not known here")))]

    def _confirm(self, id_: SessionId) -> list[Action]:
        """Both ends have the keys: they are deliverable, and the session is done with."""
        record = self._sessions.pop(id_).record
        self._held.discard(id_)
        self._peer_stored.discard(id_)
        link = record.parameters.link
        self._device_sessions[link] = self._device_sessions.get(link, 0) + 1
        pool = self._pools[record.peer]
        facts = (pool.ready_fact(id_), Fact(f"ended/{id_}", b"stored"))
        persist = Persist(facts, (*record.prefixes, *pool.worn_out()))
        return [ConfirmKeys(id_, persist), *self._remember(id_, "stored")]


def _is_hex(text: str) -> bool:
    return all(digit in "0123456789abcdef" for digit in text)


def _progress(session: Session) -> dict[str, str | int | float]:
    record = session.record
    return {
        "session": record.session,
        "peer": record.peer,
        "role": "alice" if record.is_alice else "bob",
        "stage": session.stage,
        "rounds": record.parameters.rounds,
        "rounds_done": session.rounds_done,
        "key_bits": record.parameters.key_bits,
    }


def _proposed(record: Record) -> dict[str, str | int | float]:
    return {
        "session": record.session,
        "peer": record.peer,
        "role": "alice" if record.is_alice else "bob",
        "stage": "proposed",
        "rounds": record.parameters.rounds,
        "rounds_done": 0,
        "key_bits": record.parameters.key_bits,
    }
