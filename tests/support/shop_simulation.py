"""The sample shop under fault: customers, a person who approves, hosts that die, and what must hold in the end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

from hive_bus.bus import Bus
from hive_bus.envelope import encode_event
from hive_bus.event import Event
from hive_bus.events import ApprovalDenied, ApprovalGranted
from hive_bus.reading import FROM_BEGINNING
from hive_bus.record import Record
from hive_bus.testing import SimulatedLoop, guarded
from hive_core_db.records import AppendRequest, WorkEnd
from hive_errors import StoreBusy
from tests.support.sample_brain import OrderNoted, OrderPlaced, OrderStopped, Shop
from tests.support.sample_hands import Moods, World, shop_hands
from tests.support.simulated import Faults, SimulatedHost, differences, seeded, unsound

HOSTS = 3
ITEMS = ("lamp", "chair", "table", "rug")


class ShopSimulation:
    """One run of the shop from a seed."""

    def __init__(
        self, loop: SimulatedLoop, path: Path, *, orders: int = 4, faults: Faults | None = None, kills: bool = True
    ) -> None:
        self.world = World()
        self._loop, self._path, self._orders, self._kills = loop, path, orders, kills
        self._random = Random(loop.random.random())
        self._faults = faults or Faults(
            drop=self._random.choice([0.0, 0.2, 0.6]),
            busy=self._random.choice([0.0, 0.02, 0.15]),
            lost_reply=self._random.choice([0.0, 0.05]),
            slow=self._random.choice([0.02, 0.2]),
            slow_seconds=self._random.choice([0.1, 0.5]),
            stop=self._random.choice([0.0, 0.001]),
        )
        self._hosts: dict[str, tuple[SimulatedHost, asyncio.Task[None]]] = {}
        self.kills = 0
        self._born = 0
        self._between_kills = self._random.choice([0.5, 1.5, 5.0])

    async def run(self) -> list[str]:
        """Run until every order is closed and all is at rest; returns what is wrong then."""
        with seeded(self._loop):
            async with asyncio.timeout(3600), asyncio.TaskGroup() as tasks:
                client = SimulatedHost(
                    self._loop, self._path, "client", brains=(), hands=(), faults=Faults(stop=0, drop=0.2)
                )
                front = tasks.create_task(client.run(), name="client")
                bus = await _opened(client)
                for _ in range(HOSTS):
                    self._start(tasks)
                people = [
                    tasks.create_task(self._chaos(tasks)),
                    tasks.create_task(self._approve(bus)),
                    tasks.create_task(self._order(bus, tasks)),
                ]
                await self._closed(bus)
                for task in people:
                    task.cancel()
                wrong = await self._at_rest(bus)
                for _, task in self._hosts.values():
                    task.cancel()
                front.cancel()
        wrong += unsound(str(self._path))
        wrong += [f"charged {count} times: {key}" for key, count in self.world.charges.items() if count != 1]
        return wrong

    def _start(self, tasks: asyncio.TaskGroup) -> None:
        self._born += 1
        name = f"host{self._born}"
        moods = Moods(Random(self._loop.random.random()))
        host = SimulatedHost(
            self._loop,
            self._path,
            name,
            brains=[guarded(Shop())],
            hands=shop_hands(self.world, moods),
            faults=self._faults,
        )
        self._hosts[name] = host, tasks.create_task(host.run(), name=name)

    async def _chaos(self, tasks: asyncio.TaskGroup) -> None:
        """Kill a host now and then, and start another."""
        while self._kills:
            await asyncio.sleep(self._random.expovariate(1 / self._between_kills))
            name = self._random.choice(sorted(self._hosts))
            host, task = self._hosts.pop(name)
            self.kills += 1
            host.kill()
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(self._random.random() * 2)
            self._start(tasks)

    async def _note(self, bus: Bus, number: int) -> None:
        """A customer who writes all the time, three notes at once."""
        for count in range(12):
            await asyncio.sleep(self._random.expovariate(3))
            async with asyncio.TaskGroup() as writing:
                for part in range(self._random.randint(1, 3)):
                    name = f"{number}-{count}-{part}"
                    note = _published(bus, OrderNoted(note=name), f"order{number}", f"note-{name}")
                    writing.create_task(note)

    async def _order(self, bus: Bus, tasks: asyncio.TaskGroup) -> None:
        """Customers place orders, and some change their minds."""
        for number in range(self._orders):
            await asyncio.sleep(self._random.expovariate(2))
            items = tuple(self._random.sample(ITEMS, self._random.randint(1, 3)))
            patience = self._random.choice([3.0, 60.0, 60.0])
            order = OrderPlaced(items=items, price=self._random.choice([10, 90]), patience=patience)
            await _published(bus, order, f"order{number}", f"placed-{number}")
            tasks.create_task(self._note(bus, number))
            if self._random.random() < 0.25:
                await asyncio.sleep(self._random.random() * 3)
                await _published(bus, OrderStopped(), f"order{number}", f"stopped-{number}")

    async def _approve(self, bus: Bus) -> None:
        """A person answers questions, not always in time."""
        async with bus.subscribe("approval.requested", start=FROM_BEGINNING) as questions:
            async for question in questions:
                if self._random.random() < 0.2:
                    continue
                await asyncio.sleep(self._random.random() * 2)
                answer = ApprovalGranted() if self._random.random() < 0.8 else ApprovalDenied()
                await answered(bus, question, answer)

    async def _closed(self, bus: Bus) -> None:
        closed: set[str] = set()
        async with bus.subscribe("shop.closed", start=FROM_BEGINNING) as records:
            async for record in records:
                assert record.correlation_id not in closed, "an order was closed twice"
                closed.add(record.correlation_id)
                if len(closed) == self._orders:
                    return

    async def _at_rest(self, bus: Bus) -> list[str]:
        """Compare what hosts believe with what a rebuild says, when nothing moves any more."""
        await asyncio.sleep(15.0)
        wrong = []
        for host, task in self._hosts.values():
            if task.done():
                wrong.append(f"{host.name} ended by itself: {task.exception() if not task.cancelled() else ''}")
            elif host.bus is not None:
                await host.hosts[0].member.caught_up(await bus.head(), within=60.0)
                wrong += await differences(host)
        return wrong


async def answered(bus: Bus, question: Record, answer: Event) -> None:
    """Append a person's answer as the end of the question, unless that has ended."""
    new = encode_event(
        answer,
        stream=question.stream,
        correlation_id=question.correlation_id,
        causation_id=question.event_id,
        source="person",
        event_id=f"answer-{question.event_id}",
        occurred_at=bus.now(),
    )
    end = (WorkEnd(work_id=question.event_id, fence=None),)
    while True:
        try:
            await bus.writer.append(AppendRequest(epoch=bus.writer.epoch, events=(new,), work=end))
        except StoreBusy:
            continue
        return


async def _published(bus: Bus, event: Event, order: str, event_id: str) -> None:
    while True:
        try:
            await bus.publish(event, correlation_id=order, stream=f"{order}/order", event_id=event_id)
        except StoreBusy:
            continue
        return


async def _opened(host: SimulatedHost) -> Bus:
    while host.bus is None:
        await asyncio.sleep(0.01)
    return host.bus
