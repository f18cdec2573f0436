"""How events about tasks move a run: created, started, ended, retried, reviewed.

A part of the queen's ``evolve``. Owns the order in which tasks become ready: whoever
waited only for the one that ended is judged at once. It must not know intents' ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agents.plan import repairs
from agents.run_conditions import opened
from agents.run_state import NOTHING, Fold, OpenIntent, Phase, Result, Run, Task, changed
from agents.workflows.references import StepView
from hive_bus.brains.brain import Input
from hive_bus.event import Event
from hive_bus.events import task

__all__ = ["TASK_STEPS"]


def _created(run: Run, event: task.TaskCreated, _record: Input) -> Run:
    after = tuple((event.model_extra or {}).get("after", ()))
    before = (*event.needs, *after)
    dependants = run.dependants
    if before:
        dependants = dependants.copy()
        for name in before:
            dependants[name] = (*dependants.get(name, ()), event.task_id)
    repairers = run.repairers
    for broken in repairs(event.spec):
        repairers = {**repairers, broken: (*repairers.get(broken, ()), event.task_id)}
    created = Task(
        id=event.task_id,
        index=len(run.tasks),
        spec=event.spec,
        needs=event.needs,
        after=after,
        priority=event.spec.get("priority", 5),
        waits=len(before),
    )
    views = run.views.copy()
    views[created.id] = _PENDING
    run = run.put(created, phase="running", plan=(), views=views, dependants=dependants, repairers=repairers)
    return run if before else opened(run, created)


_PENDING: Final = StepView()


def _ready(run: Run, event: task.TaskReady, record: Input) -> Run:
    found = run.tasks.get(event.task_id)
    if found is None:
        return run
    prompt = event.kind == "prompt"
    ready = changed(
        found,
        phase="droning" if prompt else "ready",
        try_number=event.try_number,
        tried=event.try_number,
        base=event.workspace.get("base"),
        origin=found.origin if found.base else event.workspace.get("base"),
        commit=None,
        result=NOTHING,
        merge=NOTHING,
        verdict="",
        timer="",
        timed_out=False,
    )
    if prompt:
        return run.put(changed(ready, hatched_in=record.correlation_id), drones=True)
    asked = OpenIntent(
        kind="task", run=record.correlation_id, task_id=found.id, delay=event.delay, at=record.occurred_at
    )
    intents = {**run.intents, record.event_id: asked}
    return run.put(ready, intents=intents)


def _returned(run: Run, event: task.TaskReturned, record: Input) -> Run:
    intent = run.intents.get(record.causation_id or "")
    if intent is None or intent.kind != "task":
        return run
    result = Result(
        outcome=event.outcome,
        output=event.output,
        reason=event.reason or event.error,
        exit_code=event.exit_code,
        data=event.data,
        commit=event.commit,
    )
    run = run.closed(record.causation_id or "")
    return run.put(changed(run.tasks[intent.task_id], phase="returned", result=result))


def _completed(run: Run, event: task.TaskCompleted, _record: Input) -> Run:
    view = StepView(status="completed", output=event.output, exit_code=event.exit_code)
    return _close(run, event.task_id, "completed", view)


def _failed(run: Run, event: task.TaskFailed, _record: Input) -> Run:
    view = StepView(status="failed", output=event.output, exit_code=event.exit_code)
    return _close(run, event.task_id, "failed", view, reason=event.reason)


def _skipped(run: Run, event: task.TaskSkipped, _record: Input) -> Run:
    return _close(run, event.task_id, "skipped", StepView(status="skipped"), reason=event.reason)


def _cancelled(run: Run, event: task.TaskCancelled, _record: Input) -> Run:
    return _close(run, event.task_id, "cancelled", StepView(status="cancelled"), reason=event.reason)


def _close(run: Run, name: str, phase: Phase, view: StepView, *, reason: str = "") -> Run:
    """End a task; what waited only for it is judged at once."""
    ended = changed(run.tasks[name], phase=phase, reason=reason, result=NOTHING, diff="", comments=())
    views = run.views.copy()
    views[name] = view
    run = run.put(ended, views=views)
    for waiting in run.dependants.get(name, ()):
        task_ = run.tasks[waiting]
        if task_.phase == "pending":
            one_less = changed(task_, waits=task_.waits - 1)
            run = opened(run, one_less) if one_less.waits == 0 else run.put(one_less)
    return run


def _retried(run: Run, event: task.TaskRetried, _record: Input) -> Run:
    found = run.tasks.get(event.task_id)
    if found is None:
        return run
    if run.retries:
        run = changed(run, retries=tuple(wish for wish in run.retries if wish[0] != found.id))
    new = changed(
        found, try_number=event.try_number, delay=event.delay, comments=event.comments, reason="", result=NOTHING
    )
    match found.phase:
        case "returned":
            return run.put(changed(new, phase="again", failures=found.failures + 1, base=found.built_upon))
        case "judged":
            return run.put(changed(new, phase="again", round=found.round + 1, base=found.commit))
        case "merged":
            return run.put(changed(new, phase="again", round=found.round + 1, base=None))
        case "rerun":
            return run.put(changed(new, phase="queued", base=None))
        case _ if found.ended:
            return _reopened(run, changed(new, **_AFRESH))
        case _:
            return run


def _reopened(run: Run, again: Task) -> Run:
    """A person's retry: the task may start again once what it needs has ended; what was passed over waits for it anew."""
    asked = bool(again.spec.get("approval")) and run.approve == "ask"
    views = run.views.copy()
    views[again.id] = _PENDING
    waits = sum(not run.tasks[before].ended for before in (*again.needs, *again.after))
    phase: Phase = "pending" if waits else "ask" if asked else "queued"
    run = run.put(changed(again, phase=phase, waits=waits), views=views)
    names = [name for name in run.descendants(again) if run.tasks[name].phase in _UNTOUCHED]
    for name in names:
        waiting = _anew(run.tasks[name])
        run = run.put(changed(waiting, phase="pending", reason=""), views={**run.views, name: _PENDING})
    for name in names:
        found = run.tasks[name]
        waits = sum(not run.tasks[before].ended for before in (*found.needs, *found.after))
        one = changed(found, waits=waits)
        run = run.put(one) if waits else opened(run, one)
    return run


