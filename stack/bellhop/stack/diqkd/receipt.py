"""The receipt of a session: what was agreed, said, seen and claimed, for whoever was not there.

Rules
  The account is what both ends hold alike, to the byte: each signs its digest (`endorsements`).
  It carries all that the key's length follows from, so that it can be computed again.
  Numbers in it are integers, what was agreed, or what IEEE arithmetic makes of those: no logarithm,
  whose last digit depends on a machine's library.
  A statement is what one end says for itself: of its device, its chance, its clock.
`docs/receipt.md` has the schema, field by field.
"""

import hashlib
import json
from typing import Any

from bellhop.hal.operations import Port
from bellhop.stack.codec import pack
from bellhop.stack.diqkd import stages
from bellhop.stack.diqkd.authenticate import TAG_BITS
from bellhop.stack.diqkd.device_use import DeviceUse
from bellhop.stack.diqkd.parameters import (
    bound_of,
    forgery_error,
    tagged_bytes_max,
)
from bellhop.stack.diqkd.pool import FORGERIES_MAX
from bellhop.stack.diqkd.record import Record
from bellhop.stack.diqkd.rounds import Score
from bellhop.stack.diqkd.verify import VERIFICATION_TAG_BITS, undetected_error_probability
from bellhop.stack.keys.ledger import CutBlock
from bellhop.stack.messages import Stage
from bellhop.stack.rng import Rng

TEXT_CHARACTERS_MAX = 400
"""What a device says of itself is cut to this."""

IDEALISATIONS_MAX = 16

STATEMENT_BYTES_MAX = 6_000
"""Bounds a statement: with certificates and signature it goes into one message."""

BLOCK_IDEALISATION = (
    "Rounds were measured in blocks: the settings of a block were drawn together and shown to the "
    "device one round at a time, each after the answer to the one before, by the memory service. "
    "All tests of a block are announced before Bob's device answers the first of its rounds, and "
    "those of the window's later blocks may be; of rounds to come it must learn nothing, as in the "
    "theorem they are not drawn yet."
)

NOT_SEEN = (
    "Memory: the theorem allows a device to remember all earlier rounds of this session. What it "
    "remembers of earlier sessions is not in the theorem: see device_reuse.",
    "Side channels: nothing about settings or outcomes leaves a laboratory by any way but the "
    "messages counted here: no light towards the midpoint, no supply line, nor when a device "
    "heralds, answers, fails or goes away.",
    "No Bell test sees a device that knew the settings in advance, or a laboratory that leaks: "
    "both look like honest ones. The generators passed the tests that each end's statement names.",
    "The tags keep out who has not the pools' keys; the signatures here are computational, and no "
    "key's secrecy rests on them.",
)
"""What the theorem's own assumptions do not say in these words, or not at all."""

DEVICE_REUSE = (
    "A device that was used before may hide what it remembers of an earlier key in what this "
    "session says in public, and this one's key in what later ones say (J. Barrett, R. Colbeck, "
    "A. Kent, Phys. Rev. Lett. 110, 010503 (2013)). No theorem covers it. Keys of earlier sessions "
    "with the same devices that are still in use are exposed to it by published_bits more."
)


