"""A new epoch: above every position shown, once, said in the log; processes of the one before are fenced, readers go on."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hive_bus import FROM_BEGINNING, Bus, Event, Record, open_bus
from hive_bus.epochs import distance
from hive_bus.events.system import EpochStarted
from hive_core_db import epochs
from hive_core_db.admin import begin_epoch
from hive_core_db.engine import open_store
from hive_core_db.records import Appended, AppendRequest, FencedOff, StoredEvent
from hive_core_db.store import Store
from hive_errors import EpochOver
from tests.contract.making import START, Clock, event, positions, request, verdict
from tests.support.console import Console
from tests.support.lived import audited
from tests.support.patience import WITHIN

SECOND = 1_000_000


class Noted(Event, topic="epochs_test.noted"):
    """Something that happened on one side of a jump or the other."""

    number: int = 0


async def jumped(url: str, reason: str = "a test") -> int:
    """Begin a new epoch as somebody who put a disk back would; returns where it begins."""
    done = await asyncio.to_thread(lambda: begin_epoch(url, reason=reason))
    return done.first_position


async def filled(store: Store, number: int, **fields: Any) -> list[StoredEvent]:
    """Append so many events in the store's present epoch."""
    epoch = (await store.log.meta()).epoch
    found = await verdict(store, request(*(event(**fields) for _ in range(number)), epoch=epoch))
    assert isinstance(found, Appended), found
    return list(found.events)


@pytest.mark.parametrize(
    ("last", "seconds", "first"),
    [(0, 0, 1_000_000), (1, 0, 2_000_000), (80, 9, 2_000_000), (80, 3600, 361_000_000), (80, -50, 2_000_000)],
)
def test_where_an_epoch_begins(last: int, seconds: int, first: int) -> None:
    """At a round number, above what the fastest log could have reached since; a clock that fell changes nothing."""
    found = epochs.first_position(last=last, since=START, now=START + seconds * SECOND)
    assert found == first
    assert found >= last + max(epochs.LEAST, seconds * epochs.RATE)


async def test_an_epoch_begins_above_every_position_shown(hive_url: str) -> None:
    """Events, none, and none again: each epoch is above the last one's beginning, and the audit is clean."""
    clock = Clock()
    async with await open_store(hive_url, now=clock) as store:
        await filled(store, 3)
    firsts = [await jumped(hive_url), await jumped(hive_url)]
    async with await open_store(hive_url) as store:
        rows = await filled(store, 2)
        assert positions(rows) == [firsts[1], firsts[1] + 1]
        assert all(after - before >= epochs.LEAST for before, after in pairwise([3, *firsts]))
        assert [one.first_position for one in await store.log.epochs()] == [1, *firsts]
        assert (await store.log.epochs())[-1].reason == "a test"
    assert await audited(hive_url) == []


async def test_a_store_of_the_epoch_before_is_fenced(hive_url: str) -> None:
    """Its appends are refused, its lease is closed, its partitions are free; nothing of it is written."""
    async with await open_store(hive_url) as store:
        await filled(store, 2)
        lease = await store.leases.open("old", ttl=60 * SECOND)
        await store.checkpoints.ensure_group("g", partitions=1, start=0)
        await store.checkpoints.join("g", lease.lease_id)
        assert await store.checkpoints.take("g", 0, lease.lease_id) is not None
        await jumped(hive_url)
        assert await verdict(store, request(event())) == FencedOff("epoch", 1, 2)
        assert await verdict(store, AppendRequest(epoch=1)) == FencedOff("epoch", 1, 2)
        assert not await store.leases.renew(lease.lease_id, ttl=60 * SECOND)
        assert await store.checkpoints.take("g", 0, lease.lease_id) is None
        (partition,) = await store.checkpoints.partitions("g")
        assert (partition.lease_id, await store.checkpoints.members("g")) == (None, [])
        assert await store.log.head() == 2


async def test_readers_cross_the_jump(hive_url: str) -> None:
    """By page, by topic, by correlation and by time: what lies on both sides is read in one go."""
    clock = Clock()
    async with await open_store(hive_url, now=clock) as store:
        before = positions(await filled(store, 5, correlation_id="run", stream="s"))
    first = await jumped(hive_url)
    clock.pass_time(10)
    async with await open_store(hive_url, now=clock) as store:
        later = await filled(store, 5, correlation_id="run", stream="s")
        log = store.log
        everything = [*before, *range(first, first + 5)]
        assert positions(await log.read(0, limit=100)) == everything
        assert positions(await log.read(3, limit=4)) == everything[3:7]
        assert positions(await log.read(5, limit=2)) == everything[5:7]
        assert positions(await log.read(500, limit=2)) == everything[5:7]
        assert positions(await log.read(0, limit=100, topics=["thing.happened"])) == everything
        assert positions(await log.read_correlation("run", after=4)) == everything[4:]
        assert [row.version for row in await log.read_stream("s")] == list(range(1, 11))
        assert [row.version for row in later] == list(range(6, 11))
        assert await log.position_at(clock.time - SECOND) == before[-1]
        assert await log.position_at(clock.time) == everything[-1]
        assert positions(await log.latest(["thing.happened"], limit=6, before=None)) == everything[:3:-1]
    assert await audited(hive_url) == []


