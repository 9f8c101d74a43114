"""From the last round to the key: the eight tagged messages, the jobs and the store.

Rules
  1. The messages go in their order (`stages`).  Each is persisted with its mask before it leaves,
     and sent again unchanged until the peer has it.
  2. Bob accepts by saying the decision, Alice commits by saying the amplification seed.
  3. The first wrong tag ends the session while it may still end: nobody honest sends one.
  4. What is due is derived from the record: `advance` says the next stage if it is this end's turn
     and what it needs is there, and orders the job if it is not.
"""

from collections.abc import Callable

from bellhop.hal.operations import Port
from bellhop.stack.codec import pack
from bellhop.stack.core import (
    Action,
    Compute,
    DistilledBlock,
    Note,
    Persist,
    Refuse,
    StoreKeys,
    Tell,
)
from bellhop.stack.diqkd import stages
from bellhop.stack.diqkd.amplify import seed_bits_needed
from bellhop.stack.diqkd.authenticate import TAG_BITS
from bellhop.stack.diqkd.device_use import DeviceUse
from bellhop.stack.diqkd.endorsements import Endorsements
from bellhop.stack.diqkd.jobs import (
    Amplified,
    Amplify,
    Prepare,
)
from bellhop.stack.diqkd.pool import TAG_WRONG, Pool
from bellhop.stack.diqkd.receipt import account, published_bits, statement
from bellhop.stack.diqkd.reconciling import Reconciling, Work
from bellhop.stack.diqkd.record import Record
from bellhop.stack.diqkd.rounds import Score, score
from bellhop.stack.diqkd.verdict import verdict
from bellhop.stack.diqkd.verify import VERIFICATION_KEY_BYTES, strings_agree, verification_tag
from bellhop.stack.ids import JobNumber
from bellhop.stack.keys.ledger import CutBlock, cut_block
from bellhop.stack.messages import BlockStored, Stage, SyndromeExtra, SyndromeWanted, Tagged
from bellhop.stack.rng import Rng

STEPS_DIFFER = "the ends hold different extra syndrome: run another session"
STRINGS_DIFFER = "the corrected strings differ: run another session, calibrate if it happens again"
POOL_ADVICE = "unless somebody interferes, give both nodes a new pool: bellhop pool provision"


