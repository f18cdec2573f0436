"""The statements that run all the time are answered by their indexes, whatever the statistics say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from hive_core_db.engine import open_store
from hive_core_db.postgres import event_log as log
from hive_core_db.postgres import groups, leases, snapshots, views, work
from hive_core_db.postgres.database import Database
from hive_core_db.postgres.store import PostgresStore
from tests.conftest import NewDatabase

# How a statement may not be answered: by reading a whole table, or by an index that leaves rows out one by one.
SCANS = ("Seq Scan on events", "Seq Scan on work", "Seq Scan on view_rows", "Bitmap", "Hash")

STATEMENTS = {
    "a page": (log.PAGE, "events_pkey"),
    "a topic": (log.ONE_TOPIC.format(order="ASC", limit=1000), "events_topic"),
    "a topic backwards": (log.ONE_TOPIC.format(order="DESC", limit=20), "events_topic"),
    "topics": (log.TOPICS_PAGE.format(order="ASC", limit=1000), "events_topic"),
    "a stream": (log.STREAM.format(only="", limit=1000), "events_stream_version"),
    "a correlation": (log.CORRELATION.format(only="", limit=1000), "events_correlation"),
    "topics of a correlation": (log.CORRELATION.format(only=log.OF_TOPICS, limit=1000), "events_correlation"),
    "decisions": (log.CORRELATION.format(only=log.DECIDED.format(n=4), limit=1000), "events_correlation"),
    "the end of a correlation": (log.LAST_OF_CORRELATION, "events_correlation"),
    "the n-th of a correlation": (log.NTH_OF_CORRELATION, "events_correlation"),
    "an event": (log.ONE, "events_event_id"),
    "correlations": (log.CORRELATIONS, "events_correlation"),
    "a time": (log.POSITION_AT, "events_pkey"),
    "the head": (log.HEAD, "events_pkey"),
    "what may run": (work.CLAIMABLE.format(limit=50), "work_ready"),
    "what may run on a stretch": (work.ON_STRETCH.format(limit=50), "work_ready"),
    "what is due": (work.DUE.format(limit=50), "work_wake"),
    "whose owner is gone": (work.DEAD.format(limit=50), "work_of_lease"),
    "an item": (work.ONE, "work_pkey"),
    "what is asked to end": (work.CANCELLED, "work_of_lease"),
    "a document": (views.GET, "view_rows"),
    "documents": (views.PAGE_BEHIND.format(limit=100), "view_rows_now"),
    "a snapshot": (snapshots.NEAREST, "snapshots_pkey"),
    "partitions": (groups.PARTITIONS, "partitions_pkey"),
    "a renewal": (leases.RENEW, "leases_pkey"),
}
# An index in the wanted order: nothing is sorted but what several of them found.
UNSORTED = (
    "a page",
    "a topic",
    "a topic backwards",
    "a stream",
    "a correlation",
    "topics of a correlation",
    "decisions",
    "documents",
)


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """An empty database."""
    return new_database()


@pytest.fixture
async def pool(url: str) -> AsyncIterator[Database]:
    """The connections of a store on tables that are empty and were never analysed: the planner knows nothing."""
    async with await open_store(url) as store:
        assert isinstance(store, PostgresStore)
        yield store._database


async def plan_of(pool: Database, statement: str) -> str:
    """The plan that a session of the store makes, without values."""
    nothing = ", ".join(["NULL"] * max(map(int, re.findall(r"\$(\d+)", statement)), default=0))
    async with pool.connection() as connection:
        await connection.execute(f"PREPARE this AS {statement}")
        rows = await connection.fetch("EXPLAIN EXECUTE this" + (f" ({nothing})" if nothing else ""))
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("what", STATEMENTS)
async def test_a_statement_is_answered_by_its_index(pool: Database, what: str) -> None:
    """The plan names the index that the statement was written for, and reads no table from end to end."""
    statement, index = STATEMENTS[what]
    plan = await plan_of(pool, statement)
    assert f"using {index}" in plan or f"using {index}_pkey" in plan, plan
    assert [scan for scan in SCANS if scan in plan] == [], plan
    if what in UNSORTED:
        assert "Sort" not in plan, plan


async def test_rare_topics_are_found_where_they_are_however_common_they_seem(pool: Database) -> None:
    """The statistics say that a topic is everywhere, and behind the reader there is none: the index says so at once."""
    await pool.execute(
        "INSERT INTO events SELECT n, n::text, 's', n, CASE WHEN n <= 5000 THEN 'common' ELSE 'other' END, 'c', NULL, NULL, NULL, '', 1,"
        " '', NULL, '', n, n, n FROM generate_series(1, 10000) AS n"
    )
    await pool.execute("ANALYZE events")
    statement = log.ONE_TOPIC.format(order="ASC", limit=1000)
    async with pool.connection() as connection:
        await connection.execute(f"PREPARE late (text, bigint, bigint) AS {statement}")
        rows = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF) EXECUTE late ('common', 6000, 10000)"
        )
    plan = "\n".join(row[0] for row in rows)
    assert "Rows Removed" not in plan, plan
    assert "using events_topic" in plan, plan
