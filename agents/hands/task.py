"""Hands that perform tasks: a shell command, or a registered tool."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from agents.hands.places import Places
from agents.hands.tool import tool_keys
from agents.policy import DEFAULT_POLICY, Policy
from agents.process import run_command
from agents.tool import ToolContext, ToolOutcome, Tools
from agents.tools import step_outcome
from hive_bus import EffectClass, Event, Hand, HandContext
from hive_bus.effects import Failure
from hive_bus.events import TaskReady, TaskReturned

COMMANDS_AT_ONCE = 512
"""A process starts no more commands than this, whatever the runs' own limits allow."""


class CommandHand(Hand):
    """Runs the command of a ``run`` step, in the workspace or the run's integration worktree."""

    intent = TaskReady
    queues = ("task:run",)
    keeps_time: ClassVar[bool] = True

    def __init__(self, places: Places, *, policy: Policy = DEFAULT_POLICY, concurrency: int = COMMANDS_AT_ONCE) -> None:
        self.concurrency = concurrency
        self._places = places
        self._policy = policy

    async def perform(self, intent: TaskReady, ctx: HandContext) -> Event | Failure:
        """Exit code 0 is completed; anything else, and the end by a limit, is failed."""
        try:
            cwd = await self._places.directory(intent.workspace, ctx.record)
        except Exception as problem:  # noqa: BLE001 - whatever keeps the step from starting is its failure, with the reason
            return Failure(reason=str(problem), kind="workspace")
        result = await run_command(
            intent.command,
            cwd=cwd,
            env=self._policy.environment(os.environ, intent.env),
            timeout=intent.timeout,
            output_max=self._policy.command_output_max,
            on_output=ctx.say,
        )
        outcome = step_outcome(result)
        limit = f"ended after {result.duration:.1f} s: it took too long" if result.timed_out else ""
        flood = "ended: it wrote too much" if result.overflowed else ""
        return TaskReturned(
            task_id=intent.task_id,
            try_number=intent.try_number,
            outcome="failed" if outcome.is_error else "completed",
            output=outcome.output,
            error=outcome.data["stderr"],
            exit_code=outcome.exit_code,
            truncated=outcome.truncated,
            reason=limit or flood or (f"exit code {result.exit_code}" if outcome.is_error else ""),
            attempts=ctx.attempt,
        )


class TaskToolHand(Hand):
    """Calls the registered tool of a ``tool`` step."""

    intent = TaskReady
    queues = ("task:tool",)

    def __init__(self, places: Places, tools: Tools, *, policy: Policy = DEFAULT_POLICY, concurrency: int = 64) -> None:
        self.concurrency = concurrency
        self._places = places
        self._tools = tools
        self._policy = policy

    def inline(self, intent: TaskReady) -> bool:
        """Doing nothing takes no time and touches nothing."""
        return intent.tool == "noop" and intent.effect is EffectClass.PURE

    def keys(self, intent: TaskReady) -> tuple[str, ...]:
        """``tool:<name>``, and that of each of its first parts."""
        return tool_keys(intent.tool)

    async def perform(self, intent: TaskReady, ctx: HandContext) -> Event | Failure:
        """A tool's own error fails the task."""
        if self.inline(intent):
            return returned(intent, ToolOutcome(), ctx.attempt)
        root = await self._places.directory(intent.workspace, ctx.record) if intent.workspace else Path.cwd()
        outcome = await self._tools.call(
            intent.tool,
            intent.input,
            ToolContext(
                root=root,
                idempotency_key=ctx.idempotency_key,
                env=intent.env,
                timeout=intent.timeout,
                policy=self._policy,
                on_output=ctx.say,
                on_progress=ctx.progress,
            ),
        )
        return returned(intent, outcome, ctx.attempt)


def returned(intent: TaskReady, outcome: ToolOutcome, attempt: int) -> TaskReturned:
    """What a tool's outcome means for the task."""
    facts: dict[str, Any] = {"exit_code": outcome.exit_code, "data": outcome.data, "truncated": outcome.truncated}
    return TaskReturned(
        task_id=intent.task_id,
        try_number=intent.try_number,
        outcome="failed" if outcome.is_error else "completed",
        output=outcome.output,
        reason=outcome.output.partition("\n")[0] if outcome.is_error else "",
        attempts=attempt,
        **facts,
    )
