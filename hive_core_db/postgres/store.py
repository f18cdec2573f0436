"""The store on one PostgreSQL database: its ports over one set of connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

from hive_core_db.postgres.blobs import PostgresBlobs
from hive_core_db.postgres.connection import prepare
from hive_core_db.postgres.database import Database
from hive_core_db.postgres.driver import COMMAND_SECONDS
from hive_core_db.postgres.event_log import PostgresEventLog
from hive_core_db.postgres.facts import Memory
from hive_core_db.postgres.figures import PostgresFigures
from hive_core_db.postgres.groups import PostgresCheckpoints
from hive_core_db.postgres.leases import PostgresLeases
from hive_core_db.postgres.limits import PostgresLimits
from hive_core_db.postgres.listener import Listener, Notifier
from hive_core_db.postgres.snapshots import PostgresSnapshots
from hive_core_db.postgres.views import PostgresViews
from hive_core_db.postgres.work import PostgresWorkQueue
from hive_core_db.url import PostgresUrl

# One channel for each log of the database.
CHANNEL: Final = "SELECT 'hive_' || current_schema()"


class PostgresStore:
    """The port `Store` on PostgreSQL; an async context manager that closes itself."""

    def __init__(self, database: Database, channel: str) -> None:
        self.url = str(database.url)
        self.now = database.now
        notifier = Notifier(database, channel)
        listener = Listener(database, channel, own=notifier)
        memory = Memory()
        self.log = PostgresEventLog(database, listener, notifier, memory)
        self.work = PostgresWorkQueue(database, memory)
        self.checkpoints = PostgresCheckpoints(database)
        self.leases = PostgresLeases(database)
        self.limits = PostgresLimits(database)
        self.figures = PostgresFigures(database)
        self.blobs = PostgresBlobs(database)
        self.views = PostgresViews(database)
        self.snapshots = PostgresSnapshots(database)
        self._database = database
        database.spawn(notifier.run(), name="hive: wake-ups sent")
        if database.url.listen:
            database.spawn(listener.run(), name="hive: wake-ups heard")

    async def close(self) -> None:
        """Finish what waits and close every connection; closing twice is fine."""
        await self._database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def open_postgres(
    url: PostgresUrl,
    *,
    given: Callable[[], int] | None = None,
    create: bool = True,
    name: str = "hive",
    command_timeout: float = COMMAND_SECONDS,
) -> PostgresStore:
    """Open the store at ``url``; make its tables if there are none. Errors as for `hive_core_db.engine.open_store`."""
    database = await Database.open(url, given=given, command_timeout=command_timeout)
    try:
        async with database.connection() as connection:
            await prepare(connection, url, name=name, given_now=database.given_now(), create=create)
            await database.settle(connection)
            channel: str = await connection.fetchval(CHANNEL)
        if given is None:
            await database.read_clock()
    except BaseException:
        await database.close()
        raise
    store = PostgresStore(database, channel)
    if given is None:
        database.spawn(database.keep_clock(), name="hive: clock")
    return store
