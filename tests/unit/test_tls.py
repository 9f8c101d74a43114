"""Who a certificate belongs to, what is refused of a party's files, and real handshakes."""

import asyncio
import datetime
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bellhop.hal.errors import ConfigError, PeerError
from bellhop.node.pki import init_authority, issue
from bellhop.node.tls import (
    Credentials,
    Party,
    PartyKind,
    client_context,
    party_of_der,
    party_of_peercert,
    party_of_uris,
    read_credentials,
    sae_of_peercert,
    server_context,
)

NOW = datetime.datetime.now(datetime.UTC)
KME = Party(PartyKind.KME, "kme-alice")
SAE = Party(PartyKind.SAE, "Zürich/1")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pki")
    for name in ("ours", "foreign"):
        init_authority(root / name, now=NOW)
        for party in (KME, SAE, Party(PartyKind.KME, "kme-eve")):
            issue(root / name, party, now=NOW)
    return root


def credentials(folder: Path, party: Party) -> Credentials:
    issued = issue(folder, party, now=NOW, force=True)
    return read_credentials(issued.certificate, issued.key, issued.authority, kind=party.kind)


@pytest.mark.parametrize("name", ["alice", "a/b", "Zürich", "100 %", "a:b", "鍵"])
def test_a_party_survives_its_uri(name: str) -> None:
    party = Party(PartyKind.SAE, name)
    assert party.uri.isascii()
    assert party_of_uris(["https://example.org", party.uri]) == party


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["https://example.org/bellhop:node:alice"],
        ["bellhop:node:alice", "bellhop:kme:alice"],
        ["bellhop:node:alice", "bellhop:node:alice"],
        ["bellhop:node:alice", "BELLHOP:node:alice"],
        ["bellhop:king:alice"],
        ["bellhop:node:"],
        ["bellhop:node"],
        ["bellhop:sae:a/b"],
        ["bellhop:sae:%61"],
        ["bellhop:sae:a%2fb"],
        ["bellhop:sae:%FF"],
    ],
)
def test_uris_that_name_no_one_party(uris: list[str]) -> None:
    with pytest.raises(PeerError):
        party_of_uris(uris)


def test_an_sae_known_by_its_common_name() -> None:
    foreign = {"subject": ((("commonName", "FW-1"),),), "subjectAltName": (("DNS", "fw"),)}
    assert sae_of_peercert(foreign, common_name=True) == "FW-1"
    with pytest.raises(PeerError):
        sae_of_peercert(foreign)
    two = {"subject": ((("commonName", "a"),), (("commonName", "b"),))}
    with pytest.raises(PeerError, match="2 common names"):
        sae_of_peercert(two, common_name=True)
    # A certificate of ours never falls back: its role would be forgotten.
    ours = {"subject": ((("commonName", "x"),),), "subjectAltName": (("URI", "bellhop:node:x"),)}
    with pytest.raises(PeerError, match="not of an SAE"):
        sae_of_peercert(ours, common_name=True)
    with pytest.raises(PeerError, match="no certificate"):
        sae_of_peercert({}, common_name=True)
    with pytest.raises(PeerError, match="no certificate"):
        sae_of_peercert(None, common_name=True)


def own_files(pki: Path, tmp_path: Path) -> list[Path]:
    home = shutil.copytree(pki / "ours" / "kme" / "kme-alice", tmp_path / "kme")
    return [home / "kme-alice.crt.pem", home / "kme-alice.key.pem", home / "authority.crt.pem"]


