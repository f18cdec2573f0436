"""A run as people see it, folded from its records."""

from __future__ import annotations

from decimal import Decimal

from dashboard.views import RunFold, is_run, run_view
from tests.support.story import RUN, SECOND, Story, a_drone, two_steps


def test_nothing_is_no_run() -> None:
    """Without a record there is no view."""
    assert run_view([]) is None


def test_a_run_has_its_state_its_tasks_and_its_end() -> None:
    """Status, title, times, output, and for each task its state, kind, needs, times and result."""
    view = run_view(two_steps().records)
    assert view is not None
    assert (view.id, view.status, view.title, view.output, view.seconds) == (RUN, "completed", "ci", "shipped", 8.0)
    assert view.workspace == "/src"
    assert [(task.id, task.status, task.kind, task.note) for task in view.tasks] == [
        ("build", "completed", "run", "built"),
        ("lint", "completed", "run", "fine"),
        ("ship", "completed", "run", "shipped"),
    ]
    assert view.tasks[2].needs == ("build",)
    assert view.tasks[0].seconds(0) == 3.0
    assert view.tasks[2].seconds(0) == 5.0, "a task that asks has begun to wait"
    assert view.questions == ()


def test_a_run_waits_when_only_a_person_can_move_it() -> None:
    """An open question makes a run wait, unless another task still works."""
    story = two_steps()
    asked = next(index for index, record in enumerate(story.records) if record.topic == "approval.requested")
    view = run_view(story.records[: asked + 1])
    assert view is not None
    assert view.status == "waiting"
    assert [(question.task_id, question.question, question.asked_at) for question in view.questions] == [
        ("ship", "Ship it?", 3 * SECOND)
    ]
    story = Story()
    story.tell("workflow.requested", 0, name="ci")
    story.tell("task.created", 0, task_id="a", name="a", spec={"run": "x"})
    story.tell("task.created", 0, task_id="b", name="b", spec={"run": "x"})
    story.tell("task.ready", 0, task_id="b", kind="run", try_number=1)
    story.tell("approval.requested", 0, approval_id="a1", task_id="a", question="?")
    view = run_view(story.records)
    assert view is not None
    assert view.status == "running"


def test_cost_is_added_up_for_the_run_and_its_tasks() -> None:
    """Calls with a known price are added exactly, the others are counted; a task has the calls about it."""
    view = run_view(a_drone().records)
    assert view is not None
    assert view.cost.calls == 5
    assert view.cost.dollars == Decimal("1.00")
    assert view.cost.unpriced == 2
    assert view.cost.tokens_in == 134
    assert view.tasks[0].cost.calls == 4
    assert view.tasks[0].cost.dollars == Decimal("0.50")


def test_a_task_keeps_its_verdicts_and_where_the_result_lies() -> None:
    """Tries are counted, verdicts kept in order, and the merge command is there."""
    view = run_view(a_drone().records)
    assert view is not None
    task = view.tasks[0]
    assert (task.try_number, task.verdicts) == (2, ("changes_requested", "approved"))
    assert (view.commit, view.branch, view.merge_command) == ("c9", "hive/x", "git merge hive/x")


def test_what_a_task_does_right_now() -> None:
    """While it works a task says with what: thinking, a tool with its argument, a review, a merge."""
    fold, seen = RunFold(), []
    for record in a_drone().records:
        fold.add(record)
        view = fold.view
        assert view is not None
        activity = view.tasks[0].activity if view.tasks else ""
        if activity and activity not in seen:
            seen.append(activity)
    assert seen == [
        "thinks, turn 1",
        "command ./check",
        "a reviewer reads it",
        "the reviewer thinks, turn 1",
        "again: changes",
        "merges its changes",
    ]


def test_a_failed_run_says_why_and_may_go_on() -> None:
    """The reason is kept; a retry that the queen takes up opens the run again."""
    story = Story()
    story.tell("workflow.requested", 0, goal="Do it\nwell")
    story.tell("task.created", 0, task_id="a", name="a", spec={"run": "false"})
    story.tell("task.ready", 0, task_id="a", kind="run", try_number=1)
    story.tell("task.failed", 1, task_id="a", reason="exit code 1")
    story.tell("workflow.failed", 1, reason="a: exit code 1")
    view = run_view(story.records)
    assert view is not None
    assert (view.status, view.reason, view.title, view.ended) == ("failed", "a: exit code 1", "Do it", True)
    story.tell("task.retry_requested", 2, task_id="a")
    story.tell("workflow.resumed", 2)
    story.tell("task.retried", 2, task_id="a", try_number=2, reason="asked for")
    view = run_view(story.records)
    assert view is not None
    assert (view.status, view.ended, view.tasks[0].status, view.tasks[0].try_number) == ("running", False, "queued", 2)


def test_a_branch_that_inherited_its_end_took_no_time() -> None:
    """It ended before it was forked, which is no time below nothing."""
    story = Story()
    story.tell("workflow.requested", 0, goal="Do it")
    story.tell("workflow.completed", 2)
    story.tell("workflow.forked", 9, parent=RUN, position=2)
    view = run_view(story.records)
    assert view is not None
    assert (view.status, view.requested_at, view.seconds) == ("completed", 9_000_000, 0)


def test_views_are_plain_json() -> None:
    """What programs get has no decimals, no tuples of objects and no times as text."""
    view = run_view(a_drone().records)
    assert view is not None
    plain = view.as_dict()
    assert plain["cost"]["dollars"] == "1.00"
    assert plain["tasks"][0]["cost"]["calls"] == 4
    assert plain["requested_at"] == 0


def test_other_correlations_are_no_runs() -> None:
    """Only what was asked for in the run's own stream is a run."""
    assert is_run(two_steps().records)
    story = Story("order-7")
    story.tell("task.assigned", 0, stream="elsewhere", task_id="t", assignee={"not": "text"})
    assert not is_run(story.records)
