"""How the queen takes a prompt step through drone, review and merge."""

from __future__ import annotations

from typing import Any

from agents.planner import Planner
from agents.queen import Queen
from hive_bus.effects import EffectClass
from hive_bus.events.drone import (
    DroneBuzzed,
    DroneCompleted,
    DroneFailed,
    DroneHatched,
    DroneInterrupted,
    DroneInterruptRequested,
)
from hive_bus.events.task import (
    TaskAssigned,
    TaskCompleted,
    TaskFailed,
    TaskReady,
    TaskRetried,
    TaskReturned,
    TaskReviewCompleted,
    TaskReviewRequested,
    TaskSkipped,
)
from hive_bus.events.timer import TimerCancelRequested, TimerFired, TimerSet
from hive_bus.events.tool import ToolFailed, ToolRequested, ToolReturned
from hive_bus.events.workflow import WorkflowCompleted, WorkflowFailed, WorkflowPauseRequested, WorkflowResumeRequested
from tests.support.scenario import Hive, asked

GIT = {"path": "w", "base": "c0", "branch": "main"}
FIX = {"id": "fix", "prompt": "Mend it."}
TOOLS: tuple[dict[str, Any], ...] = (
    {"name": "read", "description": "reads", "input_schema": {"type": "object"}, "effect": "pure"},
    {"name": "edit", "description": "edits", "input_schema": {"type": "object"}, "effect": "idempotent"},
)


def started(*steps: dict[str, Any], **fields: Any) -> Hive:
    """A run of these steps in a git workspace."""
    return Hive(Queen(), Planner()).given(asked(*steps, **{"workspace": GIT, "tools": TOOLS, **fields}))


def drone_done(hive: Hive, task: str = "fix", *, commit: str | None = "c1", at: int = 1, output: str = "done") -> Hive:
    """The drone of a try completes."""
    event = DroneCompleted(drone_id=f"{task}.{at}", task_id=task, try_number=at, output=output, commit=commit)
    return hive.given(event, stream=f"drone/{task}.{at}")


def verdict(hive: Hive, word: Any, *comments: str) -> Hive:
    """The reviewer answers the last request."""
    asked_for = hive.last(TaskReviewRequested)
    return hive.given(
        TaskReviewCompleted(
            task_id=asked_for.task_id,
            try_number=asked_for.try_number,
            round=asked_for.round,
            verdict=word,
            comments=comments,
        )
    )


def merged(hive: Hive, head: str = "m1") -> Hive:
    """The merge succeeds."""
    return hive.when(ToolReturned(data={"head": head}), ends=open_tool(hive, "workspace.integrate"))


def open_tool(hive: Hive, name: str) -> Any:
    """The open call of one of the queen's own tools."""
    (found,) = [record for record in hive.open_of(ToolRequested) if record.event.tool == name]  # type: ignore[attr-defined]
    return found


def test_a_prompt_step_is_given_to_a_drone_with_its_whole_profile() -> None:
    """The log alone shows what it was given: model, tools with their effects, prompt, and where it starts."""
    hive = started(FIX | {"tools": ["read"], "model": "m", "timeout": "1m"}, model="other")
    assert hive.story()[-5:] == [
        "task.ready fix",
        "task.assigned fix",
        "drone.hatched fix",
        "drone.buzzed",
        "timer.set",
    ]
    assert hive.last(TaskAssigned).assignee == "fix.1"
    hatched = hive.last(DroneHatched)
    assert (hatched.model, hatched.tools) == ("m", TOOLS[:1])
    assert hive.last(DroneBuzzed).workspace == {"path": "w", "base": "c0"}
    assert [record.stream for record in hive.log if record.topic.startswith("drone.")] == ["run0000001/drone/fix.1"] * 2


def test_a_step_without_review_is_merged_as_it_is() -> None:
    """Then the branch is handed over and the run completes with its commit."""
    hive = merged(drone_done(started(FIX)))
    assert (hive.last(TaskCompleted).commit, hive.last(TaskCompleted).output) == ("m1", "done")
    finish = hive.last(ToolRequested)
    assert (finish.tool, finish.input["commit"]) == ("workspace.finish", "m1")
    hive.when(ToolReturned(data={"commit": "m1", "branch": "hive/x", "merge_command": "git merge hive/x"}))
    ended = hive.last(WorkflowCompleted)
    assert (ended.commit, ended.branch, ended.merge_command) == ("m1", "hive/x", "git merge hive/x")


def test_a_review_is_told_the_task_as_the_drone_was() -> None:
    """With the values in their places: a reviewer cannot judge a placeholder."""
    step = FIX | {"prompt": "{{ run.goal }}: mend it.", "review": True}
    hive = drone_done(started(step, goal="All tests pass"))
    hive.when(ToolReturned(output="+ mended"), ends=open_tool(hive, "workspace.diff"))
    assert hive.last(TaskReviewRequested).instructions == "All tests pass: mend it."


