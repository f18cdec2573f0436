"""Members of a group in one process: leases, checkpoints, fences, slow partitions, and clean ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from hive_bus import FROM_NOW, Bus, Record, open_bus
from hive_bus.groups.dispatch import ROOM, partition_of
from hive_bus.groups.handler import Context, HandlerGroup
from hive_bus.groups.member import GroupMember, Owned
from hive_core_db.records import AppendRequest, NewEvent
from hive_errors import GroupTaken
from tests.support.handling import Answered, Said, answers, number_of, running, say, until
from tests.support.patience import WITHIN
from tests.support.tables import change


class Notes:
    """A consumer that notes what it is told, and can be held up."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.told: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def assigned(self, partition: Owned) -> None:
        self.told.append(f"assigned {partition.number}")

    async def revoked(self, partition: Owned) -> None:
        self.told.append(f"revoked {partition.number}")

    async def handle(self, partition: Owned, page: Sequence[Record]) -> None:
        self.begun.set()
        await self.gate.wait()
        self.records.extend(page)


def member(bus: Bus, notes: Notes, *, partitions: int = 2) -> GroupMember:
    """A member of the group ``g``."""
    return GroupMember(bus, group="g", patterns=("test.said",), key="stream", consumer=notes, partitions=partitions)


async def held(bus: Bus, group: str = "g") -> dict[int, str | None]:
    """Who holds which partition."""
    return {row.number: row.lease_id for row in await bus.store.checkpoints.partitions(group)}


async def test_a_consumer_is_told_in_order(bus: Bus) -> None:
    """Assigned, then records, then revoked; and the checkpoint is stored when the member has left."""
    notes = Notes()
    async with running(one := member(bus, notes)):
        position = await say(bus, 1, 2, 3)
        await one.caught_up(position, within=WITHIN)
    assert [number_of(record) for record in notes.records] == [1, 2, 3]
    assert sorted(notes.told[:2] + notes.told[-2:]) == ["assigned 0", "assigned 1", "revoked 0", "revoked 1"]
    rows = await bus.store.checkpoints.partitions("g")
    assert {(row.position, row.lease_id) for row in rows} == {(position, None)}


async def test_a_new_group_may_begin_now(bus: Bus) -> None:
    """What was before is none of its business; a group that exists goes on where it was, wherever it would begin."""
    seen: list[int] = []

    async def handler(record: Record, ctx: Context) -> None:
        seen.append(number_of(record))

    await say(bus, 1)
    for first, last in ((2, 3), (4, 5)):
        group = HandlerGroup(bus, handler, group="g", patterns=("test.said",), start=FROM_NOW)
        async with running(group):
            await until(lambda: _all_held(bus), bus)
            await group.caught_up(await say(bus, first), within=WITHIN)
        await say(bus, last)
    assert seen == [2, 3, 4]


async def _all_held(bus: Bus) -> bool:
    owners = await held(bus)
    return bool(owners) and None not in owners.values()


async def test_one_bus_is_one_member(bus: Bus) -> None:
    """A second member of the same group on the same bus would share its lease: it is refused by name."""
    async with running(member(bus, Notes())):
        await until(lambda: _all_held(bus), bus)
        with pytest.raises(GroupTaken, match="'g'"):
            await member(bus, Notes()).run()


async def test_a_joining_member_waits_for_what_is_in_hand(bus: Bus, hive_url: str) -> None:
    """A partition changes hands only when its page is handled: no record is handled by both."""
    first, second = Notes(), Notes()
    first.gate.clear()
    async with open_bus(hive_url) as other, running(member(bus, first)):
        for stream in ("a", "b", "c", "d"):
            await say(bus, 1, 2, stream=stream)
        await first.begun.wait()
        async with running(two := member(other, second)):
            await until(lambda: _members(bus, 2), bus)
            assert len(set((await held(bus)).values())) == 1
            first.gate.set()
            await until(lambda: _owners(bus, 2), bus)
            await two.caught_up(await say(bus, 3, stream="d"), within=WITHIN)
    positions = [record.position for record in first.records + second.records]
    assert sorted(positions) == list(range(1, 10))


async def _members(bus: Bus, count: int) -> bool:
    return len(await bus.store.checkpoints.members("g")) == count


async def _owners(bus: Bus, count: int) -> bool:
    owners = set((await held(bus)).values())
    return None not in owners and len(owners) == count


async def test_a_lost_lease_is_replaced(bus: Bus) -> None:
    """Somebody held the process for dead: it drops everything, and begins again with a new lease."""
    bus.lease_seconds = 2.0
    notes = Notes()
    async with running(one := member(bus, notes)):
        await until(lambda: _all_held(bus), bus)
        lease = await bus.open_lease()
        await bus.store.leases.close(lease.lease_id)
        await lease.lost.wait()
        await until(lambda: _all_held(bus), bus)
        assert lease.lease_id not in (await held(bus)).values()
        await one.caught_up(await say(bus, 1), within=WITHIN)
    assert [number_of(record) for record in notes.records] == [1]


@pytest.mark.parametrize("steps", range(8))
async def test_a_lease_lost_in_the_moment_of_the_end(bus: Bus, steps: int) -> None:
    """Whoever is told to end while it lets go of a lost lease ends, and does not begin again."""
    one = member(bus, Notes())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(one.run())
        await until(lambda: _all_held(bus), bus)
        lease = await bus.open_lease()
        await bus.store.leases.close(lease.lease_id)
        assert not await lease.tell()
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running], timeout=WITHIN)
        assert running.cancelled()


