"""The schema on PostgreSQL: packaged DDL, migrations and metadata are one; only a schema that is ours is opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import make_url
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from hive_core_db.engine import open_store
from hive_core_db.postgres.driver import Connection, connect
from hive_core_db.postgres.upgrade import script
from hive_core_db.revision import HEAD
from hive_core_db.schema import metadata
from hive_core_db.url import PostgresUrl, parse
from hive_errors.store import NotADatabase, SchemaOutdated, SchemaTooNew, ServerUnsuitable, StoreUnavailable
from tests.conftest import NewDatabase
from tests.contract.making import fill
from tests.support.postgres import with_database

# Everything that a schema is made of, as the server describes it; `public.` and the like are left out by the search path.
OBJECTS = """
SELECT 'column ' || c.relname || '.' || a.attname,
    format_type(a.atttypid, a.atttypmod) || ' collate ' || coalesce(l.collname, '') || ' not null ' || a.attnotnull
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0
UNION ALL
SELECT 'table ' || relname, coalesce(array_to_string(reloptions, ' '), '') FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
UNION ALL
SELECT 'index ' || c.relname, pg_get_indexdef(c.oid) FROM pg_class AS c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'i'
UNION ALL
SELECT 'constraint ' || conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = current_schema()::regnamespace AND contype <> 'n'
UNION ALL
SELECT 'trigger ' || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function ' || oid::regprocedure, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"""
FROM_METADATA = ("column", "table", "index", "constraint")


def address_of(url: str) -> PostgresUrl:
    """The parsed address."""
    address = parse(url)
    assert isinstance(address, PostgresUrl)
    return address


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Connection]:
    """A connection of the test's own."""
    connection = await connect(address_of(url))
    try:
        yield connection
    finally:
        await connection.close()


async def run(url: str, text: str) -> None:
    """Run statements on a connection of one's own."""
    async with session(url) as connection:
        await connection.execute(text)


async def objects(url: str) -> dict[str, str]:
    """Return every object of a schema by its name."""
    async with session(url) as connection:
        rows = await connection.fetch(OBJECTS)
    assert rows
    return {row[0]: row[1] for row in rows}


async def made(url: str) -> str:
    """Make the schema from the packaged DDL."""
    await (await open_store(url)).close()
    return url


@pytest.fixture(scope="module")
def from_nothing() -> str:
    """The migrations' SQL for an empty schema; writing it loads alembic, which takes longer than a loop may wait."""
    return script(None)


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """An empty database; made here, for a test must not wait for it on its event loop."""
    return new_database()


@pytest.fixture
def other(new_database: NewDatabase) -> str:
    """Another empty database."""
    return new_database()


@pytest.fixture(params=[18, 16])
def pair(request: pytest.FixtureRequest, new_database: NewDatabase) -> tuple[str, str]:
    """Two empty databases on a server of each version."""
    return new_database(request.param), new_database(request.param)


async def test_the_packaged_ddl_is_what_the_migrations_lead_to(pair: tuple[str, str], from_nothing: str) -> None:
    """A new schema and an upgraded one have the same tables, columns, indexes, constraints, triggers and functions."""
    fresh, migrated = await made(pair[0]), pair[1]
    await run(migrated, from_nothing)
    assert await objects(fresh) == await objects(migrated)


async def test_the_metadata_is_what_the_migrations_lead_to(url: str, other: str) -> None:
    """What SQLAlchemy would make of the metadata is what there is, down to collations and storage settings."""
    dialect = make_url("postgresql+asyncpg://").get_dialect()()
    statements: list[ExecutableDDLElement] = []
    for table in metadata.sorted_tables:
        statements += [CreateTable(table), *map(CreateIndex, table.indexes)]
    described, fresh = other, await made(url)
    await run(described, ";\n".join(str(statement.compile(dialect=dialect)) for statement in statements))
    found = {name: text for name, text in (await objects(fresh)).items() if name.split()[0] in FROM_METADATA}
    ours = {name: text for name, text in found.items() if "alembic_version" not in name}
    assert await objects(described) == ours


