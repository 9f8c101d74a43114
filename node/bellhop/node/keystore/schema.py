"""The tables of the key store and the opening of its file.

Rules.  One process at a time, and one connection in it.  A commit is on the disk when it returns
(synchronous=FULL); what is deleted is overwritten (secure_delete), in the write-ahead log too once
it is truncated.  A key's row is never deleted: without its bytes it is the record of who had it.
"""

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import BinaryIO, Final

from bellhop.hal.errors import ConfigError, KeyStoreError
from bellhop.hal.operations import NodeName
from bellhop.node.keystore.vault import Seal, new_seal

SCHEMA_VERSION: Final = 1
DATABASE_NAME: Final = "keystore.sqlite3"
LOCK_NAME: Final = "keystore.lock"

_START_ANEW: Final = (
    "look after the disk, then start with an empty state folder and a new pool; an older copy of "
    "the folder would hand out keys again"
)

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;

CREATE TABLE facts (name TEXT PRIMARY KEY, sealed BLOB NOT NULL) STRICT;

CREATE TABLE blocks (
    block INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL UNIQUE,
    peer TEXT NOT NULL,
    source TEXT NOT NULL,
    receipt TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'deliverable', 'spent', 'void')),
    own_slots INTEGER NOT NULL,
    peer_slots INTEGER NOT NULL,
    dek BLOB,
    stored_ns INTEGER NOT NULL,
    void_why TEXT NOT NULL DEFAULT '',
    CHECK (dek IS NULL OR state IN ('held', 'deliverable'))
) STRICT;
CREATE INDEX blocks_of_peer ON blocks (peer, state, block);

CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    block INTEGER NOT NULL REFERENCES blocks,
    slot INTEGER NOT NULL,
    own INTEGER NOT NULL CHECK (own IN (0, 1)),
    state TEXT NOT NULL CHECK (state IN ('free', 'allocated', 'delivered', 'void')),
    sealed BLOB,
    lead INTEGER,          -- the slot whose key id names the key that this slot was joined into
    size_bits INTEGER,
    master TEXT,
    slave TEXT,
    done_ns INTEGER,
    UNIQUE (block, slot),
    CHECK ((state IN ('delivered', 'void')) = (sealed IS NULL)),
    CHECK ((sealed IS NULL) = (done_ns IS NOT NULL)),
    CHECK (own = 0 OR state <> 'allocated'),
    CHECK (state NOT IN ('allocated', 'delivered') OR lead IS NOT NULL OR slave IS NOT NULL)
) STRICT;
CREATE INDEX keys_live ON keys (block, own, state, slot) WHERE sealed IS NOT NULL;

CREATE TABLE outbox (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id TEXT NOT NULL UNIQUE REFERENCES keys,
    peer TEXT NOT NULL
) STRICT;
CREATE INDEX outbox_of_peer ON outbox (peer, place);
"""


def lock(state_dir: Path) -> BinaryIO:
    """Take the folder for this process until the file is closed.

    A record lock (fcntl) and not flock: a worker process must not keep it when its daemon is
    killed.  Raises ConfigError naming the file if another process has it.
    """
    path = state_dir / LOCK_NAME
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    except OSError as error:
        raise ConfigError(
            f"cannot use {path}: {error.strerror or error}", field="node.state_dir"
        ) from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise _in_use(path) from error
    return file


def connect(state_dir: Path, kek: bytes, node: NodeName) -> tuple[sqlite3.Connection, Seal, Seal]:
    """Open or create the store: the connection, the seal of data keys and that of facts.

    Raises KeyStoreError for a newer store, another key-encryption key or a damaged file, and
    ConfigError if the store is in use or that of another node.
    """
    path = state_dir / DATABASE_NAME
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise KeyStoreError(f"cannot open {path}: {error.strerror or error}") from error
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        _configure(connection, path)
        _check(connection, path)
        return connection, *_open_seals(connection, new_seal(kek), node, path)
    except sqlite3.Error as error:
        connection.close()
        if error.sqlite_errorname.startswith("SQLITE_BUSY"):
            raise _in_use(path) from error
        raise KeyStoreError(
            f"cannot open the key store {path}: {error}; {_START_ANEW}",
            sqlite=error.sqlite_errorname,
        ) from error
    except (KeyStoreError, ConfigError):
        connection.close()
        raise


def _in_use(path: Path) -> ConfigError:
    return ConfigError(
        f"another process uses the key store: {path} is locked; one node, one daemon",
        field="node.state_dir",
    )


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # before the log: needs no shared memory
    for setting, wanted in (("journal_mode", "wal"), ("secure_delete", 1)):
        (set_to,) = connection.execute(f"PRAGMA {setting} = {wanted}").fetchone()
        if set_to != wanted:
            raise KeyStoreError(f"the disk of {path} does not allow {setting} = {wanted}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise KeyStoreError(
            f"{path} was written by a newer Bellhop (format {version}, this one knows "
            f"{SCHEMA_VERSION}); install that version again",
            format=version,
        )


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a damaged file now, before anything is made of it; 0.2 s for 100,000 keys."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise KeyStoreError(f"{path} is damaged ({found}); {_START_ANEW}")


def _open_seals(
    connection: sqlite3.Connection, kek: Seal, node: NodeName, path: Path
) -> tuple[Seal, Seal]:
    """The two seals after checking them; creates the tables in a new file."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        _create(connection, kek, node)
    connection.execute("COMMIT")
    meta = dict(connection.execute("SELECT name, value FROM meta"))
    if set(meta) != {"node", "check", "facts_key"}:
        raise KeyStoreError(f"{path} is damaged; {_START_ANEW}")
    try:
        kek.open(meta["check"], "check")
    except KeyStoreError:
        raise KeyStoreError(
            f"{path} was sealed under another key-encryption key; put the file with the right "
            "one where keys.key_encryption_key says (its keys cannot be read without it)"
        ) from None
    if meta["node"].decode() != node:
        raise ConfigError(
            f"{path} is the key store of node {meta['node'].decode()!r}, not of {node!r}",
            field="node.name",
        )
    return kek, kek.open_key(meta["facts_key"], "facts_key")


def _create(connection: sqlite3.Connection, kek: Seal, node: NodeName) -> None:
    for statement in _TABLES.split(";"):
        if statement.strip():
            connection.execute(statement)
    meta = {
        "node": node.encode(),
        "check": kek.close(b"", "check"),
        "facts_key": kek.new_key("facts_key")[1],
    }
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
