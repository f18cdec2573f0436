"""The work queue, read: who may run next, what fell due, what is open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from hive_core_db.judge.work_row import COLUMNS, WorkRow
from hive_core_db.postgres.database import Database
from hive_core_db.postgres.facts import Memory
from hive_core_db.postgres.queue_starts import START, QueueStarts
from hive_core_db.records import RING, STEP, Stretch, WorkItem
from hive_core_db.work_items import item_of, reason_of

_COLUMNS: Final = ", ".join(COLUMNS)
_ROWS: Final = f"SELECT {_COLUMNS} FROM work"
_MAY_RUN: Final = "w.state = 'ready' AND w.cancel_requested = 0 AND w.queue = q.name"
# In turn order, from the partial index: what may not run now is not in it, so a million such rows cost nothing. `ORDER BY preferred`
# changes nothing where it is null; it says the index's order in full, for the planner does not take IS NULL for a constant.
# A look begins at the queue's start, as `QueueStarts` knows it: the dead entries before it are not walked. Items that no longer hold
# out for the worker they prefer are few, and sorted.
CLAIMABLE = f"""
SELECT {_COLUMNS} FROM unnest($1::text[], $4::double precision[], $5::bigint[]) AS q (name, first_turn, first_position), LATERAL (
    (SELECT * FROM work AS w WHERE {_MAY_RUN} AND w.preferred IS NULL AND (w.turn, w.position) >= (q.first_turn, q.first_position)
        ORDER BY w.preferred, w.turn, w.position LIMIT {{limit}})
    UNION ALL
    (SELECT * FROM work AS w WHERE {_MAY_RUN} AND w.preferred = $2 ORDER BY w.turn, w.position LIMIT {{limit}})
    UNION ALL
    (SELECT * FROM work AS w WHERE {_MAY_RUN} AND w.preferred IS NOT NULL AND w.preferred IS DISTINCT FROM $2
        AND w.hold_until <= (SELECT hive_now($3)) ORDER BY w.turn, w.position LIMIT {{limit}})
) AS found ORDER BY turn, position LIMIT {{limit}}"""
# Of such a page, what lies on a stretch of the ring; and its first and its last item, which tell where the queue begins and whether it
# goes on.
ON_STRETCH = f"""
SELECT {_COLUMNS} FROM (SELECT *, row_number() OVER (ORDER BY turn, position) AS number FROM ({CLAIMABLE}) AS page) AS page
WHERE number IN (1, {{limit}}) OR (position % {RING} * {STEP} - $6) & {RING - 1} < $7 ORDER BY number"""
STANDS = "SELECT q.queue, q.current, (SELECT coalesce(max(e.position), 0) FROM events AS e) FROM queues AS q WHERE q.queue = ANY ($1)"
# One index on one instant per row: when the clock must look at it next. The time in front is read after the one in the condition.
DUE = f"""
SELECT (SELECT hive_now($1)), {_COLUMNS} FROM work WHERE wake_at <= (SELECT hive_now($1)) ORDER BY wake_at, position LIMIT {{limit}}"""
# Claimed by a process that is gone; only leases that ended are looked through.
DEAD = f"""{_ROWS} WHERE lease_id IN (
    SELECT lease_id FROM leases WHERE closed_at IS NOT NULL OR expires_at <= (SELECT hive_now($1))) LIMIT {{limit}}"""
# A lease that holds work falls due when it ends.
NEXT_DUE = """
SELECT least(
    (SELECT min(wake_at) FROM work WHERE wake_at IS NOT NULL),
    (SELECT min(coalesce(l.closed_at, l.expires_at)) FROM leases AS l
        WHERE EXISTS (SELECT FROM work AS w WHERE w.lease_id = l.lease_id)))"""
# One row, and only if nobody holds it: an append that is about to change it goes first, and the clock comes back.
# The next wake-up is the timeouts' that run in the new state, as `WorkRow.wake` has it.
MAKE_READY = """
UPDATE work SET state = 'ready', ready_at = t.now, due_at = NULL,
    wake_at = least(inserted_at + total_timeout, t.now + waiting_timeout)
