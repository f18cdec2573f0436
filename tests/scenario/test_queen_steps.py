"""How the queen takes a run of commands and tools from its plan to its end."""

from __future__ import annotations

from typing import Any

from agents.planner import Planner
from agents.queen import Queen
from hive_bus.effects import EffectClass
from hive_bus.events.approval import ApprovalDenied, ApprovalExpired, ApprovalGranted, ApprovalRequested
from hive_bus.events.task import (
    TaskCompleted,
    TaskCreated,
    TaskFailed,
    TaskReady,
    TaskRetried,
    TaskReturned,
    TaskSkipped,
)
from hive_bus.events.workflow import (
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowPlanGenerated,
    WorkflowPlanRejected,
    WorkflowPlanRequested,
    WorkflowRequested,
)
from tests.support.scenario import Hive, asked


def started(*steps: dict[str, Any], **fields: Any) -> Hive:
    """A run of these steps, asked for and planned."""
    return Hive(Queen(), Planner()).given(asked(*steps, **fields))


def done(task: str, output: str = "") -> TaskReturned:
    """A task's success."""
    return TaskReturned(task_id=task, output=output, exit_code=0)


def broke(task: str, output: str = "") -> TaskReturned:
    """A task's failure."""
    return TaskReturned(task_id=task, outcome="failed", output=output, exit_code=1)


def test_a_noop_step_is_five_events_and_ends_its_run() -> None:
    """Four of them are on the log beside the hand's claim, which is the fifth."""
    hive = started({"id": "a", "tool": "noop"}).when(done("a"))
    assert hive.topics == [
        "workflow.requested",
        "workflow.started",
        "workflow.plan_requested",
        "workflow.plan_generated",
        "task.created",
        "task.ready",
        "task.returned",
        "task.completed",
        "workflow.completed",
    ]
    assert hive.last(TaskReady).effect is EffectClass.PURE


def test_a_step_starts_when_its_needs_are_done_with_their_output_quoted() -> None:
    """Values reach the command as single words of the shell."""
    hive = started({"id": "a", "run": "date"}, {"id": "b", "needs": ["a"], "run": "echo {{ steps.a.output }}"})
    assert [ready.task_id for ready in hive.all(TaskReady)] == ["a"]
    hive.when(done("a", "it's; late"))
    assert hive.last(TaskReady).command == """echo 'it'"'"'s; late'"""
    assert hive.when(done("b", "bye")).last(WorkflowCompleted).output == "bye"


def test_everything_about_a_step_reaches_whoever_performs_it() -> None:
    """Environment, timeout, capability, priority, effect and place are the intent's."""
    step = {"id": "a", "run": "x", "env": {"A": "1"}, "timeout": "5s", "capability": "gpu", "priority": "high"}
    ready = started(step | {"effect": "unsafe"}, workspace={"path": "w"}).last(TaskReady)
    assert (ready.env, ready.timeout, ready.capability, ready.priority) == ({"A": "1"}, 5.0, "gpu", 3)
    assert ready.effect is EffectClass.UNSAFE
    assert ready.workspace == {"path": "w"}
    policy = ready.work()
    assert policy is not None
    assert policy.labels == ("task:gpu",)


def test_a_tool_step_gets_its_arguments_as_values() -> None:
    """A placeholder that is the whole text becomes the value itself."""
    hive = started(
        {"id": "a", "run": "x"}, {"id": "b", "needs": ["a"], "tool": "t", "with": {"n": "{{ steps.a.json.n }}"}}
    )
    assert hive.when(done("a", '{"n": 3}')).last(TaskReady).input == {"n": 3}


def test_a_value_that_does_not_exist_fails_the_step_and_not_the_queen() -> None:
    """The reason names the placeholder."""
    hive = started({"id": "a", "run": "x"}, {"id": "b", "needs": ["a"], "run": "echo {{ steps.a.json.n }}"})
    hive.when(done("a", "no json"))
    assert "steps.a.json.n" in hive.last(TaskFailed).reason
    assert hive.topics[-1] == "workflow.failed"


def test_a_value_that_the_log_refuses_fails_the_step() -> None:
    """JSON output may spell what no payload can hold."""
    hive = started(
        {"id": "a", "run": "x"}, {"id": "b", "needs": ["a"], "tool": "t", "with": {"n": "{{ steps.a.json.n }}"}}
    )
    hive.when(done("a", '{"n": "\\u0000"}'))
    assert "NUL" in hive.last(TaskFailed).reason


def test_no_more_steps_run_side_by_side_than_the_run_allows() -> None:
    """Places are given by priority first, then in the order of the plan."""
    steps: list[dict[str, Any]] = [{"id": name, "run": name} for name in "abc"]
    hive = started(*steps, {"id": "d", "run": "d", "priority": "critical"}, max_parallel=2)
    assert [ready.task_id for ready in hive.all(TaskReady)] == ["d", "a"]
    hive.when(done("a"))
    assert [ready.task_id for ready in hive.all(TaskReady)] == ["d", "a", "b"]


