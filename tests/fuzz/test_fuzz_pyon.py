"""Bytes into both readers of PYON: a value or a HardwareError, nothing else.

What is a value goes on to the readers of a controller's answers, under the same rule.
"""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sipyco_server import encode_v1, encode_v2

from bellhop.hal.drivers import pyon, pyon_v1
from bellhop.hal.drivers.sipyco_answers import clock_of, heralds_of, outcome_of, ports_of
from bellhop.hal.errors import HardwareError
from bellhop.hal.operations import NodeName

READERS = pytest.mark.parametrize("decode", [pyon.decode, pyon_v1.decode])

_FRAGMENTS = [
    b'{"__jsonclass__":["', b'",[', b"]]}", b"nparray", b"npscalar", b"tuple", b"set", b"dict",
    b"Fraction", b"OrderedDict", b"complex", b"bytes", b'"<i8"', b'"|b1"', b"b'", b'b"', b'"', b"'",
    b"(", b")", b"[", b"]", b"{", b"}", b",", b":", b" ", b"\\", b"\\x", b"1", b"-", b".", b"j",
    b"inf", b"nan", b"null", b"true", b"NaN", b"AAAAAAAAAAA=", b"\n", b"\xff", b"\\ud800", b"e",
]  # fmt: skip
_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_keys = st.integers() | st.text()
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(_keys)
        | st.dictionaries(st.text().filter(lambda key: key != "__jsonclass__"), inner)
    ),
    max_leaves=20,
)


def value_or_refusal(decode: Callable[[bytes], object], line: bytes) -> None:
    try:
        value = decode(line)
    except HardwareError as error:
        assert error.message
        return
    for read in (clock_of, heralds_of, outcome_of, lambda told: ports_of(told, NodeName("alice"))):
        try:
            read(value)
        except HardwareError as error:
            assert error.message


@READERS
@given(line=st.binary(max_size=2_000))
def test_random_bytes(decode: Callable[[bytes], object], line: bytes) -> None:
    value_or_refusal(decode, line)


@READERS
@given(pieces=st.lists(st.sampled_from(_FRAGMENTS), max_size=40))
def test_pieces_of_the_notation(decode: Callable[[bytes], object], pieces: list[bytes]) -> None:
    value_or_refusal(decode, b"".join(pieces))


@READERS
@given(name=st.sampled_from(["tuple", "set", "dict", "bytes", "complex", "Fraction", "nparray",
                             "npscalar", "OrderedDict", "slice", "eval"]),
       arguments=st.lists(_values, max_size=4))  # fmt: skip
def test_calls_of_everything(
    decode: Callable[[bytes], object], name: str, arguments: list[object]
) -> None:
    if decode is pyon.decode:
        line = encode_v2({"__jsonclass__": [name, arguments]})
    else:
        line = f"{name}({', '.join(map(encode_v1, arguments))})"
    value_or_refusal(decode, line.encode())


@given(value=_values)
def test_what_a_controller_writes_is_read(value: object) -> None:
    assert pyon.decode(encode_v2(value).encode()) == value
    assert pyon_v1.decode(encode_v1(value).encode()) == _as_version_1(value)


def _as_version_1(value: object) -> object:
    """An empty set is written as an empty dictionary."""
    match value:
        case set() if not value:
            return {}
        case list():
            return [_as_version_1(one) for one in value]
        case tuple():
            return tuple(_as_version_1(one) for one in value)
        case dict():
            return {key: _as_version_1(one) for key, one in value.items()}
    return value


_ANSWERS = st.sampled_from(
    [
        [(7, 3, 1234567890123), (9, "PSI_MINUS", 1234567899999)],
        [{"link": "alice-bob", "side": "a", "peer": "bob", "settings": 2, "description": "x",
          "idealisations": ("y",), "pairs_held_max": 1, "source": "emulated"}],
        {"status": "ok", "ret": 1},
    ]
)  # fmt: skip


@READERS
@given(answer=_ANSWERS, data=st.data())
def test_mutated_answers(
    decode: Callable[[bytes], object], answer: object, data: st.DataObject
) -> None:
    encode = encode_v2 if decode is pyon.decode else encode_v1
    mutated = bytearray(encode(answer).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert"])):
            case "change":
                mutated[place] = data.draw(st.integers(0, 255))
            case "cut":
                del mutated[place + 1 : place + data.draw(st.integers(1, 20))]
            case _:
                mutated[place:place] = data.draw(st.sampled_from(_FRAGMENTS))
    value_or_refusal(decode, bytes(mutated))
