"""Tool calls, in the stream of the brain that asks."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from hive_bus.effects import (
    ENDING_SECONDS,
    AttemptFailed,
    Cancelled,
    CancelRequested,
    EffectClass,
    Failed,
    Intent,
    Started,
    Superseded,
    WorkPolicy,
)
from hive_bus.events.base import Fact


class ToolRequested(Intent, topic="tool.requested", results=("tool.returned",)):
    """A brain asks for a tool. ``workspace`` is where it works: ``path``, ``base`` (the commit it starts from),

    ``task_id`` and ``try_number`` (which name the attempt's worktree). ``tool_use_id`` pairs
    it with the model's request. Tools named ``workspace.*`` are the queen's own:
    ``workspace.integrate`` merges a commit into the run's branch, ``workspace.finish``
    hands the branch over.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    tool: str
    input: dict[str, Any] = Field(default_factory=dict)
    tool_use_id: str = ""
    task_id: str = ""
    try_number: int = 1
    turn: int = 1
    effect: EffectClass = EffectClass.IDEMPOTENT
    workspace: dict[str, Any] = Field(default_factory=dict)
    effect_key: str = ""
    priority: int = 5
    timeout: float | None = 600.0

    def work(self) -> WorkPolicy:
        """Its effect class decides what a crash means; tools end in time by themselves, and say what they had until then."""
        return WorkPolicy(
            labels=("tool",),
            priority=self.priority,
            effect=self.effect,
            running_timeout=None if self.timeout is None else self.timeout + ENDING_SECONDS,
        )


class ToolStarted(Started, topic="tool.started"):
    """A hand runs the tool."""


class ToolReturned(Fact, topic="tool.returned"):
    """The tool's answer. ``is_error`` is the tool's own word: the model reads it and goes on.

    ``commit`` is the state that a tool which may write left in the attempt's worktree, and
    ``worktree`` the name of that: a call repeated after a lost lease worked in a fresh one.
    """

    tool_use_id: str = ""
    tool: str = ""
    task_id: str = ""
    output: str = ""
    is_error: bool = False
    exit_code: int | None = None
    data: Any = None
    truncated: bool = False
    commit: str | None = None
    worktree: str = ""


class ToolAttemptFailed(AttemptFailed, topic="tool.attempt_failed"):
    """An attempt failed; the queue tries again."""


class ToolFailed(Failed, topic="tool.failed"):
    """The call failed for good; kind ``unknown``: it may have run, in part or in full."""


class ToolCancelled(Cancelled, topic="tool.cancelled"):
    """The call was stopped on request."""


class ToolSuperseded(Superseded, topic="tool.superseded"):
    """A late answer of a lost lease."""


class ToolCancelRequested(CancelRequested, topic="tool.cancel_requested"):
    """The brain no longer wants the answer."""
