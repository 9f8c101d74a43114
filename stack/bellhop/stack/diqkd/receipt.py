"""The receipt of a session: what was done, what was claimed, under which assumptions."""

import json
from dataclasses import asdict

from bellhop.hal.operations import Port
from bellhop.stack.diqkd.parameters import bound_of, hash_error
from bellhop.stack.diqkd.record import Record
from bellhop.stack.diqkd.rounds import Score
from bellhop.stack.diqkd.stages import steps_given, transcript_hash
from bellhop.stack.diqkd.verify import VERIFICATION_TAG_BITS
from bellhop.stack.keys.ledger import CutBlock

BLOCK_IDEALISATION = (
    "Rounds were measured in blocks: the settings of a block were drawn together and shown to the "
    "device one round at a time, each after the answer to the one before, by the memory service."
)


def receipt(
    record: Record,
    score: Score,
    port: Port,
    block: CutBlock,
    sessions_before: int,
    randomness: str,
    now_ns: int,
) -> str:
    """JSON text kept beside the keys; alike at both ends but for `node`, `peer`, `stored_ns` and
    `own_randomness`, which says where this end's settings and seeds were drawn from."""
    p = record.parameters
    bound = bound_of(p)
    steps = steps_given(record)
    content = {
        "receipt": p.session,
        "protocol": p.protocol,
        "node": record.own,
        "peer": record.peer,
        "alice": p.alice,
        "bob": p.bob,
        "link": p.link,
        "source": port.source.value,
        "device": port.description,
        "device_sessions_before": sessions_before,
        "own_randomness": randomness,
        "idealisations": [BLOCK_IDEALISATION, *port.idealisations],
        "stored_ns": now_ns,
        "rounds": score.rounds,
        "block_rounds": p.block_rounds,
        "tests": score.tests,
        "losses": score.losses,
        "errors": score.errors,
        "s": score.s,
        "qber": score.qber,
        "s_design": p.s_design,
        "qber_design": p.qber_design,
        "design": asdict(p.design),
        "losses_max": p.losses_max,
        "leak_bits": p.leak_bits(steps),
        "leak": {
            "syndrome": p.code.leak_bits(steps),
            "requests": p.steps_max,
            "verification": VERIFICATION_TAG_BITS,
            "counts": p.count_bits,
        },
        "bound": p.bound,
        "theorem": bound.theorem,
        "epsilon": p.epsilon,
        "epsilon_parts": {**asdict(bound.errors), "tags_and_verification": hash_error(p.rounds)},
        "assumptions": list(bound.assumptions),
        "transcript_hash": transcript_hash(record),
        **_account(block),
    }
    return json.dumps(content, sort_keys=True)


def _account(block: CutBlock) -> dict[str, int]:
    return {
        "key_bits": block.gross_bits,
        "gross_bits": block.gross_bits,
        "tag_bits_spent": block.tag_bits_spent,
        "id_key_bits": block.gross_bits - block.tag_bits_spent - block.net_bits,
        "net_bits": block.net_bits,
        "deliverable_bits": block.deliverable_bits,
        "discarded_bits": block.discarded_bits,
    }
