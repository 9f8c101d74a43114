"""The eight tagged messages of a session: what each covers, carries and must look like.

    stage          | sender | covers beside session, stage and body   | body
    ---------------+--------+-----------------------------------------+---------------------------
    transcript_a   | Alice  | parameters, test rounds, herald digest  | (empty)
    transcript_b   | Bob    | the same, as Bob has them               | (empty)
    inputs_a       | Alice  |                                         | her settings in tests
    inputs_b       | Bob    |                                         | his settings in tests
    syndrome       | Alice  |                                         | hash of the code, syndrome
    verification   | Alice  | extra syndrome                          | its steps, hash key and tag
    decision       | Bob    |                                         | losses and errors
    amplification  | Alice  |                                         | seed of the Toeplitz hash

Nothing about outcomes of tests leaves before the last round, and after it only the exact counts,
which are paid for.
"""

import hashlib
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.codec import Malformed, join, pack, unpack
from bellhop.stack.diqkd.amplify import seed_bits_needed
from bellhop.stack.diqkd.parameters import KEY_BITS_MIN, key_bits_of
from bellhop.stack.diqkd.record import Record
from bellhop.stack.diqkd.rounds import Score
from bellhop.stack.diqkd.verify import VERIFICATION_KEY_BYTES, VERIFICATION_TAG_BYTES
from bellhop.stack.keys.ledger import MASKS_A_SESSION, MASKS_ALICE
from bellhop.stack.messages import Stage, Tagged

ORDER = tuple(Stage)

SENT_BY_ALICE = MappingProxyType(
    {
        Stage.TRANSCRIPT_A: True,
        Stage.TRANSCRIPT_B: False,
        Stage.INPUTS_A: True,
        Stage.INPUTS_B: False,
        Stage.SYNDROME: True,
        Stage.VERIFICATION: True,
        Stage.DECISION: False,
        Stage.AMPLIFICATION: True,
    }
)

assert sum(SENT_BY_ALICE.values()) == MASKS_ALICE and len(ORDER) == MASKS_A_SESSION

CODE_DIGEST_BYTES = 32
COUNT_BYTES = 8


def steps_given(record: Record) -> int:
    """Steps of extra syndrome, as the verification says; 0 before it."""
    verification = record.message(Stage.VERIFICATION)
    return 0 if verification is None else read_verification(verification.body)[0]


def verification_body(steps: int, key: bytes, tag: bytes) -> bytes:
    """How much extra syndrome there was, and the hash of Alice's string under a fresh key."""
    return bytes([steps]) + key + tag


def read_verification(body: bytes) -> tuple[int, bytes, bytes]:
    """Steps, key and tag."""
    cut = 1 + VERIFICATION_KEY_BYTES
    return body[0], body[1:cut], body[cut:]


def key_bits(record: Record, counts: Score) -> int:
    """The key's length by what the run has shown, the same at both ends; 0 or less: none."""
    steps = steps_given(record)
    return key_bits_of(record.parameters, counts.tests, counts.losses, steps)


def key_bits_whole(record: Record, counts: Score) -> int:
    """The key is cut to whole bytes."""
    bits = key_bits(record, counts)
    return bits - bits % 8


def tagged_bytes(record: Record, stage: Stage, body: bytes) -> bytes:
    """What a stage's tag is computed over; both ends must find the same bytes."""
    context = b""
    if stage in (Stage.TRANSCRIPT_A, Stage.TRANSCRIPT_B):
        # Test rounds in full: they are inputs the theorem speaks of.  Heralds by their digest: they
        # only steer flips, and flips that differ are differing strings, which verification finds.
        patterns = hashlib.sha256(record.patterns.tobytes()).digest()
        context = join(record.parameters.encode(), pack(record.tests), patterns)
    elif stage is Stage.VERIFICATION:
        context = record.extra
    return join(record.session.encode(), stage.value.encode(), context, body)


def inputs_body(record: Record) -> bytes:
    """This end's settings in the test rounds, a bit each."""
    return pack(record.settings[record.tests])


def read_inputs(record: Record, body: bytes) -> NDArray[np.uint8]:
    """The peer's settings, uint8 of 0 or 1, shape (rounds,), 0 in generation rounds."""
    settings = np.zeros(record.parameters.rounds, np.uint8)
    settings[record.tests] = unpack(body, int(np.count_nonzero(record.tests)))
    return settings


def decision_body(score: Score) -> bytes:
    """Exact counts; that Bob says them at all means that he accepts."""
    return score.losses.to_bytes(COUNT_BYTES, "big") + score.errors.to_bytes(COUNT_BYTES, "big")


def read_decision(record: Record, body: bytes) -> Score:
    """The counts Bob accepted on."""
    losses = int.from_bytes(body[:COUNT_BYTES], "big")
    errors = int.from_bytes(body[COUNT_BYTES:], "big")
    rounds, tests = len(record.tests), int(np.count_nonzero(record.tests))
    return Score(rounds=rounds, tests=tests, losses=losses, errors=errors)


def objection(record: Record, message: Tagged) -> str | None:
    """Why a body cannot be what its stage carries, or None."""
    body = message.body
    p = record.parameters
    sizes = {
        Stage.TRANSCRIPT_A: 0,
        Stage.TRANSCRIPT_B: 0,
        Stage.INPUTS_A: -(-int(np.count_nonzero(record.tests)) // 8),
        Stage.INPUTS_B: -(-int(np.count_nonzero(record.tests)) // 8),
        Stage.SYNDROME: CODE_DIGEST_BYTES + -(-p.code.syndrome_bits // 8),
        Stage.VERIFICATION: 1 + VERIFICATION_KEY_BYTES + VERIFICATION_TAG_BYTES,
        Stage.DECISION: 2 * COUNT_BYTES,
        Stage.AMPLIFICATION: -(-_seed_bits(record) // 8),
    }
    if len(body) != sizes[message.stage]:
        return f"{message.stage.value} has {len(body)} bytes, not {sizes[message.stage]}"
    try:
        match message.stage:
            case Stage.INPUTS_A | Stage.INPUTS_B:
                read_inputs(record, body)
            case Stage.SYNDROME:
                unpack(body[CODE_DIGEST_BYTES:], p.code.syndrome_bits)
            case Stage.AMPLIFICATION:
                unpack(body, _seed_bits(record))
            case Stage.DECISION:
                return _decision_objection(record, read_decision(record, body))
            case _:
                pass
    except Malformed as error:
        return str(error)
    return None


def _decision_objection(record: Record, counts: Score) -> str | None:
    possible = counts.losses <= counts.tests and counts.errors <= counts.rounds - counts.tests
    if not possible or key_bits(record, counts) < KEY_BITS_MIN:
        return "the counts of the decision cannot be accepted"
    return None


def _seed_bits(record: Record) -> int:
    """Bits of the Toeplitz seed; 0 as long as Bob has not said the counts."""
    decision = record.message(Stage.DECISION)
    if decision is None:
        return 0
    counts = read_decision(record, decision.body)
    return seed_bits_needed(counts.rounds, key_bits_whole(record, counts))
