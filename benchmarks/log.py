"""Append, catch-up, fold and latency on SQLite, each against the standard library on the same table."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from benchmarks.pairs import PAIRS, SLICE, Figure, Slice, figure, paired, rate
from hive_bus import Brain, Bus, Event, Input, Record, open_bus
from hive_bus.groups import GroupMember, Owned
from hive_bus.ids import Ids
from hive_bus.session import Folder, load
from hive_core_db.records import StoredEvent

CALLERS = 1000
BATCH = 500
CATCH_UP = 200_000
PAGE = 1000


class Measured(Event, topic="bench.measured"):
    """About 300 bytes, as the floors were measured with."""

    number: int
    name: str = "a measured event"
    text: str = "x" * 200


COLUMNS = len(StoredEvent._fields)
INSERT = f"INSERT INTO events ({', '.join(StoredEvent._fields)}) VALUES ({', '.join('?' * COLUMNS)})"


class Raw:
    """The floor: one connection of the standard library, WAL, synchronous FULL, on the hive's own table."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("PRAGMA wal_autocheckpoint=0")
        self.db.execute("PRAGMA cache_size=-16000")
        self._ids = Ids()
        self._versions = dict.fromkeys(range(CALLERS), 0)

    def rows(self, count: int) -> list[StoredEvent]:
        """Rows that are ready to be inserted: building them is not the floor's work."""
        head = self.db.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
        payload = '{"number":1,"name":"a measured event","text":"' + "x" * 200 + '"}'
        rows = []
        for position in range(head + 1, head + 1 + count):
            caller = position % CALLERS
            self._versions[caller] = version = self._versions[caller] + 1
            now = time.time_ns() // 1000
            stream = f"raw-{caller}"
            rows.append(
                StoredEvent(
                    position=position,
                    event_id=self._ids.event_id(now),
                    stream=stream,
                    version=version,
                    topic="bench.measured",
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

    def append(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """One transaction."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(INSERT, rows)
        self.db.execute("COMMIT")

    def fold_wal(self) -> None:
        """Between slices: both sides pay for checkpoints at the same size, none of them inside a slice."""
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@asynccontextmanager
async def fresh() -> AsyncIterator[tuple[Bus, Raw]]:
    """A new file, open from both sides."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "bench.db"
        async with open_bus(f"sqlite:///{path}", source="bench") as bus:
            raw = Raw(path)
            yield bus, raw
            raw.db.close()


async def publish_many() -> Figure:
    """1,000 concurrent callers against executemany in transactions of 500 rows."""
    async with fresh() as (bus, raw):

        async def candidate(seconds: float) -> int:
            deadline = time.perf_counter() + seconds
            counts = await asyncio.gather(*(_publish_until(bus, deadline, f"caller-{n}") for n in range(CALLERS)))
            return sum(counts)

        return await _against_commits("publish, 1,000 callers", raw, BATCH, candidate, must=0.55, aim=0.70)


async def publish_one() -> Figure:
    """One caller that waits for each, against raw single-row commits."""
    async with fresh() as (bus, raw):

        async def candidate(seconds: float) -> int:
            return await _publish_until(bus, time.perf_counter() + seconds, "one")

        return await _against_commits("publish, one caller", raw, 1, candidate, must=0.40, aim=0.50)


async def _publish_until(bus: Bus, deadline: float, stream: str) -> int:
    done = 0
    while time.perf_counter() < deadline:
        await bus.publish(Measured(number=done), stream=stream)
        done += 1
    return done


async def _against_commits(name: str, raw: Raw, batch: int, candidate: Slice, *, must: float, aim: float) -> Figure:
    """Take turns with raw commits of ``batch`` rows, which are charged for their statements only, not for making rows."""
    rows = []
    for _ in range(PAIRS + 1):
        raw.fold_wal()
        commits = _raw_commits(raw, batch, SLICE)
        raw.fold_wal()
        rows.append((commits, await rate(candidate)))
    # The first pair warms up.
    return figure(name, rows[1:], must=must, aim=aim, unit="events/s")


def _raw_commits(raw: Raw, batch: int, seconds: float) -> float:
    done, spent = 0, 0.0
    while spent < seconds:
        ready = raw.rows(500)
        for start in range(0, len(ready), batch):
            rows = ready[start : start + batch]
            begin = time.perf_counter()
            raw.append(rows)
            spent += time.perf_counter() - begin
        done += len(ready)
    return done / spent


class Nothing:
    """A consumer that does nothing, one awaited call per record."""

    def __init__(self) -> None:
        self.done = 0

    async def assigned(self, partition: Owned) -> None:
        """Nothing to prepare."""

    async def revoked(self, partition: Owned) -> None:
        """Nothing to clear away."""

    async def handle(self, partition: Owned, page: Sequence[Record]) -> None:
        """Await a handler for each record."""
        for record in page:
            await self.handler(record)

    async def handler(self, record: Record) -> None:
        """Does nothing."""
        self.done += 1


async def catch_up() -> Figure:
    """A group catches up on 200,000 events, against a prefetching raw page read of the same table."""
    async with fresh() as (bus, raw):
        for _ in range(CATCH_UP // 5000):
            raw.append(raw.rows(5000))
        raw.fold_wal()
        head = await bus.tail.refresh()
        serial = iter(range(1000))

        async def floor(_: float) -> int:
            return await _read_all(raw)

        async def candidate(_: float) -> int:
            consumer = Nothing()
            member = GroupMember(
                bus, group=f"bench-{next(serial)}", patterns=("bench.measured",), key="stream", consumer=consumer
            )
            async with asyncio.TaskGroup() as group:
                task = group.create_task(member.run())
                await member.caught_up(head, within=120)
                task.cancel()
            return consumer.done

        return await paired(
            "catch-up of a group", floor=floor, candidate=candidate, must=0.60, aim=0.80, unit="events/s", pairs=4
        )


async def _read_all(raw: Raw) -> int:
    """Pages of 1,000, the next one read while this one is walked."""
    loop = asyncio.get_running_loop()

    def page(after: int) -> list[Any]:
        query = f"SELECT {', '.join(StoredEvent._fields)} FROM events WHERE position > ? ORDER BY position LIMIT ?"
        return raw.db.execute(query, (after, PAGE)).fetchall()

    done = 0
    with ThreadPoolExecutor(1) as pool:
        following = loop.run_in_executor(pool, page, 0)
        while rows := await following:
            following = loop.run_in_executor(pool, page, rows[-1][0])
            for _ in rows:
                done += 1
    return done


class Counting(Brain[dict[str, int]]):
    """A brain that counts by number."""

    name = "counting"
    folds = ("bench.>",)

    def initial(self) -> dict[str, int]:
        """No counts."""
        return {"events": 0, "sum": 0}

    def evolve(self, state: dict[str, int], record: Input) -> dict[str, int]:
        """One more."""
        event = record.event
        assert isinstance(event, Measured)
        return {"events": state["events"] + 1, "sum": state["sum"] + event.number}

    def decide(self, state: dict[str, int], record: Input) -> list[Event]:
        """Nothing follows."""
        return []


async def fold() -> Figure:
    """A stored history through a brain, payloads decoded, against the same read with JSON decoding."""
    count = 20_000
    async with fresh() as (bus, _):
        await asyncio.gather(*(bus.publish(Measured(number=n), correlation_id="history") for n in range(count)))
        folder = Folder(Counting())

        async def floor(seconds: float) -> int:
            deadline, done = time.perf_counter() + seconds, 0
            while time.perf_counter() < deadline:
                after = 0
                while page := await bus.store.log.read_correlation("history", after=after, limit=PAGE):
                    for row in page:
                        orjson.loads(row.payload)
                    done += len(page)
                    after = page[-1].position
            return done

        async def candidate(seconds: float) -> int:
            deadline, done = time.perf_counter() + seconds, 0
            while time.perf_counter() < deadline:
                session = await load(folder, bus.store.log, "history", upto=10**12)
                done += session.state["events"]
            return done

        return await paired("fold of a history", floor=floor, candidate=candidate, must=0.65, aim=0.85, unit="events/s")


async def latency() -> Figure:
    """Publish to handler in one process, against one raw commit plus read: medians in milliseconds."""
    async with fresh() as (bus, raw):
        arrived: deque[float] = deque()
        gate = asyncio.Event()

        async def follow() -> None:
            async with bus.subscribe("bench.measured") as records:
                gate.set()
                async for _ in records:
                    arrived.append(time.perf_counter())

        async with asyncio.TaskGroup() as group:
            task = group.create_task(follow())
            await gate.wait()
            pairs = [(_raw_round(raw), await _hive_round(bus, arrived)) for _ in range(PAIRS + 1)]
            task.cancel()
        # The first pair warms up.
        return figure("publish to handler, p50", pairs[1:], must=1.5, aim=1.2, unit="ms", lower_is_better=True)


def _raw_round(raw: Raw) -> float:
    times = []
    for row in raw.rows(200):
        begin = time.perf_counter()
        raw.append([row])
        raw.db.execute("SELECT * FROM events WHERE position = ?", (row[0],)).fetchone()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1000


async def _hive_round(bus: Bus, arrived: deque[float]) -> float:
    times = []
    for number in range(200):
        arrived.clear()
        begin = time.perf_counter()
        await bus.publish(Measured(number=number))
        while not arrived:
            await asyncio.sleep(0)
        times.append(arrived[0] - begin)
    return statistics.median(times) * 1000
