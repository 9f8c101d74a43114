"""A node's signature: made with the key of its certificate, checked against the authority.

The certificate is that of the node's TLS connections, so whoever can speak as a node can sign as
one, and nobody else.  A peer's must name it, be valid when it signed, and lead to an authority of
this node's configuration by certificates that may issue others.
"""

import datetime
from collections.abc import Sequence
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from bellhop.hal.errors import ConfigError, PeerError
from bellhop.hal.operations import NodeName
from bellhop.node.tls import Credentials, Party, PartyKind, party_of_certificate

CHAIN_BYTES_MAX = 6_000
"""Certificates that go with every signature, DER: they must fit into one message with the rest."""

RSA_BITS_MAX = 8_192
"""So must a signature."""

RSA_BITS_MIN = 2_048
CURVE_BITS_MIN = 256
DIGEST_BYTES_MIN = 32
"""Of keys, and of the hash that a certificate was signed with: others can be forged."""

PrivateKey = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

_UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    OSError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises at certificates that a peer may have made up.  Not all are ValueError."""

_RSA_PADDING = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)


class CertifiedIdentity:
    """An identity (`bellhop.stack.identity`) of a private key, its certificates and authorities."""

    def __init__(
        self,
        key: PrivateKey,
        chain: Sequence[x509.Certificate],
        authorities: Sequence[x509.Certificate],
    ) -> None:
        self._key = key
        self._authorities = tuple(authorities)
        self._certificates = tuple(
            certificate.public_bytes(serialization.Encoding.DER) for certificate in chain
        )

    @property
    def certificates(self) -> tuple[bytes, ...]:
        return self._certificates

    def sign(self, content: bytes) -> bytes:
        match self._key:
            case ec.EllipticCurvePrivateKey() as key:
                return key.sign(content, ec.ECDSA(_digest_of(key.curve)))
            case rsa.RSAPrivateKey() as key:
                return key.sign(content, _RSA_PADDING, hashes.SHA256())
            case key:
                return key.sign(content)

    def objection(
        self,
        signer: NodeName,
        certificates: tuple[bytes, ...],
        content: bytes,
        signature: bytes,
        signed_ns: int,
    ) -> str | None:
        try:
            chain = [x509.load_der_x509_certificate(der) for der in certificates]
            at = datetime.datetime.fromtimestamp(signed_ns // 10**9, datetime.UTC)
            why = _chain_objection(chain, self._authorities, Party(PartyKind.NODE, signer), at)
            if why is None and not _holds(chain[0], signature, content):
                why = "the signature is not that of the certificate's key"
        except _UNREADABLE:
            return "a certificate cannot be read"
        except PeerError as error:
            return error.message
        return why


def node_identity(credentials: Credentials) -> CertifiedIdentity:
    """The identity of a node's files.  ConfigError for a key that cannot sign receipts."""
    key = serialization.load_pem_private_key(credentials.key, None)
    if not isinstance(key, PrivateKey) or not _serves(key):
        raise ConfigError(
            f"{credentials.key_file} is of a kind that signs no receipts: take an elliptic curve "
            f"of NIST of {CURVE_BITS_MIN} bits or more, Ed25519, Ed448 or RSA of {RSA_BITS_MIN} to "
            f"{RSA_BITS_MAX} bits",
            field="tls.key",
        )
    chain = x509.load_pem_x509_certificates(credentials.certificate)
    identity = CertifiedIdentity(key, chain, x509.load_pem_x509_certificates(credentials.authority))
    if sum(map(len, identity.certificates)) > CHAIN_BYTES_MAX:
        raise ConfigError(
            f"the certificates in {credentials.certificate_file} have more than {CHAIN_BYTES_MAX} "
            "bytes: leave the authority's own out",
            field="tls.certificate",
        )
    return identity


def _serves(key: PrivateKey) -> bool:
    """Whether signatures of the key are short enough, and nobody can forge them."""
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size > RSA_BITS_MAX:
        return False
    return _strong_key(key.public_key())


def _chain_objection(
    chain: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    party: Party,
    at: datetime.datetime,
) -> str | None:
    """Why the first certificate is not `party`'s under one of the authorities at that time."""
    if not chain:
        return "there is no certificate"
    found = party_of_certificate(chain[0])
    if found != party:
        return f"the certificate is that of {found}, not of {party}"
    if not _usage_allows(chain[0], "digital_signature"):
        return "the certificate's key is not for signatures"
    for below, (certificate, issuer) in enumerate(pairwise(chain)):
        if not _issued(certificate, issuer, below):
            return "the certificates do not follow from one another"
    return _authority_objection(chain, authorities, at)


def _authority_objection(
    chain: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    at: datetime.datetime,
) -> str | None:
    """Why a chain whose links hold does not lead to an authority that was valid then, and safe."""
    below = len(chain) - 1
    roots = [root for root in authorities if _issued(chain[-1], root, below) or root == chain[-1]]
    if not roots:
        return "no authority of this node has issued the certificate"
    if not all(map(_strong, chain)) or not any(_strong_key(root.public_key()) for root in roots):
        return "a certificate's key or signature is of a kind that can be forged"
    if not any(_valid(certificate, at) for certificate in roots):
        return f"the authority was not valid on {at:%Y-%m-%d}"
    if not all(_valid(certificate, at) for certificate in chain):
        return f"the certificate was not valid on {at:%Y-%m-%d}"
    return None


def _issued(certificate: x509.Certificate, issuer: x509.Certificate, below: int) -> bool:
    """Whether `issuer` made it, and may; `below`: how many it has issued between it and the end."""
    try:
        limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    allowed = limits.path_length is None or limits.path_length >= below
    return limits.ca and allowed and _usage_allows(issuer, "key_cert_sign")


def _strong(certificate: x509.Certificate) -> bool:
    """Whether nobody can find its key, nor make another for which its issuer's signature stands."""
    digest = certificate.signature_hash_algorithm  # None: of Ed25519 and Ed448
    long_enough = digest is None or digest.digest_size >= DIGEST_BYTES_MIN
    return long_enough and _strong_key(certificate.public_key())


def _strong_key(key: object) -> bool:
    match key:
        case rsa.RSAPublicKey():
            return key.key_size >= RSA_BITS_MIN
        case ec.EllipticCurvePublicKey():
            return key.curve.key_size >= CURVE_BITS_MIN
    return isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)


def _usage_allows(certificate: x509.Certificate, usage: str) -> bool:
    """Whether the key may be used so; a certificate that does not say allows everything."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return bool(getattr(usages, usage))


def _valid(certificate: x509.Certificate, at: datetime.datetime) -> bool:
    return certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc


def _holds(certificate: x509.Certificate, signature: bytes, content: bytes) -> bool:
    try:
        match certificate.public_key():
            case ec.EllipticCurvePublicKey() as key:
                key.verify(signature, content, ec.ECDSA(_digest_of(key.curve)))
            case rsa.RSAPublicKey() as key:
                key.verify(signature, content, _RSA_PADDING, hashes.SHA256())
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() as key:
                key.verify(signature, content)
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def _digest_of(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    """As strong as the curve."""
    if curve.key_size <= 256:
        return hashes.SHA256()
    return hashes.SHA384() if curve.key_size <= 384 else hashes.SHA512()