def test_a_review_sees_the_diff_and_what_the_drone_says() -> None:
    """The queen asks for the diff first; reading it changes nothing."""
    hive = drone_done(started(FIX | {"review": 2}))
    asked_for = hive.last(ToolRequested)
    assert (asked_for.tool, asked_for.input) == ("workspace.diff", {"base": "c0", "commit": "c1"})
    assert asked_for.effect is EffectClass.PURE
    hive.when(ToolReturned(output="+ mended"), ends=open_tool(hive, "workspace.diff"))
    review = hive.last(TaskReviewRequested)
    assert (review.instructions, review.output, review.evidence["diff"]) == ("Mend it.", "done", "+ mended")
    assert (review.model_extra or {})["votes"] == 2


def test_an_approved_result_is_merged() -> None:
    """Merging the same commit again changes nothing, so it may be repeated."""
    hive = reviewed(started(FIX | {"review": True}))
    verdict(hive, "approved")
    assert hive.last(ToolRequested).tool == "workspace.integrate"
    assert hive.last(ToolRequested).effect is EffectClass.IDEMPOTENT
    assert merged(hive).last(TaskCompleted).task_id == "fix"


def reviewed(hive: Hive, *, at: int = 1, commit: str = "c1", diff: str = "+ a") -> Hive:
    """The drone of this try is done and its diff is read."""
    drone_done(hive, at=at, commit=commit)
    return hive.when(ToolReturned(output=diff), ends=open_tool(hive, "workspace.diff"))


def test_requested_changes_go_to_a_new_drone_that_builds_on_the_last_commit() -> None:
    """The comments are in its prompt; the diff to review spans all tries that build on each other."""
    hive = verdict(reviewed(started(FIX | {"review": True})), "changes_requested", "Add a test.")
    assert hive.last(TaskRetried).comments == ("Add a test.",)
    assert hive.last(DroneHatched).drone_id == "fix.2"
    assert "Add a test." in hive.last(DroneBuzzed).prompt
    assert hive.last(DroneBuzzed).workspace["base"] == "c1"
    drone_done(hive, at=2, commit="c2")
    assert hive.last(ToolRequested).input == {"base": "c0", "commit": "c2"}


def test_after_three_rounds_the_task_fails() -> None:
    """What the reviewer said last is the reason."""
    hive = started(FIX | {"review": True})
    for at in (1, 2, 3):
        verdict(reviewed(hive, at=at, commit=f"c{at}"), "changes_requested", "No.")
    assert hive.last(TaskFailed).reason == "the reviewer asked for changes 3 times: No."
    assert len(hive.all(DroneHatched)) == 3


def test_a_rejected_result_fails_the_task() -> None:
    """It is not tried again."""
    hive = verdict(reviewed(started(FIX | {"review": True})), "rejected", "Wrong file.")
    assert hive.last(WorkflowFailed).reason == "fix: the reviewer rejected it: Wrong file."


def test_a_late_verdict_of_an_earlier_round_moves_nothing() -> None:
    """Only the verdict on the current try counts."""
    hive = verdict(reviewed(started(FIX | {"review": True})), "changes_requested", "No.")
    hive.given(TaskReviewCompleted(task_id="fix", try_number=1, round=1, verdict="approved"))
    assert not [call for call in hive.all(ToolRequested) if call.tool == "workspace.integrate"]


def test_a_drone_that_changed_nothing_is_reviewed_without_a_diff_and_merged_never() -> None:
    """There is no commit to read or to merge."""
    hive = drone_done(started(FIX | {"review": True}), commit=None)
    assert hive.last(TaskReviewRequested).evidence["diff"] == ""
    assert verdict(hive, "approved").last(TaskCompleted).commit is None


def test_a_merge_conflict_is_rework_from_the_merged_state() -> None:
    """The new drone starts from the tip and is told which files, and what it had changed."""
    hive = verdict(reviewed(started(FIX | {"review": True}), diff="+ mine"), "approved")
    hive.when(ToolReturned(is_error=True, data={"conflicts": ["a.py"], "head": "m9"}))
    assert "a.py" in hive.last(TaskRetried).comments[0]
    assert hive.last(DroneBuzzed).workspace["base"] == "m9"
    assert "+ mine" in hive.last(DroneBuzzed).prompt


def test_conflicts_without_end_fail_the_task() -> None:
    """Three rounds, whether a reviewer or a merge sends it back."""
    hive = started(FIX)
    for at in (1, 2, 3):
        drone_done(hive, at=at)
        hive.when(ToolReturned(is_error=True, data={"conflicts": ["a.py"]}))
    assert "conflicts with other tasks' changes in a.py" in hive.last(TaskFailed).reason


