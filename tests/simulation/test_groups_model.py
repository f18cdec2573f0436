"""Groups against a list in memory: failures, retries, people's orders and dying members, in virtual time."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_bus.bus import Bus
from hive_bus.event import Event
from hive_bus.groups.handler import Context, HandlerGroup, Outcome, Retry
from hive_bus.groups.parking import RetryPolicy, discard_parked, parked_keys, retry_parked
from hive_bus.ids import Ids
from hive_bus.record import Record
from hive_bus.testing import SimulatedLoop, run_simulated
from hive_core_db.engine import open_store
from hive_errors import BusClosed, NotFound
from tests.support.simulated import seeded

ATTEMPTS = 3
KEYS = ("a", "b", "c", "d")


class Asked(Event, topic="model.asked"):
    number: int


class Done(Event, topic="model.done"):
    number: int


@dataclass(frozen=True)
class Item:
    """One event: its key, how many tries fail, whether by an exception or by a value, and how many tries publish."""

    key: str
    failures: int
    by_value: bool
    seconds: float


items = st.builds(
    Item,
    key=st.sampled_from(KEYS),
    failures=st.sampled_from([0, 0, 0, 0, 1, 2, ATTEMPTS, ATTEMPTS + 1]),
    by_value=st.booleans(),
    seconds=st.sampled_from([0.0, 0.0, 0.01, 1.5]),
)
orders = st.lists(st.sampled_from(["retry", "discard"]), min_size=20, max_size=20)


@dataclass
class World:
    """What happens, and what the model says must come of it."""

    items: list[Item]
    orders: list[str]
    tries: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    discarded: set[int] = field(default_factory=set)
    running: set[str] = field(default_factory=set)

    async def handler(self, record: Record, ctx: Context) -> Outcome:
        """Publish, take some time, and fail as often as told."""
        number = record.data["number"]
        item = self.items[number]
        await ctx.publish(Done(number=number), stream=f"done/{item.key}")
        if item.seconds:
            await asyncio.sleep(item.seconds)
        self.tries[number] += 1
        if self.tries[number] <= item.failures:
            if item.by_value:
                return Retry(reason="told so")
            raise ValueError("told so")
        return None

    def expected(self) -> dict[str, list[int]]:
        """Every number of each key, in order, without what was discarded."""
        found: dict[str, list[int]] = {key: [] for key in KEYS}
        for number, item in enumerate(self.items):
            if number not in self.discarded:
                found[item.key].append(number)
        return found


class Killed(Exception):
    """The process is gone: nothing that it still wanted reaches the file."""


@dataclass
class Life:
    """Of one process; once it is dead, its jobs on the file fail, before they begin or after they are done."""

    loop: SimulatedLoop
    dead: bool = False

    async def pause(self) -> None:
        """A job on the file takes a moment, sometimes a long one."""
        await asyncio.sleep(self.loop.random.choice([0, 0, 0, 0.001, 0.05]))
        if self.dead:
            raise Killed


async def open_bus(life: Life, path: Path, name: str) -> Bus:
    """One process's bus on the simulated loop."""
    store = await open_store(str(path), now=life.loop.now, inline=True, durable=False, pause=life.pause)
    head, epoch = await store.log.head(), (await store.log.meta()).epoch
    bus = Bus(store, epoch=epoch, head=head, source=name, ids=Ids(life.loop.random.getrandbits(60)))
    await bus.start()
    return bus


async def member(loop: SimulatedLoop, path: Path, name: str, world: World, lives: float) -> None:
    """One process after another: each lives for a while, then ends or is killed in the middle of whatever it does."""
    while True:
        life = Life(loop)
        bus = await open_bus(life, path, name)
        group = HandlerGroup(
            bus,
            world.handler,
            group="model",
            patterns=("model.asked",),
            partitions=3,
            retry=RetryPolicy(attempts=ATTEMPTS, first=0.5, longest=2.0),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(survive(group, life))
                await asyncio.wait([task], timeout=lives * (0.5 + loop.random.random()))
                life.dead = loop.random.random() < 0.5
                task.cancel()
        finally:
            with suppress(*((Killed, BusClosed, ExceptionGroup) if life.dead else ())):
                await bus.close()


async def survive(group: HandlerGroup, life: Life) -> None:
    """A killed process fails in whatever way it likes; one that lives must not fail at all."""
    try:
        await group.run()
    except Exception:
        if not life.dead:
            raise


async def person(bus: Bus, world: World) -> None:
    """Decides on every key that waits for somebody, as the list of orders says; ends when nothing is left to do."""
    head = await bus.head()
    orders = iter([*world.orders, *["discard"] * 1000])
    told: set[tuple[str, int]] = set()
    while True:
        # The checkpoints first: a key is parked in the append that moves one past it.
        partitions = await bus.store.checkpoints.partitions("model")
        rows = await parked_keys(bus, "model")
        for row in rows:
            if row.next_try is not None or (row.key, row.attempt * 1000 + row.from_position) in told:
                continue
            told.add((row.key, row.attempt * 1000 + row.from_position))
            order = next(orders)
            with suppress(NotFound):
                if order == "retry":
                    await retry_parked(bus, "model", row.key)
                    told.discard((row.key, row.attempt * 1000 + row.from_position))
                else:
                    await discard_parked(bus, "model", row.key, reason="model")
                    world.discarded.add(row.from_position - 1)
        if partitions and not rows and all(row.position >= head for row in partitions):
            return
        await asyncio.sleep(1.0)


async def play(loop: SimulatedLoop, path: Path, world: World, members: int, lives: float) -> dict[str, list[int]]:
    """Publish everything, let the members work until nothing waits, and return what was done, by key."""
    bus = await open_bus(Life(loop), path, "person")
    for number, item in enumerate(world.items):
        await bus.publish(Asked(number=number), stream=item.key)
    try:
        with seeded(loop):
            return await work(loop, path, world, (members, lives), bus)
    finally:
        await bus.close()


async def work(
    loop: SimulatedLoop, path: Path, world: World, living: tuple[int, float], bus: Bus
) -> dict[str, list[int]]:
    """The part of the play in which members live and die."""
    async with asyncio.timeout(3600), asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(member(loop, path, f"m{n}", world, living[1])) for n in range(living[0])]
        await person(bus, world)
        for task in started:
            task.cancel()
    done: dict[str, list[int]] = {key: [] for key in KEYS}
    async for record in bus.read("model.done"):
        done[record.stream.removeprefix("done/")].append(record.data["number"])
    return done


@given(
    items=st.lists(items, min_size=1, max_size=25),
    orders=orders,
    members=st.integers(1, 3),
    lives=st.sampled_from([3.0, 8.0, 1000.0]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=settings().max_examples // 4)
@pytest.mark.timeout(1200)
def test_everything_is_done_once_and_in_order(
    items: list[Item], orders: list[str], members: int, lives: float, seed: int
) -> None:
    """Whatever fails, whoever dies and whatever people say: per key the log holds each number once, in order."""
    world = World(items, orders)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.db"
        done = run_simulated(seed, lambda loop: play(loop, path, world, members, lives))
    assert done == world.expected()
