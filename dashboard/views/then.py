"""Asks the log for the hive as it was at a moment of the past: its agents, its runs, how fast it went.

What is kept as it is now alone (leases, queues, checkpoints, limits) has no past: it is left out. Every question is
bounded, as in ``reading``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dashboard.views.activity import activities
from dashboard.views.presence import AgentView, ProcessView, agents_then
from dashboard.views.reading import COUNTED, GONE, RUN_TOPICS, capabilities, effects
from dashboard.views.status import StatusView
from hive_bus import Bus, Moment, Record
from hive_bus.epochs import distance
from hive_bus.registry.enrolment import last_registrations

SAID: Final = 1000
"""Events of agents, the newest before the moment, that are looked at."""
SAMPLED: Final = 2000
"""Events of effects, the newest before the moment, that latencies are made of."""
_PRESENCE: Final = ("agent.online", "agent.offline", "agent.draining")


async def read_agents_at(bus: Bus, moment: Moment) -> list[AgentView]:
    """Every agent that was there, and those that had left of late."""
    log, before = bus.store.log, moment.position + 1
    rows = await log.latest(_PRESENCE, limit=SAID, before=before)
    rows += await log.latest(["agent.busy"], limit=GONE, before=before)
    said = [Record._make(row) for row in sorted(rows, key=lambda row: row.position)]
    names = {str(record.data.get("name", "")) for record in said}
    return agents_then(said, await last_registrations(bus, names, at=moment.position) if names else {})


async def read_status_at(bus: Bus, moment: Moment, *, seconds: float, place: str) -> StatusView:
    """The hive at a moment and over the seconds before it; ``place`` is what its database is called."""
    store, now = bus.store, moment.time
    since = now - round(seconds * 1_000_000)
    start = await store.log.position_at(since)
    agents = await read_agents_at(bus, moment)
    records = await effects(bus, start, until=moment.position, most=SAMPLED)
    sampled = (now - records[0].recorded_at) / 1_000_000 if len(records) >= SAMPLED else seconds
    counts = await store.figures.counts(list(RUN_TOPICS.values()), after=start, limit=COUNTED, until=moment.position)
    return StatusView(
        database=place,
        log=(await store.log.meta()).name,
        epoch=next(e.number for e in reversed(await store.log.epochs()) if e.first_position <= moment.position),
        head=moment.position,
        now=now,
        since=since,
        events_since=await distance(store.log, start, moment.position),
        sampled_seconds=sampled,
        runs_since={word: counts[topic] for word, topic in RUN_TOPICS.items()},
        processes=tuple(_processes(agents)),
        capabilities=tuple(capabilities([], activities(records), agents, now=now, seconds=sampled)),
    )


def _processes(agents: Iterable[AgentView]) -> list[ProcessView]:
    """The processes that the agents ran in, in the order they began."""
    found: dict[str, list[AgentView]] = {}
    for agent in agents:
        if agent.presence != "offline":
            found.setdefault(agent.lease_id, []).append(agent)
    processes = [
        ProcessView(
            owner=of[0].process,
            lease_id=lease_id,
            since=min(agent.since for agent in of),
            host=of[0].host,
            pid=of[0].pid,
            draining=any(agent.presence == "draining" for agent in of),
            agents=tuple(sorted(agent.name for agent in of)),
            wrong={},
        )
        for lease_id, of in found.items()
    ]
    return sorted(processes, key=lambda process: process.since)
