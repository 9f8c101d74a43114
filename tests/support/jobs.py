"""Jobs for worker processes, in a module that a worker can load."""

import ctypes
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Add:
    """A job that gives a sum."""

    one: int
    other: int
    name: str = "add"

    def run(self) -> object:
        return self.one + self.other


@dataclass(frozen=True)
class Fail:
    """A job that raises with what must not be shown."""

    name: str = "fail"

    def run(self) -> object:
        raise ValueError("secret 0xdeadbeef")


@dataclass(frozen=True)
class Die:
    """A job whose worker is killed, every time or the first time: then `marker` is there."""

    marker: Path | None
    name: str = "die"

    def run(self) -> object:
        if self.marker is not None:
            if self.marker.exists():
                return "second"
            self.marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"


@dataclass(frozen=True)
class Devour:
    """A job that wants more memory than a worker may have."""

    name: str = "devour"

    def run(self) -> object:
        return len(bytearray(2**32))


@dataclass(frozen=True)
class Examine:
    """A job that tells of its process."""

    name: str = "examine"

    def run(self) -> object:
        return (
            resource.getrlimit(resource.RLIMIT_CORE),
            ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),  # PR_GET_DUMPABLE
            os.getppid(),
            " ".join(sys.argv),
        )


@dataclass(frozen=True)
class CompileInto:
    """A job that loads the kernels and tells where their compiled form is kept."""

    name: str = "compile_into"

    def run(self) -> object:
        from numba import njit

        @njit("int64(int64)", cache=True)
        def twice(a: int) -> int:
            return 2 * a

        return twice(21), twice.stats.cache_path
