"""Are two long bit strings equal? A 64-bit universal hash under a fresh public key.

After decoding, Alice draws a 128-bit key, hashes her string with the polynomial hash of
`bellhop.stack.diqkd.authenticate` and sends key and tag; Bob compares with his own. The tag is not
masked, so its 64 bits are leakage that the key length pays for.

For two different strings of one length the difference of the hashes is a non-zero polynomial in
the key of degree at most L = (number of 16-byte coefficients), with zero constant term. Each of
the 2^64 values whose truncation is zero has at most L preimages among the 2^128 keys: the tags
agree with probability at most L 2^-64 (Carter and Wegman, J. Comput. Syst. Sci. 18, 143 (1979);
truncation as in Shoup, CRYPTO '96).

Assumed: the key is uniform and drawn after both strings are fixed; key and tag arrive
authenticated. A matching syndrome is no substitute: decoders do end in wrong codewords.
"""

import hmac
from typing import Final

from bellhop.stack.diqkd.authenticate import (
    HASH_KEY_BYTES,
    TAG_BITS,
    TAG_BYTES,
    coefficient_count,
    truncated_hash,
)

VERIFICATION_KEY_BYTES: Final = HASH_KEY_BYTES
VERIFICATION_TAG_BYTES: Final = TAG_BYTES
VERIFICATION_TAG_BITS: Final = TAG_BITS


def verification_tag(key: bytes, bits_packed: bytes) -> bytes:
    """The 8-byte tag of a packed bit string (unused bits of the last byte zero) under a public key.

    The key has 16 bytes, was drawn after decoding and serves this one comparison.
    """
    return truncated_hash(key, bits_packed)


def strings_agree(key: bytes, bits_packed: bytes, peer_tag: bytes) -> bool:
    """Whether the peer's tag is that of our own string; compared in constant time."""
    if len(peer_tag) != VERIFICATION_TAG_BYTES:
        return False
    return hmac.compare_digest(verification_tag(key, bits_packed), peer_tag)


def undetected_error_probability(n_bits: int, tag_bits: int = VERIFICATION_TAG_BITS) -> float:
    """Bound on the probability that two different n-bit strings pass as equal, L 2^-t."""
    assert n_bits >= 0 and 0 < tag_bits <= 8 * HASH_KEY_BYTES
    return min(1.0, coefficient_count(-(-n_bits // 8)) * 2.0**-tag_bits)
