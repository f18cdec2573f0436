"""Sessions beside the hive's own: what an administrator, a stuck client or a slow commit does to a PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hive_core_db.postgres.driver import Connection, connect
from hive_core_db.url import PostgresUrl, parse
from tests.support.patience import WITHIN

SLOW = "slow.commit"
"""Events of this topic do not commit while a `Gate` is closed."""
_HOLD = f"""
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER held AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.topic = '{SLOW}') EXECUTE FUNCTION hold()"""
# In a statement of its own, so that this one is no waiter.
_WAITING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {which}"
_AT_GATE = "objid = 77"
_AT_HEAD = "classid = 1212765765"


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Connection]:
    """A session of one's own; what it holds ends with it."""
    address = parse(url)
    assert isinstance(address, PostgresUrl)
    connection = await connect(address)
    try:
        yield connection
    finally:
        connection.terminate()


async def true(connection: Connection, query: str, *values: object) -> None:
    """Return when a query finds something that is true."""
    async with asyncio.timeout(WITHIN):
        while not await connection.fetchval(query, *values):
            await asyncio.sleep(0)


class Gate:
    """Holds transactions that append a `SLOW` event between their last statement and the end of their commit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def reached(self) -> int:
        """Return when a commit waits at the gate: the number of its server process."""
        return await self._waiting(_AT_GATE)

    async def queued(self) -> int:
        """Return when an append waits for the head lock."""
        return await self._waiting(_AT_HEAD)

    async def open(self) -> None:
        """Let commits pass from now on."""
        await self._connection.execute("SELECT pg_advisory_unlock(77)")

    async def _waiting(self, which: str) -> int:
        query = _WAITING.format(which=which)
        await true(self._connection, f"SELECT EXISTS ({query})")
        pid: int = await self._connection.fetchval(query)
        return pid


@asynccontextmanager
async def gate(url: str) -> AsyncIterator[Gate]:
    """A closed gate in a database whose schema is there; it is open at the end."""
    async with session(url) as connection:
        await connection.execute(_HOLD)
        await connection.execute("SELECT pg_advisory_lock(77)")
        yield Gate(connection)
