"""The messages of ETSI GS QKD 014 V1.1.1: requests read strictly, responses as JSON bytes.

Rules.  Whatever is not exactly a request of the standard is refused with 400 and a sentence that
says what to change; nothing malformed turns into a default.  An unknown member is refused too: a
misspelt `size` must not yield a key of another size.  `null` for a list is no list, because
clients that have none often write it so.  Of the vendor extensions one is known,
`bellhop_source`: which source a key must have.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Struct

from bellhop.hal.errors import RequestError
from bellhop.hal.operations import Source
from bellhop.node.keystore import DeliveredKey
from bellhop.stack.ids import KeyId, SaeId

SIZE_MULTIPLE: Final = "size shall be a multiple of 8"
MANDATORY_UNKNOWN: Final = "not all extension_mandatory parameters are supported"
MANDATORY_UNMET: Final = "not all extension_mandatory request options could be met"
KEYS_NOT_FOUND: Final = "one or more keys specified are not found on KME"

SOURCE_EXTENSION: Final = "bellhop_source"
QUERY_FIELDS_MAX: Final = 16

_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})+")

Detail = Mapping[str, str | int]
M = TypeVar("M", bound=Struct)


class Refused(RequestError):
    """A request that is answered with an Error body: 400, or 401 if it is not the caller's."""

    def __init__(self, message: str, *details: Detail, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key request may ask for."""

    key_size_bits: int
    min_key_size_bits: int
    max_key_size_bits: int
    max_key_per_request: int


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """A checked key request."""

    number: int
    size_bits: int
    source: str | None


class _KeyRequest(Struct, forbid_unknown_fields=True):
    number: int = 1
    size: int | None = None
    additional_slave_SAE_IDs: list[str] | None = None
    extension_mandatory: list[dict[str, Any]] | None = None
    extension_optional: list[dict[str, Any]] | None = None


class _KeyIdEntry(Struct, forbid_unknown_fields=True):
    key_ID: str
    key_ID_extension: dict[str, Any] | None = None


class _KeyIds(Struct, forbid_unknown_fields=True):
    key_IDs: list[_KeyIdEntry]
    key_IDs_extension: dict[str, Any] | None = None


def read_key_request(body: bytes, limits: Limits) -> KeyOrder:
    """A POSTed key request (table 10); an empty body is the empty request."""
    request = _decode(body, _KeyRequest) if body else _KeyRequest()
    source = _source(request.extension_mandatory or [])
    if request.additional_slave_SAE_IDs:
        raise Refused("additional_slave_SAE_IDs is not supported", {"max_SAE_ID_count": 0})
    size = limits.key_size_bits if request.size is None else request.size
    return _order(request.number, size, source, limits)


def read_key_query(query: str, limits: Limits) -> KeyOrder:
    """A key request in a URL: `number` and `size` alone."""
    fields = _query_fields(query, {"number", "size"})
    for name, text in fields.items():
        if _WHOLE_NUMBER.fullmatch(text) is None:
            raise Refused(f"{name} shall be a whole number", {"parameter": name})
    number = int(fields.get("number", "1"))
    return _order(number, int(fields.get("size", limits.key_size_bits)), None, limits)


def read_key_ids(body: bytes, limits: Limits) -> tuple[KeyId, ...]:
    """POSTed key ids (table 12)."""
    entries = _decode(body, _KeyIds).key_IDs
    if not 1 <= len(entries) <= limits.max_key_per_request:
        raise Refused(
            f"key_IDs shall name 1 to {limits.max_key_per_request} keys",
            {"max_key_per_request": limits.max_key_per_request},
        )
    key_ids = tuple(_key_id(entry.key_ID) for entry in entries)
    if len(set(key_ids)) != len(key_ids):
        raise Refused("key_IDs shall name each key once")
    return key_ids


def read_key_id_query(query: str) -> tuple[KeyId, ...]:
    """One key id in a URL."""
    fields = _query_fields(query, {"key_ID"})
    if "key_ID" not in fields:
        raise Refused("key_ID is missing", {"parameter": "key_ID"})
    return (_key_id(fields["key_ID"]),)


def read_sae_id(segment: str) -> SaeId:
    """An SAE id as a part of a URL's path, percent-encoded UTF-8 (RFC 3986)."""
    problem = "the SAE ID in the path shall be URL-encoded UTF-8"
    if _SEGMENT.fullmatch(segment) is None:
        raise Refused(problem)
    try:
        return SaeId(unquote(segment, errors="strict"))
    except UnicodeDecodeError:
        raise Refused(problem) from None


def write_container(keys: tuple[DeliveredKey, ...]) -> bytes:
    """The key container (table 11); bytes become base64 (RFC 4648) straight into the answer."""
    return msgspec.json.encode(
        {
            "keys": [
                {
                    "key_ID": key.key_id,
                    "key": key.key,
                    "key_extension": {
                        SOURCE_EXTENSION: key.source,
                        "bellhop_session": key.session,
                    },
                }
                for key in keys
            ]
        }
    )


def write_error(message: str, details: tuple[Detail, ...]) -> bytes:
    """The Error body."""
    error: dict[str, object] = {"message": message}
    if details:
        error["details"] = details
    return msgspec.json.encode(error)


def _decode(body: bytes, kind: type[M]) -> M:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise Refused("the request does not fit the data model", {"problem": str(error)}) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("the request is not JSON in UTF-8") from None


def _source(extensions: list[dict[str, Any]]) -> str | None:
    named = [pair for extension in extensions for pair in extension.items()]
    if unknown := sorted({name for name, _ in named if name != SOURCE_EXTENSION}):
        raise Refused(MANDATORY_UNKNOWN, *({"extension": name} for name in unknown))
    sources = {value if isinstance(value, str) else "" for _, value in named}
    if not sources:
        return None
    if len(sources) > 1 or not sources <= {source.value for source in Source}:
        raise Refused(MANDATORY_UNMET, {"extension": SOURCE_EXTENSION})
    return sources.pop()


def _order(number: int, size_bits: int, source: str | None, limits: Limits) -> KeyOrder:
    if not 1 <= number <= limits.max_key_per_request:
        raise Refused(
            f"number shall be 1 to {limits.max_key_per_request}",
            {"max_key_per_request": limits.max_key_per_request},
        )
    if size_bits % 8:
        raise Refused(SIZE_MULTIPLE)
    if not limits.min_key_size_bits <= size_bits <= limits.max_key_size_bits:
        raise Refused(
            f"size shall be {limits.min_key_size_bits} to {limits.max_key_size_bits}",
            {"min_key_size": limits.min_key_size_bits},
            {"max_key_size": limits.max_key_size_bits},
        )
    return KeyOrder(number, size_bits, source)


def _key_id(text: str) -> KeyId:
    if _UUID.fullmatch(text) is None:
        raise Refused("key_ID shall be a UUID")
    return KeyId(text.lower())


def _query_fields(query: str, known: set[str]) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError:
        raise Refused("the query is malformed") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Refused("each parameter shall stand once")
    if unknown := sorted(set(fields) - known):
        raise Refused("unknown parameter", *({"parameter": name} for name in unknown))
    return fields
