"""Kinds of value in a configuration file that TOML does not have: durations, addresses, paths."""

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

_UNITS_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|ms|s|min|h)")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]+):(\d{1,5})")


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
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f'{text!r} is not a fraction; write "13/256" or "0.05"') from error


def reading_hook(folder: Path) -> Callable[[type, Any], Any]:
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
