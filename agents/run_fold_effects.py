"""How the ends of the queen's own intents move a run: answers, tools, timers; and what drones report.

A part of the queen's ``evolve``. Owns which open intent a result belongs to: the one
whose event id is its cause. A result without an open intent came too late and moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from agents.run_state import Fold, OpenIntent, Phase, Result, Run, Task, changed
from hive_bus.brains.brain import Input
from hive_bus.event import Event
from hive_bus.events import approval, drone, task, timer, tool

__all__ = ["EFFECT_STEPS"]


def _asked(record: Input, kind: str, task_id: str, what: str, *, delay: float = 0.0) -> OpenIntent:
    run, at = record.correlation_id, record.occurred_at
    return OpenIntent(kind=kind, run=run, task_id=task_id, what=what, delay=delay, at=at)


def _approval_requested(run: Run, event: approval.ApprovalRequested, record: Input) -> Run:
    if record.stream != "run" or event.task_id not in run.tasks:
        return run
    found = run.tasks[event.task_id]
    phase: Phase = "doubtful" if event.reason == "unknown" else "asking"
    run = run.opened(record.event_id, _asked(record, "approval", found.id, event.approval_id))
    return run.put(changed(found, phase=phase, question=event.approval_id))


def _granted(run: Run, event: approval.ApprovalGranted, record: Input) -> Run:
    return _answered(run, record, event.approval_id, granted=True, reason="")


def _denied(run: Run, event: approval.ApprovalDenied, record: Input) -> Run:
    who = f" by {event.by}" if event.by else ""
    why = f": {event.comment}" if event.comment else ""
    return _answered(run, record, event.approval_id, granted=False, reason=f"approval denied{who}{why}")


def _expired(run: Run, event: approval.ApprovalExpired, record: Input) -> Run:
    return _answered(run, record, event.approval_id, granted=False, reason="nobody approved it in time")


def _question_moot(run: Run, event: Any, record: Input) -> Run:
    return _answered(run, record, "", granted=False, reason=f"approval ended: {event.reason or 'cancelled'}")


def _answered(run: Run, record: Input, approval_id: str, *, granted: bool, reason: str) -> Run:
    """An answer to an open question; one that comes before its question is kept for it.

    What a person said in the parent of a branch is not said of the branch, which asks again.
    """
    if record.correlation_id != run.id:
        return run
    key = record.causation_id or ""
    if key not in run.intents:
        key = next((name for name, intent in run.intents.items() if approval_id and intent.what == approval_id), "")
    intent = run.intents.get(key)
    if intent is None or intent.kind != "approval":
        return changed(run, answers={**run.answers, approval_id: granted}) if approval_id else run
    run = run.closed(key)
    found = run.tasks[intent.task_id]
    doubtful = found.phase == "doubtful"
    phase: Phase = "broken" if not granted else "rerun" if doubtful else "queued"
    waits = 0 if doubtful else sum(not run.tasks[name].ended for name in (*found.needs, *found.after))
    if granted and waits:  # what it needs was taken up again meanwhile: the answer is kept until that has ended
        answers = {**run.answers, found.question: True}
        return run.put(changed(found, phase="pending", waits=waits), answers=answers)
    if doubtful and reason:
        reason = f"{reason}; the last try may have run, in part or in full"
    return run.put(changed(found, phase=phase, reason=reason))


def _tool_requested(run: Run, event: tool.ToolRequested, record: Input) -> Run:
    if record.stream != "run":
        return run
    run = run.opened(record.event_id, _asked(record, "tool", event.task_id, event.tool))
    match event.tool:
        case "workspace.diff":
            return run.put(changed(run.tasks[event.task_id], phase="inspecting"))
        case "workspace.integrate":
            return run.put(changed(run.tasks[event.task_id], phase="merging"), merging=True)
        case _:
            return changed(run, phase="finishing")


def _tool_returned(run: Run, event: tool.ToolReturned, record: Input) -> Run:
    outcome = "failed" if event.is_error else "completed"
    return _own_tool_ended(run, record, Result(outcome=outcome, output=event.output, data=event.data))


def _tool_failed(run: Run, event: Any, record: Input) -> Run:
    reason = event.reason or "it was cancelled"
    return _own_tool_ended(run, record, Result(outcome="failed", output=reason, reason=reason))


def _own_tool_ended(run: Run, record: Input, result: Result) -> Run:
    key = record.causation_id or ""
    intent = run.intents.get(key)
    if intent is None or intent.kind != "tool":
        return run
    run = run.closed(key)
    match intent.what:
        case "workspace.diff":
            unread = f"(the changes could not be read: {result.output})"
            text = result.output if result.outcome == "completed" else unread
            return run.put(changed(run.tasks[intent.task_id], phase="judge", diff=text))
        case "workspace.integrate":
            head = result.data.get("head") if isinstance(result.data, dict) else None
            found = changed(run.tasks[intent.task_id], phase="merged", merge=result)
            return run.put(found, merging=False, head=head or run.head)
        case _:
            return changed(run, phase="finished", finish=result)


def _drones_task(run: Run, event: Any) -> Task | None:
    found = run.tasks.get(event.task_id)
    at_work = found is not None and found.phase in ("droning", "overdue", "stopping")
    return found if found is not None and at_work and found.try_number == event.try_number else None


def _drone_completed(run: Run, event: drone.DroneCompleted, _record: Input) -> Run:
    found = _drones_task(run, event)
    if found is None:
        return run
    # A drone that changes nothing leaves what the try before it left.
    commit = event.commit or found.built_upon
    result = Result(output=event.output, commit=commit)
    return run.put(changed(found, phase="inspect", result=result, commit=commit))


def _drone_failed(run: Run, event: drone.DroneFailed, _record: Input) -> Run:
    found = _drones_task(run, event)
    if found is None:
        return run
    return run.put(changed(found, phase="returned", result=Result(outcome="failed", reason=event.reason)))


def _drone_interrupted(run: Run, event: drone.DroneInterrupted, _record: Input) -> Run:
    found = _drones_task(run, event)
    if found is None:
        return run
    late = found.timed_out
    reason = f"no result within {found.spec.get('timeout')} s" if late else event.reason or "interrupted"
    result = Result(outcome="failed" if late else "cancelled", reason=reason)
    return run.put(changed(found, phase="returned", result=result))


def _interrupt_requested(run: Run, _event: drone.DroneInterruptRequested, record: Input) -> Run:
    found = run.tasks.get(record.stream.removeprefix("drone/").rpartition(".")[0])
    if found is None or found.phase not in ("droning", "overdue") or record.stream != f"drone/{found.drone_id}":
        return run
    return run.put(changed(found, phase="stopping"))


def _timer_set(run: Run, event: timer.TimerSet, record: Input) -> Run:
    found = run.tasks.get(event.timer_id.rpartition(".")[0])
    if record.stream != "run" or found is None:
        return run
    run = run.opened(record.event_id, _asked(record, "timer", found.id, event.timer_id, delay=event.seconds))
    resting = found.phase == "again"
    phase: Phase = "resting" if resting else found.phase
    return run.put(changed(found, phase=phase, timer=record.event_id, delay=0.0 if resting else found.delay))


def _timer_fired(run: Run, _event: timer.TimerFired, record: Input) -> Run:
    run, found = _timer_over(run, record)
    if found is not None and found.phase == "resting":
        return run.put(changed(found, phase="again"))
    if found is None or found.phase != "droning":
        return run
    return run.put(changed(found, phase="overdue", timed_out=True))


def _timer_cancelled(run: Run, _event: Any, record: Input) -> Run:
    return _timer_over(run, record)[0]


def _timer_over(run: Run, record: Input) -> tuple[Run, Task | None]:
    key = record.causation_id or ""
    intent = run.intents.get(key)
    if intent is None or intent.kind != "timer":
        return run, None
    run = run.closed(key)
    found = run.tasks[intent.task_id]
    if found.timer != key:
        return run, None
    over = changed(found, timer="")
    return run.put(over), over


def _cancel_asked(run: Run, event: Any, _record: Input) -> Run:
    intent = run.intents.get(event.intent_id)
    if intent is None:
        return run
    run = run.opened(event.intent_id, replace(intent, asked_to_end=True))
    if intent.kind == "timer" and run.tasks[intent.task_id].timer == event.intent_id:
        return run.put(changed(run.tasks[intent.task_id], timer=""))
    return run


EFFECT_STEPS: Final[Mapping[type[Event], Fold]] = {
    task.TaskCancelRequested: _cancel_asked,
    approval.ApprovalRequested: _approval_requested,
    approval.ApprovalGranted: _granted,
    approval.ApprovalDenied: _denied,
    approval.ApprovalExpired: _expired,
    approval.ApprovalCancelled: _question_moot,
    approval.ApprovalCancelRequested: _cancel_asked,
    tool.ToolRequested: _tool_requested,
    tool.ToolReturned: _tool_returned,
    tool.ToolFailed: _tool_failed,
    tool.ToolCancelled: _tool_failed,
    tool.ToolCancelRequested: _cancel_asked,
    drone.DroneCompleted: _drone_completed,
    drone.DroneFailed: _drone_failed,
    drone.DroneInterrupted: _drone_interrupted,
    drone.DroneInterruptRequested: _interrupt_requested,
    timer.TimerSet: _timer_set,
    timer.TimerFired: _timer_fired,
    timer.TimerCancelled: _timer_cancelled,
    timer.TimerCancelRequested: _cancel_asked,
}
