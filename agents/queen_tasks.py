"""How a single task goes on: from its release to its end, through drone, review and merge.

Owns one small function for each phase that needs a decision. Which events move a
task into a phase is ``run_fold``'s; when a run starts and ends is ``queen``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from agents.prompts import CONFLICT, drone_prompt, drone_system
from agents.queen_turn import Turn
from agents.run_conditions import question_id
from agents.run_fold_branch import UNSAFE
from agents.run_state import Run, Task
from agents.workflows.workflow import Step
from hive_bus.codec import encode
from hive_bus.effects import EffectClass
from hive_bus.events.approval import ApprovalRequested
from hive_bus.events.drone import DroneBuzzed, DroneHatched, DroneInterruptRequested, DroneResumed
from hive_bus.events.task import (
    TaskAssigned,
    TaskCompleted,
    TaskFailed,
    TaskReady,
    TaskRetried,
    TaskReviewRequested,
    TaskSkipped,
)
from hive_bus.events.timer import TimerCancelRequested, TimerSet
from hive_bus.events.tool import ToolRequested
from hive_errors import PayloadRefused, TemplateError

__all__ = ["REVIEW_ROUNDS", "advance", "interrupt", "release", "wake"]

REVIEW_ROUNDS: Final = 3
_STARTING: Final = frozenset({"ask", "again", "inspect", "judge"})
"""Phases whose next step is new work: not in a paused or cancelled run."""
_LONGEST_BACKOFF: Final = 86_400.0


def advance(turn: Turn) -> None:
    """Take every task that needs a decision as far as it goes without anybody's help."""
    while (task := _next(turn.run)) is not None:
        if _timed(turn.run, task):  # its drone is done
            turn.emit(TimerCancelRequested(intent_id=task.timer, reason="the drone is done"))
        else:
            _ACTS[task.phase](turn, task)


def _next(run: Run) -> Task | None:
    tasks = (run.tasks[name] for name in run.todo)
    return next((task for task in tasks if _timed(run, task) or _may_advance(run, task)), None)


def _timed(run: Run, task: Task) -> bool:
    """Whether a timer of this run, and not of its parent, runs for the task."""
    return bool(task.timer) and not run.stale(task.timer)


def _may_advance(run: Run, task: Task) -> bool:
    if run.cancelling:
        return task.phase == "returned" and task.result.outcome == "completed"
    if run.paused and task.phase in _STARTING:
        return False
    # One merge at a time: each begins at the tip that the one before left.
    return not ((run.merging or run.paused) and _is_to_be_merged(run, task))


def _is_to_be_merged(run: Run, task: Task) -> bool:
    if task.commit is None or not run.in_git:
        return False
    return (task.phase == "judged" and task.verdict == "approved") or (
        task.phase == "inspect" and not _reviewers(run, task)
    )


def release(turn: Turn) -> None:
    """Start queued tasks while there are free places: by priority, then in the order of the plan."""
    while not turn.run.paused and turn.run.queue and turn.run.active < turn.run.max_parallel:
        _start(turn, turn.run.tasks[turn.run.queue[0][2]])
        if turn.run.todo:
            advance(turn)


def interrupt(turn: Turn, task: Task, reason: str) -> None:
    """Ask a task's drone to stop."""
    event = DroneInterruptRequested(drone_id=task.drone_id, reason=reason)
    turn.emit(event, stream=f"drone/{task.drone_id}")


def wake(turn: Turn) -> None:
    """Let the drones go on that a branch has inherited; their timers keep the time they had left."""
    for name, left in turn.run.waking.items():
        task = turn.run.tasks[name]
        turn.emit(DroneResumed(drone_id=task.drone_id), stream=f"drone/{task.drone_id}")
        if left is not None:
            turn.emit(TimerSet(timer_id=task.drone_id, seconds=left, note=f"the timeout of {task.id}"))


