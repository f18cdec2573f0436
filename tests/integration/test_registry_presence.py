"""The registry: what is said when agents come, change, are busy, drain and go, and what the lease says meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import pytest

from hive_bus import Agent, Bus, HandContext, Record, open_bus
from hive_bus.envelope import encode_event, work_changes
from hive_bus.events.agent import AgentOnline
from hive_bus.events.task import TaskReady
from hive_bus.reading import FROM_BEGINNING
from hive_bus.registry.crew import Crew
from hive_bus.registry.enrolment import BUSY_AFTER, FREE_AFTER, Busyness, Enrolment, last_registrations, online_id
from hive_bus.registry.registry import Registry
from hive_core_db.records import AppendRequest
from tests.support.patience import WITHIN

OFTEN = 0.02
MAILER = Enrolment(name="mailer", capabilities=("mail",), version="1", follows=("order.*",))


@pytest.fixture
async def bus(hive_url: str) -> AsyncIterator[Bus]:
    """An open bus on a new database."""
    async with open_bus(hive_url, source="here") as bus:
        yield bus


async def said(bus: Bus, pattern: str = "agent.*") -> list[Record]:
    """The records of a pattern, in log order."""
    return [record async for record in bus.read(pattern)]


async def heard(
    bus: Bus, topic: str, count: int = 1, wanted: Callable[[Record], bool] = lambda _: True
) -> list[Record]:
    """So many records of a topic that are wanted, as soon as they are there."""
    found: list[Record] = []
    async with asyncio.timeout(WITHIN), bus.subscribe(topic, start=FROM_BEGINNING) as records:
        async for record in records:
            found += [record] if wanted(record) else []
            if len(found) == count:
                return found
    raise AssertionError(topic)


def words(records: list[Record]) -> list[tuple[str, str]]:
    """What happened to whom."""
    return [(record.topic.removeprefix("agent."), record.data["name"]) for record in records]


@asynccontextmanager
async def serving(crew: Crew) -> AsyncIterator[asyncio.Task[None]]:
    """A crew that serves while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(crew.run())
        yield task
        task.cancel()


async def test_an_agent_registers_once(bus: Bus) -> None:
    """Coming back says nothing new about what it can do; another version, or another capability, does."""
    for _ in range(3):
        async with Registry(bus, [MAILER]):
            pass
    assert words(await said(bus)) == [("registered", "mailer"), *[("online", "mailer"), ("offline", "mailer")] * 3]
    later = Enrolment(name="mailer", capabilities=("mail",), version="2", follows=("order.*",))
    for agent in (later, later, MAILER):
        async with Registry(bus, [agent]):
            pass
    versions = [record.data["version"] for record in await said(bus, "agent.registered")]
    assert versions == ["1", "2", "1"]
    assert (await last_registrations(bus))["mailer"].data["version"] == "1"


async def test_two_processes_register_the_same_thing_once(bus: Bus, hive_url: str) -> None:
    """Also when both come at the same moment; each of them is online."""
    async with open_bus(hive_url, source="there") as other:
        async with Registry(bus, [MAILER]) as one, Registry(other, [MAILER]):
            assert one.draining is False
        await asyncio.gather(*(Registry(at, [Enrolment(name="new")]).__aenter__() for at in (bus, other)))
    topics = [record.topic for record in await said(bus) if record.data["name"] == "new"]
    assert topics.count("agent.registered") == 1
    assert topics.count("agent.online") == 2


async def test_going_has_a_reason(bus: Bus) -> None:
    """Stopped, drained, or what it failed with."""
    async with Registry(bus, [MAILER]):
        pass
    async with Registry(bus, [MAILER]) as registry:
        await registry.drain(within=7.0)
        await registry.drain(within=7.0)
    with pytest.raises(ValueError, match="wet"):
        async with Registry(bus, [MAILER]):
            raise ValueError("wet paper")
    assert [record.data["reason"] for record in await said(bus, "agent.offline")] == ["stopped", "drained", "wet paper"]
    (draining,) = await said(bus, "agent.draining")
    assert draining.data["within"] == 7.0


