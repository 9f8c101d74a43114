"""PYON v1, as controllers of ARTIQ 8 and earlier write it: a parser of its own, no evaluation.

Python's notation of numbers, bytes, lists, tuples, sets and dictionaries; JSON's of text; `null`,
`true`, `false`, `inf`, `nan`; and calls of Fraction, OrderedDict, nparray and npscalar.
"""

import json
import re

from bellhop.hal.drivers.pyon import (
    DEPTH_MAX,
    ControllerNonsense,
    check_length,
    construct,
    make_dict,
    make_set,
)

_NUMBER = r"(?:\d+\.\d*|\.\d+|\d+)(?:e[+-]?\d+)?"
_TOKEN = re.compile(
    r"[ \t\r\n]*(?:"
    r"(?P<mark>[][(){},:])"
    rf"|(?P<imaginary>-?{_NUMBER}j)"
    rf"|(?P<complex>-?{_NUMBER}[+-]{_NUMBER}j)"
    r"|(?P<integer>-?\d+(?![\d.e]))"
    rf"|(?P<real>-?(?:{_NUMBER}|inf|nan))"
    r'|(?P<text>"(?:[^"\\]|\\.)*")'
    r"""|(?P<bytes>b(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))"""
    r"|(?P<name>[A-Za-z_]{1,32})"
    r"|(?P<end>\Z))",
    re.ASCII,
)
_BYTES = re.compile(r"""(?:[ -\[\]-~]|\\x[0-9a-fA-F]{2}|\\[nrt\\'"])*""")
_ESCAPE = re.compile(r"""\\(?:x([0-9a-fA-F]{2})|([nrt\\'"]))""")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
_CONSTANTS = {"null": None, "true": True, "false": False}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_CALLS = frozenset(("Fraction", "OrderedDict", "nparray", "npscalar"))


def decode(line: bytes) -> object:
    """The value of a line of PYON v1, of the types that `pyon.decode` gives.

    Raises ControllerNonsense for anything else.
    """
    check_length(line)
    try:
        reader = _Reader(line.decode("ascii"))
        value = reader.value(0)
        reader.expect_end()
    except ValueError:
        # Of text that is not ASCII, of escapes that are none, and of numbers too long to read.
        raise ControllerNonsense("a line is no PYON v1") from None
    return value


class _Reader:
    """Reads a text from left to right, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._kind = ""
        self._token = ""
        self._advance()

    def value(self, depth: int) -> object:
        if depth > DEPTH_MAX:
            raise ControllerNonsense(f"PYON is nested deeper than {DEPTH_MAX}")
        kind, token = self._kind, self._token
        self._advance()
        match kind:
            case "integer":
                return int(token)
            case "real":
                return float(token)
            case "imaginary" | "complex":
                return complex(token)
            case "text":
                return json.loads(token, strict=False)
            case "bytes":
                return _bytes(token)
            case "name":
                return self._named(token, depth)
            case "mark" if token in _CLOSING:
                return self._compound(token, depth)
        raise ValueError(kind)

    def expect_end(self) -> None:
        if self._kind != "end":
            raise ValueError(self._kind)

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            raise ValueError("token")
        self._at, self._kind = match.end(), match.lastgroup
        self._token = match[match.lastgroup]

    def _taken(self, mark: str) -> bool:
        if self._kind == "mark" and self._token == mark:
            self._advance()
            return True
        return False

    def _named(self, name: str, depth: int) -> object:
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if not self._taken("("):
            raise ValueError("name")
        arguments = self._items(")", depth)[0]
        if name not in _CALLS:
            raise ControllerNonsense("PYON of a type that is not taken")
        return construct(name, arguments)

    def _compound(self, opening: str, depth: int) -> object:
        if opening == "{":
            return self._braced(depth)
        items, comma = self._items(_CLOSING[opening], depth)
        if opening == "[":
            return items
        return items[0] if len(items) == 1 and not comma else tuple(items)

    def _items(self, closing: str, depth: int) -> tuple[list[object], bool]:
        """What stands up to `closing`, and whether a comma stood before that."""
        items: list[object] = []
        comma = False
        while not self._taken(closing):
            if items and not comma:
                raise ValueError("comma")
            items.append(self.value(depth + 1))
            comma = self._taken(",")
        return items, comma

    def _braced(self, depth: int) -> object:
        """A dictionary, as an empty one too, or a set: the first colon tells."""
        if self._taken("}"):
            return {}
        first = self.value(depth + 1)
        if not self._taken(":"):
            if self._taken("}"):
                return make_set([first])
            if not self._taken(","):
                raise ValueError("comma")
            return make_set([first, *self._items("}", depth)[0]])
        pairs = [(first, self.value(depth + 1))]
        while not self._taken("}"):
            if not self._taken(","):
                raise ValueError("comma")
            if self._taken("}"):
                break
            key = self.value(depth + 1)
            if not self._taken(":"):
                raise ValueError("colon")
            pairs.append((key, self.value(depth + 1)))
        return make_dict(pairs)


def _bytes(token: str) -> bytes:
    content = token[2:-1]
    if _BYTES.fullmatch(content) is None:
        raise ValueError("bytes")

    def unescaped(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        return _ESCAPED.get(match[2], match[2])

    return _ESCAPE.sub(unescaped, content).encode("latin-1")