def test_a_merge_that_fails_otherwise_fails_the_task() -> None:
    """There is nothing a drone could do about it."""
    hive = drone_done(started(FIX)).when(ToolFailed(reason="disk full"))
    assert hive.last(TaskFailed).reason == "the merge failed: disk full"


def test_a_diff_that_cannot_be_read_says_so_to_the_reviewer() -> None:
    """The review goes on with what there is."""
    hive = drone_done(started(FIX | {"review": True})).when(ToolFailed(reason="no such commit"))
    assert "could not be read: no such commit" in hive.last(TaskReviewRequested).evidence["diff"]


def test_one_merge_at_a_time() -> None:
    """The second begins when the first has moved the tip."""
    hive = started(FIX, {"id": "doc", "prompt": "Write it."})
    drone_done(drone_done(hive), task="doc", commit="d1")
    assert [call.task_id for call in hive.all(ToolRequested)] == ["fix"]
    merged(hive)
    assert [call.task_id for call in hive.all(ToolRequested)] == ["fix", "doc"]


def test_commands_after_a_drone_run_in_the_merged_state() -> None:
    """Those before it run in the workspace itself; later drones start from the tip."""
    hive = started(
        {"id": "lint", "run": "lint"},
        FIX | {"needs": ["lint"]},
        {"id": "test", "needs": ["fix"], "run": "test"},
        {"id": "doc", "needs": ["test"], "prompt": "Write."},
    )
    assert hive.last(TaskReady).workspace == {"path": "w"}
    hive.when(TaskReturned(task_id="lint"))
    merged(drone_done(hive))
    assert hive.last(TaskReady).workspace == {"path": "w", "integration": True, "base": "m1"}
    hive.when(TaskReturned(task_id="test"))
    assert hive.last(DroneBuzzed).workspace["base"] == "m1"


def test_a_run_of_commands_alone_hands_nothing_over() -> None:
    """It works in the workspace itself, also where that is a git repository."""
    hive = started({"id": "a", "run": "a"}).when(TaskReturned(task_id="a"))
    assert hive.last(TaskReady).workspace == {"path": "w"}
    assert not hive.all(ToolRequested)


def test_a_drone_without_a_git_workspace_is_done_when_it_says_so() -> None:
    """Nothing is merged or handed over."""
    hive = started(FIX, workspace={})
    assert hive.last(DroneBuzzed).workspace == {}
    assert drone_done(hive, commit=None).topics[-1] == "workflow.completed"


def drone_failed(hive: Hive, *, at: int = 1, reason: str = "too many turns") -> Hive:
    """The drone of a try gives up."""
    event = DroneFailed(drone_id=f"fix.{at}", task_id="fix", try_number=at, reason=reason)
    return hive.given(event, stream=f"drone/fix.{at}")


def test_a_failed_drone_uses_up_a_retry_and_starts_from_the_tip_again() -> None:
    """After the backoff, which is a timer; nothing of the failed try is kept."""
    hive = drone_failed(started(FIX | {"retries": 1, "backoff": "3s"}))
    assert (hive.last(TimerSet).seconds, hive.last(DroneHatched).drone_id) == (3.0, "fix.1")
    hive.when(TimerFired(timer_id="fix.2"))
    assert (hive.last(DroneHatched).drone_id, hive.last(DroneBuzzed).workspace["base"]) == ("fix.2", "c0")
    assert drone_failed(hive, at=2, reason="again").last(TaskFailed).reason == "again"


def test_a_drone_that_fails_while_reworking_does_not_lose_the_work_or_the_comments() -> None:
    """The next try builds on the same commit and reads the same comments."""
    hive = verdict(
        reviewed(started(FIX | {"review": True, "retries": 1, "backoff": 0})), "changes_requested", "Test it."
    )
    drone_failed(hive, at=2)
    assert hive.last(DroneBuzzed).workspace["base"] == "c1"
    assert "Test it." in hive.last(DroneBuzzed).prompt


def test_a_rework_that_changes_nothing_keeps_what_was_there() -> None:
    """The drone convinced the reviewer with words: the commit of the try before is what is merged."""
    hive = verdict(reviewed(started(FIX | {"review": True})), "changes_requested", "Why?")
    drone_done(hive, at=2, commit=None, output="Because.")
    hive.when(ToolReturned(output="+ a"), ends=open_tool(hive, "workspace.diff"))
    assert verdict(hive, "approved").last(ToolRequested).input["commit"] == "c1"