def refusal(files: list[Path], now: datetime.datetime = NOW, kind: PartyKind | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read_credentials(*files, field_prefix="etsi", now=now, kind=kind)
    assert caught.value.field.startswith("etsi.")
    return f"{caught.value.field}: {caught.value.message}"


def test_files_in_order_are_taken(pki: Path, tmp_path: Path) -> None:
    read = read_credentials(*own_files(pki, tmp_path), kind=PartyKind.KME)
    assert read.party == KME
    assert "PRIVATE" not in repr(read)


def test_files_that_are_missing_or_no_pem(pki: Path, tmp_path: Path) -> None:
    files = own_files(pki, tmp_path)
    for i, name in enumerate(("certificate", "key", "authority")):
        content = files[i].read_bytes()
        files[i].write_bytes(b"-----BEGIN NONSENSE-----\n")
        assert f"etsi.{name}: {files[i]} holds no" in refusal(files)
        files[i].unlink()
        assert f"etsi.{name}: {files[i]} does not exist" in refusal(files)
        files[i].touch(mode=0o600)
        files[i].write_bytes(content)


def test_a_private_key_that_others_may_read(pki: Path, tmp_path: Path) -> None:
    files = own_files(pki, tmp_path)
    for mode in (0o640, 0o604, 0o660):
        files[1].chmod(mode)
        assert f"chmod 600 {files[1]}" in refusal(files)


def test_a_private_key_of_another_certificate(pki: Path, tmp_path: Path) -> None:
    files = own_files(pki, tmp_path)
    files[1] = pki / "ours" / "kme" / "kme-eve" / "kme-eve.key.pem"
    assert "does not belong" in refusal(files)


def test_a_private_key_behind_a_password(pki: Path, tmp_path: Path) -> None:
    files = own_files(pki, tmp_path)
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open sesame"),
    )
    files[1].write_bytes(locked)
    assert "password" in refusal(files)


def test_an_authority_that_did_not_issue(pki: Path, tmp_path: Path) -> None:
    files = own_files(pki, tmp_path)
    files[2] = pki / "foreign" / "authority.crt.pem"
    assert "etsi.authority" in refusal(files) and "was not issued by" in refusal(files)


def test_certificates_out_of_their_time(pki: Path, tmp_path: Path) -> None:
    files = own_files(pki, tmp_path)
    assert "expired on" in refusal(files, NOW + datetime.timedelta(days=366))
    assert "valid only from" in refusal(files, NOW - datetime.timedelta(days=1))


def test_a_certificate_of_another_role(pki: Path, tmp_path: Path) -> None:
    message = refusal(own_files(pki, tmp_path), kind=PartyKind.NODE)
    assert "bellhop pki node" in message and "kme-alice" in message


@asynccontextmanager
async def server(context: ssl.SSLContext, seen: list[Party]) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(party_of_peercert(writer.get_extra_info("peercert")))
        connection = writer.get_extra_info("ssl_object")
        assert party_of_der(connection.getpeercert(binary_form=True)) == seen[-1]
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def talk(port: int, context: ssl.SSLContext) -> str:
    """One line there and back; returns the TLS version."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"hello\n")
        if await reader.readline() != b"hello\n":
            raise ConnectionResetError
        return str(writer.get_extra_info("ssl_object").version())
    finally:
        writer.close()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_both_versions_of_tls_and_both_names(pki: Path, version: str) -> None:
    seen: list[Party] = []
    client = client_context(credentials(pki / "ours", SAE), expect=KME)
    client.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    async with server(server_context(credentials(pki / "ours", KME)), seen) as port:
        assert await talk(port, client) == f"TLSv{version}"
    assert seen == [SAE]


async def test_tls_min_is_kept(pki: Path) -> None:
    client = client_context(credentials(pki / "ours", SAE))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    seen: list[Party] = []
    async with server(server_context(credentials(pki / "ours", KME), "1.3"), seen) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await talk(port, client)
    assert seen == []


async def test_a_client_refuses_another_kme_of_the_same_authority(pki: Path) -> None:
    seen: list[Party] = []
    client = client_context(credentials(pki / "ours", SAE), expect=KME)
    eve = credentials(pki / "ours", Party(PartyKind.KME, "kme-eve"))
    async with server(server_context(eve), seen) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="kme-eve"):
            await talk(port, client)


async def test_a_client_refuses_a_foreign_server(pki: Path) -> None:
    client = client_context(credentials(pki / "foreign", SAE))
    async with server(server_context(credentials(pki / "ours", KME)), []) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await talk(port, client)


async def test_a_server_refuses_clients_without_a_certificate_of_its_authority(pki: Path) -> None:
    ours = credentials(pki / "ours", KME)
    nobody = ssl.create_default_context(cadata=ours.authority.decode())
    foreign = credentials(pki / "foreign", SAE)
    stranger = ssl.create_default_context(cadata=ours.authority.decode())
    stranger.load_cert_chain(foreign.certificate_file, foreign.key_file)
    seen: list[Party] = []
    async with server(server_context(ours), seen) as port:
        for context in (nobody, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await talk(port, context)
    assert seen == []
