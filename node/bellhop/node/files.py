"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PUBLIC_MODE = 0o644
SECRET_MODE = 0o600


@contextlib.contextmanager
def atomic_file(path: Path, mode: int = SECRET_MODE, force: bool = False) -> Iterator[BinaryIO]:
    """A new file that gets its name `path`, durably, when the block ends without an exception.

    After an exception nothing is left.  The mode is never wider for a moment.  Raises
    FileExistsError if `path` exists and `force` is not set, also if it came into being meanwhile.
    """
    if not force and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "exists already", str(path))
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".bellhop-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        if force:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike a rename, fails if the name is taken
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_atomically(
    path: Path, content: bytes, mode: int = SECRET_MODE, force: bool = False
) -> None:
    """Write `content` as `atomic_file` does."""
    with atomic_file(path, mode, force) as file:
        file.write(content)


def write_port_file(path: Path, host: str, port: int) -> None:
    """Tell whoever waits for it where a server listens: one line, `host:port`."""
    shown = f"[{host}]" if ":" in host else host
    write_atomically(path, f"{shown}:{port}\n".encode(), PUBLIC_MODE, force=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
