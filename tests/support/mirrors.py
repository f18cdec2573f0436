"""What tests of the mirror share: events to mirror, relays at work, and the proof that both sides are equal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from hive_bus import Bus, Event
from hive_bus.mirror.comparison import block_of, compare
from hive_bus.mirror.connection import ApiRefused, connected
from hive_bus.mirror.relay import Relay
from hive_bus.mirror.settings import NatsSettings
from hive_bus.mirror.stream import find, mirrored
from hive_core_db.records import StoredEvent
from hive_core_db.store import EventLog
from hive_errors import HiveError, MirrorUnreachable

QUICK = 0.2
TICK = 0.1


class Noted(Event, topic="mirror_test.noted"):
    """Something to be mirrored."""

    number: int = 0
    text: str = ""


@asynccontextmanager
async def relaying(
    bus: Bus, settings: NatsSettings, number: int = 1, *, ack_seconds: float = QUICK
) -> AsyncIterator[list[Relay]]:
    """So many relays at once, without a lease between them if they are several."""
    relays = [
        Relay(bus, settings, alone=number == 1, ack_seconds=ack_seconds, silence=QUICK, patience=5 * QUICK, tick=TICK)
        for _ in range(number)
    ]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(relay.run()) for relay in relays]
        try:
            yield relays
        finally:
            for task in running:
                task.cancel()


async def publish(bus: Bus, number: int, text: str = "") -> int:
    """Publish so many events and return the head."""
    await asyncio.gather(*(bus.publish(Noted(number=index, text=text)) for index in range(number)))
    return await bus.head()


async def reached(settings: NatsSettings, bus: Bus, position: int) -> None:
    """Return once the mirror has a position; every failure to look is only another look."""
    known = mirrored(await bus.store.log.meta(), await bus.store.log.epochs())
    while True:
        try:
            async with connected(settings) as connection:
                while True:
                    stream = await find(connection, known.names.stream)
                    if stream is not None and stream.last >= position:
                        return
                    await asyncio.sleep(0.01)
        except MirrorUnreachable:
            await asyncio.sleep(0.01)


async def leader(settings: NatsSettings, stream: str) -> str:
    """The name of the server that leads a stream, once there is one and every copy is up to date."""
    while True:
        try:
            async with connected(settings) as connection:
                while True:
                    cluster = (await connection.ask(f"STREAM.INFO.{stream}")).get("cluster") or {}
                    copies = cluster.get("replicas") or []
                    if cluster.get("leader") and len(copies) == 2 and all(copy["current"] for copy in copies):
                        return str(cluster["leader"])
                    await asyncio.sleep(0.05)
        except (ApiRefused, MirrorUnreachable):
            await asyncio.sleep(0.05)


class Changed:
    """A log in which the source of one event has a byte more."""

    def __init__(self, log: EventLog, position: int) -> None:
        self._log, self._position = log, position

    async def read(self, after: int, *, limit: int, until: int) -> list[StoredEvent]:
        """What the log reads, but for that byte."""
        return [
            row._replace(source=f"{row.source}!") if row.position == self._position else row
            for row in await self._log.read(after, limit=limit, until=until)
        ]


async def equal(settings: NatsSettings, bus: Bus, position: int) -> None:
    """The mirror has everything up to a position and is, byte for byte, the log; were one byte of it another, that would be named."""
    await reached(settings, bus, position)
    log = bus.store.log
    async with connected(settings) as connection:
        found = await compare(log, connection)
        assert found.equal, found.differences
        assert (found.last, found.compared) == (position, position - found.first + 1)
        known, first = mirrored(await log.meta(), await log.epochs()), max(found.first, position - 50)
        planted = cast("EventLog", Changed(log, (first + position) // 2))
        block, differences = await block_of(planted, connection, known, first, position)
    assert [(one.position, one.kind) for one in differences] == [((first + position) // 2, "Hive-Source")]
    assert not block.equal


async def doubted(relay: Relay) -> None:
    """Return once a relay has been in doubt."""
    while not relay.state.doubts:
        await asyncio.sleep(0.01)


@asynccontextmanager
async def stopped_by(relay: Relay, error: type[HiveError], match: str | None = None) -> AsyncIterator[None]:
    """The relay works beside the body, and in the end it must stop by this error."""

    async def work() -> None:
        with pytest.raises(error, match=match):
            await relay.run()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work())
        yield


async def turn() -> None:
    """Let what goes on in the background go on for a moment."""
    await asyncio.sleep(0.01)
