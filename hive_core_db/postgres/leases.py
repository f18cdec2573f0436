"""Signs of life, one row per process, in the server's time."""

from __future__ import annotations

import secrets
from typing import Final

from hive_core_db.postgres.database import Database
from hive_core_db.records import Lease
from hive_core_db.rows import lease_of

DAY: Final = 24 * 3600 * 1_000_000

# Closed leases are kept for a day, for people who look; one that work still names is kept until the clock was there. A row that
# somebody holds stays until the next process opens a lease.
FORGET = """
DELETE FROM leases WHERE lease_id IN (
    SELECT l.lease_id FROM leases AS l WHERE l.closed_at < hive_now($1) - $2::bigint
        AND NOT EXISTS (SELECT FROM work AS w WHERE w.lease_id = l.lease_id) FOR UPDATE SKIP LOCKED)"""
OPEN = """
INSERT INTO leases (lease_id, owner, opened_at, expires_at, info)
SELECT $1, $2, t.now, t.now + $3::bigint, $4 FROM hive_now($5) AS t (now) RETURNING opened_at, expires_at"""
# Renewing says nothing of the clock: who was late, but not replaced, goes on. One row, in a transaction of its own.
RENEW = """
UPDATE leases SET expires_at = hive_now($3) + $2::bigint, info = coalesce($4, info) WHERE lease_id = $1 AND closed_at IS NULL"""
CLOSE = "SELECT hive_close_lease($1, $2)"
EXPIRE = "SELECT hive_expire_lease($1, $2)"
_LEASES: Final = "SELECT lease_id, owner, opened_at, expires_at, closed_at, info FROM leases"
# In the order in which they ended; an open one whose time is over ended then.
ENDED = f"""
{_LEASES} WHERE closed_at >= $1::bigint OR (closed_at IS NULL AND expires_at <= (SELECT hive_now($2)))
ORDER BY coalesce(closed_at, expires_at), lease_id"""
LIVE = f"""
{_LEASES} WHERE closed_at IS NULL AND expires_at > (SELECT hive_now($1)) ORDER BY opened_at, lease_id"""


class PostgresLeases:
    """The port `Leases` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, owner: str, *, ttl: int, info: str = "{}") -> Lease:
        """Open a lease for ``owner`` that lasts ``ttl`` microseconds unless it is renewed."""
        now = self._database.given_now()
        lease_id = secrets.token_hex(10)
        async with self._database.connection() as connection:
            await connection.execute(FORGET, now, DAY)
            row = await connection.fetchrow(OPEN, lease_id, owner, ttl, info, now)
        assert row is not None
        return Lease(lease_id=lease_id, owner=owner, opened_at=row[0], expires_at=row[1], closed=False, info=info)

    async def renew(self, lease_id: str, *, ttl: int, info: str | None = None) -> bool:
        """Let the lease last ``ttl`` from now, and say ``info`` from now on; False when it was closed meanwhile."""
        return await self._database.execute(RENEW, lease_id, ttl, self._database.given_now(), info) == "UPDATE 1"

    async def close(self, lease_id: str) -> None:
        """End the lease and free its partitions; closing twice is fine."""
        await self._database.execute(CLOSE, lease_id, self._database.given_now())

    async def expire(self, lease_id: str) -> bool:
        """End the lease and free its partitions if its time is over; whether it was."""
        async with self._database.connection() as connection:
            over: bool = await connection.fetchval(EXPIRE, lease_id, self._database.given_now())
        return over

    async def live(self) -> list[Lease]:
        """Return the open, unexpired leases, oldest first."""
        return list(map(lease_of, await self._database.fetch(LIVE, self._database.given_now())))

    async def ended(self, since: int) -> list[Lease]:
        """Return the leases closed since then, and the expired ones, in the order in which they ended."""
        return list(map(lease_of, await self._database.fetch(ENDED, since, self._database.given_now())))
