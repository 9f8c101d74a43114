"""One string at both ends: the syndrome, more of it on request, and what the decoder found.

Rules
  1. Bob asks for steps of extra syndrome when his decoder needs them; Alice gives the first so many
     in all.  She persists how many before she tells them, and takes none back.
  2. Both say it absolutely, so that a repetition changes nothing: what was given is told again to
     whoever asks for no more than that.
  3. There are at most `Parameters.steps_max` steps: whoever asks for more is refused, and a decoder
     that needs more gives up.  So the requests say at most a bit a step, which is paid.
  4. Nothing is given once the verification is said, nothing taken once it is heard: its tag covers
     what was, and what Bob decodes must be fixed before anybody knows the key of its hash.
"""

from collections.abc import Callable

from bellhop.stack.codec import Malformed, unpack
from bellhop.stack.core import Action, Compute, Job, Note, Persist, Refuse, Tell
from bellhop.stack.diqkd import stages
from bellhop.stack.diqkd.jobs import (
    Corrected,
    Decode,
    Encode,
    Encoded,
    EncodeExtra,
    ExtraEncoded,
    ExtraWanted,
    Received,
)
from bellhop.stack.diqkd.parameters import decoder_priors
from bellhop.stack.diqkd.record import Record
from bellhop.stack.diqkd.rounds import Bits, expected_of_alice, flip_alice, flip_bob
from bellhop.stack.ids import JobNumber
from bellhop.stack.messages import Decoded, Stage, SyndromeExtra, SyndromeWanted


class Work:
    """Jobs that were ordered and have not come back, one of a name at a time."""

    def __init__(self, number_job: Callable[[], JobNumber]) -> None:
        self._number_job = number_job
        self._names: dict[JobNumber, str] = {}

    def order(self, job: Job) -> list[Action]:
        if job.name in self._names.values():
            return []
        number = self._number_job()
        self._names[number] = job.name
        return [Compute(number, job)]

    def owns(self, number: JobNumber) -> bool:
        return number in self._names

    def back(self, number: JobNumber) -> str:
        """The name of a job that came back."""
        return self._names.pop(number)