def test_a_drone_that_takes_too_long_is_asked_to_stop_and_the_task_fails() -> None:
    """The timer is set with the drone; an answer that comes first counts."""
    hive = started(FIX | {"timeout": "1m"})
    assert hive.last(TimerSet).seconds == 60.0
    hive.when(TimerFired(timer_id="fix.1"))
    assert hive.last(DroneInterruptRequested).reason == "no result within 60.0 s"
    hive.given(DroneInterrupted(drone_id="fix.1", task_id="fix", try_number=1), stream="drone/fix.1")
    assert hive.last(TaskFailed).reason == "no result within 60.0 s"


def test_a_result_that_comes_while_the_drone_is_stopped_is_taken() -> None:
    """The drone was done before it heard of the request."""
    hive = drone_done(started(FIX).when(TimerFired(timer_id="fix.1")))
    assert hive.last(ToolRequested).tool == "workspace.integrate"


def test_the_timer_of_a_drone_that_is_done_is_called_off() -> None:
    """It would fire into another try."""
    hive = drone_done(started(FIX))
    assert hive.last(TimerCancelRequested).intent_id == hive.open_of(TimerSet)[0].event_id
    hive.cancelled(hive.open_of(TimerSet)[0])
    assert merged(hive).last(TaskCompleted).task_id == "fix"


def test_a_drone_that_a_person_interrupts_fails_its_task() -> None:
    """The person wanted it to stop, not to be tried again."""
    hive = started(FIX | {"retries": 3})
    hive.given(DroneInterruptRequested(drone_id="fix.1", reason="enough"), stream="drone/fix.1")
    hive.given(DroneInterrupted(drone_id="fix.1", task_id="fix", try_number=1, reason="enough"), stream="drone/fix.1")
    assert hive.last(TaskFailed).reason == "enough"


def test_a_repaired_failure_counts_as_success_for_those_after_it() -> None:
    """The example of the workflow file: test fails, fix repairs it, build and ship go on, and the run completes."""
    hive = started(
        {"id": "test", "run": "pytest"},
        {"id": "fix", "needs": ["test"], "when": "failed('test')", "prompt": "Mend: {{ steps.test.output }}"},
        {"id": "build", "needs": ["test"], "run": "build"},
        {"id": "notify", "needs": ["test"], "when": "failed()", "run": "mail"},
    )
    hive.when(TaskReturned(task_id="test", outcome="failed", output="1 failed"))
    assert hive.last(DroneBuzzed).prompt == "Mend: 1 failed"
    assert [ready.task_id for ready in hive.all(TaskReady)] == ["test", "fix"]
    merged(drone_done(hive))
    assert hive.last(TaskReady).task_id == "build"
    assert hive.last(TaskReady).workspace["integration"] is True
    assert hive.last(TaskSkipped).task_id == "notify"
    hive.when(TaskReturned(task_id="build")).when(ToolReturned(data={"commit": "m1"}))
    assert hive.topics[-1] == "workflow.completed"


def test_a_repair_that_fails_leaves_the_run_failed() -> None:
    """Broken differently, the same workflow ends as failed."""
    hive = started(
        {"id": "test", "run": "pytest"},
        {"id": "fix", "needs": ["test"], "when": "failed('test')", "prompt": "Mend."},
        {"id": "build", "needs": ["test"], "run": "build"},
    )
    hive.when(TaskReturned(task_id="test", outcome="failed", exit_code=1))
    hive.given(DroneFailed(drone_id="fix.1", task_id="fix", try_number=1, reason="no idea"), stream="drone/fix.1")
    assert hive.last(TaskSkipped).reason == "needs test, which failed"
    assert hive.last(WorkflowFailed).reason == "test: exit code 1; fix: no idea"


def test_a_repair_that_is_not_needed_is_skipped_and_holds_nobody_up() -> None:
    """The step after it starts in the same decision."""
    hive = started(
        {"id": "test", "run": "pytest"},
        {"id": "fix", "needs": ["test"], "when": "failed('test')", "prompt": "Mend."},
        {"id": "build", "needs": ["test"], "run": "build"},
    )
    hive.when(TaskReturned(task_id="test"))
    assert hive.last(TaskReady).task_id == "build"


def test_a_run_whose_branch_cannot_be_handed_over_fails_and_says_where_the_work_lies() -> None:
    """Nothing is lost: the commit is named."""
    hive = merged(drone_done(started(FIX))).when(ToolFailed(reason="locked"))
    assert hive.last(WorkflowFailed).reason == "the branch could not be handed over: locked; the result is commit m1"


def test_a_paused_run_starts_no_review_and_no_merge() -> None:
    """What was under way ends; the next step waits for the resumption."""
    hive = started(FIX).given(WorkflowPauseRequested())
    drone_done(hive)
    assert not hive.all(ToolRequested)
    assert hive.given(WorkflowResumeRequested()).last(ToolRequested).tool == "workspace.integrate"
