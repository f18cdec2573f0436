"""What people may ask of a run: cancel, pause, resume, and another try."""

from __future__ import annotations

from typing import Any

import pytest

from agents.planner import Planner
from agents.queen import Queen
from hive_bus.events.approval import ApprovalCancelRequested, ApprovalGranted, ApprovalRequested
from hive_bus.events.drone import DroneHatched, DroneInterrupted, DroneInterruptRequested
from hive_bus.events.task import (
    TaskCancelled,
    TaskCancelRequested,
    TaskCompleted,
    TaskReady,
    TaskRetried,
    TaskRetryRequested,
    TaskReturned,
    TaskReviewCompleted,
)
from hive_bus.events.timer import TimerCancelRequested, TimerSet
from hive_bus.events.tool import ToolCancelRequested, ToolRequested, ToolReturned
from hive_bus.events.workflow import (
    WorkflowCancelRequested,
    WorkflowPauseRequested,
    WorkflowPlanGenerated,
    WorkflowRequested,
    WorkflowResumeRequested,
)
from tests.scenario.test_queen_drones import FIX, drone_done, open_tool, reviewed, verdict
from tests.scenario.test_queen_drones import started as drones_started
from tests.scenario.test_queen_steps import broke, done, started
from tests.support.scenario import Hive, asked

STOP = WorkflowCancelRequested(reason="enough")


def test_a_cancelled_run_asks_what_is_open_to_end_and_ends_after_it() -> None:
    """Nothing new starts; what never started is cancelled with the run."""
    hive = started({"id": "a", "run": "a"}, {"id": "b", "needs": ["a"], "run": "b"}).given(STOP)
    (intent,) = hive.open_of(TaskReady)
    assert hive.last(TaskCancelRequested).intent_id == intent.event_id
    assert "workflow.cancelled" not in hive.topics
    hive.cancelled(intent)
    assert [task.task_id for task in hive.all(TaskCancelled)] == ["a", "b"]
    assert hive.topics[-1] == "workflow.cancelled"
    assert len(hive.all(TaskReady)) == 1


def test_a_result_that_came_before_the_cancellation_counts() -> None:
    """The task completed; what needed it does not start."""
    hive = started({"id": "a", "run": "a"}, {"id": "b", "needs": ["a"], "run": "b"}).given(STOP).when(done("a"))
    assert hive.last(TaskCompleted).task_id == "a"
    assert hive.last(TaskCancelled).task_id == "b"


def test_cancelling_twice_asks_once() -> None:
    """Each open intent is asked to end once."""
    hive = started({"id": "a", "run": "a"}).given(STOP, STOP)
    assert len(hive.all(TaskCancelRequested)) == 1


def test_cancelling_withdraws_questions() -> None:
    """Nobody need answer any more."""
    hive = started({"id": "a", "run": "a", "approval": True}).given(STOP)
    (question,) = hive.open_of(ApprovalRequested)
    assert hive.last(ApprovalCancelRequested).intent_id == question.event_id
    assert hive.cancelled(question).topics[-2:] == ["task.cancelled", "workflow.cancelled"]


def test_cancelling_stops_drones_and_their_timers() -> None:
    """The run ends when both have ended."""
    hive = drones_started(FIX).given(STOP)
    assert hive.last(DroneInterruptRequested).reason == "enough"
    assert hive.last(TimerCancelRequested).reason == "enough"
    hive.cancelled(hive.open_of(TimerSet)[0])
    assert hive.topics[-1] == "timer.cancelled"
    hive.given(DroneInterrupted(drone_id="fix.1", task_id="fix", try_number=1), stream="drone/fix.1")
    assert hive.topics[-2:] == ["task.cancelled", "workflow.cancelled"]


def test_cancelling_waits_for_the_reviewer() -> None:
    """Every request has its answer before the run ends."""
    hive = reviewed(drones_started(FIX | {"review": True}))
    hive.cancelled(hive.open_of(TimerSet)[0]).given(STOP)
    assert "workflow.cancelled" not in hive.topics
    hive.given(TaskReviewCompleted(task_id="fix", verdict="approved"))
    assert hive.topics[-2:] == ["task.cancelled", "workflow.cancelled"]


