"""The trace of a simulation: a hash of all that happened, equal for equal seeds anywhere."""

import hashlib
from dataclasses import fields, is_dataclass
from enum import Enum

import numpy as np

from bellhop.hal.operations import NodeName


class Trace:
    """SHA-256 over (time, node, what happened); contents go in, only the hash comes out."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.entries = 0

    def add(self, now_ns: int, node: NodeName, happened: object) -> None:
        self._hash.update(b"%d %s " % (now_ns, node.encode()))
        self._hash.update(canonical(happened))
        self.entries += 1

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def canonical(value: object) -> bytes:
    """Bytes of a value of events, actions and messages; dictionaries by key, arrays by content."""
    if is_dataclass(value):
        inner = b",".join(canonical(getattr(value, item.name)) for item in fields(value))
        return type(value).__name__.encode() + b"(" + inner + b")"
    if isinstance(value, np.ndarray):
        return str(value.dtype).encode() + hashlib.sha256(value.tobytes()).digest()
    if isinstance(value, Enum):
        return str(value.value).encode()
    if isinstance(value, dict):
        return b";".join(
            canonical(key) + b":" + canonical(value[key]) for key in sorted(value, key=str)
        )
    if isinstance(value, tuple | list):
        return b"[" + b",".join(canonical(item) for item in value) + b"]"
    return value if isinstance(value, bytes) else repr(value).encode()