async def test_the_lease_says_what_goes_on(bus: Bus) -> None:
    """Who runs there, what it can do and how much it does; nothing of that is an event."""
    agent, go = Agent("worker", version="3", specialisation="packs jars"), asyncio.Event()

    @agent.task(capability="pack", concurrency=2)
    async def pack(task: TaskReady, ctx: HandContext) -> str:
        await go.wait()
        return "packed"

    async def about() -> dict[str, Any]:
        (lease,) = await bus.store.leases.live()
        found: dict[str, Any] = json.loads(lease.info)["agents"]["worker"]
        return found

    async def becomes(field: str, value: object) -> None:
        async with asyncio.timeout(WITHIN):
            while (await about())[field] != value:
                await bus.tail.wait(bus.tail.head, timeout=OFTEN)

    bus.lease_seconds = 2.0
    async with serving(agent.crew(bus)):
        await heard(bus, "agent.online")
        told = await about()
        assert (told["version"], told["capabilities"], told["slots"]) == ("3", ["pack"], 2)
        assert told["specialisation"] == "packs jars"
        await ask(bus, TaskReady(task_id="t", kind="worker", capability="pack"))
        await becomes("running", 1)
        go.set()
        await becomes("done", 1)
        assert (await about())["running"] == 0
    assert [record.topic for record in await said(bus)] == ["agent.registered", "agent.online", "agent.offline"]


async def ask(bus: Bus, intent: TaskReady) -> None:
    """What a brain does with its decision: the intent and its work, in one append."""
    event_id = bus.ids.event_id(bus.now())
    event = encode_event(intent, stream="w/run", correlation_id="w", event_id=event_id, source="test")
    await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=(event,), work=work_changes((intent,))))


async def test_who_died_is_said_once_by_those_who_see_it(bus: Bus, hive_url: str) -> None:
    """Two processes see a lease that ended with an agent in it: one word of it, with the reason; nobody is said to go twice."""
    since = bus.now()
    info = json.dumps({"agents": {"lost": {"since": since}, "unsaid": {"since": since}}})
    closed = await bus.store.leases.open("dead", ttl=60_000_000, info=info)
    expired = await bus.store.leases.open("asleep", ttl=1, info=json.dumps({"agents": {"late": {"since": since}}}))
    for name, lease in (("lost", closed), ("late", expired)):
        await say_online(bus, lease.lease_id, name, since)
    await bus.store.leases.close(closed.lease_id)
    async with (
        open_bus(hive_url, source="there") as other,
        Registry(bus, [], health_seconds=OFTEN),
        Registry(other, [], health_seconds=OFTEN),
    ):
        gone = await heard(bus, "agent.offline", 2)
    assert {record.data["name"]: record.data["reason"] for record in gone} == {
        "lost": "its process is gone",
        "late": "its lease ran out",
    }
    assert all(record.data["crashed"] for record in gone)
    assert [record.data["name"] for record in await said(bus, "agent.offline")] == [r.data["name"] for r in gone]
    assert not await bus.store.leases.renew(expired.lease_id, ttl=1)


async def test_who_was_taken_for_dead_comes_again(bus: Bus) -> None:
    """Its lease was closed by others while it stood still: it is online under a new one, and the old one's end is said."""
    async with Registry(bus, [MAILER], health_seconds=OFTEN):
        (first,) = await heard(bus, "agent.online")
        lease = await bus.open_lease()
        await bus.store.leases.close(lease.lease_id)
        await lease.tell()
        _, second = await heard(bus, "agent.online", 2)
        (gone,) = await heard(bus, "agent.offline")
    assert gone.data["lease_id"] == first.data["lease_id"] != second.data["lease_id"]
    assert gone.data["crashed"]
    assert [record.data["lease_id"] for record in await said(bus, "agent.offline")] == [
        first.data["lease_id"],
        second.data["lease_id"],
    ]


