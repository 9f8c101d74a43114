"""PYON, the notation of ARTIQ's network RPC (sipyco): values to and from one line of text.

PYON v2 is JSON in which {"__jsonclass__": [name, arguments]} stands for what JSON lacks: tuples,
sets, bytes, numpy arrays.  PYON v1, of older controllers, is an expression in Python's syntax and
read by `pyon_v1`.  Either is parsed here and never evaluated: what comes out is a value of
the types below or a ControllerNonsense.

A line may hold outcomes of measurements, so no error repeats any of it.
"""

import base64
import binascii
import json
from collections.abc import Callable
from fractions import Fraction
from math import prod

import numpy as np

from bellhop.hal.errors import HardwareError

LINE_BYTES_MAX = 4 * 1024 * 1024
"""No line is longer, either way: it is what the server of sipyco takes."""

DEPTH_MAX = 32
"""No value is nested deeper."""

KEYS_MAX = 4_096
"""No set, and no dictionary whose keys are not all text, has more members.  The hashes of numbers
collide on purpose easily, and text's do not."""

DIMENSIONS_MAX = 8
"""No array has more."""

_CLASS = "__jsonclass__"
_SCALARS = "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16"
_TYPES = frozenset(order + kind for kind in _SCALARS.split() for order in ("<", ">", "|", "="))


class ControllerNonsense(HardwareError):
    """The controller does not keep to the protocol, or answers what cannot be."""

    who_must_act = "whoever wrote the controller"


def encode(value: object) -> bytes:
    """One line of JSON, which both versions of PYON read alike; a tuple is sent as a list.

    `value`: None, bool, int, finite float, str, list, tuple, dict with keys of text.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    line = text.encode("ascii") + b"\n"
    if len(line) > LINE_BYTES_MAX:
        raise HardwareError(f"a message is longer than {LINE_BYTES_MAX} bytes")
    return line


def decode(line: bytes) -> object:
    """The value of a line of PYON v2.

    None, bool, int, float, complex, Fraction, str, bytes, list, tuple, set, dict or a numpy array
    of numbers.  Raises ControllerNonsense for anything else.
    """
    check_length(line)
    try:
        return _revived(json.loads(line.decode()), 0)
    except RecursionError:
        raise ControllerNonsense(f"PYON is nested deeper than {DEPTH_MAX}") from None
    except ValueError:
        # Of text that is no JSON or no UTF-8, and of numbers too long to read.
        raise ControllerNonsense("a line is no PYON v2") from None


def check_length(line: bytes) -> None:
    """Raises ControllerNonsense if `line` is too long to be looked at."""
    if len(line) > LINE_BYTES_MAX:
        raise ControllerNonsense(f"a line of PYON is longer than {LINE_BYTES_MAX} bytes")


def construct(name: str, arguments: list[object]) -> object:
    """The value that the call `name`(`arguments`) stands for, in either version."""
    maker = _MAKERS.get(name)
    if maker is None:
        raise ControllerNonsense(f"PYON of a type that is not taken: {printable(name)}")
    return maker(arguments)


def make_set(items: list[object]) -> set[object]:
    if len(items) > KEYS_MAX:
        raise ControllerNonsense(f"a set in PYON has more than {KEYS_MAX} members")
    try:
        return set(items)
    except TypeError:
        raise ControllerNonsense("a set in PYON has a member that cannot be in a set") from None


def make_dict(pairs: list[tuple[object, object]]) -> dict[object, object]:
    if len(pairs) > KEYS_MAX and not all(isinstance(key, str) for key, _ in pairs):
        raise ControllerNonsense(f"a dictionary in PYON has more than {KEYS_MAX} members")
    try:
        return dict(pairs)
    except TypeError:
        raise ControllerNonsense("a dictionary in PYON has a key that cannot be one") from None


def printable(text: str, characters: int = 64) -> str:
    """`text` fit for a log: short, and nothing in it but printable characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:characters])


def _revived(value: object, depth: int) -> object:
    """What `value` of JSON stands for."""
    if depth > DEPTH_MAX:
        raise ControllerNonsense(f"PYON is nested deeper than {DEPTH_MAX}")
    if isinstance(value, list):
        return [
            _revived(item, depth + 1) if isinstance(item, (list, dict)) else item for item in value
        ]
    if isinstance(value, dict):
        if _CLASS not in value:
            return {key: _revived(item, depth + 1) for key, item in value.items()}
        call = value[_CLASS]
        if len(value) == 1 and isinstance(call, list) and len(call) == 2:
            name, arguments = call
            if isinstance(name, str) and isinstance(arguments, list):
                return construct(name, [_revived(item, depth + 1) for item in arguments])
        raise ControllerNonsense("PYON with a __jsonclass__ that is not a name and its arguments")
    return value