_AFRESH: Final[Mapping[str, Any]] = {"failures": 0, "round": 1, "base": None, "commit": None}


def _anew(task_: Task) -> Task:
    """A task that waits once more: a try that a cancellation cut off is over, and no drone is hatched twice."""
    if not task_.tried:
        return task_
    return changed(task_, try_number=max(task_.try_number, task_.tried + 1), delay=0.0, **_AFRESH)


_UNTOUCHED: Final = frozenset({"skipped", "cancelled", "pending", "queued", "ask", "skip", "broken"})


def _retry_requested(run: Run, event: task.TaskRetryRequested, _record: Input) -> Run:
    found = run.tasks.get(event.task_id)
    if found is None or found.phase not in ("failed", "skipped", "cancelled"):
        return run
    if run.phase != "ended" and (run.cancelling or run.phase != "running"):
        return run
    return changed(run, retries=(*run.retries, (event.task_id, event.reason)))


def _review_requested(run: Run, event: task.TaskReviewRequested, _record: Input) -> Run:
    return run.put(changed(run.tasks[event.task_id], phase="judging"))


def _review_completed(run: Run, event: task.TaskReviewCompleted, _record: Input) -> Run:
    found = run.tasks.get(event.task_id)
    if found is None or found.phase != "judging":
        return run
    if (event.try_number, event.round) != (found.try_number, found.round):
        return run
    return run.put(changed(found, phase="judged", verdict=event.verdict, comments=event.comments))


TASK_STEPS: Final[Mapping[type[Event], Fold]] = {
    task.TaskCreated: _created,
    task.TaskReady: _ready,
    task.TaskReturned: _returned,
    task.TaskCompleted: _completed,
    task.TaskFailed: _failed,
    task.TaskSkipped: _skipped,
    task.TaskCancelled: _cancelled,
    task.TaskRetried: _retried,
    task.TaskRetryRequested: _retry_requested,
    task.TaskReviewRequested: _review_requested,
    task.TaskReviewCompleted: _review_completed,
}
