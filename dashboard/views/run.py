"""A run as people see it: what state it and its tasks are in, what it asks, what it cost.

Frozen values; the fold that makes them is ``run_fold``'s. Times are UTC microseconds, durations seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from dashboard.views.cost import FREE, Cost
from hive_bus.budget import Ledger

RunStatus = Literal["requested", "planning", "running", "waiting", "paused", "completed", "failed", "cancelled"]
TaskStatus = Literal[
    "pending", "waiting", "queued", "working", "reviewing", "merging", "completed", "failed", "skipped", "cancelled"
]
RUN_ENDS: Final = frozenset({"completed", "failed", "cancelled"})
TASK_ENDS: Final = frozenset({"completed", "failed", "skipped", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a run asks a person. ``reason``: ``step`` (the workflow says so) or ``unknown`` (an effect may have run)."""

    run: str
    approval_id: str
    task_id: str
    question: str
    reason: str
    position: int
    asked_at: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task. ``activity`` is what it does right now, ``note`` the first line of its result or reason."""

    id: str
    name: str
    kind: str
    status: TaskStatus
    needs: tuple[str, ...] = ()
    try_number: int = 1
    verdicts: tuple[str, ...] = ()
    activity: str = ""
    note: str = ""
    output: str = ""
    exit_code: int | None = None
    ready_at: int | None = None
    started_at: int | None = None
    ended_at: int | None = None
    cost: Cost = FREE

    @property
    def ended(self) -> bool:
        """Whether it has ended, for now."""
        return self.status in TASK_ENDS

    def seconds(self, now: int) -> float | None:
        """How long it has taken since it was ready, None before that."""
        if self.ready_at is None:
            return None
        return ((self.ended_at or now) - self.ready_at) / 1_000_000

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"cost": self.cost.as_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as of ``position``. ``waiting`` means: it asks a person, and nothing else of it can go on."""

    id: str
    status: RunStatus
    title: str = ""
    goal: str = ""
    name: str = ""
    model: str = ""
    workspace: str = ""
    base: str | None = None
    metadata: dict[str, Any]
    position: int
    events: int
    requested_at: int
    ended_at: int | None = None
    last_at: int = 0
    reason: str = ""
    output: str = ""
    commit: str | None = None
    branch: str | None = None
    merge_command: str | None = None
    tasks: tuple[TaskView, ...] = ()
    questions: tuple[Question, ...] = ()
    cost: Cost = FREE
    own_cost: Cost = FREE
    parent: str = ""
    forked_at: int | None = None
    budget: Ledger | None = None

    @property
    def over_budget(self) -> str:
        """Why it is paused, where its budget or the hive's is the reason; else empty."""
        return "" if self.budget is None or self.ended else self.budget.exceeded

    @property
    def ended(self) -> bool:
        """Whether it has ended, for now: a retry of one of its tasks takes it up again."""
        return self.status in RUN_ENDS

    @property
    def seconds(self) -> float:
        """From its request to its end, or to its last event; none of a branch that inherited its end."""
        return max(0, (self.ended_at or self.last_at) - self.requested_at) / 1_000_000

    def count(self, *statuses: str) -> int:
        """How many of its tasks are in one of these states."""
        return sum(task.status in statuses for task in self.tasks)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {
            "seconds": self.seconds,
            "cost": self.cost.as_dict(),
            "own_cost": self.own_cost.as_dict(),
            "budget": None if self.budget is None else self.budget.as_dict(),
            "tasks": [task.as_dict() for task in self.tasks],
            "questions": [question.as_dict() for question in self.questions],
        }
