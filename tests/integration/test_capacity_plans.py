"""A claim reads the head of an index, whatever else is in the queue: the databases' own plans say so."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from hive_core_db.engine import open_store
from hive_core_db.postgres.work import CLAIMABLE
from hive_core_db.sqlite.work import READY
from hive_core_db.store import Store
from tests.conftest import NewDatabase
from tests.contract.making import START, Clock, insert
from tests.support.postgres import psql
from tests.support.tables import change, rows

READY_ROWS = 20_000
LIMIT = 16


async def crowded(url: str) -> Store:
    """A store whose queue holds very many items that may run, and as many that may not."""
    store = await open_store(url, now=Clock())
    pattern = await insert(store, queue="q")
    names = [
        name for (name,) in rows(url, "SELECT name FROM pragma_table_info('work')" if "sqlite" in url else COLUMNS)
    ]
    for state, first in (("ready", 1), ("waiting", READY_ROWS + 1)):
        new = {"work_id": "'item-' || n", "position": "position + n", "turn": "turn + n", "state": f"'{state}'"}
        values = ", ".join(new.get(name, name) for name in names)
        last = first + READY_ROWS - 1
        many = f"WITH RECURSIVE many (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM many WHERE n < {last})"
        copies = f"{many} SELECT {values} FROM many, (SELECT * FROM work WHERE work_id = '{pattern}') AS pattern"
        await asyncio.to_thread(change, url, f"INSERT INTO work ({', '.join(names)}) {copies}", "ANALYZE")
    return store


COLUMNS = (
    "SELECT attname AS name FROM pg_attribute WHERE attrelid = 'work'::regclass AND attnum > 0 AND NOT attisdropped"
)


@pytest.mark.may_block("the planner is asked on the loop")
async def test_sqlite_claims_from_the_index_of_what_may_run(tmp_path: Any) -> None:
    """No sort, no scan: the partial index in its own order."""
    url = f"sqlite:///{tmp_path}/h.db"
    store = await crowded(url)
    try:
        with closing(sqlite3.connect(tmp_path / "h.db")) as db:
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {READY}", ("q", None, LIMIT))]
        assert plan == ["SEARCH work USING INDEX work_ready (queue=? AND preferred=?)"]
        assert len(await store.work.claimable(["q"], limit=LIMIT, worker="ada")) == LIMIT
    finally:
        await store.close()


@pytest.fixture(params=[18, 16])
def postgres_url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """A new database of each version; its server is started outside of the test's loop."""
    return new_database(request.param)


async def test_postgres_claims_from_the_index_of_what_may_run(postgres_url: str) -> None:
    """It reads no more rows than it gives, in the index's order; what prefers others is found by an index of its own."""
    store = await crowded(postgres_url)
    try:
        text = CLAIMABLE.format(limit=LIMIT)
        for number, value in enumerate(["ARRAY['q']", "'ada'", START, "ARRAY['-infinity']", "ARRAY[0]"], 1):
            text = text.replace(f"${number}", str(value))
        (plan,) = json.loads(await asyncio.to_thread(psql, postgres_url, f"EXPLAIN (ANALYZE, FORMAT JSON) {text}"))
        scans = list(nodes(plan["Plan"], "Scan"))
        used = [scan for scan in scans if scan.get("Relation Name") == "work"]
        assert {scan["Node Type"] for scan in used} <= {"Index Scan", "Index Only Scan"}, plan
        assert {scan["Index Name"] for scan in used} <= {"work_ready", "work_held_out"}
        assert max(scan["Actual Rows"] for scan in used) <= LIMIT
        assert len(await store.work.claimable(["q"], limit=LIMIT, worker="ada")) == LIMIT
    finally:
        await store.close()


def nodes(plan: dict[str, Any], kind: str) -> Any:
    """Every node of a plan whose type has this word."""
    if kind in plan["Node Type"]:
        yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part, kind)
