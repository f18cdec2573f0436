"""Opening a SQLite file, making a new one, and saying in the hive's words what went wrong.

Owns pragmas, the schema check and the translation of driver errors. Knows no ports.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hive_core_db.revision import APPLICATION_ID, HEAD, REVISIONS
from hive_core_db.sqlite import identity
from hive_core_db.sqlite.lock import Connection, begin, commit, patiently, primary_code
from hive_core_db.url import SqliteUrl
from hive_errors.store import (
    LogCorrupt,
    NotADatabase,
    SchemaOutdated,
    SchemaTooNew,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

DDL = Path(__file__).parent.parent / "ddl" / "sqlite.sql"
BUSY_TIMEOUT = 60.0
# Pages in KiB (negative: memory, not count); they are taken only as they are used.
WRITER_CACHE = -32_000
READER_CACHE = -8_000
# The write-ahead log is folded back when it is larger (bytes).
WAL_LIMIT = 16 * 1024 * 1024
# A checkpoint that readers hold up is not worth more waiting than this (milliseconds): it comes again.
CHECKPOINT_PATIENCE = 250

# What tells an empty file, ours and another program's apart.
REVISION_FACTS = """
SELECT (SELECT application_id FROM pragma_application_id), count(*), coalesce(sum(name = 'alembic_version'), 0)
FROM sqlite_master WHERE type = 'table'"""
USE_WAL = "PRAGMA journal_mode=WAL"

Now = Callable[[], int]


def connect(
    url: SqliteUrl,
    *,
    busy_timeout: float = BUSY_TIMEOUT,
    durable: bool = True,
    create: bool = False,
    cache: int = READER_CACHE,
    writer: bool = False,
) -> sqlite3.Connection:
    """Open the file with the pragmas that every connection of ours has; a ``writer`` waits for the lock in its turn."""
    db = sqlite3.connect(
        f"{url.path.as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=Connection,
    )
    try:
        db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        # Before SQLite 3.51.3 a passive checkpoint that races a commit can corrupt the file; we run TRUNCATE ourselves.
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute(f"PRAGMA cache_size={cache}")
        db.execute("PRAGMA temp_store=MEMORY")
        if writer:
            db.wait_in_turn(busy_timeout)
    except BaseException:
        db.close()
        raise
    return db


def prepare(db: sqlite3.Connection, url: SqliteUrl, *, name: str, now: Now, create: bool, busy_timeout: float) -> None:
    """Make the schema in an empty file, check it in any other; a copy begins a new epoch.

    Raises:
        NotADatabase: The file is another program's.
        SchemaOutdated: It must be upgraded first.
        SchemaTooNew: A newer version wrote it.
    """
    # As a whole, for a writer waits by itself where it begins a transaction only, and SQLite never waits to change to WAL.
    patiently(lambda: _prepare(db, url, name=name, now=now, create=create), busy_timeout)


def _prepare(db: sqlite3.Connection, url: SqliteUrl, *, name: str, now: Now, create: bool) -> None:
    if not check(db, url):
        if not create:
            raise NotADatabase(url=str(url), reason="it is empty")
        db.execute(USE_WAL)
        with immediate(db):
            # Two processes may find the file empty; the one that gets the lock second finds it made.
            if not check(db, url):
                _make(db, name, now)
    elif _journal_mode(db) != "wal":
        db.execute(USE_WAL)
    if identity.is_missing(db):
        with immediate(db):
            # Of several processes that open a copy, the one that gets the lock first begins the epoch.
            identity.settle(db, now())


def check(db: sqlite3.Connection, url: SqliteUrl) -> bool:
    """Return whether the file holds our schema (False: it is empty), or raise why it cannot be used."""
    found = revision_of(db, url)
    if found is None:
        return False
    if found == HEAD:
        return True
    outcome = SchemaOutdated if found in REVISIONS else SchemaTooNew
    raise outcome(url=str(url), found=found, wanted=HEAD)


def revision_of(db: sqlite3.Connection, url: SqliteUrl) -> str | None:
    """Return the schema revision of the file, None if it is empty."""
    # One snapshot: between two statements another process may make the schema.
    application, tables, revision = db.execute(REVISION_FACTS).fetchone()
    if not tables:
        return None
    if application != APPLICATION_ID or not revision:
        raise NotADatabase(url=str(url), reason="it is a SQLite file of another program")
    row = db.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _make(db: sqlite3.Connection, name: str, now: Now) -> None:
    for statement in statements(DDL.read_text(encoding="utf-8")):
        db.execute(statement)
    db.execute("INSERT INTO alembic_version (version_num) VALUES (?)", (HEAD,))
    first_epoch(db, name, now())
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")


def first_epoch(db: sqlite3.Connection, name: str, now: int) -> None:
    """Give a new log its identity: a random id of its own and epoch 1."""
    db.execute(
        "INSERT INTO log_meta (id, name, log_id, epoch, database_id, first_position, created_at) VALUES (1, ?, ?, 1, ?, 1, ?)",
        (name, secrets.token_hex(16), secrets.token_hex(16), now),
    )
    db.execute(
        "INSERT INTO epochs (epoch, epoch_id, first_position, began_at, reason) VALUES (1, ?, 1, ?, 'the log was made')",
        (secrets.token_hex(16), now),
    )


def statements(script: str) -> Iterator[str]:
    """Split a script into its statements (a trigger holds semicolons of its own)."""
    waiting = ""
    for line in script.splitlines(keepends=True):
        if line.startswith("--"):
            continue
        waiting += line
        if sqlite3.complete_statement(waiting):
            if waiting.strip():
                yield waiting
            waiting = ""


def _journal_mode(db: sqlite3.Connection) -> str:
    return str(db.execute("PRAGMA journal_mode").fetchone()[0])


@contextmanager
def immediate(db: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock from the first statement on; commit at the end, roll back on any error."""
    begin(db)
    try:
        yield
        commit(db)
    except BaseException:
        # A full disk may have ended the transaction already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def fold_wal(db: sqlite3.Connection, wal: Path, limit: int) -> int:
    """Fold the write-ahead log back if it is larger than ``limit`` bytes; return the next limit."""
    try:
        size = os.stat(wal).st_size  # noqa: PTH116 - after every write; a Path costs twice as much
    except FileNotFoundError:
        return WAL_LIMIT
    if size <= limit:
        return limit
    usual = db.execute("PRAGMA busy_timeout").fetchone()[0]
    db.execute(f"PRAGMA busy_timeout={CHECKPOINT_PATIENCE}")
    try:
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if primary_code(error) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
            raise
        # Everything is still in the log: a later fold brings it home.
        busy = 1
    finally:
        db.execute(f"PRAGMA busy_timeout={usual}")
    return size + WAL_LIMIT if busy else WAL_LIMIT


def translate(error: sqlite3.Error, url: SqliteUrl, busy_timeout: float) -> StoreError:
    """Say in the hive's words what the driver reported."""
    match primary_code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(url=str(url), waited=busy_timeout)
        case sqlite3.SQLITE_FULL:
            return StoreFull(url=str(url), reason=str(error))
        case sqlite3.SQLITE_IOERR if _disk_is_full(url):
            return StoreFull(url=str(url), reason=str(error))
        case sqlite3.SQLITE_NOTADB:
            return NotADatabase(url=str(url), reason="its first bytes are not those of a SQLite file")
        case sqlite3.SQLITE_CORRUPT:
            return LogCorrupt(position=0, reason=str(error))
        case _:
            return StoreUnavailable(url=str(url), reason=str(error))


def _disk_is_full(url: SqliteUrl) -> bool:
    # Growing the shared index of the write-ahead log on a full disk is reported as an I/O error.
    try:
        room = os.statvfs(url.path.parent)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < 64 * 1024