FROM (SELECT hive_now($2) AS now) AS t
WHERE work_id = (SELECT w.work_id FROM work AS w WHERE w.work_id = $1 AND w.state = 'delayed' AND w.cancel_requested = 0
    AND coalesce(w.due_at, 0) <= (SELECT hive_now($2)) FOR UPDATE SKIP LOCKED)"""
ALL = f"{_ROWS} ORDER BY position"
OF_CORRELATION = f"{_ROWS} WHERE correlation_id = $1 ORDER BY position"
ONE = f"{_ROWS} WHERE work_id = $1"
CANCELLED = "SELECT work_id FROM work WHERE lease_id = $1 AND cancel_requested = 1 ORDER BY position"


class PostgresWorkQueue:
    """The port `WorkQueue` on PostgreSQL. What it finds, the ``memory`` knows: an append that claims it need not read it again."""

    def __init__(self, database: Database, memory: Memory) -> None:
        self._database = database
        self._memory = memory
        self._starts = QueueStarts()

    async def claimable(
        self, queues: Sequence[str], *, limit: int, worker: str | None = None, stretch: Stretch | None = None
    ) -> list[WorkItem]:
        """Return ready items in turn order, without those that hold out for another worker."""
        wanted = list(dict.fromkeys(queues))
        begun = time.monotonic()
        whole = self._starts.whole_is_due(begun)
        if not whole and self._starts.stand_is_due(begun):
            stands = await self._database.fetch(STANDS, wanted)
            self._starts.stands({queue: (turn, head) for queue, turn, head in stands}, begun)
        starts = [START if whole else self._starts.start(queue) for queue in wanted]
        turns, positions = [turn for turn, _ in starts], [position for _, position in starts]
        statement = (CLAIMABLE if stretch is None else ON_STRETCH).format(limit=int(limit))
        rows = await self._rows(
            statement, wanted, worker, self._database.given_now(), turns, positions, *(stretch or ())
        )
        self._starts.looked(
            wanted,
            ((row.queue, (row.turn, row.position)) for row in rows if row.preferred is None),
            complete=stretch is None and len(rows) < limit,
            whole=whole,
            begun=begun,
            now=time.monotonic(),
        )
        for row in rows:
            self._memory.saw(row)
        return [item_of(row) for row in rows if stretch is None or stretch.distance(row.position) < stretch.length]

    async def due(self, *, limit: int) -> list[WorkItem]:
        """Return what the clock must act on, each with its reason; the earliest first."""
        given = self._database.given_now()
        found: dict[str, WorkItem] = {}
        for now, *values in await self._database.fetch(DUE.format(limit=int(limit)), given):
            row = WorkRow(*values)
            found[row.work_id] = item_of(row, reason_of(row, now))
        for row in await self._rows(DEAD.format(limit=int(limit)), given):
            found.setdefault(row.work_id, item_of(row, "lease"))
        return list(found.values())[:limit]

    async def next_due(self) -> int | None:
        """Return when the next item falls due; it may be past."""
        time: int | None = await self._database.fetchval(NEXT_DUE)
        return time

    async def make_ready(self, work_id: str) -> bool:
        """Turn a delayed item whose time has come into a ready one; False if it is none (any more), or is being changed."""
        if await self._database.execute(MAKE_READY, work_id, self._database.given_now()) != "UPDATE 1":
            return False
        self._starts.forget()
        return True

    async def items(self, correlation_id: str | None = None) -> list[WorkItem]:
        """Return open items in insertion order."""
        rows = await (self._rows(ALL) if correlation_id is None else self._rows(OF_CORRELATION, correlation_id))
        return [item_of(row) for row in rows]

    async def item(self, work_id: str) -> WorkItem | None:
        """Return an open item, None if it has ended or never was."""
        rows = await self._rows(ONE, work_id)
        return item_of(rows[0]) if rows else None

    async def cancelled(self, lease_id: str) -> list[str]:
        """Return what this lease holds and was asked to end."""
        return [row[0] for row in await self._database.fetch(CANCELLED, lease_id)]

    async def _rows(self, statement: str, *values: object) -> list[WorkRow]:
        return [WorkRow(*row) for row in await self._database.fetch(statement, *values)]