async def test_a_lease_lost_before_joining_is_replaced(bus: Bus) -> None:
    """Whoever stood still between opening its lease and joining does not end: it joins with the next one."""
    bus.lease_seconds = 2.0
    lease = await bus.open_lease()
    await bus.store.leases.close(lease.lease_id)
    notes = Notes()
    async with running(member(bus, notes)):
        await say(bus, 1)
        async with asyncio.timeout(WITHIN):
            await notes.begun.wait()
        assert lease.lease_id not in (await held(bus)).values()


async def test_what_a_stale_owner_publishes_is_refused(bus: Bus, hive_url: str) -> None:
    """The handler finishes after its partition was taken over: nothing of it is in the log, its successor's is."""
    begun, go = asyncio.Event(), asyncio.Event()

    def group(where: Bus, name: str) -> HandlerGroup:
        async def handler(record: Record, ctx: Context) -> None:
            await ctx.publish(Answered(number=number_of(record)), stream=name)
            if name == "stale":
                begun.set()
                await go.wait()

        return HandlerGroup(where, handler, group="g", patterns=("test.said",), partitions=1)

    async with open_bus(hive_url) as other, running(group(bus, "stale")):
        position = await say(bus, 1)
        await begun.wait()
        lease = await bus.open_lease()
        await bus.store.leases.close(lease.lease_id)
        async with running(successor := group(other, "successor")):
            await successor.caught_up(position, within=WITHIN)
            go.set()
            await successor.caught_up(await say(bus, 2), within=WITHIN)
    streams = [record.stream async for record in bus.read(Answered.TOPIC) if number_of(record) == 1]
    assert streams == ["successor"]


async def test_a_slow_partition_does_not_hold_the_others(bus: Bus) -> None:
    """It is left behind once its room is full, and fed from its own place when it has caught up."""
    slow, fast = partition_of("slow", 2), partition_of("fast", 2)
    assert slow != fast
    gate, seen = asyncio.Event(), {"slow": 0, "fast": 0}

    class Uneven(Notes):
        async def handle(self, partition: Owned, page: Sequence[Record]) -> None:
            if partition.number == slow:
                await gate.wait()
            for record in page:
                seen[record.stream] += 1

    count = 3 * ROOM
    for stream in ("slow", "fast"):
        await fill(bus, stream, count)
    async with running(one := member(bus, Uneven())):
        await until(lambda: _equal(seen, "fast", count), bus)
        assert seen["slow"] == 0
        gate.set()
        await one.caught_up(2 * count, within=WITHIN)
    assert seen == {"slow": count, "fast": count}


async def _equal(seen: dict[str, int], stream: str, count: int) -> bool:
    return seen[stream] == count


async def fill(bus: Bus, stream: str, count: int) -> None:
    """Many events in one append."""
    events = tuple(
        NewEvent(
            bus.ids.event_id(bus.now()),
            stream,
            Said.TOPIC,
            stream,
            None,
            None,
            None,
            "test",
            1,
            '{"number":1}',
            None,
            "",
            None,
        )
        for _ in range(count)
    )
    await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=events))


async def test_each_record_may_be_committed_alone(bus: Bus) -> None:
    """The checkpoint of every record is stored before the next one is handled."""
    stored: list[int] = []

    async def handler(record: Record, ctx: Context) -> None:
        rows = await bus.store.checkpoints.partitions("g")
        stored.append(rows[0].position)

    group = HandlerGroup(bus, handler, group="g", patterns=("test.said",), partitions=1, commit="each")
    position = await say(bus, 1, 2, 3, 4)
    async with running(group):
        await group.caught_up(position, within=WITHIN)
    assert stored == [0, 1, 2, 3]


async def test_a_cancelled_handler_has_not_happened(bus: Bus) -> None:
    """The cancellation passes through it, what it published is gone, and the record comes again."""
    begun = asyncio.Event()
    cancelled: list[bool] = []

    async def endless(record: Record, ctx: Context) -> None:
        await ctx.publish(Answered(number=number_of(record)), stream="answers")
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def quick(record: Record, ctx: Context) -> None:
        await ctx.publish(Answered(number=number_of(record)), stream="answers")

    position = await say(bus, 1)
    async with running(HandlerGroup(bus, endless, group="g", patterns=("test.said",))):
        await begun.wait()
    assert cancelled == [True]
    async with running(group := HandlerGroup(bus, quick, group="g", patterns=("test.said",))):
        await group.caught_up(position, within=WITHIN)
    assert await answers(bus) == [1]


async def test_a_redelivered_record_publishes_the_same_events(bus: Bus) -> None:
    """A group whose checkpoint was set back finds its events there already, and goes on."""

    async def handler(record: Record, ctx: Context) -> None:
        await ctx.publish(Answered(number=number_of(record)), stream="answers")
        await ctx.publish(Answered(number=-number_of(record)), stream="answers")

    def group() -> HandlerGroup:
        return HandlerGroup(bus, handler, group="g", patterns=("test.said",), partitions=1)

    position = await say(bus, 1, 2)
    async with running(first := group()):
        await first.caught_up(position, within=WITHIN)
    await set_back(bus)
    async with running(second := group()):
        await second.caught_up(await say(bus, 3), within=WITHIN)
    assert await answers(bus) == [1, -1, 2, -2, 3, -3]


async def set_back(bus: Bus) -> None:
    """As a person would, with the database's own tools."""
    change(bus.store.url, "UPDATE partitions SET position = 0")
