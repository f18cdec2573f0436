"""Publishing on a real file: envelopes, verdicts, guards, and what a store's failure leaves behind."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_bus import Bus, Draft, Event, Intent, open_bus
from hive_bus.codec import encode
from hive_bus.envelope import Collector, current_handler, encode_event
from hive_bus.events import TaskCompleted, TimerSet, WorkflowRequested
from hive_bus.writer import BATCH_EVENTS, ROOM
from hive_core_db.engine import open_store
from hive_core_db.records import AppendRequest, StoredEvent, WorkEnd
from hive_errors import (
    BusClosed,
    DuplicateMismatch,
    EpochOver,
    GuardedTopic,
    InvalidTopic,
    MetadataTooLarge,
    PayloadRefused,
    StoreBusy,
    StoreError,
    StreamConflict,
    WorkEnded,
)


class Placed(Event, topic="order.placed"):
    number: int = 0
    note: str = ""


class MailRequested(Intent, topic="mail_test.requested", results=("mail_test.sent",)):
    to: str = ""


class MailSent(Event, topic="mail_test.sent"):
    pass


@pytest.fixture
async def bus(hive_url: str) -> AsyncIterator[Bus]:
    """An open bus on a new file."""
    async with open_bus(hive_url, source="test") as bus:
        yield bus


async def test_a_published_event_is_in_the_log(bus: Bus) -> None:
    """Its position is returned, and its record says everything that was given."""
    position = await bus.publish(
        Placed(number=1),
        stream="orders/1",
        correlation_id="c1",
        causation_id="cause",
        event_id="e1",
        source="shop",
        metadata={"user": "ada"},
        occurred_at=1_000_000,
    )
    record = await bus.get("e1")
    assert record is not None
    assert position == record.position == 1
    assert (record.stream, record.version, record.topic) == ("orders/1", 1, "order.placed")
    assert (record.correlation_id, record.causation_id, record.source) == ("c1", "cause", "shop")
    assert record.metadata == {"user": "ada"}
    assert record.occurred_at == 1_000_000
    assert record.recorded_at > record.occurred_at
    assert record.event == Placed(number=1)
    assert record.payload == encode(Placed(number=1)).decode()


async def test_without_a_stream_it_goes_where_its_correlation_is(bus: Bus) -> None:
    """The correlation id names the stream; without one, one fresh id is both; with only a stream, that is both."""
    await bus.publish(Placed(), correlation_id="c1")
    await bus.publish(Placed())
    await bus.publish(Placed(), stream="s1")
    first, second, third = [record async for record in bus.read()]
    assert (first.stream, first.correlation_id) == ("c1", "c1")
    assert second.stream == second.correlation_id != "c1"
    assert (third.stream, third.correlation_id) == ("s1", "s1")


async def test_a_cause_gives_causation_and_correlation(bus: Bus) -> None:
    """``caused_by`` is all that a reaction needs to be traced."""
    await bus.publish(Placed(number=1), stream="orders/1", correlation_id="c1")
    [cause] = [record async for record in bus.read()]
    await bus.publish(Placed(number=2), caused_by=cause)
    effect = (await bus.history("c1"))[1]
    assert (effect.causation_id, effect.correlation_id, effect.stream) == (cause.event_id, "c1", "c1")


async def test_a_drafts_wishes_count_and_arguments_win(bus: Bus) -> None:
    """What publish is told stands above what the draft wishes."""
    draft = Draft(event=Placed(), stream="wish", correlation_id="c1", source="draft", metadata={"a": 1}, event_id="e1")
    await bus.publish(draft, source="argument")
    record = await bus.get("e1")
    assert record is not None
    assert (record.stream, record.correlation_id, record.source, record.metadata) == (
        "wish",
        "c1",
        "argument",
        {"a": 1},
    )


async def test_publishing_again_is_harmless(bus: Bus) -> None:
    """The same id with the same content gives the first position; with other content it is refused."""
    first = await bus.publish(Placed(number=1), stream="s", event_id="e1")
    assert await bus.publish(Placed(number=1), stream="s", event_id="e1") == first
    with pytest.raises(DuplicateMismatch):
        await bus.publish(Placed(number=2), stream="s", event_id="e1")
    assert await bus.head() == 1


@pytest.mark.parametrize(
    ("event", "wishes", "error"),
    [
        (Placed(note="\x00"), {}, PayloadRefused),
        (Placed(), {"metadata": {"k": "x" * 9000}}, MetadataTooLarge),
        (Event(), {}, InvalidTopic),
    ],
)
async def test_bad_input_is_refused_before_the_log(
    bus: Bus, event: Event, wishes: dict[str, dict[str, str]], error: type[Exception]
) -> None:
    """The caller gets the reason, the log gets nothing, and the bus goes on."""
    with pytest.raises(error):
        await bus.publish(event, metadata=wishes.get("metadata"))
    assert await bus.publish(Placed()) == 1


async def test_append_is_all_or_none_at_the_expected_version(bus: Bus) -> None:
    """Events of one append are neighbours; a stale expectation appends nothing and says where the stream is."""
    done = await bus.append("s", [Placed(number=1), Placed(number=2)], expected=0)
    assert (done.first, done.last) == (1, 2)
    with pytest.raises(StreamConflict) as conflict:
        await bus.append("s", [Placed(number=3), Placed(number=4)], expected=0)
    assert (conflict.value.expected, conflict.value.actual) == (0, 2)
    assert await bus.head() == 2
    await bus.append("s", [Placed(number=3)], expected=2)
    assert [record.version for record in await bus.history("s")] == [1, 2, 3]


async def test_a_thousand_callers_share_commits_in_their_order(bus: Bus) -> None:
    """Every caller gets its own position; the log holds each once, a stream's in the order of the calls, batches within the limit."""
    batches: list[int] = []
    forget = bus.writer.on_commit(lambda rows: batches.append(len(rows)))
    async with asyncio.TaskGroup() as callers:
        tasks = [
            callers.create_task(bus.publish(Placed(number=number), stream=f"s{number % 40}")) for number in range(1200)
        ]
    forget()
    positions = [task.result() for task in tasks]
    assert sorted(positions) == list(range(1, 1201))
    records = [record async for record in bus.read("order.placed")]
    assert [record.data["number"] for record in records] == sorted(range(1200), key=positions.__getitem__)
    for one in range(40):
        assert positions[one::40] == sorted(positions[one::40])
    # Of two lanes, either may be the first in the log.
    assert bus.store.log.lanes > 1 or positions == sorted(positions)
    assert sum(batches) == 1200
    assert max(batches) <= BATCH_EVENTS
    assert len(batches) < 20


