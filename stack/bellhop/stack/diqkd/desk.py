"""The sessions of one node: started, told what concerns them, ended, and remembered.

Rules
  One session a peer is under way at a time.  A session that has stored its keys stays until the
  peer has stored them too, because the peer may still need to hear what was said.
  A session id is never used twice: ended ones are remembered.
"""

from collections.abc import Callable, Mapping
from functools import partial

from bellhop.hal.operations import LinkName, NodeName, Port, Report
from bellhop.stack.core import (
    Action,
    Answer,
    ConfirmKeys,
    PauseSession,
    Persist,
    Refuse,
    Tell,
    VoidKeys,
)
from bellhop.stack.diqkd.calibrate import CALIBRATED, Calibrations
from bellhop.stack.diqkd.calibrating import Calibrating, result_of
from bellhop.stack.diqkd.device_use import PREFIX as USE_PREFIX
from bellhop.stack.diqkd.device_use import DeviceUse, read_use
from bellhop.stack.diqkd.endings import Past, Pasts
from bellhop.stack.diqkd.endorsements import Endorsements
from bellhop.stack.diqkd.pace import Pace
from bellhop.stack.diqkd.parameters import CALIBRATION, SessionPolicy
from bellhop.stack.diqkd.pool import Pool
from bellhop.stack.diqkd.record import Record
from bellhop.stack.diqkd.session import Session, SessionMessage
from bellhop.stack.ids import AskNumber, JobNumber, SessionId
from bellhop.stack.messages import (
    Abort,
    BlockHeralded,
    BlockStored,
    CalibrationResult,
    Position,
    reason_told,
)
from bellhop.stack.ports import restore_ports
from bellhop.stack.rng import Rng

HELD_MAX = 4
"""With a peer that leaves so many stored sessions unconfirmed no other is begun."""

NOT_KNOWN = "not known here"