class Distilling:
    """The part of a session after its last round.

    `failure`: why the session cannot go on.  `moved`: something came in since it was last cleared.
    `block`: what was stored, once it is.
    """

    def __init__(
        self,
        record: Record,
        pool: Pool,
        rng: Rng,
        port: Port,
        use: DeviceUse,
        endorsements: Endorsements,
        number_job: Callable[[], JobNumber],
    ) -> None:
        self.failure: str | None = None
        self.moved = False
        self.block: CutBlock | None = None
        self.peer_decoded = False
        self._record = record
        self._pool = pool
        self._rng = rng
        self._port = port
        self._use = use
        self._endorsements = endorsements
        self._work = Work(number_job)
        self._reconciling = Reconciling(record, self._work)
        self._amplified: Amplified | None = None

    # --- the peer -------------------------------------------------------------------------------

    def retell(self, heard: tuple[Stage, ...], *, decoded: bool) -> list[Action]:
        """Say again what a peer lacks that has heard these stages."""
        record = self._record
        actions: list[Action] = [
            Tell(record.peer, record.said[stage])
            for stage in stages.ORDER
            if stage in record.said and stage not in heard
        ]
        return actions + self._reconciling.retell(decoded=decoded)

    def hear_decoded(self, now_ns: int) -> list[Action]:
        record = self._record
        if not record.is_alice or Stage.SYNDROME not in record.said:
            return [Refuse(record.peer, "decoded_unexpected")]
        if self.peer_decoded:
            return []
        self.peer_decoded = self.moved = True
        return self.advance(now_ns)

    def hear_wanted(self, message: SyndromeWanted) -> list[Action]:
        actions = self._reconciling.hear_wanted(message)
        self.moved |= any(isinstance(action, Compute) for action in actions)
        return actions

    def hear_extra(self, now_ns: int, message: SyndromeExtra) -> list[Action]:
        actions = self._reconciling.hear_extra(message)
        if not any(isinstance(action, Persist) for action in actions):
            return actions
        self.moved = True
        return actions + self.advance(now_ns)

    def hear_tagged(self, now_ns: int, message: Tagged) -> list[Action]:
        record, stage = self._record, message.stage
        if stage in record.heard or stage is not self.next_stage():
            return self._hear_again(message)
        if objection := self._objection(message):
            return [Refuse(record.peer, *objection)]
        if stage is Stage.VERIFICATION and self._verification_differs(message):
            self.failure = f"reconciliation failed: {STEPS_DIFFER}"
            return [Refuse(record.peer, "steps_differ", stage.value)]
        if why := self._tag_objection(message):
            counted = [Persist((self._pool.refused(),))] if why == TAG_WRONG else []
            self.failure = f"authentication failed: {why}; {POOL_ADVICE}"
            return [*counted, Refuse(record.peer, why, stage.value)]
        self.moved = True
        facts = (record.hear(message), self._pool.saw(message.batch, message.number))
        note = Note("stage_heard", {"session": record.session, "stage": stage.value})
        return [Persist(facts), note, *self.advance(now_ns)]

    def _verification_differs(self, message: Tagged) -> bool:
        """Whether it is not about the string that the decoder had, or is to have: nobody may choose
        what Bob decodes once the key of the hash is known."""
        said = stages.read_verification(message.body)[0]
        return said != self._record.steps or self._reconciling.waits_for_steps

    def _hear_again(self, message: Tagged) -> list[Action]:
        """A repetition is passed over; so is what came early: it is told again when it is due."""
        known = self._record.heard.get(message.stage)
        if known is not None and known != message:
            return [Refuse(self._record.peer, "stage_changed", message.stage.value)]
        return []

    def _objection(self, message: Tagged) -> tuple[str, str] | None:
        record, stage = self._record, message.stage
        if stages.SENT_BY_ALICE[stage] == record.is_alice:
            return "stage_not_theirs", stage.value
        malformed = stages.objection(record, message)
        return None if malformed is None else ("stage_malformed", malformed)

    def _tag_objection(self, message: Tagged) -> str | None:
        covered = stages.tagged_bytes(self._record, message.stage, message.body)
        return self._pool.check(message.batch, message.number, covered, message.tag)

    # --- what is due ----------------------------------------------------------------------------

    def prepare(self) -> list[Action]:
        """Load the code while pairs are still coming."""
        return self._work.order(Prepare(self._record.parameters.code))

    def next_stage(self) -> Stage | None:
        return next((stage for stage in stages.ORDER if not self._record.done(stage)), None)

    def advance(self, now_ns: int) -> list[Action]:
        """Say the stages that are due, or order the work they wait for; all rounds are done."""
        actions: list[Action] = []
        while self.failure is None and not self._record.stored:
            stage = self.next_stage()
            if stage is None:
                return actions + self._finish(now_ns)
            if stages.SENT_BY_ALICE[stage] != self._record.is_alice:
                # Bob decodes as soon as the syndrome is there: Alice waits for word of it.
                due = stage is Stage.VERIFICATION
                return actions + (self._reconciling.decode() if due else [])
            if self._pool.masks_left == 0:
                self.failure = f"authentication failed: the pool is used up; {POOL_ADVICE}"
                return actions
            body = self._body(stage)
            if not isinstance(body, bytes):
                return actions + body
            actions += self._say(stage, body)
        return actions

    def _say(self, stage: Stage, body: bytes) -> list[Action]:
        record = self._record
        mask, spent = self._pool.spend()
        tag = self._pool.tag(mask, stages.tagged_bytes(record, stage, body))
        message = Tagged(record.session, stage, body, mask.batch, mask.number, tag)
        note = Note("stage_said", {"session": record.session, "stage": stage.value})
        facts = [record.say(message), spent]
        if stage is Stage.DECISION:
            corrected = self._reconciling.corrected
            assert corrected is not None
            facts.append(record.correct(corrected.bits))
        return [Persist(tuple(facts)), Tell(record.peer, message), note]

    def _body(self, stage: Stage) -> bytes | list[Action]:
        """What this end says in a stage, or what must happen first."""
        match stage:
            case Stage.TRANSCRIPT_A | Stage.TRANSCRIPT_B:
                return b""
            case Stage.INPUTS_A | Stage.INPUTS_B:
                return stages.inputs_body(self._record)
            case Stage.SYNDROME:
                return self._syndrome()
            case Stage.VERIFICATION:
                return self._verification()
            case Stage.DECISION:
                return self._decision()
            case Stage.AMPLIFICATION:
                return self._seed()

    def _syndrome(self) -> bytes | list[Action]:
        encoded = self._reconciling.syndrome()
        return encoded if isinstance(encoded, list) else encoded.code_digest + encoded.syndrome

    def _verification(self) -> bytes | list[Action]:
        if not self.peer_decoded:
            return []
        key = self._rng.child("verification").draw(VERIFICATION_KEY_BYTES)
        tag = verification_tag(key, pack(self._reconciling.alice_bits()))
        return stages.verification_body(self._record.steps, key, tag)

    def _decision(self) -> bytes | list[Action]:
        record, corrected = self._record, self._reconciling.corrected
        steps, key, tag = stages.read_verification(record.heard[Stage.VERIFICATION].body)
        if steps != record.steps:  # stored by a version that took steps after the verification
            self.failure = f"reconciliation failed: {STEPS_DIFFER}"
            return []
        if corrected is None:
            return self._reconciling.decode()
        if not strings_agree(key, pack(corrected.bits), tag):
            self.failure = f"verification failed: {STRINGS_DIFFER}"
            return []
        counts = score(corrected.bits, self._reconciling.guess(), record.tests)
        self.failure = verdict(record.parameters, counts, record.steps)
        return stages.decision_body(counts) if self.failure is None else []

    def _seed(self) -> bytes:
        counts = self.counts()
        assert counts is not None, "he has said his decision"
        bits = seed_bits_needed(counts.rounds, stages.key_bits_whole(self._record, counts))
        seed = bytearray(self._rng.child("amplification").draw(-(-bits // 8)))
        if bits % 8:
            seed[-1] &= (1 << bits % 8) - 1
        return bytes(seed)

    # --- the key --------------------------------------------------------------------------------

    def _finish(self, now_ns: int) -> list[Action]:
        if self._amplified is not None:
            return self._store(now_ns, self._amplified.key)
        record, said = self._record, self._record.message(Stage.AMPLIFICATION)
        bits = self._reconciling.alice_bits() if record.is_alice else record.corrected
        counts = self.counts()
        assert bits is not None and counts is not None, "he has said his decision"
        assert said is not None, "all stages are done"
        return self._work.order(Amplify(bits, said.body, stages.key_bits_whole(record, counts)))

    def _store(self, now_ns: int, key: bytes) -> list[Action]:
        record, p = self._record, self._record.parameters
        counts = self.counts()
        assert counts is not None
        spent = len(stages.ORDER) * TAG_BITS
        block = self.block = cut_block(key, p.link, p.session, (p.alice, p.bob), spent)
        said = statement(record, self._port, self._use, self._rng, now_ns)
        account_ = account(record, counts, block)
        text, signed = self._endorsements.write(p.session, record.peer, account_, said)
        masks = (b"".join(block.alice_masks), b"".join(block.bob_masks))
        batch = self._pool.batch_fact(p.session, *(masks if record.is_alice else masks[::-1]))
        used = self._use.stored(published_bits(record)).fact(p.link)
        record.stored = True
        record.forget_rounds()
        self._amplified = None
        self._reconciling.forget()
        facts = (record.parameters_fact(), batch, used, signed)
        source = self._port.source.value
        distilled = DistilledBlock(p.session, record.peer, source, text, block.slots)
        store = StoreKeys(distilled, Persist(facts, record.raw_prefixes))
        own = self._endorsements.told(p.session, record.peer)
        return [store, Tell(record.peer, BlockStored(p.session, confirmed=False, endorsement=own))]

    def counts(self) -> Score | None:
        """What the run showed, once Bob has said it."""
        decision = self._record.message(Stage.DECISION)
        if decision is None or not self._record.drawn.all():
            return None  # not said, or long stored and the rounds forgotten
        return stages.read_decision(self._record, decision.body)

    # --- jobs -----------------------------------------------------------------------------------

    def owns(self, job: JobNumber) -> bool:
        return self._work.owns(job)

    def computed(self, now_ns: int, number: JobNumber, result: object) -> list[Action]:
        name, told = self._work.back(number), list[Action]()
        self.moved = True
        match name:
            case "encode":
                self._reconciling.encoded(result)
            case "encode_extra":
                told = self._reconciling.extra_encoded(result)
            case "decode":
                told = self._reconciling.decoded(result)
                self.failure = self._reconciling.failure
            case "amplify":
                assert isinstance(result, Amplified)
                self._amplified = result
            case _:
                return []  # prepared
        return told + self.advance(now_ns)

    def compute_failed(self, number: JobNumber, why: str) -> list[Action]:
        """A job that failed here for good; a code that is not prepared is built when it is used."""
        name = self._work.back(number)
        if name != "prepare":
            self.failure = f"computation failed here: {name}, {why}: see the log of this node"
        return [Note("job_failed", {"job": name, "why": why})]
