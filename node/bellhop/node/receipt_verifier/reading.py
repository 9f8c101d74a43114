"""A receipt as bytes: read strictly, and spelled in the one way that digests are made over."""

import hashlib
import json
import math
from typing import Any

BYTES_MAX = 1 << 20
DEPTH_MAX = 32
"""Objects within objects: far fewer than what would exhaust the stack of whoever writes them."""

INTEGER_MAX = 1 << 63

SCHEMAS = "bellhop-receipt/"
"""How the schema of every receipt begins; its version follows."""


class Unreadable(Exception):
    """The file is no receipt, of whatever version."""


def parse(content: bytes) -> dict[str, Any]:
    """JSON that calls itself a receipt, in which every name comes once and every number is one;
    Unreadable otherwise."""
    if len(content) > BYTES_MAX:
        raise Unreadable(f"a receipt has at most {BYTES_MAX} bytes")
    try:
        read = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_once_each,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"this is no JSON of a receipt: {error}") from None
    if not isinstance(read, dict):
        raise Unreadable("a receipt is one JSON object")
    if not _shallow(read):
        raise Unreadable(f"a receipt has at most {DEPTH_MAX} objects within one another")
    schema = read.get("schema")
    if not (isinstance(schema, str) and schema.startswith(SCHEMAS)):
        raise Unreadable(f"a receipt names its schema, {SCHEMAS} and a version")
    return read


def _shallow(document: dict[str, Any]) -> bool:
    level: list[Any] = [document]
    for _ in range(DEPTH_MAX):
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
    return not level


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name comes twice in one object")
    return names


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    if len(text) > 40 or not math.isfinite(float(text)):
        raise ValueError("a number is too large or too long")
    return float(text)


def _bounded(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= INTEGER_MAX:
        raise ValueError("an integer is too large")
    return int(text)


def canonical(content: Any) -> bytes:
    """The one spelling that digests and signatures are made over."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