def _skip(turn: Turn, task: Task) -> None:
    turn.emit(TaskSkipped(task_id=task.id, reason=task.reason))


def _break(turn: Turn, task: Task) -> None:
    turn.emit(TaskFailed(task_id=task.id, reason=task.reason))


def _ask(turn: Turn, task: Task) -> None:
    step = _rendered(turn, task)
    if step is None:
        return
    asked = step.get("approval")
    question = asked if isinstance(asked, str) else f"May {task.spec.get('name', task.id)} start?"
    turn.emit(ApprovalRequested(approval_id=question_id(task), task_id=task.id, question=question))


def _rendered(turn: Turn, task: Task) -> Mapping[str, Any] | None:
    """The step with its values put in; None when that failed, and the task with it."""
    spec = task.spec
    if not _has_placeholders(spec):
        return spec
    try:
        step = Step.model_validate(spec).rendered(turn.run.scope)
        rendered = step.model_dump(mode="json", by_alias=True, exclude_none=True)
        # A value taken out of JSON may be one that the log refuses.
        encode(TaskReady(task_id=task.id, input=rendered))
    except (TemplateError, PayloadRefused) as error:
        turn.emit(TaskFailed(task_id=task.id, reason=error.message))
        return None
    return rendered


_RENDERED: Final = ("run", "prompt", "approval", "with", "env")


def _has_placeholders(spec: Mapping[str, Any]) -> bool:
    return any(_holds_braces(spec[name]) for name in _RENDERED if name in spec)


def _holds_braces(value: Any) -> bool:
    match value:
        case str():
            return "{{" in value
        case dict():
            return any(_holds_braces(item) for item in value.values())
        case list() | tuple():
            return any(_holds_braces(item) for item in value)
        case _:
            return False


def _start(turn: Turn, task: Task) -> None:
    step = _rendered(turn, task)
    if step is None:
        return
    if task.kind == "prompt":
        if task.delay:  # no queue holds a drone back
            timer = TimerSet(timer_id=task.drone_id, seconds=task.delay, note=f"the backoff of {task.id}")
            turn.emit(timer)
        else:
            _hatch(turn, task, step)
        return
    tool = task.kind == "tool"
    effect = _effect(turn.run, step)
    if turn.run.terms.blocks(effect):
        turn.emit(TaskFailed(task_id=task.id, reason=UNSAFE))
        return
    turn.emit(
        TaskReady(
            task_id=task.id,
            try_number=task.try_number,
            kind="tool" if tool else "run",
            command="" if tool else step["run"],
            tool=step["tool"] if tool else "",
            input=step.get("with", {}) if tool else {},
            env=step.get("env", {}),
            capability=step.get("capability", ""),
            priority=task.priority,
            timeout=step.get("timeout"),
            delay=task.delay,
            effect=effect,
            workspace=_place(turn.run, task),
        )
    )


def _effect(run: Run, step: Mapping[str, Any]) -> EffectClass:
    """The step's word, else its tool's; a command is thought to be safe to repeat unless its author says otherwise."""
    named = step.get("effect")
    if named is None and (tool := step.get("tool")) is not None:
        manifest = next((manifest for manifest in run.tools if manifest.get("name") == tool), {})
        named = manifest.get("effect") or ("pure" if tool == "noop" else None)
    return EffectClass(named or "idempotent")


def _place(run: Run, task: Task) -> dict[str, Any]:
    """Where a command runs: the workspace itself, or the run's own branch once drones have worked for it.

    In a branch always the latter: the workspace has gone on since, perhaps with what came of the parent.
    """
    if not run.workspace:
        return {}
    place = {"path": run.workspace.get("path", "")}
    if run.in_git and (task.in_integration or run.terms.branch):
        begins = {"tip": run.tip} if run.terms.branch else {}
        return {**place, "integration": True, "base": run.tip, **begins}
    return place