def test_a_failed_step_fails_its_dependants_and_the_others_finish() -> None:
    """What only waited for it is skipped in the same decision, all the way down."""
    hive = started(
        {"id": "a", "run": "a"},
        {"id": "b", "needs": ["a"], "run": "b"},
        {"id": "c", "needs": ["b"], "run": "c"},
        {"id": "d", "run": "d"},
    )
    hive.when(broke("a"))
    assert [skipped.reason for skipped in hive.all(TaskSkipped)] == [
        "needs a, which failed",
        "needs b, which was skipped",
    ]
    assert not hive.all(WorkflowFailed)
    assert hive.when(done("d")).last(WorkflowFailed).reason == "a: exit code 1"


def test_a_condition_that_does_not_hold_skips_and_the_run_completes() -> None:
    """A step that its own condition skips is no failure."""
    hive = started({"id": "a", "run": "a"}, {"id": "b", "needs": ["a"], "run": "b", "when": "failed('a')"})
    hive.when(done("a"))
    assert hive.last(TaskSkipped).reason == "the condition does not hold: failed('a')"
    assert hive.topics[-1] == "workflow.completed"


def test_a_step_that_always_runs_cleans_up_and_the_run_still_fails() -> None:
    """Only a prompt step repairs; a command that runs after a failure does not hide it."""
    hive = started(
        {"id": "a", "run": "a"},
        {"id": "b", "needs": ["a"], "run": "b", "when": "always()"},
        {"id": "c", "needs": ["a"], "run": "c", "when": "failed('a')"},
    )
    hive.when(broke("a")).when(done("b")).when(done("c"))
    assert hive.topics[-1] == "workflow.failed"


def test_a_condition_without_an_answer_fails_the_step() -> None:
    """The reason says which values could not be compared."""
    hive = started({"id": "a", "run": "a"}, {"id": "b", "needs": ["a"], "run": "b", "when": "steps.a.output < 3"})
    hive.when(done("a", "many"))
    assert "steps.a.output < 3" in hive.last(TaskFailed).reason


def test_a_failed_step_is_tried_again_after_growing_waits() -> None:
    """One second, two, four: the wait doubles, and the try number grows."""
    hive = started({"id": "a", "run": "a", "retries": 3, "backoff": "1s"})
    for _ in range(3):
        hive.when(broke("a"))
    assert [ready.delay for ready in hive.all(TaskReady)] == [0.0, 1.0, 2.0, 4.0]
    assert [ready.try_number for ready in hive.all(TaskReady)] == [1, 2, 3, 4]
    assert hive.when(broke("a")).topics[-2:] == ["task.failed", "workflow.failed"]


def test_a_step_of_unknown_end_asks_a_person_whether_it_may_run_again() -> None:
    """It may have run, in part or in full; nobody but a person can say what that means."""
    hive = started({"id": "a", "run": "a", "effect": "unsafe", "retries": 5})
    hive.when(TaskReturned(task_id="a", outcome="unknown", reason="the hand was lost"))
    question = hive.last(ApprovalRequested)
    assert (question.approval_id, question.reason) == ("a.1.unknown", "unknown")
    assert "in part or in full" in question.question
    hive.when(ApprovalGranted(approval_id="a.1.unknown", task_id="a"))
    assert hive.last(TaskReady).try_number == 2
    assert hive.when(done("a")).topics[-1] == "workflow.completed"


def test_a_step_of_unknown_end_fails_when_a_person_says_no() -> None:
    """The reason keeps that it may have run."""
    hive = started({"id": "a", "run": "a", "effect": "unsafe"}).when(TaskReturned(task_id="a", outcome="unknown"))
    hive.when(ApprovalDenied(approval_id="a.1.unknown", by="ann"))
    assert hive.last(TaskFailed).reason == "approval denied by ann; the last try may have run, in part or in full"


def test_waiting_for_a_person_takes_no_place() -> None:
    """A step behind the question runs meanwhile."""
    hive = started({"id": "a", "run": "a", "approval": "Really?"}, {"id": "b", "run": "b"}, max_parallel=1)
    assert [ready.task_id for ready in hive.all(TaskReady)] == ["b"]
    assert hive.last(ApprovalRequested).question == "Really?"


def test_an_approved_step_starts() -> None:
    """The question comes first, the command after the answer."""
    hive = started({"id": "a", "run": "a", "approval": True})
    assert hive.topics[-1] == "approval.requested"
    assert hive.when(ApprovalGranted(approval_id="a.1", by="ann")).last(TaskReady).task_id == "a"


def test_a_denied_step_fails_with_what_the_person_said() -> None:
    """Who and why are the reason."""
    hive = started({"id": "a", "run": "a", "approval": True})
    hive.when(ApprovalDenied(approval_id="a.1", by="ann", comment="not on Fridays"))
    assert hive.last(WorkflowFailed).reason == "a: approval denied by ann: not on Fridays"


