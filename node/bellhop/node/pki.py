"""One authority and the certificates of its parties, as files.

An authority is a folder.  Each party gets a folder of its own inside it, `KIND/NAME`, with the
three files its program needs, so that the folder can be carried to its machine as it is.
"""

import datetime
import hashlib
import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bellhop.hal.errors import ConfigError
from bellhop.hal.identity import valid_name
from bellhop.node.files import PUBLIC_MODE, SECRET_MODE, write_atomically
from bellhop.node.tls import NAME_BYTES_MAX, Party, PartyKind

AUTHORITY_DAYS = 3650
PARTY_DAYS = 365
DAYS_MAX = 36_500
CLOCK_SKEW = datetime.timedelta(hours=1)
"""Certificates are valid this much before they are made: machines' clocks differ."""

AUTHORITY_CERTIFICATE = "authority.crt.pem"
AUTHORITY_KEY = "authority.key.pem"
LOOPBACK_DNS = ("localhost",)
LOOPBACK_IP = ("127.0.0.1",)

_FILE_NAME_MAX = 150


class Curve(StrEnum):
    """The elliptic curves keys are made on (FIPS 186-5 names)."""

    P256 = "p256"
    P384 = "p384"


# Each role may do what its program does: an SAE only calls, an emulator only answers; nodes and
# KMEs do both, because either of two nodes may dial.
_USAGE = {
    PartyKind.NODE: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    PartyKind.KME: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    PartyKind.EMULATOR: [ExtendedKeyUsageOID.SERVER_AUTH],
    PartyKind.SAE: [ExtendedKeyUsageOID.CLIENT_AUTH],
}


@dataclass(frozen=True, slots=True)
class Issued:
    """The files of one party, and when its certificate expires."""

    party: Party
    certificate: Path
    key: Path
    authority: Path
    expires: datetime.datetime


def init_authority(
    folder: Path,
    *,
    now: datetime.datetime,
    days: int = AUTHORITY_DAYS,
    curve: Curve = Curve.P256,
    force: bool = False,
) -> Path:
    """Make an authority in `folder`; returns the path of its certificate.

    With `force` an existing one is replaced, and every certificate it issued is worthless.
    """
    certificate_file, key_file = folder / AUTHORITY_CERTIFICATE, folder / AUTHORITY_KEY
    _refuse_overwriting([certificate_file, key_file], force)
    key = _new_key(curve)
    # A name of its own for each authority, so that a foreign certificate is never taken for an
    # expired one of ours by whoever reads the issuer's name.
    unique = hashlib.sha256(_spki(key)).hexdigest()[:8]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Bellhop authority {unique}")])
    certificate = (
        _builder(subject, subject, key.public_key(), now, _lifetime(days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, _digest(key))
    )
    _make_folder(folder)
    _write(key_file, _key_pem(key), SECRET_MODE)
    _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), PUBLIC_MODE)
    return certificate_file


def issue(
    folder: Path,
    party: Party,
    *,
    now: datetime.datetime,
    dns: tuple[str, ...] = (),
    ip: tuple[str, ...] = (),
    days: int = PARTY_DAYS,
    curve: Curve = Curve.P256,
    force: bool = False,
) -> Issued:
    """Make a key and a certificate for `party`, signed by the authority in `folder`.

    Parties that answer calls are reachable as localhost and 127.0.0.1 unless `dns` or `ip` says
    where else.  Raises ConfigError for a name, an address or files that cannot be.
    """
    check_party(party)
    names = _alternative_names(party, dns, ip)
    authority, authority_key = _load_authority(folder)
    home = party_folder(folder, party)
    certificate_file = home / f"{home.name}.crt.pem"
    key_file = home / f"{home.name}.key.pem"
    _refuse_overwriting([certificate_file, key_file], force)
    key = _new_key(curve)
    lifetime = min(_lifetime(days), authority.not_valid_after_utc - now)
    if lifetime <= datetime.timedelta(0):
        raise ConfigError(f"the authority in {folder} has expired; make a new one", field="dir")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, party.name)])
    certificate = (
        _builder(subject, authority.subject, key.public_key(), now, lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGE[party.kind]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False
        )
        .sign(authority_key, _digest(authority_key))
    )
    authority_file = home / AUTHORITY_CERTIFICATE
    _make_folder(home)
    _write(authority_file, authority.public_bytes(serialization.Encoding.PEM), PUBLIC_MODE)
    _write(key_file, _key_pem(key), SECRET_MODE)
    _write(certificate_file, certificate.public_bytes(serialization.Encoding.PEM), PUBLIC_MODE)
    return Issued(
        party, certificate_file, key_file, authority_file, certificate.not_valid_after_utc
    )


def check_party(party: Party) -> None:
    """Raise ConfigError unless `party` can be named in a certificate, a URL and a file."""
    if party.kind is not PartyKind.SAE:
        if not valid_name(party.name):
            raise ConfigError(
                f"the name of a {party.kind} is one DNS label: lower-case letters, digits and "
                f"inner hyphens, at most 63; {party.name!r} is not",
                field="name",
            )
        return
    if not 1 <= len(party.name.encode()) <= NAME_BYTES_MAX or not party.name.isprintable():
        raise ConfigError(
            f"an SAE identifier is 1 to {NAME_BYTES_MAX} bytes of printable UTF-8", field="id"
        )


def party_folder(folder: Path, party: Party) -> Path:
    """Where the files of `party` lie inside the authority's folder; its last part names them."""
    name = quote(party.name, safe="").replace(".", "%2E")
    if len(name) > _FILE_NAME_MAX:
        digest = hashlib.sha256(party.name.encode()).hexdigest()[:16]
        name = f"{name[:_FILE_NAME_MAX]}-{digest}"
    return folder / party.kind / name


def _alternative_names(
    party: Party, dns: tuple[str, ...], ip: tuple[str, ...]
) -> x509.SubjectAlternativeName:
    if not dns and not ip and party.kind is not PartyKind.SAE:
        dns, ip = LOOPBACK_DNS, LOOPBACK_IP
    try:
        addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ip]
        hosts = [x509.DNSName(name) for name in dns]
    except ValueError as error:
        raise ConfigError(f"not a host's name or address: {error}", field="dns, ip") from error
    own = [x509.DNSName(party.dns_name)] if party.dns_name else []
    return x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(party.uri), *own, *hosts, *addresses]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _lifetime(days: int) -> datetime.timedelta:
    if not 1 <= days <= DAYS_MAX:
        raise ConfigError(f"a certificate is valid for 1 to {DAYS_MAX} days", field="days")
    return datetime.timedelta(days=days)


def _load_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY_CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no authority in {folder}: {error.filename} is missing; "
            f"make one with 'bellhop pki init {folder}'",
            field="dir",
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"the authority in {folder} cannot be read: {error}", "dir") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{folder / AUTHORITY_KEY} is not an elliptic-curve key", field="dir")
    return certificate, key


def _new_key(curve: Curve) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1() if curve is Curve.P384 else ec.SECP256R1())


def _digest(key: ec.EllipticCurvePrivateKey) -> hashes.SHA256 | hashes.SHA384:
    return hashes.SHA384() if key.key_size > 256 else hashes.SHA256()


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _refuse_overwriting(files: list[Path], force: bool) -> None:
    for path in files:
        if path.exists() and not force:
            raise ConfigError(f"{path} exists; remove it, or overwrite it with --force", "force")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}", field="dir") from error


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        write_atomically(path, content, mode, force=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", field="dir") from error