async def test_who_slept_goes_on_where_nobody_took_over(bus: Bus) -> None:
    """Its own lease ran out, and it is the one who sees it: it renews, and neither goes nor comes."""
    async with Registry(bus, [MAILER], health_seconds=OFTEN):
        lease = await bus.open_lease()
        await bus.store.leases.renew(lease.lease_id, ttl=0)
        since = bus.now()
        dead = await bus.store.leases.open("dead", ttl=0, info=json.dumps({"agents": {"lost": {"since": since}}}))
        await say_online(bus, dead.lease_id, "lost", since)
        await heard(bus, "agent.offline")
        assert await lease.tell()
    assert [record.data["lease_id"] for record in await said(bus, "agent.offline")] == [dead.lease_id, lease.lease_id]


async def say_online(bus: Bus, lease_id: str, name: str, since: int) -> None:
    """What a process said before it died."""
    body, event_id = AgentOnline(name=name, lease_id=lease_id), online_id(lease_id, name, since)
    online = encode_event(body, stream=f"agent/{name}", correlation_id=name, source=name, event_id=event_id)
    await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=(online,)))


def test_only_lasting_changes_make_an_agent_busy() -> None:
    """Five looks without a free slot, then thirty with one; whatever flickers in between says nothing."""
    busyness = Busyness()
    flicker = [busyness.turned(full=number % 2 == 0) for number in range(1000)]
    assert set(flicker) == {None}
    turns = [busyness.turned(full=True) for _ in range(100)]
    assert [number for number, turn in enumerate(turns) if turn is not None] == [BUSY_AFTER - 1]
    assert turns[BUSY_AFTER - 1] is True
    turns = [busyness.turned(full=number % 7 == 0) for number in range(200)]
    assert set(turns) == {None}
    busyness.turned(full=True)
    turns = [busyness.turned(full=False) for _ in range(100)]
    assert [number for number, turn in enumerate(turns) if turn is False] == [FREE_AFTER - 1]


async def test_an_agent_without_a_free_slot_is_busy(bus: Bus) -> None:
    """It says so once, with what it has no slot for, and once when it is free again."""
    agent, go = Agent("worker"), asyncio.Event()

    @agent.task(capability="pack", concurrency=1)
    async def pack(task: TaskReady, ctx: HandContext) -> str:
        await go.wait()
        return "packed"

    async with serving(agent.crew(bus, health_seconds=OFTEN)):
        await ask(bus, TaskReady(task_id="t", kind="worker", capability="pack"))
        (busy,) = await heard(bus, "agent.busy")
        assert (busy.data["busy"], busy.data["capabilities"], busy.data["running"]) == (True, ["task:pack"], 1)
        go.set()
        _, free = await heard(bus, "agent.busy", 2)
        assert (free.data["busy"], free.data["running"]) == (False, 0)


async def test_what_is_wrong_is_an_alert_until_it_is_not(bus: Bus) -> None:
    """An agent's own check raises one alert, however often it is asked, and it is cleared once it is well again."""
    agent, trouble = Agent("worker"), ["no paper"]
    asked = asyncio.Semaphore(0)

    @agent.on("order.*")
    async def follow(record: Record, ctx: Any) -> None: ...

    @agent.health
    async def health() -> str | None:
        asked.release()
        return trouble[0] if trouble else None

    async with serving(agent.crew(bus, health_seconds=OFTEN)):
        (raised,) = await heard(bus, "system.alert_raised", wanted=of_the_worker)
        for _ in range(5):
            await asked.acquire()
        trouble.clear()
        await heard(bus, "system.alert_cleared", wanted=of_the_worker)
    assert (raised.data["message"], raised.data["process"]) == ("no paper", "here")
    assert len([one for one in await said(bus, "system.alert_raised") if of_the_worker(one)]) == 1


def of_the_worker(alert: Record) -> bool:
    """Whether it is about the worker; that the machine is busy is an alert of its own."""
    return bool(alert.data["name"] == "agent worker")


