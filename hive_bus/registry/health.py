"""Health: a process looks at its own parts now and then, and says what is wrong until it is not.

What is wrong stands in the lease's ``info`` while it is; that something went wrong, and that it is
well again, are events: ``system.alert_raised`` and ``system.alert_cleared``. It knows the parts that
every process has; agents bring checks of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from time import perf_counter
from typing import Final

from hive_bus.bus import Bus
from hive_bus.envelope import encode_event
from hive_bus.event import Event
from hive_bus.events.system import AlertCleared, AlertRaised
from hive_bus.lease import ProcessLease
from hive_bus.registry.enrolment import Enrolment
from hive_bus.surely import surely
from hive_core_db.records import AppendRequest
from hive_errors import HiveError, StoreError

SLOW_LOOP: Final = 1.0
"""The loop may come late by so many seconds before it is said."""
SLOW_DATABASE: Final = 2.0
"""A question that the database answers at once may take so many seconds."""
ANSWER_SECONDS: Final = 5.0
"""An agent's own check that takes longer is a finding itself."""
CLEAN_CHECKS: Final = 2
"""So many checks in a row must find nothing before an alert is over."""
DUE: Final = 50
STILL_SECONDS: Final = 5.0
"""What stands still is compared with where it stood so long ago at least: checkpoints are stored now and then only."""


class Health:
    """The checks of one process, every ``every`` seconds; ``wrong`` is what was found, by the check's name."""

    def __init__(self, bus: Bus, agents: Sequence[Enrolment], *, every: float) -> None:
        self.wrong: dict[str, str] = {}
        self._bus = bus
        self._agents = agents
        self._every = every
        self._clean: dict[str, int] = {}
        self._next = 0.0
        self._late = 0.0
        self._head = self._head_before = 0
        self._tail = 0
        self._still: dict[str, str | None] = {}
        self._compared_at = -STILL_SECONDS
        self._checkpoints: dict[tuple[str, int], int] = {}
        self._due: set[str] = set()
        self._ending: frozenset[str] = frozenset()

    def woke(self, *, late: float) -> None:
        """The loop came so many seconds late to something that only waited."""
        self._late = max(self._late, late)

    async def look(self, lease: ProcessLease) -> None:
        """Check everything when it is time; to be called more often than that."""
        now = asyncio.get_running_loop().time()
        if now >= self._next:
            self._next = now + self._every
            await self._conclude(await self.check(lease), lease)
            self._late = 0.0

    async def leave(self, lease: ProcessLease) -> None:
        """The process ends: what was wrong with it is over."""
        for name in list(self.wrong):
            del self.wrong[name]
            await self._say(AlertCleared(name=name, lease_id=lease.lease_id, process=lease.owner))

    async def check(self, lease: ProcessLease) -> dict[str, str]:
        """Look at every part; what is wrong, by the check's name."""
        found: dict[str, str | None] = {
            **self._bus.given_up,
            "loop": self._loop(),
            "appends": "10,000 appends wait for the database" if self._bus.writer.full else None,
        }
        try:
            found["database"] = await self._database()
            found |= await self._standing_still(lease)
        except StoreError as problem:
            found["database"] = str(problem)
        for agent in self._agents:
            if agent.health is not None:
                found[f"agent {agent.name}"] = await _asked(agent)
        return {name: message for name, message in found.items() if message}

    def _loop(self) -> str | None:
        late = self._late
        return f"the event loop stood still for {late:.1f} s: something blocks it" if late > SLOW_LOOP else None

    async def _database(self) -> str | None:
        asked = perf_counter()
        head = await self._bus.store.log.head()
        took = perf_counter() - asked
        self._head = head
        return f"the database took {took:.1f} s to say how long the log is" if took > SLOW_DATABASE else None

    async def _standing_still(self, lease: ProcessLease) -> dict[str, str | None]:
        """What does not move, and should."""
        now = asyncio.get_running_loop().time()
        if now - self._compared_at >= STILL_SECONDS:
            self._compared_at = now
            self._still = {
                "tail": self._behind(),
                "groups": await self._groups(lease),
                "clock": await self._clock(),
                "hands": self._hands(),
            }
            self._head_before = self._head
        return self._still

    def _behind(self) -> str | None:
        before, self._tail = self._tail, self._bus.tail.head
        stuck = before == self._tail < self._head_before
        return f"this process has seen nothing above position {self._tail}, of {self._head}" if stuck else None

    async def _groups(self, lease: ProcessLease) -> str | None:
        """Partitions of ours that stand where they stood, although there was something to do."""
        checkpoints = self._bus.store.checkpoints
        rosters = await checkpoints.rosters(await checkpoints.groups())
        held = {
            (row.group, row.number): row.position
            for roster in rosters.values()
            for row in roster.partitions
            if row.lease_id == lease.lease_id
        }
        stuck = [
            partition[0]
            for partition, position in held.items()
            if self._checkpoints.get(partition, -1) == position < self._head_before
        ]
        self._checkpoints = held
        names = ", ".join(sorted(set(stuck)))
        return f"nothing is handled although there is something: {names}" if stuck else None

    async def _clock(self) -> str | None:
        due = {item.work_id for item in await self._bus.store.work.due(limit=DUE)}
        late, self._due = due & self._due, due
        return f"{_effects(late)} fell due a while ago, and nobody acts" if late else None

    def _hands(self) -> str | None:
        ending = frozenset(item for agent in self._agents if agent.load is not None for item in agent.load().ending)
        stuck, self._ending = ending & self._ending, ending
        return f"{_effects(stuck)} told to end a while ago, and not ended" if stuck else None

    async def _conclude(self, found: dict[str, str], lease: ProcessLease) -> None:
        """Say what is new, and what has been well for two checks."""
        for name, message in found.items():
            new = name not in self.wrong
            # Before it is said: whoever is cancelled meanwhile clears it when it leaves.
            self.wrong[name], self._clean[name] = message, 0
            if new:
                await self._raise(AlertRaised(name=name, message=message, lease_id=lease.lease_id, process=lease.owner))
        for name in [name for name in self.wrong if name not in found]:
            self._clean[name] += 1
            if self._clean[name] >= CLEAN_CHECKS:
                await self._say(AlertCleared(name=name, lease_id=lease.lease_id, process=lease.owner))
                del self.wrong[name]
        self._bus.about["wrong"] = dict(self.wrong)

    async def _raise(self, alert: AlertRaised) -> None:
        """Say it, or forget it: the next check finds it again."""
        try:
            await self._say(alert)
        except HiveError:
            del self.wrong[alert.name]
            raise

    async def _say(self, event: Event) -> None:
        bus = self._bus
        event_id = bus.ids.event_id(bus.now())
        new = encode_event(event, stream="system", correlation_id="system", source=bus.source, event_id=event_id)
        await surely(bus.writer, AppendRequest(epoch=bus.writer.epoch, events=(new,)))


async def _asked(agent: Enrolment) -> str | None:
    """What an agent's own check says; that it fails or does not answer is a finding too."""
    assert agent.health is not None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await agent.health()
    except TimeoutError:
        return f"its check did not answer within {ANSWER_SECONDS:.0f} s"
    except Exception as problem:  # noqa: BLE001 - whatever is wrong with the check is wrong with the agent
        return f"its check raised {type(problem).__name__}: {problem}"


def _effects(found: Collection[str]) -> str:
    return "1 effect" if len(found) == 1 else f"{len(found)} effects"
