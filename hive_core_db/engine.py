"""The door of floor 2: opens a store by its address.

Knows which backends there are, and nothing of what they do. Importing it loads
no driver and no SQLAlchemy; opening a SQLite file loads the standard library's driver, opening a PostgreSQL database loads asyncpg.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from hive_core_db.store import Store
from hive_core_db.url import PostgresUrl, parse
from hive_errors.store import StoreUnavailable


def system_now() -> int:
    """Return UTC microseconds since 1970 by the system's clock."""
    return time.time_ns() // 1000


async def open_store(
    url: str,
    *,
    now: Callable[[], int] = system_now,
    inline: bool = False,
    create: bool = True,
    name: str = "hive",
    pause: Callable[[], Awaitable[None]] | None = None,
    busy_timeout: float = 60.0,
    durable: bool = True,
) -> Store:
    """Open the store at ``url``; make it if it is new.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, a plain path, or
            ``postgresql://user:password@host/database`` (`hive_core_db.url` has what may follow).
        now: The database's time, UTC microseconds; a simulation gives its own. PostgreSQL uses the server's unless one is given.
        inline: Run everything on the calling loop, without threads: for a simulation, on SQLite.
        create: Make the file (and its directory), or the tables, when there are none.
        name: The name of a new log.
        pause: With ``inline``, awaited before and after each job: where a simulation may stop the caller.
        busy_timeout: Seconds to wait for a file that another program has locked, or for the answer to a statement.
        durable: False gives up the sync to disk at each commit: for a simulation on SQLite only.

    Raises:
        UnsupportedUrl: There is no backend for the address.
        NotADatabase: The file is something else.
        SchemaOutdated: `hive db upgrade` must run first.
        SchemaTooNew: A newer version wrote it.
        StoreUnavailable: It cannot be opened, or is not there and ``create`` is false.
        StoreUnreachable: The server does not answer; it may do so later.
        ServerUnsuitable: The server does not keep what a log needs.
        DriverMissing: The driver for PostgreSQL is not installed.
        StoreBusy: Another program holds its lock for longer than ``busy_timeout``.
    """
    address = parse(url)
    if isinstance(address, PostgresUrl):
        from hive_core_db.postgres.store import open_postgres

        given = None if now is system_now else now
        return await open_postgres(address, given=given, create=create, name=name, command_timeout=busy_timeout)

    from hive_core_db.sqlite.connection import prepare
    from hive_core_db.sqlite.runner import InlineRunner, Opener, Runner, ThreadRunner
    from hive_core_db.sqlite.store import SqliteStore

    if create:
        try:
            address.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(
                url=str(address), reason=f"its directory cannot be made: {error.strerror}"
            ) from error
    elif not address.path.exists():
        raise StoreUnavailable(url=str(address), reason="there is no such file")
    opener = Opener(address, busy_timeout=busy_timeout, durable=durable)
    runner: Runner = InlineRunner(opener, create=create, pause=pause) if inline else ThreadRunner(opener, create=create)
    try:
        await runner.write(
            lambda db: prepare(db, address, name=name, now=now, create=create, busy_timeout=busy_timeout)
        )
    except BaseException:
        await runner.close()
        raise
    return SqliteStore(str(address), runner, now)
