"""The store on one SQLite file: its ports over one runner."""

from __future__ import annotations

from typing import Self

from hive_core_db.sqlite.blobs import SqliteBlobs
from hive_core_db.sqlite.connection import Now
from hive_core_db.sqlite.event_log import SqliteEventLog
from hive_core_db.sqlite.figures import SqliteFigures
from hive_core_db.sqlite.groups import SqliteCheckpoints
from hive_core_db.sqlite.leases import SqliteLeases
from hive_core_db.sqlite.limits import SqliteLimits
from hive_core_db.sqlite.runner import Runner
from hive_core_db.sqlite.snapshots import SqliteSnapshots
from hive_core_db.sqlite.views import SqliteViews
from hive_core_db.sqlite.work import SqliteWorkQueue


class SqliteStore:
    """The port `Store` on SQLite; an async context manager that closes itself."""

    def __init__(self, url: str, runner: Runner, now: Now) -> None:
        self.url = url
        self.now = now
        self.log = SqliteEventLog(runner, now)
        self.work = SqliteWorkQueue(runner, now)
        self.checkpoints = SqliteCheckpoints(runner, now)
        self.leases = SqliteLeases(runner, now)
        self.limits = SqliteLimits(runner, now)
        self.figures = SqliteFigures(runner)
        self.blobs = SqliteBlobs(runner, now)
        self.views = SqliteViews(runner)
        self.snapshots = SqliteSnapshots(runner)
        self._runner = runner

    async def close(self) -> None:
        """Finish what waits and close the file; closing twice is fine."""
        await self._runner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
