"""Handlers that fail: parked, tried again in order, released when caught up, retried and discarded by people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hive_bus import Bus, Event, Park, Record, Retry, RetryPolicy, Skip, open_bus
from hive_bus.event import _registry
from hive_bus.groups.handler import Context, HandlerGroup, Outcome
from hive_bus.groups.parking import discard_parked, parked_keys, retry_parked
from hive_errors import BusClosed, NotFound
from tests.support.handling import (
    Answered,
    Flaky,
    Said,
    answers,
    nothing_parked,
    number_of,
    running,
    say,
    until,
    waits_for_person,
)
from tests.support.patience import WITHIN

SOON = RetryPolicy(first=0.01, longest=0.02)


@pytest.fixture
async def bus(hive_url: str) -> AsyncIterator[Bus]:
    """An open bus on a new file."""
    async with open_bus(hive_url) as bus:
        yield bus


def group(bus: Bus, handler: Flaky, retry: RetryPolicy = SOON) -> HandlerGroup:
    """A member of the group ``g`` with this handler."""
    return HandlerGroup(bus, handler, group="g", patterns=("test.said",), retry=retry)


async def system(bus: Bus) -> list[str]:
    """The topics of what the hive said about the group."""
    return [record.topic async for record in bus.read("system.*")]


async def test_a_failed_record_is_tried_again_and_its_key_stays_in_order(bus: Bus) -> None:
    """The key waits behind the failed record, and each record is answered once, although failed tries published too."""
    handler = Flaky({2: 3})
    member = group(bus, handler)
    async with running(member):
        await member.caught_up(await say(bus, 1, 2, 3, 4), within=WITHIN)
        await nothing_parked(bus)
        await member.caught_up(await say(bus, 5), within=WITHIN)
    assert await answers(bus) == [1, 2, 3, 4, 5]
    assert [attempt for number, attempt in handler.attempts if number == 2] == [1, 2, 3, 4]
    assert await system(bus) == ["system.parked"]


async def test_other_keys_flow_while_one_waits(bus: Bus) -> None:
    """Only the failing stream stands still, though both share the one partition."""
    member = HandlerGroup(
        bus, Flaky({1: 99}), group="g", patterns=("test.said",), partitions=1, retry=RetryPolicy(first=60)
    )
    async with running(member):
        await say(bus, 1, 2, stream="stuck")
        await member.caught_up(await say(bus, 3, 4, stream="free"), within=WITHIN)
        assert await answers(bus) == [3, 4]
        (row,) = await parked_keys(bus, "g")
        assert (row.key, row.attempt, row.error) == ("stuck", 1, "ValueError: no 1 today")


async def test_after_the_last_attempt_it_waits_for_a_person(bus: Bus) -> None:
    """Then an event says so, and a retry that works goes on with everything behind it."""
    handler = Flaky({1: 3})
    member = group(bus, handler, RetryPolicy(attempts=3, first=0.01, longest=0.01))
    async with running(member):
        await say(bus, 1, 2)
        row = await waits_for_person(bus, "g")
        assert (row.key, row.attempt, row.from_position) == ("one", 3, 1)
        assert await system(bus) == ["system.parked", "system.parked"]
        await retry_parked(bus, "g", "one")
        await nothing_parked(bus)
    assert await answers(bus) == [1, 2]
    assert (await system(bus))[-1] == "system.unparked"


async def test_a_discarded_record_counts_as_handled(bus: Bus) -> None:
    """What lies behind it is handled, the record itself never is, and the reason is in the log."""
    member = group(bus, Flaky({1: 99}), RetryPolicy(attempts=1))
    async with running(member):
        await say(bus, 1, 2, 3)
        await waits_for_person(bus, "g")
        await discard_parked(bus, "g", "one", reason="a test")
        await nothing_parked(bus)
    assert await answers(bus) == [2, 3]
    (said,) = [record async for record in bus.read("system.discarded")]
    assert (said.data["position"], said.data["reason"]) == (1, "a test")
    assert said.causation_id == (await bus.history("one"))[0].event_id


async def test_orders_given_while_no_member_runs_are_obeyed_later(bus: Bus) -> None:
    """They are events in the log: whoever owns the key next finds them."""
    policy = RetryPolicy(attempts=1)
    async with running(group(bus, Flaky({1: 1}), policy)):
        await say(bus, 1, 2)
        await waits_for_person(bus, "g")
    await retry_parked(bus, "g", "one")
    async with running(group(bus, Flaky(), policy)):
        await nothing_parked(bus)
    assert await answers(bus) == [1, 2]


async def test_orders_about_unknown_keys_are_refused(bus: Bus) -> None:
    """Naming the key and the group."""
    with pytest.raises(NotFound, match=r"'nobody'.*group g"):
        await retry_parked(bus, "g", "nobody")


async def test_a_parked_key_survives_its_process(bus: Bus, hive_url: str) -> None:
    """Another process goes on where the key waits, not where the partition is."""
    async with running(member := group(bus, Flaky({1: 99}), RetryPolicy(first=0.05))):
        await member.caught_up(await say(bus, 1, 2), within=WITHIN)
    async with open_bus(hive_url) as other, running(group(other, Flaky())):
        await nothing_parked(other)
    assert await answers(bus) == [1, 2]


async def test_outcomes_are_values(bus: Bus) -> None:
    """Skip counts as handled, Retry waits as long as it says, Park waits for a person, anything else is a mistake."""
    seen: list[tuple[int, int]] = []

    async def handler(record: Record, ctx: Context) -> Outcome:
        number = number_of(record)
        seen.append((number, ctx.attempt))
        match number, ctx.attempt:
            case 1, _:
                return Skip(reason="not for me")
            case 2, 1:
                return Retry(after=0.01, reason="not yet")
            case 3, _:
                return Park(reason="ask somebody")
            case 4, _:
                return "nonsense"  # type: ignore[return-value]
        return None

    member = HandlerGroup(bus, handler, group="g", patterns=("test.said",))
    async with running(member):
        positions = [await say(bus, number, stream=f"s{number}") for number in (1, 2, 3, 4)]
        await member.caught_up(positions[-1], within=WITHIN)

        async def only_two_wait() -> bool:
            return {row.key for row in await parked_keys(bus)} == {"s3", "s4"}

        await until(only_two_wait, bus)
        errors = {row.key: (row.error, row.next_try) for row in await parked_keys(bus)}
    assert errors["s3"] == ("ask somebody", None)
    assert errors["s4"] == ("the handler returned 'nonsense', not None, Retry, Skip or Park", None)
    assert (2, 2) in seen


async def test_an_undecodable_event_parks_its_key_for_a_person(bus: Bus) -> None:
    """Trying again cannot help: its class must be mended first."""

    async def handler(record: Record, ctx: Context) -> None:
        assert isinstance(record.event, Said)

    bad = type("Bad", (Event,), {"__annotations__": {"words": str}, "__module__": "elsewhere"}, topic="test.bad")
    await bus.publish(bad(words="x"), stream="one")
    del _registry["test.bad"]
    type("Good", (Event,), {"__annotations__": {"number": int}, "__module__": "elsewhere"}, topic="test.bad")
    try:
        member = HandlerGroup(bus, handler, group="g", patterns=("test.*",))
        async with running(member):
            await member.caught_up(1, within=WITHIN)
            row = await waits_for_person(bus, "g")
            assert row.attempt == 1
            assert "test.bad version 1 cannot be decoded" in row.error
    finally:
        del _registry["test.bad"]


async def test_a_newer_event_gives_the_partition_up_and_parks_nothing(bus: Bus) -> None:
    """A member with old code leaves it to newer ones, and handles its other partitions."""
    newer = type("N", (Event,), {"__annotations__": {"x": int}, "__module__": "new"}, topic="test.newer", version=2)
    await bus.publish(newer(x=1), stream="one")
    del _registry["test.newer"]
    type("N", (Event,), {"__annotations__": {"x": int}, "__module__": "new"}, topic="test.newer")
    handled: list[int] = []

    async def handler(record: Record, ctx: Context) -> None:
        assert record.topic == record.event.TOPIC
        handled.append(record.position)

    try:
        member = HandlerGroup(bus, handler, group="g", patterns=("test.*",))
        async with running(member):

            async def given_up() -> bool:
                rows = await bus.store.checkpoints.partitions("g")
                return sum(row.lease_id is not None for row in rows) == len(rows) - 1 == 15

            await until(given_up, bus)
            position = await say(bus, 1, stream="two")
            await until(lambda: _is(handled, [position]), bus)
        assert not await parked_keys(bus)
    finally:
        del _registry["test.newer"]


async def _is(value: object, wanted: object) -> bool:
    return value == wanted


async def test_a_publish_from_a_task_that_outlives_its_handler_is_refused(bus: Bus) -> None:
    """It would belong to no append; the handler's own publishes, and those of tasks it waits for, are fine."""
    released, refused = asyncio.Event(), asyncio.Event()

    async def late(number: int) -> None:
        await released.wait()
        try:
            await bus.publish(Answered(number=number), stream="late")
        except BusClosed:
            refused.set()

    async with asyncio.TaskGroup() as tasks:

        async def handler(record: Record, ctx: Context) -> None:
            async with asyncio.TaskGroup() as own:
                own.create_task(bus.publish(Answered(number=number_of(record)), stream="in time"))
            if number_of(record) == 1:
                tasks.create_task(late(99))
            else:
                # The late one speaks while this record is being handled: it is not this record's either.
                released.set()
                await refused.wait()

        member = HandlerGroup(bus, handler, group="g", patterns=("test.said",))
        async with running(member):
            await member.caught_up(await say(bus, 1, 2), within=WITHIN)
    assert await answers(bus) == [1, 2]