async def test_commits_are_told_before_their_callers_resume(bus: Bus) -> None:
    """Whoever keeps up with commits knows the event when its publisher goes on."""
    seen: list[StoredEvent] = []
    forget = bus.writer.on_commit(seen.extend)
    position = await bus.publish(Placed())
    assert [row.position for row in seen] == [position]
    forget()
    await bus.publish(Placed())
    assert len(seen) == 1


async def test_a_cancelled_publish_leaves_a_whole_event(bus: Bus) -> None:
    """Cancelling the caller does not undo what the writer has; its neighbours notice nothing."""
    async with asyncio.TaskGroup() as callers:
        doomed = [callers.create_task(bus.publish(Placed(number=number), stream="doomed")) for number in range(5)]
        calm = [callers.create_task(bus.publish(Placed(number=number), stream="calm")) for number in range(5)]
        await asyncio.sleep(0)
        for task in doomed:
            task.cancel()
    assert all(task.cancelled() for task in doomed)
    assert [task.result() for task in calm] == [6, 7, 8, 9, 10]
    assert [record.data["number"] for record in await bus.history("doomed")] == [0, 1, 2, 3, 4]


async def test_publish_waits_when_too_many_do(bus: Bus) -> None:
    """The queue never grows beyond its room, and everything is appended in the end."""
    longest = 0

    async def publisher() -> None:
        nonlocal longest
        await bus.publish(Placed())
        longest = max(longest, len(bus.writer._queue))

    async with asyncio.TaskGroup() as callers:
        for _ in range(ROOM + 2000):
            callers.create_task(publisher())
        await asyncio.sleep(0)
        assert len(bus.writer._queue) == ROOM
    assert longest <= ROOM
    assert await bus.head() == ROOM + 2000


async def test_callers_cancelled_while_they_wait_for_room_leave_nothing(bus: Bus) -> None:
    """They have no place in the queue yet; those behind them get theirs."""
    request = AppendRequest(epoch=bus.writer.epoch)
    # The writer takes a batch for each lane before the callers below have their turn.
    for _ in range(ROOM + bus.store.log.lanes * BATCH_EVENTS):
        bus.writer.submit(request).cancel()
    async with asyncio.TaskGroup() as callers:
        doomed = callers.create_task(bus.publish(Placed(number=1), stream="doomed"))
        calm = callers.create_task(bus.publish(Placed(number=2), stream="calm"))
        await asyncio.sleep(0)
        doomed.cancel()
    assert calm.result() == 1
    assert await bus.head() == 1


