"""Figures about the whole store, for people who look at it: each question reads a bounded number of rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from hive_core_db.records import QueueDepth, RunWork
from hive_core_db.rows import queue_depths, run_work
from hive_core_db.sqlite.runner import Runner

_MAY_RUN = "state = 'ready' AND cancel_requested = 0"
# From queue to queue through the partial index: a million items of one queue are one step.
NEXT_QUEUE = f"SELECT min(queue) FROM work WHERE {_MAY_RUN} AND queue > ?"
READY = f"""
SELECT count(*), min(ready_at) FROM (SELECT ready_at FROM work WHERE {_MAY_RUN} AND queue = ? ORDER BY preferred, turn, position LIMIT ?)"""
CLAIMED = "SELECT queue, count(*), min(claimed_at) FROM work WHERE lease_id IS NOT NULL GROUP BY queue"
AT_REST = """
SELECT queue, state, count(*) FROM (SELECT queue, state FROM work LIMIT ?)
WHERE state IN ('delayed', 'waiting') GROUP BY queue, state"""
OF_RUNS = """
SELECT correlation_id, state, count(*), min(inserted_at) FROM (SELECT correlation_id, state, inserted_at FROM work LIMIT ?)
GROUP BY correlation_id, state"""
# The index alone: no event is looked at.
COUNT = "SELECT count(*) FROM (SELECT 1 FROM events WHERE topic = ? AND position > ? AND position <= ? LIMIT ?)"

_FOREVER: Final = 2**63 - 1


class SqliteFigures:
    """The port `Figures` on SQLite."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def queues(self, *, limit: int) -> list[QueueDepth]:
        """Return what is open in each queue, by name; at most ``limit`` items of a kind are counted."""

        def job(db: sqlite3.Connection) -> list[QueueDepth]:
            ready = {queue: db.execute(READY, (queue, limit)).fetchone() for queue in _queues(db)}
            claimed = {row[0]: row[1:] for row in db.execute(CLAIMED)}
            resting = {(row[0], row[1]): row[2] for row in db.execute(AT_REST, (limit,))}
            return queue_depths(ready, claimed, resting)

        return await self._runner.read(job)

    async def runs(self, *, limit: int) -> list[RunWork]:
        """Return the open work of each correlation, the most first, from at most ``limit`` items."""

        def job(db: sqlite3.Connection) -> list[RunWork]:
            return run_work(db.execute(OF_RUNS, (limit,)).fetchall())

        return await self._runner.read(job)

    async def counts(
        self, topics: Sequence[str], *, after: int, limit: int, until: int | None = None
    ) -> dict[str, int]:
        """Return how many events of each topic lie above ``after``, up to ``until``; at most ``limit`` are counted of each."""
        last = _FOREVER if until is None else until

        def job(db: sqlite3.Connection) -> dict[str, int]:
            return {topic: db.execute(COUNT, (topic, after, last, limit)).fetchone()[0] for topic in topics}

        return await self._runner.read(job)


def _queues(db: sqlite3.Connection) -> Iterator[str]:
    queue: str | None = ""
    while (queue := db.execute(NEXT_QUEUE, (queue,)).fetchone()[0]) is not None:
        yield queue
