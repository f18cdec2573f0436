"""The writer on a real store: what makes a batch, how it ends, and that one request's fate is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from hive_bus.codec import digest
from hive_bus.writer import BATCH_BYTES, BATCH_EVENTS, Writer
from hive_core_db.engine import open_store
from hive_core_db.records import Appended, AppendRequest, Conflict, NewEvent, StoredEvent
from hive_core_db.store import Store
from hive_errors import BusClosed, EpochOver


@pytest.fixture
async def store(hive_url: str) -> AsyncIterator[Store]:
    """An open store on a new file."""
    store = await open_store(hive_url)
    yield store
    await store.close()


def request(*names: str, size: int = 2, epoch: int = 1, **wishes: dict[str, int]) -> AppendRequest:
    """A request with an event for each name, in the stream of that name."""
    payload = f'"{"x" * (size - 2)}"'
    events = tuple(
        NewEvent(
            f"id-{name}", name, "a.b", name, None, None, None, "t", 1, payload, None, digest(payload.encode()), None
        )
        for name in names
    )
    return AppendRequest(epoch=epoch, events=events, **wishes)  # type: ignore[arg-type]


async def batches(store: Store, requests: Sequence[AppendRequest]) -> list[list[str]]:
    """Submit all at once, and say which streams each commit had."""
    writer = Writer(store.log, epoch=1)
    commits: list[list[str]] = []

    def note(rows: Sequence[StoredEvent]) -> None:
        commits.append([row.stream for row in rows])

    writer.on_commit(note)
    async with asyncio.TaskGroup() as tasks:
        futures = [writer.submit(one) for one in requests]
        tasks.create_task(writer.run())
        await asyncio.gather(*futures)
        await writer.close()
    return commits


async def test_a_batch_has_at_most_so_many_events(store: Store) -> None:
    """A request is never split: one that does not fit any more opens the next batch."""
    small = [request(f"s{number}") for number in range(BATCH_EVENTS - 1)]
    pair = request("pair-1", "pair-2")
    commits = await batches(store, [*small, pair, request("last")])
    assert max(len(commit) for commit in commits) < BATCH_EVENTS
    assert sum(len(commit) for commit in commits) == BATCH_EVENTS + 2
    assert any({"pair-1", "pair-2"} <= set(commit) for commit in commits)
    if store.log.lanes == 1:
        assert [len(commit) for commit in commits] == [BATCH_EVENTS - 1, 3]


async def test_a_larger_request_goes_alone(store: Store) -> None:
    """More events than a batch has, or more bytes, in one request."""
    many = request(*(f"m{number}" for number in range(BATCH_EVENTS + 100)))
    commits = await batches(store, [request("first"), many, request("last")])
    assert max(len(commit) for commit in commits) == BATCH_EVENTS + 100
    if store.log.lanes == 1:
        assert [len(commit) for commit in commits] == [1, BATCH_EVENTS + 100, 1]


async def test_a_batch_has_at_most_so_many_bytes(store: Store) -> None:
    """Payloads of a third of the limit each: three to a commit."""
    third = [request(f"t{number}", size=BATCH_BYTES // 3) for number in range(7)]
    assert sorted(len(commit) for commit in await batches(store, third)) == [1, 3, 3]


async def test_each_request_has_its_own_verdict(store: Store) -> None:
    """A conflict and a stale epoch in the middle of a batch leave their neighbours alone."""
    writer = Writer(store.log, epoch=1)
    async with asyncio.TaskGroup() as tasks:
        futures = [
            writer.submit(request("a")),
            writer.submit(request("b", expected={"a": 5})),
            writer.submit(request("c", epoch=9)),
            writer.submit(request("d", expected={"a": 1})),
        ]
        tasks.create_task(writer.run())
        verdicts = await asyncio.gather(*futures, return_exceptions=True)
        await writer.close()
    assert [type(verdict) for verdict in verdicts] == [Appended, Conflict, EpochOver, Appended]
    assert await store.log.head() == 2


async def test_stopping_the_writer_answers_everybody(store: Store) -> None:
    """Cancelled in the middle of a commit: those in it hear that it is unsure, those behind it that nothing was written."""
    writer = Writer(store.log, epoch=1)
    futures = [writer.submit(request(f"s{number}")) for number in range(store.log.lanes * BATCH_EVENTS + 1)]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(writer.run())
        await asyncio.sleep(0)
        running.cancel()
    problems = [future.exception() for future in futures]
    assert all(isinstance(problem, BusClosed) for problem in problems)
    assert "may be in the log" in str(problems[0])
    assert "nothing was written" in str(problems[-1])
    with pytest.raises(BusClosed):
        await writer.submit(request("late"))


async def test_a_request_without_events_is_a_commit_too(store: Store) -> None:
    """Nobody is told of rows that there are not, and the verdict names the head."""
    writer = Writer(store.log, epoch=1)
    told: list[StoredEvent] = []
    writer.on_commit(told.extend)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run())
        await writer.append(request("a"))
        verdict = await writer.append(AppendRequest(epoch=1))
        await writer.close()
    assert verdict == Appended(2, 1, ())
    assert len(told) == 1
