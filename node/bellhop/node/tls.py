"""Who a certificate belongs to, and the TLS ends built from a party's files.

Every certificate of this project names one party in a URI subject alternative name,
`bellhop:KIND:NAME`, with NAME percent-encoded (RFC 3986).  A host name says where a program runs,
the URI says who it is; connections check both.
"""

import datetime
import ssl
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from bellhop.hal.errors import ConfigError, PeerError
from bellhop.hal.identity import valid_name

if TYPE_CHECKING:
    import grpc

URI_SCHEME = "bellhop"
NAME_BYTES_MAX = 64
"""The room for a common name in X.509 (RFC 5280, ub-common-name), as UTF-8."""


class PartyKind(StrEnum):
    """The roles a certificate can have; one certificate, one role."""

    NODE = "node"
    KME = "kme"
    EMULATOR = "emulator"
    SAE = "sae"


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody with a certificate: `Party(PartyKind.NODE, "alice")`."""

    kind: PartyKind
    name: str

    @property
    def uri(self) -> str:
        """The subject alternative name that identifies this party."""
        return f"{URI_SCHEME}:{self.kind}:{quote(self.name, safe='')}"

    @property
    def dns_name(self) -> str | None:
        """The DNS name of this party, None for an SAE whose identifier is not a DNS label."""
        return f"{self.name}.{self.kind}.{URI_SCHEME}" if valid_name(self.name) else None

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


def party_of_uris(uris: Iterable[str]) -> Party:
    """The one party that a certificate's URI names say.

    Raises PeerError if they name none, several, or one that is not spelled as `Party.uri` spells
    it: two spellings of one identity are an invitation to confuse them.
    """
    ours = [uri for uri in uris if _is_ours(uri)]
    if len(ours) != 1:
        raise PeerError(
            f"the certificate has {len(ours)} names of the form {URI_SCHEME}:KIND:NAME, "
            "and must have one",
            names=len(ours),
        )
    _, _, rest = ours[0].partition(":")
    kind, _, name = rest.partition(":")
    if kind not in set(PartyKind) or not name:
        raise PeerError("the certificate names a party of no known kind", uri=ours[0])
    try:
        party = Party(PartyKind(kind), unquote(name, errors="strict"))
    except UnicodeDecodeError as error:
        raise PeerError("the certificate's name is not UTF-8", uri=ours[0]) from error
    if party.uri != ours[0]:
        raise PeerError("the certificate's name is not percent-encoded as it must be", uri=ours[0])
    return party


def party_of_certificate(certificate: x509.Certificate) -> Party:
    """The party a certificate names; PeerError as `party_of_uris`."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise PeerError("the certificate has no subject alternative name") from error
    return party_of_uris(names.get_values_for_type(x509.UniformResourceIdentifier))


def party_of_der(der: bytes) -> Party:
    """The party of a DER certificate, as `getpeercert(binary_form=True)` gives it."""
    return party_of_certificate(x509.load_der_x509_certificate(der))


def party_of_peercert(peercert: dict[str, Any] | None) -> Party:
    """The party of a verified connection, from what `getpeercert()` gives.

    Raises PeerError if the peer showed no certificate or one that names no party.
    """
    if not peercert:
        raise PeerError("the peer showed no certificate")
    names = peercert.get("subjectAltName", ())
    return party_of_uris(value for kind, value in names if kind == "URI")


def sae_of_peercert(peercert: dict[str, Any] | None, common_name: bool = False) -> str:
    """The SAE identifier of a verified connection.

    With `common_name`, a certificate without a `bellhop:` name is known by its one common name:
    encryptors come with certificates of their own form, and ETSI GS QKD 014 leaves the field open.
    """
    if common_name and peercert and not _names_party(peercert):
        subject = [pair for rdn in peercert.get("subject", ()) for pair in rdn]
        names = [value for kind, value in subject if kind == "commonName"]
        if len(names) == 1 and names[0]:
            return str(names[0])
        raise PeerError(f"the certificate has {len(names)} common names, and must have one")
    party = party_of_peercert(peercert)
    if party.kind is not PartyKind.SAE:
        raise PeerError(f"the certificate is that of {party}, not of an SAE", uri=party.uri)
    return party.name


def _names_party(peercert: dict[str, Any]) -> bool:
    names = peercert.get("subjectAltName", ())
    return any(kind == "URI" and _is_ours(value) for kind, value in names)


def _is_ours(uri: str) -> bool:
    # A scheme's case does not count (RFC 3986), so "BELLHOP:" is a name too, if a misspelt one.
    return uri.lower().startswith(f"{URI_SCHEME}:")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A party's files, read and checked.  The texts are PEM; the private key is a secret."""

    party: Party | None
    certificate_file: Path
    key_file: Path
    authority_file: Path
    certificate: bytes
    authority: bytes
    key: bytes = field(repr=False)
    expires: datetime.datetime


