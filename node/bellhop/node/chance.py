"""Where a node's chance comes from: the operating system, or a seed where time is virtual.

`device_chance` has the third source, a hardware generator.
"""

import hashlib
import os
from collections.abc import Callable

import numpy as np

from bellhop.hal.errors import ConfigError
from bellhop.node.clock import Clock
from bellhop.node.noise_tests import (
    CHUNKS_KEPT,
    START_UP_SAMPLES,
    WINDOW,
    NoiseTests,
    RandomnessFailed,
    ReplayTest,
)
from bellhop.stack.rng import Rng

CLAIMED_BITS = 7.0
"""Min-entropy a byte that the tests take the operating system's generator to claim.  It has 8; but
tests for 8 would stop a good one once in 4 GB, these do once in a TB, and see the same breakage."""

PIECE_BYTES = 128 * WINDOW
"""So much is tested at once: a test takes ten times the memory."""

ADVICE = (
    "this machine's keys are not to be trusted, those of its TLS included: run the node on another"
    ' one, or give it a hardware generator, [randomness] with source = "device" and mix_os = false'
)


class OsRng:
    """The operating system's generator, health-tested.  Its children are itself: its draws never
    repeat.

    A draw reads whole windows, has all of them tested, and throws away what was not asked for:
    nothing is drawn that was not tested, and nothing is kept that a copy of this process, or of the
    machine it runs on, would draw again.  Once a test failed every draw fails; nothing takes the
    generator's place.

    The tests see a generator that broke: that sticks, is biased, or starts over.  What the kernel
    gives is conditioned, so a generator whose seed could be guessed passes them all.
    """

    source = "the operating system's generator"
    health = (
        "NIST SP 800-90B: repetition count and adaptive proportion, at the start and on every byte;"
        f" no draw begins as one of {CHUNKS_KEPT:,} before it"
    )

    def __init__(self, system: Callable[[int], bytes] = os.urandom) -> None:
        """Raises RandomnessFailed if it does not pass the start-up test."""
        self._system = system
        self._tests = NoiseTests(CLAIMED_BITS)
        self._replay = ReplayTest()
        self._read_bytes = 0
        self._failure = ""
        self.draw(START_UP_SAMPLES)

    def child(self, *names: str | int) -> "OsRng":
        return self

    def draw(self, count: int) -> bytes:
        """`count` bytes that passed the tests.  Raises RandomnessFailed."""
        if self._failure:
            raise RandomnessFailed(self._failure)
        size = max(1, -(-count // WINDOW)) * WINDOW
        drawn = self._system(size)
        try:
            self._check(drawn)
        except RandomnessFailed as error:
            self._failure = f"{error.message}; {ADVICE}"
            raise RandomnessFailed(self._failure) from None
        self._read_bytes += size
        return drawn[:count]

    def status(self) -> dict[str, str | int]:
        """How it is, without secrets."""
        return {
            "source": self.source,
            "read_bytes": self._read_bytes,
            "failure": self._failure,
        }

    def close(self) -> None:
        """Nothing is held open."""

    def _check(self, drawn: bytes) -> None:
        assert drawn and len(drawn) % WINDOW == 0, "whole windows are read"
        samples = np.frombuffer(drawn, dtype=np.uint8)
        for start in range(0, samples.size, PIECE_BYTES):
            self._tests.check(samples[start : start + PIECE_BYTES])
        self._replay.check(drawn[:WINDOW])


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
