"""Subscriptions on a real file: within the process, across processes, behind the tail's memory, and as a group."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from hive_bus import FROM_BEGINNING, FROM_NOW, Bus, Event, Record, open_bus
from hive_bus.reading import Follower
from hive_bus.tail import KEPT_ROWS
from hive_core_db.records import StoredEvent
from hive_errors import BusClosed, InvalidTopic, LogCorrupt, StoreClosed
from tests.integration.bus_publisher import Ping, Rare
from tests.support.patience import WITHIN
from tests.support.tables import tamper


class Late(Event, topic="late.sent"):
    number: int = 0


async def take(records: AsyncIterator[Record], count: int) -> list[Record]:
    """The next so many records."""
    async with asyncio.timeout(WITHIN):
        return [await anext(records) for _ in range(count)]


async def elsewhere(url: str, count: int, topic: str = "ping.sent") -> asyncio.subprocess.Process:
    """Another process that publishes to the same file."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.bus_publisher", url, str(count), topic
    )


async def test_from_now_on_means_what_is_published_afterwards(bus: Bus) -> None:
    """What was there before is not delivered; what comes is, in order."""
    await bus.publish(Ping(number=0))
    async with bus.subscribe("ping.*") as records:
        for number in (1, 2, 3):
            await bus.publish(Ping(number=number))
        assert [record.data["number"] for record in await take(records, 3)] == [1, 2, 3]


async def test_from_the_beginning_or_a_position(bus: Bus) -> None:
    """The past first, then the present, without a seam; other topics are left out."""
    for number in range(5):
        await bus.publish(Ping(number=number))
        await bus.publish(Rare(number=number))
    async with bus.subscribe("ping.*", start=FROM_BEGINNING) as records:
        assert [record.position for record in await take(records, 5)] == [1, 3, 5, 7, 9]
        await bus.publish(Ping(number=5))
        assert [record.position for record in await take(records, 1)] == [11]
    async with bus.subscribe(start=8) as records:
        assert [record.topic for record in await take(records, 3)] == ["ping.sent", "rare.sent", "ping.sent"]


async def test_a_topic_that_appears_later_is_followed(bus: Bus) -> None:
    """A pattern means the topics of the future too, at the tail and in the past that was read before."""
    await bus.publish(Ping(number=0))
    async with bus.subscribe("late.>", "*.sent", start=FROM_BEGINNING) as records:
        await take(records, 1)
        await bus.publish(Late(number=1))
        assert [record.topic for record in await take(records, 1)] == ["late.sent"]


async def test_a_slow_subscriber_reads_for_itself(bus: Bus) -> None:
    """More is published than the tail keeps in memory: the slow one misses nothing, and the memory stays bounded."""
    total = KEPT_ROWS + 1500
    async with bus.subscribe("ping.*") as records:
        async with asyncio.TaskGroup() as callers:
            for number in range(total):
                callers.create_task(bus.publish(Ping(number=number)))
        assert len(bus.tail._rows) <= KEPT_ROWS
        assert bus.tail.recent(0) is None
        assert [record.position for record in await take(records, total)] == list(range(1, total + 1))


async def test_a_tail_without_listeners_does_not_read_what_it_missed(hive_url: str) -> None:
    """Who begins to listen hears every row from then on; the many that others appended before are not read for him."""
    total = KEPT_ROWS + 1500
    async with open_bus(hive_url, source="other") as other, open_bus(hive_url, source="here") as bus:
        async with asyncio.TaskGroup() as callers:
            for number in range(total):
                callers.create_task(other.publish(Ping(number=number)))
        assert await bus.tail.refresh() == total
        heard: list[int] = []
        bus.tail.listen(lambda rows: heard.extend(row.position for row in rows))
        assert bus.tail.head == total
        await other.publish(Ping(number=total))
        assert await bus.tail.wait(total) == total + 1
        assert heard == [total + 1]
        assert len(await bus.tail.page(0)) == 1000


