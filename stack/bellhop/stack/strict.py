"""Frozen dataclasses from JSON that a peer wrote: exactly their fields, exactly their types.

JSON knows neither tuples nor the difference between 1 and true.  What is not of the annotated type
is refused, never converted; texts, lists and integers have bounds.
"""

import math
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

TEXT_CHARACTERS_MAX = 256
ITEMS_MAX = 256
INTEGER_MAX = 1 << 63

T = TypeVar("T")


def read_exact(kind: type[T], value: object) -> T:
    """The dataclass `kind` from parsed JSON; ValueError names the first field that is wrong.

    Fields may be int, float, str, bool, tuples of such, and dataclasses again; of a union of
    dataclasses the one that has these fields.
    """
    read: T = _read_fields(kind, value, "")
    return read


def _read_fields(kind: Any, value: object, within: str) -> Any:
    hints = _hints(kind)
    if not isinstance(value, dict):
        raise ValueError(f"{within or 'it'} is no object")
    if strange := set(value) ^ set(hints):
        raise ValueError(f"{_inside(within, min(strange))} is missing or not known")
    return kind(
        **{name: _read(hint, value[name], _inside(within, name)) for name, hint in hints.items()}
    )


def _read(hint: Any, value: object, name: str) -> Any:
    if is_dataclass(hint):
        return _read_fields(hint, value, name)
    if get_origin(hint) is UnionType:
        return _read_union(get_args(hint), value, name)
    if get_origin(hint) is tuple:
        return _read_tuple(get_args(hint), value, name)
    kind = getattr(hint, "__supertype__", hint)  # a NewType is what it is made of
    if type(value) is not kind or not _bounded(value):
        raise ValueError(f"{name} is not what it should be")
    return value


def _read_union(kinds: tuple[Any, ...], value: object, name: str) -> Any:
    for kind in kinds:
        if isinstance(value, dict) and set(value) == set(_hints(kind)):
            return _read_fields(kind, value, name)
    raise ValueError(f"{name} has the fields of none")


def _read_tuple(kinds: tuple[Any, ...], value: object, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) > ITEMS_MAX:
        raise ValueError(f"{name} is no short list")
    if kinds[1:] == (...,):
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"{name} has {len(value)} items")
    return tuple(_read(kind, item, name) for kind, item in zip(kinds, value, strict=True))


def _bounded(value: object) -> bool:
    match value:
        case bool():
            return True
        case int():
            return abs(value) < INTEGER_MAX
        case float():
            return math.isfinite(value)
        case str():
            return len(value) <= TEXT_CHARACTERS_MAX
    return False


def _inside(within: str, name: object) -> str:
    return f"{within}.{name}"[-TEXT_CHARACTERS_MAX:] if within else str(name)[:TEXT_CHARACTERS_MAX]


@lru_cache(maxsize=32)
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}