class Desk:
    """What a node's sessions share: pools, ports, the memory of ended ones, the operator's asks."""

    def __init__(
        self,
        own: NodeName,
        peers: tuple[NodeName, ...],
        policy: SessionPolicy,
        rng: Rng,
        facts: Mapping[str, bytes],
        held: tuple[SessionId, ...],
        endorsements: Endorsements,
    ) -> None:
        self.own = own
        self.policy = policy
        self.rng = rng
        self.pools = {peer: Pool(peer, facts) for peer in peers}
        self.ports: dict[LinkName, Port] = restore_ports(facts)
        self.device_ready = False
        self.sessions: dict[SessionId, Session] = {}
        self.ended = Pasts(facts)
        self.held = set(held)
        self.calibrations = Calibrations(facts)
        self.last: dict[str, str | int | float] = {}
        self.last_refusal: dict[str, str | int | float] = {}
        self.refused_endorsements: dict[SessionId, str] = {}
        self._looks: dict[SessionId, Pace] = {}  # at words on receipts, after a wrong one
        self._endorsements = endorsements
        self._uses = {
            LinkName(name.removeprefix(USE_PREFIX)): read_use(payload)
            for name, payload in facts.items()
            if name.startswith(USE_PREFIX)
        }
        self._peer_stored: dict[SessionId, bytes] = {}
        self._asks: dict[NodeName, AskNumber] = {}
        self._jobs = 0

    # --- what there is ----------------------------------------------------------------------------

    def running(self) -> list[Session]:
        return [session for session in self.sessions.values() if not session.ended]

    def running_with(self, peer: NodeName) -> Session | None:
        return next((s for s in self.running() if s.record.peer == peer), None)

    def with_peer(self, id_: SessionId, peer: NodeName) -> Session | None:
        """The session of this id if it is with `peer`."""
        session = self.sessions.get(id_)
        return session if session is not None and session.record.peer == peer else None

    def held_with(self, peer: NodeName) -> list[SessionId]:
        return sorted(id_ for id_ in self.held if self.with_peer(id_, peer) is not None)

    def number_job(self) -> JobNumber:
        self._jobs += 1
        return JobNumber(self._jobs)

    # --- beginning --------------------------------------------------------------------------------

    def start(self, now_ns: int, record: Record, link_facts: Mapping[str, bytes]) -> list[Action]:
        """Both ends have agreed, or this end has restarted with these facts."""
        link = record.parameters.link
        kind: Callable[..., Session] = Session
        if record.parameters.purpose == CALIBRATION:
            kind = partial(Calibrating, calibrations=self.calibrations)
        session = kind(
            record,
            self.policy,
            self.pools[record.peer],
            self.rng,
            self.ports[link],
            link_facts,
            self._uses.get(link, DeviceUse()),
            self._endorsements,
            self.number_job,
            device_ready=self.device_ready,
        )
        self.sessions[record.session] = session
        return session.begin(now_ns)

    # --- going on ---------------------------------------------------------------------------------

    def next_deadlines(self) -> list[int]:
        deadlines = [session.next_deadline() for session in self.sessions.values()]
        return [deadline for deadline in deadlines if deadline is not None]

    def tick(self, now_ns: int, joined: set[NodeName]) -> list[Action]:
        actions: list[Action] = []
        for session in list(self.sessions.values()):
            actions += session.tick(now_ns, peer_joined=session.record.peer in joined)
        return actions

    def positions(self, peer: NodeName) -> list[Action]:
        """The peer is back: how far the sessions with it are."""
        actions: list[Action] = []
        for session in self.running():
            if session.record.peer == peer:
                actions += session.position()
        return actions

    def retell(self, peer: NodeName) -> list[Action]:
        """What a peer must hear whatever it has heard before."""
        return [self._stored(peer, id_, confirmed=False) for id_ in self.held_with(peer)]

    def _stored(self, peer: NodeName, id_: SessionId, *, confirmed: bool) -> Tell:
        """Word of a stored block, with this end's part of its receipt as long as that is kept."""
        endorsement = self._endorsements.told(id_, peer)
        return Tell(peer, BlockStored(id_, confirmed=confirmed, endorsement=endorsement))

    def reported(self, now_ns: int, report: Report, concerned: list[Session]) -> list[Action]:
        actions: list[Action] = []
        for session in concerned:
            if not session.ended:
                actions += session.reported(now_ns, report)
        return actions

    def computed(self, now_ns: int, job: JobNumber, result: object) -> list[Action]:
        for session in self.running():
            if session.owns(job):
                return session.computed(now_ns, job, result)
        return []

    def compute_failed(self, now_ns: int, job: JobNumber, why: str) -> list[Action]:
        for session in self.running():
            if session.owns(job):
                return session.compute_failed(now_ns, job, why)
        return []

    # --- the peer ---------------------------------------------------------------------------------

    def hear(self, now_ns: int, peer: NodeName, message: SessionMessage) -> list[Action]:
        id_ = session_of(message)
        session = self.with_peer(id_, peer)
        if session is not None:
            if session.ended and not isinstance(message, Position):
                return []
            return session.hear(now_ns, message)
        if self.ended.with_peer(id_, peer):
            # A result is the last word on a calibration: answered, it would come back for ever.
            last = isinstance(message, CalibrationResult)
            return [] if last else [self.tell_end(peer, id_)]
        if isinstance(message, Position):
            return [Tell(peer, Abort(id_, NOT_KNOWN))]
        return [Refuse(peer, "session_unknown")]

    def tell_end(self, peer: NodeName, id_: SessionId) -> Tell:
        """How a session ended here; of a stored one no abort, or the peer would void its keys.

        Nobody hears how one with another node ended.
        """
        past = self.ended[id_]
        if not past.concerns(peer):
            return Tell(peer, Abort(id_, NOT_KNOWN))
        if past.how == "stored":
            return self._stored(peer, id_, confirmed=True)
        if past.peer is None:
            return Tell(peer, Abort(id_, "it has ended here"))
        if (known := self.calibrations.of_session(id_)) is not None:
            return Tell(peer, result_of(known))
        return Tell(peer, Abort(id_, past.how))

    def hear_abort(self, peer: NodeName, message: Abort) -> list[Action]:
        """The peer has no key and gets none.

        A session that both ends have stored is none any more (`_confirm`): nothing takes it back.
        """
        id_ = message.session
        reason = reason_told(f"by {peer}: {message.reason}")
        session = self.with_peer(id_, peer)
        if session is None:
            return []
        if not session.record.stored:
            return session.abort(reason, tell=False)
        del self.sessions[id_]
        return self.void(session.record, reason)

    def void(self, record: Record, reason: str) -> list[Action]:
        """The peer can never have the block.  The keys go first: a crash after that repeats it."""
        id_, past = record.session, Past(reason, record.peer)
        self._let_go(id_)
        masks = self.pools[record.peer].drop(id_)
        gone = Persist(
            (past.fact(id_),), (*record.prefixes, *masks, *self._endorsements.forget(id_))
        )
        answered = self.answer(record.peer, "aborted", reason)
        return [VoidKeys(id_, reason), gone, *answered, *self.ended.remember(id_, past)]

    def hear_stored(self, now_ns: int, peer: NodeName, message: BlockStored) -> list[Action]:
        id_ = message.session
        session = self.with_peer(id_, peer)
        if session is not None and not session.record.stored:
            self._peer_stored[id_] = message.endorsement  # looked at once there is an own account
            return session.position()  # it may have what we still lack
        if session is not None:
            if id_ in self._looks and not self._looks[id_].take(now_ns):
                return []
            confirmed = self._confirm(id_, message.endorsement)
            if id_ in self.held:
                return confirmed
            if message.confirmed:
                return [*confirmed, *self._heard(id_, peer)]
            return [*confirmed, self._stored(peer, id_, confirmed=True)]
        if message.confirmed:
            return self._heard(id_, peer)
        if id_ in self.ended:
            return [self.tell_end(peer, id_)]
        return [Tell(peer, Abort(id_, NOT_KNOWN))]

    def _heard(self, id_: SessionId, peer: NodeName) -> list[Action]:
        """The peer has this end's word on the receipt: it need not be kept for it."""
        gone = self._endorsements.heard(id_, peer)
        return [Persist((), gone)] if gone else []

    # --- ending -----------------------------------------------------------------------------------

    def give_up(self, number: AskNumber, peer: NodeName) -> list[Action]:
        """An operator gives up the session with `peer`."""
        session = self.running_with(peer)
        if session is None:
            return [Answer(number, "refused", {"reason": "no session is under way", "peer": peer})]
        if not session.abortable:
            why = "it is past the point where one end may give up"
            return [Answer(number, "refused", {"reason": why, "peer": peer})]
        done = Answer(number, "aborted", {"peer": peer})
        return [*session.abort("given up by the operator"), done]

    def pause(self, now_ns: int, number: AskNumber, ask: PauseSession) -> list[Action]:
        """An operator wants no new pairs for a session, or pairs again."""
        session = self.running_with(ask.peer)
        about: dict[str, str | int | float] = {"peer": ask.peer}
        if session is None:
            return [Answer(number, "refused", {"reason": "no session is under way", **about})]
        if ask.paused and not session.needs_pairs:
            why = "it has all its pairs: its key is being made"
            return [Answer(number, "refused", {"reason": why, **about})]
        actions = session.pause(now_ns, ask.paused)
        about |= {
            "session": session.record.session,
            "paused_by": " and ".join(session.holds.paused_by),
        }
        return [*actions, Answer(number, "paused" if ask.paused else "resumed", about)]

    def decline(self, record: Record, reason: str) -> list[Action]:
        """What was proposed here will never be a session: remembered, then told."""
        id_, past = record.session, Past(reason_told(reason), record.peer)
        forgotten = Persist((past.fact(id_),), record.prefixes)
        told = Tell(record.peer, Abort(id_, past.how))
        return [forgotten, told, *self.ended.remember(id_, past)]

    def settle(self) -> list[Action]:
        """Take note of sessions that ended in this step."""
        actions: list[Action] = []
        for id_, session in list(self.sessions.items()):
            ended = session.ended
            if ended is None or (id_ in self.held and id_ not in self._peer_stored):
                continue
            # The fact of it is put where the session ended, with the keys or with the abort.
            self._uses[session.record.parameters.link] = session.use_after
            if ended.outcome in ("aborted", CALIBRATED):  # no key
                how = CALIBRATED if ended.outcome == CALIBRATED else ended.reason
                peer = session.record.peer
                actions += self.ended.remember(id_, Past(how, peer))
                del self.sessions[id_]
                self._let_go(id_)
                actions += self.answer(peer, ended.outcome, ended.reason, ended.fields)
            else:
                self.held.add(id_)
                endorsement = self._peer_stored.pop(id_, None)
                actions += [] if endorsement is None else self._confirm(id_, endorsement)
        return actions

    def _confirm(self, id_: SessionId, endorsement: bytes) -> list[Action]:
        """Both ends have the keys: they are deliverable, and the session is done with.

        Unless the peer's word on the receipt is not what it should be: then the block stays held.
        """
        session = self.sessions[id_]
        record, peer = session.record, session.record.peer
        if objection := self._endorsements.objection(id_, peer, endorsement):
            self._looks.setdefault(id_, Pace(self.policy.retry_ns))
            self.refused_endorsements[id_] = ": ".join(filter(None, objection))
            return [Refuse(peer, *objection, who="the operators of both nodes")]
        del self.sessions[id_]
        self._let_go(id_)
        receipt = self._endorsements.completed(id_, endorsement)
        facts, worn_out = self.pools[peer].ready(id_)
        past = Past("stored", peer)
        gone = (*record.prefixes, *worn_out, *self._endorsements.beyond(peer, self.held))
        confirm = ConfirmKeys(id_, Persist((*facts, past.fact(id_)), gone), receipt)
        fields = session.ended.fields if session.ended else {}
        answered = self.answer(peer, "stored", "", fields)
        return [confirm, *answered, *self.ended.remember(id_, past)]

    def _let_go(self, id_: SessionId) -> None:
        """What is noted of a session that waits for its peer."""
        self.held.discard(id_)
        self._peer_stored.pop(id_, None)
        self.refused_endorsements.pop(id_, None)
        self._looks.pop(id_, None)

    # --- the operator -----------------------------------------------------------------------------

    def expect(self, peer: NodeName, number: AskNumber) -> None:
        """An operator waits for how the next session with `peer` ends."""
        self._asks[peer] = number

    def expected(self, peer: NodeName) -> bool:
        """Whether an operator still waits for the end of a session with `peer`."""
        return peer in self._asks

    def answer(
        self,
        peer: NodeName,
        outcome: str,
        reason: str = "",
        fields: Mapping[str, str | int | float] | None = None,
    ) -> list[Action]:
        """The last word on what was asked for, whether an operator waits for it or not."""
        end = {"outcome": outcome, "reason": reason, **(fields or {})}
        if outcome == "refused":
            self.last_refusal = end  # it never was a session
        else:
            self.last = end
        number = self._asks.pop(peer, None)
        return [] if number is None else [Answer(number, outcome, dict(end))]


def session_of(message: SessionMessage) -> SessionId:
    """The session a message is about; a link's request is named after it."""
    if isinstance(message, BlockHeralded):
        return SessionId(message.request)
    return message.session
