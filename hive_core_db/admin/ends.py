"""The two ends of a copy: where rows are read from, as of one moment, and the empty place that they go to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from hive_core_db.engine import system_now
from hive_core_db.sqlite.connection import BUSY_TIMEOUT, check, connect, prepare, translate
from hive_core_db.url import PostgresUrl, SqliteUrl, parse
from hive_errors.store import NotADatabase, StoreUnavailable, TargetNotEmpty

if TYPE_CHECKING:
    from hive_core_db.postgres.session import Session

Row = tuple[Any, ...]
_BATCH: Final = 500
# What a log that was only made, and never used, has rows in.
MADE: Final = ("log_meta", "epochs")
# Tables whose rows say that a log was used.
USED: Final = ("events", "topics", "blobs", "consumer_groups", "work", "queues", "view_rows", "leases")


class Source(Protocol):
    """A database to read, as of one moment."""

    def rows(self, query: str) -> Iterator[Row]:
        """Yield what a statement finds, without holding all of it."""
        ...


class Target(Source, Protocol):
    """An empty database to write to; nothing is there until ``finish``."""

    def fill(self, table: str, columns: Sequence[str], rows: Iterator[Row]) -> None:
        """Write rows into a table."""
        ...

    def finish(self) -> None:
        """Make it last: until here everything can be undone."""
        ...


def source_of(url: str) -> AbstractContextManager[Source]:
    """Open a database to copy from."""
    address = parse(url)
    return _sqlite_source(address) if isinstance(address, SqliteUrl) else _postgres_source(address)


def target_of(url: str) -> AbstractContextManager[Target]:
    """Open a new or empty place to copy to. Entering it raises :class:`TargetNotEmpty` where something is there."""
    address = parse(url)
    return _sqlite_target(address) if isinstance(address, SqliteUrl) else _postgres_target(address)


class _SqliteEnd:
    def __init__(self, address: SqliteUrl, db: sqlite3.Connection) -> None:
        self._address = address
        self._db = db

    def __str__(self) -> str:
        return str(self._address)

    def rows(self, query: str) -> Iterator[Row]:
        for row in self._db.execute(query):  # noqa: UP028 - `yield from` would close the cursor of a database that is closed
            yield row

    def fill(self, table: str, columns: Sequence[str], rows: Iterator[Row]) -> None:
        names, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"
        while batch := list(islice(rows, _BATCH)):
            self._db.executemany(statement, batch)

    def finish(self) -> None:
        self._db.execute("COMMIT")
        self._db.execute("PRAGMA optimize")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.close()
        half = _half(self._address)
        with half.path.open("rb+") as written:
            os.fsync(written.fileno())
        half.path.replace(self._address.path)


@contextmanager
def _sqlite_source(address: SqliteUrl) -> Iterator[Source]:
    if not address.path.exists():
        raise StoreUnavailable(url=str(address), reason="there is no such file")
    with _told(address), closing(connect(address)) as db:
        if not check(db, address):
            raise NotADatabase(url=str(address), reason="it is empty")
        db.execute("BEGIN")
        yield _SqliteEnd(address, db)


@contextmanager
def _sqlite_target(address: SqliteUrl) -> Iterator[Target]:
    """A file beside the target that takes its name at the end: a copy that fails leaves nothing."""
    if address.path.exists() and address.path.stat().st_size:
        raise TargetNotEmpty(url=str(address), reason="there is a file already")
    half = _half(address)
    half.path.parent.mkdir(parents=True, exist_ok=True)
    _remove(half)
    try:
        with _told(address), closing(connect(half, create=True, durable=False, cache=-200_000)) as db:
            prepare(db, half, name="hive", now=system_now, create=True, busy_timeout=BUSY_TIMEOUT)
            # Nobody else knows the file, and it is made again if this fails: no journal.
            db.execute("PRAGMA journal_mode=DELETE")
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("BEGIN EXCLUSIVE")
            for table in MADE:
                db.execute(f"DELETE FROM {table}")
            yield _SqliteEnd(address, db)
    finally:
        _remove(half)


def _half(address: SqliteUrl) -> SqliteUrl:
    return SqliteUrl(address.path.with_name(f"{address.path.name}.copying"))


def _remove(address: SqliteUrl) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        address.path.with_name(address.path.name + suffix).unlink(missing_ok=True)


@contextmanager
def _told(address: SqliteUrl) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, address, BUSY_TIMEOUT) from error


class _PostgresEnd:
    def __init__(self, address: PostgresUrl, session: Session) -> None:
        self._address = address
        self._session = session

    def __str__(self) -> str:
        return str(self._address)

    def rows(self, query: str) -> Iterator[Row]:
        return self._session.rows(query)

    def fill(self, table: str, columns: Sequence[str], rows: Iterator[Row]) -> None:
        self._session.copy_in(table, columns, rows)

    def finish(self) -> None:
        self._session.commit()
        # Until it is analysed, the planner knows nothing of what was copied.
        self._session.execute(f"ANALYZE {', '.join((*MADE, *USED))}")


@contextmanager
def _postgres_source(address: PostgresUrl) -> Iterator[Source]:
    from hive_core_db.postgres.connection import check as check_schema
    from hive_core_db.postgres.session import Session

    with Session(address) as session:
        if not session.run(check_schema(session.connection, address)):
            raise NotADatabase(url=str(address), reason="it holds no log")
        session.begin(isolation="repeatable_read", readonly=True)
        yield _PostgresEnd(address, session)


@contextmanager
def _postgres_target(address: PostgresUrl) -> Iterator[Target]:
    """One transaction: a copy that fails leaves the empty log that was made for it."""
    from hive_core_db.postgres.connection import check_server, prepare
    from hive_core_db.postgres.session import Session

    with Session(address) as session:
        session.run(check_server(session.connection, address))
        session.run(prepare(session.connection, address, name="hive", given_now=None, create=True))
        session.begin()
        # Whoever wanted to append to the empty log waits, and is then of an epoch that is over.
        session.execute("SELECT hive_lock_head()")
        for table in USED:
            if session.fetch(f"SELECT 1 FROM {table} LIMIT 1"):
                raise TargetNotEmpty(url=str(address), reason=f"it holds a log with rows in {table}")
        for table in MADE:
            session.execute(f"DELETE FROM {table}")
        yield _PostgresEnd(address, session)
