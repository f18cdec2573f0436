"""Asks the bus for what the views of agents and of the whole hive are made of.

Every question is bounded, however long the log is: leases and the work queue are as large as what is
alive, events are read by topic from the newest on, and no more than ``MOST`` of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dashboard.views.activity import Activity, activities, effect_topics
from dashboard.views.presence import AgentView, ProcessView, agent_views, process_view
from dashboard.views.status import CapabilityView, GroupView, StatusView
from hive_bus import Bus, Record
from hive_bus.epochs import distance
from hive_bus.events import BudgetExceeded
from hive_bus.hands.budgets import run_account
from hive_bus.registry.enrolment import last_registrations
from hive_core_db.records import QueueDepth, Roster

MOST: Final = 5000
"""Events of effects that latencies are made of."""
COUNTED: Final = 10_000
"""Items of a queue, and events of a topic, that are counted."""
PAGE: Final = 1000
GONE: Final = 200
RUNS: Final = 20
RUN_TOPICS: Final = {
    "requested": "workflow.requested",
    "completed": "workflow.completed",
    "failed": "workflow.failed",
    "cancelled": "workflow.cancelled",
}


async def read_agents(bus: Bus) -> list[AgentView]:
    """Every agent that runs, and those that ran of late."""
    leases, log = bus.store.leases, bus.store.log
    live, ended = await asyncio.gather(leases.live(), leases.ended(bus.now()))
    gone = [Record._make(row) for row in await log.latest(["agent.offline"], limit=GONE)]
    names = {str(record.data.get("name", "")) for record in gone}
    return agent_views(live, ended, gone, await last_registrations(bus, names) if names else {})


async def read_status(bus: Bus, *, seconds: float, place: str) -> StatusView:
    """The hive now and over the last so many seconds; ``place`` is what its database is called."""
    store, now = bus.store, bus.now()
    head, meta, live, ended = await asyncio.gather(
        store.log.head(), store.log.meta(), store.leases.live(), store.leases.ended(now)
    )
    since = now - round(seconds * 1_000_000)
    start = await store.log.position_at(since)
    processes = [process_view(lease) for lease in live]
    records = await effects(bus, start)
    capped = len(records) >= MOST
    sampled = (now - records[0].recorded_at) / 1_000_000 if capped else seconds
    agents = agent_views(live, [], [], {})
    depths, runs, counts, parked, limits = await asyncio.gather(
        store.figures.queues(limit=COUNTED),
        store.figures.runs(limit=COUNTED),
        store.figures.counts(list(RUN_TOPICS.values()), after=start, limit=COUNTED),
        store.checkpoints.parked(),
        store.limits.state(),
    )
    return StatusView(
        database=place,
        log=meta.name,
        epoch=meta.epoch,
        head=head,
        now=now,
        since=since,
        events_since=await distance(store.log, start, head),
        sampled_seconds=sampled,
        runs_since={word: counts[topic] for word, topic in RUN_TOPICS.items()},
        processes=tuple(processes),
        lost=tuple(process_view(lease) for lease in ended if not lease.closed),
        groups=tuple(await _groups(bus, head, processes, Counter(row.group for row in parked))),
        capabilities=tuple(capabilities(depths, activities(records), agents, now=now, seconds=sampled)),
        limits=tuple(limits),
        runs=tuple(runs[:RUNS]),
        parked=len(parked),
        over_budget=await _over_budget(bus),
    )


async def _over_budget(bus: Bus) -> dict[str, str]:
    """The runs, of the last to say so, that wait for a budget, and why."""
    rows = await bus.store.log.latest([BudgetExceeded.TOPIC], limit=RUNS)
    found = {}
    for run in dict.fromkeys(row.correlation_id for row in rows):
        ledger = (await run_account(bus.store.log, run)).ledger
        if ledger.exceeded and await bus.store.work.items(run):
            found[run] = ledger.exceeded
    return found


def capabilities(
    depths: Sequence[QueueDepth],
    activity: Mapping[str, Activity],
    agents: Iterable[AgentView],
    *,
    now: int,
    seconds: float,
) -> list[CapabilityView]:
    """What waits and runs in each queue, beside what was done of late; ``seconds`` is how far back that reaches."""
    able = Counter(queue for agent in agents if agent.presence == "online" for queue in _queues_of(agent))
    queues = {depth.queue: depth for depth in depths}
    found = []
    for name in sorted({*queues, *activity}):
        depth, done = queues.get(name), activity.get(name)
        found.append(
            CapabilityView(
                queue=name,
                queued=depth.ready if depth else 0,
                delayed=depth.delayed if depth else 0,
                waiting=depth.waiting if depth else 0,
                running=depth.claimed if depth else 0,
                oldest_wait=_age(depth.oldest_ready_at if depth else None, now),
                oldest_run=_age(depth.oldest_claimed_at if depth else None, now),
                agents=able[name],
                per_minute=done.ended * 60 / seconds if done and seconds > 0 else None,
                activity=done,
            )
        )
    return found


def _queues_of(agent: AgentView) -> set[str]:
    """The queues that an agent's capabilities mean: those of tasks, and those of intents, whose topic is told."""
    return {
        queue
        for name in agent.capabilities
        for queue in (name, f"task:{name}", name.rpartition(".")[0])
        if queue
    }  # fmt: skip


async def effects(bus: Bus, start: int, *, until: int | None = None, most: int = MOST) -> list[Record]:
    """The newest events of effects above ``start`` (and up to ``until``), in log order; ``most`` of them."""
    log = bus.store.log
    topics = effect_topics(await log.topics())
    found: list[Record] = []
    before = None if until is None else until + 1
    while topics and len(found) < most:
        rows = await log.latest(topics, limit=min(PAGE, most - len(found)), before=before)
        found += [Record._make(row) for row in rows if row.position > start]
        if len(rows) < PAGE or rows[-1].position <= start:
            break
        before = rows[-1].position
    return found[::-1]


async def _groups(bus: Bus, head: int, processes: Sequence[ProcessView], parked: Mapping[str, int]) -> list[GroupView]:
    checkpoints = bus.store.checkpoints
    rosters = await checkpoints.rosters(await checkpoints.groups())
    owners = _names(processes)
    return [
        GroupView(
            name=name,
            partitions=len(roster.partitions),
            held_by=dict(Counter(owners[row.lease_id] for row in roster.partitions if row.lease_id in owners)),
            behind=await distance(bus.store.log, _slowest(roster, head), head),
            oldest_seconds=await _oldest(bus, _slowest(roster, head), head),
            parked=parked.get(name, 0),
        )
        for name, roster in sorted(rosters.items())
    ]


def _names(processes: Sequence[ProcessView]) -> dict[str | None, str]:
    """A name for each process: its owner's, and its number too where others have the same."""
    alike = Counter(process.owner for process in processes)
    return {
        process.lease_id: process.owner
        if alike[process.owner] == 1
        else f"{process.owner} {process.host}:{process.pid}"
        for process in processes
    }


def _slowest(roster: Roster, head: int) -> int:
    return min((row.position for row in roster.partitions), default=head)


async def _oldest(bus: Bus, position: int, head: int) -> float | None:
    """How old the first event above a position is."""
    rows = await bus.store.log.read(position, limit=1) if position < head else []
    return _age(rows[0].recorded_at, bus.now()) if rows else None


def _age(time: int | None, now: int) -> float | None:
    return None if time is None else max((now - time) / 1_000_000, 0.0)
