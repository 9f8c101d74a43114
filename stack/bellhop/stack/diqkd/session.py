"""One end of a DI-QKD session, from the first herald to the stored key or a clean abort.

Rules
  1. First the rounds (`measure`), then the tagged messages and the key (`distil`).
  2. Bob accepts by saying the decision, Alice commits by saying the amplification seed.  Before
     that either may abort; after it the session ends in a key.
  3. Keys are stored at both ends, then each tells; they are deliverable when both have.
  4. Whoever hears nothing new for a while tells its position, and the other says again what that
     lacks.  So lost messages, broken streams and restarts are one case.
  5. Either end may pause (`holds`).
  6. A session in which nothing new comes for too long has stalled, and ends.  That is about a peer
     and devices that are there: the time does not run while the peer is not connected, a device is
     away, or an end is paused; how long that may last has a limit of its own.
  7. Whatever a peer says, nothing is said again more often than it could need.
"""

from collections.abc import Callable, Mapping

from bellhop.hal.operations import (
    DeviceGone,
    Heralded,
    Measured,
    MemoryLost,
    Port,
    Ready,
    Release,
    Report,
)
from bellhop.stack.core import Action, Fact, Note, Order, Persist, Refuse, Tell
from bellhop.stack.diqkd import stages
from bellhop.stack.diqkd.device_use import DeviceUse
from bellhop.stack.diqkd.distil import Distilling
from bellhop.stack.diqkd.endings import LINK_CHANGED, STALLED, Ended, Past, abort_kind
from bellhop.stack.diqkd.endorsements import Endorsements
from bellhop.stack.diqkd.holds import Holds
from bellhop.stack.diqkd.measure import Measuring
from bellhop.stack.diqkd.pace import Pace
from bellhop.stack.diqkd.parameters import SessionPolicy
from bellhop.stack.diqkd.pool import Pool
from bellhop.stack.diqkd.receipt import published_bits
from bellhop.stack.diqkd.record import Record
from bellhop.stack.ids import JobNumber
from bellhop.stack.messages import (
    Abort,
    BlockHeralded,
    CalibrationData,
    CalibrationResult,
    Decoded,
    Paused,
    Position,
    SlotDone,
    Stage,
    SyndromeExtra,
    SyndromeWanted,
    Tagged,
    TestRounds,
    reason_told,
)
from bellhop.stack.rng import Rng

SessionMessage = (
    BlockHeralded
    | TestRounds
    | SlotDone
    | Tagged
    | Decoded
    | SyndromeWanted
    | SyndromeExtra
    | Paused
    | CalibrationData
    | CalibrationResult
    | Position
)


SLOW_BLOCKS = 4
"""The pairs of a block may be late by the time of so many of the slowest one before."""

RETOLD_BURST = 4
"""So often at once, and then once a `retry_ns`, what a peer lacks is said again."""


