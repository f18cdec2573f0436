"""Small brains and hands for tests of host, hands and clock, and a bus that runs them until told otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hive_bus.brains.brain import Brain, Input
from hive_bus.brains.host import BrainHost
from hive_bus.bus import Bus
from hive_bus.clock import Clock
from hive_bus.effects import CancelRequested, EffectClass, Intent, WorkPolicy
from hive_bus.event import Draft, Event
from hive_bus.hands.hand import Hand
from hive_bus.hands.runner import HandRunner
from hive_bus.ids import Ids
from hive_bus.reading import FROM_BEGINNING
from hive_bus.record import Record
from hive_bus.testing import SimulatedLoop
from hive_core_db.engine import open_store


class Asked(Event, topic="lab.asked"):
    """Ask the lab brain for an effect with this policy."""

    effect: str = "idempotent"
    max_attempts: int = 3
    backoff: float = 1.0
    running: float | None = None
    silent: float | None = None
    waiting: float | None = None
    total: float | None = None
    delay: float = 0.0


class StopAsked(Event, topic="lab.stop_asked"):
    """Ask the lab brain to cancel what it asked for."""


class Try(Intent, topic="try.requested", results=("try.done",)):
    effect: str = "idempotent"
    max_attempts: int = 3
    backoff: float = 1.0
    running: float | None = None
    silent: float | None = None
    waiting: float | None = None
    total: float | None = None
    delay: float = 0.0

    def work(self) -> WorkPolicy:
        return WorkPolicy(
            labels=("try",),
            effect=EffectClass(self.effect),
            max_attempts=self.max_attempts,
            backoff=self.backoff,
            running_timeout=self.running,
            silent_timeout=self.silent,
            waiting_timeout=self.waiting,
            total_timeout=self.total,
            delay=self.delay,
        )


class Done(Event, topic="try.done"):
    word: str = "done"


class TryCancelRequested(CancelRequested, topic="try.cancel_requested"):
    pass


@dataclass(frozen=True, slots=True)
class Lab:
    """What the lab saw, in fold order, and its open intents."""

    seen: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


class LabBrain(Brain[Lab]):
    """Asks for one effect per question, and cancels it on demand."""

    name = "lab"
    folds = ("lab.>", "try.>")
    home = "lab"

    def initial(self) -> Lab:
        """Nothing seen."""
        return Lab()

    def evolve(self, state: Lab, record: Input) -> Lab:
        """Note everything in order."""
        state = replace(state, seen=(*state.seen, record.topic))
        if isinstance(record.event, Try):
            return replace(state, open=(*state.open, record.event_id))
        if record.topic in {"try.done", "try.failed", "try.cancelled"}:
            return replace(state, open=tuple(key for key in state.open if key != record.causation_id))
        return state

    def decide(self, state: Lab, record: Input) -> Sequence[Event | Draft]:
        """Ask, or take back."""
        if isinstance(record.event, Asked):
            return [Try(**record.event.model_dump())]
        if isinstance(record.event, StopAsked):
            return [TryCancelRequested(intent_id=key) for key in state.open]
        return []


@dataclass(slots=True)
class Bench:
    """A bus on a simulated loop, with what serves it; ``tell`` and ``topics`` talk to the lab."""

    loop: SimulatedLoop
    bus: Bus
    tasks: asyncio.TaskGroup
    services: list[asyncio.Task[None]] = field(default_factory=list)
    hosts: dict[str, BrainHost[Any]] = field(default_factory=dict)

    def serve(self, *services: Any) -> None:
        """Run hosts, hands or clocks until the bench is left."""
        self.services += [self.tasks.create_task(service.run()) for service in services]

    async def ask(self, event: Event, key: str = "lab1") -> int:
        """Publish an event for a key."""
        return await self.bus.publish(event, correlation_id=key, stream=f"{key}/lab")

    async def until(self, topic: str, count: int = 1, key: str = "lab1") -> list[Record]:
        """The key's history once it has ``count`` events of ``topic``."""
        found = 0
        async with self.bus.subscribe(topic, start=FROM_BEGINNING) as records:
            async for record in records:
                found += record.correlation_id == key
                if found == count:
                    break
        return await self.bus.history(key)

    async def topics(self, key: str = "lab1") -> list[str]:
        """What happened to a key, by topic."""
        return [record.topic for record in await self.bus.history(key)]


async def simulated_bus(loop: SimulatedLoop, path: Path, source: str = "bench", pause: Any = None) -> Bus:
    """A bus without threads on the loop's time."""
    store = await open_store(str(path), now=loop.now, inline=True, durable=False, pause=pause)
    bus = Bus(
        store,
        epoch=(await store.log.meta()).epoch,
        head=await store.log.head(),
        source=source,
        ids=Ids(loop.random.getrandbits(60)),
    )
    await bus.start()
    return bus


async def pass_time(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def bench(
    loop: SimulatedLoop,
    path: Path,
    *,
    hands: Sequence[Hand] = (),
    brains: Sequence[Brain[Any]] = (),
    clock: bool = True,
    share: bool = True,
) -> AsyncIterator[Bench]:
    """Serve brains, hands and a clock on one bus until the context ends; ``share`` lets results carry decisions."""
    bus = await simulated_bus(loop, path)
    try:
        async with asyncio.timeout(10_000), asyncio.TaskGroup() as tasks:
            one = Bench(loop, bus, tasks)
            hosts = {brain.name: BrainHost(bus, brain, partitions=2) for brain in brains or (LabBrain(),)}
            one.hosts = hosts
            runner = HandRunner(bus, hands, hosts=hosts if share else {})
            one.serve(*hosts.values(), runner)
            if clock:
                one.serve(Clock(bus, on_ready=runner.wake))
            try:
                yield one
            finally:
                for service in one.services:
                    service.cancel()
    finally:
        await bus.close()


class Trial(Hand):
    """A hand made of one function of (intent, context)."""

    intent = Try
    queues = ("try",)

    def __init__(self, function: Callable[[Try, Any], Any], reconcile: Callable[[], Any] | None = None) -> None:
        self._function, self._reconcile = function, reconcile

    async def perform(self, intent: Any, ctx: Any) -> Any:
        """Call the function."""
        return await self._function(intent, ctx)

    async def reconcile(self, intent: Any, ctx: Any) -> Any:
        """What the function says."""
        return await super().reconcile(intent, ctx) if self._reconcile is None else self._reconcile()