async def test_several_subscribers_share_the_tail(bus: Bus) -> None:
    """Each sees everything; rows of own commits are handed over without a read of the log."""
    reads = 0
    original = bus.store.log.read

    async def counting(*arguments: int, **options: int) -> list[StoredEvent]:
        nonlocal reads
        reads += 1
        return await original(*arguments, **options)  # type: ignore[arg-type]

    async def never() -> int | None:
        """No look for other processes: it may see a commit of ours before we are told of it, and read it."""
        return None

    async def follow(records: AsyncIterator[Record]) -> list[int]:
        return [record.position for record in await take(records, 100)]

    bus.store.log.poll = never  # type: ignore[method-assign]
    bus.store.log.read = counting  # type: ignore[method-assign, assignment]
    async with bus.subscribe("ping.*") as one, bus.subscribe(">") as two, asyncio.TaskGroup() as followers:
        tasks = [followers.create_task(follow(records)) for records in (one, two)]
        for number in range(100):
            await bus.publish(Ping(number=number))
    assert [task.result() for task in tasks] == [list(range(1, 101))] * 2
    assert reads == 0


async def test_another_process_is_heard(bus: Bus, hive_url: str) -> None:
    """Its events arrive in the order of the log, mixed with one's own, each once."""
    async with bus.subscribe("ping.*") as records:
        process = await elsewhere(hive_url, 200)
        for number in range(50):
            await bus.publish(Ping(number=1000 + number))
        seen = await take(records, 250)
        assert await process.wait() == 0
    assert [record.position for record in seen] == list(range(1, 251))
    assert [record.data["number"] for record in seen if record.source == "other process"] == list(range(200))


async def test_a_new_topic_of_another_process_is_followed(bus: Bus, hive_url: str) -> None:
    """A topic that this process never saw is noticed all the same."""
    async with bus.subscribe("*.sent") as records:
        process = await elsewhere(hive_url, 1, "rare.sent")
        assert [record.topic for record in await take(records, 1)] == ["rare.sent"]
        assert await process.wait() == 0


async def test_nothing_polls_while_nobody_listens(reading_bus: Bus) -> None:
    """Without a waiter the poll sleeps; with one it runs; when the last is gone it sleeps again."""
    polls = 0
    original = reading_bus.store.log.poll
    polled = asyncio.Event()

    async def counting() -> int | None:
        nonlocal polls
        polls += 1
        polled.set()
        return await original()

    reading_bus.store.log.poll = counting  # type: ignore[method-assign]
    await reading_bus.publish(Ping(number=1))
    for _ in range(10):
        await asyncio.sleep(0)
    assert polls == 0
    async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(reading_bus.tail.wait(1))
        await polled.wait()
        waiter.cancel()


async def test_a_corrupt_log_is_told_to_those_who_wait(reading_bus: Bus, hive_url: str) -> None:
    """A hole is no reason to wait for ever, and none to skip what is missing."""
    async with open_bus(hive_url) as other:
        for number in range(3):
            await other.publish(Ping(number=number))
    tamper(hive_url, "DELETE FROM events WHERE position = 2")
    with pytest.raises(LogCorrupt):
        await reading_bus.tail.wait(0, timeout=WITHIN)


async def test_the_head_can_be_waited_for(bus: Bus) -> None:
    """At once when it is there, else when it comes, else at the timeout."""
    assert await bus.tail.wait(-1) == 0
    async with asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(bus.tail.wait(0))
        await bus.publish(Ping(number=1))
    assert waiter.result() == 1
    assert await bus.tail.wait(5, timeout=0.01) == 1


async def test_listeners_hear_everything_in_order(bus: Bus, hive_url: str) -> None:
    """Rows of this process and of others, without a hole."""
    heard: list[int] = []
    forget = bus.tail.listen(lambda rows: heard.extend(row.position for row in rows))
    process = await elsewhere(hive_url, 30)
    for number in range(30):
        await bus.publish(Ping(number=number))
    await process.wait()
    await bus.tail.refresh()
    async with asyncio.timeout(WITHIN):
        await bus.tail.wait(59)
    forget()
    await bus.publish(Ping(number=99))
    assert heard == list(range(1, 61))


async def test_a_page_of_the_tail_comes_from_memory_or_the_log(bus: Bus) -> None:
    """Both give the same rows, and both keep the limit."""
    for number in range(10):
        await bus.publish(Ping(number=number))
    fresh = await bus.tail.page(3, limit=4)
    assert [row.position for row in fresh] == [4, 5, 6, 7]
    bus.tail._forget()
    assert list(await bus.tail.page(3, limit=4)) == list(fresh)


