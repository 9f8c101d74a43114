"""How a session comes to be: an operator asks, a plan is computed, proposed, and agreed to.

Rules
  Of two proposals that cross, that of the node whose name sorts first holds.
  A node agrees to what it has computed itself from the proposal, and to nothing else.  It says
  to what, by its digest.
  A proposal that is not answered for as long as a session may stall is given up.
"""

import hashlib
from dataclasses import replace

from bellhop.hal.operations import LinkName, NodeName, Port, Side
from bellhop.stack.core import (
    Action,
    Answer,
    CalibrateLink,
    Compute,
    Note,
    Persist,
    Refuse,
    RunSession,
    Tell,
)
from bellhop.stack.diqkd.agreement import objections
from bellhop.stack.diqkd.calibrating import calibration_objection, calibration_parameters
from bellhop.stack.diqkd.desk import HELD_MAX, Desk
from bellhop.stack.diqkd.jobs import Plan
from bellhop.stack.diqkd.parameters import (
    CALIBRATION,
    ROUNDS_MAX,
    Parameters,
    SessionPolicy,
    decode_parameters,
)
from bellhop.stack.diqkd.record import Record
from bellhop.stack.ids import AskNumber, JobNumber, SessionId
from bellhop.stack.keys.ledger import MASKS_A_SESSION, MASKS_ALICE
from bellhop.stack.messages import Abort, Accept, Propose, reason_told
from bellhop.stack.ports import holds, loophole, port_to


