"""What a process finds wrong with its own parts: real ones that stand still, until they move again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hive_bus import Agent, Bus, Clock, HandContext, Record, open_bus
from hive_bus.envelope import encode_event, work_changes
from hive_bus.events.task import TaskReady
from hive_bus.reading import FROM_BEGINNING
from hive_bus.registry.registry import Registry
from hive_core_db.records import AppendRequest, WorkCancel
from tests.support.handling import Said, running, say, until
from tests.support.patience import WITHIN

OFTEN = 0.02
STILL = 1.5
"""Seconds for which nothing that works stands still, also on a busy machine."""


@pytest.fixture
async def bus(hive_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    """An open bus on a new database, where half a second of standing still is long; that the machine is slow is nobody's trouble."""
    monkeypatch.setattr("hive_bus.registry.health.STILL_SECONDS", 0.5)
    for name in ("SLOW_LOOP", "SLOW_DATABASE", "ANSWER_SECONDS"):
        monkeypatch.setattr(f"hive_bus.registry.health.{name}", WITHIN)
    async with open_bus(hive_url, source="here") as bus:
        yield bus


async def told(bus: Bus, topic: str) -> Record:
    """The first record of a topic, as soon as it is there."""
    async with asyncio.timeout(WITHIN), bus.subscribe(topic, start=FROM_BEGINNING) as records:
        return await anext(records)


async def wrong(bus: Bus) -> dict[str, str]:
    """What the process's lease says is wrong with it."""
    (lease,) = await bus.store.leases.live()
    found: dict[str, str] = json.loads(lease.info).get("wrong", {})
    return found


@asynccontextmanager
async def trouble(bus: Bus, name: str, *words: str, unlike: Sequence[str] = ()) -> AsyncIterator[None]:
    """Something is wrong: that is said with these words, stands in the lease without ``unlike``, and is over when the block has mended it."""
    raised = await told(bus, "system.alert_raised")
    assert raised.data["name"] == name
    for word in words:
        assert word in raised.data["message"]

    async def in_lease() -> bool:
        message = (await wrong(bus)).get(name, "")
        return bool(message) and not any(word in message for word in unlike)

    await until(in_lease, bus)
    yield
    cleared = await told(bus, "system.alert_cleared")
    assert cleared.data["name"] == name


async def ask(bus: Bus, intent: TaskReady) -> str:
    """What a brain does with its decision: the intent and its work, in one append; the work's id."""
    event_id = bus.ids.event_id(bus.now())
    event = encode_event(intent, stream="w/run", correlation_id="w", event_id=event_id, source="test")
    await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=(event,), work=work_changes((intent,))))
    return event_id


async def test_a_group_that_stands_still_is_noticed(bus: Bus) -> None:
    """A handler hangs, and its partition has more to do: the group is named; when it moves, all is well."""
    bus.lease_seconds = 2.0
    agent, go = Agent("worker"), asyncio.Event()

    @agent.on(Said, name="hangs")
    async def hang(record: Record, ctx: Any) -> None:
        await go.wait()

    @agent.on(Said, name="goes")
    async def walk(record: Record, ctx: Any) -> None: ...

    async with running(agent.crew(bus, health_seconds=OFTEN)):
        await say(bus, 1, 2)
        # On a slow machine the other one may stand still too, for a moment.
        async with trouble(bus, "groups", "agent/worker/hangs", unlike=["agent/worker/goes"]):
            go.set()


async def test_a_service_that_gave_up_is_noticed(bus: Bus) -> None:
    """A part that the process goes on without, as a relay of the log, says why; an alert says it on."""
    bus.given_up["mirror"] = "the relay stopped: the stream differs"
    agent = Agent("worker")

    @agent.on(Said)
    async def walk(record: Record, ctx: Any) -> None: ...

    async with running(agent.crew(bus, health_seconds=OFTEN)), trouble(bus, "mirror", "the relay stopped"):
        del bus.given_up["mirror"]


async def test_a_hand_that_does_not_end_is_noticed(bus: Bus) -> None:
    """It was told to end, and goes on as if nothing had been said."""
    bus.lease_seconds = 2.0
    agent, begun, go = Agent("worker"), asyncio.Event(), asyncio.Event()

    @agent.task(capability="pack")
    async def pack(task: TaskReady, ctx: HandContext) -> str:
        begun.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                if go.is_set():
                    raise
        return "at last"

    async with running(agent.crew(bus, health_seconds=OFTEN)):
        work_id = await ask(bus, TaskReady(task_id="t", kind="worker", capability="pack"))
        async with asyncio.timeout(WITHIN):
            await begun.wait()
        await bus.submit(AppendRequest(epoch=bus.writer.epoch, work=(WorkCancel(work_id=work_id),)))
        async with trouble(bus, "hands", "1 effect told to end"):
            go.set()


async def test_work_that_falls_due_without_a_clock_is_noticed(bus: Bus) -> None:
    """Nobody's clock runs: a delay has passed, and the work is not ready; a clock mends it."""
    bus.lease_seconds = 2.0
    async with Registry(bus, [], health_seconds=OFTEN):
        await ask(bus, TaskReady(task_id="t", kind="worker", capability="pack", delay=0.01))
        async with trouble(bus, "clock", "1 effect fell due"), running(Clock(bus)):
            await told(bus, "system.alert_cleared")


async def test_a_tail_that_sees_nothing_is_noticed(bus: Bus, hive_url: str) -> None:
    """Others append, and this process does not hear of it, for nothing in it listens."""
    async with Registry(bus, [], health_seconds=OFTEN), open_bus(hive_url, source="there") as other:
        await say(other, 1, 2)
        raised = await told(other, "system.alert_raised")
    assert raised.data["name"] == "tail"
    assert raised.data["process"] == "here"


async def test_a_healthy_process_says_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it looks while there is work: no alert, no event but what was done."""
    monkeypatch.setattr("hive_bus.registry.health.STILL_SECONDS", STILL)
    agent = Agent("worker")

    @agent.on(Said)
    async def walk(record: Record, ctx: Any) -> None: ...

    @agent.task(capability="pack")
    async def pack(task: TaskReady, ctx: HandContext) -> str:
        return "packed"

    looks = asyncio.Semaphore(0)

    @agent.health
    async def look() -> str | None:
        looks.release()
        return None

    async with running(agent.crew(bus, health_seconds=OFTEN)):
        for number in range(20):
            await say(bus, number, stream=f"s{number}")
            await ask(bus, TaskReady(task_id=f"t{number}", kind="worker", capability="pack"))
            await looks.acquire()
        until_compared = asyncio.get_running_loop().time() + 2 * STILL
        while asyncio.get_running_loop().time() < until_compared:
            await looks.acquire()
        assert await wrong(bus) == {}
    assert [record.topic async for record in bus.read("system.*")] == []
