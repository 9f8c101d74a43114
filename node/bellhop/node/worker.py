"""A worker process: jobs come pickled on stdin, results go pickled to stdout.

Both ends are this program's own; nothing that a peer sent is ever unpickled.  An exception is
reported by its type and its place alone, for its text may show what was computed with.
"""

import os
import pickle
import struct
import sys
import traceback
from dataclasses import dataclass, field
from typing import BinaryIO

from bellhop.node.process import die_with_parent, forbid_dumps, limit_memory

LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Done:
    """What a job gave."""

    result: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a job gave nothing: the type of the exception and where it was raised."""

    why: str


def main() -> None:
    """Work until stdin ends.  Arguments: the parent's process id, most bytes of memory."""
    parent, memory_limit_bytes = (int(argument) for argument in sys.argv[1:])
    forbid_dumps()
    die_with_parent(parent)
    limit_memory(memory_limit_bytes)
    jobs, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the results
    while (data := _next(jobs)) is not None:
        answer = _answer(data)
        del data
        results.write(LENGTH.pack(len(answer)))
        results.write(answer)
        results.flush()


def _next(jobs: BinaryIO) -> bytes | None:
    head = jobs.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = jobs.read(length)
    return data if len(data) == length else None


def _answer(data: bytes) -> bytes:
    try:
        job = pickle.loads(data)  # noqa: S301 - from our own parent
        return pickle.dumps(Done(job.run()), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - the top of the task
        return pickle.dumps(Failed(_described(error)))


def _described(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {os.path.basename(frame.filename)}:{frame.lineno}"
