"""Where a node's chance comes from: the operating system, or a seed where time is virtual.

`device_chance` has the third source, a hardware generator.
"""

import hashlib
import os

import numpy as np

from bellhop.hal.errors import ConfigError
from bellhop.node.clock import Clock
from bellhop.stack.rng import Rng


class OsRng:
    """The operating system's generator.  Its children are itself: its draws never repeat."""

    source = "the operating system's generator"
    health = "the kernel's own; nothing is tested here"

    def child(self, *names: str | int) -> "OsRng":
        return self

    def draw(self, count: int) -> bytes:
        return os.urandom(count)

    def status(self) -> dict[str, str | int]:
        return {"source": self.source}

    def close(self) -> None:
        """Nothing is held open."""


class SeededRng:
    """Repeatable chance, for virtual time only: whoever knows the seed knows every key.

    A child's draws depend on the seed and the names that lead to it, and on nothing else.
    """

    source = "a seeded generator, of a simulation"
    health = "none: whoever knows the seed knows every draw"

    def __init__(self, seed: int, *names: str | int) -> None:
        self._seed = seed
        self._names = names
        digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
        self._generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))

    def child(self, *names: str | int) -> "SeededRng":
        return SeededRng(self._seed, *self._names, *names)

    def draw(self, count: int) -> bytes:
        return self._generator.bytes(count)


def check_chance(rng: Rng, clock: Clock) -> Rng:
    """`rng`, if it may be used under `clock`; ConfigError for a seeded one outside virtual time."""
    if isinstance(rng, SeededRng) and clock is not Clock.VIRTUAL:
        raise ConfigError("a seeded generator is refused outside virtual time", field="seed")
    return rng