class Proposals:
    """Sessions that one end has proposed, or is planning: at most one a peer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._proposed: dict[NodeName, Record] = {}
        self._since_ns: dict[NodeName, int] = {}
        self._plans: dict[JobNumber, NodeName] = {}

    @property
    def idle(self) -> bool:
        return not (self._proposed or self._plans)

    def records(self) -> list[Record]:
        return list(self._proposed.values())

    def restore(self, now_ns: int, record: Record) -> None:
        """A proposal the peer had not answered when this node stopped."""
        self._proposed[record.peer] = record
        self._since_ns[record.peer] = now_ns

    def next_deadlines(self) -> list[int]:
        return [self._since_ns[peer] + self._desk.policy.stall_ns for peer in self._proposed]

    def tick(self, now_ns: int) -> list[Action]:
        """Give up what was not answered."""
        actions: list[Action] = []
        for peer, record in list(self._proposed.items()):
            if now_ns >= self._since_ns[peer] + self._desk.policy.stall_ns:
                del self._proposed[peer]
                reason = f"{peer} did not answer the proposal"
                actions += self._desk.decline(record, reason)
                actions += self._desk.answer(peer, "refused", reason)
        return actions

    def waits_for(self, peer: NodeName) -> bool:
        return peer in self._proposed

    def retell(self, peer: NodeName) -> list[Action]:
        record = self._proposed.get(peer)
        if record is None:
            return []
        return [Tell(peer, Propose(record.session, record.parameters.encode()))]

    # --- this end proposes ------------------------------------------------------------------------

    def run(self, number: AskNumber, ask: RunSession, joined: set[NodeName]) -> list[Action]:
        desk = self._desk
        if why := self._run_objection(ask, joined):
            return [Answer(number, "refused", {"reason": why, "peer": ask.peer})]
        peer = ask.peer
        port = port_to(desk.ports.values(), peer)
        assert port is not None, "else an objection above"
        alice, bob = self._roles(port)
        job = desk.number_job()
        session = self._new_id(job)
        seed = int.from_bytes(desk.rng.child("code seed", job).draw(4), "big")
        self._plans[job] = peer
        desk.expect(peer, number)
        pool = desk.pools[peer].id
        plan = Plan(
            session=session,
            link=port.link,
            alice=alice,
            bob=bob,
            pool=pool,
            rounds=ask.rounds,
            seed=seed,
            policy=self._policy_on(port.link),
            even_at_a_loss=ask.even_at_a_loss,
        )
        return [Compute(job, plan)]

    def _policy_on(self, link: LinkName) -> SessionPolicy:
        """What this node's sessions on a link are planned with."""
        policy = self._desk.policy
        known = self._desk.calibrations.planned(link) if policy.plan_from_calibration else None
        if known is None:
            return policy
        s, qber = known
        return replace(policy, s_design=s, qber_design=qber)

    def calibrate(
        self, now_ns: int, number: AskNumber, ask: CalibrateLink, joined: set[NodeName]
    ) -> list[Action]:
        """A calibration has nothing to plan, and takes nothing of the pool."""
        desk, peer = self._desk, ask.peer
        if why := self._link_objection(peer, joined):
            return [Answer(number, "refused", {"reason": why, "peer": peer})]
        port = port_to(desk.ports.values(), peer)
        assert port is not None, "else an objection above"
        session = self._new_id(desk.number_job())
        block_rounds = min(desk.policy.block_rounds, ask.rounds)
        parameters = calibration_parameters(
            session, port.link, *self._roles(port), ask.rounds, block_rounds, desk.policy.window
        )
        desk.expect(peer, number)
        return self._propose(now_ns, peer, parameters)

    def _roles(self, port: Port) -> tuple[NodeName, NodeName]:
        """Alice and Bob of the sessions on a port."""
        own = self._desk.own
        return (own, port.peer) if port.side is Side.A else (port.peer, own)

    def _new_id(self, job: JobNumber) -> SessionId:
        return SessionId(self._desk.rng.child("session id", job).draw(16).hex())

    def _run_objection(self, ask: RunSession, joined: set[NodeName]) -> str | None:
        desk, peer = self._desk, ask.peer
        if not 0 < ask.rounds <= ROUNDS_MAX:
            return f"a session has 1 to {ROUNDS_MAX} rounds"
        if why := self._link_objection(peer, joined):
            return why
        port = port_to(desk.ports.values(), peer)
        assert port is not None, "else an objection above"
        pool_id = desk.pools[peer].id
        return self._pool_objection(peer, pool_id, is_alice=port.side is Side.A)

    def _link_objection(self, peer: NodeName, joined: set[NodeName]) -> str | None:
        """Why no session of any purpose can be begun with `peer` now."""
        desk = self._desk
        if peer not in desk.pools:
            return f"{peer} is no peer of this node: see [[peer]] in its configuration"
        if peer not in joined:
            return f"{peer} is not connected: see the logs of both nodes"
        if why := self._device_objection(peer):
            return why
        if self._busy(peer) or desk.expected(peer):
            return f"a session with {peer} is under way"
        if len(desk.held_with(peer)) >= HELD_MAX:
            return f"{peer} has not stored the keys of {HELD_MAX} sessions yet"
        return None

    def _device_objection(self, peer: NodeName) -> str | None:
        """Why this node's own device cannot serve a session of its configuration."""
        desk = self._desk
        if not desk.device_ready:
            return "the memory is not connected: see [memory] in the configuration"
        port = port_to(desk.ports.values(), peer)
        if port is None:
            return f"no port of the memory leads to {peer}"
        if why := loophole(port):
            return why
        if not holds(port, desk.policy.block_rounds):
            return (
                f"diqkd.block_rounds = {desk.policy.block_rounds} in the configuration exceeds the"
                f" {port.rounds_max} pairs that the device on {port.link} holds at once"
            )
        return None

    def _busy(self, peer: NodeName) -> bool:
        planned = peer in self._proposed or peer in self._plans.values()
        return planned or self._desk.running_with(peer) is not None

    def _pool_objection(self, peer: NodeName, pool_id: str, *, is_alice: bool) -> str | None:
        pool = self._desk.pools[peer]
        own = MASKS_ALICE if is_alice else MASKS_A_SESSION - MASKS_ALICE
        if not pool.provisioned:
            return f"no authentication pool with {peer}: bellhop pool provision"
        if pool_id != pool.id:
            return "the authentication pools differ: bellhop pool provision at both nodes"
        if pool.masks_left < own or pool.masks_left_incoming < MASKS_A_SESSION - own:
            return f"the authentication pool with {peer} is used up: bellhop pool provision"
        if pool.worn:
            return f"too many wrong tags came in the name of {peer}: bellhop pool provision"
        return None

    def computed(self, now_ns: int, job: JobNumber, result: object) -> list[Action] | None:
        """What follows from a plan; None if the job is none of these."""
        peer = self._plans.pop(job, None)
        return None if peer is None else self._propose(now_ns, peer, result)

    def compute_failed(self, job: JobNumber, why: str) -> list[Action] | None:
        peer = self._plans.pop(job, None)
        return (
            None if peer is None else self._desk.answer(peer, "refused", f"planning failed: {why}")
        )

    def _propose(self, now_ns: int, peer: NodeName, planned: object) -> list[Action]:
        desk = self._desk
        if not isinstance(planned, Parameters):
            return desk.answer(peer, "refused", str(planned))
        # `even_at_a_loss` is the word of this node's own operator.
        if why := _objections(planned, replace(desk.policy, accept_losing_sessions=True)):
            return desk.answer(peer, "refused", why)
        record = Record(planned, desk.own, peer, agreed=False)
        self.restore(now_ns, record)
        persist = Persist((record.parameters_fact(),))
        return [persist, *self.retell(peer)]

    def hear_accept(self, now_ns: int, peer: NodeName, message: Accept) -> list[Action]:
        desk = self._desk
        record = self._proposed.get(peer)
        if record is None or record.session != message.session:
            id_ = message.session
            known = desk.with_peer(id_, peer) is not None or desk.ended.with_peer(id_, peer)
            return [] if known else [Refuse(peer, "accept_unexpected")]
        if message.digest != _digest(record):
            del self._proposed[peer]
            refused = Refuse(peer, "accept_of_another_proposal")
            why = (
                f"{peer} agreed to another proposal: run another session; if it happens again,"
                " somebody changes what the nodes tell each other"
            )
            return [refused, *desk.decline(record, why), *desk.answer(peer, "refused", why)]
        return self.agree(now_ns, peer)

    def is_proposed(self, peer: NodeName, session: SessionId) -> bool:
        record = self._proposed.get(peer)
        return record is not None and record.session == session

    def agree(self, now_ns: int, peer: NodeName) -> list[Action]:
        """The peer has agreed to what is proposed to it."""
        record = self._proposed.pop(peer)
        if why := loophole(self._desk.ports[record.parameters.link]):
            # The device said so only after the proposal had left.
            return [*self._desk.decline(record, why), *self._desk.answer(peer, "refused", why)]
        record.agreed = True
        return [Persist((record.parameters_fact(),)), *self._desk.start(now_ns, record, {})]

    def give_up(self, number: AskNumber, peer: NodeName) -> list[Action] | None:
        """An operator gives up what is proposed; None if nothing is.

        The peer may have agreed meanwhile: it is told, and whatever it says of it later too.
        """
        if peer not in self._proposed:
            return None
        record = self._proposed.pop(peer)
        reason = "given up by the operator"
        return [
            *self._desk.decline(record, reason),
            *self._desk.answer(peer, "aborted", reason),
            Answer(number, "aborted", {"peer": peer}),
        ]

    def declined(self, peer: NodeName, reason: str) -> list[Action]:
        """The peer will not have what is proposed to it."""
        forget = Persist((), self._proposed.pop(peer).prefixes)
        return [forget, *self._desk.answer(peer, "refused", f"declined by {peer}: {reason}")]

    # --- the peer proposes ------------------------------------------------------------------------

    def hear_propose(self, now_ns: int, peer: NodeName, message: Propose) -> list[Action]:
        desk, id_ = self._desk, message.session
        if id_ in desk.sessions:
            same = desk.with_peer(id_, peer)
            return [] if same is None else [Tell(peer, Accept(id_, _digest(same.record)))]
        if id_ in desk.ended:
            return [desk.tell_end(peer, id_)]
        try:
            parameters = decode_parameters(message.parameters)
        except ValueError as error:
            told = Tell(peer, Abort(id_, "the proposal is not understood"))
            return [Refuse(peer, "proposal_malformed", str(error)), told]
        yielded: list[Action] = []
        if peer in self._proposed and peer < desk.own:
            yielded = self._withdraw(peer)
        if why := self._propose_objection(peer, id_, parameters):
            why = reason_told(why)
            fields: dict[str, str | int | float] = {"peer": peer, "why": why}
            return [*yielded, Note("proposal_declined", fields), Tell(peer, Abort(id_, why))]
        record = Record(parameters, desk.own, peer, agreed=True)
        persist = Persist((record.parameters_fact(),))
        accept = Tell(peer, Accept(id_, _digest(record)))
        return [*yielded, persist, accept, *desk.start(now_ns, record, {})]

    def _withdraw(self, peer: NodeName) -> list[Action]:
        record = self._proposed.pop(peer)
        why = f"{peer} proposed a session at the same time"
        return [Persist((), record.prefixes), *self._desk.answer(peer, "refused", why)]

    def _propose_objection(
        self, peer: NodeName, session: SessionId, parameters: Parameters
    ) -> str | None:
        desk = self._desk
        port = desk.ports.get(parameters.link)
        if parameters.session != session or len(session) != 32 or not _is_hex(session):
            return "the session's id is malformed"
        if port is None or port.peer != peer:
            return f"link {parameters.link} does not lead to you from here"
        if (parameters.alice, parameters.bob) != self._roles(port):
            return "the devices have the other roles on this link"
        if not desk.device_ready:
            return "the memory is not connected here"
        if self._busy(peer):
            return "a session is under way here"
        if len(desk.held_with(peer)) >= HELD_MAX:
            return f"the keys of {HELD_MAX} sessions are not confirmed yet"
        why = loophole(port)
        if parameters.purpose != CALIBRATION:
            is_alice = port.side is Side.A
            why = why or self._pool_objection(peer, parameters.pool, is_alice=is_alice)
        if why is None and not holds(port, parameters.block_rounds):
            why = (
                f"your diqkd.block_rounds = {parameters.block_rounds} exceeds the"
                f" {port.rounds_max} pairs that the device here holds at once"
            )
        return why or _objections(parameters, desk.policy)


def _objections(parameters: Parameters, policy: SessionPolicy) -> str | None:
    """Why a node does not agree to a session of this purpose, or None."""
    if parameters.purpose == CALIBRATION:
        return calibration_objection(parameters)
    return objections(parameters, policy)


def _digest(record: Record) -> bytes:
    return hashlib.sha256(record.parameters.encode()).digest()


def _is_hex(text: str) -> bool:
    return all(digit in "0123456789abcdef" for digit in text)
