"""usage: what was used and what it cost, by run, task, drone, model, tool, branch or day."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dashboard.cli.command import command
from dashboard.cli.shell import Shell
from dashboard.cli.text import Cell, Line, columns, dollars, duration, plural, thousands
from hive_errors import UsageWrong

if TYPE_CHECKING:
    from dashboard.views import Usage, UsageView

_FORMS = "90s, 15m, 2d, or a day such as 2026-11-20"


@command(
    "usage",
    examples=("usage", "usage @", "usage --by model,day --since 7d", "usage --where team=search --by run --json"),
)
async def usage(
    shell: Shell,
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Only this run or branch; without it, all of the log.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="WHAT,...",
            help="run, branch, task, drone, role, model, tool, day (of UTC), or charge for every call [run; of a RUN: task,drone].",
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help=f"Only what ended in that time: {_FORMS}.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="KEY=VALUE", help="Only runs whose --meta says so; may be repeated."),
    ] = None,
) -> None:
    """Show what was used, and what it cost.

    Model calls, tokens, dollars, tools and time. Calls whose model has no known price are counted, and never as free. What a branch shares with its parent is counted once, there.
    """
    from dashboard.views import read_usage

    wanted = _dimensions(by or ("run" if run is None else "task,drone"))
    conditions = _conditions(where or [])
    async with shell.bus() as bus:
        view = await read_usage(
            bus,
            by=wanted,
            run=None if run is None else await bus.resolve(run),
            since=None if since is None else _moment(since, bus.now()),
            where=conditions,
        )
    if shell.json:
        shell.emit(view.as_dict())
    elif view.rows:
        shell.print(*_table(view, shell.width))
    else:
        shell.say("nothing was used" + (" that fits" if conditions or since else " yet"))
    _notes(shell, view)


def _table(view: UsageView, width: int) -> list[Line]:
    rows: list[tuple[Cell, ...]] = [(*(_shown(value) for value in key), *_numbers(usage)) for key, usage in view.rows]
    if len(rows) > 1:
        rows.append((("total", "bold"), *[""] * (len(view.by) - 1), *_numbers(view.total)))
    size = len(view.by)
    head = (*view.by, "calls", "failed", "in", "out", "cached", "cost", "tools", "time")
    return columns(rows, width=width, flexible=(0,), right=tuple(range(size, size + 8)), head=head)


def _shown(value: str) -> Cell:
    """A value as short as it can be told apart; who has none is marked."""
    return f"scripted:{Path(value[9:]).name}" if value.startswith("scripted:") else value or ("-", "dim")


def _numbers(usage: Usage) -> tuple[str, ...]:
    cost = usage.cost
    return (
        str(cost.calls or ""),
        str(usage.failed or ""),
        thousands(cost.tokens_in) if cost.tokens_in else "",
        thousands(cost.output_tokens) if cost.output_tokens else "",
        thousands(cost.cache_read_tokens) if cost.cache_read_tokens else "",
        dollars(cost),
        str(usage.tools or ""),
        duration(usage.seconds) if usage.seconds else "",
    )


def _notes(shell: Shell, view: UsageView) -> None:
    """What the numbers leave out."""
    if view.total.cost.unpriced:
        calls = plural(view.total.cost.unpriced, "call")
        shell.say(f"{calls} of models whose price nobody knows: in no sum, marked +?")
    for part in view.inherited:
        cost = part.usage.cost
        what = ", ".join(
            filter(None, (plural(cost.calls, "model call"), dollars(cost), plural(part.usage.tools, "tool call")))
        )
        shell.say(f"shared with {part.run} up to {part.upto}, and counted there: {what}")


def _dimensions(text: str) -> tuple[str, ...]:
    from dashboard.views import DIMENSIONS

    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    wrong = next((word for word in words if word not in DIMENSIONS), None)
    if wrong is not None or not words:
        raise UsageWrong(
            name="--by",
            value=wrong or text,
            reason="usage is not added up by that",
            remedy=f"one or more of: {', '.join(DIMENSIONS)}",
        )
    return words


def _conditions(pairs: list[str]) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageWrong(name="--where", value=pair, reason="it is no pair", remedy="write --where key=value")
        try:
            conditions[key] = json.loads(value)
        except ValueError:
            conditions[key] = value
    return conditions


def _moment(text: str, now: int) -> int:
    """UTC microseconds for so long ago, or for a day or time (local, unless it says otherwise)."""
    from agents.workflows.workflow import parse_duration

    try:
        return now - round(parse_duration(text) * 1_000_000)
    except ValueError:
        pass
    try:
        return round(datetime.fromisoformat(text).astimezone().timestamp() * 1_000_000)
    except ValueError:
        raise UsageWrong(
            name="--since", value=text, reason="it is neither a duration nor a day", remedy=_FORMS
        ) from None
