"""The parts of a group: fair shares, patterns, placement, lanes, backoff, outcomes, and leases."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hive_bus.groups.balance import fair_share, surplus
from hive_bus.groups.dispatch import Lane, Places, Router, Topics, partition_of
from hive_bus.groups.parking import RetryPolicy, describe, hopeless
from hive_bus.record import Record
from hive_bus.tasks import together
from hive_core_db.records import StoredEvent
from hive_core_db.rows import StoredRow
from hive_errors import UndecodableEvent


def event(position: int, *, stream: str = "s", topic: str = "a.b") -> StoredEvent:
    """A stored event at a position."""
    return StoredEvent(
        position, f"e{position}", stream, 1, topic, "c", None, None, None, "t", 1, "{}", None, "", position, 0, 0
    )


@given(partitions=st.integers(1, 64), members=st.integers(1, 80))
def test_shares_add_up_and_differ_by_one(partitions: int, members: int) -> None:
    """Together the members hold everything, nobody more than one partition more than another."""
    shares = [fair_share(partitions, members, index) for index in range(members)]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1


def test_what_is_too_much_is_given_up_from_the_end() -> None:
    """Nothing when the share is not exceeded."""
    assert surplus({5, 1, 9}, 2) == [9]
    assert surplus({5, 1, 9}, 3) == []


def test_a_key_has_one_partition_for_ever() -> None:
    """The hash is part of what is stored: it may never change."""
    assert [partition_of(key, 16) for key in ("a", "order/1", "ключ")] == [3, 13, 10]
    places = Places(16)
    assert [places[key] is places.lists[number] for key, number in (("a", 3), ("order/1", 13), ("ключ", 10))] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("patterns", "known", "read"),
    [
        ((), ["a.b", "c.d"], None),
        ((">",), ["a.b", "c.d"], None),
        (("a.*",), ["a.b", "c.d"], ["a.b"]),
        (("*.b", "c.>"), ["a.b", "c.d"], None),
        (("x.y",), ["a.b"], []),
    ],
)
def test_patterns_choose_how_the_log_is_read(patterns: Sequence[str], known: list[str], read: list[str] | None) -> None:
    """By the index of topics, unless every topic is wanted."""
    assert Topics(patterns).among(known) == read


def test_orders_are_read_beside_the_patterns() -> None:
    """They reach the owner of their key, and are no records of the group."""
    topics = Topics(("a.*",), always=("system.unparked",))
    assert topics.among(["a.b", "c.d", "system.unparked"]) == ["a.b", "system.unparked"]
    assert not topics["system.unparked"]
    handled, told = asyncio.run(_routed(topics))
    assert handled == [1, 3]
    assert told == [2]


async def _routed(topics: Topics) -> tuple[list[int], list[int]]:
    handled: list[int] = []
    told: list[int] = []
    lane = lane_of(handled, told)
    router = Router(topics, "stream", 1, commands=("system.unparked",), command_key=lambda record: record.stream)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(lane.run())
        rows = [event(1), event(2, topic="system.unparked"), event(3), event(4, topic="c.d")]
        router.route(rows, 4, [lane])
        while lane.fed < 4 or len(handled) < 2:
            await asyncio.sleep(0)
        lane.close()
        await task
    return handled, told


def lane_of(handled: list[int], told: list[int] | None = None, chunk: int = 256) -> Lane:
    """A lane that notes positions."""

    async def handle(page: Sequence[Record]) -> None:
        await asyncio.sleep(0)
        handled.extend(record.position for record in page)

    async def command(record: Record) -> None:
        assert told is not None
        told.append(record.position)

    return Lane(0, position=0, handle=handle, command=command, reached=lambda _: None, chunk=chunk)


@given(pages=st.lists(st.integers(0, 7), max_size=8), chunk=st.integers(1, 9))
def test_a_lane_handles_everything_once_in_order(pages: list[int], chunk: int) -> None:
    """Whatever the sizes of pages and chunks; a page that was fed before is left out."""

    async def play() -> list[int]:
        handled: list[int] = []
        lane, position = lane_of(handled, chunk=chunk), 0
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(lane.run())
            for size in pages:
                rows: list[StoredRow] = [event(position + n) for n in range(1, size + 1)]
                position += size
                lane.feed(rows, [], position)
                lane.feed(rows, [], position)
                await asyncio.sleep(0)
            while lane.backlog:
                await asyncio.sleep(0)
            lane.close()
            await task
        return handled

    assert asyncio.run(play()) == list(range(1, sum(pages) + 1))


def test_backoff_doubles_up_to_a_limit_and_ends() -> None:
    """One second, two, four, and five minutes at most; after the last attempt there is none."""
    policy = RetryPolicy(attempts=20, jitter=0.5)
    assert [policy.wait(n, 1.0) for n in (1, 2, 3, 12)] == [1.0, 2.0, 4.0, 300.0]
    assert policy.wait(2, 0.0) == 1.0
    assert policy.wait(20, 0.0) is None
    assert RetryPolicy().wait(7, 1.0) == 64.0
    assert RetryPolicy().wait(8, 1.0) is None


def test_only_what_cannot_change_by_waiting_is_hopeless() -> None:
    """And errors are kept with their kind, shortened."""
    assert hopeless(UndecodableEvent(topic="a.b", version=1, reason="x"))
    assert not hopeless(ValueError("x"))
    assert describe(ValueError("no")) == "ValueError: no"
    assert len(describe(ValueError("x" * 5000))) == 2000


async def test_a_single_failure_is_raised_as_itself() -> None:
    """However deep the task groups; several stay a group."""
    with pytest.raises(KeyError):
        await _run(_nested(_fail(KeyError("x"))))
    with pytest.raises(ExceptionGroup):
        await _run(_fail(KeyError("x")), _fail(ValueError("y")))


async def _fail(problem: Exception) -> None:
    raise problem


async def _nested(failing: Coroutine[object, object, None]) -> None:
    async with asyncio.TaskGroup() as inner:
        inner.create_task(failing)


async def _run(*failing: Coroutine[object, object, None]) -> None:
    async with together() as tasks:
        for each in failing:
            tasks.create_task(each)