@pytest.mark.sqlite_only("PostgreSQL has no lock on a whole database; test_postgres_faults.py has its troubles")
async def test_a_locked_file_fails_those_who_wait_and_nobody_after(hive_url: str) -> None:
    """A second connection holds the lock: the batch fails with the typed error, and the next one is appended."""
    store = await open_store(hive_url, busy_timeout=0.05)
    async with open_bus(store=store) as bus:
        await bus.publish(Placed(number=1))
        other = sqlite3.connect(hive_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        failed = await asyncio.gather(*(bus.publish(Placed(number=2)) for _ in range(5)), return_exceptions=True)
        other.execute("ROLLBACK")
        other.close()
        assert [type(problem) for problem in failed] == [StoreBusy] * 5
        assert len({id(problem) for problem in failed}) == 5
        assert await bus.publish(Placed(number=3)) == 2


@pytest.mark.sqlite_only("PostgreSQL has no lock on a whole database")
async def test_a_failure_that_nobody_waits_for_any_more_is_no_second_one(hive_url: str) -> None:
    """Whoever submitted and is gone hears of nothing, and the event loop does not complain in their place."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with open_bus(store=await open_store(hive_url, busy_timeout=0.05)) as bus:
        other = sqlite3.connect(hive_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        gone = bus.writer.submit(AppendRequest(epoch=bus.writer.epoch))
        del gone
        with pytest.raises(StoreBusy):
            await bus.publish(Placed(number=1))
        other.close()
    gc.collect()
    assert complaints == []


async def test_what_waits_is_committed_when_the_bus_closes(hive_url: str) -> None:
    """Closing drains the queue; afterwards publish is refused, and closing again is fine."""
    bus = await open_bus(hive_url)
    waiting = [bus.writer.submit(AppendRequest(epoch=bus.writer.epoch)) for _ in range(3)]
    await bus.close()
    assert all(future.done() and future.exception() is None for future in waiting)
    with pytest.raises(BusClosed):
        await bus.publish(Placed())
    with pytest.raises(BusClosed):
        await bus.open_lease()
    await bus.close()


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_bus_is_closed_though_its_closing_is_cancelled(bus: Bus, hive_url: str, steps: int) -> None:
    """Its lease is closed before the cancellation is raised: nobody has to wait for its time."""
    other = await open_bus(hive_url)
    await other.open_lease()
    async with asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(other.close())
        for _ in range(steps):
            await asyncio.sleep(0)
        closing.cancel()
    assert closing.cancelled()
    assert await bus.store.leases.live() == []


async def test_a_result_is_not_published_into_a_run(bus: Bus) -> None:
    """Under a run's id it is refused with the command that does it properly; under another id it is an ordinary event."""
    assert await bus.publish(TaskCompleted(task_id="t"), correlation_id="no-run") == 1
    await bus.publish(WorkflowRequested(goal="g"), stream="r1/run", correlation_id="r1")
    with pytest.raises(GuardedTopic) as refused:
        await bus.publish(TaskCompleted(task_id="t"), correlation_id="r1")
    assert refused.value.run == "r1"
    assert "agent" in refused.value.advice
    with pytest.raises(GuardedTopic):
        await bus.append("anything", [Placed(), TaskCompleted(task_id="t")], correlation_id="r1")
    with pytest.raises(GuardedTopic, match="into run r1"):
        await bus.publish(TaskCompleted(task_id="t"), stream="r1/drone/t.1", correlation_id="elsewhere")
    assert await bus.head() == 2


async def test_what_people_may_say_is_published_into_a_run(bus: Bus) -> None:
    """Topics that people own, and their own topics, go where they like."""
    await bus.publish(WorkflowRequested(goal="g"), stream="r1/run", correlation_id="r1")
    assert await bus.publish(Placed(), correlation_id="r1") == 2


async def test_the_ends_of_a_users_intent_are_guarded_too(bus: Bus) -> None:
    """A result that a user's hand brings back is not for publishing into a run either."""
    await bus.publish(WorkflowRequested(goal="g"), stream="r1/run", correlation_id="r1")
    with pytest.raises(GuardedTopic, match=r"mail_test\.sent"):
        await bus.publish(MailSent(), correlation_id="r1")
    assert await bus.publish(MailSent(), correlation_id="other") == 2


async def test_a_submitted_requests_verdict_is_raised(bus: Bus) -> None:
    """Hosts append what they like, under their fences; each verdict has its error."""

    def request(**wishes: Any) -> AppendRequest:
        return AppendRequest(epoch=wishes.pop("epoch", bus.writer.epoch), **wishes)

    done = await bus.submit(request())
    assert done.last == 0
    await bus.publish(MailRequested(), event_id="mail-1", correlation_id="c1")
    await bus.submit(request(work=(WorkEnd(work_id="mail-1", fence=None),)))
    bad = encode_event(Placed(), stream="s", correlation_id="c", event_id="e", source="t")._replace(occurred_at=2**70)
    for refused, error in (
        (request(epoch=99), EpochOver),
        (request(work=(WorkEnd(work_id="mail-1", fence=None),)), WorkEnded),
        (request(quiet={"c1": 0}), StreamConflict),
        (request(events=(bad,)), StoreError),
    ):
        with pytest.raises(error):
            await bus.submit(refused)


async def test_a_bus_is_a_context_itself(hive_url: str) -> None:
    """Awaited first, then used in an ``async with``: it is closed all the same."""
    bus = await open_bus(hive_url)
    async with bus:
        await bus.publish(Placed())
    with pytest.raises(BusClosed):
        await bus.publish(Placed())


async def test_a_users_intent_asks_for_work_and_a_built_in_one_does_not(bus: Bus) -> None:
    """Publishing an intent of one's own puts it into the queue; a built-in one is only recorded."""
    await bus.publish(MailRequested(to="ada"), event_id="mail-1")
    await bus.publish(TimerSet(timer_id="t", seconds=1), correlation_id="c")
    assert [(item.work_id, item.queue, item.state) for item in await bus.store.work.items()] == [
        ("mail-1", "mail_test", "ready")
    ]


async def test_a_handlers_publish_only_collects(bus: Bus) -> None:
    """It returns 0 at once, names its cause by itself, and is an error after the handler returned; ``apart`` appends."""
    await bus.publish(Placed(number=1), stream="s", correlation_id="c1")
    [cause] = [record async for record in bus.read()]
    collector = Collector(bus=bus, record=cause)
    token = current_handler.set(collector)
    try:
        assert await bus.publish(Placed(number=2)) == 0
        assert await bus.publish(MailRequested(to="ada")) == 0
        assert await bus.publish(Placed(number=3), apart=True) == 2
        collector.closed = True
        with pytest.raises(BusClosed, match="handler"):
            await bus.publish(Placed(number=4))
    finally:
        current_handler.reset(token)
    assert [(event.causation_id, event.correlation_id) for event in collector.events] == [(cause.event_id, "c1")] * 2
    assert len(collector.work) == 1
    await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=tuple(collector.events), work=tuple(collector.work)))
    assert len(await bus.store.work.items()) == 1


