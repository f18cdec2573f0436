"""The four brains together: a goal goes in, a reviewed result comes out."""

from __future__ import annotations

import json
from typing import Any

from agents.drone import Drone
from agents.planner import Planner
from agents.queen import Queen
from agents.reviewer import Reviewer
from hive_bus.events.drone import DroneBuzzed
from hive_bus.events.model import ModelRequested, ModelResponded
from hive_bus.events.task import TaskReady, TaskReturned, TaskReviewRequested
from hive_bus.events.timer import TimerSet
from hive_bus.events.tool import ToolRequested, ToolReturned
from hive_bus.events.workflow import WorkflowCancelRequested, WorkflowCompleted, WorkflowRequested
from hive_bus.record import Record
from tests.support.scenario import Hive

EDIT = {"name": "edit", "description": "edits", "input_schema": {"type": "object"}, "effect": "idempotent"}
GOAL = WorkflowRequested(
    goal="Make the tests pass", model="m", workspace={"path": "w", "base": "c0", "branch": "main"}, tools=(EDIT,)
)
PLAN = {
    "steps": [{"id": "fix", "prompt": "Mend add()."}, {"id": "test", "needs": ["fix"], "run": "pytest -q"}],
}


def call(hive: Hive, role: str) -> Record:
    """The open model call of a role."""
    (found,) = [record for record in hive.open_of(ModelRequested) if record.event.role == role]  # type: ignore[attr-defined]
    return found


def answer(hive: Hive, role: str, value: Any = None, *, edits: str = "") -> Hive:
    """The model answers a role: JSON, or text with an edit."""
    text = value if isinstance(value, str) else json.dumps(value)
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if edits:
        content.append({"type": "tool_use", "id": f"u-{edits}", "name": "edit", "input": {"path": edits}})
    stop = "tool_use" if edits else "end_turn"
    reply = ModelResponded(message={"role": "assistant", "content": content}, stop_reason=stop)
    return hive.when(reply, ends=call(hive, role))


def tool(hive: Hive, **fields: Any) -> Hive:
    """The only open tool call returns."""
    (intent,) = hive.open_of(ToolRequested)
    return hive.when(ToolReturned(**fields), ends=intent)


def planned() -> Hive:
    """A goal that has its plan."""
    hive = Hive(Queen(), Planner(), Reviewer(), Drone()).given(GOAL)
    return answer(hive, "planner", PLAN)


def test_a_goal_becomes_a_reviewed_result() -> None:
    """Planned, edited, refused once, reworked from where it was, approved, merged, tested, handed over."""
    hive = planned()
    answer(hive, "drone", "I mend it.", edits="a.py")
    tool(hive, tool_use_id="u-a.py", output="edited", commit="c1")
    answer(hive, "drone", "Mended.")
    tool(hive, output="- a\n+ b")
    answer(hive, "reviewer", {"verdict": "changes_requested", "comments": ["Add a test."]})
    assert "Add a test." in hive.last(DroneBuzzed).prompt
    answer(hive, "drone", "A test.", edits="t.py")
    assert hive.last(ToolRequested).workspace["base"] == "c1"
    tool(hive, tool_use_id="u-t.py", output="edited", commit="c2")
    answer(hive, "drone", "Tested.")
    tool(hive, output="- a\n+ b\n+ test")
    assert hive.last(TaskReviewRequested).round == 2
    answer(hive, "reviewer", {"verdict": "approved"})
    tool(hive, data={"head": "m1"})
    assert hive.last(TaskReady).workspace["integration"] is True
    hive.when(TaskReturned(task_id="test", output="2 passed"))
    tool(hive, data={"commit": "m1", "branch": "hive/x", "target": "main", "merge_command": None})
    ended = hive.last(WorkflowCompleted)
    assert (ended.output, ended.commit, ended.branch) == ("2 passed", "m1", "main")
    assert hive.refolded() == hive.states
    for timer in hive.open_of(TimerSet):
        hive.cancelled(timer)
    assert not hive.open


def test_a_cancelled_goal_ends_when_everybody_has_let_go() -> None:
    """The drone ends its call first, then the queen ends the run."""
    hive = planned().given(WorkflowCancelRequested(reason="enough"))
    hive.cancelled(hive.open_of(TimerSet)[0])
    assert "workflow.cancelled" not in hive.topics
    hive.cancelled(call(hive, "drone"))
    assert hive.story()[-4:] == [
        "drone.interrupted fix",
        "task.cancelled fix",
        "task.cancelled test",
        "workflow.cancelled",
    ]
    assert not hive.open


def test_a_planner_that_learns_is_heard() -> None:
    """Two answers are refused with reasons, the third is the plan."""
    hive = Hive(Queen(), Planner(), Reviewer(), Drone()).given(GOAL)
    answer(hive, "planner", "Peace!")
    answer(hive, "planner", {"steps": [{"id": "a", "prompt": "x", "needs": ["b"]}]})
    prompt = hive.last(ModelRequested).messages[0]["content"]
    assert "no step has this id" in prompt
    answer(hive, "planner", PLAN)
    assert hive.last(TaskReady).task_id == "fix"


def test_a_planner_that_does_not_learn_ends_the_run() -> None:
    """Three times is enough."""
    hive = Hive(Queen(), Planner(), Reviewer(), Drone()).given(GOAL)
    for _ in range(3):
        answer(hive, "planner", "Peace!")
    assert hive.topics[-1] == "workflow.failed"
    assert not hive.open
