"""A subscriber process, over NATS or with plain nats-py, that measures when told: ``python -m benchmarks.tail_worker DATABASE NATS``."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from benchmarks.children import serve
from benchmarks.places import Measured
from hive_bus import Bus, Context, HandlerGroup, Record, open_bus, tune_process
from hive_bus.mirror.connection import Connection, connected
from hive_bus.mirror.feed import Feed
from hive_bus.mirror.settings import NatsSettings

FETCHED = 1000
PLAIN = "plain"
HELD_SECONDS = 600
"""A consumer that is held delivers nothing, so the relay is silent for the feed too: it is given so much patience."""


class Worker:
    """What a subscriber process can be asked to do."""

    def __init__(self, bus: Bus, feed: Feed, connection: Connection) -> None:
        self._bus, self._feed, self._connection = bus, feed, connection
        self._arrived: list[float] = []
        self._handled = 0
        self._news = asyncio.Event()
        self._fetching: Any = None
        self.tasks: set[asyncio.Task[None]] = set()

    def _start(self, work: Any) -> None:
        self.tasks.add(asyncio.create_task(work))

    async def handle(self) -> None:
        """A group's handler that does nothing takes every measured event from now on."""

        async def handler(_: Record, __: Context) -> None:
            self._handled += 1
            self._arrived.append(time.perf_counter())
            self._news.set()

        self._bus.tail.late_seconds = HELD_SECONDS
        self._start(HandlerGroup(self._bus, handler, group="bench", patterns=(Measured.TOPIC,)).run())
        while self._feed.state.source != "nats":
            await asyncio.sleep(0.01)

    async def follow(self) -> None:
        """A subscription of its own, to all topics."""

        async def run() -> None:
            async with self._bus.subscribe() as records:
                async for _ in records:
                    self._handled += 1

        self._start(run())
        while self._feed.state.source != "nats":
            await asyncio.sleep(0.01)

    async def held(self, stream: str, seconds: float) -> None:
        """Let the hive's consumer of the stream deliver nothing for so long, or (0) go on, from the next message on."""
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        for name in (await self._connection.ask(f"CONSUMER.NAMES.{stream}"))["consumers"]:
            if name == PLAIN:
                continue
            await self._connection.ask(f"CONSUMER.PAUSE.{stream}.{name}", {"pause_until": until} if seconds else {})

    async def handled(self, number: int) -> float:
        """The time at which so many events are handled in all."""
        while self._handled < number:
            self._news.clear()
            await self._news.wait()
        assert self._feed.state.source == "nats"
        return time.perf_counter()

    async def fetch(self, stream: str, number: int) -> float:
        """Seconds of plain nats-py to take so many messages of the stream, acknowledging each."""
        if self._fetching is None:
            context = self._connection.client.jetstream()
            self._fetching = await context.pull_subscribe("", durable=PLAIN, stream=stream)
        begin, done = time.perf_counter(), 0
        while done < number:
            messages = await self._fetching.fetch(min(FETCHED, number - done), timeout=5)
            for message in messages:
                await message.ack()
            done += len(messages)
        await self._connection.client.flush()
        return time.perf_counter() - begin

    async def consume(self, subject: str) -> None:
        """Note when a plain consumer of nats-py brings a message: a push consumer that acknowledges each."""

        async def hear(message: Any) -> None:
            self._arrived.append(time.perf_counter())
            self._news.set()
            await message.ack()

        await self._connection.client.jetstream().subscribe(subject, cb=hear, manual_ack=True)

    async def arrivals(self, number: int) -> list[float]:
        """The times of the next ``number`` arrivals, counted from the last time somebody asked."""
        while len(self._arrived) < number:
            self._news.clear()
            await self._news.wait()
        taken, self._arrived = self._arrived, []
        return taken

    async def processor(self) -> float:
        """Seconds of processor time that this process has used."""
        return time.process_time()

    async def count(self) -> int:
        """How many records were handled so far."""
        return self._handled


async def main(url: str, nats: str) -> None:
    """Serve until standard input ends."""
    tune_process()
    settings = NatsSettings(url=nats)
    async with open_bus(url, source="worker", nats="") as bus, connected(settings) as connection:
        feed = Feed(bus, settings, silence=HELD_SECONDS)
        _ = bus.spawn(feed.run(), name="feed")
        worker = Worker(bus, feed, connection)
        verbs = ("handle", "follow", "held", "handled", "fetch", "consume", "arrivals", "count", "processor")
        await serve({verb: getattr(worker, verb) for verb in verbs})
        for task in worker.tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