def test_an_approval_that_nobody_gives_in_time_counts_as_no() -> None:
    """Expired is denied."""
    hive = started({"id": "a", "run": "a", "approval": True}).when(ApprovalExpired(approval_id="a.1"))
    assert hive.last(TaskFailed).reason == "nobody approved it in time"


def test_an_answer_before_its_question_is_not_lost() -> None:
    """The question is not asked any more."""
    hive = Hive(Queen(), Planner()).given(
        asked({"id": "a", "run": "a"}, {"id": "b", "needs": ["a"], "run": "b", "approval": True}),
        ApprovalGranted(approval_id="b.1"),
    )
    hive.when(done("a"))
    assert hive.last(TaskReady).task_id == "b"
    assert not hive.all(ApprovalRequested)


def test_a_refusal_before_its_question_is_not_lost_either() -> None:
    """The step fails as soon as its needs are done."""
    hive = Hive(Queen(), Planner()).given(
        asked({"id": "a", "run": "a"}, {"id": "b", "needs": ["a"], "run": "b", "approval": True}),
        ApprovalDenied(approval_id="b.1"),
    )
    assert hive.when(done("a")).last(TaskFailed).task_id == "b"


def test_a_run_may_be_started_with_all_approvals_or_none() -> None:
    """All starts without a question, none fails without one."""
    step = {"id": "a", "run": "a", "approval": True}
    assert started(step, approve="all").last(TaskReady).task_id == "a"
    assert "without any" in started(step, approve="none").last(WorkflowFailed).reason


def test_a_step_of_unknown_end_fails_in_a_run_without_approvals() -> None:
    """It is never run again silently."""
    hive = started({"id": "a", "run": "a"}, approve="none").when(TaskReturned(task_id="a", outcome="unknown"))
    assert "in part or in full" in hive.last(TaskFailed).reason


def test_a_late_result_moves_nothing() -> None:
    """A result whose intent has ended already is not the end of another try."""
    hive = started({"id": "a", "run": "a", "retries": 1})
    first = hive.open_of(TaskReady)[0]
    hive.when(broke("a"))
    hive.open[first.event_id] = first
    hive.when(done("a"), ends=first)
    assert not hive.all(TaskCompleted)


def test_a_definition_that_is_no_graph_is_refused_at_once() -> None:
    """Asking again would bring the same definition."""
    hive = started({"id": "a", "run": "a", "needs": ["b"]}, {"id": "b", "run": "b", "needs": ["a"]})
    assert "wait for each other" in hive.last(WorkflowPlanRejected).reasons[0]
    assert hive.topics[-1] == "workflow.failed"
    assert len(hive.all(WorkflowPlanRequested)) == 1


def test_a_definition_without_steps_is_refused() -> None:
    """An empty plan is no plan."""
    assert "no steps" in started().last(WorkflowFailed).reason


def test_a_plan_is_asked_for_three_times_and_then_given_up() -> None:
    """Each time with the reasons why the last one was refused."""
    hive = Hive(Queen()).given(WorkflowRequested(goal="peace"))
    bad = ({"id": "a", "prompt": "x", "needs": ["b"]},)
    hive.given(WorkflowPlanGenerated(attempt=1, tasks=bad))
    assert "no step has this id" in hive.last(WorkflowPlanRequested).reasons[0]
    hive.given(WorkflowPlanGenerated(attempt=2, error="the model sulks"))
    hive.given(WorkflowPlanGenerated(attempt=2, tasks=bad))
    assert hive.last(WorkflowPlanRequested).attempt == 3
    hive.given(WorkflowPlanGenerated(attempt=3, tasks=({"id": "a", "prompt": "x", "tools": ["saw"]},)))
    assert "refused 3 times" in hive.last(WorkflowFailed).reason
    assert "no tool is called saw" in hive.last(WorkflowFailed).reason


def test_the_plan_is_in_the_log_as_tasks() -> None:
    """Each with its needs and its whole step, every default applied."""
    hive = started({"id": "a", "run": "a"}, {"id": "b", "name": "Build", "needs": ["a"], "run": "b"})
    first, second = hive.all(TaskCreated)
    assert (second.task_id, second.name, second.needs) == ("b", "Build", ("a",))
    assert first.spec["timeout"] == 3600.0


def test_retried_tries_say_why() -> None:
    """The reason of the failed one is the reason of the next."""
    hive = started({"id": "a", "run": "a", "retries": 1}).when(broke("a"))
    assert hive.last(TaskRetried).reason == "exit code 1"


def test_a_workflow_file_says_how_many_steps_run_side_by_side() -> None:
    """Unless the request says otherwise."""
    definition = {"name": "x", "max_parallel": 1, "steps": [{"id": "a", "run": "a"}, {"id": "b", "run": "b"}]}
    hive = Hive(Queen(), Planner()).given(WorkflowRequested(definition=definition))
    assert len(hive.all(TaskReady)) == 1
    hive = Hive(Queen(), Planner()).given(WorkflowRequested(definition=definition, max_parallel=2))
    assert len(hive.all(TaskReady)) == 2
