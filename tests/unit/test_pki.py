"""The authority and what it issues, checked as a stranger would: by the certificates alone."""

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from bellhop.hal.errors import ConfigError
from bellhop.node.pki import Curve, check_party, init_authority, issue, party_folder
from bellhop.node.tls import Party, PartyKind, party_of_certificate, read_credentials

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
ALICE = Party(PartyKind.NODE, "alice")
ODD_SAE = Party(PartyKind.SAE, "Zürich/ü:1 %2F")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    init_authority(tmp_path / "pki", now=NOW)
    return tmp_path / "pki"


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("curve", list(Curve))
def test_a_web_client_verifies_what_is_issued(tmp_path: Path, curve: Curve) -> None:
    authority = load(init_authority(tmp_path, now=NOW, curve=curve))
    issued = issue(tmp_path, ALICE, now=NOW, curve=curve, dns=("alice.example.org",))
    policy = PolicyBuilder().store(Store([authority])).time(NOW)
    verifier = policy.build_server_verifier(x509.DNSName("alice.node.bellhop"))
    chain = verifier.verify(load(issued.certificate), [])
    assert len(chain) == 2
    key = chain[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.key_size == {Curve.P256: 256, Curve.P384: 384}[curve]


@pytest.mark.parametrize(
    "party", [ALICE, Party(PartyKind.KME, "k"), Party(PartyKind.EMULATOR, "ions"), ODD_SAE]
)
def test_the_party_is_read_back(folder: Path, party: Party) -> None:
    issued = issue(folder, party, now=NOW)
    certificate = load(issued.certificate)
    assert party_of_certificate(certificate) == party
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == party.name
    credentials = read_credentials(
        issued.certificate, issued.key, issued.authority, kind=party.kind, now=NOW
    )
    assert credentials.party == party


def test_names_where_a_party_is_reached(folder: Path) -> None:
    def names(party: Party, ip: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
        certificate = load(issue(folder, party, now=NOW, force=True, ip=ip).certificate)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            found.get_values_for_type(x509.DNSName),
            [str(address) for address in found.get_values_for_type(x509.IPAddress)],
        )

    assert names(ALICE) == (["alice.node.bellhop", "localhost"], ["127.0.0.1"])
    assert names(ALICE, ip=("::1",)) == (["alice.node.bellhop"], ["::1"])
    assert names(Party(PartyKind.SAE, "app")) == (["app.sae.bellhop"], [])
    assert names(ODD_SAE) == ([], [])


def test_each_role_may_do_what_its_program_does(folder: Path) -> None:
    both = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    allowed = {
        PartyKind.NODE: both,
        PartyKind.KME: both,
        PartyKind.EMULATOR: {ExtendedKeyUsageOID.SERVER_AUTH},
        PartyKind.SAE: {ExtendedKeyUsageOID.CLIENT_AUTH},
    }
    for kind in PartyKind:
        certificate = load(issue(folder, Party(kind, "x"), now=NOW).certificate)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(usage) == allowed[kind]
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical and not constraints.value.ca


def test_private_keys_are_their_owners_alone(folder: Path) -> None:
    issued = issue(folder, ALICE, now=NOW)
    assert mode(issued.key) == mode(folder / "authority.key.pem") == 0o600
    assert mode(issued.certificate) == 0o644
    assert sorted(path.name for path in issued.key.parent.iterdir()) == [
        "alice.crt.pem",
        "alice.key.pem",
        "authority.crt.pem",
    ]


def test_nothing_is_overwritten_unasked(folder: Path) -> None:
    first = issue(folder, ALICE, now=NOW).certificate.read_bytes()
    with pytest.raises(ConfigError, match="--force"):
        issue(folder, ALICE, now=NOW)
    with pytest.raises(ConfigError, match="--force"):
        init_authority(folder, now=NOW)
    certificate = issue(folder, ALICE, now=NOW, force=True).certificate
    assert certificate.read_bytes() != first


def test_one_name_in_two_roles_has_two_folders(folder: Path) -> None:
    node = issue(folder, ALICE, now=NOW)
    kme = issue(folder, Party(PartyKind.KME, "alice"), now=NOW)
    assert node.key != kme.key


def test_a_certificate_does_not_outlive_its_authority(tmp_path: Path) -> None:
    init_authority(tmp_path, now=NOW, days=10)
    issued = issue(tmp_path, ALICE, now=NOW, days=365)
    assert issued.expires == NOW + datetime.timedelta(days=10)
    with pytest.raises(ConfigError, match="expired"):
        issue(tmp_path, Party(PartyKind.NODE, "bob"), now=NOW + datetime.timedelta(days=11))


@pytest.mark.parametrize("name", ["", "Alice", "-a", "a_b", "a.b", "x" * 64, "../a"])
def test_names_that_are_no_dns_label(name: str) -> None:
    with pytest.raises(ConfigError, match="DNS label"):
        check_party(Party(PartyKind.NODE, name))


@pytest.mark.parametrize("name", ["", "x" * 65, "🔑" * 17, "a\nb", "a\0b"])
def test_identifiers_no_sae_can_have(name: str) -> None:
    with pytest.raises(ConfigError, match="printable"):
        check_party(Party(PartyKind.SAE, name))


@pytest.mark.parametrize("name", ["..", ".", "/etc/passwd", "🔑" * 16, "a/../../b"])
def test_no_identifier_leads_out_of_the_folder(folder: Path, name: str) -> None:
    home = party_folder(folder, Party(PartyKind.SAE, name))
    assert home.parent == folder / "sae"
    issued = issue(folder, Party(PartyKind.SAE, name), now=NOW)
    assert issued.key.resolve().parent.parent == (folder / "sae").resolve()


def test_long_identifiers_keep_apart(folder: Path) -> None:
    one, two = (Party(PartyKind.SAE, "ü" * 31 + end) for end in "ab")
    assert party_folder(folder, one) != party_folder(folder, two)


def test_what_is_wrong_with_the_authority_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bellhop pki init"):
        issue(tmp_path, ALICE, now=NOW)
    init_authority(tmp_path, now=NOW)
    with pytest.raises(ConfigError, match="days"):
        issue(tmp_path, ALICE, now=NOW, days=0)
    with pytest.raises(ConfigError, match="address"):
        issue(tmp_path, ALICE, now=NOW, ip=("300.1.1.1",))
    (tmp_path / "authority.key.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match="cannot be read"):
        issue(tmp_path, ALICE, now=NOW)
