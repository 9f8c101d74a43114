"""Identities of simulated nodes: real certificates of keys that everybody can draw again.

The signatures of Ed25519 (RFC 8032) need no chance, so that a simulation repeats itself.
"""

import datetime
import functools
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from bellhop.hal.operations import NodeName
from bellhop.node.identity import CertifiedIdentity
from bellhop.node.tls import Party, PartyKind

_FROM = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(2200, 1, 1, tzinfo=datetime.UTC)
"""Virtual time begins with Unix time."""


@functools.cache
def simulated_authority() -> x509.Certificate:
    """The authority of every simulation."""
    return _certificate("simulated authority", None)


@functools.cache
def simulated_identity(node: NodeName) -> CertifiedIdentity:
    """Who a simulated node is: the same in every simulation."""
    own = _certificate(node, Party(PartyKind.NODE, node))
    return CertifiedIdentity(_key(node), (own,), (simulated_authority(),))


def _key(name: str) -> ed25519.Ed25519PrivateKey:
    seed = hashlib.sha256(f"simulated key of {name}".encode()).digest()
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(name: str, party: Party | None) -> x509.Certificate:
    """The authority's own without a party, else one that it issues."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("simulated authority"))
        .public_key(_key(name).public_key())
        .serial_number(1 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=party is None, path_length=None), critical=True)
    )
    if party is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(party.uri)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(_key("simulated authority"), None)
