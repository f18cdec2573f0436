"""Real processes on one queue: limits hold over all of them, also when one is killed; preferences and shares are kept."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

from hive_bus import Bus, open_bus
from hive_bus.reading import FROM_BEGINNING
from tests.integration.capacity_process import HELD, JobsSeen
from tests.integration.test_groups_processes import processes
from tests.support.capacity import Job

SLOTS = 8
"""How many jobs a process performs at a time where nothing else is said."""


async def begin(url: str, name: str, directory: Path, concurrency: int = 0) -> asyncio.subprocess.Process:
    """Start a process with a hand for jobs."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.capacity_process", url, name, str(directory), str(concurrency))
    )


async def ask(bus: Bus, number: int, *, run: str = "run", **fields: object) -> None:
    """Publish so many jobs of a run."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(number):
            tasks.create_task(_publish(bus, Job.model_validate(fields), run))


async def _publish(bus: Bus, job: Job, run: str) -> None:
    await bus.publish(job, correlation_id=run, stream=f"{run}/jobs")


async def until(bus: Bus, topic: str, number: int) -> None:
    """Wait for so many events of a topic."""
    async with bus.subscribe(topic, start=FROM_BEGINNING) as records:
        for _ in range(number):
            await anext(records)


async def test_no_more_run_than_the_limit_says(hive_url: str, tmp_path: Path) -> None:
    """Three processes with eight slots each and a limit of two; one is killed at work, and its slots come back with its lease."""
    marks = tmp_path / "marks"
    marks.mkdir()
    async with open_bus(hive_url, source="test") as bus, processes() as started:
        for name in ("ada", "bob", "cleo"):
            started.append(await begin(hive_url, name, marks, 2))
        await ask(bus, 20, seconds=0.05)
        await until(bus, "job.done", 20)
        await ask(bus, 4, run="second", seconds=0.5)
        await until(bus, "job.started", 21)
        killed = await holder(bus)
        started[("ada", "bob", "cleo").index(killed)].kill()
        await until(bus, "job.done", 24)
        seen = [record.event async for record in bus.read("jobs.seen")]
        assert all(isinstance(event, JobsSeen) for event in seen)
        most = max(event.number for event in seen if isinstance(event, JobsSeen))
        left = len([mark for mark in marks.iterdir() if mark.name.startswith(killed)])
        assert most <= 2 + left
        assert left <= 2
        # One question more: who is gone holds nothing, and nobody waits.
        states = {state.key: state for state in await bus.store.limits.state()}
        assert states["job"].taken <= 2
        assert states["job"].missing == 0


async def holder(bus: Bus) -> str:
    """Who began the last job."""
    last = (await bus.store.log.latest(["job.started"], limit=1))[0]
    return last.source


async def test_each_job_is_begun_once_and_all_take_part(hive_url: str, tmp_path: Path) -> None:
    """Three hundred jobs, three processes: no job is started twice, each process fills its slots, and the runs take turns."""
    marks, names = tmp_path / "marks", ("ada", "bob", "cleo")
    marks.mkdir()
    held = marks.with_name(HELD)
    held.touch()
    async with open_bus(hive_url, source="test") as bus, processes() as started:
        for name in names:
            started.append(await begin(hive_url, name, marks))
        await asyncio.gather(*(ask(bus, 150, run=run, seconds=0.01) for run in ("first", "second")))
        # Nothing ends before all are at work: how quick a process comes, and to a file's lock, is the machine's affair.
        await until(bus, "job.started", SLOTS * len(names))
        first = Counter([record.source async for record in bus.read("job.started")])
        assert first == dict.fromkeys(names, SLOTS)
        held.unlink()
        await until(bus, "job.done", 300)
        starts = [record async for record in bus.read("job.started")]
        assert max(Counter(record.causation_id for record in starts).values()) == 1
        half = Counter(record.correlation_id for record in starts[:150])
        assert min(half.values()) >= 50


async def test_a_preferred_process_is_held_out_for(hive_url: str, tmp_path: Path) -> None:
    """While it is there it gets what prefers it; a process that does not exist is held out for, then anyone takes its jobs."""
    marks = tmp_path / "marks"
    marks.mkdir()
    async with open_bus(hive_url, source="test") as bus, processes() as started:
        for name in ("ada", "bob"):
            started.append(await begin(hive_url, name, marks))
        await ask(bus, 2, run="warm", seconds=0.01)
        await until(bus, "job.done", 2)
        await ask(bus, 6, run="bobs", seconds=0.01, preferred="bob", hold_out=90.0)
        await until(bus, "job.done", 8)
        await ask(bus, 2, run="nobodys", seconds=0.01, preferred="nobody", hold_out=1.0)
        await until(bus, "job.done", 10)
        asked = [record async for record in bus.read("job.requested") if record.correlation_id == "nobodys"]
        starts = [record async for record in bus.read("job.started")]
        assert {record.source for record in starts if record.correlation_id == "bobs"} == {"bob"}
        late = [record.recorded_at for record in starts if record.correlation_id == "nobodys"]
        assert min(late) - min(record.recorded_at for record in asked) >= 990_000
