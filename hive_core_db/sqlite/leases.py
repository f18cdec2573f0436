"""Signs of life, one row per process, in database time."""

from __future__ import annotations

import secrets
import sqlite3

from hive_core_db.records import Lease
from hive_core_db.rows import lease_of
from hive_core_db.sqlite.connection import Now, immediate
from hive_core_db.sqlite.runner import Runner

DAY = 24 * 3600 * 1_000_000

_LEASES = "SELECT lease_id, owner, opened_at, expires_at, closed_at, info FROM leases"
OPEN = "INSERT INTO leases (lease_id, owner, opened_at, expires_at, info) VALUES (?, ?, ?, ?, ?)"
# Closed leases are kept for a day, for people who look; one that work still names is kept until the clock was there.
FORGET = """
DELETE FROM leases WHERE closed_at < ? AND NOT EXISTS (SELECT 1 FROM work AS w WHERE w.lease_id = leases.lease_id)"""
# Renewing says nothing of the clock: who was late, but not replaced, goes on.
RENEW = "UPDATE leases SET expires_at = ?, info = coalesce(?, info) WHERE lease_id = ? AND closed_at IS NULL"
# A lease is closed in the transaction that frees what it holds: a closed lease owns no partition.
CLOSE = "UPDATE leases SET closed_at = ? WHERE lease_id = ? AND closed_at IS NULL"
FREE_PARTITIONS = "UPDATE partitions SET lease_id = NULL WHERE lease_id = ?"
FORGET_MEMBER = "DELETE FROM members WHERE lease_id = ?"
LIVE = f"{_LEASES} WHERE closed_at IS NULL AND expires_at > ? ORDER BY opened_at, lease_id"
# In the order in which they ended; an open one whose time is over ended then.
ENDED = f"""
{_LEASES} WHERE closed_at >= ? OR (closed_at IS NULL AND expires_at <= ?)
ORDER BY coalesce(closed_at, expires_at), lease_id"""
IS_OVER = "SELECT 1 FROM leases WHERE lease_id = ? AND closed_at IS NULL AND expires_at <= ?"


def close_lease(db: sqlite3.Connection, lease_id: str, now: int) -> None:
    """Close a lease within the caller's transaction; its work is found by the clock."""
    db.execute(CLOSE, (now, lease_id))
    db.execute(FREE_PARTITIONS, (lease_id,))
    db.execute(FORGET_MEMBER, (lease_id,))


class SqliteLeases:
    """The port `Leases` on SQLite."""

    def __init__(self, runner: Runner, now: Now) -> None:
        self._runner = runner
        self._now = now

    async def open(self, owner: str, *, ttl: int, info: str = "{}") -> Lease:
        """Open a lease for ``owner`` that lasts ``ttl`` microseconds unless it is renewed."""
        now = self._now()
        lease = Lease(
            lease_id=secrets.token_hex(10), owner=owner, opened_at=now, expires_at=now + ttl, closed=False, info=info
        )

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                db.execute(FORGET, (now - DAY,))
                db.execute(OPEN, (lease.lease_id, owner, now, lease.expires_at, info))

        await self._runner.write(job)
        return lease

    async def renew(self, lease_id: str, *, ttl: int, info: str | None = None) -> bool:
        """Let the lease last ``ttl`` from now, and say ``info`` from now on; False when it was closed meanwhile."""
        now = self._now()

        def job(db: sqlite3.Connection) -> bool:
            with immediate(db):
                return db.execute(RENEW, (now + ttl, info, lease_id)).rowcount == 1

        return await self._runner.write(job)

    async def close(self, lease_id: str) -> None:
        """End the lease and free its partitions; closing twice is fine."""
        now = self._now()

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                close_lease(db, lease_id, now)

        await self._runner.write(job)

    async def expire(self, lease_id: str) -> bool:
        """End the lease and free its partitions if its time is over; whether it was."""
        now = self._now()

        def job(db: sqlite3.Connection) -> bool:
            with immediate(db):
                over = db.execute(IS_OVER, (lease_id, now)).fetchone() is not None
                if over:
                    close_lease(db, lease_id, now)
                return over

        return await self._runner.write(job)

    async def live(self) -> list[Lease]:
        """Return the open, unexpired leases, oldest first."""
        now = self._now()
        return await self._runner.read(lambda db: list(map(lease_of, db.execute(LIVE, (now,)))))

    async def ended(self, since: int) -> list[Lease]:
        """Return the leases closed since then, and the expired ones, in the order in which they ended."""
        now = self._now()
        return await self._runner.read(lambda db: list(map(lease_of, db.execute(ENDED, (since, now)))))
