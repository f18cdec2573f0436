"""Steps that take no time share appends: with the same history as ever, and never past what others said meanwhile."""

from __future__ import annotations

from pathlib import Path

from agents.workflows.workflow import Step, Workflow
from hive_bus import Record
from tests.support.hives import differences, finished, hive_at

LENGTH = 40
PER_STEP = ("task.ready", "task.assigned", "task.returned", "task.completed")


def chain(length: int, **more: str) -> Workflow:
    """No-op steps, each after the one before; the last is ``more``."""
    steps = [Step(id=f"s{n}", tool="noop", needs=(f"s{n - 1}",) if n else ()) for n in range(length)]
    last = [Step(id="last", needs=(f"s{length - 1}",), **more)] if more else []  # type: ignore[arg-type]
    return Workflow(name="chain", steps=(*steps, *last))


def of_task(records: list[Record], task_id: str) -> list[str]:
    """The topics that tell a task's life, in log order."""
    return [record.topic for record in records if record.topic in PER_STEP and record.data["task_id"] == task_id]


async def test_many_steps_share_an_append_and_each_tells_its_whole_life(hive_url: str, tmp_path: Path) -> None:
    """Forty steps need a handful of appends; ready, assigned, returned and completed stand in order for each."""
    async with hive_at(hive_url, tmp_path) as hive:
        result, records = await finished(await hive.start(chain(LENGTH)))
        assert result.status == "completed"
        assert all(of_task(records, f"s{n}") == list(PER_STEP) for n in range(LENGTH))
        appends = {record.append_first for record in records if record.topic == "task.returned"}
        assert len(appends) <= LENGTH // 8
        # Today's brain, folding what was stored one by one, decides exactly what was decided ahead.
        assert await differences(hive.bus, result.run) == []


async def test_a_step_that_takes_time_ends_what_shares_an_append(hive_url: str, tmp_path: Path) -> None:
    """A command behind no-op steps is claimed like any other, from the queue."""
    async with hive_at(hive_url, tmp_path) as hive:
        result, records = await finished(await hive.start(chain(3, run="echo done")))
        assert (result.status, result.output.strip()) == ("completed", "done")
        assert of_task(records, "last") == list(PER_STEP)
        ready, assigned = (
            next(r for r in records if r.topic == topic and r.data["task_id"] == "last")
            for topic in ("task.ready", "task.assigned")
        )
        assert ready.append_first < assigned.append_first


async def test_a_run_cancelled_among_its_steps_starts_nothing_after_it(hive_url: str, tmp_path: Path) -> None:
    """The request to cancel lies between two appends: the one decided without it was refused and decided anew."""
    async with hive_at(hive_url, tmp_path) as hive:
        run = await hive.start(chain(400))
        async for record in run.events():
            if record.topic == "task.returned":
                break
        await hive.cancel(run.id)
        result, records = await finished(run)
        assert result.status in ("cancelled", "completed")
        asked = next((r.position for r in records if r.topic == "workflow.cancel_requested"), None)
        if result.status == "cancelled":
            assert asked is not None
            assert not [r for r in records if r.topic == "task.ready" and r.position > asked]
        assert await differences(hive.bus, run.id) == []
