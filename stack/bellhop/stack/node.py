"""All cores of a node put together: the contract, and who is handed what.

`diqkd.proposals` agrees on sessions, `diqkd.desk` keeps them, `keys.handover` tells of keys handed
out; what the memory and the peers say is passed to them here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from bellhop.hal.operations import DeviceGone, NodeName, Ready, Report
from bellhop.stack.core import (
    AbortSession,
    Action,
    Asked,
    CalibrateLink,
    Computed,
    ComputeFailed,
    Event,
    KeysTaken,
    Note,
    PauseSession,
    PeerJoined,
    PeerLost,
    PeerSaid,
    Persist,
    Refuse,
    Reported,
    RunSession,
    Tick,
)
from bellhop.stack.diqkd.calibrating import design_of
from bellhop.stack.diqkd.desk import Desk, session_of
from bellhop.stack.diqkd.endorsements import Endorsements
from bellhop.stack.diqkd.parameters import KEY, SessionPolicy, expected_key_bits
from bellhop.stack.diqkd.proposals import Proposals
from bellhop.stack.diqkd.record import Record, restore
from bellhop.stack.diqkd.session import Session, SessionMessage
from bellhop.stack.identity import Identity
from bellhop.stack.ids import JobNumber, SessionId
from bellhop.stack.keys.handover import Handover
from bellhop.stack.messages import (
    Abort,
    Accept,
    Allocation,
    AllocationsRecorded,
    BlockStored,
    KeysAllocated,
    Message,
    Position,
    Propose,
)
from bellhop.stack.ports import port_fact, usable
from bellhop.stack.rng import Rng


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

    def __init__(
        self, settings: NodeSettings, rng: Rng, restored: Restored, identity: Identity
    ) -> None:
        facts = dict(restored.facts)
        self._settings = settings
        self._joined: set[NodeName] = set()
        endorsements = Endorsements(settings.name, identity, facts)
        self._desk = Desk(
            settings.name,
            settings.peers,
            settings.session,
            rng,
            facts,
            restored.held,
            endorsements,
        )
        self._proposals = Proposals(self._desk)
        self._handover = Handover(restored.outbox)
        self._retold_ns = 0
        self._unread: Mapping[str, bytes] | None = facts

    # --- the contract -----------------------------------------------------------------------------

    def step(self, now_ns: int, event: Event) -> list[Action]:
        """Take an event and the time; return what to do, in order."""
        actions = self._begin(now_ns)
        match event:
            case Tick():
                actions += self._tick(now_ns)
            case PeerJoined(peer):
                actions += self._join(peer)
            case PeerLost(peer):
                self._joined.discard(peer)
            case PeerSaid(peer, message):
                known = peer in self._desk.pools
                actions += self._hear(now_ns, peer, message) if known else [_stranger(peer)]
            case Reported(report):
                actions += self._report(now_ns, report)
            case Asked():
                actions += self._asked(now_ns, event)
            case Computed(job, result):
                actions += self._computed(now_ns, job, result)
            case ComputeFailed(job, why):
                actions += self._compute_failed(now_ns, job, why)
            case KeysTaken():
                actions += self._handover.taken(event)
            case _:
                assert_never(event)
        return actions + self._desk.settle()

    def next_deadline(self) -> int | None:
        deadlines = self._desk.next_deadlines() + self._proposals.next_deadlines()
        if self._retelling():
            deadlines.append(self._retold_ns + self._settings.session.retry_ns)
        return min(deadlines, default=None)

    @property
    def idle(self) -> bool:
        """Nothing is under way with any peer: no session, no proposal, no key to be told of."""
        told = not any(self._handover.waiting(peer) for peer in self._desk.pools)
        return told and self._proposals.idle and not self._desk.sessions

    def snapshot(self) -> dict[str, Any]:
        """The node's state for people, in plain values; no secrets."""
        desk = self._desk
        design = design_of(desk.policy)
        return {
            "node": self._settings.name,
            "device_ready": desk.device_ready,
            "ports": {
                port.link: {
                    "peer": port.peer,
                    "side": port.side.value,
                    "source": port.source.value,
                    "description": port.description,
                }
                for port in desk.ports.values()
            },
            "peers": {
                peer: {
                    "joined": peer in self._joined,
                    "pool_provisioned": pool.provisioned,
                    "masks_left": pool.masks_left,
                    "masks_left_incoming": pool.masks_left_incoming,
                    "forgeries": pool.forgeries,
                    "allocations_waiting": self._handover.waiting(peer),
                }
                for peer, pool in desk.pools.items()
            },
            "sessions": [_progress(session) for session in desk.sessions.values()]
            + [_about(record, "proposed", 0) for record in self._proposals.records()],
            "held": sorted(desk.held),
            "refused_endorsements": dict(desk.refused_endorsements),
            "calibrations": desk.calibrations.document(),
            "drifts": {
                link: [one.fields() for one in desk.calibrations.drift(link, design)]
                for link in desk.ports
            },
            "last_session": dict(desk.last),
            "last_refusal": dict(desk.last_refusal),
        }

    # --- life -------------------------------------------------------------------------------------

    def _begin(self, now_ns: int) -> list[Action]:
        """At the first step: take up what was under way when the node stopped."""
        facts, self._unread = self._unread, None
        if facts is None:
            return []
        self._retold_ns = now_ns
        actions: list[Action] = []
        for record in restore(self._settings.name, facts):
            if record.peer not in self._desk.pools:
                continue
            if record.stored and record.session not in self._desk.held:
                actions += self._desk.void(record, "voided before this node stopped")
            elif record.agreed:
                actions += self._desk.start(now_ns, record, facts)
            else:
                self._proposals.restore(now_ns, record)
        return actions

    def _retelling(self) -> bool:
        """Whether something waits for a joined peer that no session tells."""
        return any(
            self._proposals.waits_for(peer)
            or self._handover.waiting(peer)
            or self._desk.held_with(peer)
            for peer in self._joined
        )

    def _tick(self, now_ns: int) -> list[Action]:
        actions = self._proposals.tick(now_ns) + self._desk.tick(now_ns, self._joined)
        if now_ns >= self._retold_ns + self._settings.session.retry_ns:
            self._retold_ns = now_ns
            for peer in sorted(self._joined):
                actions += self._retell(peer)
        return actions

    def _join(self, peer: NodeName) -> list[Action]:
        if peer not in self._desk.pools:
            return [_stranger(peer)]
        self._joined.add(peer)
        return self._retell(peer) + self._desk.positions(peer)

    def _retell(self, peer: NodeName) -> list[Action]:
        """What the peer must hear whatever it has heard before."""
        told = self._proposals.retell(peer) + self._desk.retell(peer)
        return told + self._handover.retell(peer)

    # --- the memory -------------------------------------------------------------------------------

    def _report(self, now_ns: int, report: Report) -> list[Action]:
        desk = self._desk
        if isinstance(report, Ready):
            # Sessions on a port that is another one now end before it is remembered.
            ended = desk.reported(now_ns, report, desk.running())
            return ended + self._ready(report)
        if isinstance(report, DeviceGone):
            desk.device_ready = False
            gone = Note("device_gone", {"why": report.reason})
            return [gone, *desk.reported(now_ns, report, desk.running())]
        concerned = desk.sessions.get(SessionId(report.request))
        if concerned is None or concerned.record.parameters.link != report.link:
            return []
        return desk.reported(now_ns, report, [concerned])

    def _ready(self, report: Ready) -> list[Action]:
        desk = self._desk
        desk.device_ready = True
        ports = usable(report.ports, desk.ports)
        changed = [port for link, port in ports.items() if desk.ports.get(link) != port]
        desk.ports = ports
        actions: list[Action] = [Note("device_ready", {"ports": len(report.ports)})]
        if changed:
            actions.append(Persist(tuple(port_fact(port) for port in changed)))
        return actions

    # --- the operator and the workers -------------------------------------------------------------

    def _asked(self, now_ns: int, asked: Asked) -> list[Action]:
        match asked.ask:
            case RunSession():
                return self._proposals.run(asked.number, asked.ask, self._joined)
            case AbortSession(peer):
                given_up = self._proposals.give_up(asked.number, peer)
                return self._desk.give_up(asked.number, peer) if given_up is None else given_up
            case PauseSession():
                return self._desk.pause(now_ns, asked.number, asked.ask)
            case CalibrateLink():
                return self._proposals.calibrate(now_ns, asked.number, asked.ask, self._joined)

    def _computed(self, now_ns: int, job: JobNumber, result: object) -> list[Action]:
        planned = self._proposals.computed(now_ns, job, result)
        return self._desk.computed(now_ns, job, result) if planned is None else planned

    def _compute_failed(self, now_ns: int, job: JobNumber, why: str) -> list[Action]:
        planned = self._proposals.compute_failed(job, why)
        return self._desk.compute_failed(now_ns, job, why) if planned is None else planned

    # --- the peer ---------------------------------------------------------------------------------

    def _hear(self, now_ns: int, peer: NodeName, message: Message) -> list[Action]:
        match message:
            case Propose():
                return self._proposals.hear_propose(now_ns, peer, message)
            case Accept():
                return self._proposals.hear_accept(now_ns, peer, message)
            case Abort(session, reason):
                if self._proposals.is_proposed(peer, session):
                    return self._proposals.declined(peer, reason)
                return self._desk.hear_abort(peer, message)
            case BlockStored():
                return self._desk.hear_stored(now_ns, peer, message)
            case KeysAllocated():
                return self._handover.hear_allocated(peer, message)
            case AllocationsRecorded():
                return self._handover.hear_recorded(peer, message)
            case _:
                return self._hear_session(now_ns, peer, message)

    def _hear_session(self, now_ns: int, peer: NodeName, message: SessionMessage) -> list[Action]:
        about_proposed = self._proposals.is_proposed(peer, session_of(message))
        if about_proposed and isinstance(message, Position):
            # It speaks of the session as of its own: it has agreed.
            return self._proposals.agree(now_ns, peer)
        return self._desk.hear(now_ns, peer, message)


def _stranger(peer: NodeName) -> Refuse:
    return Refuse(peer, "peer_unknown", who="the operator of this node")


def _progress(session: Session) -> dict[str, Any]:
    progress = _about(session.record, session.stage, session.rounds_done)
    return progress | {
        "paused_by": session.holds.paused_by,
        "devices_away": session.holds.devices_away,
        "held_since_ns": session.holds.since_ns,
        "blocks_under_way": session.under_way,
        "experiment_ns": session.experiment_ns,
    }


def _about(record: Record, stage: str, rounds_done: int) -> dict[str, Any]:
    parameters = record.parameters
    return {
        "session": record.session,
        "peer": record.peer,
        "role": "alice" if record.is_alice else "bob",
        "stage": stage,
        "purpose": parameters.purpose,
        "rounds": parameters.rounds,
        "rounds_done": rounds_done,
        "key_bits": max(0, expected_key_bits(parameters)) if parameters.purpose == KEY else 0,
    }