async def test_a_handler_of_another_bus_collects_nothing_here(bus: Bus) -> None:
    """An event for another database is appended there at once."""
    token = current_handler.set(Collector(bus=object()))
    try:
        assert await bus.publish(Placed()) == 1
    finally:
        current_handler.reset(token)


async def test_a_handler_cannot_publish_results_into_a_run_either(bus: Bus) -> None:
    """The guard stands inside handlers too; elsewhere the condition rides in the handler's append."""
    await bus.publish(WorkflowRequested(goal="g"), stream="r1/run", correlation_id="r1")
    collector = Collector(bus=bus)
    token = current_handler.set(collector)
    try:
        with pytest.raises(GuardedTopic):
            await bus.publish(TaskCompleted(task_id="t"), correlation_id="r1")
        await bus.publish(TaskCompleted(task_id="t"), correlation_id="r2")
    finally:
        current_handler.reset(token)
    assert collector.expected == {"r2/run": 0}
    assert [event.stream for event in collector.events] == ["r2"]


async def test_a_large_body_comes_back_whole(bus: Bus) -> None:
    """Beyond 64 KiB it lies elsewhere, and no reader notices."""
    note = "é" * 200_000
    await bus.publish(Placed(note=note), event_id="large")
    record = await bus.get("large")
    assert record is not None
    assert record.event == Placed(note=note)


async def test_the_default_database_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address, HIVE_DB says where."""
    monkeypatch.setenv("HIVE_DB", f"sqlite:///{tmp_path / 'there.db'}")
    async with open_bus() as bus:
        await bus.publish(Placed())
    assert (tmp_path / "there.db").exists()