def _hatch(turn: Turn, task: Task, step: Mapping[str, Any]) -> None:
    run, drone_id = turn.run, task.drone_id
    workspace: dict[str, Any] = {"path": run.workspace["path"]} if run.workspace.get("path") else {}
    if run.in_git:
        workspace["base"] = task.base or run.tip
    prompt = drone_prompt(task, step["prompt"])
    timeout = step.get("timeout")
    ready = TaskReady(
        task_id=task.id,
        try_number=task.try_number,
        kind="prompt",
        input={"prompt": prompt},
        capability=step.get("capability", ""),
        priority=task.priority,
        timeout=timeout,
        delay=task.delay,
        workspace=workspace,
    )
    wanted = step.get("tools")
    tools = run.terms.marked(tuple(tool for tool in run.tools if wanted is None or tool.get("name") in wanted))
    turn.emit(ready)
    turn.emit(TaskAssigned(task_id=task.id, try_number=task.try_number, assignee=drone_id))
    hatched = DroneHatched(
        drone_id=drone_id,
        task_id=task.id,
        try_number=task.try_number,
        model=run.terms.model("drone", step.get("model") or run.model),
        system=run.terms.prompt("drone", drone_system(run.goal, in_workspace=bool(workspace))),
        tools=tools,
        capability=step.get("capability", ""),
        priority=task.priority,
    )
    turn.emit(hatched, stream=f"drone/{drone_id}")
    turn.emit(DroneBuzzed(drone_id=drone_id, prompt=prompt, workspace=workspace), stream=f"drone/{drone_id}")
    if timeout:
        turn.emit(TimerSet(timer_id=drone_id, seconds=timeout, note=f"the timeout of {task.id}"))


def _overdue(turn: Turn, task: Task) -> None:
    interrupt(turn, task, f"no result within {task.spec.get('timeout')} s")


def _returned(turn: Turn, task: Task) -> None:
    result = task.result
    match result.outcome:
        case "completed":
            _complete(turn, task)
        case "unknown":
            _doubt(turn, task)
        case "failed" if task.failures < task.spec.get("retries", 0):
            delay = min(task.spec.get("backoff", 1.0) * 2.0**task.failures, _LONGEST_BACKOFF)
            turn.emit(
                TaskRetried(
                    task_id=task.id,
                    try_number=task.try_number + 1,
                    reason=_why(task),
                    comments=task.comments,
                    delay=delay,
                )
            )
        case _:
            _fail(turn, task, _why(task))


def _why(task: Task) -> str:
    result = task.result
    if result.reason:
        return result.reason
    if result.exit_code is not None:
        return f"exit code {result.exit_code}"
    return result.outcome


def _doubt(turn: Turn, task: Task) -> None:
    if turn.run.approve == "none":
        _fail(turn, task, "it may have run, in part or in full, and the run was started without approvals")
        return
    question = (
        f"{task.id} may have run, in part or in full: nobody saw it end ({_why(task)}). Approve to run it again, "
        "deny to let it fail."
    )
    asked = ApprovalRequested(
        approval_id=question_id(task, unknown=True), task_id=task.id, question=question, reason="unknown"
    )
    turn.emit(asked)


def _rerun(turn: Turn, task: Task) -> None:
    turn.emit(TaskRetried(task_id=task.id, try_number=task.try_number + 1, reason="a person let it run again"))


def _complete(turn: Turn, task: Task, *, commit: str | None = None) -> None:
    result = task.result
    done = TaskCompleted(
        task_id=task.id, output=result.output, exit_code=result.exit_code, data=result.data, commit=commit
    )
    turn.emit(done)


def _fail(turn: Turn, task: Task, reason: str) -> None:
    result = task.result
    turn.emit(TaskFailed(task_id=task.id, reason=reason, output=result.output, exit_code=result.exit_code))


def _reviewers(run: Run, task: Task) -> int:
    """How many must approve: the step's word; in a run made from a goal, one unless the run says none."""
    wanted = int(task.spec.get("review", 0))
    return wanted or int(run.review and not run.definition)


