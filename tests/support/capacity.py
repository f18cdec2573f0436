"""Jobs with keys, a hand that counts how many run at once, and hives of several processes on one simulated loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hive_bus.bus import Bus
from hive_bus.clock import Clock
from hive_bus.effects import Failure, Intent, WorkPolicy
from hive_bus.event import Event
from hive_bus.hands.hand import Hand, HandContext
from hive_bus.hands.runner import HandRunner
from hive_bus.limit import Limit
from hive_bus.reading import FROM_BEGINNING
from hive_bus.testing import SimulatedLoop
from tests.support.brains import simulated_bus

Perform = Callable[["Job", HandContext], Any]


class Job(Intent, topic="job.requested", results=("job.done",)):
    """A job of a key; ``seconds`` is how long it takes, ``tokens`` what it is thought to use."""

    key: str = ""
    seconds: float = 1.0
    tokens: float = 0.0
    priority: int = 5
    preferred: str | None = None
    hold_out: float = 0.0
    at_once: bool = False

    def work(self) -> WorkPolicy:
        """As the job says."""
        return WorkPolicy(
            labels=("job",), priority=self.priority, preferred=self.preferred, hold_out=self.hold_out, backoff=0.1
        )


class JobDone(Event, topic="job.done"):
    """What it used, and who did it."""

    used: float | None = None
    by: str = ""


@dataclass(slots=True)
class Count:
    """How many jobs of each key run now, and how many did at most; ``starts`` are (time, key, worker) in their order."""

    now: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    starts: list[tuple[float, str, str]] = field(default_factory=list)


class JobHand(Hand):
    """Takes as long as the job says, and counts."""

    intent = Job
    queues = ("job",)

    def __init__(self, count: Count, perform: Perform | None = None, *, concurrency: int = 8) -> None:
        self.count = count
        self.concurrency = concurrency
        self._perform = perform

    def keys(self, intent: Job) -> tuple[str, ...]:
        """The job's own, if it has one."""
        return (intent.key,) if intent.key else ()

    def estimate(self, intent: Job) -> float:
        """What the job says."""
        return intent.tokens

    def used(self, intent: Job, outcome: Event | Failure) -> float | None:
        """What the result says."""
        return outcome.used if isinstance(outcome, JobDone) else None

    def inline(self, intent: Job) -> bool:
        """Whether the job takes no time."""
        return intent.at_once

    async def perform(self, intent: Job, ctx: HandContext) -> Event | Failure:
        """Be there for the while, or do what the test wants."""
        count, key = self.count, intent.key
        count.starts.append((asyncio.get_running_loop().time(), key, ctx.worker))
        count.now[key] = count.now.get(key, 0) + 1
        count.most[key] = max(count.most.get(key, 0), count.now[key])
        try:
            if self._perform is not None:
                outcome: Event | Failure = await self._perform(intent, ctx)
                return outcome
            if not intent.at_once:
                await asyncio.sleep(intent.seconds)
            return JobDone(by=ctx.worker)
        finally:
            count.now[key] -= 1


@dataclass(slots=True)
class Site:
    """Several processes on one loop and one file; the first bus is the one that tests speak through."""

    loop: SimulatedLoop
    buses: list[Bus]
    runners: list[HandRunner]
    services: list[asyncio.Task[None]]
    count: Count

    @property
    def bus(self) -> Bus:
        """The bus of the first process."""
        return self.buses[0]

    async def ask(self, *jobs: Job, run: str = "run") -> list[str]:
        """Publish jobs of a run, and return their event ids."""
        ids = [self.bus.ids.event_id(self.bus.now()) for _ in jobs]
        for job, event_id in zip(jobs, ids, strict=True):
            await self.bus.publish(job, correlation_id=run, stream=f"{run}/jobs", event_id=event_id)
        return ids

    async def until(self, topic: str, number: int) -> None:
        """Wait for so many events of a topic."""
        async with self.bus.subscribe(topic, start=FROM_BEGINNING) as records:
            async for _ in records:
                number -= 1
                if number <= 0:
                    return


@contextlib.asynccontextmanager
async def site(
    loop: SimulatedLoop,
    path: Path,
    *,
    workers: Sequence[str] = ("ada", "bob"),
    limits: Mapping[str, Limit] | None = None,
    perform: Perform | None = None,
    concurrency: int = 8,
) -> AsyncIterator[Site]:
    """Processes with a hand for jobs each, and one clock, until the context ends."""
    count = Count()
    buses = [await simulated_bus(loop, path, name) for name in workers]
    runners = [
        HandRunner(bus, [JobHand(count, perform, concurrency=concurrency)], worker=name, limits=limits)
        for bus, name in zip(buses, workers, strict=True)
    ]
    try:
        async with asyncio.timeout(10_000), asyncio.TaskGroup() as tasks:
            services = [tasks.create_task(runner.run()) for runner in runners]
            clock = tasks.create_task(Clock(buses[0], on_ready=runners[0].wake).run())
            try:
                yield Site(loop, buses, runners, services, count)
            finally:
                for service in (*services, clock):
                    service.cancel()
    finally:
        for bus in buses:
            await bus.close()
