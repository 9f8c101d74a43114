"""The clock of a daemon: real nanoseconds that never step back."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Clock(Enum):
    """Which clock a time was read from; times of different clocks are never compared."""

    REAL = "real"
    SCALED = "scaled"
    VIRTUAL = "virtual"


@dataclass(frozen=True, slots=True)
class ClockReading:
    """A time in nanoseconds and the clock it was read from."""

    nanoseconds: int
    clock: Clock


class NodeClock(Protocol):
    """What tells a shell the time."""

    @property
    def kind(self) -> Clock: ...

    def now_ns(self) -> int: ...


class RealClock:
    """Nanoseconds since the Unix epoch, as far as they can be had without stepping back.

    Deadlines outlive a crash, so they are in synchronised time; but a core's time must not fall.
    When the host's clock is set back this one goes on at half its speed until the other has come
    up to it: stopping would hold every timer for as long as the step was.
    """

    kind = Clock.REAL

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._last_ns = wall_ns()
        self._read_at_ns = monotonic_ns()

    def now_ns(self) -> int:
        monotonic_ns = self._monotonic_ns()
        slow_ns = self._last_ns + (monotonic_ns - self._read_at_ns) // 2
        self._last_ns = max(self._wall_ns(), slow_ns)
        self._read_at_ns = monotonic_ns
        return self._last_ns

    def read(self) -> ClockReading:
        return ClockReading(self.now_ns(), self.kind)
