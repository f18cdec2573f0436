"""Schema, migrations and packaged DDL are one; a file is opened only when it is ours and of this version."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import hive_core_db
from hive_core_db import admin
from hive_core_db.admin import MIGRATIONS, check, stats, upgrade
from hive_core_db.engine import open_store
from hive_core_db.revision import HEAD, REVISIONS
from hive_core_db.schema import SQLITE_TRIGGERS, metadata
from hive_core_db.url import SqliteUrl, parse
from hive_errors.store import (
    NotADatabase,
    SchemaOutdated,
    SchemaTooNew,
    StoreError,
    StoreUnavailable,
    UnsupportedUrl,
)
from tests.contract.making import fill

# What an administrator calls blocks, and is called here where nothing else runs.
pytestmark = pytest.mark.may_block("the administrator's functions block")


def file_of(url: str) -> Path:
    """Return the file that an address names."""
    address = parse(url)
    assert isinstance(address, SqliteUrl)
    return address.path


def objects(url: str) -> dict[str, str]:
    """Return every object of a file's schema, its SQL without the whitespace."""
    db = sqlite3.connect(file_of(url))
    rows = db.execute("SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    db.close()
    return {name: " ".join(sql.split()).replace("( ", "(").replace(" )", ")") for name, sql in rows}


async def made(url: str) -> str:
    """Make a new file from the packaged DDL."""
    await (await open_store(url)).close()
    return url


async def test_the_packaged_ddl_is_what_the_migrations_lead_to(tmp_path: Path) -> None:
    """A new file and an upgraded one have the same tables, indexes and triggers, and the same revision."""
    fresh, migrated = await made(str(tmp_path / "fresh.db")), str(tmp_path / "migrated.db")
    assert upgrade(migrated).before is None
    assert objects(fresh) == objects(migrated)
    for url in (fresh, migrated):
        assert stats(url).revision == HEAD
        assert check(url).findings == ()


async def test_the_metadata_is_what_the_migrations_lead_to(tmp_path: Path) -> None:
    """Comparing finds no difference between the tables and the metadata."""
    url = await made(str(tmp_path / "hive.db"))
    engine = create_engine(f"sqlite:///{url}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    triggers = {" ".join(trigger.split()) for trigger in SQLITE_TRIGGERS}
    assert triggers == {sql for name, sql in objects(url).items() if name.startswith("trigger")}


def test_the_list_of_revisions_is_that_of_the_migrations() -> None:
    """Every migration is listed, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


async def test_an_upgraded_file_is_a_log(tmp_path: Path) -> None:
    """What `hive db upgrade` makes is opened and used like any other; upgrading again changes nothing."""
    url = str(tmp_path / "hive.db")
    upgrade(url)
    store = await open_store(url)
    await fill(store, 3)
    await store.close()
    assert upgrade(url).before == HEAD
    found = stats(url)
    assert (found.head, found.rows["events"], found.epoch, found.name) == (3, 3, 1, "hive")
    assert found.file_size > 0


async def test_a_file_of_the_first_revision_is_upgraded(tmp_path: Path) -> None:
    """It is refused until then; afterwards it has what a new one has, and everything that was in it."""
    url, fresh = await made(str(tmp_path / "old.db")), await made(str(tmp_path / "fresh.db"))
    store = await open_store(url)
    await fill(store, 3)
    await store.close()
    db = sqlite3.connect(url)
    with db:
        db.executescript("DROP TABLE limits; DROP TABLE limit_slots; DROP TABLE snapshots")
        db.execute("UPDATE alembic_version SET version_num = '0001'")
    db.close()
    with pytest.raises(SchemaOutdated, match="0001"):
        await open_store(url)
    assert upgrade(url).before == "0001"
    assert objects(url) == objects(fresh)
    store = await open_store(url)
    lease = await store.leases.open("worker", ttl=60_000_000)
    assert await store.limits.take("gpu", 2, lease.lease_id, 3) == 2
    await store.close()
    assert stats(url).head == 3


async def test_an_old_file_is_refused_with_the_command_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an earlier revision names `hive db upgrade`; nothing is changed in it."""
    url = await made(str(tmp_path / "hive.db"))
    stamp(url, "0000")
    monkeypatch.setattr("hive_core_db.sqlite.connection.REVISIONS", ("0000", *REVISIONS))
    with pytest.raises(SchemaOutdated) as caught:
        await open_store(url)
    assert (caught.value.found, caught.value.wanted) == ("0000", HEAD)
    assert "hive db upgrade" in caught.value.advice
    with pytest.raises(SchemaOutdated):
        stats(url)


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """A file of a later version is not touched, neither by opening nor by upgrading."""
    url = await made(str(tmp_path / "hive.db"))
    stamp(url, "9999")
    for call in (check, stats, upgrade):
        with pytest.raises(SchemaTooNew, match="9999"):
            call(url)
    with pytest.raises(SchemaTooNew):
        await open_store(url)


def stamp(url: str, revision: str) -> None:
    """Write a revision into a file."""
    db = sqlite3.connect(url)
    with db:
        db.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    db.close()


async def test_another_program_s_file_is_refused(tmp_path: Path) -> None:
    """A text file and a SQLite file of somebody else are left as they are."""
    text, foreign = tmp_path / "notes.txt", tmp_path / "foreign.db"
    text.write_text("not a database\n" * 100)
    db = sqlite3.connect(foreign)
    db.execute("CREATE TABLE events (id)")
    db.close()
    for path in (text, foreign):
        before = path.read_bytes()
        with pytest.raises(NotADatabase, match=path.name):
            await open_store(str(path))
        with pytest.raises(NotADatabase):
            check(str(path))
        with pytest.raises(NotADatabase):
            upgrade(str(path))
        assert path.read_bytes() == before


async def test_a_missing_file_is_made_only_if_wished(tmp_path: Path) -> None:
    """With its directory; ``create=False``, and people's commands, refuse what is not there."""
    url = f"sqlite:///{tmp_path}/deep/er/hive.db"
    with pytest.raises(StoreUnavailable, match="no such file"):
        await open_store(url, create=False)
    with pytest.raises(StoreUnavailable, match="no such file"):
        stats(url)
    assert not (tmp_path / "deep").exists()
    await made(url)
    await (await open_store(url, create=False)).close()
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(NotADatabase, match="empty"):
        await open_store(str(empty), create=False)


async def test_a_place_that_cannot_hold_a_file_is_named(tmp_path: Path) -> None:
    """A directory, and a path below a file."""
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "hive.db"):
        with pytest.raises(StoreUnavailable) as caught:
            await open_store(str(place))
        assert str(place) in str(caught.value)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("postgresql://me:secret@host/hive?color=red", "color"),
        ("mysql://host/x", "mysql"),
        ("sqlite://", "three slashes"),
        ("sqlite://host/x", "three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "memory"),
        (":memory:", "memory"),
        ("", "names no file"),
    ],
)
async def test_an_address_without_a_backend_names_what_there_is(url: str, word: str) -> None:
    """The error says what is wrong and what would be right, and keeps passwords to itself."""
    with pytest.raises(UnsupportedUrl, match=word) as caught:
        await open_store(url)
    assert "sqlite:///" in caught.value.advice
    assert "secret" not in str(caught.value)