class Reconciling:
    """Alice's string and Bob's.

    `failure`: why they will not become one.  `corrected`: what Bob's decoder found.
    """

    def __init__(self, record: Record, work: Work) -> None:
        self.failure: str | None = None
        self.corrected: Corrected | None = None
        self._record = record
        self._work = work
        self._encoded: Encoded | None = None
        self._wanted = 0  # steps: Bob has asked for them and does not have them, or Alice was asked

    # --- strings ----------------------------------------------------------------------------------

    def alice_bits(self) -> Bits:
        """Alice's string, the flips of noisy preprocessing in it."""
        record = self._record
        return flip_alice(record.outcomes, record.settings, record.patterns) ^ record.flips

    def guess(self) -> Bits:
        """Bob's guess of it."""
        record = self._record
        inputs = stages.read_inputs(record, record.heard[Stage.INPUTS_A].body)
        bits = flip_bob(record.outcomes, record.patterns)
        return expected_of_alice(bits, record.tests, inputs, record.settings)

    @property
    def waits_for_steps(self) -> bool:
        """Whether Bob has asked for steps that he has not."""
        return self._wanted > self._record.steps

    # --- what is due ------------------------------------------------------------------------------

    def syndrome(self) -> Encoded | list[Action]:
        """Alice's syndrome, or the work it waits for."""
        if self._encoded is not None:
            return self._encoded
        return self._work.order(Encode(self._record.parameters.code, self.alice_bits()))

    def decode(self) -> list[Action]:
        """The decoder's work, if it is due."""
        record, p = self._record, self._record.parameters
        if self.corrected is not None or self._wanted > record.steps:
            return []
        body, cut = record.heard[Stage.SYNDROME].body, stages.CODE_DIGEST_BYTES
        received = Received(body[:cut], body[cut:], record.steps, record.extra)
        priors, tests = decoder_priors(p), record.tests
        return self._work.order(Decode(p.code, self.guess(), tests, priors, received, p.steps_max))

    def retell(self, *, decoded: bool) -> list[Action]:
        """Bob's word again, to an Alice that may have missed it."""
        record = self._record
        if record.is_alice or Stage.VERIFICATION in record.heard:
            return []
        if self.corrected is not None:
            return [] if decoded else [Tell(record.peer, Decoded(record.session))]
        if self._wanted > record.steps:
            return [Tell(record.peer, SyndromeWanted(record.session, self._wanted))]
        return []

    # --- the peer ---------------------------------------------------------------------------------

    def hear_wanted(self, message: SyndromeWanted) -> list[Action]:
        record, steps = self._record, message.steps
        if not record.is_alice or Stage.SYNDROME not in record.said:
            return [Refuse(record.peer, "steps_unexpected")]
        if not 0 < steps <= record.parameters.steps_max:
            return [Refuse(record.peer, "steps_beyond_the_design", f"{steps}")]
        if steps <= record.steps:
            return [self._tell_extra()]
        if Stage.VERIFICATION in record.said:
            return [Refuse(record.peer, "steps_too_late")]
        self._wanted = max(self._wanted, steps)
        return self._encode_extra()

    def _encode_extra(self) -> list[Action]:
        code = self._record.parameters.code
        return self._work.order(EncodeExtra(code, self.alice_bits(), self._wanted))

    def _tell_extra(self) -> Tell:
        record = self._record
        return Tell(record.peer, SyndromeExtra(record.session, record.steps, record.extra))

    def hear_extra(self, message: SyndromeExtra) -> list[Action]:
        """Empty if it is nothing new; what was asked for is persisted."""
        record, steps = self._record, message.steps
        if why := self._extra_objection(message):
            return [Refuse(record.peer, why, f"{steps} steps")]
        if not self.waits_for_steps or steps < self._wanted:
            return []  # a repetition, or nobody asked
        note = Note("extra_syndrome_heard", {"session": record.session, "steps": steps})
        return [Persist((record.give(steps, message.bits),)), note]

    def _extra_objection(self, message: SyndromeExtra) -> str | None:
        record, p, steps = self._record, self._record.parameters, message.steps
        if record.is_alice or Stage.SYNDROME not in record.heard:
            return "extra_syndrome_unexpected"
        if not 0 < steps <= p.steps_max:
            return "extra_syndrome_beyond_the_design"
        try:
            bits = unpack(message.bits, extra_bits(record, steps))
        except Malformed:
            return "extra_syndrome_length"
        known = unpack(record.extra, extra_bits(record, record.steps))
        both = min(len(bits), len(known))
        if (bits[:both] != known[:both]).any():
            return "extra_syndrome_changed"
        late = steps > record.steps and Stage.VERIFICATION in record.heard
        return "extra_syndrome_too_late" if late else None

    # --- results ----------------------------------------------------------------------------------

    def encoded(self, result: object) -> None:
        assert isinstance(result, Encoded)
        self._encoded = result

    def extra_encoded(self, result: object) -> list[Action]:
        """Alice gives more, unless the verification was said meanwhile."""
        record = self._record
        assert isinstance(result, ExtraEncoded)
        if Stage.VERIFICATION in record.said or result.steps <= record.steps:
            return []
        fact = record.give(result.steps, result.bits)
        note = Note("extra_syndrome_said", {"session": record.session, "steps": result.steps})
        more = self._encode_extra() if self._wanted > result.steps else []
        return [Persist((fact,)), self._tell_extra(), note, *more]

    def decoded(self, result: object) -> list[Action]:
        """What Bob says of his decoder's end."""
        record = self._record
        verified = Stage.VERIFICATION in record.heard
        match result:
            case Corrected():
                self.corrected = result
                return [] if verified else [Tell(record.peer, Decoded(record.session))]
            case ExtraWanted(steps) if not verified:
                self._wanted = steps
                return [Tell(record.peer, SyndromeWanted(record.session, steps))]
            case ExtraWanted():
                result = "the decoder found no end this time: run another session"
        assert isinstance(result, str)
        self.failure = f"reconciliation failed: {result}"
        return []

    def forget(self) -> None:
        """The key is there."""
        self.corrected = self._encoded = None


def extra_bits(record: Record, steps: int) -> int:
    """Bits of the first steps of extra syndrome."""
    code = record.parameters.code
    return code.leak_bits(steps) - code.leak_bits(0)
