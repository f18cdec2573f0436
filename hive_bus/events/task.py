"""The life of a task, in its run's stream. The queen decides, hands perform, the reviewer judges."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from hive_bus.effects import (
    ENDING_SECONDS,
    AttemptFailed,
    CancelRequested,
    EffectClass,
    Failure,
    Intent,
    Superseded,
    WorkPolicy,
)
from hive_bus.event import Event
from hive_bus.events.base import Fact

Outcome = Literal["completed", "failed", "cancelled", "unknown"]


class TaskCreated(Fact, topic="task.created"):
    """The plan has this task; ``spec`` is its normalised workflow step."""

    task_id: str
    name: str = ""
    needs: tuple[str, ...] = ()
    spec: dict[str, Any] = Field(default_factory=dict)


class TaskReady(Intent, topic="task.ready", results=("task.returned",)):
    """The task's needs are done. A command, a tool or a user's worker performs it as a hand.

    ``kind`` ``run`` has a ``command``, ``tool`` a ``tool`` and its ``input``; ``prompt``
    goes to a drone and asks no hand. ``worker`` tasks go to whoever takes the capability.
    ``workspace`` is what the hand works in: ``path``, and for git ``base`` (a commit).
    Timeouts and backoff are seconds. ``try_number`` counts the queen's tries.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    task_id: str
    try_number: int = 1
    kind: Literal["run", "tool", "prompt", "worker"] = "run"
    command: str = ""
    tool: str = ""
    input: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    capability: str = ""
    preferred: str | None = None
    hold_out: float = 0.0
    priority: int = 5
    timeout: float | None = None
    delay: float = 0.0
    effect: EffectClass = EffectClass.IDEMPOTENT
    workspace: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def ends(cls) -> tuple[str, ...]:
        """Only ``task.returned`` ends a task's effect: ``task.failed`` is the queen's word."""
        return cls.RESULTS

    def work(self) -> WorkPolicy | None:
        """Labels: ``task`` and the capability; a drone's task waits for no hand."""
        if self.kind == "prompt":
            return None
        # A command that is slow to die has failed, once: the clock must not take it for lost and run it again.
        keeps_time = self.kind == "run" and not self.capability and self.timeout is not None
        return WorkPolicy(
            labels=(f"task:{self.capability or self.kind}",),
            priority=self.priority,
            effect=self.effect,
            delay=self.delay,
            running_timeout=(self.timeout or 0.0) + ENDING_SECONDS if keeps_time else self.timeout,
            preferred=self.preferred,
            hold_out=self.hold_out,
        )

    def started(self, *, attempt: int, by: str) -> Event:
        """The claim of a task is its assignment."""
        return TaskAssigned(task_id=self.task_id, try_number=self.try_number, attempt=attempt, assignee=by)

    def attempt_failed(self, failure: Failure, *, attempt: int, retry_in: float | None) -> Event:
        """Names the task as well."""
        return TaskAttemptFailed(
            task_id=self.task_id, attempt=attempt, reason=failure.reason, kind=failure.kind, retry_in=retry_in
        )

    def failed(self, failure: Failure, *, attempts: int) -> Event:
        """A task's effect ends with ``task.returned``, also when it failed."""
        outcome: Outcome = "unknown" if failure.kind == "unknown" else "failed"
        return TaskReturned(
            task_id=self.task_id, try_number=self.try_number, outcome=outcome, reason=failure.reason, attempts=attempts
        )

    def cancelled(self, reason: str) -> Event:
        """A task's effect ends with ``task.returned``, also when it was cancelled."""
        return TaskReturned(task_id=self.task_id, try_number=self.try_number, outcome="cancelled", reason=reason)

    def superseded(self, result: Event, *, attempt: int) -> Event:
        """Names the task as well."""
        return TaskSuperseded(
            task_id=self.task_id, attempt=attempt, result_topic=result.TOPIC, result=result.model_dump(mode="json")
        )


class TaskAssigned(Fact, topic="task.assigned"):
    """A hand claimed the task, or the queen gave it to a drone."""

    task_id: str
    try_number: int = 1
    attempt: int = 1
    assignee: str = ""


class TaskReturned(Fact, topic="task.returned"):
    """What the hand brought back: the one end of a task's effect.

    ``output`` is standard output without its last newline, ``exit_code`` a command's,
    ``data`` the value of a tool, ``commit`` the state it left in a git workspace.
    """

    task_id: str
    try_number: int = 1
    outcome: Outcome = "completed"
    output: str = ""
    error: str = ""
    exit_code: int | None = None
    data: Any = None
    truncated: bool = False
    commit: str | None = None
    reason: str = ""
    attempts: int = 1


class TaskAttemptFailed(AttemptFailed, topic="task.attempt_failed"):
    """An attempt failed; the queue tries again."""

    model_config = ConfigDict(frozen=True, extra="allow")

    task_id: str
    attempt: int = 1
    reason: str = ""


class TaskSuperseded(Superseded, topic="task.superseded"):
    """A late result of a lost lease."""

    model_config = ConfigDict(frozen=True, extra="allow")

    task_id: str
    attempt: int = 1
    result_topic: str = ""
    result: dict[str, Any] = Field(default_factory=dict)


class TaskCancelRequested(CancelRequested, topic="task.cancel_requested"):
    """The queen asks the hand to stop."""

    model_config = ConfigDict(frozen=True, extra="allow")

    task_id: str
    intent_id: str = ""


class TaskCompleted(Fact, topic="task.completed"):
    """The task is done, reviewed and, in a git workspace, merged into the run's branch."""

    task_id: str
    output: str = ""
    exit_code: int | None = None
    data: Any = None
    commit: str | None = None


class TaskFailed(Fact, topic="task.failed"):
    """The task failed for good."""

    task_id: str
    reason: str = ""
    output: str = ""
    exit_code: int | None = None


class TaskRetried(Fact, topic="task.retried"):
    """The queen gives the task another try; ``comments`` are what the reviewer (or a merge conflict) said."""

    task_id: str
    try_number: int = 2
    reason: str = ""
    comments: tuple[str, ...] = ()
    delay: float = 0.0


class TaskSkipped(Fact, topic="task.skipped"):
    """The task's condition does not hold, or what it needs failed."""

    task_id: str
    reason: str = ""


class TaskCancelled(Fact, topic="task.cancelled"):
    """The task ended because its run was cancelled."""

    task_id: str
    reason: str = ""


class TaskReviewRequested(Fact, topic="task.review_requested"):
    """The queen asks the reviewer to judge a drone's result; ``evidence`` holds diff and test output."""

    task_id: str
    try_number: int = 1
    round: int = 1
    instructions: str = ""
    output: str = ""
    evidence: dict[str, Any] = Field(default_factory=dict)
    model: str = ""


class TaskReviewCompleted(Fact, topic="task.review_completed"):
    """The reviewer's verdict."""

    task_id: str
    try_number: int = 1
    round: int = 1
    verdict: Literal["approved", "changes_requested", "rejected"] = "approved"
    comments: tuple[str, ...] = ()


class TaskRetryRequested(Fact, topic="task.retry_requested"):
    """A person asks for another try of a failed or skipped task."""

    task_id: str
    reason: str = ""
