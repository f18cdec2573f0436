"""What people do to a database from outside: upgrade its schema, check it, count what it holds.

Cold code, synchronous, for `hive db`: it may import SQLAlchemy and alembic. Nothing on the hot path imports it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hive_core_db.engine import system_now
from hive_core_db.revision import APPLICATION_ID, HEAD, REVISIONS
from hive_core_db.sqlite.connection import (
    BUSY_TIMEOUT,
    connect,
    first_epoch,
    revision_of,
    translate,
)
from hive_core_db.sqlite.connection import (
    check as check_schema,
)
from hive_core_db.url import SqliteUrl, parse
from hive_errors.store import SchemaTooNew, StoreUnavailable

MIGRATIONS = Path(__file__).parent / "migrations"
_TABLES = ("events", "blobs", "work", "consumer_groups", "partitions", "parked", "leases", "view_rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What an upgrade did: the revision before (None: the file was empty) and after."""

    url: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a database holds: rows per table, the head, and sizes in bytes."""

    url: str
    name: str
    log_id: str
    epoch: int
    head: int
    revision: str
    rows: dict[str, int]
    file_size: int
    wal_size: int


def upgrade(url: str) -> Upgrade:
    """Bring the schema of ``url`` to this version's revision; an empty or missing file becomes a new log.

    Raises:
        SchemaTooNew: A newer version wrote it.
        NotADatabase: It is something else.
    """
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    address = parse(url)
    address.path.parent.mkdir(parents=True, exist_ok=True)
    with _open(address, create=True) as db:
        before = revision_of(db, address)
        if before is not None and before not in REVISIONS:
            raise SchemaTooNew(url=str(address), found=before, wanted=HEAD)
        db.execute("PRAGMA journal_mode=WAL")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(address.path, timeout=BUSY_TIMEOUT), poolclass=NullPool
    )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    with _open(address) as db:
        db.execute("BEGIN IMMEDIATE")
        if db.execute("SELECT 1 FROM log_meta").fetchone() is None:
            first_epoch(db, "hive", system_now())
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute("COMMIT")
    return Upgrade(url=str(address), before=before, after=HEAD)


def check(url: str) -> list[str]:
    """Return what SQLite itself finds wrong with the file (nothing: it is sound); `hive audit` looks at the contents.

    Raises:
        SchemaOutdated, SchemaTooNew, NotADatabase, StoreUnavailable: It cannot be opened by this version.
    """
    address = parse(url)
    with _open(address) as db:
        check_schema(db, address)
        return [row[0] for row in db.execute("PRAGMA integrity_check(100)") if row[0] != "ok"]


def stats(url: str) -> Stats:
    """Count what the database holds.

    Raises:
        SchemaOutdated, SchemaTooNew, NotADatabase, StoreUnavailable: It cannot be opened by this version.
    """
    address = parse(url)
    with _open(address) as db:
        check_schema(db, address)
        name, log_id, epoch = db.execute("SELECT name, log_id, epoch FROM log_meta").fetchone()
        wal = address.path.with_name(address.path.name + "-wal")
        return Stats(
            url=str(address),
            name=name,
            log_id=log_id,
            epoch=epoch,
            head=db.execute("SELECT max(position) FROM events").fetchone()[0] or 0,
            revision=HEAD,
            rows={table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES},
            file_size=address.path.stat().st_size,
            wal_size=wal.stat().st_size if wal.exists() else 0,
        )


@contextmanager
def _open(address: SqliteUrl, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    if not create and not address.path.exists():
        raise StoreUnavailable(url=str(address), reason="there is no such file")
    try:
        with closing(connect(address, create=create)) as db:
            yield db
    except sqlite3.Error as error:
        raise translate(error, address, BUSY_TIMEOUT) from error
