"""The hand that performs the tool calls of drones, and the queen's own ``workspace.*`` calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from agents.hands.places import Places, date_of
from agents.policy import DEFAULT_POLICY, Policy
from agents.tool import ToolContext, ToolOutcome, Tools, storable
from agents.workspaces.worktrees import MergeConflict
from hive_bus import Event, Hand, HandContext
from hive_bus.effects import Failure
from hive_bus.events import ToolRequested, ToolReturned

_DIFF_LIMIT = 60_000


class ToolHand(Hand):
    """Performs ``tool.requested``: registered tools in the attempt's worktree, ``workspace.*`` in the repository."""

    intent = ToolRequested
    queues = ("tool",)

    def __init__(self, places: Places, tools: Tools, *, policy: Policy = DEFAULT_POLICY, concurrency: int = 32) -> None:
        self.concurrency = concurrency
        self._places = places
        self._tools = tools
        self._policy = policy
        self._own: Mapping[str, Callable[[ToolRequested, HandContext], Awaitable[ToolOutcome]]] = {
            "workspace.diff": self._diff,
            "workspace.integrate": self._integrate,
            "workspace.finish": self._finish,
        }

    def keys(self, intent: ToolRequested) -> tuple[str, ...]:
        """``tool:<name>``, and that of each of its first parts."""
        return tool_keys(intent.tool)

    async def perform(self, intent: ToolRequested, ctx: HandContext) -> Event | Failure:
        """A tool's error is its answer; the caller reads it and goes on."""
        own = self._own.get(intent.tool)
        if own is not None:
            return _returned(intent, await own(intent, ctx))
        if intent.tool not in self._tools or not intent.workspace:
            return _returned(intent, await self._tools.call(intent.tool, intent.input, self._context(intent, ctx, ".")))
        attempt = await self._places.attempt(
            intent.workspace, ctx.record, task_id=intent.task_id, try_number=intent.try_number, attempt=ctx.attempt
        )
        outcome = await self._tools.call(intent.tool, intent.input, self._context(intent, ctx, str(attempt.path)))
        if not self._tools.get(intent.tool).spec.writes:
            return _returned(intent, outcome, worktree=attempt.name)
        repository = await self._places.repository(str(intent.workspace.get("path") or "."))
        snapshot = await repository.snapshot(attempt, f"{intent.task_id}: {intent.tool}", when=date_of(ctx.record))
        return _returned(intent, outcome, commit=snapshot.commit, worktree=attempt.name)

    def _context(self, intent: ToolRequested, ctx: HandContext, root: str) -> ToolContext:
        return ToolContext(
            root=Path(root),
            idempotency_key=ctx.idempotency_key,
            timeout=intent.timeout,
            policy=self._policy,
            on_output=ctx.say,
            on_progress=ctx.progress,
        )

    async def _diff(self, intent: ToolRequested, ctx: HandContext) -> ToolOutcome:
        """The diff between two commits, for the reviewer: pure."""
        repository = await self._places.repository(str(intent.workspace.get("path") or "."))
        base, commit = str(intent.input["base"]), str(intent.input["commit"])
        text = storable(await repository.diff(base, commit))
        stat = await repository.diff_stat(base, commit)
        return ToolOutcome(output=text[:_DIFF_LIMIT], data=asdict(stat), truncated=len(text) > _DIFF_LIMIT)

    async def _integrate(self, intent: ToolRequested, ctx: HandContext) -> ToolOutcome:
        """Merge an accepted result into the run's branch; merging it again changes nothing."""
        repository = await self._places.repository(str(intent.workspace.get("path") or "."))
        task = str(intent.input.get("task_id") or intent.task_id)
        merged = await repository.merge(
            ctx.record.correlation_id,
            str(intent.input["commit"]),
            f"Merge {task}",
            when=date_of(ctx.record),
            tip=intent.workspace.get("tip"),
        )
        if isinstance(merged, MergeConflict):
            files = ", ".join(merged.files)
            return ToolOutcome(
                output=f"merge conflict in {files}",
                is_error=True,
                data={"conflicts": list(merged.files), "head": merged.ours},
            )
        return ToolOutcome(output=merged.commit, data={"head": merged.commit})

    async def _finish(self, intent: ToolRequested, ctx: HandContext) -> ToolOutcome:
        """Hand the run's branch over, and clear the run's worktrees away."""
        run = ctx.record.correlation_id
        repository = await self._places.repository(str(intent.workspace.get("path") or "."))
        finished = await repository.finish(run, when=date_of(ctx.record), tip=intent.workspace.get("tip"))
        await repository.cleanup(run)
        return ToolOutcome(output=finished.commit, data=asdict(finished))


def tool_keys(name: str) -> tuple[str, ...]:
    """Keys of limits of a tool, the longest first: ``mcp__github__search`` counts for ``tool:github.search`` and ``tool:github`` too."""
    plain = name.removeprefix("mcp__").replace("__", ".").split(".")
    return tuple(
        dict.fromkeys(("tool:" + name, *("tool:" + ".".join(plain[:length]) for length in range(len(plain), 0, -1))))
    )


def _returned(
    intent: ToolRequested, outcome: ToolOutcome, *, commit: str | None = None, worktree: str = ""
) -> ToolReturned:
    return ToolReturned(
        tool_use_id=intent.tool_use_id,
        tool=intent.tool,
        task_id=intent.task_id,
        output=outcome.output,
        is_error=outcome.is_error,
        exit_code=outcome.exit_code,
        data=outcome.data,
        truncated=outcome.truncated,
        commit=commit,
        worktree=worktree,
    )
