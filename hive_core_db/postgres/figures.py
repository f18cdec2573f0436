"""Figures about the whole store, for people who look at it: each question reads a bounded number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hive_core_db.postgres.database import Database
from hive_core_db.records import QueueDepth, RunWork
from hive_core_db.rows import queue_depths, run_work

_MAY_RUN = "state = 'ready' AND cancel_requested = 0"
# From queue to queue through the partial index: a million items of one queue are one step.
READY = f"""
WITH RECURSIVE names (queue) AS (
    (SELECT queue FROM work WHERE {_MAY_RUN} ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT w.queue FROM work AS w WHERE {_MAY_RUN} AND w.queue > n.queue ORDER BY w.queue LIMIT 1)
    FROM names AS n WHERE n.queue IS NOT NULL
)
SELECT n.queue, found.number, found.oldest FROM names AS n, LATERAL (
    SELECT count(*) AS number, min(f.ready_at) AS oldest FROM (
        SELECT w.ready_at FROM work AS w WHERE {_MAY_RUN} AND w.queue = n.queue
        ORDER BY w.preferred, w.turn, w.position LIMIT {{limit}}) AS f
) AS found WHERE n.queue IS NOT NULL"""
CLAIMED = "SELECT queue, count(*), min(claimed_at) FROM work WHERE lease_id IS NOT NULL GROUP BY queue"
AT_REST = """
SELECT queue, state, count(*) FROM (SELECT queue, state FROM work LIMIT {limit}) AS part
WHERE state IN ('delayed', 'waiting') GROUP BY queue, state"""
OF_RUNS = """
SELECT correlation_id, state, count(*), min(inserted_at) FROM (
    SELECT correlation_id, state, inserted_at FROM work LIMIT {limit}) AS part GROUP BY correlation_id, state"""
# The index alone: no event is looked at.
COUNTS = """
SELECT t.name, (SELECT count(*) FROM (
    SELECT FROM events AS e WHERE (e.topic, e.position) > (t.name, $2::bigint) AND (e.topic, e.position) <= (t.name, $3::bigint)
    ORDER BY e.topic, e.position LIMIT {limit}) AS part)
FROM unnest($1::text[]) AS t (name)"""

_FOREVER: Final = 2**63 - 1


class PostgresFigures:
    """The port `Figures` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def queues(self, *, limit: int) -> list[QueueDepth]:
        """Return what is open in each queue, by name; at most ``limit`` items of a kind are counted."""
        ready = {row[0]: (row[1], row[2]) for row in await self._database.fetch(READY.format(limit=int(limit)))}
        claimed = {row[0]: (row[1], row[2]) for row in await self._database.fetch(CLAIMED)}
        rows = await self._database.fetch(AT_REST.format(limit=int(limit)))
        resting = {(row[0], row[1]): row[2] for row in rows}
        return queue_depths(ready, claimed, resting)

    async def runs(self, *, limit: int) -> list[RunWork]:
        """Return the open work of each correlation, the most first, from at most ``limit`` items."""
        rows = await self._database.fetch(OF_RUNS.format(limit=int(limit)))
        return run_work([(row[0], row[1], row[2], row[3]) for row in rows])

    async def counts(
        self, topics: Sequence[str], *, after: int, limit: int, until: int | None = None
    ) -> dict[str, int]:
        """Return how many events of each topic lie above ``after``, up to ``until``; at most ``limit`` are counted of each."""
        last = _FOREVER if until is None else until
        rows = await self._database.fetch(COUNTS.format(limit=int(limit)), list(topics), after, last)
        return {row[0]: row[1] for row in rows}
