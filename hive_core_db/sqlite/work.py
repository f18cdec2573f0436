"""The work queue, read: who may run next, what fell due, what is open."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from heapq import merge
from operator import attrgetter

from hive_core_db.judge.work_row import WorkRow, changed_values
from hive_core_db.records import Stretch, WorkItem
from hive_core_db.sqlite.connection import Now, immediate
from hive_core_db.sqlite.runner import Runner
from hive_core_db.sqlite.work_changes import COLUMNS, UPDATE
from hive_core_db.work_items import item_of, reason_of

_ROWS = f"SELECT {COLUMNS} FROM work"
_MAY_RUN = "state = 'ready' AND cancel_requested = 0"
# In turn order, from the partial index: what may not run now is not in it, so a million such rows cost nothing.
READY = f"{_ROWS} WHERE {_MAY_RUN} AND queue = ? AND preferred IS ? ORDER BY turn, position LIMIT ?"
# Items that no longer hold out for the worker they prefer.
HELD_OUT = f"""{_ROWS} WHERE {_MAY_RUN} AND preferred IS NOT NULL AND preferred IS NOT ? AND queue = ? AND hold_until <= ?
ORDER BY turn, position LIMIT ?"""
# One index on one instant per row: when the clock must look at it next.
DUE = f"{_ROWS} WHERE wake_at <= ? ORDER BY wake_at, position LIMIT ?"
# Claimed by a process that is gone; only leases that ended are looked through.
DEAD = f"""SELECT {COLUMNS} FROM work WHERE lease_id IN (
    SELECT lease_id FROM leases WHERE closed_at IS NOT NULL OR expires_at <= ?) LIMIT ?"""
NEXT_WAKE = "SELECT min(wake_at) FROM work WHERE wake_at IS NOT NULL"
# A lease that holds work falls due when it ends.
NEXT_DEATH = """
SELECT min(coalesce(closed_at, expires_at)) FROM leases AS l
WHERE EXISTS (SELECT 1 FROM work AS w WHERE w.lease_id = l.lease_id)"""
ALL = f"{_ROWS} ORDER BY position"
OF_CORRELATION = f"{_ROWS} WHERE correlation_id = ? ORDER BY position"
ONE = f"{_ROWS} WHERE work_id = ?"
CANCELLED = "SELECT work_id FROM work WHERE lease_id = ? AND cancel_requested = 1 ORDER BY position"

_in_turn = attrgetter("turn", "position")
_by_position = attrgetter("position")


class SqliteWorkQueue:
    """The port `WorkQueue` on SQLite."""

    def __init__(self, runner: Runner, now: Now) -> None:
        self._runner = runner
        self._now = now

    async def claimable(
        self, queues: Sequence[str], *, limit: int, worker: str | None = None, stretch: Stretch | None = None
    ) -> list[WorkItem]:
        """Return ready items in turn order, without those that hold out for another worker."""
        now = self._now()

        def job(db: sqlite3.Connection) -> list[WorkItem]:
            pages = []
            for queue in dict.fromkeys(queues):
                pages.append(_rows(db, READY, (queue, None, limit)))
                if worker is not None:
                    pages.append(_rows(db, READY, (queue, worker, limit)))
                pages.append(_rows(db, HELD_OUT, (worker, queue, now, limit)))
            page = (row for row, _ in zip(merge(*pages, key=_in_turn), range(limit), strict=False))
            return [item_of(row) for row in page if stretch is None or stretch.distance(row.position) < stretch.length]

        return await self._runner.read(job)

    async def due(self, *, limit: int) -> list[WorkItem]:
        """Return what the clock must act on, each with its reason; the earliest first."""
        now = self._now()

        def job(db: sqlite3.Connection) -> list[WorkItem]:
            found = {row.work_id: item_of(row, reason_of(row, now)) for row in _rows(db, DUE, (now, limit))}
            for row in _rows(db, DEAD, (now, limit)):
                found.setdefault(row.work_id, item_of(row, "lease"))
            return list(found.values())[:limit]

        return await self._runner.read(job)

    async def next_due(self) -> int | None:
        """Return when the next item falls due; it may be past."""

        def job(db: sqlite3.Connection) -> int | None:
            times = [db.execute(statement).fetchone()[0] for statement in (NEXT_WAKE, NEXT_DEATH)]
            return min((time for time in times if time is not None), default=None)

        return await self._runner.read(job)

    async def make_ready(self, work_id: str) -> bool:
        """Turn a delayed item whose time has come into a ready one; False if it is none (any more)."""
        now = self._now()

        def job(db: sqlite3.Connection) -> bool:
            with immediate(db):
                rows = _rows(db, ONE, (work_id,))
                if not rows or rows[0].state != "delayed" or rows[0].cancel_requested or (rows[0].due_at or 0) > now:
                    return False
                row = rows[0]
                row.state, row.ready_at, row.due_at = "ready", now, None
                row.wake()
                db.execute(UPDATE, changed_values(row))
                return True

        return await self._runner.write(job)

    async def items(self, correlation_id: str | None = None) -> list[WorkItem]:
        """Return open items in insertion order."""

        def job(db: sqlite3.Connection) -> list[WorkItem]:
            found = _rows(db, ALL, ()) if correlation_id is None else _rows(db, OF_CORRELATION, (correlation_id,))
            return [item_of(row) for row in found]

        return await self._runner.read(job)

    async def item(self, work_id: str) -> WorkItem | None:
        """Return an open item, None if it has ended or never was."""
        rows = await self._runner.read(lambda db: _rows(db, ONE, (work_id,)))
        return item_of(rows[0]) if rows else None

    async def cancelled(self, lease_id: str) -> list[str]:
        """Return what this lease holds and was asked to end."""
        rows = await self._runner.read(lambda db: db.execute(CANCELLED, (lease_id,)).fetchall())
        return [row[0] for row in rows]


def _rows(db: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> list[WorkRow]:
    return [WorkRow(*row) for row in db.execute(statement, values).fetchall()]
