"""Files that are damaged, jump, or get in each other's way: what the store says, and that it goes on."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from hive_core_db.engine import open_store
from hive_core_db.records import Appended
from hive_core_db.sqlite.connection import connect, fold_wal, translate
from hive_core_db.store import Store
from hive_errors.store import LogCorrupt, NotADatabase, StoreBusy, StoreFull, StoreUnavailable
from tests.contract.making import SECOND, START, Clock, appended, event, fill, positions, request
from tests.support.tables import sqlite_url

pytestmark = pytest.mark.sqlite_only("about what can happen to a file")


def tamper(url: str, *statements: str) -> None:
    """Change a file behind the store's back, without its triggers."""
    db = sqlite3.connect(sqlite_url(url).path)
    with db:
        db.execute("INSERT INTO maintenance VALUES ('test', 'test', 0)")
        for statement in statements:
            db.execute(statement)
        db.execute("DELETE FROM maintenance")
    db.close()


@pytest.mark.parametrize("gone", [1, 3])
async def test_a_hole_is_corruption_and_raises(hive_url: str, gone: int) -> None:
    """A reader is never led over a missing position."""
    async with await open_store(hive_url) as store:
        await fill(store, 5)
        tamper(hive_url, f"DELETE FROM events WHERE position = {gone}")
        with pytest.raises(LogCorrupt) as caught:
            await store.log.read(0, limit=10)
        assert caught.value.position == gone
        assert positions(await store.log.read(3, limit=10)) == [4, 5]


async def test_numbers_may_jump_where_an_epoch_begins(hive_url: str) -> None:
    """A new epoch begins above every number that the old one showed; reads and times go across."""
    clock = Clock()
    store = await open_store(hive_url, now=clock)
    await fill(store, 3)
    tamper(
        hive_url,
        "INSERT INTO epochs VALUES (2, 'two', 1000, 0, 'restored from a backup')",
        "UPDATE log_meta SET epoch = 2",
    )
    clock.pass_time(10)
    (old, new) = await store.log.append([request(event()), request(event("s"), epoch=2)])
    assert not isinstance(old, Appended)
    assert isinstance(new, Appended)
    assert (new.first, new.events[0].version) == (1000, 1)
    clock.pass_time(10)
    await appended(store, event("s"), epoch=2)
    assert positions(await store.log.read(0, limit=10)) == [1, 2, 3, 1000, 1001]
    found = [await store.log.position_at(START + seconds * SECOND) for seconds in (-1, 0, 9, 10, 19, 20, 99)]
    assert found == [0, 3, 3, 1000, 1000, 1001, 1001]
    await store.close()


async def test_a_body_that_is_gone_is_corruption(hive_url: str) -> None:
    """A row whose large payload was lost does not read as an empty one."""
    async with await open_store(hive_url) as store:
        await appended(store, event(payload="x" * 70_000))
        tamper(hive_url, "DELETE FROM blobs")
        with pytest.raises(LogCorrupt, match="is gone"):
            await store.log.read(0, limit=10)


async def test_a_log_without_identity_is_corruption(hive_url: str) -> None:
    """Neither read nor written."""
    async with await open_store(hive_url) as store:
        tamper(hive_url, "DELETE FROM log_meta")
        with pytest.raises(LogCorrupt, match="log_meta"):
            await store.log.meta()
        with pytest.raises(LogCorrupt, match="log_meta"):
            await store.log.append([request(event())])


@pytest.mark.parametrize("inline", [True, False])
async def test_a_file_that_becomes_garbage_is_an_error_not_a_crash(hive_url: str, inline: bool) -> None:
    """Overwritten behind the store's back: each call says what is wrong, and closing still works."""
    store = await open_store(hive_url, inline=inline)
    await fill(store, 3)
    await store.close()
    path = sqlite_url(hive_url).path
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:4096] + b"garbage!" * ((size - 4096) // 8))
    with pytest.raises((LogCorrupt, StoreUnavailable, NotADatabase)):
        await (await open_store(hive_url, inline=inline)).log.read(0, limit=10)


async def test_a_reader_in_the_way_only_delays_the_fold(hive_url: str) -> None:
    """While somebody holds an old snapshot, the write-ahead log is not folded, and appends go on."""
    url = sqlite_url(hive_url)
    async with await open_store(hive_url) as store:
        await fill(store, 3)
        reader = sqlite3.connect(url.path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        await fill(store, 3)
        other = connect(url, busy_timeout=5.0)
        wal = url.path.with_name(url.path.name + "-wal")
        size = wal.stat().st_size
        assert fold_wal(other, wal, limit=0) > size
        assert wal.stat().st_size == size
        reader.close()
        await fill(store, 1)
        assert fold_wal(other, wal, limit=0) == 16 * 1024 * 1024
        assert wal.stat().st_size == 0
        assert fold_wal(other, wal, limit=0) == 0
        assert fold_wal(other, wal.with_name("nothing"), limit=7) == 16 * 1024 * 1024
        assert other.execute("PRAGMA busy_timeout").fetchone() == (5000,)
        other.close()


async def test_opening_waits_for_another_program(tmp_path: Path) -> None:
    """A new file that somebody holds for a moment is made when they let go; held for too long, it is busy."""
    path = tmp_path / "hive.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE held (x)")
    other.execute("DROP TABLE held")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreBusy):
        await open_store(str(path), busy_timeout=0.05)
    letting_go = threading.Timer(0.1, lambda: other.execute("COMMIT"))
    letting_go.start()
    store = await open_store(str(path), busy_timeout=10.0)
    letting_go.join()
    await fill(store, 1)
    await store.close()
    other.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StoreBusy),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy),
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_CORRUPT, LogCorrupt),
        (sqlite3.SQLITE_NOTADB, NotADatabase),
        (sqlite3.SQLITE_IOERR_READ, StoreUnavailable),
        (sqlite3.SQLITE_READONLY, StoreUnavailable),
        (None, StoreUnavailable),
    ],
)
def test_each_kind_of_driver_error_has_its_own(hive_url: str, code: int | None, kind: type[Exception]) -> None:
    """What SQLite reports by number is said by name, with the file's address."""
    error = sqlite3.OperationalError("it failed")
    if code is not None:
        error.sqlite_errorcode = code
    assert isinstance(translate(error, sqlite_url(hive_url), 1.0), kind)


async def test_a_caller_whose_loop_is_gone_harms_nobody(hive_url: str) -> None:
    """A loop that was closed while its job ran: the job is done, the store goes on for others."""
    store = await open_store(hive_url)

    def abandon() -> None:
        loop = asyncio.new_event_loop()

        async def ask() -> None:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(store.log.append([request(event("s"))]))
                await asyncio.sleep(0)
                waiting.cancel()

        loop.run_until_complete(ask())
        loop.close()

    await asyncio.to_thread(abandon)
    await appended(store, event("s"))
    assert positions(await store.log.read_stream("s")) in ([1], [1, 2])
    await store.close()


async def test_a_simulation_stops_callers_around_each_job(hive_url: str) -> None:
    """With ``pause``, an inline store yields before and after every job, and only there."""
    stops: list[int] = []

    async def pause() -> None:
        stops.append(1)
        await asyncio.sleep(0)

    store: Store = await open_store(hive_url, inline=True, pause=pause, durable=False)
    opening = len(stops)
    await store.log.append([request(event())])
    await store.log.head()
    assert opening == 2
    assert len(stops) == opening + 4
    assert await store.log.poll() == 1
    await store.close()
    await store.close()