def read_credentials(
    certificate_file: Path,
    key_file: Path,
    authority_file: Path,
    *,
    field_prefix: str = "tls",
    kind: PartyKind | None = None,
    now: datetime.datetime | None = None,
) -> Credentials:
    """Read and check the three files of a party.

    `field_prefix` names the section in errors; `kind` is the role the certificate must have, None
    for any, an identity of another form included.  Raises ConfigError naming the file, what is
    wrong with it and what to do.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    names = [f"{field_prefix}.{name}" for name in ("certificate", "key", "authority")]
    certificate_pem = _read(certificate_file, names[0])
    key_pem = _read(key_file, names[1], private=True)
    authority_pem = _read(authority_file, names[2])
    certificates = _certificates(certificate_pem, certificate_file, names[0])
    authorities = _certificates(authority_pem, authority_file, names[2])
    own = certificates[0]
    _check_time(own, certificate_file, names[0], now)
    for authority in authorities:
        _check_time(authority, authority_file, names[2], now)
    _check_key(own, key_pem, certificate_file, key_file, names[1])
    if not any(_issued(own, issuer) for issuer in [*certificates[1:], *authorities]):
        raise ConfigError(
            f"{certificate_file} was not issued by the authority in {authority_file}; "
            "use the authority's file that came with the certificate",
            field=names[2],
        )
    return Credentials(
        party=_party(own, certificate_file, names[0], kind),
        certificate_file=certificate_file,
        key_file=key_file,
        authority_file=authority_file,
        certificate=certificate_pem,
        authority=authority_pem,
        key=key_pem,
        expires=own.not_valid_after_utc,
    )


def _read(path: Path, name: str, private: bool = False) -> bytes:
    try:
        if private and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigError(
                f"the private key {path} can be read by others; run: chmod 600 {path}", field=name
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist; correct the path or make it with 'bellhop pki'", field=name
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); give this user the right to read it",
            field=name,
        ) from error


def _certificates(pem: bytes, path: Path, name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate in PEM form", field=name) from error


def _check_time(
    certificate: x509.Certificate, path: Path, name: str, now: datetime.datetime
) -> None:
    if now > certificate.not_valid_after_utc:
        raise ConfigError(
            f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; "
            "make a new one with 'bellhop pki'",
            field=name,
        )
    if now < certificate.not_valid_before_utc:
        raise ConfigError(
            f"{path} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; "
            "set this machine's clock, or wait",
            field=name,
        )


def _check_key(
    certificate: x509.Certificate, pem: bytes, certificate_file: Path, key_file: Path, name: str
) -> None:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ConfigError(
            f"{key_file} is protected by a password, which a daemon cannot type; decrypt it",
            field=name,
        ) from error
    except ValueError as error:
        raise ConfigError(f"{key_file} holds no private key in PEM form", field=name) from error
    if _public(key.public_key()) != _public(certificate.public_key()):
        raise ConfigError(
            f"the private key {key_file} does not belong to the certificate {certificate_file}; "
            "use the two files that were made together",
            field=name,
        )


def _public(key: Any) -> bytes:
    der: bytes = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return der


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _party(
    certificate: x509.Certificate, path: Path, name: str, kind: PartyKind | None
) -> Party | None:
    try:
        party = party_of_certificate(certificate)
    except PeerError as error:
        if kind is None:
            return None
        raise ConfigError(f"{path}: {error.message}", field=name) from error
    if kind is not None and party.kind is not kind:
        raise ConfigError(
            f"{path} is the certificate of {party}, and one of a {kind} is needed; "
            f"make it with 'bellhop pki {kind}'",
            field=name,
        )
    return party


def server_context(credentials: Credentials, tls_min: str = "1.2") -> ssl.SSLContext:
    """TLS for an HTTPS server that serves only clients with a certificate of the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    # 1.2 stays allowed because encryptors in the field speak it (ETSI GS QKD 014, section 5.1).
    context.minimum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[
        tls_min
    ]
    _load(context, credentials)
    return context


def client_context(credentials: Credentials, expect: Party | None = None) -> ssl.SSLContext:
    """TLS for an HTTPS client: shows its certificate, checks the server's chain and host name.

    With `expect`, the handshake fails unless the server's certificate is that party's, so that
    nothing is ever sent to another.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, credentials)
    if expect is not None:
        _check_connections(context, expect)
    return context


def _check_connections(context: ssl.SSLContext, expect: Party) -> None:
    """Check the server in the handshake, of an event loop and of a blocking socket alike."""

    def check(peercert: dict[str, Any] | None) -> None:
        try:
            found = party_of_peercert(peercert)
        except PeerError as error:
            raise ssl.SSLCertVerificationError(error.message) from error
        if found != expect:
            raise ssl.SSLCertVerificationError(
                f"the certificate is that of {found}, and {expect} was called"
            )

    class CheckedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            check(self.getpeercert())

    class CheckedSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            check(self.getpeercert())

    context.sslobject_class = CheckedObject
    context.sslsocket_class = CheckedSocket


def _load(context: ssl.SSLContext, credentials: Credentials) -> None:
    context.load_verify_locations(cadata=credentials.authority.decode())
    context.load_cert_chain(credentials.certificate_file, credentials.key_file)


def grpc_server_credentials(credentials: Credentials) -> "grpc.ServerCredentials":
    """Mutual TLS for a gRPC server: a client without a certificate of the authority is refused."""
    import grpc

    return grpc.ssl_server_credentials(
        [(credentials.key, credentials.certificate)],
        root_certificates=credentials.authority,
        require_client_auth=True,
    )


def grpc_channel_credentials(credentials: Credentials) -> "grpc.ChannelCredentials":
    """Mutual TLS for a gRPC client."""
    import grpc

    return grpc.ssl_channel_credentials(
        root_certificates=credentials.authority,
        private_key=credentials.key,
        certificate_chain=credentials.certificate,
    )


def channel_options(server_name: str) -> list[tuple[str, str]]:
    """Channel options that check the server's certificate for `server_name`.

    The address says where to dial; the name says who must answer there.
    """
    return [("grpc.ssl_target_name_override", server_name), ("grpc.default_authority", server_name)]
