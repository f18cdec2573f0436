"""Whole runs: no-op steps per second, and five hundred commands side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from agents.hive import Hive
from agents.workflow import Step, Workflow
from benchmarks.pairs import Figure
from benchmarks.process import resident


@asynccontextmanager
async def hive() -> AsyncIterator[Hive]:
    """A hive on a new file."""
    with TemporaryDirectory() as directory:
        async with Hive(f"sqlite:///{Path(directory) / 'bench.db'}", workspace=directory) as one:
            yield one


def chain(length: int) -> Workflow:
    """No-op steps, each after the one before."""
    steps = [Step(id=f"s{n}", tool="noop", needs=(f"s{n - 1}",) if n else ()) for n in range(length)]
    return Workflow(name="chain", steps=tuple(steps))


async def in_sequence(length: int = 1000) -> float:
    """Steps per second of one run."""
    async with hive() as one:
        await (await one.start(chain(5))).result()
        begin = time.perf_counter()
        await (await one.start(chain(length))).result()
        return length / (time.perf_counter() - begin)


async def side_by_side(runs: int = 1000, length: int = 5) -> float:
    """Steps per second of many runs at once."""
    async with hive() as one:
        await (await one.start(chain(5))).result()
        begin = time.perf_counter()
        started = await asyncio.gather(*(one.start(chain(length)) for _ in range(runs)))
        await asyncio.gather(*(run.result() for run in started))
        return runs * length / (time.perf_counter() - begin)


async def commands(count: int = 500) -> Figure:
    """All commands ready at once: how many were in flight together, and the process's memory then."""
    async with hive() as one:
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
            must=300,
            aim=300,
            candidate=flying,
            floor=count,
            unit="MB resident",
            pairs=1,
            lower_is_better=True,
        )
