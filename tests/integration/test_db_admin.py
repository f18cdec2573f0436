"""upgrade, check, stats, backup and restore, of both databases, and what `hive db` says of them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hive_core_db.admin import backup, begin_epoch, check, restore, stats, upgrade
from hive_core_db.admin.server import examine
from hive_core_db.engine import open_store
from hive_core_db.records import Appended, FencedOff, StoredEvent
from hive_core_db.revision import HEAD
from hive_core_db.store import Store
from hive_errors.store import (
    DoneElsewhere,
    NotADatabase,
    SchemaTooNew,
    StoreBusy,
    StoreUnavailable,
    StoreUnreachable,
    TargetNotEmpty,
    UnsupportedUrl,
)
from tests.conftest import NewDatabase
from tests.contract.making import event, fill, positions, request, verdict
from tests.support.console import Console, screen
from tests.support.lived import audited, live
from tests.support.postgres import psql

# What an administrator calls blocks, and is called here where nothing else runs.
pytestmark = pytest.mark.may_block("the administrator's functions block")

BREAK_AN_INDEX = """
SET allow_system_table_mods = on;
UPDATE pg_index SET indisready = false WHERE indexrelid = 'topics_pkey'::regclass;
INSERT INTO topics VALUES ('a.topic'), ('another.topic');
UPDATE pg_index SET indisready = true WHERE indexrelid = 'topics_pkey'::regclass;"""


# The extension is not among what the tests' servers bring.
AN_AMCHECK = """
SET allow_system_table_mods = on;
CREATE FUNCTION bt_index_check(index regclass, heapallindexed boolean) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
    IF index = 'events_topic'::regclass THEN
        RAISE 'item order invariant violated' USING ERRCODE = 'index_corrupted';
    END IF;
