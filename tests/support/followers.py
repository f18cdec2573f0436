"""What tests of the live tail from NATS share: a subscriber that is fed, all that it was given, and the proof that it is the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hive_bus import FROM_BEGINNING, Bus, Record, open_bus
from hive_bus.mirror.feed import Feed
from hive_bus.mirror.settings import NatsSettings
from hive_bus.reading import Start
from hive_bus.tail import LATE_SECONDS

SILENCE = 0.8
"""Seconds without a word of a relay that speaks ten times a second; a busy machine is given some of them."""

PATIENT = 15.0
"""Seconds for tests in which NATS is well, however busy the machine."""


class Follower:
    """A subscriber in a bus of its own; ``records`` is what it was given, in order."""

    def __init__(self, bus: Bus, feed: Feed) -> None:
        self.bus, self.feed = bus, feed
        self.records: list[Record] = []
        self._news = asyncio.Event()

    async def follow(self, start: Start) -> None:
        """Take records until cancelled."""
        async with self.bus.subscribe(start=start) as records:
            async for record in records:
                self.records.append(record)
                self._news.set()

    async def has(self, position: int) -> None:
        """Return once it was given this position."""
        while not self.records or self.records[-1].position < position:
            self._news.clear()
            await self._news.wait()

    async def fed_by(self, source: str, why: str = "") -> None:
        """Return once its live tail comes from there, for that reason."""
        await until(lambda: self.feed.state.source == source and why in self.feed.state.why)

    async def is_the_log(self, upto: int, *, after: int = 0) -> None:
        """Everything up to a position was given once, in order, and every column of it is the database's."""
        await self.has(upto)
        rows, position = [], after
        while page := await self.bus.store.log.read(position, limit=1000, until=upto):
            rows += page
            position = page[-1].position
        assert [record.position for record in self.records] == [row.position for row in rows]
        assert [tuple(record) for record in self.records] == [tuple(row) for row in rows]


@asynccontextmanager
async def following(
    url: str, settings: NatsSettings, *, start: Start = FROM_BEGINNING, patient: bool = False
) -> AsyncIterator[Follower]:
    """A fed subscriber of a log, on a bus of its own, while the block runs; a ``patient`` one doubts nothing for being slow."""
    async with open_bus(url, source="a follower", nats="") as bus:
        silence = PATIENT if patient else SILENCE
        bus.tail.late_seconds = PATIENT if patient else LATE_SECONDS
        follower = Follower(bus, feeding(bus, settings, silence=silence))
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(follower.follow(start))
            yield follower
            task.cancel()


def feeding(bus: Bus, settings: NatsSettings, *, silence: float = SILENCE) -> Feed:
    """Feed a bus until it closes."""
    feed = Feed(bus, settings, silence=silence)
    _ = bus.spawn(feed.run(), name="feed")
    return feed


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; it is looked at a hundred times a second."""
    while not condition():
        await asyncio.sleep(0.01)


async def in_epoch(bus: Bus, epoch: int) -> None:
    """Return once the log is there."""
    while (await bus.store.log.meta()).epoch < epoch:
        await asyncio.sleep(0.01)
