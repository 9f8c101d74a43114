"""The jobs of reconciliation: what they compare before they use it."""

from dataclasses import replace

import numpy as np
from tests.support.cores import plan

from bellhop.stack.diqkd.code import build_code
from bellhop.stack.diqkd.jobs import Corrected, Decode, Encode, decoder_priors

P = plan()
BITS = np.random.default_rng(1).integers(0, 2, P.rounds, dtype=np.uint8)


def decoding() -> Decode:
    """Bob's job when his guess is right and the codes are one."""
    encoded = Encode(P.code, BITS).run()
    assert encoded.code_digest == build_code(P.code).digest
    tests = np.zeros(P.rounds, np.bool_)
    return Decode(
        P.code, BITS.copy(), tests, decoder_priors(P), encoded.code_digest, encoded.syndrome
    )


def test_under_one_code_the_string_is_found() -> None:
    found = decoding().run()
    assert isinstance(found, Corrected)
    np.testing.assert_array_equal(found.bits, BITS)


def test_a_syndrome_of_another_code_is_not_decoded() -> None:
    """However well it would: both ends compare the matrices before either relies on them."""
    job = decoding()
    other = build_code(replace(P.code, seed=P.code.seed + 1)).digest
    near = bytes([job.code_digest[0] ^ 1]) + job.code_digest[1:]
    for digest in (other, near, b"", job.code_digest[:-1], bytes(32)):
        assert replace(job, code_digest=digest).run() == "code_mismatch"
