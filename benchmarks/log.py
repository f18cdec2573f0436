"""Publish, catch-up, fold, trace and latency, each beside the plainest way to do the same in the same database."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

import orjson

from benchmarks.children import Child, child
from benchmarks.pairs import Sides, rate
from benchmarks.places import BATCH, CALLERS, PAGE, Measured, Place, SqliteRaw
from benchmarks.postgres import PostgresRaw
from hive_bus import Brain, Bus, Event, Input, Record, open_bus
from hive_bus.brains.fold import Folder
from hive_bus.brains.past import load
from hive_bus.groups.member import GroupMember, Owned

CATCH_UP = 200_000
EVENTS, PAUSE = 100, (0.015, 0.025)
PROCESSES = 4
_serial = count(1)


async def publish_until(bus: Bus, deadline: float, stream: str, waits: list[float]) -> int:
    """One caller, who waits for each event; ``waits`` gets the seconds of every wait."""
    done, begin = 0, time.perf_counter()
    while begin < deadline:
        await bus.publish(Measured(number=done), stream=stream)
        done += 1
        end = time.perf_counter()
        waits.append(end - begin)
        begin = end
    return done


async def publish_rate(bus: Bus, callers: int, waits: list[float], prefix: str = "caller") -> float:
    """Events per second of so many callers at once."""

    async def work(seconds: float) -> int:
        deadline = time.perf_counter() + seconds
        each = (publish_until(bus, deadline, f"{prefix}-{n}", waits) for n in range(callers))
        return sum(await asyncio.gather(*each))

    return await rate(work)


@asynccontextmanager
async def publish_many(place: Place) -> AsyncIterator[Sides]:
    """1,000 concurrent callers against commits of 500 plain rows."""
    async with open_bus(place.url, source="bench") as bus:
        waits: list[float] = []
        yield Sides(
            floor=lambda: place.raw.commits(BATCH),
            candidate=lambda: publish_rate(bus, CALLERS, waits),
            settle=place.raw.settle,
            also=lambda: {"worst_wait_over_median": worst(waits)},
        )


@asynccontextmanager
async def publish_one(place: Place) -> AsyncIterator[Sides]:
    """One caller that waits for each, against plain single-row commits."""
    async with open_bus(place.url, source="bench") as bus:
        yield Sides(
            floor=lambda: place.raw.commits(1),
            candidate=lambda: publish_rate(bus, 1, []),
            settle=place.raw.settle,
        )


def worst(waits: Sequence[float]) -> float:
    """The longest wait of all, in medians."""
    return round(max(waits) / statistics.median(waits), 1) if waits else 0.0


@asynccontextmanager
async def workers(place: Place, number: int = PROCESSES) -> AsyncIterator[list[Child]]:
    """Processes that have the same database open."""
    async with AsyncExitStack() as stack:
        opening = (stack.enter_async_context(child("benchmarks.worker", place.url)) for _ in range(number))
        yield [await one for one in opening]


@asynccontextmanager
async def publish_four(place: Place) -> AsyncIterator[Sides]:
    """1,000 callers in each of four processes, in total, against 1,000 callers in one."""
    ratios: list[float] = []
    async with workers(place) as processes:

        async def together(some: Sequence[Child]) -> float:
            answers = await asyncio.gather(*(one.ask("publish", callers=CALLERS) for one in some))
            if len(some) > 1:
                waits = [answer["waits"] for answer in answers]
                median = statistics.median(wait["median"] for wait in waits)
                ratios.append(max(wait["worst"] for wait in waits) / median)
            return float(sum(answer["rate"] for answer in answers))

        yield Sides(
            floor=lambda: together(processes[:1]),
            candidate=lambda: together(processes),
            also=lambda: {"worst_wait_over_median": round(max(ratios), 1)},
        )


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


@asynccontextmanager
async def catch_up(place: Place) -> AsyncIterator[Sides]:
    """A group catches up on 200,000 events, against a prefetching page read of the same rows."""
    async with open_bus(place.url, source="bench") as bus:
        await place.raw.load(max(0, CATCH_UP - await place.raw.head()))
        await place.raw.settle()
        head = await bus.tail.refresh()
        after = head - CATCH_UP

        async def candidate() -> float:
            consumer = Nothing()
            begin = time.perf_counter()
            member = GroupMember(
                bus,
                group=f"bench-{next(_serial)}",
                patterns=(Measured.TOPIC,),
                key="stream",
                consumer=consumer,
                start=after,
            )
            async with asyncio.TaskGroup() as group:
                task = group.create_task(member.run())
                await member.caught_up(head, within=120)
                spent = time.perf_counter() - begin
                task.cancel()
            return consumer.done / spent

        yield Sides(floor=lambda: place.raw.read_all(after), candidate=candidate)


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


@asynccontextmanager
async def fold(place: Place) -> AsyncIterator[Sides]:
    """A stored history through a brain, payloads decoded, against the same read with JSON decoding."""
    async with open_bus(place.url, source="bench") as bus:
        await asyncio.gather(*(bus.publish(Measured(number=n), correlation_id="history") for n in range(20_000)))
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

        yield Sides(floor=lambda: rate(floor), candidate=lambda: rate(candidate))


@asynccontextmanager
async def trace(place: Place) -> AsyncIterator[Sides]:
    """Traces per second of a run of 50 events, against the plain read of its rows."""
    async with open_bus(place.url, source="bench") as bus:
        run = f"traced-{next(_serial)}"
        await bus.append(f"{run}/run", [Measured(number=n) for n in range(50)], correlation_id=run)

        async def floor(seconds: float) -> int:
            deadline, done = time.perf_counter() + seconds, 0
            while time.perf_counter() < deadline:
                await bus.store.log.read_correlation(run, limit=PAGE)
                done += 1
            return done

        async def candidate(seconds: float) -> int:
            deadline, done = time.perf_counter() + seconds, 0
            while time.perf_counter() < deadline:
                await bus.trace(run)
                done += 1
            return done

        yield Sides(floor=lambda: rate(floor), candidate=lambda: rate(candidate))


@asynccontextmanager
async def latency(place: Place) -> AsyncIterator[Sides]:
    """Publish to handler in one process, against one plain commit plus read: medians in milliseconds."""
    raw = place.raw
    assert isinstance(raw, SqliteRaw)
    async with open_bus(place.url, source="bench") as bus:
        arrived: deque[float] = deque()
        gate = asyncio.Event()

        async def follow() -> None:
            async with bus.subscribe(Measured.TOPIC) as records:
                gate.set()
                async for _ in records:
                    arrived.append(time.perf_counter())

        async def candidate() -> float:
            times = []
            for number in range(200):
                arrived.clear()
                begin = time.perf_counter()
                await bus.publish(Measured(number=number))
                while not arrived:
                    await asyncio.sleep(0)
                times.append(arrived[0] - begin)
            return statistics.median(times) * 1000

        async with asyncio.TaskGroup() as group:
            task = group.create_task(follow())
            await gate.wait()
            yield Sides(floor=raw.round, candidate=candidate)
            task.cancel()


@asynccontextmanager
async def elsewhere(place: Place) -> AsyncIterator[Sides]:
    """Appended here, handled in another process, against INSERT + NOTIFY here and SELECT there: medians in milliseconds.

    One event at a time, with a pause that differs: each finds the other process at rest.
    """
    raw = place.raw
    assert isinstance(raw, PostgresRaw)
    notify = f"WITH one AS ({raw.insert} RETURNING position) SELECT pg_notify('bench', position::text) FROM one"
    async with (
        open_bus(place.url, source="bench") as bus,
        child("benchmarks.worker", place.url) as hive,
        child("benchmarks.worker", place.url) as plain,
    ):
        await hive.ask("follow", stream="elsewhere")
        await plain.ask("listen")

        async def floor() -> float:
            return await arrivals_ms(plain, (raw.db.execute(notify, *row) for row in await raw.rows(EVENTS)))

        async def candidate() -> float:
            events = (Measured(number=number) for number in range(EVENTS))
            return await arrivals_ms(hive, (bus.publish(event, stream="elsewhere") for event in events))

        async def settle() -> None:
            for one in (hive, plain):
                await one.ask("arrivals", number=0)

        yield Sides(floor=floor, candidate=candidate, settle=settle)


async def arrivals_ms(there: Child, sends: Iterable[Awaitable[object]]) -> float:
    """The median time from a publish here to its arrival in a child, in milliseconds."""
    begins = []
    for send in sends:
        begins.append(time.perf_counter())
        await send
        await asyncio.sleep(random.uniform(*PAUSE))
    ends: list[float] = await there.ask("arrivals", number=len(begins))
    return statistics.median(end - begin for begin, end in zip(begins, ends, strict=True)) * 1000
