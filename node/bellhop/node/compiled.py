"""Where a worker keeps compiled loops: beside the program, or with the node's state.

numba compiles the decoder and the hash once, for seconds, and keeps what it made. Beside the
program is best, for all nodes of a machine share it. A program that is installed where its user
may not write (a system package, a read-only image) keeps it in the node's state; numba's own way
out, the home directory, is one that a service's user often lacks, and then it does not even load.

What is kept is loaded as code. The node's state belongs to the node's user alone (0700), which is
checked at start; beside the program only the program's owner may write.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import bellhop.stack.diqkd as compiled_package

NUMBA_CACHE = "NUMBA_CACHE_DIR"
FOLDER = "compiled"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
"""A job has one core, and libraries that start a thread for each core of a large machine want
memory for each beforehand."""


def worker_environment(
    state_dir: Path, environment: Mapping[str, str] | None = None, package: Path | None = None
) -> dict[str, str]:
    """What a worker is started with; what the operator has set stays.

    `environment` is this process's unless given, `package` where the compiled modules lie.
    """
    chosen = {**ONE_THREAD, **(os.environ if environment is None else environment)}
    if NUMBA_CACHE not in chosen and not _may_write_beside(package or _package()):
        chosen[NUMBA_CACHE] = str((state_dir / FOLDER).absolute())
    return chosen


def _package() -> Path:
    assert compiled_package.__file__ is not None, "a package with an __init__"
    return Path(compiled_package.__file__).parent


def _may_write_beside(package: Path) -> bool:
    """Whether numba can write to the package's __pycache__, or make it."""
    cache = package / "__pycache__"
    return os.access(cache if cache.exists() else package, os.W_OK | os.X_OK)