END
$body$;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
VALUES (99999, 'amcheck', 10, current_schema()::regnamespace, false, '1.5');"""


async def lived(url: str) -> str:
    """Let a little of everything happen at an address."""
    async with await open_store(url) as store:
        await live(store)
    return url


@pytest.fixture(params=[18, 16])
def empty(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """An empty database on a server of each version."""
    return new_database(request.param)


async def test_an_empty_database_becomes_a_log(empty: str) -> None:
    """Of several upgrades at once one makes it; it is opened like any other, and upgraded again without effect."""
    done = await asyncio.gather(*(asyncio.to_thread(upgrade, empty) for _ in range(4)))
    assert sorted(one.before or "" for one in done) == ["", HEAD, HEAD, HEAD]
    assert {one.after for one in done} == {HEAD}
    assert (await asyncio.to_thread(upgrade, empty)).before == HEAD
    await lived(empty)
    assert await audited(empty) == []
    psql(empty, "UPDATE alembic_version SET version_num = '9999'")
    for action in (upgrade, check, stats):
        with pytest.raises(SchemaTooNew, match="9999"):
            await asyncio.to_thread(action, empty)


async def test_a_log_of_the_first_revision_is_upgraded(new_database: NewDatabase) -> None:
    """What an older version made is brought up to date; what it holds stays."""
    url = new_database()
    await asyncio.to_thread(upgrade, url)
    async with await open_store(url) as store:
        await fill(store, 3)
    psql(url, "DROP TABLE limits, limit_slots, snapshots; UPDATE alembic_version SET version_num = '0001'")
    assert (await asyncio.to_thread(upgrade, url)).before == "0001"
    async with await open_store(url) as store:
        assert positions(await fill(store, 1)) == [4]


async def test_stats_count_what_is_there(hive_url: str) -> None:
    """Rows, the head, and the bytes of tables and indexes."""
    await lived(hive_url)
    found = await asyncio.to_thread(stats, hive_url)
    assert (found.head, found.rows["events"], found.rows["partitions"], found.epoch) == (16, 16, 2, 1)
    assert found.rows["work"] == 1
    assert found.file_size > 0
    assert found.sizes["events"] > 0
    assert found.indexes["events_correlation"] > 0


async def test_a_sound_database_passes(hive_url: str) -> None:
    """And it is said what was looked at."""
    await lived(hive_url)
    found = await asyncio.to_thread(check, hive_url)
    assert found.findings == ()
    assert "index" in found.looked_at[0]


async def test_an_index_that_lost_rows_is_found(new_log: NewDatabase) -> None:
    """Its table counts more than it does; a trigger that somebody switched off is named too."""
    url = new_log()
    psql(url, BREAK_AN_INDEX)
    found = await asyncio.to_thread(check, url)
    assert found.findings == ("index topics_pkey of topics has 0 rows, the table has 2",)
    psql(url, "REINDEX TABLE topics; ALTER TABLE events DISABLE TRIGGER events_no_change")
    found = await asyncio.to_thread(check, url)
    assert [line.partition(" is ")[0] for line in found.findings] == ["trigger events_no_change"]


async def test_the_extension_that_looks_deeper_is_asked(new_log: NewDatabase) -> None:
    """Where `amcheck` is installed and may be used, what it says of an index is a finding; here a function stands in for it."""
    url = new_log()
    psql(url, AN_AMCHECK)
    found = await asyncio.to_thread(check, url)
    assert "amcheck" in found.looked_at[0]
    assert found.findings == ("index events_topic of events: item order invariant violated",)
    psql(
        url,
        "REVOKE ALL ON FUNCTION bt_index_check FROM PUBLIC; CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader",
    )
    found = await asyncio.to_thread(check, url.replace("hive@", "reader@"))
    psql(url, "DROP OWNED BY reader; DROP ROLE reader")
    assert (found.findings, "counting" in found.looked_at[0]) == ((), True)


@pytest.mark.parametrize("action", [check, stats, lambda url: begin_epoch(url, reason="no")])
async def test_what_is_no_log_is_said(new_database: NewDatabase, action: Callable[[str], Any]) -> None:
    """An empty database, another program's, and a server that is not there."""
    url = new_database()
    with pytest.raises(NotADatabase):
        await asyncio.to_thread(action, url)
    psql(url, "CREATE TABLE events (id integer)")
    with pytest.raises(NotADatabase):
        await asyncio.to_thread(action, url)
    with pytest.raises(StoreUnreachable):
        await asyncio.to_thread(action, "postgresql://hive@127.0.0.1:1/hive")


@pytest.mark.sqlite_only("a backup in one file is SQLite's")
async def test_a_backup_is_put_back(hive_url: str, tmp_path: Path) -> None:
    """Taken while somebody writes, it audits clean; restored, the log goes on above all that was there."""
    file = tmp_path / "backups" / "monday.db"
    async with await open_store(hive_url) as store:
        await live(store)
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(asyncio.to_thread(backup, hive_url, file))
            await fill(store, 30)
        saved = taking.result()
        await fill(store, 30)
        head = await store.log.head()
        assert saved.head < head
        assert await audited(str(file)) == []
        # With the store open: a restore is one change, and whoever has the database open is of another epoch then.
        back = await asyncio.to_thread(restore, hive_url, file)
        assert await store.log.head() == saved.head == back.head
        assert await verdict(store, request(event())) == FencedOff("epoch", 1, 2)
    assert (back.epoch, back.first_position > head) == (2, True)
    async with await open_store(hive_url) as store:
        assert positions(await _appended(store)) == [back.first_position]
    assert await audited(hive_url) == []
    assert list(file.parent.iterdir()) == [file]


async def _appended(store: Store) -> Sequence[StoredEvent]:
    """Append one event in the store's present epoch."""
    found = await verdict(store, request(event(), epoch=(await store.log.meta()).epoch))
    assert isinstance(found, Appended), found
    return found.events


