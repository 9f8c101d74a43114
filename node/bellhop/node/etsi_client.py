"""A client of ETSI GS QKD 014 V1.1.1: how an application fetches its keys from a KME."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from bellhop.hal.configuration import read_text, require
from bellhop.hal.errors import BellhopError, PeerError, RequestError
from bellhop.node.config_values import Section, decode
from bellhop.node.sealing import wipe
from bellhop.node.tls import Party, PartyKind, client_context, read_credentials

TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 2**24
MESSAGE_CHARACTERS_MAX = 500

Result = TypeVar("Result")


class ClientProfile(Section, frozen=True, kw_only=True):
    """What an application needs to fetch keys, as a TOML file."""

    kme: str
    """URL of its KME, https://host:port."""
    kme_id: str | None = None
    """The KME's identifier; if given, its certificate must say bellhop:kme:ID."""
    certificate: Path
    """The application's certificate, PEM."""
    key: Path
    """Its private key, PEM; readable by its owner alone."""
    authority: Path
    """The certificates of the authorities that vouch for KMEs, PEM."""


def load_profile(path: Path) -> ClientProfile:
    """Read a profile; paths are relative to it.  Raises ConfigError naming the field."""
    return decode(read_text(path), ClientProfile, path.resolve().parent, str(path))


@dataclass(frozen=True, slots=True)
class DeliveredKey:
    """A key and its name.  The key never shows in a repr; `wipe` it when it is used."""

    key_id: str
    key: bytearray = field(repr=False)


class KmeStatus(msgspec.Struct, frozen=True):
    """What a KME says of its keys for a pair of SAEs (table 9); the names are the standard's."""

    source_KME_ID: str
    target_KME_ID: str
    master_SAE_ID: str
    slave_SAE_ID: str
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int
    status_extension: dict[str, Any] | None = None


class _Key(msgspec.Struct):
    key_ID: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    key: bytearray

    def __repr__(self) -> str:
        return f"_Key({self.key_ID!r})"


class _Container(msgspec.Struct):
    keys: list[_Key]


class EtsiClient:
    """One application's connection to its KME; an asynchronous context.

    Every method raises RequestError if the KME refuses the request, PeerError if the KME cannot be
    reached, is not who it should be or talks nonsense.
    """

    def __init__(self, profile: ClientProfile, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(profile.kme)
        require(
            parts.scheme == "https" and bool(parts.hostname) and not parts.query,
            "kme",
            f"= {profile.kme!r} is not a URL of the form https://host:port",
        )
        credentials = read_credentials(
            profile.certificate, profile.key, profile.authority, field_prefix="client"
        )
        expect = None if profile.kme_id is None else Party(PartyKind.KME, profile.kme_id)
        party = credentials.party
        self.own_sae = party.name if party and party.kind is PartyKind.SAE else None
        """Who calls, if the certificate says so in Bellhop's form."""
        self._base = profile.kme.rstrip("/")
        self._context = client_context(credentials, expect)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._context),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def status(self, slave_sae: str) -> KmeStatus:
        """What the KME can deliver for us and `slave_sae`."""
        return _decoded(await self._ask("GET", slave_sae, "status"), KmeStatus)

    async def enc_keys(
        self, slave_sae: str, number: int = 1, size_bits: int | None = None
    ) -> list[DeliveredKey]:
        """Fetch `number` new keys, as their master, to share with `slave_sae`."""
        request: dict[str, Any] = {"number": number}
        if size_bits is not None:
            request["size"] = size_bits
        keys = _keys(await self._ask("POST", slave_sae, "enc_keys", request))
        sizes = {8 * len(key.key) for key in keys}
        if len(keys) != number or (size_bits is not None and sizes != {size_bits}):
            raise PeerError("the KME delivered other keys than were asked for", keys=len(keys))
        return keys

    async def dec_keys(self, master_sae: str, key_ids: Sequence[str]) -> list[DeliveredKey]:
        """Fetch, as a slave, the keys that `master_sae` got; in the order of `key_ids`."""
        request = {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}
        keys = _keys(await self._ask("POST", master_sae, "dec_keys", request))
        found = {key.key_id: key for key in keys}
        if len(keys) != len(key_ids) or set(found) != set(key_ids):
            raise PeerError("the KME delivered other keys than were asked for", keys=len(keys))
        return [found[key_id] for key_id in key_ids]

    async def _ask(
        self, method: str, sae: str, what: str, body: dict[str, Any] | None = None
    ) -> bytearray:
        assert self._session is not None, "used outside its context"
        url = URL(f"{self._base}/api/v1/keys/{quote(sae, safe='')}/{what}", encoded=True)
        try:
            async with self._session.request(
                method, url, json=body, allow_redirects=False
            ) as response:
                content = await _read(response)
                if response.status == 200:
                    return content
                raise _refusal(response.status, response.headers.get("Retry-After"), content)
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            raise _unreachable(self._base, error) from error


async def _read(response: aiohttp.ClientResponse) -> bytearray:
    content = bytearray()
    async for part in response.content.iter_any():
        content += part
        if len(content) > ANSWER_BYTES_MAX:
            raise PeerError(f"the KME's answer is longer than {ANSWER_BYTES_MAX} bytes")
    return content


def _decoded(content: bytearray, kind: type[Result]) -> Result:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:  # the place that is wrong, never the value
        raise PeerError(f"the KME's answer is not that of ETSI GS QKD 014: {error}") from None


def _keys(content: bytearray) -> list[DeliveredKey]:
    try:
        container = _decoded(content, _Container)
    finally:
        wipe(content)
    return [DeliveredKey(key.key_ID, key.key) for key in container.keys]


def _refusal(status: int, retry_after: str | None, content: bytearray) -> BellhopError:
    message = _message(content) or "no reason given"
    if status == 400:
        return RequestError(f"the KME refused the request: {message}", status=status)
    if status == 401:
        return RequestError(
            f"the KME does not allow this to the certificate's owner: {message}", status=status
        )
    again = f"; try again in {retry_after} s" if retry_after and retry_after.isdecimal() else ""
    return PeerError(f"the KME cannot deliver (status {status}): {message}{again}", status=status)


def _message(content: bytearray) -> str:
    """The server's words, made fit to print."""
    try:
        document = json.loads(content)
    except ValueError:
        return ""
    message = document.get("message") if isinstance(document, dict) else None
    text = message if isinstance(message, str) else ""
    return "".join(c if c.isprintable() else " " for c in text)[:MESSAGE_CHARACTERS_MAX]


def _unreachable(base: str, error: Exception) -> PeerError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return PeerError(f"{base} is not the KME it should be: {error.certificate_error}")
    if isinstance(error, aiohttp.ClientSSLError):
        return PeerError(f"no TLS connection with {base}: {error}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return PeerError(f"{base} cannot be reached: {error.os_error.strerror or error}")
    if isinstance(error, TimeoutError):
        return PeerError(f"{base} did not answer in time")
    return PeerError(f"{base} ended the connection; it may refuse our certificate ({error})")


def with_kme(
    profile: ClientProfile, conversation: Callable[[EtsiClient], Awaitable[Result]]
) -> Result:
    """Hold `conversation` with the KME and wait for its result; for callers without a loop."""

    async def hold() -> Result:
        async with EtsiClient(profile) as client:
            return await conversation(client)

    return asyncio.run(hold())
