"""What the auditor reads from: one moment of a database, SQLite or PostgreSQL, by the same statements.

Owns the few words in which the two differ. It only ever reads, row by row, and shares nothing with what writes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from hive_core_db.audit.finding import Finding, fact
from hive_core_db.url import SqliteUrl, parse
from hive_errors.store import LogCorrupt, StoreUnavailable

if TYPE_CHECKING:
    from hive_core_db.postgres.session import Session


class Snapshot(Protocol):
    """One moment of a database.

    Guarantees:
        Every statement sees the same moment, however much is written meanwhile. Rows come
        one by one, so memory does not grow with the log.
    """

    @property
    def bytes_of(self) -> str:
        """An expression that gives a text's UTF-8 bytes, with ``{}`` for the text."""
        ...

    @property
    def text_of(self) -> str:
        """An expression that gives the text of UTF-8 bytes, with ``{}`` for the bytes."""
        ...

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield what a statement finds; its values stand as ``?``."""
        ...


class SqliteSnapshot:
    """The port `Snapshot` on a connection whose transaction has begun."""

    bytes_of: Final = "CAST({} AS BLOB)"
    text_of: Final = "CAST({} AS TEXT)"

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield what a statement finds."""
        for row in self._db.execute(query, values):  # noqa: UP028 - `yield from` would close the cursor of a database that is closed
            yield row


class Damaged(Exception):
    """The database itself cannot read what it holds."""

    def __init__(self, reason: str, *, reader: str) -> None:
        super().__init__(reason)
        self.reader = reader

    def finding(self) -> Finding:
        """Say so as a finding."""
        return fact("file-damaged", "file", f"{self.reader} cannot read it", "a sound file", str(self))


class PostgresSnapshot:
    """The port `Snapshot` on a session whose transaction has begun: repeatable read, read only."""

    bytes_of: Final = "convert_to({}, 'UTF8')"
    text_of: Final = "convert_from({}, 'UTF8')"

    def __init__(self, session: Session) -> None:
        self._session = session

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield what a statement finds, through a cursor."""
        numbers = count(1)
        yield from self._session.rows(re.sub(r"\?", lambda _: f"${next(numbers)}", query), *values)


@contextmanager
def opened(source: str | sqlite3.Connection) -> Iterator[Snapshot]:
    """Open a snapshot of an address; of a connection, what it sees.

    Raises:
        UnsupportedUrl, StoreUnavailable: There is nothing to read.
        Damaged: The database cannot read its own pages.
    """
    if isinstance(source, sqlite3.Connection):
        with _damage_told():
            yield SqliteSnapshot(source)
        return
    address = parse(source)
    if isinstance(address, SqliteUrl):
        with _sqlite(address.path) as db, _damage_told():
            yield SqliteSnapshot(db)
        return

    from hive_core_db.postgres.session import Session

    with Session(address) as session, _damage_told():
        session.begin(isolation="repeatable_read", readonly=True)
        yield PostgresSnapshot(session)


@contextmanager
def _sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise StoreUnavailable(url=str(path), reason="there is no such file")
    # Read only: an audit must not even make the files beside it.
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=60.0, isolation_level=None)) as db:
        db.execute("BEGIN")
        yield db


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise Damaged(str(error), reader="SQLite") from error
    except LogCorrupt as error:
        raise Damaged(error.reason, reader="PostgreSQL") from error