@pytest.mark.sqlite_only("a backup in one file is SQLite's")
async def test_two_restores_are_two_epochs(hive_url: str, tmp_path: Path) -> None:
    """The second one's number is above the first one's, though the backup knows of neither."""
    file = tmp_path / "monday.db"
    async with await open_store(hive_url) as store:
        await fill(store, 2)
    await asyncio.to_thread(backup, hive_url, file)
    first = await asyncio.to_thread(restore, hive_url, file)
    async with await open_store(hive_url) as store:
        await _appended(store)
        second = await asyncio.to_thread(restore, hive_url, file)
        assert await verdict(store, request(event(), epoch=2)) == FencedOff("epoch", 2, 3)
    assert (first.epoch, second.epoch) == (2, 3)
    assert second.first_position > first.first_position + 1
    assert await audited(hive_url) == []


@pytest.mark.sqlite_only("a backup in one file is SQLite's")
async def test_a_backup_that_is_opened_is_a_database_of_its_own(hive_url: str, tmp_path: Path) -> None:
    """Nobody said restore, but a copy has no identity: it begins an epoch, and both go on apart."""
    file = tmp_path / "copy.db"
    async with await open_store(hive_url) as store:
        await fill(store, 2)
        await asyncio.to_thread(backup, hive_url, file)
        async with await open_store(str(file)) as copy:
            assert (await copy.log.meta()).epoch == 2
        assert positions(await fill(store, 1)) == [3]


@pytest.mark.sqlite_only("a backup in one file is SQLite's")
async def test_backups_overwrite_nothing_and_take_no_rubbish(hive_url: str, tmp_path: Path) -> None:
    """A file that is there stays; what is no backup is refused, and the database is what it was."""
    async with await open_store(hive_url) as store:
        await fill(store, 2)
    taken, rubbish, empty = (tmp_path / name for name in ("taken.db", "rubbish.db", "empty.db"))
    taken.write_text("precious")
    with pytest.raises(TargetNotEmpty):
        backup(hive_url, taken)
    assert taken.read_text() == "precious"
    rubbish.write_bytes(b"rubbish " * 1000)
    with closing(sqlite3.connect(empty)) as db:
        db.execute("PRAGMA user_version=1")
    for file in (rubbish, empty):
        with pytest.raises(NotADatabase):
            restore(hive_url, file)
    with pytest.raises(StoreUnavailable):
        restore(hive_url, tmp_path / "nothing.db")
    assert (stats(hive_url).head, stats(hive_url).epoch) == (2, 1)


