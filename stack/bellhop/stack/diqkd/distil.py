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
    Job,
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
    Corrected,
    Decode,
    Encode,
    Encoded,
    Prepare,
)
from bellhop.stack.diqkd.parameters import decoder_priors
from bellhop.stack.diqkd.pool import TAG_WRONG, Pool
from bellhop.stack.diqkd.receipt import account, published_bits, statement
from bellhop.stack.diqkd.record import Bits, Record
from bellhop.stack.diqkd.rounds import Score, expected_of_alice, flip_alice, flip_bob, score
from bellhop.stack.diqkd.verify import VERIFICATION_KEY_BYTES, strings_agree, verification_tag
from bellhop.stack.ids import JobNumber
from bellhop.stack.keys.ledger import CutBlock, cut_block
from bellhop.stack.messages import BlockStored, Decoded, Stage, Tagged
from bellhop.stack.rng import Rng


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
        self._number_job = number_job
        self._jobs: dict[JobNumber, str] = {}
        self._results: dict[str, object] = {}

    # --- the peer -------------------------------------------------------------------------------

    def retell(self, heard: tuple[Stage, ...], *, decoded: bool) -> list[Action]:
        """Say again what a peer lacks that has heard these stages."""
        record = self._record
        actions: list[Action] = [
            Tell(record.peer, record.said[stage])
            for stage in stages.ORDER
            if stage in record.said and stage not in heard
        ]
        if isinstance(self._results.get("decode"), Corrected) and not decoded:
            actions.append(Tell(record.peer, Decoded(record.session)))
        return actions

    def hear_decoded(self, now_ns: int) -> list[Action]:
        record = self._record
        if not record.is_alice or Stage.SYNDROME not in record.said:
            return [Refuse(record.peer, "decoded_unexpected")]
        if self.peer_decoded:
            return []
        self.peer_decoded = self.moved = True
        return self.advance(now_ns)

    def hear_tagged(self, now_ns: int, message: Tagged) -> list[Action]:
        record, stage = self._record, message.stage
        if stage in record.heard or stage is not self.next_stage():
            return self._hear_again(message)
        if objection := self._objection(message):
            return [Refuse(record.peer, *objection)]
        if why := self._tag_objection(message):
            counted = [Persist((self._pool.refused(),))] if why == TAG_WRONG else []
            self.failure = f"authentication failed: {why}"
            return [*counted, Refuse(record.peer, why, stage.value)]
        self.moved = True
        facts = (record.hear(message), self._pool.saw(message.batch, message.number))
        note = Note("stage_heard", {"session": record.session, "stage": stage.value})
        return [Persist(facts), note, *self.advance(now_ns)]

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
        return [self._compute(Prepare(self._record.parameters.code))]

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
                return actions + (self._decode() if stage is Stage.VERIFICATION else [])
            if self._pool.masks_left == 0:
                self.failure = "authentication failed: the pool is used up"
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
            corrected = self._results["decode"]
            assert isinstance(corrected, Corrected)
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
        encoded = self._results.get("encode")
        if encoded is None:
            return self._once(Encode(self._record.parameters.code, self._alice_bits()))
        assert isinstance(encoded, Encoded)
        return encoded.code_digest + encoded.syndrome

    def _verification(self) -> bytes | list[Action]:
        if not self.peer_decoded:
            return []
        key = self._rng.child("verification").draw(VERIFICATION_KEY_BYTES)
        tag = verification_tag(key, pack(self._alice_bits()))
        return stages.verification_body(0, key, tag)

    def _decode(self) -> list[Action]:
        if self._results.get("decode") is not None:
            return []
        p = self._record.parameters
        body = self._record.heard[Stage.SYNDROME].body
        cut = stages.CODE_DIGEST_BYTES
        priors, tests = decoder_priors(p), self._record.tests
        return self._once(Decode(p.code, self._guess(), tests, priors, body[:cut], body[cut:]))

    def _decision(self) -> bytes | list[Action]:
        corrected = self._results.get("decode")
        if corrected is None:
            return self._decode()
        assert isinstance(corrected, Corrected)
        _, key, tag = stages.read_verification(self._record.heard[Stage.VERIFICATION].body)
        counts = score(corrected.bits, self._guess(), self._record.tests)
        if not strings_agree(key, pack(corrected.bits), tag):
            self.failure = "verification failed: the corrected strings differ"
        elif stages.key_bits(self._record, counts) < self._record.parameters.key_bits_min:
            self.failure = "Bell test below the threshold"
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
        amplified = self._results.get("amplify")
        if amplified is not None:
            assert isinstance(amplified, Amplified)
            return self._store(now_ns, amplified.key)
        record = self._record
        if record.is_alice:
            bits, heard = self._alice_bits(), record.said
        else:
            assert record.corrected is not None, "he has said his decision"
            bits, heard = record.corrected, record.heard
        counts = self.counts()
        assert counts is not None, "he has said his decision"
        seed = heard[Stage.AMPLIFICATION].body
        return self._once(Amplify(bits, seed, stages.key_bits_whole(record, counts)))

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
        self._results.clear()
        facts = (record.parameters_fact(), batch, used, signed)
        source = self._port.source.value
        distilled = DistilledBlock(p.session, record.peer, source, text, block.slots)
        store = StoreKeys(distilled, Persist(facts, record.raw_prefixes))
        own = self._endorsements.told(p.session, record.peer)
        return [store, Tell(record.peer, BlockStored(p.session, confirmed=False, endorsement=own))]

    def counts(self) -> Score | None:
        """What the run showed, once Bob has said it."""
        both = {**self._record.said, **self._record.heard}
        if Stage.DECISION not in both or not self._record.drawn.all():
            return None  # not said, or long stored and the rounds forgotten
        return stages.read_decision(self._record, both[Stage.DECISION].body)

    # --- strings and jobs -----------------------------------------------------------------------

    def _alice_bits(self) -> Bits:
        record = self._record
        return flip_alice(record.outcomes, record.settings, record.patterns)

    def _guess(self) -> Bits:
        record = self._record
        inputs = stages.read_inputs(record, record.heard[Stage.INPUTS_A].body)
        bits = flip_bob(record.outcomes, record.patterns)
        return expected_of_alice(bits, record.tests, inputs, record.settings)

    def _once(self, job: Job) -> list[Action]:
        return [] if job.name in self._jobs.values() else [self._compute(job)]

    def _compute(self, job: Job) -> Compute:
        number = self._number_job()
        self._jobs[number] = job.name
        return Compute(number, job)

    def owns(self, job: JobNumber) -> bool:
        return job in self._jobs

    def computed(self, now_ns: int, number: JobNumber, result: object) -> list[Action]:
        name = self._jobs.pop(number)
        self.moved = True
        if name == "prepare":
            return []
        if isinstance(result, str):
            self.failure = f"reconciliation failed: {result}"
            return []
        self._results[name] = result
        told: list[Action] = []
        if name == "decode" and Stage.VERIFICATION not in self._record.heard:
            told = [Tell(self._record.peer, Decoded(self._record.session))]
        return told + self.advance(now_ns)

    def compute_failed(self, number: JobNumber, why: str) -> list[Action]:
        """A job that failed here for good; a code that is not prepared is built when it is used."""
        name = self._jobs.pop(number)
        if name != "prepare":
            self.failure = f"computation failed here: {name}, {why}"
        return [Note("job_failed", {"job": name, "why": why})]
