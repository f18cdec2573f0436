"""Whole runs: no-op steps per second, commands side by side, and what a killed process costs."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

from agents.hive import Hive
from agents.workflows.workflow import Step, Workflow
from benchmarks.children import child
from benchmarks.pairs import Figure
from benchmarks.places import Ground
from benchmarks.postgres import PostgresRaw
from benchmarks.process import bare_interpreter, resident


@asynccontextmanager
async def hive(ground: Ground) -> AsyncIterator[Hive]:
    """A hive on a new database."""
    with TemporaryDirectory() as directory:
        async with ground() as place, Hive(place.url, workspace=directory) as one:
            yield one


def chain(length: int, *, run: str | None = None) -> Workflow:
    """Steps, each after the one before; no-ops, or commands."""
    tool = "noop" if run is None else None
    steps = [Step(id=f"s{n}", needs=(f"s{n - 1}",) if n else (), tool=tool, run=run) for n in range(length)]
    return Workflow(name="chain", steps=tuple(steps))


async def in_sequence(ground: Ground, length: int = 1000) -> float:
    """Steps per second of one run."""
    async with hive(ground) as one:
        await (await one.start(chain(5))).result()
        begin = time.perf_counter()
        await (await one.start(chain(length))).result()
        return length / (time.perf_counter() - begin)


async def side_by_side(ground: Ground, runs: int = 1000, length: int = 5) -> float:
    """Steps per second of many runs at once."""
    async with hive(ground) as one:
        await (await one.start(chain(5))).result()
        begin = time.perf_counter()
        started = await asyncio.gather(*(one.start(chain(length)) for _ in range(runs)))
        await asyncio.gather(*(run.result() for run in started))
        return runs * length / (time.perf_counter() - begin)


async def commands(ground: Ground, *, must: float, aim: float, count: int = 500) -> Figure:
    """All commands ready at once: how many were in flight together, and the process's memory then."""
    async with hive(ground) as one:
        place = one.workspace
        steps = [
            # Every command waits until all have started: only then can any end.
            Step(id=f"c{n}", run=f"touch started.{n}; while [ ! -e go ]; do sleep 0.2; done")
            for n in range(count)
        ]
        run = await one.start(Workflow(name="wide", max_parallel=count, steps=tuple(steps)))
        memory, flying = 0.0, 0
        deadline = time.monotonic() + 60
        while flying < count and time.monotonic() < deadline:
            flying = sum(1 for _ in place.glob("started.*"))
            memory = max(memory, resident())
            await asyncio.sleep(0.2)
        (place / "go").touch()
        await run.result(within=120)
        return Figure(
            name="500 commands in flight together",
            ratio=memory if flying == count else float("inf"),
            must=must,
            aim=aim,
            candidate=flying,
            floor=count,
            unit="MB resident",
            pairs=1,
            lower_is_better=True,
        )


RUNS, STEPS, ENDED = 20, 40, 60
TIMES = 5


async def resumed(ground: Ground, *, must: float, aim: float) -> Figure:
    """20 runs of 40 short commands, their process killed: seconds from the start of a new one to its first step."""
    seconds = [await _kill_and_resume(ground) for _ in range(TIMES)]
    return Figure(
        name="killed -9 with 20 runs of 40 steps open, to the first step resumed",
        ratio=statistics.median(seconds),
        must=must,
        aim=aim,
        candidate=statistics.median(seconds),
        floor=bare_interpreter(),
        unit="s (floor: a bare interpreter)",
        pairs=TIMES,
        lower_is_better=True,
        also={"all": [round(one, 3) for one in seconds]},
    )


async def _kill_and_resume(ground: Ground) -> float:
    with TemporaryDirectory() as directory:
        async with ground() as place:
            assert isinstance(place.raw, PostgresRaw)
            db = place.raw.db
            async with child("benchmarks.hosting", place.url, directory) as first:
                await first.ask("start", runs=RUNS, steps=STEPS)
                while await db.fetchval("SELECT count(*) FROM events WHERE topic = 'task.returned'") < ENDED:
                    await asyncio.sleep(0.05)
                await first.kill()
            begin = time.time_ns() // 1000
            query = "SELECT min(recorded_at) FROM events WHERE topic = 'task.assigned' AND recorded_at > $1"
            async with child("benchmarks.hosting", place.url, directory) as second:
                async with asyncio.timeout(60):
                    while (found := await db.fetchval(query, begin)) is None:
                        await asyncio.sleep(0.02)
                await second.kill()
            return float(found - begin) / 1_000_000
