"""PYON, both versions: what is read, what is refused, and that no refusal repeats what it read."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from tests.support.sipyco_server import encode_v1, encode_v2

from bellhop.hal.drivers import pyon, pyon_v1
from bellhop.hal.drivers.pyon import DEPTH_MAX, KEYS_MAX, LINE_BYTES_MAX, ControllerNonsense
from bellhop.hal.errors import HardwareError


def call(name: str, *arguments: object) -> bytes:
    return json.dumps({"__jsonclass__": [name, list(arguments)]}).encode()


VALUES = [
    None, True, 0, -7, 2**70, 1.5, -0.25, 1e300, "", 'a "b" \\ \n µ \U0001f600', [], [1, [2]], (),
    (1,), (1, (2, 3)), {}, {"a": {"b": (1,)}}, {1, 2}, {"x"}, [None, {"a": {(1, 2)}}],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_both_versions_have(value: object) -> None:
    assert pyon.decode(encode_v2(value).encode()) == value
    assert pyon_v1.decode(encode_v1(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(1+2j)", 1 + 2j), ("-2.5e-3j", -2.5e-3j), ("-inf", -math.inf), ("b''", b""),
        ('b"it\'s"', b"it's"), ("( 1 , )", (1,)), ("(1)", 1), ("((1, 2))", (1, 2)),
        ("{1: 2, (3, 4): [5], }", {1: 2, (3, 4): [5]}), ("[1, 2, ]", [1, 2]), ("1.", 1.0),
        ("Fraction(-1, 3)", Fraction(-1, 3)), ('OrderedDict([("b", 1)])', {"b": 1}),
        ('npscalar("<f8", b"AAAAAAAA8D8=")', 1.0),
    ],
)  # fmt: skip
def test_what_version_1_writes_as_python_does(text: str, value: object) -> None:
    assert pyon_v1.decode(f"{text}\n".encode()) == value


def test_no_number() -> None:
    for value in (pyon.decode(b"NaN"), pyon_v1.decode(b"nan")):
        assert isinstance(value, float) and math.isnan(value)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"nul", b"1 2", b"[1,]", b"{1}", b"'a'", b"(1,)", b'"\xff"', b'{"a":1',
        b"1" * 5000, b"\xff\xfe1\x00",
        call("os.system", "x"), call("slice", 1, 2, 3), call("tuple"),
        call("tuple", 1), call("tuple", [], []), call("set", [[1]]), call("dict", [[1]]),
        call("dict", [[[], 1]]), call("dict", ["ab", "c"]), call("bytes", "?"), call("bytes", 1),
        call("complex", 1, "j"), call("complex", True, 1), call("complex", 10**400, 0),
        call("Fraction", 1, 0), call("Fraction", 1.5, 1),
        call("nparray", [2], "|u1", "AA=="), call("nparray", [-1], "|u1", "AA=="),
        call("nparray", [1], "|O", "AA=="), call("nparray", [1], "|S1", "AA=="),
        call("nparray", [1], "<i8", "AA=="), call("nparray", [1], "|b1", "Ag=="),
        call("nparray", [1, True], "|u1", "AA=="), call("nparray", [10**9, 0], "|u1", ""),
        call("nparray", [1] * 9, "|u1", "AA=="), call("nparray", [1], 7, "AA=="),
        call("nparray", [1], "|u1"), call("npscalar", "|u1", "AAA="), call("npscalar", "|u1"),
        b'{"__jsonclass__":"tuple"}', b'{"__jsonclass__":["tuple",[[]]],"a":1}',
        b'{"__jsonclass__":[["tuple"],[[]]]}', b'{"__jsonclass__":["tuple",{}]}',
    ],
    ids=lambda line: line[:60],
)  # fmt: skip
def test_what_version_2_is_not(line: bytes) -> None:
    with pytest.raises(ControllerNonsense):
        pyon.decode(line)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"nul", b"1 2", b"[,]", b"[1 2]", b"{1 2}", b"{1: 2 3: 4}", b"{1: }", b"{1, 2: 3}",
        b"'a'", b'"\\q"', b'"a', b"b'\\q'", b"b'\x80'", b"b'\x01'", b"-", b"--1", b"1_000", b"0x10",
        b"None", b"x", b"x()", b"__import__(\"os\")", b"(1).real", b"[x for x in ()]",
        b"1 if 1 else 2", b"(",
        b"lambda: 1", b"f\"\"", b"\"a\" \"b\"", b"1 + 1", b"1" * 5000, b"slice(1, 2, None)",
        b"Fraction(1, 0)", b"Fraction", b"{[]}", b"{[]: 1}", b"OrderedDict([1])", b"]", b",", b"1]",
        b'nparray((2,), "|u1", b"AA==")', b'nparray(2, "|u1", b"AAA=")', b'npscalar("|O", b"AA==")',
    ],
    ids=lambda line: line[:60],
)  # fmt: skip
def test_what_version_1_is_not(line: bytes) -> None:
    with pytest.raises(ControllerNonsense):
        pyon_v1.decode(line)


def test_depth_and_sizes_are_bounded() -> None:
    for decode in (pyon.decode, pyon_v1.decode):
        nested = b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
        assert isinstance(decode(nested), list)
        for depth in (DEPTH_MAX + 2, 100_000):
            with pytest.raises(ControllerNonsense, match="deeper"):
                decode(b"[" * depth + b"]" * depth)
        with pytest.raises(ControllerNonsense, match="longer"):
            decode(b" " * LINE_BYTES_MAX + b"1")
    numbers = list(range(KEYS_MAX + 1))
    for line in (call("set", numbers), call("dict", [[number, 0] for number in numbers])):
        with pytest.raises(ControllerNonsense, match="more than"):
            pyon.decode(line)
    assert pyon.decode(call("set", numbers[1:])) == set(numbers[1:])
    with pytest.raises(ControllerNonsense, match="more than"):
        pyon_v1.decode(encode_v1(set(numbers)).encode())


def test_an_array_is_a_copy_of_its_own() -> None:
    array = pyon.decode(call("nparray", [2, 1], ">u2", "AAEBAA=="))
    assert isinstance(array, np.ndarray) and array.flags.writeable
    assert array.tolist() == [[1], [256]]


@pytest.mark.parametrize("decode", [pyon.decode, pyon_v1.decode])
def test_a_refusal_repeats_nothing(decode: object) -> None:
    """What was read may be outcomes: nor does the error carry another that has them."""
    assert callable(decode)
    with pytest.raises(ControllerNonsense) as caught:
        decode(b'{"status":"ok","ret":[0,1,1,0,"secret"]')
    assert "secret" not in caught.value.message and caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_is_sent_is_json_on_one_line() -> None:
    line = pyon.encode({"args": ["a\nb", 1, None, True, 1.5, (1, 2)]})
    assert line == b'{"args":["a\\nb",1,null,true,1.5,[1,2]]}\n'
    assert pyon_v1.decode(line) == pyon.decode(line) == json.loads(line)
    with pytest.raises(HardwareError, match="longer"):
        pyon.encode("x" * LINE_BYTES_MAX)
