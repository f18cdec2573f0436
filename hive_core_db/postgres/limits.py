"""Slots and rates on PostgreSQL: each call is one statement, which locks its key's row and nothing else."""

from __future__ import annotations

from typing import Any

from hive_core_db.postgres.database import Database
from hive_core_db.records import LimitState

SECOND = 1_000_000
PATIENCE = SECOND
"""Who has asked in vain for so long comes before those who asked later."""
STILL_ASKING = 3 * SECOND
"""Who has not asked again for so long waits no more."""

TAKE = "SELECT hive_limit_take($1, $2, $3, $4, $5, $6, $7)"
GIVE = "SELECT hive_limit_give($1, $2, $3)"
SPEND = "SELECT hive_limit_spend($1, $2, $3, $4, $5)"
SETTLE = "UPDATE limits SET level = least(burst, level - $2) WHERE key = $1 AND level IS NOT NULL"
HOLD = """
INSERT INTO limits AS m (key, held_until) VALUES ($1, hive_now($3) + $2)
ON CONFLICT (key) DO UPDATE SET held_until = greatest(coalesce(m.held_until, 0), excluded.held_until)"""
# Slots without a row in `limits` there are none: taking locks that row, and makes it.
STATE = """
WITH instant AS MATERIALIZED (SELECT hive_now($1) AS now)
SELECT m.key, m.ceiling, m.rate, m.burst,
    least(m.burst, m.level + m.rate * greatest(0, i.now - m.filled_at) / 1000000.0) AS level,
    CASE WHEN m.held_until > i.now THEN m.held_until END AS held_until,
    coalesce(s.taken, 0)::bigint AS taken, coalesce(s.missing, 0)::bigint AS missing
FROM instant AS i CROSS JOIN limits AS m LEFT JOIN LATERAL (
    SELECT sum(o.taken) AS taken, sum(o.missing) FILTER (WHERE o.asked_at > i.now - $2) AS missing
    FROM limit_slots AS o JOIN leases AS l ON l.lease_id = o.lease_id
    WHERE o.key = m.key AND l.closed_at IS NULL AND l.expires_at > i.now) AS s ON true
ORDER BY m.key"""


class PostgresLimits:
    """The port `Limits` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, key: str, limit: int, lease_id: str, wanted: int) -> int:
        """Take up to ``wanted`` slots; return how many."""
        return int(
            await self._value(TAKE, key, limit, lease_id, wanted, PATIENCE, STILL_ASKING, self._database.given_now())
        )

    async def give(self, key: str, lease_id: str, count: int) -> None:
        """Give slots back; what is not held is not given."""
        await self._value(GIVE, key, lease_id, count)

    async def spend(self, key: str, rate: float, burst: float, amount: float) -> int:
        """Take ``amount`` from the bucket, or return how many microseconds are missing."""
        return int(await self._value(SPEND, key, rate, burst, amount, self._database.given_now()))

    async def settle(self, key: str, amount: float) -> None:
        """Take ``amount`` more, or give it back."""
        await self._value(SETTLE, key, amount)

    async def hold(self, key: str, duration: int) -> None:
        """Hold the key for ``duration`` microseconds."""
        await self._value(HOLD, key, duration, self._database.given_now())

    async def state(self) -> list[LimitState]:
        """Return every key as it is now."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(STATE, self._database.given_now(), STILL_ASKING)
        return [LimitState(**row) for row in rows]

    async def _value(self, statement: str, *values: object) -> Any:
        async with self._database.connection() as connection:
            return await connection.fetchval(statement, *values)
