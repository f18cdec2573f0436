"""When a run has ended, and which wish of a person opens it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.run import Run
from hive_bus.envelope import encode_event
from hive_bus.event import Event
from hive_bus.events import (
    TaskCompleted,
    TaskFailed,
    TaskRetryRequested,
    TaskSkipped,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowRequested,
    WorkflowResumed,
)
from hive_bus.testing import SimulatedLoop, run_simulated
from hive_core_db.records import AppendRequest
from tests.support.brains import simulated_bus

HISTORY: tuple[Event, ...] = (
    WorkflowRequested(goal="peace"),
    TaskCompleted(task_id="well"),
    TaskFailed(task_id="mended"),
    TaskFailed(task_id="ill"),
    TaskSkipped(task_id="passed"),
    TaskCompleted(task_id="mended"),
    WorkflowFailed(reason="ill: it failed"),
)


def told(path: Path, *more: Event, after: int = 0) -> tuple[str | None, list[str]]:
    """How the run has ended, and the topics that somebody sees who follows it from ``after`` on."""

    async def main(loop: SimulatedLoop) -> tuple[str | None, list[str]]:
        bus = await simulated_bus(loop, path)
        now, ids = bus.now(), bus.ids
        rows = [
            encode_event(event, stream="run1/run", correlation_id="run1", source="story", event_id=ids.event_id(now))
            for event in (*HISTORY, *more)
        ]
        await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=tuple(rows)))
        run = Run(bus, "run1")
        end = await run.ended()
        seen = [record.topic async for record in run.events(after=after)] if end is not None else []
        await bus.close()
        return None if end is None else end.topic, seen

    return run_simulated(1, main)


@pytest.mark.parametrize("task", ["well", "mended", "nobody"])
def test_a_retry_that_nothing_follows_from_opens_nothing(task: str, tmp_path: Path) -> None:
    """A task that completed, or that never was, is not tried again: nobody waits for that for ever."""
    end, seen = told(tmp_path / "h.db", TaskRetryRequested(task_id=task))
    assert end == "workflow.failed"
    assert seen[-1] == "task.retry_requested"


@pytest.mark.parametrize("task", ["ill", "passed"])
def test_a_retry_opens_the_run_before_anybody_took_it_up(task: str, tmp_path: Path) -> None:
    """Whoever asks for a try and then for the result is not given the old one."""
    assert told(tmp_path / "h.db", TaskRetryRequested(task_id=task))[0] is None


def test_a_run_that_goes_on_ends_again(tmp_path: Path) -> None:
    """The new end counts, also for somebody who began to look behind the old one, and does not know what failed."""
    again = (TaskRetryRequested(task_id="ill"), WorkflowResumed(), TaskCompleted(task_id="ill"), WorkflowCompleted())
    end, seen = told(tmp_path / "h.db", *again, after=len(HISTORY) - 1)
    assert end == "workflow.completed"
    assert seen == [
        "workflow.failed",
        "task.retry_requested",
        "workflow.resumed",
        "task.completed",
        "workflow.completed",
    ]
