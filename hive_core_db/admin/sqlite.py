"""Administration of a SQLite file: upgrade, check, stats, backup, restore. Cold code."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hive_core_db.admin.report import Backup, Check, Epoch, Restored, Stats, Upgrade
from hive_core_db.revision import APPLICATION_ID, HEAD, REVISIONS
from hive_core_db.sqlite import identity
from hive_core_db.sqlite.connection import (
    BUSY_TIMEOUT,
    connect,
    first_epoch,
    fold_wal,
    immediate,
    revision_of,
    translate,
)
from hive_core_db.sqlite.connection import (
    check as check_schema,
)
from hive_core_db.url import SqliteUrl
from hive_errors.store import NotADatabase, SchemaTooNew, StoreBusy, StoreUnavailable, TargetNotEmpty

MIGRATIONS = Path(__file__).parent.parent / "migrations"
LOG = "SELECT name, log_id, epoch, (SELECT coalesce(max(position), 0) FROM events) FROM log_meta"
# The greatest position that the file can have shown (its head, or the beginning of an epoch without an event), and its epoch.
SHOWN = """
SELECT max(coalesce((SELECT max(position) FROM events), 0), coalesce(max(first_position) - 1, 0)), coalesce(max(epoch), 0)
FROM epochs"""
TABLES = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'"
)
# Only where SQLite was built with this table; its name may be a table's or an index's.
SIZES = """
SELECT s.name, m.type, sum(s.pgsize) FROM dbstat AS s JOIN sqlite_master AS m ON m.name = s.name
WHERE s.name NOT LIKE 'sqlite_%' GROUP BY s.name, m.type"""


def upgrade(address: SqliteUrl, now: Callable[[], int]) -> Upgrade:
    """Bring the file's schema to this version's revision; an empty or missing file becomes a new log."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

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
    with _open(address) as db, immediate(db):
        if db.execute("SELECT 1 FROM log_meta").fetchone() is None:
            first_epoch(db, "hive", now())
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    return Upgrade(url=str(address), before=before, after=HEAD)


def check(address: SqliteUrl) -> Check:
    """Let SQLite check every page, index and constraint of the file."""
    with _open(address) as db:
        check_schema(db, address)
        findings = [row[0] for row in db.execute("PRAGMA integrity_check(100)") if row[0] != "ok"]
    looked_at = ("every page, every index entry and every constraint, by SQLite's integrity_check",)
    return Check(url=str(address), looked_at=looked_at, findings=tuple(findings))


def stats(address: SqliteUrl) -> Stats:
    """Count what the file holds."""
    with _open(address) as db:
        check_schema(db, address)
        name, log_id, epoch, head = db.execute(LOG).fetchone()
        tables = [row[0] for row in db.execute(TABLES)]
        sizes = _sizes(db)
        wal = _wal(address.path)
        return Stats(
            url=str(address),
            name=name,
            log_id=log_id,
            epoch=epoch,
            head=head,
            revision=HEAD,
            rows={table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in sorted(tables)},
            file_size=address.path.stat().st_size,
            wal_size=wal.stat().st_size if wal.exists() else 0,
            sizes={name: size for name, kind, size in sizes if kind == "table"},
            indexes={name: size for name, kind, size in sizes if kind == "index"},
        )


def backup(address: SqliteUrl, file: Path) -> Backup:
    """Write the database as of this moment into one new file; writers go on meanwhile.

    The file has no identity: whoever opens it as a database begins a new epoch.
    """
    if file.exists():
        raise TargetNotEmpty(url=str(file), reason="there is a file already")
    with _open(address) as db, _new_file(file) as half:
        check_schema(db, address)
        with closing(sqlite3.connect(half, isolation_level=None)) as copy:
            # All pages in one step: a snapshot, which does not begin again when somebody writes.
            db.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            identity.forget(copy)
            head = copy.execute(LOG).fetchone()[3]
    return Backup(url=str(address), file=str(file), head=head, size=file.stat().st_size)


def restore(address: SqliteUrl, file: Path, now: Callable[[], int]) -> Restored:
    """Put a backup back, in one transaction, above every position that the database there has shown.

    Processes that have the old database open see the new one in its place, and are fenced: theirs was another epoch.
    """
    address.path.parent.mkdir(parents=True, exist_ok=True)
    half = address.path.with_name(f"{address.path.name}.restoring")
    half.unlink(missing_ok=True)
    try:
        with _open(SqliteUrl(file)) as source, closing(sqlite3.connect(half, isolation_level=None)) as copy:
            if revision_of(source, SqliteUrl(file)) is None:
                raise NotADatabase(url=str(file), reason="it is empty")
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            with _open(address, create=True) as target:
                # What others append between this question and the change is less than an epoch jumps at least.
                shown = target.execute(SHOWN).fetchone() if revision_of(target, address) is not None else (0, 0)
                with immediate(copy):
                    first = identity.begin_epoch(copy, now(), why=f"restored from {file.name}", above=shown)
                _, _, epoch, head = copy.execute(LOG).fetchone()
                copy.backup(target, progress=lambda status, _left, _all: _not_for_ever(status, address))
                target.execute("PRAGMA journal_mode=WAL")
                fold_wal(target, _wal(address.path), 0)
    except sqlite3.Error as error:
        raise translate(error, address, BUSY_TIMEOUT) from error
    finally:
        half.unlink(missing_ok=True)
    return Restored(url=str(address), file=str(file), head=head, epoch=epoch, first_position=first)


def begin_epoch(address: SqliteUrl, reason: str, now: Callable[[], int]) -> Epoch:
    """Begin a new epoch because somebody says so."""
    with _open(address) as db, immediate(db):
        check_schema(db, address)
        first = identity.begin_epoch(db, now(), why=reason)
        epoch = db.execute(LOG).fetchone()[2]
    return Epoch(url=str(address), epoch=epoch, first_position=first)


def _not_for_ever(status: int, address: SqliteUrl) -> None:
    # Each step waits for the lock as long as any statement does; the driver would try again without an end.
    if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        raise StoreBusy(url=str(address), waited=BUSY_TIMEOUT)


@contextmanager
def _new_file(file: Path) -> Iterator[Path]:
    """A file that gets its name when it is complete and on the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f"{file.name}.part")
    half.unlink(missing_ok=True)
    try:
        yield half
        with half.open("rb+") as written:
            os.fsync(written.fileno())
        half.replace(file)
    finally:
        half.unlink(missing_ok=True)


def _sizes(db: sqlite3.Connection) -> list[tuple[str, str, int]]:
    try:
        return db.execute(SIZES).fetchall()
    except sqlite3.OperationalError:
        return []  # SQLite was built without the table that knows


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


@contextmanager
def _open(address: SqliteUrl, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    if not create and not address.path.exists():
        raise StoreUnavailable(url=str(address), reason="there is no such file")
    try:
        with closing(connect(address, create=create, busy_timeout=BUSY_TIMEOUT)) as db:
            yield db
    except sqlite3.Error as error:
        raise translate(error, address, BUSY_TIMEOUT) from error
