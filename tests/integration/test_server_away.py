"""The database server is away for a while: everything in a process waits for it, and goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from hive_bus import FROM_BEGINNING, Bus, EventBus, Record, open_bus
from hive_bus.brains.brain import Brain
from hive_bus.brains.host import BrainHost
from hive_bus.clock import Clock
from hive_bus.effects import Failure
from hive_bus.event import Event
from hive_bus.groups.handler import Context, HandlerGroup
from hive_bus.hands.hand import Hand, HandContext
from hive_bus.hands.runner import HandRunner
from hive_errors import StoreError
from tests.integration.zombie_process import Asked, Heard, Nothing, Riddle, Riddler, SolveDone, SolveRequested
from tests.support.handling import running
from tests.support.postgres import OwnServer

FAILURES = 12
TTL = 1.0


@pytest.fixture
def server() -> Iterator[OwnServer]:
    """A server that may be killed."""
    with OwnServer() as server:
        yield server


@pytest.fixture
async def bus(server: OwnServer) -> AsyncIterator[Bus]:
    """An open bus on it, whose lease is shorter than the server is away."""
    async with open_bus(server.url(), source="one") as bus:
        bus.lease_seconds = TTL
        yield bus


class Solver(Hand):
    """Solves every riddle; ``gate`` holds it up in the middle."""

    intent = SolveRequested
    queues = ("solve",)

    def __init__(self) -> None:
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def perform(self, intent: SolveRequested, ctx: HandContext) -> Event | Failure:
        """Say that it began, wait, answer."""
        self.begun.set()
        await self.gate.wait()
        return SolveDone(by="one")


def group(bus: Bus) -> HandlerGroup:
    """Hears what was told."""

    async def hear(record: Record, ctx: Context) -> None:
        await ctx.publish(Heard(member="one", fence=ctx.fence), stream=f"heard/{record.stream}")

    return HandlerGroup(bus, hear, group="listeners", patterns=("riddle.told",), partitions=2)


async def ask(bus: Bus, name: str) -> None:
    """Ask a riddle, however often it has to be tried: the id makes that harmless."""
    event_id = bus.ids.event_id(bus.now())
    while True:
        try:
            await bus.publish(Asked(), stream=f"{name}/riddle", correlation_id=name, event_id=event_id)
            return
        except StoreError as problem:
            if not problem.retryable:
                raise
            await bus.tail.wait(bus.tail.head, timeout=0.1)


async def away(server: OwnServer, bus: Bus) -> None:
    """Kill the server, and see publishing fail for longer than a lease holds, with an error that says so."""
    await asyncio.to_thread(server.kill)
    loop = asyncio.get_running_loop()
    begun, failures = loop.time(), 0
    while failures < FAILURES or loop.time() < begun + 1.5 * TTL:
        with pytest.raises(StoreError) as refused:
            await bus.publish(Nothing())
        assert refused.value.retryable
        failures += 1
        await bus.tail.wait(bus.tail.head, timeout=0.1)


async def heard(records: AsyncIterator[Record], *names: str) -> None:
    """Return when the answers of these riddles were heard, in whatever order they came."""
    missing = set(names)
    while missing:
        missing.discard((await anext(records)).correlation_id)


async def test_everything_in_a_process_goes_on(server: OwnServer, bus: Bus) -> None:
    """Brain, hand, clock, group, subscription and lease: a riddle before, one in the middle of whose effect the server dies, one after."""
    hand = Solver()
    brain: Brain[Riddle] = Riddler("anybody")
    host = BrainHost(bus, brain, partitions=2)
    runner = HandRunner(bus, [hand], hosts={"riddler": host})
    async with (
        bus.subscribe("zombie.heard", start=FROM_BEGINNING) as records,
        running(host, runner, group(bus), Clock(bus, on_ready=runner.wake)),
    ):
        await ask(bus, "before")
        await heard(records, "before")
        hand.gate.clear()
        hand.begun.clear()
        await ask(bus, "during")
        await hand.begun.wait()
        await away(server, bus)
        hand.gate.set()
        await asyncio.to_thread(server.start)
        await ask(bus, "after")
        # What was tried again and again meanwhile may come behind what is new.
        await heard(records, "during", "after")
    told = [record.correlation_id async for record in bus.read("zombie.heard")]
    assert sorted(told) == ["after", "before", "during"]


async def test_a_blocking_bus_goes_on(server: OwnServer, bus: Bus) -> None:
    """Its callers are told while the server is away, and served again when it is back."""
    blocking = EventBus(server.url(), source="threads")
    await asyncio.to_thread(blocking.publish, Nothing())
    await asyncio.to_thread(server.kill)
    for _ in range(3):
        with pytest.raises(StoreError) as refused:
            await asyncio.to_thread(blocking.publish, Nothing())
        assert refused.value.retryable
    await asyncio.to_thread(server.start)
    assert await asyncio.to_thread(blocking.publish, Nothing()) == 2
    await blocking.close_async()


async def test_a_process_that_ends_while_the_server_is_away_ends(server: OwnServer) -> None:
    """Nothing keeps it: what it held comes free by its lease's time."""
    bus = await open_bus(server.url(), source="one")
    async with running(group(bus)):
        await ask(bus, "before")
        async with bus.subscribe("heard.*", start=FROM_BEGINNING):
            await asyncio.to_thread(server.kill)
    await bus.close()
    await asyncio.to_thread(server.start)
