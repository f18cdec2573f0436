"""A database copied into another, in every direction: nothing is lost, nothing is held, and a new epoch begins."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from hive_core_db.admin import check, copy, stats
from hive_core_db.admin.copying import LEFT_OUT, TABLES
from hive_core_db.admin.report import Copied
from hive_core_db.engine import open_store
from hive_core_db.records import Appended
from hive_core_db.schema import metadata
from hive_core_db.url import parse
from hive_errors.store import StoreUnavailable, TargetNotEmpty
from tests.conftest import NewDatabase
from tests.contract.making import event, fill, positions, verdict
from tests.contract.making import request as append_request
from tests.support.lived import audited, live
from tests.support.postgres import with_options

# What an administrator calls blocks, and is called here where nothing else runs.
pytestmark = pytest.mark.may_block("the administrator's functions block")


class _Stopped(Exception):
    """Somebody stops a copy."""


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that a copy may go to, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'copies' / 'copy.db'}"
    new_database: NewDatabase = request.getfixturevalue("new_database")
    return new_database()


async def lived(url: str) -> str:
    """Let a little of everything happen at an address."""
    async with await open_store(url) as store:
        await live(store)
    return url


async def copied(source: str, target: str, **options: Any) -> Copied:
    """Copy, beside the loop: it blocks."""
    return await asyncio.to_thread(lambda: copy(source, target, **options))


def test_every_table_is_copied_or_left_out_for_a_reason() -> None:
    """A new table cannot be forgotten."""
    assert {*TABLES, *LEFT_OUT} == set(metadata.tables)
    assert not set(TABLES) & set(LEFT_OUT)


async def test_a_copy_holds_everything(hive_url: str, target: str) -> None:
    """Row by row, with the log's id; what is counted is there, and the audit of the copy is clean."""
    await lived(hive_url)
    done = await copied(hive_url, target)
    before, after = stats(hive_url), stats(target)
    assert (after.log_id, after.head, after.epoch) == (before.log_id, before.head, before.epoch)
    assert {name: after.rows[name] for name in TABLES if name != "leases"} == {
        name: before.rows[name] for name in TABLES if name != "leases"
    }
    assert done.rows == {name: after.rows[name] for name in TABLES}
    assert (done.head, done.log_id) == (before.head, before.log_id)
    assert await audited(target) == []
    assert check(target).findings == ()
    async with await open_store(hive_url) as old, await open_store(target) as new:
        rows = await old.log.read(0, limit=1000)
        assert await new.log.read(0, limit=len(rows)) == rows
        assert [row.body for row in await new.views.rows("v", 1)] == [row.body for row in await old.views.rows("v", 1)]
        assert await new.checkpoints.parked() == await old.checkpoints.parked()


async def test_a_copy_is_another_database(hive_url: str, target: str) -> None:
    """Its first opening begins a new epoch, far above every position of the source; the source goes on as it was."""
    await lived(hive_url)
    await copied(hive_url, target)
    async with await open_store(hive_url) as old, await open_store(target) as new:
        theirs, ours = await old.log.meta(), await new.log.meta()
        assert (ours.log_id, ours.epoch, theirs.epoch) == (theirs.log_id, 2, 1)
        assert ours.database_id != theirs.database_id
        head = await old.log.head()
        first = await verdict(new, append_request(event("copy"), epoch=2))
        assert isinstance(first, Appended)
        assert first.first >= head + 1_000_000
        assert positions(await new.log.read(head, limit=10)) == [first.first]
        assert [(epoch.number, epoch.first_position) for epoch in await new.log.epochs()] == [(1, 1), (2, first.first)]
        assert (await fill(old, 1))[0].position == head + 1
    assert await audited(target) == []


