"""States of brains somewhere in their past."""

from __future__ import annotations

import sqlite3

from hive_core_db.sqlite.connection import immediate
from hive_core_db.sqlite.runner import Runner
from hive_core_db.store import Snapshot

_COLUMNS = ", ".join(Snapshot._fields)
PUT = f"INSERT OR REPLACE INTO snapshots ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
# A key has a few dozen: the order of the key finds the last that will do.
NEAREST = f"""
SELECT {_COLUMNS} FROM snapshots WHERE brain = ? AND key = ? AND decided <= ? AND code = ?
ORDER BY decided DESC LIMIT 1"""
SWEEP = "DELETE FROM snapshots WHERE brain = ? AND code <> ?"


class SqliteSnapshots:
    """The port `Snapshots` on SQLite."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def put(self, snapshot: Snapshot) -> None:
        """Keep it in a transaction of its own."""

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                db.execute(PUT, snapshot)

        await self._runner.write(job)

    async def nearest(self, brain: str, key: str, code: str, *, upto: int) -> Snapshot | None:
        """Return the last one that will do, None if there is none."""
        row = await self._runner.read(lambda db: db.execute(NEAREST, (brain, key, upto, code)).fetchone())
        return None if row is None else Snapshot._make(row)

    async def sweep(self, brain: str, code: str) -> int:
        """Remove what other code made of this brain; return how many."""

        def job(db: sqlite3.Connection) -> int:
            with immediate(db):
                return db.execute(SWEEP, (brain, code)).rowcount

        return await self._runner.write(job)