# What a call may make


def _only(arguments: list[object], kind: type, name: str) -> object:
    if len(arguments) != 1 or not isinstance(arguments[0], kind):
        raise ControllerNonsense(f"PYON with a {name} of wrong arguments")
    return arguments[0]


def _listed(arguments: list[object], name: str) -> list[object]:
    items = _only(arguments, list, name)
    assert isinstance(items, list)
    return items


def _tuple(arguments: list[object]) -> object:
    return tuple(_listed(arguments, "tuple"))


def _set(arguments: list[object]) -> object:
    return make_set(_listed(arguments, "set"))


def _dict(arguments: list[object]) -> object:
    pairs = _listed(arguments, "dict")
    checked = [
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, (list, tuple)) and len(pair) == 2  # a key and its value
    ]
    if len(checked) < len(pairs):
        raise ControllerNonsense("PYON with a dict of wrong arguments")
    return make_dict(checked)


def _bytes(arguments: list[object]) -> object:
    return _from_base64(_only(arguments, str, "bytes"))


def _complex(arguments: list[object]) -> object:
    real, imaginary = _numbers(arguments, (int, float), "complex")
    try:
        return complex(real, imaginary)
    except OverflowError:
        raise ControllerNonsense("PYON with a complex of wrong arguments") from None


def _fraction(arguments: list[object]) -> object:
    numerator, denominator = _numbers(arguments, (int,), "Fraction")
    if denominator == 0:
        raise ControllerNonsense("PYON with a Fraction of wrong arguments")
    return Fraction(int(numerator), int(denominator))


def _numbers(
    arguments: list[object], kinds: tuple[type, ...], name: str
) -> tuple[int | float, int | float]:
    if len(arguments) == 2:
        one, other = arguments
        if type(one) in kinds and type(other) in kinds:
            assert isinstance(one, (int, float)) and isinstance(other, (int, float))
            return one, other
    raise ControllerNonsense(f"PYON with a {name} of wrong arguments")


def _array(arguments: list[object]) -> object:
    if len(arguments) != 3 or not isinstance(arguments[0], (list, tuple)):
        raise ControllerNonsense("PYON with a nparray of wrong arguments")
    shape = [size for size in arguments[0] if type(size) is int and 0 <= size <= LINE_BYTES_MAX]
    if len(shape) < len(arguments[0]) or len(shape) > DIMENSIONS_MAX:
        raise ControllerNonsense("PYON with a nparray of wrong shape")
    values = _values(arguments[1], arguments[2])
    if prod(shape) != len(values) or (prod(shape) == 0 and max(shape, default=0) > KEYS_MAX):
        raise ControllerNonsense("PYON with a nparray of wrong shape")
    return values.reshape(shape)


def _scalar(arguments: list[object]) -> object:
    if len(arguments) != 2:
        raise ControllerNonsense("PYON with a npscalar of wrong arguments")
    values = _values(*arguments)
    if len(values) != 1:
        raise ControllerNonsense("PYON with a npscalar of wrong length")
    return values[0].item()


def _values(kind: object, data: object) -> "np.ndarray[tuple[int], np.dtype[np.generic]]":
    """Numbers of the numpy type named by `kind`, from bytes in base 64."""
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ControllerNonsense("PYON with an array of a type that is not taken")
    raw = _from_base64(data)
    dtype = np.dtype(kind)
    if len(raw) % dtype.itemsize or (dtype.kind == "b" and max(raw, default=0) > 1):
        raise ControllerNonsense("PYON with an array whose bytes are not of its type")
    return np.frombuffer(raw, dtype).copy() if raw else np.zeros(0, dtype)


def _from_base64(data: object) -> bytes:
    if not isinstance(data, (str, bytes)):
        raise ControllerNonsense("PYON with bytes that are not in base 64")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ControllerNonsense("PYON with bytes that are not in base 64") from None


_MAKERS: dict[str, Callable[[list[object]], object]] = {
    "tuple": _tuple,
    "set": _set,
    "dict": _dict,
    "OrderedDict": _dict,
    "bytes": _bytes,
    "complex": _complex,
    "Fraction": _fraction,
    "nparray": _array,
    "npscalar": _scalar,
}
