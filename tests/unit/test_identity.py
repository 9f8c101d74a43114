"""Who signed what: every kind of key, every way in which a certificate is not the right one."""

import base64
import datetime
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes as IssuerKey,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from bellhop.hal.errors import ConfigError
from bellhop.hal.operations import NodeName
from bellhop.node.identity import CertifiedIdentity, PrivateKey, node_identity
from bellhop.node.pki import Curve, init_authority, issue
from bellhop.node.receipt_verifier import signatures
from bellhop.node.receipt_verifier.reading import canonical, sha256
from bellhop.node.tls import Party, PartyKind, read_credentials

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
DAY_NS = 24 * 3600 * 10**9
ALICE, BOB = NodeName("alice"), NodeName("bob")
SAID = b"what is signed"


@dataclass(frozen=True)
class Certified:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: IssuerKey


def made(
    name: str,
    issuer: Certified | None = None,
    key: IssuerKey | None = None,
    *,
    uri: str | None = None,
    authority: bool = False,
    depth: int | None = None,
    signs_certificates: bool | None = None,
    days: int = 10,
) -> Certified:
    """A certificate for ten days about NOW, self-signed if no issuer is named."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=days))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=depth), critical=True)
    )
    if signs_certificates is not None:
        usage = x509.KeyUsage(
            not signs_certificates, False, False, False, False, signs_certificates, False, False,
            False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    if uri is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    signer = issuer.key if issuer else key
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else 1
    return Certified(builder.sign(signer, hashes.SHA256() if digest else None), key)


ROOT = made("root", authority=True)
LEAF = made("alice", ROOT, uri="bellhop:node:alice")
AUTHORITY = ROOT.certificate.public_bytes(serialization.Encoding.PEM)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def identity(*chain: Certified, authorities: tuple[Certified, ...] = (ROOT,)) -> CertifiedIdentity:
    key = chain[0].key
    assert isinstance(key, PrivateKey)
    certificates = [each.certificate for each in chain]
    return CertifiedIdentity(key, certificates, [root.certificate for root in authorities])


def objection(
    who: CertifiedIdentity,
    *,
    signer: NodeName = ALICE,
    at_ns: int = NOW_NS,
    authorities: tuple[Certified, ...] = (ROOT,),
) -> str | None:
    """What a node with these authorities has against a signature; the verifier has the same."""
    judge = identity(LEAF, authorities=authorities)
    signature = who.sign(SAID)
    return judge.objection(signer, who.certificates, SAID, signature, at_ns)


KEYS: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}


def key_of(kind: str) -> PrivateKey:
    match kind:
        case "RSA":
            return rsa.generate_private_key(65_537, 2048)
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "Ed448":
            return ed448.Ed448PrivateKey.generate()
    return ec.generate_private_key(KEYS[kind])


@pytest.mark.parametrize("kind", [*KEYS, "RSA", "Ed25519", "Ed448"])
def test_every_kind_of_key_signs(kind: str) -> None:
    who = identity(made("alice", ROOT, key_of(kind), uri="bellhop:node:alice"))
    assert objection(who) is None
    signature = who.sign(SAID)
    (certificate,) = (x509.load_der_x509_certificate(each) for each in who.certificates)
    assert signatures._holds(certificate, signature, SAID)
    for wrong in (b"", signature[:-1], signature[::-1], bytes(len(signature))):
        assert not signatures._holds(certificate, wrong, SAID)
        told = who.objection(ALICE, who.certificates, SAID, wrong, NOW_NS)
        assert told == "the signature is not that of the certificate's key"
    assert who.objection(ALICE, who.certificates, SAID + b".", signature, NOW_NS) is not None


def test_authorities_in_between_may_issue() -> None:
    middle = made("middle", ROOT, authority=True)
    leaf = made("alice", middle, uri="bellhop:node:alice")
    assert objection(identity(leaf, middle)) is None
    assert "no authority" in str(objection(identity(leaf))), "the one in between is missing"


def test_a_node_is_no_authority() -> None:
    """Else every node could make certificates in the name of every other."""
    mallory = made("mallory", ROOT, uri="bellhop:node:mallory")
    forged = made("alice", mallory, uri="bellhop:node:alice")
    assert objection(identity(forged, mallory)) == "the certificates do not follow from one another"
    assert list(signatures._linked([forged.certificate, mallory.certificate]))


def test_an_authority_issues_no_deeper_than_it_may() -> None:
    shallow = made("shallow", authority=True, depth=0)
    middle = made("middle", shallow, authority=True)
    leaf = made("alice", middle, uri="bellhop:node:alice")
    assert "no authority" in str(objection(identity(leaf, middle), authorities=(shallow,)))
    direct = made("alice", shallow, uri="bellhop:node:alice")
    assert objection(identity(direct), authorities=(shallow,)) is None


def test_a_key_is_used_for_what_it_is_for() -> None:
    no_signatures = made("alice", ROOT, uri="bellhop:node:alice", signs_certificates=True)
    assert "not for signatures" in str(objection(identity(no_signatures)))
    no_issuer = made("root", authority=True, signs_certificates=False)
    leaf = made("alice", no_issuer, uri="bellhop:node:alice")
    assert "no authority" in str(objection(identity(leaf), authorities=(no_issuer,)))


@pytest.mark.parametrize(
    "uri",
    ["bellhop:node:bob", "bellhop:kme:alice", "bellhop:node:Alice", "https://alice.example", None],
)
def test_the_certificate_names_the_node(uri: str | None) -> None:
    assert objection(identity(made("alice", ROOT, uri=uri))) is not None


def test_the_certificate_is_of_our_authority() -> None:
    other = made("root", authority=True)
    assert "no authority" in str(objection(identity(LEAF), authorities=(other,)))
    assert "no authority" in str(objection(identity(made("alice", uri="bellhop:node:alice"))))


def test_the_certificate_was_valid_when_it_signed() -> None:
    who = identity(LEAF)
    for at_ns in (NOW_NS - 11 * DAY_NS, NOW_NS + 11 * DAY_NS):
        assert "not valid on" in str(objection(who, at_ns=at_ns))
    brief = made("root", key=ROOT.key, authority=True, days=1)
    told = objection(who, at_ns=NOW_NS + 2 * DAY_NS, authorities=(brief,))
    assert told is not None and told.startswith("the authority was not valid")


def weak_key(kind: str) -> PrivateKey:
    if kind == "a short modulus":
        return rsa.generate_private_key(65_537, 1024)
    return ec.generate_private_key(ec.SECP224R1())


@pytest.mark.parametrize("kind", ["a short modulus", "a short curve"])
@pytest.mark.parametrize("whose", ["the node's", "one in between", "the authority's"])
def test_keys_that_can_be_found_sign_nothing(kind: str, whose: str) -> None:
    weak = weak_key(kind)
    root = made("root", key=weak if whose == "the authority's" else None, authority=True)
    middle = made("middle", root, weak if whose == "one in between" else None, authority=True)
    leaf = made("alice", middle, weak if whose == "the node's" else None, uri="bellhop:node:alice")
    who = identity(leaf, middle)
    assert objection(who, authorities=(root,)) == (
        "a certificate's key or signature is of a kind that can be forged"
    )
    end = {
        "statement": {"node": "alice", "role": "alice", "stored_ns": NOW_NS},
        "certificates": [base64.b64encode(each).decode() for each in who.certificates],
    }
    said = {"parameters": {"alice": "alice"}}
    digests = [sha256(each) for each in who.certificates]
    content = {
        "session_sha256": sha256(canonical(said)),
        "statement": end["statement"],
        "certificates_sha256": digests,
    }
    signature = who.sign(signatures.DOMAIN + canonical(content))
    end["signature"] = base64.b64encode(signature).decode()
    found = [*signatures.of_end(said, "alice", end)]
    pem = root.certificate.public_bytes(serialization.Encoding.PEM)
    found += signatures.of_authority(end, pem)
    assert len(found) == 1 and "can be forged" in found[0]


@pytest.mark.parametrize("certificates", [(), (b"",), (b"\x30\x03abc",), (der(ROOT.certificate),)])
def test_nonsense_is_an_objection_and_no_error(certificates: tuple[bytes, ...]) -> None:
    who = identity(LEAF)
    assert who.objection(ALICE, certificates, SAID, who.sign(SAID), NOW_NS) is not None
    assert who.objection(ALICE, who.certificates, SAID, who.sign(SAID), 1 << 100) is not None


SIGNED = identity(LEAF).sign(SAID)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(data=st.data())
def test_a_made_up_certificate_is_an_objection_and_no_error(data: st.DataObject) -> None:
    """Whatever a peer changes in a certificate: it is not the one that our authority issued."""
    changed = bytearray(der(LEAF.certificate))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] ^= data.draw(st.integers(1, 255))
    if bytes(changed) == der(LEAF.certificate):
        return
    why = identity(LEAF).objection(ALICE, (bytes(changed),), SAID, SIGNED, NOW_NS)
    assert why is not None
    judge_of_files = {"node": "alice", "role": "alice", "stored_ns": NOW_NS}
    end = {
        "statement": judge_of_files,
        "certificates": [base64.b64encode(bytes(changed)).decode()],
        "signature": base64.b64encode(SIGNED).decode(),
    }
    assert list(signatures.of_end({"parameters": {"alice": "alice"}}, "alice", end))
    assert list(signatures.of_authority(end, AUTHORITY))


def test_a_certificate_of_no_version_is_no_error() -> None:
    """The library has errors of its own for it, that are no ValueError."""
    version = der(LEAF.certificate).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1)
    with pytest.raises(x509.InvalidVersion):
        x509.load_der_x509_certificate(version)
    told = identity(LEAF).objection(ALICE, (version,), SAID, SIGNED, NOW_NS)
    assert told == "a certificate cannot be read"


@pytest.mark.parametrize("curve", list(Curve))
def test_what_bellhop_pki_makes_signs_receipts(tmp_path: Path, curve: Curve) -> None:
    init_authority(tmp_path, now=NOW, curve=curve)
    issued = issue(tmp_path, Party(PartyKind.NODE, "alice"), now=NOW, curve=curve)
    files = (issued.certificate, issued.key, issued.authority)
    who = node_identity(read_credentials(*files, now=NOW))
    assert who.objection(ALICE, who.certificates, SAID, who.sign(SAID), NOW_NS) is None
    assert who.objection(BOB, who.certificates, SAID, who.sign(SAID), NOW_NS) is not None


def test_keys_and_chains_that_cannot_serve_are_refused_at_the_start(tmp_path: Path) -> None:
    init_authority(tmp_path, now=NOW)
    issued = issue(tmp_path, Party(PartyKind.NODE, "alice"), now=NOW)
    good = read_credentials(issued.certificate, issued.key, issued.authority, now=NOW)
    old = dsa.generate_private_key(1024).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(ConfigError, match="signs no receipts"):
        node_identity(replace(good, key=old))
    with pytest.raises(ConfigError, match="leave the authority's own out"):
        node_identity(replace(good, certificate=good.certificate * 20))
