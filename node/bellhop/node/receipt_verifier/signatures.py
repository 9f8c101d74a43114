"""The two ends' signatures under a receipt, and the certificates they were made with.

Needs the package `cryptography`, and loads it only here.
"""

import base64
import datetime
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .reading import canonical, sha256

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

DOMAIN = b" " * 64 + b"bellhop-receipt/2 endorsement\x00"
"""Comes before what is signed: no other use of the same key begins so."""

RSA_BITS_MIN = 2_048
CURVE_BITS_MIN = 256
DIGEST_BYTES_MIN = 32
"""Of the hash that a certificate was signed with; SHA-256 or longer."""


def missing() -> str:
    """Why signatures cannot be checked on this machine; empty if they can."""
    try:
        import cryptography.x509  # noqa: F401 - whether it is there
    except ImportError:
        return "the Python package 'cryptography' is not installed here"
    return ""


def of_end(said: dict[str, Any], role: str, end: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the signature of the end that has this role."""
    statement, named = end["statement"], said["parameters"][role]
    if statement["role"] != role or statement["node"] != named:
        yield f"it is the word of {statement['node']!r}, and {named!r} was {role}"
        return
    try:
        yield from _judged(said, named, end)
    except _unreadable():
        yield "a certificate or the signature cannot be read"


def _judged(said: dict[str, Any], named: str, end: dict[str, Any]) -> Iterator[str]:
    statement = end["statement"]
    ders = [_decoded(text) for text in end["certificates"]]
    signature = _decoded(end["signature"])
    chain = _certificates(ders)
    content = {
        "session_sha256": sha256(canonical(said)),
        "statement": statement,
        "certificates_sha256": [sha256(der) for der in ders],
    }
    if not chain:
        yield "there is no certificate"
    elif not _holds(chain[0], signature, DOMAIN + canonical(content)):
        yield "the signature is not that of the certificate's key under this receipt"
    else:
        yield from _of_node(chain[0], named)
        yield from _linked(chain)
        if not all(_strong_key(one) and _strong_digest(one) for one in chain):
            yield "a certificate's key or signature is of a kind that can be forged"
        at = datetime.datetime.fromtimestamp(statement["stored_ns"] // 10**9, datetime.UTC)
        if any(not _valid(certificate, at) for certificate in chain):
            yield f"the certificate was not valid when it signed, {at:%Y-%m-%d %H:%M} UTC"


def of_authority(end: dict[str, Any], authority: bytes) -> Iterator[str]:
    """Why no certificate of the PEM text `authority` has issued those of an end."""
    from cryptography import x509

    try:
        roots = x509.load_pem_x509_certificates(authority)
        chain = _certificates([_decoded(text) for text in end["certificates"]])
        at = datetime.datetime.fromtimestamp(end["statement"]["stored_ns"] // 10**9, datetime.UTC)
        below, last = len(chain) - 1, chain[-1] if chain else None
        issuers = [root for root in roots if last and (root == last or _issued(last, root, below))]
    except _unreadable():
        yield "the authority's file, or a certificate, cannot be read"
        return
    if not issuers:
        yield "the certificate is not one of this authority"
    elif not any(map(_strong_key, issuers)):
        yield "the authority's key is of a kind that can be forged"
    elif not any(_valid(root, at) for root in issuers):
        yield "the authority was not valid when the end signed"


def _unreadable() -> tuple[type[Exception], ...]:
    """What the library raises at certificates that somebody has made up."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    made_up = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
    return ValueError, TypeError, OverflowError, OSError, UnsupportedAlgorithm, *made_up


def _decoded(text: str) -> bytes:
    """Base64 in its one spelling; ValueError for another."""
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise ValueError("not the canonical spelling")
    return content


def _certificates(ders: list[bytes]) -> list["Certificate"]:
    from cryptography import x509

    return [x509.load_der_x509_certificate(der) for der in ders]


def _holds(certificate: "Certificate", signature: bytes, content: bytes) -> bool:
    """ECDSA with the hash of the curve's strength, RSA-PSS with SHA-256, Ed25519 or Ed448."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

    try:
        match certificate.public_key():
            case ec.EllipticCurvePublicKey() as key:
                size = key.curve.key_size
                strong = hashes.SHA384() if size <= 384 else hashes.SHA512()
                digest: hashes.HashAlgorithm = hashes.SHA256() if size <= 256 else strong
                key.verify(signature, content, ec.ECDSA(digest))
            case rsa.RSAPublicKey() as key:
                pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
                key.verify(signature, content, pss, hashes.SHA256())
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() as key:
                key.verify(signature, content)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _of_node(certificate: "Certificate", name: str) -> Iterator[str]:
    """The certificate names the node by one URI, and its key may sign."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    ours = [uri for uri in uris if uri.lower().startswith("bellhop:")]
    if ours != [f"bellhop:node:{quote(name, safe='')}"]:
        yield f"the certificate is not that of the node {name!r}"
    if not _may(certificate, "digital_signature"):
        yield "the certificate's key is not for signatures"


def _linked(chain: list["Certificate"]) -> Iterator[str]:
    for below, (certificate, issuer) in enumerate(pairwise(chain)):
        if not _issued(certificate, issuer, below):
            yield "the certificates do not follow from one another"


def _issued(certificate: "Certificate", issuer: "Certificate", below: int) -> bool:
    """Whether `issuer` made it and may: an authority, with no more below it than it allows."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    deep_enough = limits.path_length is None or limits.path_length >= below
    return limits.ca and deep_enough and _may(issuer, "key_cert_sign")


def _strong_digest(certificate: "Certificate") -> bool:
    """Whether nobody can make another certificate for which its issuer's signature stands."""
    digest = certificate.signature_hash_algorithm  # None: of Ed25519 and Ed448
    return digest is None or digest.digest_size >= DIGEST_BYTES_MIN


def _strong_key(certificate: "Certificate") -> bool:
    """Whether nobody can find its private key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    match certificate.public_key():
        case rsa.RSAPublicKey() as key:
            return key.key_size >= RSA_BITS_MIN
        case ec.EllipticCurvePublicKey() as key:
            return key.curve.key_size >= CURVE_BITS_MIN
        case key:
            return isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)


def _may(certificate: "Certificate", usage: str) -> bool:
    from cryptography import x509

    try:
        usages = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return bool(getattr(usages, usage))


def _valid(certificate: "Certificate", at: datetime.datetime) -> bool:
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc
