"""Hosts that share one file on one simulated loop: they are slow, stop, die and come back, all from one seed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import hive_bus.lease
import hive_bus.tail
import hive_core_db.sqlite.leases
from hive_bus.brains.brain import Brain
from hive_bus.brains.host import BrainHost
from hive_bus.bus import Bus
from hive_bus.clock import Clock
from hive_bus.effects import Intent, lifecycle_class
from hive_bus.event import event_class, registered_topics
from hive_bus.hands.hand import Hand
from hive_bus.hands.runner import HandRunner
from hive_bus.ids import Ids
from hive_bus.testing import SimulatedLoop, canonical_state, refold
from hive_core_db.audit import Vocabulary, audit
from hive_core_db.engine import open_store
from hive_core_db.records import AppendRequest, StoredEvent, Verdict
from hive_errors import BusClosed, StoreBusy
from tests.support import tables


class Killed(Exception):
    """The process is gone: nothing that it still wanted reaches the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How bad a world: chances per wake-up, append or job, and virtual seconds."""

    drop: float = 0.2
    busy: float = 0.01
    lost_reply: float = 0.01
    slow: float = 0.05
    slow_seconds: float = 0.3
    stop: float = 0.0005


class SimulatedHost:
    """One process of the hive: a bus of its own on the shared file, brains, hands and a clock."""

    def __init__(
        self,
        loop: SimulatedLoop,
        path: Path,
        name: str,
        *,
        brains: Sequence[Brain[Any]],
        hands: Sequence[Hand],
        faults: Faults,
        partitions: int = 4,
    ) -> None:
        self.name = name
        self.dead = False
        self.bus: Bus | None = None
        self.hosts: list[BrainHost[Any]] = []
        self.failure: BaseException | None = None
        self._loop = loop
        self._path = path
        self._brains, self._hands = brains, hands
        self._faults = faults
        self._partitions = partitions
        # A source of its own: what a dying process still draws changes nothing for the others.
        self._random = Random(loop.random.random())
        self._stopped_until = 0.0
        self._busy_until = 0.0

    async def run(self) -> None:
        """Live until killed or cancelled."""
        try:
            store = await open_store(str(self._path), now=self._loop.now, inline=True, durable=False, pause=self._pause)
            bus = Bus(
                store,
                epoch=(await store.log.meta()).epoch,
                head=await store.log.head(),
                source=self.name,
                ids=Ids(self._random.getrandbits(60)),
            )
            self._trouble(bus)
            await bus.start()
            self.bus = bus
            try:
                await self._serve(bus)
            finally:
                with contextlib.suppress(Killed, BusClosed):
                    await bus.close()
        except* Killed:
            self.dead = True

    async def _serve(self, bus: Bus) -> None:
        self.hosts = [BrainHost(bus, brain, partitions=self._partitions) for brain in self._brains]
        hands = HandRunner(bus, self._hands, hosts={host.brain.name: host for host in self.hosts})
        async with asyncio.TaskGroup() as tasks:
            for host in self.hosts:
                tasks.create_task(host.run(), name=f"{self.name} {host.group}")
            tasks.create_task(hands.run(), name=f"{self.name} hands")
            tasks.create_task(Clock(bus, on_ready=hands.wake).run(), name=f"{self.name} clock")

    def kill(self) -> None:
        """From now on nothing of it reaches the file; whoever runs its task cancels it."""
        self.dead = True

    def stop(self, seconds: float) -> None:
        """Stand still, as a process that the system has stopped: longer than a lease, others take over."""
        self._stopped_until = self._loop.time() + seconds

    async def _pause(self) -> None:
        """Before and after each job on the file."""
        if not self.dead and self._random.random() < self._faults.slow:
            await asyncio.sleep(self._random.random() * self._faults.slow_seconds)
        if not self.dead and self._random.random() < self._faults.stop:
            self.stop(self._random.random() * 20)
        while not self.dead and self._stopped_until > self._loop.time():
            await asyncio.sleep(self._stopped_until - self._loop.time())
        if self.dead:
            raise Killed(self.name)

    def _trouble(self, bus: Bus) -> None:
        """Lose wake-ups, refuse appends, and lose the replies of others."""
        random, faults, writer = self._random, self._faults, bus.writer
        append = bus.store.log.append

        def tell(rows: Sequence[StoredEvent]) -> None:
            for callback in tuple(writer._callbacks):
                if rows and random.random() >= faults.drop:
                    callback(rows)

        async def unsure(batch: Sequence[AppendRequest]) -> list[Verdict]:
            if random.random() < faults.busy:
                raise StoreBusy(url=self.name, waited=0.0)
            verdicts = await append(batch)
            if random.random() < faults.lost_reply:
                raise StoreBusy(url=self.name, waited=0.0)
            return verdicts

        writer._tell = tell  # type: ignore[method-assign]
        bus.store.log.append = unsure  # type: ignore[method-assign]


@contextlib.contextmanager
def seeded(loop: SimulatedLoop) -> Iterator[None]:
    """Lease ids from the seed, for members take partitions in their order; and a tail that often looks late.

    Nobody looks for a host among the processes of the system, where there is only one: time ends the leases of the dead.
    """
    leases: Any = hive_core_db.sqlite.leases
    tail: Any = hive_bus.tail
    process: Any = hive_bus.lease
    before = leases.secrets, tail.POLL_SECONDS, process._system
    leases.secrets = SimpleNamespace(token_hex=lambda size: f"{loop.random.getrandbits(8 * size):0{2 * size}x}")
    tail.POLL_SECONDS = loop.random.choice([0.03, 0.2, 0.5])
    process._system = str
    try:
        yield
    finally:
        leases.secrets, tail.POLL_SECONDS, process._system = before


def vocabulary() -> Vocabulary:
    """What the topics of this process's event classes mean to the auditor."""
    intents = [cls for topic in registered_topics() if (cls := event_class(topic)) and issubclass(cls, Intent)]

    def queued(topic: str, payload: str) -> bool:
        cls = event_class(topic)
        assert cls is not None
        assert issubclass(cls, Intent)
        return cls.model_validate_json(payload).work() is not None

    return Vocabulary(
        results={cls.TOPIC: cls.ends() for cls in intents},
        starts={f"{cls.family()}.started" for cls in intents},
        retries={f"{cls.family()}.attempt_failed" for cls in intents},
        queued=queued,
    )


def unsound(url: str) -> list[str]:
    """What the auditor says, and every decided intent that has not exactly one end."""
    found = [str(finding) for finding in audit(url, vocabulary=vocabulary())]
    events = tables.rows(url, "SELECT event_id, topic, causation_id FROM events ORDER BY position")
    found += [f"open work item {row}" for row in tables.rows(url, "SELECT work_id, topic, state FROM work")]
    ends: dict[str, list[str]] = {}
    intents: dict[str, type[Intent]] = {}
    for event_id, topic, cause in events:
        cls = event_class(topic) or lifecycle_class(topic)
        if cause in intents and topic in intents[cause].ends():
            ends[cause].append(topic)
        if cls is not None and issubclass(cls, Intent):
            intents[event_id], ends[event_id] = cls, []
    return found + [f"{intents[key].TOPIC} {key} ended {topics}" for key, topics in ends.items() if len(topics) != 1]


async def differences(host: SimulatedHost) -> list[str]:
    """Live states of a host at rest that are not what a rebuild from the log makes."""
    assert host.bus is not None
    found = []
    for brain_host in host.hosts:
        for key, state in brain_host.states().items():
            rebuilt = await refold(host.bus, brain_host.brain, key)
            if canonical_state(state) != rebuilt:
                found.append(f"{host.name} {key}:\n live {canonical_state(state)!r}\n log  {rebuilt!r}")
    return found


def log_digest(path: Path) -> str:
    """The digest of every row of the log."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(path)) as db:
        return sha256(repr(db.execute("SELECT * FROM events ORDER BY position").fetchall()).encode()).hexdigest()