async def test_the_bus_says_it_once(hive_url: str) -> None:
    """However many processes open the log at the same time, there is one event for the epoch; the first epoch has none."""
    async with open_bus(hive_url) as bus:
        await bus.publish(Noted(number=1))
    first = await jumped(hive_url, "the disk was put back")
    buses = await asyncio.gather(*(open_bus(hive_url) for _ in range(5)))
    try:
        records = [record async for record in buses[0].read("system.*")]
        assert [(record.position, record.event) for record in records] == [
            (first, EpochStarted(epoch=2, first_position=first, reason="the disk was put back"))
        ]
        assert await buses[0].publish(Noted(number=2)) == first + 1
    finally:
        await asyncio.gather(*(bus.close() for bus in buses))
    async with open_bus(hive_url) as bus:
        assert len([record async for record in bus.read("system.*")]) == 1
    assert await audited(hive_url) == []


async def test_what_was_jumped_over_is_not_counted(hive_url: str) -> None:
    """Behind by three events is behind by three, however far apart their numbers are."""
    async with await open_store(hive_url) as store:
        await filled(store, 4)
    await jumped(hive_url)
    await jumped(hive_url)
    async with await open_store(hive_url) as store:
        head = (await filled(store, 2))[-1].position
        counts = [await distance(store.log, after, head) for after in (0, 2, 4, 5, 1_500_000, head - 2, head - 1, head)]
        assert counts == [6, 4, 2, 2, 2, 2, 1, 0]
        assert await distance(store.log, 0, 4) == 4


async def test_a_publisher_of_the_epoch_before_is_told(hive_url: str) -> None:
    """A typed error with what to do, at the first publish and at every later one; nothing is written."""
    async with open_bus(hive_url) as old:
        await old.publish(Noted(number=1))
        await jumped(hive_url)
        for _ in range(2):
            with pytest.raises(EpochOver, match="this process is of epoch 1, the log is at epoch 2") as caught:
                await old.publish(Noted(number=2))
            assert not caught.value.retryable
            assert "start this process again" in caught.value.advice
        async with open_bus(hive_url) as new:
            assert len([record async for record in new.read("epochs_test.*")]) == 1


async def test_a_subscriber_goes_on_across_the_jump(hive_url: str) -> None:
    """Who only reads needs no epoch: the next number is a large one, and nothing is missed or seen twice."""
    seen: list[int] = []
    async with open_bus(hive_url) as old:
        for number in range(3):
            await old.publish(Noted(number=number))
        async with old.subscribe("epochs_test.*", start=FROM_BEGINNING) as records:
            async for record in records:
                seen.append(_number(record))
                if len(seen) == 3:
                    await jumped(hive_url)
                    async with open_bus(hive_url) as new:
                        for number in range(3, 6):
                            await new.publish(Noted(number=number))
                if len(seen) == 6:
                    break
    assert seen == list(range(6))


async def test_a_member_of_the_epoch_before_ends_and_the_next_one_goes_on(hive_url: str) -> None:
    """Its group's iteration raises; a member of a new bus begins behind the checkpoint and crosses the jump."""
    seen: set[int] = set()

    async def follow(bus: Bus, last: int) -> None:
        async with bus.subscribe("epochs_test.*", group="g", start=FROM_BEGINNING) as records:
            async for record in records:
                seen.add(_number(record))
                if _number(record) == last:
                    return

    async with open_bus(hive_url) as old:
        for number in range(3):
            await old.publish(Noted(number=number), stream="one")
        await follow(old, last=2)
        await jumped(hive_url)
        with pytest.raises(EpochOver):
            await follow(old, last=3)
    async with open_bus(hive_url) as new:
        for number in range(3, 6):
            await new.publish(Noted(number=number), stream="one")
        await follow(new, last=5)
    assert seen == set(range(6))
    assert await audited(hive_url) == []


async def test_hive_up_of_the_epoch_before_ends_with_a_sentence(console_database: str, tmp_path: Path) -> None:
    """It cannot know what it lost: it says what happened and what to do, and whoever supervises it starts it again."""
    console = Console(tmp_path, console_database)
    up = await asyncio.to_thread(console.start, "up")
    try:
        assert up.stderr is not None
        assert "serving" in await asyncio.to_thread(up.stderr.readline)
        await jumped(console.url)
        assert await asyncio.to_thread(up.wait, WITHIN) == 1
        said = await asyncio.to_thread(up.stderr.read)
        assert "began a new epoch: this process is of epoch 1, the log is at epoch 2" in said
        assert "start this process again" in said
        assert "Traceback" not in said
    finally:
        up.kill()
        await asyncio.to_thread(up.communicate)
    done = await asyncio.to_thread(console, "events", "system.epoch_started")
    assert re.search(r"epoch=2 first_position=\d+000000 ", done.out)


def _number(record: Record) -> int:
    assert isinstance(record.event, Noted)
    return record.event.number