def test_addresses_name_files() -> None:
    """Relative, absolute, plain, and with escaped characters."""
    here = Path.cwd()
    assert file_of("sqlite:///x/y.db") == here / "x/y.db"
    assert file_of("sqlite:////x/y.db") == Path("/x/y.db")
    assert file_of("x.db") == here / "x.db"
    assert file_of("sqlite:////x/my%20hive.db") == Path("/x/my hive.db")
    assert str(parse("/x/y.db")) == "sqlite:////x/y.db"


async def test_names_with_odd_characters_are_files(tmp_path: Path) -> None:
    """What an address may hold, SQLite opens."""
    url = str(tmp_path / "a b?c#d%20é.db")
    store = await open_store(url)
    await fill(store, 1)
    await store.close()
    assert stats(url).head == 1


@pytest.mark.parametrize("statement", ["UPDATE events SET payload = '{}'", "DELETE FROM events"])
async def test_events_are_changed_in_a_maintenance_session_only(tmp_path: Path, statement: str) -> None:
    """Without a row in `maintenance`, in the same transaction, the database itself refuses."""
    url = str(tmp_path / "hive.db")
    store = await open_store(url)
    await fill(store, 2)
    await store.close()
    db = sqlite3.connect(url, isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="maintenance session"):
        db.execute(statement)
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO maintenance (session, reason, began_at) VALUES ('s', 'test', 0)")
    assert db.execute(statement).rowcount == 2
    db.execute("ROLLBACK")
    db.close()


async def test_a_file_that_is_no_wal_is_made_one(tmp_path: Path) -> None:
    """Somebody changed the journal mode: opening changes it back."""
    url = await made(str(tmp_path / "hive.db"))
    db = sqlite3.connect(url)
    db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    await made(url)
    db = sqlite3.connect(url)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_the_door_offers_what_it_says() -> None:
    """Each name of `hive_core_db` is there; another is an AttributeError."""
    for name in hive_core_db.__all__:
        assert getattr(hive_core_db, name) is not None
    assert hive_core_db.upgrade is admin.upgrade
    with pytest.raises(AttributeError, match="nothing"):
        _ = hive_core_db.nothing


def test_opening_a_store_loads_no_sqlalchemy(tmp_path: Path) -> None:
    """Neither SQLAlchemy nor alembic is on the way to an open database, and importing the door loads no driver."""
    program = (
        "import sys, asyncio, hive_core_db, hive_core_db.records, hive_core_db.store, hive_core_db.engine\n"
        "assert 'sqlite3' not in sys.modules\n"
        f"store = asyncio.run(hive_core_db.open_store({str(tmp_path / 'hive.db')!r}, inline=True))\n"
        "assert store.url\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'sqlalchemy', 'alembic', 'pydantic', 'structlog'}, loaded\n"
    )
    # Without the variables that let coverage into the child: it brings a driver of its own.
    subprocess.run([sys.executable, "-c", program], check=True, env={})


def test_every_error_of_a_store_says_what_to_do() -> None:
    """A code of its own, a sentence, and a hint."""
    kinds = StoreError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(kind.hint and kind.__doc__ for kind in kinds)
