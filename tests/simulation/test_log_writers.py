"""Sixty-four writers at once on a real database, a slow commit in their middle, readers behind them: the log is what everybody was told."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from random import Random

import pytest

from hive_bus import Bus, open_bus
from hive_core_db.audit import audit
from hive_core_db.records import Appended, StoredEvent
from tests.contract.making import event, request
from tests.support.patience import WITHIN
from tests.support.sessions import SLOW, gate
from tests.support.tables import file_of
from tests.support.writers import END, Reader, World, Writer, disagreements

WRITERS = 64
PROCESSES = 4
"""Stores with connections, lanes and memories of their own, as processes have them."""
LONGEST = 120.0
"""Seconds that a soak lets them write: everything that was said is remembered until its end."""


async def test_everybody_is_told_the_truth(
    hive_url: str, fault_seed: int, fault_seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Conflicts, duplicates, cancellations: each verdict holds in the end, and readers saw every position once and in order."""
    world, seconds = World(), min(fault_seconds, LONGEST)
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(open_bus(hive_url, source=f"p{n}")) for n in range(PROCESSES)]
        writers = [
            Writer(
                f"w{number}",
                Random(f"{fault_seed}/{number}"),
                buses[number % PROCESSES],
                buses[(number + 1) % PROCESSES],
                world,
            )
            for number in range(WRITERS)
        ]
        readers = [Reader(bus, by_tail) for bus in buses for by_tail in (True, False)]
        async with asyncio.TaskGroup() as reading:
            for reader in readers:
                reading.create_task(reader.run())
            async with asyncio.TaskGroup() as writing:
                for writer in writers:
                    writing.create_task(writer.run())
                await _for(seconds / 2, buses[0])
                await _slow_commit(hive_url, buses[0], world)
                await _for(seconds / 2, buses[0])
                world.stopping = True
            await writers[0].settle(request(event(topic=END)))
        rows = [row async for row in _rows(buses[0])]
    with capsys.disabled():
        print(f" [seed {fault_seed}: {len(rows)} events, {dict(world.told)}] ", end="")  # noqa: T201 - to repeat it
    assert disagreements(world, readers, rows) == []
    assert world.told.keys() >= {"Appended", "AlreadyThere", "Conflict", "Corrupt"}
    assert list(map(str, await asyncio.to_thread(lambda: list(audit(hive_url))))) == []


async def _rows(bus: Bus) -> AsyncIterator[StoredEvent]:
    """The whole log, read again from its beginning."""
    position = 0
    while page := await bus.store.log.read(position, limit=1000):
        for row in page:
            yield row
        position = page[-1].position


async def _for(seconds: float, bus: Bus) -> None:
    """Let time pass while the others write."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (left := end - loop.time()) > 0:
        await bus.tail.wait(bus.tail.head, timeout=left)


async def _slow_commit(url: str, bus: Bus, world: World) -> None:
    """Append an event whose commit does not end before every writer waits behind it."""
    slow = request(event(topic=SLOW))
    async with _held(url) as release, asyncio.TaskGroup() as tasks:
        appending = tasks.create_task(bus.writer.append(slow))
        async with asyncio.timeout(WITHIN):
            while world.waiting < WRITERS:
                await asyncio.sleep(0)
        assert not appending.done()
        await release()
    found = appending.result()
    assert isinstance(found, Appended)
    world.settle(slow, found.first)


@asynccontextmanager
async def _held(url: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Let no commit of a slow event end (on SQLite: none at all) until what this gives is called."""
    path = file_of(url)
    if path is None:
        async with gate(url) as held:
            yield held.open
        return
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)) as db:
        await asyncio.to_thread(db.execute, "BEGIN IMMEDIATE")

        async def release() -> None:
            await asyncio.to_thread(db.execute, "ROLLBACK")

        yield release
