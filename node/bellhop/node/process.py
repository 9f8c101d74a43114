"""What the operating system is told about a process that holds secrets (Linux)."""

import ctypes
import os
import resource
import signal
import socket

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """No core file, and no other process of this user may read this one's memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(parent: int) -> None:
    """Be killed when the process `parent`, which started this one, ends for whatever reason."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask
        os.kill(os.getpid(), signal.SIGKILL)


def limit_memory(size_bytes: int) -> None:
    """Let an allocation fail beyond `size_bytes` of private memory.

    RLIMIT_DATA, not RLIMIT_AS: libraries reserve address space that they never use.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))


def give_memory_back() -> None:
    """Return freed memory to the system, where the C library can (malloc_trim(3), glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def notify_supervisor(state: str) -> None:
    """Tell systemd, if it started this process and waits for it (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.sendall(state.encode())


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")
