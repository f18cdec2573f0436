"""The four brains under fault: runs that people start, answer, pause, cancel and retry, on hosts that die.

Owns the plot of one seed. What must hold of the log in the end is ``runs_rules``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from agents.colony import brains
from agents.hive import Hive
from agents.run import Run
from hive_bus.bus import Bus
from hive_bus.envelope import encode_event
from hive_bus.events import (
    ApprovalGranted,
    ApprovalRequested,
    DroneInterruptRequested,
    TaskRetryRequested,
    WorkflowRequested,
)
from hive_bus.hands.hand import Hand
from hive_bus.reading import FROM_BEGINNING
from hive_bus.testing import SimulatedLoop
from hive_core_db.records import AppendRequest
from hive_errors import NothingToRetry, NothingWaits, RunEnded, StoreBusy, WorkEnded
from tests.scenario.test_random_runs import TOOLS, some_steps
from tests.support.runs_hands import run_hands
from tests.support.runs_rules import broken_rules, unsound_runs
from tests.support.simulated import Faults, SimulatedHost, differences, seeded

PATIENCE = 3600.0


class RunsSimulation:
    """One colony of several hosts, a few runs, and the people who started them, all from one seed."""

    def __init__(self, loop: SimulatedLoop, path: Path) -> None:
        self._loop, self._path = loop, path
        random = self._random = Random(loop.random.random())
        self._faults = Faults(
            drop=random.choice([0.0, 0.2, 0.6]),
            busy=random.choice([0.0, 0.01, 0.08]),
            lost_reply=random.choice([0.0, 0.04]),
            slow=random.choice([0.02, 0.15]),
            slow_seconds=random.choice([0.1, 0.4]),
            stop=random.choice([0.0, 0.0005]),
        )
        self._trouble = random.choice([0.0, 0.1, 0.2])
        self._runs = [f"run-{number}" for number in range(random.randint(1, 3))]
        self._between_kills = random.choice([2.0, 6.0, 20.0])
        self._hosts: dict[str, tuple[SimulatedHost, asyncio.Task[None]]] = {}
        self._left: set[str] = set()
        self._born = 0
        self.kills = 0
        self.ends: list[str] = []

    async def run(self) -> list[str]:
        """Run until every run has ended or visibly waits for a person; returns what is wrong then."""
        with seeded(self._loop):
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
                client = SimulatedHost(
                    self._loop, self._path, "client", brains=(), hands=(), faults=Faults(stop=0, drop=0.2)
                )
                front = tasks.create_task(client.run(), name="client")
                while client.bus is None:
                    await asyncio.sleep(0.01)
                bus, hive = client.bus, Hive(bus=client.bus, serve=False)
                for _ in range(self._random.randint(2, 3)):
                    self._start(tasks)
                chaos = tasks.create_task(self._chaos(tasks))
                answering = tasks.create_task(self._answer(bus, hive))
                async with asyncio.TaskGroup() as people:
                    for run in self._runs:
                        people.create_task(self._person(bus, hive, run))
                answering.cancel()
                await self._settled(bus, hive)
                chaos.cancel()
                wrong = await self._at_rest(bus, hive)
                for _, task in self._hosts.values():
                    task.cancel()
                front.cancel()
        return wrong + unsound_runs(self._path)

    # Hosts.

    def _start(self, tasks: asyncio.TaskGroup) -> None:
        self._born += 1
        name = f"host{self._born}"
        hands: tuple[Hand, ...] = tuple(run_hands(Random(self._loop.random.random()), trouble=self._trouble))
        host = SimulatedHost(self._loop, self._path, name, brains=brains(), hands=hands, faults=self._faults)
        self._hosts[name] = host, tasks.create_task(host.run(), name=name)

    async def _chaos(self, tasks: asyncio.TaskGroup) -> None:
        """Kill a host now and then, and start another."""
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._between_kills))
            name = self._random.choice(sorted(self._hosts))
            host, task = self._hosts.pop(name)
            self.kills += 1
            host.kill()
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(self._random.random() * 2)
            self._start(tasks)

    # People.

    def _wanted(self) -> WorkflowRequested:
        """A workflow, or a goal."""
        random = self._random
        fields: dict[str, Any] = {
            "tools": tuple(tool | random.choice([{}, {"effect": "unsafe"}, {"effect": "pure"}]) for tool in TOOLS),
            "max_parallel": random.randint(1, 4),
            "workspace": random.choice([{}, {"path": "w"}, {"path": "w", "base": "c"}]),
            "approve": random.choice(["ask", "ask", "all", "none"]),
            "model": "simulated",
        }
        if random.random() < 0.3:
            return WorkflowRequested(goal="peace", **fields)
        steps = some_steps(random)
        for step in steps:
            step["backoff"] = random.choice([0, 0.2, 1.0])
            step["timeout"] = random.choice([1.5, 4.0, 3600.0])
            if "prompt" not in step:
                step["effect"] = random.choice([None, "pure", "idempotent", "reconcilable", "unsafe"])
        return WorkflowRequested(definition={"name": "w", "steps": steps}, **fields)

    async def _person(self, bus: Bus, hive: Hive, run: str) -> None:
        """Starts a run, and has wishes while it runs."""
        await asyncio.sleep(self._random.random() * 2)
        event = self._wanted()
        await said(lambda: bus.publish(event, correlation_id=run, stream=f"{run}/run", event_id=f"asked-{run}"))
        if self._random.random() < 0.3:
            self._left.add(run)
        for _ in range(self._random.choice([0, 0, 1, 2, 4])):
            await asyncio.sleep(self._random.expovariate(0.5))
            await self._wish(bus, hive, run)

    async def _wish(self, bus: Bus, hive: Hive, run: str) -> None:
        random, task = self._random, f"s{self._random.randrange(7)}"
        match random.randrange(8):
            case 0 | 1:
                await said(lambda: hive.pause(run))
                await asyncio.sleep(random.random() * 4)
                await said(lambda: hive.resume(run))
            case 2 | 3:
                await said(lambda: hive.cancel(run, reason="enough"))
            case 4:
                await said(lambda: hive.retry(run))
            case 5:
                again = TaskRetryRequested(task_id=task)
                await said(lambda: bus.publish(again, correlation_id=run, stream=f"{run}/run"))
            case 6:
                yes = ApprovalGranted(approval_id=f"{task}.1")
                new = encode_event(
                    yes, stream=f"{run}/run", correlation_id=run, source="person", event_id=bus.ids.event_id(bus.now())
                )
                # Before it was asked: an answer that ends no work.
                await said(lambda: bus.submit(AppendRequest(epoch=bus.writer.epoch, events=(new,))))
            case _:
                drones = [row.stream for row in await bus.history(run) if row.topic == "drone.hatched"]
                if drones:
                    stream = random.choice(drones)
                    stop = DroneInterruptRequested(drone_id=stream.rpartition("/")[2])
                    await said(lambda: bus.publish(stop, correlation_id=run, stream=stream))

    async def _answer(self, bus: Bus, hive: Hive) -> None:
        """A person who answers most questions, in their own time."""
        async with bus.subscribe(ApprovalRequested.TOPIC, start=FROM_BEGINNING) as questions:
            async for record in questions:
                await asyncio.sleep(self._random.random() * 2)
                question = record.event
                assert isinstance(question, ApprovalRequested)
                if self._random.random() < 0.7 and record.correlation_id not in self._left:
                    await self._say(hive, record.correlation_id, question.approval_id)

    async def _say(self, hive: Hive, run: str, approval: str) -> None:
        answer = hive.approve if self._random.random() < 0.7 else hive.deny
        await said(lambda: answer(run, approval))

    # The end.

    async def _settled(self, bus: Bus, hive: Hive) -> None:
        """Answer what is open, until every run has ended or waits for somebody who left."""
        while True:
            head = await bus.head()
            waiting = [run for run in self._runs if not await self._is_over(bus, hive, run)]
            if not waiting and await self._is_read(bus, head):
                return
            for run in waiting:
                if run in self._left:
                    continue
                for record in await hive.waiting(run):
                    await self._say(hive, run, record.data["approval_id"])
            await asyncio.sleep(1.0)

    async def _is_read(self, bus: Bus, head: int) -> bool:
        """Every brain has handled everything up to ``head``, and nothing came of it."""
        rows = [row for brain in brains() for row in await bus.store.checkpoints.partitions(f"brain/{brain.name}")]
        return all(row.position >= head for row in rows) and await bus.head() == head

    async def _is_over(self, bus: Bus, hive: Hive, run: str) -> bool:
        """Ended, or nothing but questions is open, and somebody left before they were answered."""
        if await Run(bus, run).ended() is not None:
            return True
        items = await bus.store.work.items(run)
        return bool(items) and run in self._left and len(items) == len(await hive.waiting(run))

    async def _at_rest(self, bus: Bus, hive: Hive) -> list[str]:
        """When nothing moves any more: what hosts believe is what the log says, and the log keeps every rule."""
        await asyncio.sleep(15.0)
        wrong = []
        for run in self._runs:
            end = await Run(bus, run).ended()
            self.ends.append("waiting" if end is None else end.topic)
            if not await self._is_over(bus, hive, run):
                wrong.append(f"{run} neither ended nor waits")
            wrong += await broken_rules(bus, run)
        for host, task in self._hosts.values():
            if task.done():
                wrong.append(f"{host.name} ended by itself: {task.exception() if not task.cancelled() else ''}")
            elif host.bus is not None:
                for brain_host in host.hosts:
                    await brain_host.member.caught_up(await bus.head(), within=60.0)
                wrong += await differences(host)
        return wrong


async def said(say: Callable[[], Awaitable[object]]) -> None:
    """Say it until the store has heard it; what comes too late is no matter."""
    while True:
        try:
            await say()
        except StoreBusy:
            continue
        except (NothingToRetry, NothingWaits, RunEnded, WorkEnded):
            return
        return
