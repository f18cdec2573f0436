"""Figures about the whole store, for people who look at it: each question reads a bounded number of rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from hive_core_db.records import QueueDepth, RunWork
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
COUNT = "SELECT count(*) FROM (SELECT 1 FROM events WHERE topic = ? AND position > ? LIMIT ?)"


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
            return [
                QueueDepth(
                    queue=queue,
                    ready=ready.get(queue, (0, None))[0],
                    delayed=resting.get((queue, "delayed"), 0),
                    waiting=resting.get((queue, "waiting"), 0),
                    claimed=claimed.get(queue, (0, None))[0],
                    oldest_ready_at=ready.get(queue, (0, None))[1],
                    oldest_claimed_at=claimed.get(queue, (0, None))[1],
                )
                for queue in sorted({*ready, *claimed, *(queue for queue, _ in resting)})
            ]

        return await self._runner.read(job)

    async def runs(self, *, limit: int) -> list[RunWork]:
        """Return the open work of each correlation, the most first, from at most ``limit`` items."""

        def job(db: sqlite3.Connection) -> list[RunWork]:
            return run_work(db.execute(OF_RUNS, (limit,)).fetchall())

        return await self._runner.read(job)

    async def counts(self, topics: Sequence[str], *, after: int, limit: int) -> dict[str, int]:
        """Return how many events of each topic lie above ``after``; at most ``limit`` are counted of each."""

        def job(db: sqlite3.Connection) -> dict[str, int]:
            return {topic: db.execute(COUNT, (topic, after, limit)).fetchone()[0] for topic in topics}

        return await self._runner.read(job)


def run_work(rows: Sequence[tuple[str, str, int, int]]) -> list[RunWork]:
    """Rows of (correlation, state, count, since) as one figure for each correlation, the most work first."""
    states: dict[str, dict[str, int]] = {}
    since: dict[str, int] = {}
    for correlation_id, state, count, inserted_at in rows:
        states.setdefault(correlation_id, {})[state] = count
        since[correlation_id] = min(since.get(correlation_id, inserted_at), inserted_at)
    found = [
        RunWork(
            correlation_id=correlation_id,
            ready=counted.get("ready", 0),
            delayed=counted.get("delayed", 0),
            waiting=counted.get("waiting", 0),
            claimed=counted.get("claimed", 0),
            since=since[correlation_id],
        )
        for correlation_id, counted in states.items()
    ]
    return sorted(found, key=lambda run: (-run.open, run.since, run.correlation_id))


def _queues(db: sqlite3.Connection) -> Iterator[str]:
    queue: str | None = ""
    while (queue := db.execute(NEXT_QUEUE, (queue,)).fetchone()[0]) is not None:
        yield queue