@pytest.mark.parametrize(("failing", "told"), [(True, "its check raised ValueError: torn"), (False, "did not answer")])
async def test_a_check_that_fails_is_a_finding(
    bus: Bus, failing: bool, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it raises or never answers: the process goes on, and people hear of it; leaving clears it."""
    monkeypatch.setattr("hive_bus.registry.health.ANSWER_SECONDS", OFTEN)

    async def health() -> str | None:
        if failing:
            raise ValueError("torn")
        await asyncio.Event().wait()
        return None

    async with Registry(bus, [Enrolment(name="worker", health=health)], health_seconds=OFTEN):
        (raised,) = await heard(bus, "system.alert_raised", wanted=of_the_worker)
    assert told in raised.data["message"]
    assert len([one for one in await said(bus, "system.alert_cleared") if of_the_worker(one)]) == 1


@pytest.mark.may_block("that is what is looked for")
async def test_a_blocked_loop_is_noticed(bus: Bus) -> None:
    """Somebody holds the loop for longer than a second: that is said."""
    async with Registry(bus, [MAILER], health_seconds=OFTEN):
        await heard(bus, "agent.online")
        end = perf_counter() + 1.2
        while perf_counter() < end:
            sum(range(1000))
        (raised,) = await heard(bus, "system.alert_raised", wanted=lambda record: record.data["name"] == "loop")
    assert "stood still" in raised.data["message"]


async def test_an_agent_drains(bus: Bus, hive_url: str) -> None:
    """What runs is finished, what comes is left to others, its partitions are theirs; then it goes, and says so."""
    running, go = asyncio.Event(), asyncio.Event()

    def worker(name: str) -> Agent:
        agent = Agent(name)

        @agent.task(capability="pack", concurrency=1)
        async def pack(task: TaskReady, ctx: HandContext) -> str:
            if name == "one":
                running.set()
                await go.wait()
            return name

        @agent.on("order.*", name="orders")
        async def follow(record: Record, ctx: Any) -> None: ...

        return agent

    one = worker("one").crew(bus, health_seconds=OFTEN)
    async with open_bus(hive_url, source="there") as other, serving(one) as task:
        await ask(bus, TaskReady(task_id="first", kind="worker", capability="pack"))
        async with asyncio.timeout(WITHIN):
            await running.wait()
        async with asyncio.TaskGroup() as tasks:
            drained = tasks.create_task(one.drain(within=WITHIN))
            await heard(bus, "agent.draining")
            await ask(bus, TaskReady(task_id="second", kind="worker", capability="pack"))
            async with serving(worker("two").crew(other)):
                (second,) = await heard(bus, "task.returned")
            assert second.data["output"] == "two"
            go.set()
            assert await drained is True
        assert not task.cancelled()
        await task
    assert [(r.data["task_id"], r.data["output"]) for r in await said(bus, "task.returned")] == [
        ("second", "two"),
        ("first", "one"),
    ]
    gone = {record.data["name"]: record.data["reason"] for record in await said(bus, "agent.offline")}
    assert gone == {"one": "drained", "two": "stopped"}


async def test_a_drain_that_takes_too_long_gives_back(bus: Bus, hive_url: str) -> None:
    """After its time the rest is cancelled; another process takes it as soon as the lease is closed."""
    running = asyncio.Event()
    stuck, quick = Agent("stuck"), Agent("quick")

    @stuck.task(capability="pack")
    async def hold(task: TaskReady, ctx: HandContext) -> str:
        running.set()
        await asyncio.Event().wait()
        return "never"

    @quick.task(capability="pack")
    async def pack(task: TaskReady, ctx: HandContext) -> str:
        return f"attempt {ctx.attempt}"

    async with open_bus(hive_url, source="there") as other:
        crew = stuck.crew(other)
        async with serving(crew):
            await ask(bus, TaskReady(task_id="t", kind="worker", capability="pack"))
            async with asyncio.timeout(WITHIN):
                await running.wait()
            assert await crew.drain(within=OFTEN) is False
    async with serving(quick.crew(bus)):
        (record,) = await heard(bus, "task.returned")
    assert record.data["output"] == "attempt 2"
    assert [r.data["reason"] for r in await said(bus, "agent.offline")] == ["stopped", "stopped"]
