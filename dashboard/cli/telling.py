"""What happens in a run, told in a line: which events are worth one while it goes on, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from dashboard.cli.text import Line, cut, sign, style_of
from dashboard.views.open_span import first_line

if TYPE_CHECKING:
    from dashboard.views import RunView
    from hive_bus import Record

Body = dict[str, Any]
Told = tuple[str, str]
"""What is said, and its style; who it is about is the task, else the family of the topic."""


def line_of(record: Record, run: RunView, *, width: int) -> Line | None:
    """What happened, on one line; None for what is of no interest while it goes on."""
    tell = _TELLS.get(record.topic)
    data = record.data if isinstance(record.data, dict) else {}
    told = tell(record, data, run) if tell is not None else None
    if told is None:
        return None
    what, style = told
    who = str(data.get("task_id") or "") or {"workflow": "run"}.get(record.topic.partition(".")[0], "run")
    since = f"{(record.recorded_at - run.requested_at) / 1_000_000:7.1f} s  "
    room = max(width - len(since) - max(len(who), 12) - 2, 20)
    return [(since, "dim"), (f"{who:<12}  ", "bold"), (cut(what, room), style)]


def _word(record: Record) -> str:
    return record.topic.rpartition(".")[2]


def _because(data: Body) -> str:
    reason = first_line(data.get("reason"))
    return f": {reason}" if reason else ""


def _requested(_: Record, __: Body, run: RunView) -> Told:
    return f"{run.id}: {cut(run.title, 60)}", "bold"


def _forked(record: Record, data: Body, _: RunView) -> Told:
    return f"{record.correlation_id}: goes on from {data.get('parent')} at {data.get('position')}", "bold"


def _planned(_: Record, data: Body, __: RunView) -> Told | None:
    """Tasks of a goal are news; those of a file its author knows."""
    if not data.get("name") or data["name"] == data.get("task_id"):
        return None
    needs = f" (needs {', '.join(data['needs'])})" if data.get("needs") else ""
    return f"planned: {data['name']}{needs}", ""


def _refused(_: Record, data: Body, __: RunView) -> Told:
    return f"the plan is refused: {first_line('; '.join(data.get('reasons') or ()))}", "yellow"


def _assigned(_: Record, data: Body, __: RunView) -> Told:
    again = int(data.get("try_number") or 1)
    return f"starts, try {again}" if again > 1 else "starts", ""


def _attempt_failed(record: Record, data: Body, _: RunView) -> Told:
    return f"{record.topic.partition('.')[0]} attempt failed{_because(data)}", "yellow"


def _tool_returned(_: Record, data: Body, run: RunView) -> Told | None:
    """A tool of a drone, and how it went; what it was called with is the task's activity still."""
    tool = str(data.get("tool") or "")
    task = next((one for one in run.tasks if one.id == data.get("task_id")), None)
    if task is None or tool.startswith("workspace."):
        return None
    what = task.activity if task.activity.startswith(tool) else tool
    if not data.get("is_error"):
        return what, ""
    code = data.get("exit_code")
    return f"{what}: {first_line(data.get('output')) if code is None else f'exit code {code}'}", "yellow"


def _reviewed(_: Record, data: Body, __: RunView) -> Told:
    verdict = str(data.get("verdict") or "").replace("_", " ")
    comments = first_line("; ".join(data.get("comments") or ()))
    return f"reviewer: {verdict}{f': {comments}' if comments else ''}", style_of(verdict)


def _retried(_: Record, data: Body, __: RunView) -> Told:
    return f"again{_because(data)}", "yellow"


def _task_ended(record: Record, data: Body, _: RunView) -> Told:
    word = _word(record)
    note = first_line(data.get("reason")) or first_line(data.get("output"))
    return f"{sign(word)[0]} {word}{f': {note}' if note else ''}", style_of(word)


def _asked(_: Record, data: Body, __: RunView) -> Told:
    return f"asks: {first_line(data.get('question'))}", "bold yellow"


def _answered(record: Record, data: Body, _: RunView) -> Told:
    words = {"granted": "approved", "denied": "denied", "expired": "nobody answered in time"}
    by = f" by {data['by']}" if data.get("by") else ""
    comment = f": {first_line(data['comment'])}" if data.get("comment") else ""
    return f"{words[_word(record)]}{by}{comment}", style_of(_word(record))


def _run_word(record: Record, data: Body, _: RunView) -> Told:
    words = {"cancel_requested": "is asked to stop", "paused": "pauses", "resumed": "goes on"}
    return f"{words[_word(record)]}{_because(data)}", "yellow"


def _labelled(_: Record, data: Body, __: RunView) -> Told:
    return f"position {data.get('position')} is labelled {data.get('label')}", ""


def _alert(_: Record, data: Body, __: RunView) -> Told:
    return first_line(data.get("message")), "bold yellow"


_TELLS: Final[dict[str, Callable[[Record, Body, RunView], Told | None]]] = {
    "workflow.requested": _requested,
    "workflow.forked": _forked,
    "workflow.plan_rejected": _refused,
    "workflow.cancel_requested": _run_word,
    "workflow.paused": _run_word,
    "workflow.resumed": _run_word,
    "workflow.labelled": _labelled,
    "task.created": _planned,
    "task.assigned": _assigned,
    "task.attempt_failed": _attempt_failed,
    "model.attempt_failed": _attempt_failed,
    "tool.attempt_failed": _attempt_failed,
    "tool.returned": _tool_returned,
    "task.review_completed": _reviewed,
    "task.retried": _retried,
    "task.completed": _task_ended,
    "task.failed": _task_ended,
    "task.skipped": _task_ended,
    "task.cancelled": _task_ended,
    "approval.requested": _asked,
    "approval.granted": _answered,
    "approval.denied": _answered,
    "approval.expired": _answered,
    "system.alert_raised": _alert,
}
