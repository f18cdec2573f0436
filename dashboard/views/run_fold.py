"""The fold of a run's records into a :class:`RunView`, in plain log order, one record at a time.

It reads bodies as stored and believes them: a run's own events are written by the hive alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from dashboard.views.cost import CHARGED, FREE, cost_of
from dashboard.views.open_span import first_line
from dashboard.views.run import RUN_ENDS, Question, RunView, TaskView
from hive_bus import Record
from hive_bus.budget import NOTHING, Ledger

_STARTS: Final = ("workflow.requested", "workflow.forked")


class RunFold:
    """Folds one run; ``view`` is the run as of the last record, None before its first."""

    def __init__(self) -> None:
        self.run: RunView | None = None
        self._tasks: dict[str, TaskView] = {}
        self._questions: dict[str, Question] = {}
        self._conversations: dict[str, str] = {}
        self._events = 0
        self._last: Record | None = None

    def add(self, record: Record) -> None:
        """Fold one record; they come in log order."""
        if self.run is None:
            self.run = RunView(
                id=record.correlation_id,
                status="requested",
                position=0,
                events=0,
                requested_at=record.recorded_at,
                metadata=record.metadata,
            )
        self._events += 1
        self._last = record
        fold = _FOLDS.get(record.topic)
        if fold is not None and isinstance(record.data, dict):
            fold(self, record, record.data)

    @property
    def view(self) -> RunView | None:
        """The run as it is now."""
        run, last = self.run, self._last
        if run is None or last is None:
            return None
        tasks, questions = tuple(self._tasks.values()), tuple(self._questions.values())
        working = any(task.status in ("queued", "working", "reviewing", "merging") for task in tasks)
        status = "waiting" if run.status == "running" and questions and not working else run.status
        return replace(
            run,
            tasks=tasks,
            questions=questions,
            status=status,
            position=last.position,
            events=self._events,
            last_at=last.recorded_at,
        )

    # What the folds below change.

    def _change(self, **facts: Any) -> None:
        assert self.run is not None
        self.run = replace(self.run, **facts)

    def _task(self, data: dict[str, Any], **facts: Any) -> None:
        task_id = str(data.get("task_id") or "")
        task = self._tasks.get(task_id)
        if task is None:
            if not task_id:
                return
            task = TaskView(id=task_id, name=task_id, kind="", status="pending")
        self._tasks[task_id] = replace(task, **facts)

    def _requested(self, record: Record, data: dict[str, Any]) -> None:
        workspace = data.get("workspace") if isinstance(data.get("workspace"), dict) else {}
        goal = str(data.get("goal") or data.get("prompt") or "")
        self._change(
            goal=goal,
            name=str(data.get("name") or ""),
            title=str(data.get("name") or "") or first_line(goal),
            model=str(data.get("model") or ""),
            workspace=str((workspace or {}).get("path") or ""),
            base=(workspace or {}).get("base"),
        )

    def _budget(self, record: Record, data: dict[str, Any]) -> None:
        # What the whole hive has used is in another stream.
        if self.run is not None and record.stream == f"{record.correlation_id}/budget":
            ledger = (self.run.budget or Ledger()).after(record)
            self._change(budget=ledger, reason=ledger.exceeded if self.run.status not in RUN_ENDS else self.run.reason)

    def _forked(self, record: Record, data: dict[str, Any]) -> None:
        # What was open in the parent at that moment is asked again here.
        self._questions.clear()
        self._change(
            id=record.correlation_id,
            title=f"branch of {data.get('parent')} at {data.get('position')}",
            parent=str(data.get("parent") or ""),
            forked_at=data.get("position"),
            requested_at=record.recorded_at,
            metadata=record.metadata,
            own_cost=FREE,
        )
        if self.run is not None and self.run.budget is not None:
            # A branch has its parent's limits, and has used nothing of them.
            self._change(budget=replace(self.run.budget, used=NOTHING, open={}))

    def _status(self, record: Record, data: dict[str, Any]) -> None:
        status = {"plan_requested": "planning", "started": "planning", "paused": "paused", "resumed": "running"}
        self._change(status=status[record.topic.rpartition(".")[2]], ended_at=None)

    def _ended(self, record: Record, data: dict[str, Any]) -> None:
        self._questions.clear()
        self._change(
            status=record.topic.rpartition(".")[2],
            ended_at=record.recorded_at,
            reason=str(data.get("reason") or ""),
            output=str(data.get("output") or ""),
            commit=data.get("commit"),
            branch=data.get("branch"),
            merge_command=data.get("merge_command"),
        )

    def _created(self, record: Record, data: dict[str, Any]) -> None:
        spec = data.get("spec") if isinstance(data.get("spec"), dict) else {}
        kind = next((word for word in ("run", "prompt", "tool") if (spec or {}).get(word)), "")
        name = str(data.get("name") or data.get("task_id"))
        self._task(data, name=name, kind=kind, needs=tuple(data.get("needs") or ()))
        self._change(status="running")

    def _ready(self, record: Record, data: dict[str, Any]) -> None:
        known = self._tasks.get(str(data.get("task_id")))
        first = known.ready_at if known is not None and known.ready_at is not None else record.recorded_at
        number = int(data.get("try_number") or 1)
        self._task(data, status="queued", ready_at=first, ended_at=None, try_number=number, activity="")

    def _assigned(self, record: Record, data: dict[str, Any]) -> None:
        self._task(data, status="working", started_at=record.recorded_at)

    def _returned(self, record: Record, data: dict[str, Any]) -> None:
        self._task(data, activity="", exit_code=data.get("exit_code"))

    def _attempt_failed(self, record: Record, data: dict[str, Any]) -> None:
        self._task(data, status="queued", activity=f"again after: {first_line(data.get('reason'))}")

    def _task_ended(self, record: Record, data: dict[str, Any]) -> None:
        output = str(data.get("output") or "")
        self._task(
            data,
            status=record.topic.rpartition(".")[2],
            ended_at=record.recorded_at,
            activity="",
            output=output,
            note=first_line(data.get("reason")) or first_line(output),
            exit_code=data.get("exit_code"),
        )

    def _retried(self, record: Record, data: dict[str, Any]) -> None:
        number = int(data.get("try_number") or 2)
        self._task(
            data,
            status="queued",
            ended_at=None,
            try_number=number,
            note=first_line(data.get("reason")),
            activity=f"again: {first_line(data.get('reason'))}",
        )

    def _review_requested(self, record: Record, data: dict[str, Any]) -> None:
        self._task(data, status="reviewing", activity="a reviewer reads it")

    def _reviewed(self, record: Record, data: dict[str, Any]) -> None:
        task = self._tasks.get(str(data.get("task_id")))
        verdicts = task.verdicts if task is not None else ()
        self._task(data, verdicts=(*verdicts, str(data.get("verdict"))), activity="")

    def _model_requested(self, record: Record, data: dict[str, Any]) -> None:
        task_id = str(data.get("task_id") or "")
        self._conversations[record.event_id] = task_id
        if task_id in self._tasks:
            role = "the reviewer thinks" if data.get("role") == "reviewer" else "thinks"
            self._task(data, activity=f"{role}, turn {data.get('turn')}")

    def _paid(self, record: Record, data: dict[str, Any]) -> None:
        assert self.run is not None
        cost = cost_of(record)
        self._change(cost=self.run.cost + cost, own_cost=self.run.own_cost + cost)
        task = self._tasks.get(self._conversations.get(record.causation_id or "", ""))
        if task is not None:
            self._tasks[task.id] = replace(task, cost=task.cost + cost)

    def _tool_requested(self, record: Record, data: dict[str, Any]) -> None:
        if data.get("task_id") not in self._tasks:
            return
        tool = str(data.get("tool"))
        if tool == "workspace.integrate":
            self._task(data, status="merging", activity="merges its changes")
        elif not tool.startswith("workspace."):
            given = data.get("input") if isinstance(data.get("input"), dict) else {}
            told = next((given[name] for name in ("command", "path", "pattern") if given and given.get(name)), "")
            self._task(data, activity=f"{tool} {first_line(told)}".rstrip())

    def _asked(self, record: Record, data: dict[str, Any]) -> None:
        self._questions[record.event_id] = Question(
            run=record.correlation_id,
            approval_id=str(data.get("approval_id") or ""),
            task_id=str(data.get("task_id") or ""),
            question=str(data.get("question") or ""),
            reason=str(data.get("reason") or "step"),
            position=record.position,
            asked_at=record.recorded_at,
        )
        if data.get("task_id") in self._tasks:
            first = self._tasks[str(data["task_id"])].ready_at or record.recorded_at
            self._task(data, status="waiting", activity="waits for approval", ready_at=first)

    def _answered(self, record: Record, data: dict[str, Any]) -> None:
        question = self._questions.pop(record.causation_id or "", None)
        if question is not None and question.task_id in self._tasks:
            self._task({"task_id": question.task_id}, status="queued", activity="")


_FOLDS: Final[dict[str, Callable[[RunFold, Record, dict[str, Any]], None]]] = {
    "workflow.requested": RunFold._requested,
    "workflow.forked": RunFold._forked,
    "workflow.started": RunFold._status,
    "workflow.plan_requested": RunFold._status,
    "workflow.paused": RunFold._status,
    "workflow.resumed": RunFold._status,
    "workflow.completed": RunFold._ended,
    "workflow.failed": RunFold._ended,
    "workflow.cancelled": RunFold._ended,
    "task.created": RunFold._created,
    "task.ready": RunFold._ready,
    "task.assigned": RunFold._assigned,
    "task.attempt_failed": RunFold._attempt_failed,
    "task.returned": RunFold._returned,
    "task.completed": RunFold._task_ended,
    "task.failed": RunFold._task_ended,
    "task.skipped": RunFold._task_ended,
    "task.cancelled": RunFold._task_ended,
    "task.retried": RunFold._retried,
    "task.review_requested": RunFold._review_requested,
    "task.review_completed": RunFold._reviewed,
    "model.requested": RunFold._model_requested,
    **dict.fromkeys(CHARGED, RunFold._paid),
    "tool.requested": RunFold._tool_requested,
    "approval.requested": RunFold._asked,
    "approval.granted": RunFold._answered,
    "approval.denied": RunFold._answered,
    "approval.expired": RunFold._answered,
    "approval.cancelled": RunFold._answered,
    "budget.set": RunFold._budget,
    "budget.reserved": RunFold._budget,
    "budget.settled": RunFold._budget,
    "budget.exceeded": RunFold._budget,
    "budget.cleared": RunFold._budget,
}


def is_run(records: Sequence[Record]) -> bool:
    """Whether these records are a run's: something in its own stream asked for it."""
    return any(record.topic in _STARTS and record.stream == f"{record.correlation_id}/run" for record in records[:1])


def run_view(records: Sequence[Record]) -> RunView | None:
    """A run, from its records in log order; None without any."""
    fold = RunFold()
    for record in records:
        fold.add(record)
    return fold.view
