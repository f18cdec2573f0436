"""Making the schema, checking it, and checking that the server keeps what the hive promises. Knows no ports."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final

from hive_core_db.postgres.driver import Connection
from hive_core_db.postgres.identity import IDENTITY
from hive_core_db.revision import HEAD, REVISIONS
from hive_core_db.url import PostgresUrl
from hive_errors.store import NotADatabase, SchemaOutdated, SchemaTooNew, ServerUnsuitable, StoreUnreachable

_DDL = Path(__file__).parent.parent / "ddl"
OLDEST_SERVER: Final = 140000

# Whoever makes or upgrades a schema holds this lock, until the end of the transaction; two processes may start at once.
LOCK_SCHEMA = "SELECT pg_advisory_xact_lock(1212765766, hashtext($1))"
SERVER = """
SELECT current_setting('server_version_num')::integer, current_setting('transaction_isolation'),
    current_setting('synchronous_commit'), current_setting('server_encoding'), pg_is_in_recovery(),
    current_setting('search_path')"""
# The tables of the schema that new tables would go to (none if there is no such schema yet).
TABLES = """
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""
REVISION = "SELECT version_num FROM alembic_version"
FIRST_META = """
INSERT INTO log_meta (id, name, log_id, epoch, database_id, first_position, created_at)
VALUES (1, $1, $2, 1, $3, 1, hive_now($4))"""
FIRST_EPOCH = """
INSERT INTO epochs (epoch, epoch_id, first_position, began_at, reason) VALUES (1, $1, 1, hive_now($2), 'the log was made')"""


def tables() -> str:
    """The statements that make the tables of a new schema."""
    return (_DDL / "postgres.sql").read_text(encoding="utf-8")


def functions() -> str:
    """The statements that make this version's functions, or replace those of an older one."""
    files = (_DDL / name for name in ("postgres_functions.sql", "postgres_append.sql", "postgres_limits.sql"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.exists())


async def check_server(connection: Connection, url: PostgresUrl) -> None:
    """Check that the server keeps what a log needs.

    Raises:
        ServerUnsuitable: It is too old, isolates or commits in another way, or keeps no Unicode.
        StoreUnreachable: It is a standby now.
    """
    row = await connection.fetchrow(SERVER)
    assert row is not None
    version, isolation, commit, encoding, standby, path = row
    address, database = str(url), url.database or "DATABASE"
    if version < OLDEST_SERVER:
        raise ServerUnsuitable(
            url=address,
            reason=f"its server is PostgreSQL {version // 10000}",
            advised="use PostgreSQL 14 or later",
        )
    if isolation != "read committed":
        # A transaction that keeps its first snapshot would judge by what was true before it waited for the lock.
        raise ServerUnsuitable(
            url=address,
            reason=f"transactions are {isolation} by default, not read committed",
            advised=f"ALTER DATABASE {database} SET default_transaction_isolation = 'read committed', or the same for the role",
        )
    if commit == "off":
        raise ServerUnsuitable(
            url=address,
            reason="synchronous_commit is off, so what is reported as stored may be lost",
            advised=f"ALTER DATABASE {database} SET synchronous_commit = on, or the same for the role",
        )
    if encoding != "UTF8":
        raise ServerUnsuitable(
            url=address,
            reason=f"its encoding is {encoding}, not UTF8",
            advised="CREATE DATABASE hive ENCODING 'UTF8' TEMPLATE template0, and name that",
        )
    if url.schema is not None and path.strip('"') != url.schema:
        raise ServerUnsuitable(
            url=address,
            reason=f"`schema` is {url.schema}, but something on the way keeps search_path at {path}",
            advised="take search_path out of PgBouncer's ignore_startup_parameters; leave `schema` out of the address, and "
            f"ALTER ROLE ... IN DATABASE {database} SET search_path = {url.schema}",
        )
    if standby:
        raise StoreUnreachable(url=address, reason="its server is a standby, which takes no writes")


async def prepare(connection: Connection, url: PostgresUrl, *, name: str, given_now: int | None, create: bool) -> None:
    """Make the schema where there is none, check it anywhere else.

    Raises:
        NotADatabase: Its tables are another program's, or there is no log and ``create`` is false.
        SchemaOutdated: It must be upgraded first.
        SchemaTooNew: A newer version wrote it.
    """
    if await check(connection, url):
        return
    if not create:
        raise NotADatabase(url=str(url), reason="it holds no log yet")
    async with connection.transaction():
        await lock_schema(connection, url)
        # Of two processes that start at once, the one that gets the lock second finds everything made.
        if not await check(connection, url):
            await make(connection, name, given_now)


async def lock_schema(connection: Connection, url: PostgresUrl) -> None:
    """Be the only one who changes the schema until the end of the transaction, and make sure that there is one."""
    await connection.execute(LOCK_SCHEMA, url.schema or "")
    if url.schema is not None:
        # The address allows only letters, digits and underscores.
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{url.schema}"')


async def make(connection: Connection, name: str, given_now: int | None) -> None:
    """Make tables and functions, and a log of that name with its first epoch."""
    await connection.execute(tables())
    await connection.execute(functions())
    await connection.execute("INSERT INTO alembic_version (version_num) VALUES ($1)", HEAD)
    await first_epoch(connection, name, given_now)


async def first_epoch(connection: Connection, name: str, given_now: int | None) -> None:
    """Give a new log its identity: a random id of its own, epoch 1, and the database that it lies in."""
    identity = await connection.fetchval(IDENTITY)
    await connection.execute(FIRST_META, name, secrets.token_hex(16), identity, given_now)
    await connection.execute(FIRST_EPOCH, secrets.token_hex(16), given_now)


async def check(connection: Connection, url: PostgresUrl) -> bool:
    """Return whether the schema is there and this version's (False: there is nothing yet), or raise why it cannot be used."""
    found = await revision_of(connection, url)
    if found is None:
        return False
    if found == HEAD:
        return True
    outcome = SchemaOutdated if found in REVISIONS else SchemaTooNew
    raise outcome(url=str(url), found=found, wanted=HEAD)


async def revision_of(connection: Connection, url: PostgresUrl) -> str | None:
    """Return the schema's revision, None if there is none of our tables.

    Raises:
        NotADatabase: Another program has tables of these names there.
    """
    present = {row[0] for row in await connection.fetch(TABLES)}
    if {"log_meta", "alembic_version"} <= present:
        found = await connection.fetchval(REVISION)
        return None if found is None else str(found)
    taken = present & set(re.findall(r"CREATE TABLE (\w+)", tables()))
    if taken:
        raise NotADatabase(
            url=str(url), reason=f"another program has tables of these names: {', '.join(sorted(taken))}"
        )
    return None
