"""States of brains somewhere in their past."""

from __future__ import annotations

from hive_core_db.postgres.database import Database
from hive_core_db.postgres.driver import NO_HURRY
from hive_core_db.store import Snapshot

_COLUMNS = ", ".join(Snapshot._fields)
# What one decision left is the same whoever wrote it down, unless other code did.
PUT = f"""
INSERT INTO snapshots ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (brain, key, decided) DO UPDATE
SET code = excluded.code, handled = excluded.handled, folded = excluded.folded, body = excluded.body"""
# A key has a few dozen: the order of the key finds the last that will do.
NEAREST = f"""
SELECT {_COLUMNS} FROM snapshots WHERE brain = $1 AND key = $2 AND decided <= $3::bigint AND code = $4
ORDER BY decided DESC LIMIT 1"""
SWEEP = "DELETE FROM snapshots WHERE brain = $1 AND code <> $2"


class PostgresSnapshots:
    """The port `Snapshots` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, snapshot: Snapshot) -> None:
        """Keep it in a transaction of its own."""
        await self._database.execute(PUT, *snapshot)

    async def nearest(self, brain: str, key: str, code: str, *, upto: int) -> Snapshot | None:
        """Return the last one that will do, None if there is none."""
        row = await self._database.fetchrow(NEAREST, brain, key, upto, code)
        return None if row is None else Snapshot._make(row)

    async def sweep(self, brain: str, code: str) -> int:
        """Remove what other code made of this brain; return how many."""
        done = await self._database.execute(SWEEP, brain, code, timeout=NO_HURRY)
        return int(done.rpartition(" ")[2])