async def test_a_refused_publish_is_the_handlers_failure(bus: Bus) -> None:
    """An event id that is taken by other content parks the key; nothing moves past it."""
    await bus.publish(Answered(number=0), stream="x", event_id="01900000-0000-7000-8000-000000000001")

    async def handler(record: Record, ctx: Context) -> None:
        taken = "01900000-0000-7000-8000-000000000001" if ctx.attempt == 1 and number_of(record) == 2 else None
        await bus.publish(Answered(number=number_of(record)), stream="answers", event_id=taken)

    member = HandlerGroup(bus, handler, group="g", patterns=("test.said",), retry=SOON)
    async with running(member):
        await member.caught_up(await say(bus, 1, 2, 3, 4), within=WITHIN)
        await nothing_parked(bus)
    assert await answers(bus) == [0, 1, 2, 3, 4]


async def test_apart_publishes_at_once(bus: Bus) -> None:
    """It has a position already while the handler runs, and stays although the handler fails."""
    positions: list[int] = []

    async def handler(record: Record, ctx: Context) -> Outcome:
        positions.append(await ctx.publish(Answered(number=7), stream="apart", apart=True))
        return Park()

    member = HandlerGroup(bus, handler, group="g", patterns=("test.said",))
    async with running(member):
        await member.caught_up(await say(bus, 1), within=WITHIN)
    assert positions[0] > 0
    assert await answers(bus) == [7]
