"""Reading a TOML file into frozen structs; whatever is wrong names the field."""

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import inspect

from bellhop.hal.errors import ConfigError

FILE_BYTES_MAX = 1_000_000
"""No configuration file is longer."""

DOTS_A_LINE_MAX = 128
"""No line of a TOML file has more dots: a key that is thousands of tables deep takes its time and
its memory to decode, and no key goes over lines."""

Struct = TypeVar("Struct", bound=msgspec.Struct)

_WHERE = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_STEP = re.compile(r"[^.\[]+|\[\.\.\.\]")
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")


def read_text(path: Path) -> str:
    """Raises ConfigError if the file cannot be read as text, or is none: a pipe may never end."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is not a regular file", str(path))
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise ConfigError(f"{path} is longer than {FILE_BYTES_MAX} bytes", str(path))
        return content.decode()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", str(path)) from error


def decode_toml(text: str, struct: type[Struct], origin: str) -> Struct:
    """Raises ConfigError, whose `field` is the path of what is wrong within `origin`."""
    _check_depth(text, origin)
    try:
        return msgspec.toml.decode(text, type=struct)
    except msgspec.ValidationError as error:
        raise _invalid(error, struct, origin) from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{origin} is not TOML: {error}", origin) from error
    except RecursionError:
        raise ConfigError(f"{origin} is nested too deep", origin) from None


def decode_document(text: str, origin: str) -> dict[str, object]:
    """The tables of a TOML file, not checked yet.  Raises ConfigError."""
    _check_depth(text, origin)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # A whole number of thousands of digits is one too.
        raise ConfigError(f"{origin} is not TOML: {error}", origin) from error
    except RecursionError:
        raise ConfigError(f"{origin} is nested too deep", origin) from None


def _check_depth(text: str, origin: str) -> None:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > DOTS_A_LINE_MAX and not line.lstrip().startswith("#"):
            raise ConfigError(f"{origin}: line {number} is nested too deep", origin)


def convert(document: object, struct: type[Struct], origin: str) -> Struct:
    """As `decode_toml`, from tables that are decoded already."""
    try:
        return msgspec.convert(document, struct)
    except msgspec.ValidationError as error:
        raise _invalid(error, struct, origin) from error


def convert_options(options: Mapping[str, object], struct: type[Struct], section: str) -> Struct:
    """Values that were read already.  Raises ConfigError, whose `field` begins with `section`."""
    try:
        return convert(dict(options), struct, section)
    except ConfigError as error:
        raise ConfigError(error.message, f"{section}.{error.field}") from error


def _invalid(
    error: msgspec.ValidationError, struct: type[msgspec.Struct], origin: str
) -> ConfigError:
    message = str(error)
    where = _WHERE.search(message)
    field = where["path"] if where else ""
    name = _UNKNOWN.search(message) or _MISSING.search(message)
    if name:
        field = f"{field}.{name['name']}" if field else name["name"]
    wanted = values_wanted(message, struct, field)
    return ConfigError(f"{origin}: {_WHERE.sub('', message)}{wanted} ({field})", field)


def values_wanted(message: str, struct: type[msgspec.Struct], field: str) -> str:
    """What msgspec's `message` about a field, named by its path, lacks: the values it may have."""
    if not message.startswith("Invalid enum value"):
        return ""
    allowed = _allowed(inspect.type_info(struct), _STEP.findall(field))
    return f": it is one of {', '.join(map(repr, allowed))}"


def _allowed(of: inspect.Type, path: list[str]) -> Iterator[object]:
    """The values of the field at this path that are listed by their names."""
    match of:
        case inspect.LiteralType() if not path:
            yield from of.values
        case inspect.StructType() if path:
            fields = (field for field in of.fields if field.encode_name == path[0])
            for field in fields:
                yield from _allowed(field.type, path[1:])
        case inspect.ListType() | inspect.VarTupleType() if path:
            yield from _allowed(of.item_type, path[1:])
        case inspect.DictType() if path:
            yield from _allowed(of.value_type, path[1:])
        case inspect.UnionType():
            for kind in of.types:
                yield from _allowed(kind, path)


def require(holds: bool, field: str, rule: str) -> None:
    """Raises ConfigError naming `field` unless the rule holds."""
    if not holds:
        raise ConfigError(f"{field} {rule}", field)


def require_all(fields: dict[str, float], allowed: Callable[[float], bool], rule: str) -> None:
    """Every one of `fields` is a finite number and `allowed`."""
    for field, value in fields.items():
        require(math.isfinite(value) and allowed(value), field, f"{rule}, not {value:g}")
