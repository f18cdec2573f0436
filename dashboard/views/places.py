"""Which span an event of a run belongs to, and what it does to it: one small function for each topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from dashboard.views.open_span import Open, first_line
from dashboard.views.open_spans import OpenSpans
from hive_bus import Record

if TYPE_CHECKING:
    from dashboard.views.span import Kind


_WORKSPACE: Final = {
    "workspace.diff": "collect the changes",
    "workspace.integrate": "merge into the run's branch",
    "workspace.finish": "hand the branch over",
}


def _requested(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    root = spans.root
    assert root is not None
    root.label = data.get("name") or first_line(data.get("goal") or data.get("prompt")) or record.correlation_id
    return root


def _forked(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    """What was open in the parent when it was forked stays open there; the branch asks for it again."""
    assert spans.root is not None
    left = record._replace(recorded_at=data.get("at") or record.recorded_at)
    for span in {id(span): span for span in spans.owner.values()}.values():
        if span.leaf and span.end is None:
            span.close(left, "left")
    return spans.root


def _run_ended(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    assert spans.root is not None
    spans.root.close(record, record.topic.rpartition(".")[2], first_line(data.get("reason")))
    return spans.root


def _run_resumed(spans: OpenSpans, record: Record, _: dict[str, Any]) -> Open:
    assert spans.root is not None
    spans.root.reopen(record, "running")
    return spans.root


def _plan_requested(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    attempt = int(data.get("attempt") or 1)
    spans.plan = Open("plan", "plan" if attempt == 1 else f"plan, attempt {attempt}", record, spans.root)
    return spans.plan


def _plan_generated(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    plan = spans.plan or spans.root
    assert plan is not None
    tasks = len(data.get("tasks") or ())
    plan.close(
        record, "failed" if data.get("error") else "completed", first_line(data.get("error")) or f"{tasks} tasks"
    )
    return plan


def _plan_rejected(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    plan = spans.plan or spans.root
    assert plan is not None
    plan.close(record, "rejected", first_line("; ".join(data.get("reasons") or ())))
    return plan


def _task_created(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    task = spans.task(str(data["task_id"]), record)
    name = data.get("name")
    task.label = f"{task.task_id}: {name}" if name and name != task.task_id else task.task_id
    return task


def _task_ready(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    task = spans.task(str(data["task_id"]), record)
    number = int(data.get("try_number") or 1)
    task.attempts = max(task.attempts, number)
    task.status = "queued"
    if data.get("kind") == "prompt":
        return spans.attempt(task.task_id, number, record)
    what = first_line(data.get("command")) or str(data.get("tool") or data.get("capability") or "")
    kind: Kind = "tool" if data.get("kind") == "tool" else "command"
    leaf = Open(kind, what, record, task, leaf=True, task_id=task.task_id, try_number=number)
    spans.tries[task.task_id, number] = leaf
    return leaf


def _task_assigned(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    span = spans.attempt(str(data["task_id"]), int(data.get("try_number") or 1), record)
    span.attempts = max(span.attempts, int(data.get("attempt") or 1))
    span.turn("working", record, status="working")
    spans.task(span.task_id, record).status = "working"
    return span


def _task_attempt_failed(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    span = spans.owner.get(record.causation_id or "") or spans.task(str(data["task_id"]), record)
    span.turn("queued", record, status="queued")
    span.note = first_line(data.get("reason"))
    return span


def _task_returned(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    span = spans.attempt(str(data["task_id"]), int(data.get("try_number") or 1), record)
    said = first_line(data.get("reason")) or first_line(data.get("output"))
    span.close(record, str(data.get("outcome") or "completed"), said)
    return span


def _drone_ended(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    span = spans.near(record)
    if span.kind == "try":
        span.close(
            record, record.topic.rpartition(".")[2], first_line(data.get("reason")) or first_line(data.get("output"))
        )
    return span


def _task_ended(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    task = spans.task(str(data["task_id"]), record)
    task.close(record, record.topic.rpartition(".")[2], first_line(data.get("reason")))
    return task


def _task_retried(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    task = spans.task(str(data["task_id"]), record)
    before = spans.tries.get((task.task_id, int(data.get("try_number") or 2) - 1))
    if before is not None and data.get("comments"):
        before.note = first_line(data.get("reason"))
    task.reopen(record, "queued")
    return task


def _review_requested(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    task = spans.task(str(data["task_id"]), record)
    number = int(data.get("round") or 1)
    review = Open("review", f"review {number}", record, task, task_id=task.task_id)
    spans.reviews[task.task_id] = review
    return review


def _review_completed(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    review = spans.reviews.get(str(data["task_id"]))
    if review is None:
        return spans.task(str(data["task_id"]), record)
    verdict = str(data.get("verdict") or "approved")
    review.close(record, verdict.replace("_", " "), first_line("; ".join(data.get("comments") or ())))
    return review


def _model_requested(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    parent = spans.near(record)
    if data.get("role") == "planner":
        parent = spans.plan or parent
    elif data.get("role") == "reviewer" or str(data.get("conversation", "")).startswith("review"):
        parent = spans.reviews.get(str(data.get("task_id") or ""), parent)
    turn = int(data.get("turn") or 1)
    return Open("model", f"model, turn {turn}", record, parent, leaf=True)


def _tool_requested(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    given = data.get("input") if isinstance(data.get("input"), dict) else {}
    tool = str(data.get("tool") or "tool")
    if tool in _WORKSPACE:
        return Open("tool", _WORKSPACE[tool], record, spans.near(record), leaf=True)
    return Open("tool", f"{tool} {_told(given or {})}".rstrip(), record, spans.near(record), leaf=True)


def _told(given: dict[str, Any]) -> str:
    """The argument that says most."""
    for name in ("command", "path", "pattern", "query", "url"):
        if given.get(name):
            return first_line(given[name])
    return first_line(next((value for value in given.values() if isinstance(value, str)), ""))


def _approval_requested(spans: OpenSpans, record: Record, data: dict[str, Any]) -> Open:
    label = first_line(data.get("question")) or "approval"
    span = Open("approval", label, record, spans.near(record), leaf=True, phase="person")
    span.status = "waiting"
    return span


PLACES: Final[dict[str, Callable[[OpenSpans, Record, dict[str, Any]], Open]]] = {
    "workflow.requested": _requested,
    "workflow.forked": _forked,
    "workflow.completed": _run_ended,
    "workflow.failed": _run_ended,
    "workflow.cancelled": _run_ended,
    "workflow.resumed": _run_resumed,
    "workflow.plan_requested": _plan_requested,
    "workflow.plan_generated": _plan_generated,
    "workflow.plan_rejected": _plan_rejected,
    "task.created": _task_created,
    "task.ready": _task_ready,
    "task.assigned": _task_assigned,
    "task.attempt_failed": _task_attempt_failed,
    "task.returned": _task_returned,
    "task.completed": _task_ended,
    "task.failed": _task_ended,
    "task.skipped": _task_ended,
    "task.cancelled": _task_ended,
    "task.retried": _task_retried,
    "task.review_requested": _review_requested,
    "task.review_completed": _review_completed,
    "drone.completed": _drone_ended,
    "drone.failed": _drone_ended,
    "drone.interrupted": _drone_ended,
    "model.requested": _model_requested,
    "tool.requested": _tool_requested,
    "approval.requested": _approval_requested,
}
