"""Chance from a hardware generator: read ahead by a thread, tested without end, never replaced.

Rules
  1. No byte is drawn that did not pass the health tests (`noise_tests`), and the first
     `START_UP_BYTES` only show that the generator works: they are thrown away.
  2. Once a test failed, or the generator ended, every draw fails.  There is no second source to
     fall back to: a node that cannot draw settings stops, and its supervisor starts it anew, which
     begins with the start-up test.
  3. Only a character device or a named pipe is read: a file would say the same again after a
     restart, and settings that were used before are settings that a device may know.
  4. Mixed by exclusive or with the operating system's generator, a byte is at least as
     unpredictable as either of the two, as they are independent.

A draw takes from the bytes read ahead.  It waits, and with it the event loop, only if they are
used up, at most `DRAW_SECONDS_MAX`; then it fails.  A round takes 17 bits (16 make it a test or
not, one is its setting), which is 47,000 rounds a second from 100 kB/s; a session draws the seed of
its privacy amplification besides, less than is read ahead for sessions of the default length.
"""

import os
import select
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bellhop.hal.errors import ConfigError
from bellhop.node.noise_tests import (
    START_UP_SAMPLES,
    WINDOW,
    NoiseTests,
    RandomnessFailed,
    ReplayTest,
)

CHUNK_BYTES = 8 * WINDOW
"""What is read, tested and kept at once."""

START_UP_BYTES = CHUNK_BYTES
assert START_UP_BYTES >= START_UP_SAMPLES, "as the standard asks"

AHEAD_BYTES_MAX = 2**20
"""No more is kept ahead of what is drawn."""

START_SECONDS_MAX = 10.0
"""How long the start-up test may take."""

DRAW_SECONDS_MAX = 5.0
"""How long a draw may wait for a generator that is too slow."""

POLL_MS = 200
"""How soon the thread sees that it is to end while a pipe is silent."""

FIELD = "randomness.path"

HEALTH = (
    "NIST SP 800-90B: repetition count and adaptive proportion, at the start and on every byte; "
    "no chunk twice"
)
"""What a receipt says of the tests that ran."""


class DeviceRng:
    """The generator at a path.  Its children are itself: its draws never repeat."""

    def __init__(
        self,
        path: Path,
        entropy_bits: float,
        mix_os: bool,
        start_seconds: float = START_SECONDS_MAX,
        draw_seconds: float = DRAW_SECONDS_MAX,
        system: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Waits for the start-up test.

        `entropy_bits`: the min-entropy a byte that is claimed, above 0 and at most 8.
        Raises ConfigError for a path that cannot be read, RandomnessFailed for a failed test.
        """
        self.source = f"the device {path}"
        if mix_os:
            self.source += ", exclusive or the operating system's generator"
        self.health = HEALTH
        self._path = path
        self._mixed_with = system if mix_os else None
        self._draw_seconds = draw_seconds
        self._tests = NoiseTests(entropy_bits)
        self._replay = ReplayTest()
        self._ahead = bytearray()
        self._read_bytes = 0
        self._started = False
        self._failure = ""
        self._closed = False
        self._changed = threading.Condition()
        descriptor = _opened(path)
        self._thread = threading.Thread(
            target=self._read_ahead, args=(descriptor,), name="randomness", daemon=True
        )
        self._thread.start()
        with self._changed:
            if not self._changed.wait_for(lambda: self._started or self._failure, start_seconds):
                self._failure = f"{path} did not give {START_UP_BYTES} bytes in {start_seconds:g} s"
                self._changed.notify_all()
            self._require_sound()

    def child(self, *names: str | int) -> "DeviceRng":
        return self

    def draw(self, count: int) -> bytes:
        """`count` bytes that passed the tests.  Raises RandomnessFailed.

        Waits for the generator at most as long as the module says.
        """
        drawn = self._taken(count)
        if self._mixed_with is None:
            return drawn
        system = np.frombuffer(self._mixed_with(count), dtype=np.uint8)
        return (np.frombuffer(drawn, dtype=np.uint8) ^ system).tobytes()

    def status(self) -> dict[str, str | int]:
        """How it is, without secrets."""
        with self._changed:
            return {
                "source": self.source,
                "read_bytes": self._read_bytes,
                "ahead_bytes": len(self._ahead),
                "failure": self._failure,
            }

    def close(self) -> None:
        """Read no more.  A read that hangs in a device is left to the end of the process."""
        with self._changed:
            self._closed = True
            self._failure = self._failure or "closed"
            self._changed.notify_all()
        self._thread.join(5 * POLL_MS / 1000)

    def _taken(self, count: int) -> bytes:
        taken = bytearray()
        deadline = time.monotonic() + self._draw_seconds
        with self._changed:
            self._require_sound()
            while len(taken) < count:
                left = deadline - time.monotonic()
                if not self._changed.wait_for(lambda: self._ahead or self._failure, left):
                    raise RandomnessFailed(
                        f"the random number generator {self._path} is too slow: it gave"
                        f" {len(taken)} of {count} bytes in {self._draw_seconds:g} s"
                    )
                self._require_sound()
                part = self._ahead[: count - len(taken)]
                taken += part
                del self._ahead[: len(part)]
                self._changed.notify_all()
        return bytes(taken)

    def _require_sound(self) -> None:
        if self._failure:
            raise RandomnessFailed(self._failure)

    def _read_ahead(self, descriptor: int) -> None:
        try:
            self._read_all(descriptor)
        except RandomnessFailed as error:
            self._fail(error.message)
        except OSError as error:
            self._fail(f"the random number generator {self._path} failed: {error.strerror}")
        finally:
            os.close(descriptor)

    def _fail(self, why: str) -> None:
        with self._changed:
            self._failure = self._failure or why
            self._ahead.clear()
            self._changed.notify_all()

    def _read_all(self, descriptor: int) -> None:
        while (chunk := self._chunk(descriptor)) is not None:
            self._tests.check(np.frombuffer(chunk, dtype=np.uint8))
            self._replay.check(chunk)
            with self._changed:
                self._read_bytes += len(chunk)
                if self._started:
                    self._changed.wait_for(self._has_room)
                    self._ahead += chunk
                self._started = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._closed or len(self._ahead) + CHUNK_BYTES <= AHEAD_BYTES_MAX

    def _chunk(self, descriptor: int) -> bytes | None:
        """The next bytes, a chunk of them; None if no more are wanted."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        chunk = bytearray()
        while len(chunk) < CHUNK_BYTES:
            if self._closed or self._failure:
                return None
            if not poll.poll(POLL_MS):
                continue
            try:
                part = os.read(descriptor, CHUNK_BYTES - len(chunk))
            except BlockingIOError:
                continue
            if not part:
                raise RandomnessFailed(f"the random number generator {self._path} ended")
            chunk += part
        return bytes(chunk)


def _opened(path: Path) -> int:
    """A descriptor to read from.  Raises ConfigError."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
            raise ConfigError(
                f"{FIELD}: {path} is neither a character device nor a named pipe; a file would give"
                " the same settings again after a restart",
                FIELD,
            )
        # Opening a pipe must not wait for whoever writes to it; reading waits by itself.
        waits = os.O_NONBLOCK if stat.S_ISFIFO(mode) else 0
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | waits)
    except OSError as error:
        raise ConfigError(f"{FIELD}: {path} cannot be read: {error.strerror}", FIELD) from error
