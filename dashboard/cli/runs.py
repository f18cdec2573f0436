"""runs: the list of runs, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from dashboard.cli.command import command
from dashboard.cli.labels import At, as_of
from dashboard.cli.shell import Shell
from dashboard.cli.text import Line, columns, dollars, duration, moment, sign, style_of
from hive_errors import UsageWrong

if TYPE_CHECKING:
    from dashboard.views import RunView

_STATUSES: Final = (
    "requested",
    "planning",
    "running",
    "waiting",
    "paused",
    "completed",
    "failed",
    "cancelled",
)


@command("runs", examples=("runs", "runs --status waiting", "runs --limit 100 --json", "runs --at 14:03"))
async def runs(
    shell: Shell,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATE", help=f"Only these: {', '.join(_STATUSES)}.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    at: At = None,
) -> None:
    """List the runs, newest first."""
    from dashboard.views import newest_runs

    if status is not None and status not in _STATUSES:
        raise UsageWrong(
            name="--status", value=status, reason="runs have no such state", remedy=f"one of: {', '.join(_STATUSES)}"
        )
    async with shell.bus() as bus:
        then = await as_of(shell, bus, at)
        at_position = None if then is None else then.position
        found = [view async for view in newest_runs(bus, limit=limit, status=status, at=at_position)]
    if shell.json:
        shell.emit_all(view.as_dict() for view in found)
    elif found:
        shell.print(*_table(found, shell.width))
    elif status:
        shell.say(f"no run is {status}; all runs: {shell.command('runs')}")
    else:
        shell.say("no run yet", f"try: {shell.command('demo')}")


def _table(views: list[RunView], width: int) -> list[Line]:
    rows = [
        (
            view.id,
            (f"{sign(view.status)[0]} {view.status}", style_of(view.status)),
            f"{view.count('completed')}/{len(view.tasks)}" if view.tasks else "",
            duration(view.seconds),
            dollars(view.own_cost),
            moment(view.requested_at),
            f"{view.title} (over budget)" if view.over_budget else view.title,
        )
        for view in views
    ]
    head = ("run", "state", "tasks", "time", "cost", "asked for", "what")
    return columns(rows, width=width, flexible=(6,), right=(2, 3, 4), head=head)
