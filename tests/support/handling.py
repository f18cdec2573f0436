"""What tests of groups share: running members, waiting for signals, and handlers that fail on purpose."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from hive_bus import Bus, Event, Record
from hive_bus.groups.handler import Context, Outcome
from hive_bus.groups.parking import parked_keys
from hive_core_db.records import ParkedKey
from tests.support.patience import WITHIN


class Said(Event, topic="test.said"):
    number: int


class Answered(Event, topic="test.answered"):
    number: int


class Service(Protocol):
    """Something that runs until cancelled."""

    async def run(self) -> None: ...


@asynccontextmanager
async def running(*services: Service) -> AsyncIterator[None]:
    """Run services while the block does."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(service.run()) for service in services]
        try:
            yield
        finally:
            for task in started:
                task.cancel()


async def say(bus: Bus, *numbers: int, stream: str = "one") -> int:
    """Publish numbered events to a stream, in order; the last position."""
    position = 0
    for number in numbers:
        position = await bus.publish(Said(number=number), stream=stream)
    return position


async def until(condition: Callable[[], Awaitable[object]], bus: Bus) -> None:
    """Return once the condition holds; it is asked whenever the log grows, and now and then."""
    async with asyncio.timeout(WITHIN):
        while not await condition():
            await bus.tail.wait(bus.tail.head, timeout=0.02)


async def nothing_parked(bus: Bus) -> None:
    """Return when every key has caught up."""

    async def nothing() -> bool:
        return not await parked_keys(bus)

    await until(nothing, bus)


async def waits_for_person(bus: Bus, group: str) -> ParkedKey:
    """The parked key of the group, as soon as it waits for a person."""
    found: list[ParkedKey] = []

    async def waits() -> bool:
        found[:] = [row for row in await parked_keys(bus, group) if row.next_try is None]
        return bool(found)

    await until(waits, bus)
    return found[0]


async def answers(bus: Bus) -> list[int]:
    """The numbers that were answered, in log order."""
    return [number_of(record) async for record in bus.read(Answered.TOPIC)]


def number_of(record: Record) -> int:
    """The number in a record's body."""
    number: int = record.data["number"]
    return number


class Flaky:
    """A handler that answers each number, and fails so many times before, as told."""

    def __init__(self, failures: dict[int, int] | None = None) -> None:
        self.failures = dict(failures or {})
        self.tries: Counter[int] = Counter()
        self.attempts: list[tuple[int, int]] = []

    async def __call__(self, record: Record, ctx: Context) -> Outcome:
        """Publish first: what a failed try published must not be seen."""
        number = number_of(record)
        await ctx.publish(Answered(number=number), stream=f"answers/{record.stream}")
        self.tries[number] += 1
        self.attempts.append((number, ctx.attempt))
        if self.tries[number] <= self.failures.get(number, 0):
            raise ValueError(f"no {number} today")
        return None
