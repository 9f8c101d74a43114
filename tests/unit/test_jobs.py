"""The jobs of reconciliation: what they compare before they use it, and when they ask for more."""

from dataclasses import replace

import numpy as np
from tests.support.cores import plan

from bellhop.stack.diqkd.code import build_code
from bellhop.stack.diqkd.jobs import (
    TOO_MANY_ERRORS,
    Corrected,
    Decode,
    Encode,
    EncodeExtra,
    ExtraWanted,
    Received,
)
from bellhop.stack.diqkd.parameters import decoder_priors

P = plan()
BITS = np.random.default_rng(1).integers(0, 2, P.rounds, dtype=np.uint8)


def decoding(error_rate: float = 0.0) -> Decode:
    """Bob's job when this share of his guess is wrong and the codes are one."""
    encoded = Encode(P.code, BITS).run()
    assert encoded.code_digest == build_code(P.code).digest
    wrong = np.random.default_rng(2).random(P.rounds) < error_rate
    return Decode(
        design=P.code,
        guess=BITS ^ wrong,
        tests=np.zeros(P.rounds, np.bool_),
        error_probabilities=decoder_priors(P),
        received=Received(encoded.code_digest, encoded.syndrome),
        steps_max=P.steps_max,
    )


def test_under_one_code_the_string_is_found() -> None:
    job = decoding()
    asked, found = to_its_end(job)
    assert isinstance(found, Corrected)
    np.testing.assert_array_equal(found.bits, BITS)
    assert asked == sorted(set(asked))


def to_its_end(job: Decode) -> tuple[list[int], object]:
    """The steps that the decoder wanted one time after the other, and what it found with them."""
    asked = []
    found = job.run()
    while isinstance(found, ExtraWanted):
        asked.append(found.steps)
        extra = EncodeExtra(P.code, BITS, found.steps).run()
        received = replace(job.received, steps=extra.steps, extra=extra.bits)
        found = replace(job, received=received).run()
    return asked, found


def test_a_decoder_that_needs_more_than_there_is_gives_up() -> None:
    job = replace(decoding(0.2), steps_max=2)
    asked, found = to_its_end(job)
    assert found == TOO_MANY_ERRORS
    assert all(0 < steps <= 2 for steps in asked)
    assert replace(job, steps_max=0).run() == TOO_MANY_ERRORS


def test_a_syndrome_of_another_code_is_not_decoded() -> None:
    """However well it would: both ends compare the matrices before either relies on them."""
    job = decoding()
    digest = job.received.code_digest
    other = build_code(replace(P.code, seed=P.code.seed + 1)).digest
    near = bytes([digest[0] ^ 1]) + digest[1:]
    for wrong in (other, near, b"", digest[:-1], bytes(32)):
        said = replace(job, received=replace(job.received, code_digest=wrong)).run()
        assert isinstance(said, str) and "different codes" in said
