"""Slots and rates on SQLite: each call is one transaction under the write lock."""

from __future__ import annotations

import sqlite3
from math import ceil
from typing import Any

from hive_core_db.records import LimitState
from hive_core_db.sqlite.connection import Now, immediate
from hive_core_db.sqlite.runner import Runner

SECOND = 1_000_000
PATIENCE = SECOND
"""Who has asked in vain for so long comes before those who asked later."""
STILL_ASKING = 3 * SECOND
"""Who has not asked again for so long waits no more."""

# What a process that is gone held is free; so is what it waited for.
FORGET_DEAD = """
DELETE FROM limit_slots WHERE key = ? AND NOT EXISTS (
    SELECT 1 FROM leases AS l WHERE l.lease_id = limit_slots.lease_id AND l.closed_at IS NULL AND l.expires_at > ?)"""
LIVE = "SELECT 1 FROM leases WHERE lease_id = ? AND closed_at IS NULL AND expires_at > ?"
SLOTS = "SELECT lease_id, taken, missing, waits_since, asked_at FROM limit_slots WHERE key = ?"
HELD = "SELECT held_until FROM limits WHERE key = ?"
CEILING = """
INSERT INTO limits (key, ceiling) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET ceiling = excluded.ceiling WHERE ceiling IS NOT excluded.ceiling"""
TAKE = """
INSERT INTO limit_slots (key, lease_id, taken, missing, waits_since, asked_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key, lease_id) DO UPDATE SET taken = taken + excluded.taken, missing = excluded.missing,
    waits_since = excluded.waits_since, asked_at = excluded.asked_at"""
GIVE = "UPDATE limit_slots SET taken = max(0, taken - ?) WHERE key = ? AND lease_id = ?"
FORGET_IDLE = "DELETE FROM limit_slots WHERE key = ? AND lease_id = ? AND taken = 0 AND missing = 0"
BUCKET = "SELECT level, filled_at, held_until FROM limits WHERE key = ?"
FILL = """
INSERT INTO limits (key, level, rate, burst, filled_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET level = excluded.level, rate = excluded.rate, burst = excluded.burst, filled_at = excluded.filled_at"""
SETTLE = "UPDATE limits SET level = min(burst, level - ?) WHERE key = ? AND level IS NOT NULL"
HOLD = """
INSERT INTO limits (key, held_until) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET held_until = max(coalesce(held_until, 0), excluded.held_until)"""
# Slots without a row in `limits` there are none: taking writes the ceiling first.
STATE = """
SELECT m.key, m.ceiling, m.level, m.rate, m.burst, m.filled_at, m.held_until,
    coalesce(sum(s.taken), 0), coalesce(sum(CASE WHEN s.asked_at > :now - :asking THEN s.missing END), 0)
FROM limits AS m LEFT JOIN (
    SELECT s.* FROM limit_slots AS s JOIN leases AS l ON l.lease_id = s.lease_id
    WHERE l.closed_at IS NULL AND l.expires_at > :now) AS s ON s.key = m.key
GROUP BY m.key ORDER BY m.key"""


class SqliteLimits:
    """The port `Limits` on SQLite."""

    def __init__(self, runner: Runner, now: Now) -> None:
        self._runner = runner
        self._now = now

    async def take(self, key: str, limit: int, lease_id: str, wanted: int) -> int:
        """Take up to ``wanted`` slots; return how many."""
        now = self._now()

        def job(db: sqlite3.Connection) -> int:
            with immediate(db):
                return _take(db, now, key, limit=limit, lease_id=lease_id, wanted=wanted)

        return await self._runner.write(job)

    async def give(self, key: str, lease_id: str, count: int) -> None:
        """Give slots back; what is not held is not given."""

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                db.execute(GIVE, (count, key, lease_id))
                db.execute(FORGET_IDLE, (key, lease_id))

        await self._runner.write(job)

    async def spend(self, key: str, rate: float, burst: float, amount: float) -> int:
        """Take ``amount`` from the bucket, or return how many microseconds are missing."""
        now = self._now()

        def job(db: sqlite3.Connection) -> int:
            with immediate(db):
                level, filled_at, held = db.execute(BUCKET, (key,)).fetchone() or (None, None, None)
                if held is not None and held > now:
                    return int(held - now)
                level = filled(level, rate, burst, 0 if filled_at is None else now - filled_at)
                short = min(amount, burst) - level
                db.execute(FILL, (key, level - amount if short <= 0 else level, rate, burst, now))
                return max(1, ceil(short / rate * SECOND)) if short > 0 else 0

        return await self._runner.write(job)

    async def settle(self, key: str, amount: float) -> None:
        """Take ``amount`` more, or give it back."""

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                db.execute(SETTLE, (amount, key))

        await self._runner.write(job)

    async def hold(self, key: str, duration: int) -> None:
        """Hold the key for ``duration`` microseconds."""
        until = self._now() + duration

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                db.execute(HOLD, (key, until))

        await self._runner.write(job)

    async def state(self) -> list[LimitState]:
        """Return every key as it is now."""
        now = self._now()
        values = {"now": now, "asking": STILL_ASKING}
        rows = await self._runner.read(lambda db: db.execute(STATE, values).fetchall())
        return [_state(row, now) for row in rows]


def _take(db: sqlite3.Connection, now: int, key: str, *, limit: int, lease_id: str, wanted: int) -> int:
    db.execute(FORGET_DEAD, (key, now))
    if db.execute(LIVE, (lease_id, now)).fetchone() is None:
        return 0
    db.execute(CEILING, (key, limit))
    rows = {row[0]: row[1:] for row in db.execute(SLOTS, (key,))}
    since = rows[lease_id][2] if lease_id in rows else None
    used = sum(taken for taken, *_ in rows.values())
    # For those who have waited long enough, unless this one has waited longer.
    first = min(now - PATIENCE, since if since is not None else now)
    kept = sum(
        missing
        for other, (_, missing, waits, asked) in rows.items()
        if other != lease_id and waits is not None and waits < first and asked > now - STILL_ASKING
    )
    (held,) = db.execute(HELD, (key,)).fetchone()
    granted = 0 if held is not None and held > now else max(0, min(wanted, limit - used - kept))
    missing = wanted - granted
    waits = None if not missing else now if granted or since is None else since
    db.execute(TAKE, (key, lease_id, granted, missing, waits, now))
    db.execute(FORGET_IDLE, (key, lease_id))
    return granted


def filled(level: float | None, rate: float, burst: float, passed: int) -> float:
    """A bucket's level after ``passed`` microseconds; one that nobody used is full."""
    return burst if level is None else min(burst, level + rate * max(0, passed) / SECOND)


def _state(row: tuple[Any, ...], now: int) -> LimitState:
    key, ceiling, level, rate, burst, filled_at, held, taken, missing = row
    return LimitState(
        key=key,
        ceiling=ceiling,
        taken=taken,
        missing=missing,
        level=None if level is None else filled(level, rate, burst, now - filled_at),
        rate=rate,
        burst=burst,
        held_until=held if held is not None and held > now else None,
    )