class Session:
    """A core of its own; the node hands it what concerns it and looks at `ended`."""

    def __init__(
        self,
        record: Record,
        policy: SessionPolicy,
        pool: Pool,
        rng: Rng,
        port: Port,
        link_facts: Mapping[str, bytes],
        use: DeviceUse,
        endorsements: Endorsements,
        number_job: Callable[[], JobNumber],
        *,
        device_ready: bool,
    ) -> None:
        self.record = record
        self.ended: Ended | None = None
        self._policy = policy
        self._port = port
        self._use = use
        own = rng.child("session", record.session)
        self._measuring = Measuring(record, own, link_facts, device_ready=device_ready)
        self._distilling = Distilling(record, pool, own, port, use, endorsements, number_job)
        self._moved_ns = 0
        self._retold_ns = 0
        self._waited_ns = 0
        self._heralded_ns = 0
        self._slowest_ns: int | None = None
        self.holds = Holds(record, self._measuring)
        self._again = Pace(policy.retry_ns, RETOLD_BURST)

    # --- life -----------------------------------------------------------------------------------

    def begin(self, now_ns: int) -> list[Action]:
        """Both ends have agreed, or this end has restarted."""
        self._moved_ns = self._retold_ns = self._heralded_ns = now_ns
        if self.record.stored:
            self.ended = Ended("stored", "", self._summary())
            return []
        return self._after(now_ns, self._prepare() + self._measuring.begin())

    def next_deadline(self) -> int | None:
        """The next retelling; the stall is found then too."""
        return None if self.ended else self._retold_ns + self._policy.retry_ns

    def tick(self, now_ns: int, *, peer_joined: bool) -> list[Action]:
        """Give up reports that are late, and a session that stalls; tell our position again."""
        if self.ended or now_ns < self._retold_ns + self._policy.retry_ns:
            return []
        if self._expects_something(peer_joined=peer_joined):
            self._waited_ns += now_ns - self._retold_ns
        if self._waited_ns >= self._patience_ns and self.abortable:
            return self.abort(STALLED)
        held = self.holds.look(now_ns, self._moved_ns)
        too_long = self.holds.too_long(now_ns, self._policy.pause_limit_ns)
        if too_long is not None:
            return held + self.abort(too_long)
        self._retold_ns = now_ns
        actions = held + self._measuring.overdue(now_ns)
        if peer_joined and now_ns - self._moved_ns >= self._policy.retry_ns:
            actions += self.position()
        return self._after(now_ns, actions)

    def _expects_something(self, *, peer_joined: bool) -> bool:
        """Whether the stall clock runs: it stands while an end is paused or not there."""
        return peer_joined and not self.holds.held

    @property
    def _patience_ns(self) -> int:
        """How long nothing new may come: longer while the device owes pairs, as those take time.

        A block takes what its rounds take at the slowest rate allowed, until one has come; from
        then on, not much longer than the slowest that came.
        """
        if not self._measuring.awaits_heralds:
            return self._policy.stall_ns
        block_ns = self._policy.pair_ns * self.record.request.block_rounds
        if self._slowest_ns is not None:
            block_ns = min(block_ns, SLOW_BLOCKS * self._slowest_ns)
        return self._policy.stall_ns + block_ns

    @property
    def abortable(self) -> bool:
        """Whether this end may still give up without the peer's key left alone."""
        last = Stage.AMPLIFICATION if self.record.is_alice else Stage.DECISION
        return not self.record.stored and last not in self.record.said

    def abort(self, reason: str, *, tell: bool = True) -> list[Action]:
        """End without a key.  Masks under tags that left stay spent."""
        record, p = self.record, self.record.parameters
        reason = reason_told(reason)
        self.ended = Ended("aborted", reason, self._summary())
        facts: tuple[Fact, ...] = (Past(reason, record.peer).fact(record.session),)
        if record.drawn.any():
            facts += (self.use_after.fact(p.link),)
        told: list[Action] = [Tell(record.peer, Abort(record.session, reason))] if tell else []
        return [
            Persist(facts, record.prefixes),
            *told,
            Order(Release(p.link, p.request)),
            *self._measuring.losses(),
            *self.holds.ended(),
            Note("session_aborted", self._aborted(reason)),
        ]

    @property
    def use_after(self) -> DeviceUse:
        """What the device has been used for, this session included, however it ended."""
        record = self.record
        published = published_bits(record)
        if record.stored:
            return self._use.stored(published)
        return self._use.ended(published) if record.drawn.any() else self._use

    def position(self) -> list[Action]:
        """How far this end is, so that the peer says again what was lost."""
        record = self.record
        first, ahead = self._measuring.position()
        message = Position(
            record.session,
            first,
            ahead,
            tuple(stage for stage in stages.ORDER if stage in record.heard),
            record.agreed,
            self._distilling.peer_decoded,
            record.paused,
            self._measuring.device_away,
        )
        return [Tell(record.peer, message)]

    # --- events ---------------------------------------------------------------------------------

    def reported(self, now_ns: int, report: Report) -> list[Action]:
        """What the memory said of this session's request, or of itself."""
        measuring = self._measuring
        match report:
            case Heralded():
                self._slowest_ns = max(self._slowest_ns or 0, now_ns - self._heralded_ns)
                self._heralded_ns = now_ns
                actions = measuring.heralded(report)
            case Measured():
                actions = measuring.measured(report)
            case MemoryLost():
                actions = measuring.lost(report)
            case DeviceGone():
                actions = measuring.device_gone()
            case Ready() if self._is_another(report):
                measuring.failure = LINK_CHANGED
                actions = []
            case Ready():
                actions = measuring.device_ready()
        return self._after(now_ns, actions)

    def _is_another(self, report: Ready) -> bool:
        """Whether rounds would come from another device than the receipt names."""
        link, unfinished = self.record.parameters.link, not self.record.measured.all()
        return unfinished and any(p.link == link and p != self._port for p in report.ports)

    def hear(self, now_ns: int, message: SessionMessage) -> list[Action]:
        """What the peer said of this session."""
        measuring, distilling = self._measuring, self._distilling
        match message:
            case BlockHeralded():
                actions = measuring.hear_block(now_ns, message)
            case TestRounds():
                actions = measuring.hear_tests(message)
            case SlotDone():
                actions = measuring.hear_done(message)
            case Tagged():
                actions = distilling.hear_tagged(now_ns, message) if measuring.all_done() else []
            case Decoded():
                actions = distilling.hear_decoded(now_ns)
            case Position():
                actions = self._hear_position(now_ns, message)
            case Paused(_, paused):
                actions = self.holds.hear(now_ns, paused)
            case SyndromeWanted():
                actions = distilling.hear_wanted(message)
                if all(isinstance(action, Tell) for action in actions):
                    actions = self._paced(now_ns, actions)
            case SyndromeExtra():
                actions = distilling.hear_extra(now_ns, message)
            case CalibrationData() | CalibrationResult():
                actions = [Refuse(self.record.peer, "message_unexpected")]
        return self._after(now_ns, actions)

    def _hear_position(self, now_ns: int, message: Position) -> list[Action]:
        record = self.record
        if message.first + len(message.ahead) > record.request.slots:
            return [Refuse(record.peer, "position_length")]
        told = self._distilling.retell(message.heard, decoded=message.decoded)
        if record.stored:  # the rounds are gone, and the peer has measured them all
            return self._paced(now_ns, told)
        self.holds.peer_device_away = message.device_away
        paused = self.holds.hear(now_ns, message.paused)
        # Alice learns from Bob's position what he has done; only Bob answers one with his own.
        unknown = not record.is_alice and self._measuring.unknown_to(message)
        own = self.position() if unknown else []
        again = self._paced(now_ns, own + self._measuring.retell(message) + told)
        return paused + again + self._measuring.learn(message)

    def _paced(self, now_ns: int, again: list[Action]) -> list[Action]:
        """What is to be said again, unless the peer had more of that than it could need."""
        return again if again and self._again.take(now_ns) else []

    # --- pauses ---------------------------------------------------------------------------------

    def pause(self, now_ns: int, paused: bool) -> list[Action]:
        """This end orders no new pairs, or goes on if the peer does."""
        return self._after(now_ns, self.holds.pause(paused))

    @property
    def needs_pairs(self) -> bool:
        return not self._measuring.all_done()

    @property
    def under_way(self) -> int:
        """Blocks that are being measured: their outcomes may count as 0 if this node stops now."""
        return 0 if self.record.stored else self._measuring.under_way

    # --- what another kind of session does otherwise --------------------------------------------

    def _prepare(self) -> list[Action]:
        """What can be done while pairs are still coming."""
        return self._distilling.prepare()

    def _finish(self, now_ns: int) -> list[Action]:
        """What is due once all rounds are done."""
        return self._distilling.advance(now_ns)

    # --- jobs -----------------------------------------------------------------------------------

    def owns(self, job: JobNumber) -> bool:
        return self._distilling.owns(job)

    def computed(self, now_ns: int, job: JobNumber, result: object) -> list[Action]:
        return self._after(now_ns, self._distilling.computed(now_ns, job, result))

    def compute_failed(self, now_ns: int, job: JobNumber, why: str) -> list[Action]:
        return self._after(now_ns, self._distilling.compute_failed(job, why))

    def _after(self, now_ns: int, actions: list[Action]) -> list[Action]:
        """What follows from whatever happened: the next stage, an abort, the end."""
        measuring, distilling = self._measuring, self._distilling
        if self.ended:
            return actions
        if measuring.all_done() and not self.record.stored:
            actions = actions + self._finish(now_ns)
        if measuring.moved or distilling.moved:
            self._moved_ns, self._waited_ns = now_ns, 0
            measuring.moved = distilling.moved = False
        failure = measuring.failure or distilling.failure
        if failure and self.abortable:
            return actions + self.abort(failure)
        measuring.failure = distilling.failure = None  # too late to abort: it is tried again
        if self.record.stored:
            self.ended = Ended("stored", "", self._summary())
            p = self.record.parameters
            release = Order(Release(p.link, p.request))
            stored = Note("session_stored", dict(self.ended.fields))
            return [*actions, release, *self.holds.ended(), stored]
        return actions

    # --- for people -----------------------------------------------------------------------------

    @property
    def stage(self) -> str:
        record = self.record
        if record.stored or not record.agreed:
            return "stored" if record.stored else "proposed"
        if not self._measuring.all_done():
            return "heralding"
        stage = self._distilling.next_stage()
        return "amplifying" if stage is None else stage.value

    @property
    def rounds_done(self) -> int:
        """Rounds both devices have answered, as far as this end knows."""
        return self.record.rounds_answered

    @property
    def experiment_ns(self) -> int:
        """From the first attempt to the last herald by this end's device's clock: emulated, it says
        what the experiment would have taken."""
        span = self.record.span
        return 0 if span is None else span.length_ns

    def _aborted(self, reason: str) -> dict[str, str | int | float]:
        return {"session": self.record.session, "kind": abort_kind(reason), "reason": reason}

    def _summary(self) -> dict[str, str | int | float]:
        p = self.record.parameters
        fields: dict[str, str | int | float] = {
            "session": self.record.session,
            "peer": self.record.peer,
            "rounds": p.rounds,
            "leak_bits": p.leak_bits(self.record.steps) if self.record.done(Stage.SYNDROME) else 0,
            "epsilon": p.epsilon,
            "bound": p.bound,
            "experiment_ns": self.experiment_ns,
        }
        counts = self._distilling.counts()
        if counts is not None:
            fields |= {"s": counts.s, "qber": counts.qber, "tests": counts.tests}
        if (block := self._distilling.block) is not None:
            fields |= {"gross_bits": block.gross_bits, "net_bits": block.net_bits}
        return fields
