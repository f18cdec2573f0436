"""Who listens to few topics: the log is read for those alone, nothing of them is missed, and hands need no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import pytest

from hive_bus import Bus, Event, Failure, HandContext, HandRunner, Intent, hand, open_bus
from hive_bus.effects import CancelRequested
from hive_core_db.records import AppendRequest, StoredEvent, Verdict, WorkEnd, WorkItem
from hive_errors import BusClosed
from tests.integration.bus_publisher import Ping, Rare
from tests.support.patience import WITHIN


class SortRequested(Intent, topic="sort.requested", results=("sort.done",)):
    """Asks for little."""


class SortDone(Event, topic="sort.done"):
    """It was done."""


class SortCancelRequested(CancelRequested, topic="sort.cancel_requested"):
    """Asks for its end."""


class Ear:
    """Listens to ``rare.sent``, and can wait for a position."""

    def __init__(self, bus: Bus) -> None:
        self.rows: list[StoredEvent] = []
        self._news = asyncio.Event()
        bus.tail.listen(self._hear, topics=("rare.sent",))

    def _hear(self, rows: Sequence[StoredEvent]) -> None:
        self.rows += rows
        self._news.set()

    async def has(self, position: int) -> None:
        """Wait until it has heard of this one."""
        async with asyncio.timeout(WITHIN):
            while not any(row.position == position for row in self.rows):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Bus, Bus]]:
    """Two processes' buses on one log."""
    async with open_bus(url, source="other") as other, open_bus(url, source="here") as bus:
        yield other, bus


async def test_the_log_is_read_for_these_topics_alone(hive_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others append besides is not fetched; whoever wants it afterwards has it from the log."""
    async with two(hive_url) as (other, bus):
        wishes: list[object] = []
        plain = bus.store.log.read

        async def read(after: int, **wished: Any) -> list[StoredEvent]:
            wishes.append(wished.get("topics"))
            return await plain(after, **wished)

        monkeypatch.setattr(bus.store.log, "read", read)
        ear = Ear(bus)
        for number in range(30):
            await other.publish(Ping(number=number))
        await ear.has(await other.publish(Rare(number=1)))
        assert [row.position for row in ear.rows] == [31]
        assert bus.tail.head == 31
        assert wishes
        assert all(topics == ["rare.sent"] for topics in wishes)
        assert len(await bus.tail.page(0)) == 31


async def test_nothing_is_missed_or_told_twice_among_own_commits(hive_url: str) -> None:
    """Own commits are handed over from memory, others are read: of the topic each row once, in order."""
    async with two(hive_url) as (other, bus):
        ear = Ear(bus)

        async def publish(one: Bus) -> list[int]:
            return [await one.publish(Rare(number=n) if n % 3 == 0 else Ping(number=n)) for n in range(90)][::3]

        rare = sorted(chain(*await asyncio.gather(publish(bus), publish(other))))
        await ear.has(await other.publish(Rare(number=0)))
        heard = [row.position for row in ear.rows if row.topic == "rare.sent"]
        assert heard[:-1] == rare


async def test_who_comes_while_it_is_read_misses_nothing(hive_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants every row from now on has it, also where a read for few topics is under way."""
    async with two(hive_url) as (other, bus):
        reading, gate = asyncio.Event(), asyncio.Event()
        plain = bus.store.log.read

        async def read(after: int, **wished: Any) -> list[StoredEvent]:
            rows = await plain(after, **wished)
            if wished.get("topics"):
                reading.set()
                await gate.wait()
            return rows

        monkeypatch.setattr(bus.store.log, "read", read)
        Ear(bus)
        await other.publish(Ping(number=1))
        async with asyncio.timeout(WITHIN):
            await reading.wait()
            heard: list[int] = []
            since = bus.tail.head
            bus.tail.listen(lambda rows: heard.extend(row.position for row in rows))
            gate.set()
            last = await other.publish(Ping(number=2))
            await bus.tail.wait(last - 1)
        assert heard == list(range(since + 1, last + 1))


async def test_a_head_that_is_not_there_is_not_believed(hive_url: str) -> None:
    """A wake-up may say anything: the tail stays within the log, and goes on."""
    async with two(hive_url) as (other, bus):
        ear = Ear(bus)
        bus.tail.told(10**12)
        rare = await other.publish(Rare(number=1))
        await ear.has(rare)
        assert bus.tail.head == rare
        await ear.has(await bus.publish(Rare(number=2)))


async def test_growth_is_heard_of_until_the_end(hive_url: str) -> None:
    """That others appended is known without their rows; a closed tail says that nothing more can come."""
    async with two(hive_url) as (other, bus):
        Ear(bus)
        async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
            waiter = tasks.create_task(bus.tail.heard())
            await asyncio.sleep(0)
            await other.publish(Ping(number=1))
        assert waiter.result() == 1
        await bus.tail.close()
        with pytest.raises(BusClosed):
            await bus.tail.heard()


async def test_a_hand_is_stopped_from_elsewhere(hive_url: str) -> None:
    """A request to cancel by another process reaches an attempt here, among events that nobody here reads."""
    begun = asyncio.Event()

    @hand(SortRequested)
    async def hang(intent: SortRequested, ctx: HandContext) -> Event | Failure:
        begun.set()
        await asyncio.get_running_loop().create_future()
        return SortDone()

    async with two(hive_url) as (other, bus), asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(HandRunner(bus, [hang]).run())
        async with other.subscribe("sort.cancelled") as ends:
            position = await other.publish(SortRequested())
            await begun.wait()
            (row,) = await other.store.log.read(position - 1, limit=1)
            await other.publish(SortCancelRequested(intent_id=row.event_id))
            assert (await anext(ends)).causation_id == row.event_id
        task.cancel()


async def test_what_comes_back_together_is_claimed_together(hive_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While more results are being appended than slots are free, the queue is not asked; then it is, for all of them."""

    @hand(SortRequested, concurrency=4)
    def sort(intent: SortRequested, ctx: HandContext) -> Event | Failure:
        return SortDone()

    async with two(hive_url) as (other, bus):
        order: list[str] = []
        returning, gate = asyncio.Event(), asyncio.Event()
        append, claimable = bus.store.log.append, bus.store.work.claimable

        async def gated(batch: Sequence[AppendRequest]) -> list[Verdict]:
            ends = sum(isinstance(change, WorkEnd) for request in batch for change in request.work)
            if ends and not returning.is_set():
                order.clear()
                returning.set()
                await gate.wait()
            verdicts = await append(batch)
            order.extend(["back"] * ends)
            return verdicts

        async def look(queues: Sequence[str], **wishes: Any) -> list[WorkItem]:
            order.append("look")
            return await claimable(queues, **wishes)

        monkeypatch.setattr(bus.store.log, "append", gated)
        monkeypatch.setattr(bus.store.work, "claimable", look)
        async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks, other.subscribe("sort.done") as results:
            await asyncio.gather(*(other.publish(SortRequested()) for _ in range(3)))
            task = tasks.create_task(HandRunner(bus, [sort]).run())
            await returning.wait()
            heard = tasks.create_task(bus.tail.heard())
            await asyncio.sleep(0)
            await other.publish(SortRequested())
            await heard
            gate.set()
            for _ in range(4):
                await anext(results)
            task.cancel()
        assert order.index("back") < order.index("look")
