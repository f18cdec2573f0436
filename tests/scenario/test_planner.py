"""The planner: from a goal or a definition to a plan, or to the reason why there is none."""

from __future__ import annotations

import json
from typing import Any

from agents.planner import Planner
from hive_bus.events.model import ModelFailed, ModelRequested, ModelResponded
from hive_bus.events.workflow import (
    WorkflowCancelRequested,
    WorkflowPlanGenerated,
    WorkflowPlanRequested,
    WorkflowRequested,
)
from tests.support.scenario import Hive, asked

GOAL = WorkflowRequested(
    goal="peace",
    model="m",
    workspace={"path": "w", "base": "c0", "branch": "main"},
    tools=({"name": "read", "description": "reads files"},),
)


def wanted(event: WorkflowRequested = GOAL) -> Hive:
    """A plan is wanted."""
    return Hive(Planner()).given(event, WorkflowPlanRequested(attempt=1))


def answer(text: str) -> ModelResponded:
    """The model says this."""
    return ModelResponded(message={"role": "assistant", "content": [{"type": "text", "text": text}]})


PLAN: dict[str, Any] = {"steps": [{"id": "a", "prompt": "do"}, {"id": "b", "needs": "a", "run": "test"}]}


def test_a_definition_is_a_plan_at_once() -> None:
    """No model is asked."""
    hive = wanted(asked({"id": "a", "run": "x"}))
    assert hive.last(WorkflowPlanGenerated).tasks[0]["id"] == "a"
    assert not hive.all(ModelRequested)


def test_a_wrong_definition_is_an_error_that_names_the_field() -> None:
    """The queen refuses it with this reason."""
    assert "steps[0].retries" in wanted(asked({"id": "a", "run": "x", "retries": -1})).last(WorkflowPlanGenerated).error


def test_a_goal_goes_to_the_model_with_the_facts() -> None:
    """Goal, workspace and the tools that drones have."""
    call = wanted().last(ModelRequested)
    assert (call.conversation, call.role, call.turn, call.model) == ("planner", "planner", 1, "m")
    text = call.messages[0]["content"]
    assert "peace" in text
    assert "main" in text
    assert "read: reads files" in text
    assert "planner of a hive" in call.system


def test_the_answer_is_the_plan_in_normal_form() -> None:
    """Defaults are applied, single needs are lists."""
    tasks = wanted().when(answer(json.dumps(PLAN))).last(WorkflowPlanGenerated).tasks
    assert tasks[1]["needs"] == ["a"]
    assert tasks[0]["priority"] == 5


def test_a_fenced_block_is_read_all_the_same() -> None:
    """Models like to talk around it."""
    text = f"Here it is:\n```json\n{json.dumps(PLAN['steps'])}\n```\nGood luck!"
    assert len(wanted().when(answer(text)).last(WorkflowPlanGenerated).tasks) == 2


def test_nonsense_is_an_error_and_the_next_request_carries_the_reasons() -> None:
    """The conversation goes on in its second turn."""
    hive = wanted().when(answer("I would rather not."))
    assert "not JSON" in hive.last(WorkflowPlanGenerated).error
    hive.given(WorkflowPlanRequested(attempt=2, reasons=("not JSON",)))
    call = hive.last(ModelRequested)
    assert (call.conversation, call.turn, call.system) == ("planner", 2, "")
    assert "not JSON" in call.messages[0]["content"]


def test_what_the_log_cannot_hold_is_no_plan() -> None:
    """A NUL, a lone surrogate, a number without an end."""
    for bad in ('{"steps": [{"id": "a", "run": "\\u0000"}]}', '{"steps": "\\ud800"}', '{"steps": NaN}', "[" * 9999):
        assert wanted().when(answer(bad)).last(WorkflowPlanGenerated).error
    for wrong in (
        "{}",
        '{"steps": {}}',
        "3",
        '{"steps": [3]}',
        '{"steps": [{"id": "a", "run": "x", "retries": 1e400}]}',
    ):
        assert wanted().when(answer(wrong)).last(WorkflowPlanGenerated).error


def test_a_failed_model_is_an_error_and_the_next_try_is_a_new_conversation() -> None:
    """A turn without a reply cannot be built upon."""
    hive = wanted().when(ModelFailed(reason="overloaded"))
    assert hive.last(WorkflowPlanGenerated).error == "the planner's model failed: overloaded"
    hive.given(WorkflowPlanRequested(attempt=2, reasons=("overloaded",)))
    call = hive.last(ModelRequested)
    assert (call.conversation, call.turn) == ("planner:2", 1)
    assert "peace" in call.messages[0]["content"]
    assert hive.when(answer(json.dumps(PLAN))).last(WorkflowPlanGenerated).tasks


def test_a_cancelled_run_has_its_answer_after_the_call_has_ended() -> None:
    """The open call is asked to end, once."""
    hive = wanted().given(WorkflowCancelRequested(), WorkflowCancelRequested())
    assert hive.topics.count("model.cancel_requested") == 1
    hive.cancelled(hive.open_of(ModelRequested)[0])
    assert hive.last(WorkflowPlanGenerated).error == "the run was cancelled"


def test_a_request_in_a_cancelled_run_is_answered_without_a_call() -> None:
    """Nothing new starts."""
    hive = Hive(Planner()).given(GOAL, WorkflowCancelRequested(), WorkflowPlanRequested(attempt=1))
    assert not hive.all(ModelRequested)
    assert hive.all(WorkflowPlanGenerated)
