"""Forks: what the append of a branch costs, and how soon it decides, of a short run and of one of a hundred thousand events."""

from __future__ import annotations

import asyncio
import statistics
import time

from agents.hive import Hive
from benchmarks.pairs import Figure
from benchmarks.places import Ground
from benchmarks.runs import chain
from hive_bus import Bus, open_bus
from hive_bus.events import WorkflowResumeRequested
from hive_bus.reading import FROM_NOW

SHORT, LONG = 100, 100_000
BATCH, FORKS, BRANCHES = 500, 60, 5


async def append(ground: Ground, *, must: float, aim: float) -> Figure:
    """The append that makes a branch of a long run, against that of a short one: medians in milliseconds, taking turns."""
    async with ground() as place, open_bus(place.url) as bus:
        hive = Hive(bus=bus, serve=False)
        for run, events in (("short", SHORT), ("long", LONG)):
            await _run_of(hive, run, events)
        spent: dict[str, list[float]] = {"short": [], "long": []}
        for _ in range(FORKS):
            for run, times in spent.items():
                begin = time.perf_counter()
                await hive.fork(run)
                times.append(1000 * (time.perf_counter() - begin))
    short, long = statistics.median(spent["short"]), statistics.median(spent["long"])
    return Figure(
        name=f"the fork of a run of {LONG:,} events, against one of {SHORT}",
        ratio=long / short,
        must=must,
        aim=aim,
        candidate=long,
        floor=short,
        unit="ms",
        pairs=FORKS,
        lower_is_better=True,
    )


async def decision(ground: Ground, *, must: float, aim: float) -> Figure:
    """From the fork to the first decision in the branch, of a run of a hundred thousand events that the queen had handled."""
    async with ground() as place, Hive(place.url) as hive:
        await _run_of(hive, "long", LONG)
        async with hive.bus.subscribe("workflow.resumed", start=FROM_NOW) as records:
            await hive.pause("long")
            await hive.resume("long")
            async for _ in records:
                break
        seconds = [await _decided(hive.bus, hive) for _ in range(BRANCHES)]
    return Figure(
        name=f"first decision in a branch of {LONG:,} events",
        ratio=statistics.median(seconds),
        must=must,
        aim=aim,
        candidate=statistics.median(seconds),
        floor=0.0,
        unit="s",
        pairs=BRANCHES,
        lower_is_better=True,
    )


async def _run_of(hive: Hive, run: str, events: int) -> None:
    """A run that waits for a person, with so many events."""
    asked = chain(1)
    steps = tuple(step.model_copy(update={"approval": "May it?"}) for step in asked.steps)
    await hive.start(asked.model_copy(update={"steps": steps}), id=run)
    for _ in range(events // BATCH):
        said = [WorkflowResumeRequested() for _ in range(BATCH)]
        await hive.bus.append(f"{run}/run", said, correlation_id=run)


async def _decided(bus: Bus, hive: Hive) -> float:
    async with bus.subscribe(start=FROM_NOW) as records:
        begin = time.perf_counter()
        branch = await hive.fork("long")
        async with asyncio.timeout(60):
            async for record in records:
                if record.correlation_id == branch.id and record.decided_by is not None:
                    break
    return time.perf_counter() - begin