@pytest.mark.sqlite_only("a backup in one file is SQLite's")
async def test_a_restore_waits_for_a_lock_but_not_for_ever(
    hive_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that holds the file keeps what was there; when it lets go, the backup is put back."""
    file = tmp_path / "monday.db"
    async with await open_store(hive_url) as store:
        await fill(store, 2)
    await asyncio.to_thread(backup, hive_url, file)
    monkeypatch.setattr("hive_core_db.admin.sqlite.BUSY_TIMEOUT", 0.05)
    with closing(sqlite3.connect(hive_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await asyncio.to_thread(restore, hive_url, file)
        other.execute("COMMIT")
    assert (stats(hive_url).head, stats(hive_url).epoch) == (2, 1)
    assert (await asyncio.to_thread(restore, hive_url, file)).epoch == 2
    assert sorted(path.name for path in tmp_path.iterdir() if "restoring" in path.name) == []


def test_postgresql_has_tools_of_its_own(new_log: NewDatabase, tmp_path: Path) -> None:
    """They are named."""
    with pytest.raises(DoneElsewhere) as caught:
        backup(new_log(), tmp_path / "file")
    assert "pg_dump" in caught.value.advice
    with pytest.raises(DoneElsewhere, match="restore"):
        restore(new_log(), tmp_path / "file")


def test_a_server_is_examined(new_log: NewDatabase, tmp_path: Path) -> None:
    """Version, isolation, distance, clock and room, as seen from here; a file has no server."""
    found = examine(new_log(16) + "&pool_size=7")
    assert found.version_number // 10000 == 16
    assert (found.isolation, found.wanted, found.standby, found.has_log) == ("read committed", 11, False, True)
    assert (found.may_write, found.encoding) == (True, "UTF8")
    assert 0 < found.round_trip < 30_000_000
    assert abs(found.clock_ahead) < 30_000_000
    assert 0 < found.free < found.most_connections
    with pytest.raises(UnsupportedUrl):
        examine(str(tmp_path / "hive.db"))


def test_the_commands_on_a_pipe(console_database: str, tmp_path: Path) -> None:
    """Each says what it did, for people and as JSON; no address shows a password."""
    console = Console(tmp_path, console_database)
    assert console("db", "upgrade").out.rstrip().endswith(f"new -> {HEAD}")
    assert console("db", "upgrade", "--json").json[0]["after"] == HEAD
    assert console("publish", "shop.opened", "{}", "--raw").code == 0
    done = console("db", "check")
    assert (done.code, "sound" in done.out, "looked at" in done.err) == (0, True, True)
    assert console("db", "check", "--json").json[0]["findings"] == []
    assert console("db", "stats", "--json").json[0]["head"] == 1
    shown = console("db", "stats").out
    assert "events" in shown
    assert "events_correlation" in shown
    copy = console("db", "copy", console.url, "copy.db")
    assert (copy.code, "digest" in copy.out) == (0, True)
    again = console("db", "copy", console.url, "copy.db")
    assert (again.code, "is not empty" in again.err) == (1, True)
    assert console("db", "copy", console.url, "other.db", "--json").json[0]["rows"]["events"] == 1
    assert console("audit", "--db", "copy.db").code == 0
    assert "a copy.db'" in console("db", "copy", console.url, "a copy.db").err
    assert "epoch 2 begins at" in console("db", "epoch", "--reason", "a test").out
    assert console("db", "epoch").code == 2
    assert console("db", "copy", "only-one.db").code == 2
    saved = console("db", "backup", "saved.db", "--db", "other.db")
    assert (saved.code, (tmp_path / "saved.db").exists()) == (0, True)
    assert "epoch 2 begins at" in console("db", "restore", "saved.db", "--db", "copy.db").out


def test_a_copy_draws_how_far_it_is(tmp_path: Path) -> None:
    """On a terminal, and nothing of it is left when it is done; the text is that of a pipe."""
    console = Console(tmp_path)
    assert console("publish", "shop.opened", "{}", "--raw").code == 0
    code, written = console.terminal("db", "copy", ".hive/hive.db", "drawn.db")
    piped = console("db", "copy", ".hive/hive.db", "piped.db")
    assert (code, piped.code) == (0, 0)
    assert "compare events" in written
    assert [line.replace("drawn", "piped").rstrip() for line in screen(written).splitlines() if line.strip()] == [
        line.rstrip() for line in (piped.out + piped.err).splitlines()
    ]


def test_doctor_looks_at_the_server(new_database: NewDatabase, tmp_path: Path) -> None:
    """Before there is a log and after; what the tests' server does without is a problem, as it should be."""
    console = Console(tmp_path, new_database())
    found = {one["name"]: one for one in console("doctor", "--json").json}
    assert found["server"]["found"].startswith("PostgreSQL 18")
    assert {name: found[name]["level"] for name in ("isolation", "clock", "connections")} == {
        "isolation": "ok",
        "clock": "ok",
        "connections": "ok",
    }
    assert found["round trip"]["level"] in {"ok", "note"}, "a busy machine is a distance too"
    assert (found["durability"]["level"], found["database"]["level"]) == ("problem", "note")
    assert console("db", "upgrade").code == 0
    found = {one["name"]: one for one in console("doctor", "--json").json}
    assert found["database"]["level"] == "ok"
    gone = console("doctor", "--json", "--db", "postgresql://hive:secret@127.0.0.1:1/hive")
    assert "secret" not in gone.out + gone.err
    assert {one["name"]: one["level"] for one in gone.json}["database"] == "problem"
