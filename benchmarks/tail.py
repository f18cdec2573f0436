"""The live tail from NATS: how fast handlers take it, how soon an event is there, and what it costs the database.

The server is one of the package, on this machine; the relay works in the measuring process, which also appends.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.children import Child, child
from benchmarks.log import EVENTS, arrivals_ms
from benchmarks.pairs import Figure, Sides
from benchmarks.places import Ground, Measured, Place, sqlite_place
from benchmarks.postgres import connect
from hive_bus import Bus, open_bus
from hive_bus.mirror.connection import connected
from hive_bus.mirror.embedded import embedded
from hive_bus.mirror.relay import Relay
from hive_bus.mirror.settings import NatsSettings

STREAM = "HIVE_hive_1"
TAKEN = 20_000
CALLERS = 1000
SUBSCRIBERS = 20
LOAD = 800
LOAD_PER_SECOND = 100
READS = "SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE relname = 'events'"


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[tuple[Bus, Relay, NatsSettings]]:
    """A NATS server of its own, and a bus whose log is relayed there."""
    with TemporaryDirectory(prefix="hive-bench-") as directory:
        async with embedded(Path(directory), url) as nats, open_bus(url, source="bench", nats="") as bus:
            relay = Relay(bus, nats)
            _ = bus.spawn(relay.run(), name="relay")
            yield bus, relay, nats


async def _mirrored(relay: Relay, position: int) -> None:
    while relay.state.mirrored < position:
        await asyncio.sleep(0.005)


@asynccontextmanager
async def throughput(place: Place) -> AsyncIterator[Sides]:
    """Events handled per second by a group that lives off NATS, against ``fetch(1000)`` of the same messages, each acknowledged."""
    async with relayed(place.url) as (bus, relay, nats), child("benchmarks.tail_worker", place.url, nats.url) as there:
        await bus.publish(Measured(number=0))
        await there.ask("handle")

        async def settle() -> None:
            await there.ask("held", stream=STREAM, seconds=600)
            numbers = iter(range(TAKEN))

            async def caller() -> None:
                for number in numbers:
                    await bus.publish(Measured(number=number))

            await asyncio.gather(*(caller() for _ in range(CALLERS)))
            await _mirrored(relay, await bus.head())

        costs: dict[str, list[float]] = {"floor": [], "candidate": []}

        async def charged(side: str, number: int, before: float) -> None:
            costs[side].append((await there.ask("processor") - before) / number * 1_000_000)

        async def floor() -> float:
            used = await there.ask("processor")
            seconds: float = await there.ask("fetch", stream=STREAM, number=TAKEN)
            await charged("floor", TAKEN, used)
            return TAKEN / seconds

        async def candidate() -> float:
            before, used = await there.ask("count"), await there.ask("processor")
            begin = time.perf_counter()
            await there.ask("held", stream=STREAM, seconds=0)
            # The server delivers what it held when there is something new.
            head = await bus.publish(Measured(number=0))
            end: float = await there.ask("handled", number=head)
            await charged("candidate", head - before, used)
            return float(head - before) / (end - begin)

        def also() -> dict[str, object]:
            return {
                f"{side}, µs of processor time for each": round(statistics.median(costs[side]), 1) for side in costs
            }

        yield Sides(floor=floor, candidate=candidate, settle=settle, also=also)


@asynccontextmanager
async def latency(place: Place) -> AsyncIterator[Sides]:
    """Appended here, handled in another process, against a raw commit, a JetStream publish and its consumer: medians in milliseconds."""
    async with (
        sqlite_place() as plain,
        relayed(place.url) as (bus, _, nats),
        child("benchmarks.tail_worker", place.url, nats.url) as hive,
        child("benchmarks.tail_worker", plain.url, nats.url) as other,
        connected(nats) as connection,
    ):
        await connection.ask("STREAM.CREATE.PLAIN", {"name": "PLAIN", "subjects": ["plain"], "storage": "file"})
        context = connection.client.jetstream()
        await bus.publish(Measured(number=0))
        await hive.ask("handle")
        await other.ask("consume", subject="plain")

        async def floor() -> float:
            async def send(row: Any) -> None:
                await plain.raw.append([row])
                await context.publish("plain", row.payload.encode(), headers={"Event-Id": row.event_id})

            return await arrivals_ms(other, (send(row) for row in await plain.raw.rows(EVENTS)))

        async def candidate() -> float:
            return await arrivals_ms(hive, (bus.publish(Measured(number=number)) for number in range(EVENTS)))

        async def settle() -> None:
            for one in (hive, other):
                await one.ask("arrivals", number=0)

        yield Sides(floor=floor, candidate=candidate, settle=settle)


async def reads(ground: Ground, *, must: float, aim: float) -> Figure:
    """Reads of the table of events for each event, with twenty subscriber processes against one, at the same rate of appends."""
    rates = {}
    for number in (1, SUBSCRIBERS):
        async with ground() as place, relayed(place.url) as (bus, _, nats), AsyncExitStack() as stack:
            there = [
                await stack.enter_async_context(child("benchmarks.tail_worker", place.url, nats.url))
                for _ in range(number)
            ]
            await bus.publish(Measured(number=0))
            await asyncio.gather(*(one.ask("follow") for one in there))
            rates[number] = await _reads_under_load(place.url, bus, there)
    return Figure(
        name="reads of the table of events, 20 subscriber processes against 1",
        ratio=rates[SUBSCRIBERS] / rates[1],
        must=must,
        aim=aim,
        candidate=rates[SUBSCRIBERS],
        floor=rates[1],
        unit="reads per event",
        pairs=1,
        lower_is_better=True,
    )


async def _reads_under_load(url: str, bus: Bus, there: list[Child]) -> float:
    connection = await connect(url)
    try:
        before, handled = await _read(connection), await there[0].ask("count")
        begin = time.perf_counter()
        for sent in range(LOAD):
            await bus.publish(Measured(number=sent))
            await asyncio.sleep(max(0.0, begin + sent / LOAD_PER_SECOND - time.perf_counter()))
        while await there[0].ask("count") < handled + LOAD:
            await asyncio.sleep(0.05)
        return (await _read(connection) - before) / LOAD
    finally:
        await connection.close()


async def _read(connection: Any) -> int:
    # A backend at rest hands its counts over after ten seconds: nothing of the start is counted, and nothing of the load forgotten.
    await asyncio.sleep(11)
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    total: int = await connection.fetchval(READS)
    return total
