"""The registry: which agents a process runs, said in the log when it changes and in the lease while it lasts.

Events are for changes: ``agent.registered`` when an agent is new or can do something else than the log
says, ``agent.online`` and ``agent.offline`` once for each lease and agent, ``agent.busy`` and
``agent.draining``. What moves all the time (how much runs, how healthy the process is) is in the lease's
``info``, brought there by its renewals. A process that died said nothing: whoever sees its lease
ended says it, under an id that the lease gives, so that many who see it say it once.

It knows neither what the agents do nor who looks at them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from hive_bus.bus import Bus
from hive_bus.envelope import encode_event
from hive_bus.event import Event
from hive_bus.events.agent import AgentBusy, AgentDraining, AgentOffline, AgentOnline
from hive_bus.lease import ProcessLease
from hive_bus.registry.enrolment import Busyness, Enrolment, lost_agents, offline_id, online_id, registered
from hive_bus.registry.health import Health
from hive_bus.surely import patiently, surely
from hive_bus.telemetry import get_logger
from hive_core_db.records import AppendRequest, Lease, NewEvent
from hive_errors import BusClosed, HiveError

LOOK_SECONDS: Final = 1.0
HEALTH_SECONDS: Final = 30.0
GOODBYE_SECONDS: Final = 5.0
"""A process that ends tries for so long to say who goes: a database that is merely slow hears it."""
LONGEST_REASON: Final = 500
OVERLAP: Final = 60_000_000
"""Leases that ended so long before the last one seen, in microseconds, are looked at again: commits may overtake."""
DAY: Final = 24 * 3600 * 1_000_000

_log = get_logger(__name__)


class Registry:
    """The agents of one process, present while the block runs: ``async with Registry(bus, [Enrolment(...)])``.

    ``health_seconds`` is how often the process looks whether it is well; who else came and went it sees every second.

    Guarantees:
        Each time that an agent comes, the log has one ``agent.online``, and one ``agent.offline`` that this process
        says when it leaves, or another when it finds the lease ended; both have ids that follow from the lease.
        Nothing is appended while nothing changes.
    """

    def __init__(self, bus: Bus, agents: Sequence[Enrolment], *, health_seconds: float = HEALTH_SECONDS) -> None:
        self.health = Health(bus, agents, every=health_seconds)
        self.draining = False
        self._every = min(LOOK_SECONDS, health_seconds)
        self._bus = bus
        self._agents = list(agents)
        self._busy = {agent.name: Busyness() for agent in agents}
        self._lease: ProcessLease | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._came = 0
        self._since = 0
        self._known: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        await self._arrive()
        self._keeping = self._bus.spawn(self._keep(), name="registry")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        # Cancelled while it drained: something was left.
        reason = "drained" if self.draining and kind is None else "stopped"
        failure = str(error)[:LONGEST_REASON] or type(error).__name__
        await self._leave(failure if isinstance(error, Exception) else reason)

    async def drain(self, *, within: float) -> None:
        """Say that everything here finishes what it has within so many seconds, and takes nothing new."""
        if self.draining:
            return
        self.draining = True
        self._bus.about["state"] = "draining"
        loads = {agent.name: agent.load().running if agent.load is not None else 0 for agent in self._agents}
        try:
            lease = await self._bus.open_lease()
            await lease.tell()
            await self._say(
                [
                    (name, AgentDraining(name=name, lease_id=lease.lease_id, running=running, within=within))
                    for name, running in loads.items()
                ]
            )
        except HiveError as problem:
            # It drains all the same; that it goes is said when it goes.
            _log.warning("registry.again", error=str(problem))

    # Coming and going.

    async def _arrive(self) -> None:
        """Register what is new, and say that everybody is here, under the lease as it is now."""
        bus = self._bus
        self._came = bus.now()
        bus.about["state"] = "draining" if self.draining else "serving"
        self._note_loads()
        lease = await patiently(bus.open_lease)
        # The lease first: whoever finds it ended must find there whom it leaves unaccounted for.
        if not lease.told and not await patiently(lease.tell):
            return
        await self._together(await registered(bus, self._agents))
        host, pid = bus.about.get("host", ""), bus.about.get("pid", 0)
        await self._together(
            _encoded(
                agent.name,
                AgentOnline(name=agent.name, lease_id=lease.lease_id, host=host, pid=pid),
                online_id(lease.lease_id, agent.name, self._came),
            )
            for agent in self._agents
        )
        self._lease = lease

    async def _together(self, events: Iterable[NewEvent]) -> None:
        """Append them in one commit, yet each for itself: what others have said already keeps nothing else out."""
        bus = self._bus
        requests = [AppendRequest(epoch=bus.writer.epoch, events=(new,)) for new in events]
        under_way = [(request, bus.writer.submit(request)) for request in requests]
        for request, future in under_way:
            await surely(bus.writer, request, future)

    async def _leave(self, reason: str) -> None:
        lease, bus = self._lease, self._bus
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                if lease is None or not lease.usable:
                    return
                await self.health.leave(lease)
                under_way = [
                    bus.writer.submit(
                        self._request(
                            agent.name,
                            AgentOffline(name=agent.name, lease_id=lease.lease_id, reason=reason),
                            offline_id(lease.lease_id, agent.name, self._came),
                        )
                    )
                    for agent in self._agents
                ]
                for agent, future in zip(self._agents, under_way, strict=True):
                    await future
                    bus.about.get("agents", {}).pop(agent.name, None)
        except (TimeoutError, HiveError) as problem:
            # Its lease ends by itself, and somebody else says so then.
            _log.warning("agent.left_silently", agents=[agent.name for agent in self._agents], error=str(problem))

    # While it lasts.

    async def _keep(self) -> None:
        """Look once a second; never raises, for it runs beside the bus."""
        loop, told = asyncio.get_running_loop(), ""
        while True:
            asleep = loop.time()
            await asyncio.sleep(self._every)
            self.health.woke(late=loop.time() - asleep - self._every)
            try:
                await self._look()
                told = ""
            except BusClosed:
                return
            except HiveError as problem:
                # A database that is away for an hour is one line, not 3,600.
                if type(problem).__name__ != told:
                    _log.warning("registry.again", error=str(problem))
                told = type(problem).__name__

    async def _look(self) -> None:
        if self._lease is None or not self._lease.usable:
            await self._arrive()
        lease = self._lease
        if lease is None or not lease.usable:
            return
        self._note_loads()
        for agent in self._agents:
            if agent.load is None:
                continue
            load = agent.load()
            if (busy := self._busy[agent.name].turned(full=bool(load.full))) is not None:
                event = AgentBusy(
                    name=agent.name,
                    lease_id=lease.lease_id,
                    busy=busy,
                    capabilities=load.full,
                    running=load.running,
                )
                await self._say([(agent.name, event)])
        await self.health.look(lease)
        await self._notice()

    def _note_loads(self) -> None:
        """What the next renewal brings to the lease."""
        told = self._bus.about.setdefault("agents", {})
        for agent in self._agents:
            told[agent.name] = agent.about(since=self._came, busy=self._busy[agent.name].busy)

    async def _notice(self) -> None:
        """Say of processes that are gone what they could not say themselves."""
        if self._bus.rest():
            return
        leases = self._bus.store.leases
        since = max(self._since - OVERLAP, self._bus.now() - DAY)
        for lease in await leases.ended(since):
            # Who slept through its own time, or whose database was away, goes on where nobody took over.
            own = self._lease is not None and self._lease.lease_id == lease.lease_id and self._lease.usable
            if own or lease.lease_id in self._known:
                continue
            if not lease.closed and not await leases.expire(lease.lease_id):
                continue
            await self._say_lost(lease)
            ended = lease.closed_at or self._bus.now()
            self._known[lease.lease_id] = ended
            self._since = max(self._since, ended)
        self._known = {known: ended for known, ended in self._known.items() if ended >= since}

    async def _say_lost(self, lease: Lease) -> None:
        for name, since in lost_agents(lease):
            said = offline_id(lease.lease_id, name, since)
            log = self._bus.store.log
            if await log.get(said) is not None or await log.get(online_id(lease.lease_id, name, since)) is None:
                continue
            gone = lease.closed_at is not None and lease.closed_at < lease.expires_at
            reason = "its process is gone" if gone else "its lease ran out"
            event = AgentOffline(name=name, lease_id=lease.lease_id, reason=reason, crashed=True)
            await surely(self._bus.writer, self._request(name, event, said))
            _log.warning("agent.lost", agent=name, lease_id=lease.lease_id, reason=reason)

    async def _say(self, events: Sequence[tuple[str, Event]]) -> None:
        bus = self._bus
        news = tuple(_encoded(name, event, bus.ids.event_id(bus.now())) for name, event in events)
        await surely(bus.writer, AppendRequest(epoch=bus.writer.epoch, events=news))

    def _request(self, name: str, event: Event, event_id: str) -> AppendRequest:
        """Under an id that others derive as well: whoever says it second only hears that it is there."""
        return AppendRequest(epoch=self._bus.writer.epoch, events=(_encoded(name, event, event_id),))


def _encoded(name: str, event: Event, event_id: str) -> NewEvent:
    stream = f"agent/{name}"
    return encode_event(event, stream=stream, correlation_id=stream, source=name, event_id=event_id)