def test_cancelling_stops_a_merge() -> None:
    """The queue ends it, with the real result if that came first."""
    hive = drone_done(drones_started(FIX))
    hive.cancelled(hive.open_of(TimerSet)[0]).given(STOP)
    assert hive.last(ToolCancelRequested).intent_id == open_tool(hive, "workspace.integrate").event_id
    hive.cancelled(hive.open_of(ToolRequested)[0])
    assert hive.topics[-1] == "workflow.cancelled"


def test_it_is_too_late_to_cancel_a_run_whose_branch_was_handed_over() -> None:
    """The person's branch has the result: the run completed."""
    hive = drone_done(drones_started(FIX)).when(ToolReturned(data={"head": "m1"}))
    hive.given(STOP, settle=True)
    hive.when(ToolReturned(data={"commit": "m1"}), ends=open_tool(hive, "workspace.finish"))
    assert hive.topics[-1] == "workflow.completed"


def test_a_run_may_be_cancelled_before_it_has_a_plan() -> None:
    """The planner still answers; its plan is not taken."""
    hive = Hive(Queen()).given(WorkflowRequested(goal="peace")).given(STOP)
    assert hive.topics[-1] == "workflow.cancel_requested"
    hive.given(WorkflowPlanGenerated(attempt=1, tasks=({"id": "a", "run": "a"},)))
    assert hive.topics[-1] == "workflow.cancelled"
    assert "task.created" not in hive.topics


def test_a_run_may_be_cancelled_before_it_was_asked_for() -> None:
    """The signal came before the wait and is not lost."""
    hive = Hive(Queen(), Planner()).given(STOP, asked({"id": "a", "run": "a"}))
    assert hive.topics == ["workflow.cancel_requested", "workflow.requested", "workflow.cancelled"]


def test_a_paused_run_starts_nothing_until_it_is_resumed() -> None:
    """What runs ends and is recorded; new tries, steps and questions wait."""
    hive = started(
        {"id": "a", "run": "a"},
        {"id": "b", "needs": ["a"], "run": "b"},
        {"id": "c", "needs": ["a"], "run": "c", "approval": True},
    ).given(WorkflowPauseRequested())
    hive.when(done("a"))
    assert hive.topics[-1] == "task.completed"
    hive.given(WorkflowResumeRequested())
    assert hive.topics[-3:] == ["workflow.resumed", "approval.requested", "task.ready"]


def test_a_try_that_fails_in_a_paused_run_is_tried_again_after_it() -> None:
    """The failure is recorded, the new try waits."""
    hive = started({"id": "a", "run": "a", "retries": 1}).given(WorkflowPauseRequested()).when(broke("a"))
    assert hive.topics[-1] == "task.retried"
    assert hive.given(WorkflowResumeRequested()).last(TaskReady).try_number == 2


def test_pausing_twice_is_pausing_once() -> None:
    """A request that changes nothing has no answer."""
    hive = started({"id": "a", "run": "a"}).given(WorkflowPauseRequested(), WorkflowPauseRequested())
    assert hive.topics.count("workflow.paused") == 1
    assert hive.given(WorkflowResumeRequested(), WorkflowResumeRequested()).topics.count("workflow.resumed") == 1


def test_a_failed_run_is_taken_up_again_by_another_try() -> None:
    """What was skipped because of the failure waits for the new try."""
    hive = started({"id": "a", "run": "a"}, {"id": "b", "needs": ["a"], "run": "b"}).when(broke("a"))
    assert hive.topics[-1] == "workflow.failed"
    hive.given(TaskRetryRequested(task_id="a", reason="the disk has room again"))
    assert hive.topics[-3:] == ["workflow.resumed", "task.retried", "task.ready"]
    assert hive.last(TaskRetried).reason == "the disk has room again"
    hive.when(done("a")).when(done("b"))
    assert hive.topics[-1] == "workflow.completed"


