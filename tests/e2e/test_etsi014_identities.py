"""ETSI GS QKD 014 over the network: whose certificate is whose, production, a damaged store."""

import datetime
import sqlite3
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.support.distilled import ALICE
from tests.support.identities import Authority
from tests.support.kmes import SAE_A, SAE_B, SETTINGS, Kmes, fill_both, keys_url, running_kmes

from bellhop.node.tls import PartyKind, client_context

IN_PRODUCTION = replace(SETTINGS, production=True)
EMULATED_REFUSED = "this KME is in production and refuses to deliver emulated keys"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def odd_client(
    authority: Authority, folder: Path, common_names: tuple[str, ...], uris: tuple[str, ...]
) -> ssl.SSLContext:
    """A client whose certificate is of the authority but of a form that it never issues."""
    pem = (authority.folder / "authority.crt.pem").read_bytes()
    issuer = x509.load_pem_x509_certificate(pem)
    issuer_key = serialization.load_pem_private_key(
        (authority.folder / "authority.key.pem").read_bytes(), None
    )
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])
        )
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    path = folder / "odd.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.create_default_context(cadata=pem.decode())
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize(
    ("names", "uris", "by_common_name", "status"),
    [
        ((SAE_A,), (), True, 200),
        ((SAE_A,), (), False, 401),
        ((SAE_A,), ("urn:uuid:1",), True, 200),
        ((SAE_A, "sae-a2"), (), True, 401),
        ((), (), True, 401),
        (("whoever",), (f"bellhop:sae:{SAE_A}",), True, 200),
        (("whoever",), (f"bellhop:sae:{SAE_A}", "urn:uuid:1"), False, 200),
        ((SAE_A,), (f"bellhop:sae:{SAE_A}", "bellhop:sae:sae-a2"), True, 401),
        ((SAE_A,), (f"bellhop:sae:{SAE_A}", "bellhop:kme:kme-alice"), True, 401),
        ((SAE_A,), ("bellhop:sae:sae%2da",), True, 401),
        ((SAE_A,), ("bellhop:sae:%FF",), True, 401),
        ((SAE_A,), ("bellhop:node:alice",), True, 401),
    ],
)
async def test_who_a_certificate_belongs_to(
    tmp_path: Path,
    authority: Authority,
    names: tuple[str, ...],
    uris: tuple[str, ...],
    by_common_name: bool,
    status: int,
) -> None:
    client = odd_client(authority, tmp_path, names, uris)
    settings = replace(SETTINGS, common_name_identity=by_common_name)
    async with running_kmes(tmp_path, authority, settings) as kmes:
        answer = await kmes.call(client, "GET", keys_url(kmes.alice, SAE_B, "status"))
        assert answer.status == status
        if status == 200:
            assert answer.body["master_SAE_ID"] == SAE_A


async def test_a_kme_is_no_application(tmp_path: Path, authority: Authority) -> None:
    client = client_context(authority.credentials(PartyKind.KME, "kme-alice"))
    async with running_kmes(tmp_path, authority) as kmes:
        refused = await kmes.call(client, "GET", keys_url(kmes.alice, SAE_B, "status"))
    assert refused.status == 401 and "not of an SAE" in refused.message


async def status_of(kmes: Kmes) -> tuple[int, list[str]]:
    answer = await kmes.call(SAE_A, "GET", keys_url(kmes.alice, SAE_B, "status"))
    return answer.body["stored_key_count"], answer.body["status_extension"]["bellhop_sources"]


async def test_production_delivers_no_emulated_key(tmp_path: Path, authority: Authority) -> None:
    async with running_kmes(tmp_path, authority) as kmes:
        await fill_both(kmes, 1, slots=8)
        await fill_both(kmes, 2, slots=2, source="hardware")
        assert await status_of(kmes) == (5, ["emulated", "hardware"])
        emulated = await kmes.take(SAE_A, SAE_B)
    async with running_kmes(tmp_path, authority, IN_PRODUCTION) as kmes:
        assert await status_of(kmes) == (1, ["hardware"])
        refused = await kmes.take(SAE_A, SAE_B, number=2)
        assert (refused.status, refused.message) == (503, EMULATED_REFUSED)
        assert "Retry-After" not in refused.headers
        assert refused.body["details"] == [{"available": 1}]
        refused = await kmes.fetch(SAE_B, SAE_A, *emulated.keys)
        assert (refused.status, refused.message) == (503, EMULATED_REFUSED)
        assert "Retry-After" not in refused.headers
        taken = await kmes.take(SAE_A, SAE_B)
        assert taken.body["keys"][0]["key_extension"]["bellhop_source"] == "hardware"
        assert (await kmes.fetch(SAE_B, SAE_A, *taken.keys)).keys == taken.keys
        refused = await kmes.take(SAE_A, SAE_B)
        assert (refused.status, refused.message) == (503, EMULATED_REFUSED)
        assert "Retry-After" not in refused.headers


async def test_an_application_may_demand_hardware(tmp_path: Path, authority: Authority) -> None:
    demand = {"extension_mandatory": [{"bellhop_source": "hardware"}]}
    async with running_kmes(tmp_path, authority) as kmes:
        await fill_both(kmes, 1, slots=8)
        refused = await kmes.take(SAE_A, SAE_B, **demand)
        assert refused.message == "not all extension_mandatory request options could be met"
        await fill_both(kmes, 2, slots=2, source="hardware")
        taken = await kmes.take(SAE_A, SAE_B, **demand)
        assert taken.body["keys"][0]["key_extension"]["bellhop_source"] == "hardware"


async def test_a_failed_store_answers_503_and_says_so(tmp_path: Path, authority: Authority) -> None:
    async with running_kmes(tmp_path, authority) as kmes:
        await fill_both(kmes)
    sql = sqlite3.connect(tmp_path / ALICE / "keystore.sqlite3")
    with sql:
        sql.execute("UPDATE keys SET sealed = zeroblob(60) WHERE slot = 0")
    sql.close()
    async with running_kmes(tmp_path, authority) as kmes:
        for _ in range(2):
            refused = await kmes.take(SAE_A, SAE_B)
            assert (refused.status, refused.message) == (
                503,
                "the key store of this KME has failed",
            )
        assert "cannot be opened" in (await kmes.stores[ALICE].failure()).message
