"""What people do to a database from outside: upgrade, check and count it, copy it, back it up and put it back.

Cold code, synchronous, for `hive db`: it may import SQLAlchemy and alembic. Nothing on the hot path imports it. What is done to a
SQLite file is in `sqlite`, to a PostgreSQL database in `postgres`, from one to the other in `copying`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hive_core_db.admin import sqlite
from hive_core_db.admin.report import Backup, Check, Copied, Epoch, Progress, Restored, Stats, Upgrade
from hive_core_db.admin.sqlite import MIGRATIONS
from hive_core_db.engine import system_now
from hive_core_db.url import SqliteUrl, parse
from hive_errors.store import DoneElsewhere

__all__ = [
    "MIGRATIONS",
    "Backup",
    "Check",
    "Copied",
    "Epoch",
    "Progress",
    "Restored",
    "Stats",
    "Upgrade",
    "backup",
    "begin_epoch",
    "check",
    "copy",
    "restore",
    "stats",
    "upgrade",
]

Now = Callable[[], int]


def upgrade(url: str) -> Upgrade:
    """Bring the schema of ``url`` to this version's revision; an empty database, or a missing file, becomes a new log.

    Raises:
        SchemaTooNew: A newer version wrote it.
        NotADatabase: It is something else.
        StoreUnavailable: It cannot be opened.
    """
    address = parse(url)
    if isinstance(address, SqliteUrl):
        return sqlite.upgrade(address, system_now)
    from hive_core_db.admin import postgres

    return postgres.upgrade(address)


def check(url: str) -> Check:
    """Look for damage in the structures of the database itself; `hive audit` looks at the contents.

    Raises:
        SchemaOutdated, SchemaTooNew, NotADatabase, StoreUnavailable: It cannot be opened by this version.
    """
    address = parse(url)
    if isinstance(address, SqliteUrl):
        return sqlite.check(address)
    from hive_core_db.admin import postgres

    return postgres.check(address)


def stats(url: str) -> Stats:
    """Count what the database holds.

    Raises:
        SchemaOutdated, SchemaTooNew, NotADatabase, StoreUnavailable: It cannot be opened by this version.
    """
    address = parse(url)
    if isinstance(address, SqliteUrl):
        return sqlite.stats(address)
    from hive_core_db.admin import postgres

    return postgres.stats(address)


def copy(source: str, target: str, *, progress: Progress | None = None, now: Now = system_now) -> Copied:
    """Copy the database at ``source`` to ``target``, which must be new or empty, and compare what arrived.

    Memory does not grow with the log. A copy that fails or is stopped leaves the target as it was.

    Raises:
        TargetNotEmpty: There is something at the target.
        CopyDiffers: What was read back is not what was sent.
        SchemaOutdated, SchemaTooNew, NotADatabase, StoreUnavailable: One of them cannot be opened by this version.
    """
    from hive_core_db.admin import copying

    return copying.copy(source, target, progress=progress, now=now)


def backup(url: str, file: Path) -> Backup:
    """Write a SQLite database as of this moment into one new file, while others go on writing.

    Raises:
        TargetNotEmpty: There is a file of that name.
        DoneElsewhere: The address is a PostgreSQL database's, which has tools of its own.
        SchemaOutdated, SchemaTooNew, NotADatabase, StoreUnavailable: It cannot be opened by this version.
    """
    address = parse(url)
    if not isinstance(address, SqliteUrl):
        raise DoneElsewhere(
            action="backup", url=str(address), tools="pg_dump, pg_basebackup or your provider's snapshots"
        )
    return sqlite.backup(address, file.absolute())


def restore(url: str, file: Path, *, now: Now = system_now) -> Restored:
    """Put the backup ``file`` in the place of the SQLite database at ``url``, as one change, and begin a new epoch.

    Processes that have the database open are fenced. What was there before is gone.

    Raises:
        DoneElsewhere: The address is a PostgreSQL database's.
        NotADatabase, StoreUnavailable: The file is no backup, or is not there.
        StoreBusy: Another program holds the database's lock.
    """
    address = parse(url)
    if not isinstance(address, SqliteUrl):
        raise DoneElsewhere(action="restore", url=str(address), tools="pg_restore or your provider's snapshots")
    return sqlite.restore(address, file.absolute(), now)


def begin_epoch(url: str, *, reason: str, now: Now = system_now) -> Epoch:
    """Begin a new epoch by hand: after a restore that nothing in the database shows, such as a disk's snapshot.

    Raises:
        SchemaOutdated, SchemaTooNew, NotADatabase, StoreUnavailable: It cannot be opened by this version.
    """
    address = parse(url)
    if isinstance(address, SqliteUrl):
        return sqlite.begin_epoch(address, reason, now)
    from hive_core_db.admin import postgres

    return postgres.begin_epoch(address, reason)