async def test_a_feed_says_how_far_it_has_read(bus: Bus) -> None:
    """Also through a stretch of the log where nothing matches."""
    for number in range(5):
        await bus.publish(Rare(number=number))
    await bus.publish(Ping(number=9))
    bus.tail._forget()
    feed = Follower(bus.store.log, bus.tail, ["ping.*"], after=0)
    page = await feed.page()
    assert ([record.position for record in page.records], page.until) == ([6], 6)
    nothing = Follower(bus.store.log, bus.tail, ["never.*"], after=0)
    assert await nothing.page() == ([], 6)


async def test_reading_ends_at_the_head(bus: Bus) -> None:
    """``read`` gives what is there, by pattern and between positions, and nothing for topics that nobody knows."""
    for number in range(3):
        await bus.publish(Ping(number=number))
        await bus.publish(Rare(number=number))
    assert [record.position async for record in bus.read("ping.*")] == [1, 3, 5]
    assert [record.position async for record in bus.read(after=1, until=4)] == [2, 3, 4]
    assert [record async for record in bus.read("never.*")] == []
    with pytest.raises(InvalidTopic):
        await anext(bus.read("Not a pattern"))


async def test_a_bad_pattern_is_refused(bus: Bus) -> None:
    """Before anything is read."""
    with pytest.raises(InvalidTopic):
        async with bus.subscribe("a.**"):
            pass


async def test_a_subscription_ends_with_the_bus(hive_url: str) -> None:
    """Who still waits for records is told that none will come."""
    bus = await open_bus(hive_url)
    async with (
        bus.subscribe("ping.*", start=FROM_NOW) as records,
        bus.subscribe("ping.*", group="g") as shared,
        asyncio.TaskGroup() as tasks,
    ):
        waiting = [tasks.create_task(_outcome(one)) for one in (records, shared)]
        await asyncio.sleep(0)
        await bus.close()
    assert {task.result() for task in waiting} <= {BusClosed, StoreClosed}


async def _outcome(records: AsyncIterator[Record]) -> type[BaseException]:
    try:
        await anext(records)
    except (BusClosed, StoreClosed) as problem:
        return type(problem)
    raise AssertionError("a record came from a closed bus")


async def test_an_error_in_the_body_stays_itself(bus: Bus) -> None:
    """Neither form wraps what the body of the ``async with`` raises."""
    with pytest.raises(ZeroDivisionError):
        async with bus.subscribe("ping.*"):
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with bus.subscribe("ping.*", group="g"):
            raise ZeroDivisionError


async def test_a_group_remembers_what_was_handled(bus: Bus) -> None:
    """A record is handled when the next one is asked for; the one in hand when the group was left comes again."""
    for number in range(6):
        await bus.publish(Ping(number=number), stream="one")
    async with bus.subscribe("ping.*", group="g", start=FROM_BEGINNING) as records:
        assert [record.data["number"] for record in await take(records, 3)] == [0, 1, 2]
    async with bus.subscribe("ping.*", group="g", start=FROM_BEGINNING) as records:
        assert [record.data["number"] for record in await take(records, 4)] == [2, 3, 4, 5]


async def test_members_of_a_group_share_the_records(hive_url: str) -> None:
    """Two members on one file: every record reaches one of them, and each stream stays in order."""
    async with open_bus(hive_url) as first, open_bus(hive_url) as second:
        seen: list[tuple[str, int]] = []
        done = asyncio.Event()

        async def member(bus: Bus) -> None:
            async with bus.subscribe("ping.*", group="g", start=FROM_BEGINNING) as records:
                async for record in records:
                    seen.append((record.stream, record.data["number"]))
                    if len(set(seen)) == 80:
                        done.set()

        async with asyncio.TaskGroup() as tasks:
            members = [tasks.create_task(member(bus)) for bus in (first, second)]
            for number in range(20):
                for stream in "abcd":
                    await first.publish(Ping(number=number), stream=stream)
            async with asyncio.timeout(WITHIN):
                await done.wait()
            for task in members:
                task.cancel()
    for stream in "abcd":
        firsts = list(dict.fromkeys(number for name, number in seen if name == stream))
        assert firsts == list(range(20))
