"""Reading a TOML file into structs whose values TOML does not have: durations, addresses, paths."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bellhop.hal.configuration import values_wanted
from bellhop.hal.errors import ConfigError

_UNITS_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(ns|us|ms|s|min|h)")
_FRACTION = re.compile(r"[0-9]{1,12}/[0-9]{1,12}|[0-9]?\.[0-9]{1,30}")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):([0-9]{1,5})")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of the file: read only, and a field it does not know is refused."""


class Nanoseconds(int):
    """A duration, written as "5ms" in the file; units ns, us, ms, s, min, h."""


class Address(str):
    """Where to listen or to dial: "host:port", an IPv6 address in brackets; empty for nowhere."""

    __slots__ = ()

    @property
    def host(self) -> str:
        """The host without brackets."""
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port; 0 asks the system for a free one."""
        return int(self.rpartition(":")[2])


AnySection = TypeVar("AnySection", bound=Section)


def decode(text: str, kind: type[AnySection], folder: Path, origin: str) -> AnySection:
    """Read TOML into a struct.  Raises ConfigError naming the field and what to do."""
    try:
        return msgspec.toml.decode(text, type=kind, dec_hook=_reading_hook(folder))
    except msgspec.ValidationError as error:
        name, problem = _place(str(error))
        problem += values_wanted(problem, kind, name)
        raise ConfigError(f"{origin}: {name}: {problem}", field=name) from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{origin} is not TOML: {error}; correct its syntax", origin) from error
    except RecursionError:
        raise ConfigError(f"{origin} is nested too deep", origin) from None


def parse_duration(text: str) -> Nanoseconds:
    """The duration "5ms" in nanoseconds.  Raises ValueError if it has no unit or no whole ns."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not a duration; write a number and a unit, such as "5ms"')
    duration = Fraction(match[1]) * _UNITS_NS[match[2]]
    if duration.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of nanoseconds")
    return Nanoseconds(int(duration))


def _address(text: str) -> Address:
    match = _ADDRESS.fullmatch(text or "none:0")
    if match is None or int(match[2]) > 65535:
        raise ValueError(f'{text!r} is not an address; write "host:port", such as "127.0.0.1:7101"')
    return Address(text)


def _fraction(text: str) -> Fraction:
    if _FRACTION.fullmatch(text) and not re.search("/0+$", text):
        return Fraction(text)
    raise ValueError(f'{text!r} is not a fraction; write "13/256" or "0.05"')


def _reading_hook(folder: Path) -> Callable[[type, Any], Any]:
    """How msgspec reads the kinds of value above; paths are relative to `folder`."""
    readers: dict[type, Callable[[str], Any]] = {
        Nanoseconds: parse_duration,
        Address: _address,
        Fraction: _fraction,
        Path: lambda text: _path(folder, text),
    }

    def read(kind: type, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} must stand in quotes")
        return readers[kind](value)

    return read


def _path(folder: Path, text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("is no path; leave the field out, or name a file")
    return folder / Path(text).expanduser()


_WHERE = re.compile(r"(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?:contains|missing) (?:unknown|required) field `(?P<name>[^`]*)`")


def _place(message: str) -> tuple[str, str]:
    """The field that msgspec's `message` is about, and what is wrong with it."""
    match = _WHERE.fullmatch(message)
    assert match is not None
    path, problem = match["path"] or "", match["problem"]
    if named := _FIELD.fullmatch(problem):
        path = f"{path}.{named['name']}" if path else named["name"]
        known = "unknown" not in problem
        problem = "must be given" if known else "there is no such field; remove it or correct it"
    return path, problem