async def test_nobody_holds_anything_in_a_copy(hive_url: str, target: str) -> None:
    """Partitions are free, and work that was claimed is found by the clock, as that of a process that died."""
    await lived(hive_url)
    await copied(hive_url, target)
    async with await open_store(hive_url) as old, await open_store(target) as new:
        (claimed,) = [item for item in await old.work.items() if item.state == "claimed"]
        due = {item.work_id: item.reason for item in await new.work.due(limit=10)}
        assert due == {claimed.work_id: "lease"}
        assert await new.leases.live() == []
        before, after = await old.checkpoints.partitions("g"), await new.checkpoints.partitions("g")
        assert [row.lease_id for row in after] == [None, None]
        assert [row.position for row in after] == [row.position for row in before]
        lease = await new.leases.open("somebody", ttl=10**7)
        await new.checkpoints.join("g", lease.lease_id)
        taken = await new.checkpoints.take("g", 0, lease.lease_id)
        assert taken is not None
        assert taken.fence > before[0].fence


async def test_there_and_back_is_the_same(hive_url: str, target: str, tmp_path: Path) -> None:
    """The digest of a copy of a copy is that of the copy: no value changes on the way."""
    await lived(hive_url)
    there = await copied(hive_url, target)
    back = await copied(target, str(tmp_path / "back.db"))
    # The first copy closed the lease and forgot the identity; the second finds both so.
    assert (back.digest, back.rows) == (there.digest, there.rows)


async def test_a_source_in_use_is_copied_as_of_one_moment(hive_url: str, target: str) -> None:
    """What is appended meanwhile is in the copy up to some position, and nothing beyond it."""
    await lived(hive_url)
    async with await open_store(hive_url) as store, asyncio.TaskGroup() as tasks:
        copying = tasks.create_task(copied(hive_url, target))
        while not copying.done():
            await fill(store, 20, stream="busy")
        done = await copying
        assert done.head <= await store.log.head()
    assert stats(target).head == done.head
    assert await audited(target) == []


async def test_what_is_there_is_never_overwritten(hive_url: str, target: str) -> None:
    """A target with a log in it is refused, and is what it was; a source that is not there is an error."""
    await lived(hive_url)
    with pytest.raises(StoreUnavailable):
        await copied(f"{hive_url}-not-there", target)
    async with await open_store(target) as store:
        await fill(store, 2)
    with pytest.raises(TargetNotEmpty, match="not empty"):
        await copied(hive_url, target)
    assert (stats(target).head, stats(target).epoch) == (2, 1)


async def test_a_copy_that_fails_leaves_nothing(hive_url: str, target: str) -> None:
    """Stopped in the middle of the events, the target is as empty as before, and takes the next copy."""
    await lived(hive_url)

    def stopped(table: str, _done: int, _total: int) -> None:
        if table == "events":
            raise _Stopped

    with pytest.raises(_Stopped):
        await copied(hive_url, target, progress=stopped)
    address = parse(target)
    if target.startswith("sqlite"):
        assert list(Path(target.removeprefix("sqlite:///")).parent.iterdir()) == []
    else:
        assert stats(address.url).rows["events"] == 0
    told: list[tuple[str, int, int]] = []
    await copied(hive_url, target, progress=lambda *words: told.append(words))
    assert ("events", stats(target).head, stats(target).head) in told
    assert await audited(target) == []


async def test_into_a_schema_of_its_own(hive_url: str, new_database: NewDatabase) -> None:
    """Several logs share a database, each in its schema; a copy goes where its address says."""
    await lived(hive_url)
    database = new_database()
    targets = [with_options(database, schema=name) for name in ("first", "second")]
    for target in targets:
        await copied(hive_url, target)
        assert await audited(target) == []
    (found,) = {stats(target).log_id for target in targets}
    assert found == stats(hive_url).log_id


async def test_twenty_thousand_events_go_from_a_file_to_a_server(tmp_path: Path, new_database: NewDatabase) -> None:
    """They audit clean there, and memory did not grow with them."""
    source, target = str(tmp_path / "hive.db"), new_database()
    async with await open_store(source) as store:
        await fill(store, 20_000, batch=500, payload='{"text":"' + "x" * 400 + '"}')
    tracemalloc.start()
    try:
        done = await copied(source, target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.rows["events"] == 20_000
    assert peak < 8_000_000, peak
    assert await audited(target) == []