def test_another_try_in_a_running_run_starts_at_once() -> None:
    """The run need not end first."""
    hive = started({"id": "a", "run": "a"}, {"id": "b", "needs": ["a"], "run": "b"}, {"id": "c", "run": "c"})
    hive.when(broke("a")).given(TaskRetryRequested(task_id="a"))
    assert hive.last(TaskReady).task_id == "a"
    assert "workflow.resumed" not in hive.topics
    hive.when(done("a")).when(done("c")).when(done("b"))
    assert hive.topics[-1] == "workflow.completed"


def test_another_try_of_a_denied_step_asks_again() -> None:
    """Yesterday's no is not today's answer, and no yes either."""
    hive = started({"id": "a", "run": "a", "approval": True})
    hive.given(STOP)
    hive.cancelled(hive.open_of(ApprovalRequested)[0])
    hive.given(TaskRetryRequested(task_id="a"))
    assert hive.last(ApprovalRequested).approval_id == "a.2"
    hive.when(ApprovalGranted(approval_id="a.2")).when(done("a"))
    assert hive.topics[-1] == "workflow.completed"


@pytest.mark.parametrize("task", ["a", "nobody"])
def test_another_try_of_what_has_not_failed_moves_nothing(task: str) -> None:
    """A completed task, or none at all."""
    hive = started({"id": "a", "run": "a"}).when(done("a"))
    assert hive.given(TaskRetryRequested(task_id=task)).topics[-1] == "task.retry_requested"


def test_two_requests_for_the_same_try_are_one() -> None:
    """Both arrive before the queen has looked."""
    hive = started({"id": "a", "run": "a"}).when(broke("a"))
    hive.given(TaskRetryRequested(task_id="a"), TaskRetryRequested(task_id="a"), settle=False).settle()
    assert len(hive.all(TaskRetried)) == 1


def test_a_retried_prompt_step_starts_from_the_tip_with_a_fresh_drone() -> None:
    """Nothing of the rejected try is kept, and the rounds begin again."""
    hive = verdict(reviewed(drones_started(FIX | {"review": True})), "rejected", "No.")
    hive.given(TaskRetryRequested(task_id="fix"))
    event: Any = hive.last(TaskReady)
    assert (event.try_number, event.workspace["base"]) == (2, "c0")


def test_two_retries_keep_their_order() -> None:
    """Both failed, and one needs the other: it starts again when the other has ended again."""
    steps = ({"id": "a", "run": "a"}, {"id": "b", "run": "b", "needs": ["a"], "when": "always()"})
    hive = started(*steps).when(broke("a")).when(broke("b"))
    hive.given(TaskRetryRequested(task_id="a"), TaskRetryRequested(task_id="b"))
    assert [task.event.task_id for task in hive.open_of(TaskReady)] == ["a"]  # type: ignore[attr-defined]
    assert hive.when(done("a")).when(done("b")).topics[-1] == "workflow.completed"


def test_what_was_cut_off_and_waits_anew_has_a_new_drone() -> None:
    """The first drone of the step is over, and its stream with it: the retry of what the step needs hatches another."""
    steps = ({"id": "a", "run": "a"}, FIX | {"needs": ["a"], "when": "always()"})
    hive = started(*steps).when(broke("a")).given(STOP)
    drone = hive.last(DroneHatched).drone_id
    hive.given(DroneInterrupted(drone_id=drone, task_id="fix"), stream=f"drone/{drone}")
    while hive.cancel_asked.keys() & hive.open.keys():
        hive.cancelled(next(hive.open[key] for key in hive.cancel_asked if key in hive.open))
    assert hive.topics[-1] == "workflow.cancelled"
    hive.given(TaskRetryRequested(task_id="a")).when(done("a"))
    assert [one.drone_id for one in hive.all(DroneHatched)] == ["fix.1", "fix.2"]
    assert hive.last(TaskReady).try_number == 2


def test_an_end_is_an_end() -> None:
    """Late events move nothing after it."""
    hive = started({"id": "a", "run": "a"}).when(done("a"))
    count = len(hive.log)
    hive.given(STOP, WorkflowPauseRequested(), TaskReturned(task_id="a"))
    assert len(hive.log) == count + 3
