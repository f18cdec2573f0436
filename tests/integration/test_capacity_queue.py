"""Who is served when several processes pull from one queue: fair between runs, priorities without starvation, preferences, no double work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hive_bus.record import Record
from hive_bus.testing import SimulatedLoop, run_simulated
from tests.support.brains import pass_time
from tests.support.capacity import Job, Site, site


def played(path: Path, steps: Callable[[Site], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Play the steps on a simulated loop with two processes."""

    async def main(loop: SimulatedLoop) -> None:
        async with site(loop, path / "h.db", **options) as one:
            await steps(one)

    run_simulated(1, main)


async def started(one: Site) -> list[Record]:
    """The starts in the log, in order."""
    return [record async for record in one.bus.read("job.started")]


def test_a_run_with_a_thousand_jobs_takes_turns_with_a_run_of_one(tmp_path: Path) -> None:
    """The small run's job begins in the next round, though hundreds of older ones wait."""

    async def steps(one: Site) -> None:
        await one.ask(*(Job() for _ in range(1000)), run="large")
        await one.until("job.started", 4)
        await one.ask(Job(), run="small")
        await one.until("job.done", 12)
        starts = await started(one)
        place = next(number for number, row in enumerate(starts) if row.correlation_id == "small")
        assert place < 12

    played(tmp_path, steps, concurrency=2)


def test_three_runs_share_alike(tmp_path: Path) -> None:
    """Of the first thirty starts each run has about ten, whoever came first and however many they are."""

    async def steps(one: Site) -> None:
        for run in ("a", "b", "c"):
            await one.ask(*(Job() for _ in range(40)), run=run)
        await one.until("job.done", 30)
        shares = Counter(row.correlation_id for row in (await started(one))[6:36])
        assert min(shares[run] for run in "abc") >= 8

    played(tmp_path, steps, concurrency=2)


def test_a_background_job_comes_while_critical_ones_keep_coming(tmp_path: Path) -> None:
    """It waits for a bounded number of them, across both processes."""

    async def steps(one: Site) -> None:
        await one.ask(*(Job(priority=1) for _ in range(4)), run="first")
        await one.ask(Job(key="background", priority=9), run="slow")
        for round_ in range(60):
            await one.ask(*(Job(priority=1) for _ in range(4)), run=f"urgent-{round_}")
            await pass_time(1.0)
            if any(key == "background" for _, key, _ in one.count.starts):
                break
        assert 4 < round_ < 50

    played(tmp_path, steps, concurrency=2)


def test_a_preferred_worker_is_held_out_for_then_anyone_takes_it(tmp_path: Path) -> None:
    """While the preferred one is there it gets all that prefer it; when it is gone the other takes them after the time."""

    async def steps(one: Site) -> None:
        await one.ask(*(Job(preferred="bob", hold_out=20.0) for _ in range(6)))
        await one.until("job.done", 6)
        assert {worker for _, _, worker in one.count.starts} == {"bob"}
        one.services[1].cancel()
        await pass_time(1.0)
        one.count.starts.clear()
        asked = one.loop.time()
        await one.ask(Job(preferred="bob", hold_out=20.0), Job())
        await one.until("job.done", 8)
        (plain, _, first), (late, _, second) = one.count.starts
        assert (first, second) == ("ada", "ada")
        assert plain - asked < 2.0
        assert 20.0 <= late - asked < 22.0

    played(tmp_path, steps)


def test_processes_that_meet_at_the_head_part_ways(tmp_path: Path) -> None:
    """Four processes, four hundred jobs that take no time: each is done once, and few claims are refused after the first rounds."""

    async def steps(one: Site) -> None:
        for number in range(40):
            await one.ask(*(Job(at_once=True) for _ in range(10)), run=f"run-{number}")
        await one.until("job.done", 400)
        assert Counter(row.causation_id for row in await started(one)).most_common(1)[0][1] == 1
        tried = len(one.count.starts)
        assert tried < 400 * 1.6

    played(tmp_path, steps, workers=("ada", "bob", "cleo", "dan"), concurrency=2)