def _inspect(turn: Turn, task: Task) -> None:
    """The drone is done: have its changes read if a reviewer is to see them."""
    run = turn.run
    if not _reviewers(run, task):
        _approve(turn, task)
    elif run.in_git and task.commit is not None:
        given = {"base": task.origin or run.workspace["base"], "commit": task.commit}
        _ask_workspace(turn, task, "workspace.diff", given, EffectClass.PURE)
    else:
        _judge(turn, task)


def _judge(turn: Turn, task: Task) -> None:
    step = _rendered(turn, task)
    if step is None:
        return
    evidence: dict[str, Any] = {"commit": task.commit}
    more: dict[str, Any] = {"votes": _reviewers(turn.run, task)}
    if turn.run.in_git:
        evidence["diff"] = task.diff
    tests = {name: view.output for name, view in turn.run.views.items() if name in task.needs and view.output}
    if tests:
        evidence["needs"] = tests
    turn.emit(
        TaskReviewRequested(
            task_id=task.id,
            try_number=task.try_number,
            round=task.round,
            instructions=step["prompt"],
            output=task.result.output,
            evidence=evidence,
            model=turn.run.terms.model("reviewer", turn.run.model),
            **more,
        )
    )


def _judged(turn: Turn, task: Task) -> None:
    match task.verdict:
        case "approved":
            _approve(turn, task)
        case "changes_requested" if task.round < REVIEW_ROUNDS:
            _rework(turn, task, "the reviewer asks for changes", task.comments)
        case "changes_requested":
            _fail(turn, task, f"the reviewer asked for changes {task.round} times: {' '.join(task.comments)}".strip())
        case _:
            _fail(turn, task, f"the reviewer rejected it: {' '.join(task.comments)}".rstrip(": "))


def _rework(turn: Turn, task: Task, reason: str, comments: tuple[str, ...]) -> None:
    again = TaskRetried(task_id=task.id, try_number=task.try_number + 1, reason=reason, comments=comments)
    turn.emit(again)


def _approve(turn: Turn, task: Task) -> None:
    """Good as it is: merge what it changed, or be done."""
    if not turn.run.in_git or task.commit is None:
        _complete(turn, task)
        return
    given = {"commit": task.commit, "task_id": task.id}
    _ask_workspace(turn, task, "workspace.integrate", given, EffectClass.IDEMPOTENT)


def _ask_workspace(turn: Turn, task: Task, tool: str, given: dict[str, Any], effect: EffectClass) -> None:
    request = ToolRequested(
        tool=tool,
        input=given,
        task_id=task.id,
        try_number=task.try_number,
        effect=effect,
        workspace=turn.run.place,
        priority=task.priority,
    )
    turn.emit(request)


def _merged(turn: Turn, task: Task) -> None:
    merge = task.merge
    data = merge.data if isinstance(merge.data, dict) else {}
    conflicts = [str(name) for name in data.get("conflicts") or ()]
    if conflicts and task.round < REVIEW_ROUNDS:
        _rework(turn, task, "merge conflict", (CONFLICT.format(files=", ".join(conflicts)),))
    elif conflicts:
        _fail(turn, task, f"it conflicts with other tasks' changes in {', '.join(conflicts)}")
    elif merge.outcome == "completed":
        _complete(turn, task, commit=data.get("head") or task.commit)
    else:
        _fail(turn, task, f"the merge failed: {merge.output}")


_ACTS: Final[Mapping[str, Callable[[Turn, Task], None]]] = {
    "skip": _skip,
    "broken": _break,
    "ask": _ask,
    "again": _start,
    "overdue": _overdue,
    "returned": _returned,
    "rerun": _rerun,
    "inspect": _inspect,
    "judge": _judge,
    "judged": _judged,
    "merged": _merged,
}
