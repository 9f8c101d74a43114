"""Information-theoretic message tags: a polynomial hash under a one-time mask (Wegman-Carter).

A message m is padded with zeros to whole 16-byte coefficients and closed by a coefficient that
holds its length, so different messages always give different polynomials (the layout of GMAC).
With hash key H the hash is p_m(H) over GF(2^128); the tag is its first 64 bits xor 64 mask bits.

Why a forgery fails (Wegman and Carter, J. Comput. Syst. Sci. 22, 265 (1981); for the polynomial
hash and its truncation Shoup, CRYPTO '96, and Krovetz and Rogaway, SAC 2000). To pass off m' for
m an attacker names d with trunc(p_m(H) xor p_m'(H)) = d. The difference is a polynomial in H of
degree at most L, the number of coefficients of the longer message, with zero constant term; it is
not the zero polynomial, hence not constant. Each of the 2^(128-t) elements whose first t bits are
d has at most L preimages, so at most L 2^(128-t) of the 2^128 hash keys serve the attacker: his
chance is at most L 2^-t. Without a genuine tag under that mask it is 2^-t.

The hash key is used again while every tag has a mask of its own: genuine tags are then uniform and
tell nothing about it, and what the answers to failed attempts tell is covered by adding up the
bound over all attempts made under one hash key (Portmann, arXiv:1202.1229, composably).

Why not a library's GMAC, which has the processor's own instruction for this polynomial: its hash
key cannot be chosen, it is the cipher of a zero block. Taking the cipher's mask off the tag again
would leave the polynomial under a point that is uniform only as far as the cipher looks random, and
the bound above would rest on the cipher.

Assumed: hash key and masks uniform and secret, no mask under two messages, at most
`MESSAGE_BYTES_MAX` bytes a message.
"""

import hmac
from typing import Final

from bellhop.stack.diqkd.field import ELEMENT_BYTES, evaluate

HASH_KEY_BYTES: Final = ELEMENT_BYTES
TAG_BYTES: Final = 8
TAG_BITS: Final = 8 * TAG_BYTES
MASK_BYTES: Final = TAG_BYTES
MESSAGE_BYTES_MAX: Final = 1 << 21
_LENGTH_BYTES: Final = 8


def coefficients(message: bytes) -> bytes:
    """The message as polynomial coefficients: zero padded, then its length in bits; injective."""
    padding = bytes(-len(message) % ELEMENT_BYTES)
    length = (8 * len(message)).to_bytes(_LENGTH_BYTES, "big")
    return b"".join((message, padding, length, bytes(ELEMENT_BYTES - _LENGTH_BYTES)))


def coefficient_count(message_bytes: int) -> int:
    """The number of coefficients, hence the degree of the polynomial, of a message that long."""
    assert message_bytes >= 0
    return -(-message_bytes // ELEMENT_BYTES) + 1


def polynomial_hash(key: bytes, message: bytes) -> int:
    """The 128-bit polynomial hash of a message under a 16-byte key.

    Equal to GHASH of the message as associated data beside an empty ciphertext (SP 800-38D).
    About 2 ms for 200 kB.
    """
    assert len(key) == HASH_KEY_BYTES, "a hash key has 16 bytes"
    assert len(message) <= MESSAGE_BYTES_MAX, "the stated forgery bound needs a bounded message"
    return evaluate(int.from_bytes(key, "big"), coefficients(message))


def truncated_hash(key: bytes, message: bytes) -> bytes:
    """The first 64 bits of the polynomial hash, unmasked: never sent under a reusable key."""
    return polynomial_hash(key, message).to_bytes(ELEMENT_BYTES, "big")[:TAG_BYTES]


def tag(hash_key: bytes, mask: bytes, message: bytes) -> bytes:
    """The 8-byte tag of a message. The mask serves this one message and no other, ever."""
    assert len(mask) == MASK_BYTES, "a mask has 8 bytes"
    digest = truncated_hash(hash_key, message)
    return bytes(d ^ m for d, m in zip(digest, mask, strict=True))


def verify_tag(hash_key: bytes, mask: bytes, message: bytes, received: bytes) -> bool:
    """Whether a received tag is the message's, compared in constant time.

    A peer's overlong message or misshapen tag is simply not authentic. Each call is an attempt in
    the sense of the bound: a caller who lets a peer try again adds the bound again.
    """
    if len(message) > MESSAGE_BYTES_MAX or len(received) != TAG_BYTES:
        return False
    return hmac.compare_digest(tag(hash_key, mask, message), received)


def forgery_probability(message_bytes: int, tag_bits: int = TAG_BITS) -> float:
    """Bound on one forgery attempt's success, L 2^-t (see the module's text for the proof).

    `message_bytes` is the longest message the verifier would take, genuine or not. Errors of
    several attempts under one hash key add up.
    """
    assert 0 < tag_bits <= 8 * ELEMENT_BYTES
    return min(1.0, coefficient_count(message_bytes) * 2.0**-tag_bits)
