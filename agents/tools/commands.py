"""command: a shell line in the workspace, with limits; and noop, which does nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from agents.process import CommandResult, run_command
from agents.tool import ToolContext, ToolOutcome, storable
from agents.tools.function import tool
from hive_bus.effects import EffectClass

__all__ = ["command", "command_outcome", "noop", "step_outcome"]


@tool(effect=EffectClass.IDEMPOTENT)
async def command(
    ctx: ToolContext,
    command: Annotated[
        str, Field(description="Line for /bin/sh, run in the workspace.", min_length=1, max_length=100_000)
    ],
    timeout: Annotated[float | None, Field(description="Seconds until it is ended.", gt=0, le=86_400)] = None,
) -> ToolOutcome:
    """Run a shell command in the workspace. It has no input; of a long output, head and tail are kept."""
    limits = [seconds for seconds in (timeout or ctx.policy.command_timeout, ctx.timeout) if seconds is not None]
    result = await run_command(
        command.replace("\0", ""),
        cwd=ctx.root,
        env=ctx.policy.environment(os.environ, ctx.env),
        timeout=min(limits, default=None),
        output_max=ctx.policy.command_output_max,
        on_output=ctx.on_output,
    )
    return command_outcome(result)


@tool(effect=EffectClass.PURE)
def noop() -> None:
    """Do nothing."""


def command_outcome(result: CommandResult) -> ToolOutcome:
    """For a model to read: standard output, standard error behind it, and how it ended where that was not well."""
    pieces = [result.output.removesuffix("\n")]
    if result.stderr:
        pieces.append("[stderr]\n" + result.stderr.removesuffix("\n"))
    if how := _ending(result):
        pieces.append(f"[{how}]")
    output = "\n".join(piece for piece in pieces if piece)
    return replace(step_outcome(result), output=storable(output), data=_facts(result))


def step_outcome(result: CommandResult) -> ToolOutcome:
    """For a later step to use: standard output without its last newline; the rest is in ``data``."""
    return ToolOutcome(
        output=storable(result.output.removesuffix("\n")),
        is_error=bool(_ending(result)),
        exit_code=result.exit_code,
        data=_facts(result) | {"stderr": storable(result.stderr)},
        truncated=result.truncated,
    )


def _ending(result: CommandResult) -> str:
    if result.timed_out:
        return f"ended after {result.duration:.1f} s: it took too long"
    if result.overflowed:
        return "ended: it wrote too much"
    return f"exit code {result.exit_code}" if result.exit_code else ""


def _facts(result: CommandResult) -> dict[str, Any]:
    return {
        "signal": result.signal,
        "timed_out": result.timed_out,
        "overflowed": result.overflowed,
        "seconds": round(result.duration, 6),
    }