def canonical(content: Any) -> bytes:
    """JSON with one spelling: names sorted, no spaces, ASCII, no number that is none."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def account(record: Record, counts: Score, block: CutBlock) -> dict[str, Any]:
    """What both ends say of a session.  Made before the rounds are forgotten."""
    p = record.parameters
    bound = bound_of(p)
    return {
        "parameters": json.loads(p.encode()),
        "theorem": {"statement": bound.theorem, "refereed": bound.refereed},
        "run": {
            "rounds": counts.rounds,
            "tests": counts.tests,
            "losses": counts.losses,
            "errors": counts.errors,
            "s": counts.s,
            "qber": counts.qber,
        },
        "leak": _leak(record),
        "epsilon": _epsilon(record),
        "key": _key(record, counts, block),
        "transcript": _transcript(record),
        "assumptions": [*bound.assumptions, BLOCK_IDEALISATION, *NOT_SEEN],
        "device_reuse": {
            "published_bits": published_bits(record),
            "statement": DEVICE_REUSE,
        },
    }


def statement(
    record: Record, port: Port, before: DeviceUse, rng: Rng, now_ns: int
) -> dict[str, Any]:
    """What this end says for itself; its texts are fit to be shown anywhere.

    They are cut further if they would not fit: a character may take twelve bytes.
    """
    characters = TEXT_CHARACTERS_MAX
    while True:
        said = _statement(record, port, before, rng, now_ns, characters)
        if len(canonical(said)) <= STATEMENT_BYTES_MAX:
            return said
        characters //= 2


def _statement(
    record: Record, port: Port, before: DeviceUse, rng: Rng, now_ns: int, characters: int
) -> dict[str, Any]:
    return {
        "node": record.own,
        "role": "alice" if record.is_alice else "bob",
        "device": {
            "source": port.source.value,
            "description": _shown(port.description, characters),
            "idealisations": [
                _shown(text, characters) for text in port.idealisations[:IDEALISATIONS_MAX]
            ],
            "sessions_before": before.sessions,
            "aborted_before": before.aborted,
            "published_bits_before": before.published_bits,
        },
        "randomness": {
            "source": _shown(rng.source, characters),
            "health": _shown(rng.health, characters),
        },
        "stored_ns": now_ns,
    }


def published_bits(record: Record) -> int:
    """What was said in public and depends on outcomes, so far: the leak, and how it ended."""
    p = record.parameters
    bits = 1
    if record.done(Stage.SYNDROME):
        # As many steps as this end knows of: an abort may come before the verification says it.
        bits += p.code.leak_bits(record.steps) + p.steps_max
    if record.done(Stage.VERIFICATION):
        # The counts are said with the decision, or in the reason of an abort.
        bits += VERIFICATION_TAG_BITS + p.count_bits
    return bits


def _shown(text: str, characters: int) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:characters])


def _leak(record: Record) -> dict[str, int]:
    """Bits said about Alice's string, each kind for itself.

    `extra_steps` were asked for; `planned` is the total if all steps had been.
    """
    p, steps = record.parameters, stages.steps_given(record)
    return {
        "syndrome": p.code.syndrome_bits,
        "extra_steps": steps,
        "extra_syndrome": p.code.leak_bits(steps) - p.code.syndrome_bits,
        "requests": p.steps_max,
        "verification": VERIFICATION_TAG_BITS,
        "counts": p.count_bits,
        "total": p.leak_bits(steps),
        "planned": p.leak_bits_max,
    }


def _epsilon(record: Record) -> dict[str, int | float]:
    p = record.parameters
    errors = bound_of(p).errors
    return {
        "soundness": p.epsilon,
        "privacy": errors.privacy,
        "accumulation": errors.accumulation,
        "smoothing": errors.smoothing,
        "verification": undetected_error_probability(p.rounds),
        "forgery": forgery_error(p.rounds),
        "tag_bits": TAG_BITS,
        "forgery_tries": len(Stage) + FORGERIES_MAX,
        "tagged_bytes_max": tagged_bytes_max(p.rounds),
    }


def _key(record: Record, counts: Score, block: CutBlock) -> dict[str, int]:
    return {
        "bound_bits": stages.key_bits(record, counts),
        "gross_bits": block.gross_bits,
        "tag_bits_spent": block.tag_bits_spent,
        "id_key_bits": block.gross_bits - block.tag_bits_spent - block.net_bits,
        "net_bits": block.net_bits,
        "deliverable_bits": block.deliverable_bits,
        "discarded_bits": block.discarded_bits,
    }


def _transcript(record: Record) -> dict[str, Any]:
    """All that was said, as digests in order, and the digest of these."""
    said = {**record.said, **record.heard}
    parts: dict[str, Any] = {
        "parameters_sha256": _sha256(record.parameters.encode()),
        "tests_sha256": _sha256(pack(record.tests)),
        "heralds_sha256": _sha256(record.patterns.tobytes()),
        "extra_syndrome_sha256": _sha256(record.extra),
        "code_sha256": said[Stage.SYNDROME].body[: stages.CODE_DIGEST_BYTES].hex(),
        "messages": [
            {
                "stage": stage.value,
                "sender": "alice" if stages.SENT_BY_ALICE[stage] else "bob",
                "bytes": len(said[stage].body),
                "body_sha256": _sha256(said[stage].body),
                "tag_sha256": _sha256(said[stage].tag),
            }
            for stage in stages.ORDER
        ],
    }
    return {**parts, "sha256": _sha256(canonical(parts))}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
