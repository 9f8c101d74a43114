"""The key store's file, and works done on it: several in one transaction, durable when it returns.

Rules.  A work is a function of a `Transaction`.  Works that are committed together stand or fall
alone: each has a savepoint, and one that raises is undone without the others.  A failure of the
disk, or a value that cannot be opened, breaks the store: everything is rolled back, and nothing is
answered any more until the daemon has been started anew.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from bellhop.hal.errors import KeyStoreError
from bellhop.hal.operations import NodeName
from bellhop.node.keystore.schema import connect, lock
from bellhop.node.keystore.vault import Seal

T = TypeVar("T")

BURNS_A_CHECKPOINT: Final = 4096
"""Keys erased before the write-ahead log is truncated without waiting for a pause."""


@dataclass(slots=True)
class Transaction:
    """What a work may use.  `burns` counts the sealed values that it has erased."""

    sql: sqlite3.Connection = field(repr=False)
    keys: Seal = field(repr=False)
    facts: Seal = field(repr=False)
    node: NodeName
    now_ns: int
    burns: int = 0


Work = Callable[[Transaction], T]


@dataclass(frozen=True, slots=True)
class Done:
    """What a work returned, durable."""

    result: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """What a work raised; nothing of it remains in the store."""

    error: Exception = field(repr=False)


class Database:
    """The open file.  Belongs to the thread that opened it."""

    def __init__(
        self, state_dir: Path, kek: bytes, node: NodeName, now_ns: Callable[[], int]
    ) -> None:
        """Raises as `lock` and `connect`."""
        with ExitStack() as undo:
            self._lock: BinaryIO = undo.enter_context(lock(state_dir))
            self._sql, self._keys, self._facts = connect(state_dir, kek, node)
            undo.pop_all()
        self._node = node
        self._now_ns = now_ns
        self._broken: KeyStoreError | None = None
        self.burns_in_log = 0
        """Erased values whose old form the write-ahead log may still have."""

    def run(self, work: Work[T]) -> T:
        """One work in a transaction of its own."""
        outcome = self.run_together([work])[0]
        if isinstance(outcome, Failed):
            raise outcome.error
        return outcome.result  # type: ignore[return-value]  # Done holds what its work returned

    def run_together(self, works: Sequence[Work[object]]) -> list[Done | Failed]:
        """Several works, in order, in one transaction.  Raises KeyStoreError if the disk fails."""
        self._refuse_if_broken()
        transaction = Transaction(self._sql, self._keys, self._facts, self._node, self._now_ns())
        try:
            self._sql.execute("BEGIN IMMEDIATE")
            outcomes = [_run_alone(work, transaction) for work in works]
            self._sql.execute("COMMIT")
        except (sqlite3.Error, KeyStoreError) as error:
            raise self._break(error) from None
        self.burns_in_log += transaction.burns
        if self.burns_in_log >= BURNS_A_CHECKPOINT:
            self.checkpoint()
        return outcomes

    def checkpoint(self) -> None:
        """Empty the write-ahead log, so that erased values are in no file of the store."""
        self._refuse_if_broken()
        try:
            (busy, _, _) = self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise self._break(error) from None
        assert not busy, "nobody else reads this file"
        self.burns_in_log = 0

    def close(self) -> None:
        """Empty the log and give the folder free.  A broken store is closed as it is."""
        try:
            if self._broken is None:
                self.checkpoint()
        finally:
            self._sql.close()
            self._lock.close()

    def _refuse_if_broken(self) -> None:
        if self._broken is not None:
            raise KeyStoreError(self._broken.message, **self._broken.fields)

    def _break(self, error: sqlite3.Error | KeyStoreError) -> KeyStoreError:
        if isinstance(error, KeyStoreError):
            self._broken = error
        else:
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            self._broken = KeyStoreError(
                f"the key store cannot go on: {error} ({name}); see to the disk, then start again",
                sqlite=name,
            )
        if self._sql.in_transaction:
            self._roll_back()
        return self._broken

    def _roll_back(self) -> None:
        try:
            self._sql.execute("ROLLBACK")
        except sqlite3.Error:
            return  # the log has no commit of it: it is as good as rolled back at the next opening


def _run_alone(work: Work[object], transaction: Transaction) -> Done | Failed:
    burns = transaction.burns
    transaction.sql.execute("SAVEPOINT work")
    try:
        outcome: Done | Failed = Done(work(transaction))
    except (sqlite3.Error, KeyStoreError):
        raise
    except Exception as error:  # noqa: BLE001 - handed to whoever asked for this work; the others go on
        transaction.sql.execute("ROLLBACK TO work")
        transaction.burns = burns
        outcome = Failed(error)
    transaction.sql.execute("RELEASE work")
    return outcome