async def test_an_older_schema_is_upgraded_from_where_it_is(url: str, other: str, from_nothing: str) -> None:
    """The SQL for a schema of an earlier revision holds only what came later, and leads to the same place."""
    old, fresh = other, await made(url)
    first = from_nothing.partition("-- Running upgrade 0001 -> 0002")[0]
    await run(old, first)
    with pytest.raises(SchemaOutdated, match="0001"):
        await open_store(old)
    await run(old, script("0001"))
    assert await objects(old) == await objects(fresh)
    await run(old, script(HEAD))
    assert await objects(old) == await objects(fresh)


async def test_processes_that_start_at_once_make_one_log(url: str) -> None:
    """Ten open an empty database together: one makes the schema, all find the same log."""
    stores = await asyncio.gather(*(open_store(url) for _ in range(10)))
    assert len({(await store.log.meta()).log_id for store in stores}) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_schema_of_its_own_is_made_and_keeps_to_itself(url: str) -> None:
    """Two logs live in one database, each in the schema that its address names; neither sees the other, nor ``public``."""
    one, two = with_database_schema(url, "one"), with_database_schema(url, "two")
    stores = [await open_store(address) for address in (one, two)]
    await fill(stores[0], 3)
    assert [await store.log.head() for store in stores] == [3, 0]
    for store in stores:
        await store.close()
    async with session(url) as connection:
        assert await connection.fetch("SELECT FROM pg_tables WHERE schemaname = 'public'") == []


def with_database_schema(url: str, schema: str) -> str:
    """The same database, with a schema."""
    return with_database(url, address_of(url).database or "", schema=schema)


async def test_a_newer_schema_is_refused(url: str) -> None:
    """A schema of a later version is not touched."""
    await made(url)
    await run(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="9999"):
        await open_store(url)


async def test_another_program_s_tables_are_left_alone(url: str) -> None:
    """A schema that holds a table of one of our names is another program's, and the hint knows a way."""
    await run(url, "CREATE TABLE events (id integer)")
    with pytest.raises(NotADatabase, match="events") as caught:
        await open_store(url)
    assert "schema" in caught.value.advice
    await made(with_database_schema(url, "hive"))


async def test_other_tables_beside_ours_are_fine(url: str) -> None:
    """A program that embeds the hive keeps its own tables in the same schema."""
    await run(url, "CREATE TABLE orders (id integer)")
    await made(url)


async def test_nothing_is_made_unless_wished(url: str) -> None:
    """``create=False`` refuses an empty database, and a database that is not there is named."""
    with pytest.raises(NotADatabase, match="no log"):
        await open_store(url, create=False)
    with pytest.raises(StoreUnavailable, match="does_not_exist"):
        await open_store(with_database(url, "does_not_exist"))


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("default_transaction_isolation = 'repeatable read'", "read committed"),
        ("synchronous_commit = off", "may be lost"),
    ],
)
async def test_a_database_that_breaks_a_promise_is_refused(url: str, setting: str, word: str) -> None:
    """Another isolation, or commits that do not wait for the disk: the hint has the statement that mends it."""
    name = address_of(url).database
    await run(url, f"ALTER DATABASE {name} SET {setting}")
    with pytest.raises(ServerUnsuitable, match=word) as caught:
        await open_store(url)
    assert f"ALTER DATABASE {name} SET" in caught.value.advice


@pytest.mark.parametrize("statement", ["UPDATE events SET payload = '{}'", "DELETE FROM events", "TRUNCATE events"])
async def test_events_are_changed_in_a_maintenance_session_only(url: str, statement: str) -> None:
    """Without a row in `maintenance`, in the same transaction, the database itself refuses, from whatever search path."""
    url = with_database_schema(url, "hive")
    async with await open_store(url) as store:
        await fill(store, 2)
    async with session(url) as connection:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="maintenance session"):
            await connection.execute(statement)
        await connection.execute("SET search_path = public")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="maintenance session"):
            await connection.execute(statement.replace("events", "hive.events"))
        await connection.execute("SET search_path = hive")
        async with connection.transaction():
            await connection.execute("INSERT INTO maintenance (session, reason, began_at) VALUES ('s', 'test', 0)")
            await connection.execute(statement)
            await connection.execute("DELETE FROM maintenance")
