"""Where is measured: a new database, and the fastest plain way to use the hive's own table in it."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.pairs import SLICE
from hive_bus import Event, open_bus
from hive_bus.ids import Ids
from hive_core_db.records import StoredEvent

CALLERS = 1000
BATCH = 500
PAGE = 1000
TOPIC = "bench.measured"
COLUMNS = ", ".join(StoredEvent._fields)
TEXT = "x" * 200


class Measured(Event, topic=TOPIC):
    """About 300 bytes, as the floors were measured with."""

    number: int
    name: str = "a measured event"
    text: str = TEXT


class Raw(ABC):
    """The floor: one plain connection that commits durably into the table of the hive, all indexes there."""

    def __init__(self) -> None:
        self._ids = Ids()
        self._versions = dict.fromkeys(range(CALLERS), 0)

    @abstractmethod
    async def head(self) -> int:
        """The last position."""

    @abstractmethod
    async def append(self, rows: Sequence[StoredEvent]) -> None:
        """One transaction."""

    @abstractmethod
    async def page(self, after: int) -> Sequence[Sequence[Any]]:
        """A page of whole rows."""

    async def settle(self) -> None:  # noqa: B027 - most have nothing to do
        """Between turns: what one side left to be done is not the other's to pay for."""

    async def rows(self, count: int) -> list[StoredEvent]:
        """Rows that are ready to be inserted: building them is not the floor's work."""
        head = await self.head()
        payload = '{"number":1,"name":"a measured event","text":"' + TEXT + '"}'
        rows = []
        for position in range(head + 1, head + 1 + count):
            caller = position % CALLERS
            self._versions[caller] = version = self._versions[caller] + 1
            now = time.time_ns() // 1000
            stream = f"raw-{id(self)}-{caller}"
            rows.append(
                StoredEvent(
                    position=position,
                    event_id=self._ids.event_id(now),
                    stream=stream,
                    version=version,
                    topic=TOPIC,
                    correlation_id=stream,
                    causation_id=None,
                    cause_position=None,
                    decided_by=None,
                    source="raw",
                    schema_version=1,
                    payload=payload,
                    metadata=None,
                    digest="0" * 64,
                    append_first=position,
                    occurred_at=now,
                    recorded_at=now,
                )
            )
        return rows

    async def commits(self, batch: int, seconds: float = SLICE) -> float:
        """Rows per second in commits of ``batch``, charged for its statements only."""
        done, spent = 0, 0.0
        while spent < seconds:
            ready = await self.rows(BATCH)
            for start in range(0, len(ready), batch):
                rows = ready[start : start + batch]
                begin = time.perf_counter()
                await self.append(rows)
                spent += time.perf_counter() - begin
            done += len(ready)
        return done / spent

    async def load(self, count: int) -> None:
        """So many events."""
        for _ in range(count // 5000):
            await self.append(await self.rows(5000))

    async def read_all(self, after: int) -> float:
        """Rows per second, the next page read while this one is walked."""
        begin, done = time.perf_counter(), 0
        following = asyncio.ensure_future(self.page(after))
        while rows := await following:
            following = asyncio.ensure_future(self.page(rows[-1][0]))
            for _ in rows:
                done += 1
        return done / (time.perf_counter() - begin)


class SqliteRaw(Raw):
    """The standard library: WAL, synchronous FULL."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("PRAGMA wal_autocheckpoint=0")
        self.db.execute("PRAGMA cache_size=-16000")
        self._pool = ThreadPoolExecutor(1)
        self._insert = f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join('?' * len(StoredEvent._fields))})"

    async def head(self) -> int:
        """The last position."""
        head: int = self.db.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
        return head

    async def append(self, rows: Sequence[StoredEvent]) -> None:
        """One transaction, on the calling thread."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(self._insert, rows)
        self.db.execute("COMMIT")

    async def page(self, after: int) -> Sequence[Sequence[Any]]:
        """A page of whole rows, read on a thread."""
        query = f"SELECT {COLUMNS} FROM events WHERE position > ? ORDER BY position LIMIT ?"
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: self.db.execute(query, (after, PAGE)).fetchall()
        )

    async def settle(self) -> None:
        """Fold the write-ahead log back: both sides pay for checkpoints at the same size, none inside a turn."""
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def round(self) -> float:
        """One raw commit and the read of its row, at once: the median in milliseconds."""
        times = []
        for row in await self.rows(200):
            begin = time.perf_counter()
            await self.append([row])
            self.db.execute("SELECT * FROM events WHERE position = ?", (row.position,)).fetchone()
            times.append(time.perf_counter() - begin)
        return statistics.median(times) * 1000

    def close(self) -> None:
        """End it."""
        self._pool.shutdown()
        self.db.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A prepared database and its floor."""

    kind: str
    url: str
    raw: Raw


Ground = Callable[[], AbstractAsyncContextManager[Place]]
"""Makes a place to measure in, as often as one is asked for."""


@asynccontextmanager
async def sqlite_place() -> AsyncIterator[Place]:
    """A new file, removed afterwards."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        url = f"sqlite:///{path}"
        await prepare(url)
        raw = SqliteRaw(path)
        try:
            yield Place(kind="sqlite", url=url, raw=raw)
        finally:
            raw.close()


async def prepare(url: str) -> None:
    """The hive's tables, made as opening a bus makes them."""
    async with open_bus(url, source="bench"):
        pass
