"""replay: a run plays in the terminal as it happened."""

from __future__ import annotations

from typing import Annotated

import typer

from dashboard.cli.answers import RunName
from dashboard.cli.command import command
from dashboard.cli.shell import Shell
from hive_errors import UsageWrong


@command("replay", examples=("replay @", "replay 7k3m --speed 4", "replay @ --until @40 --speed max"))
async def replay(
    shell: Shell,
    run: RunName = "@",
    speed: Annotated[
        str, typer.Option("--speed", metavar="N", help="How many times as fast as it was; max: without waiting.")
    ] = "1",
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="P", help="End there: 812, @12, 14:03, 2026-11-20T14:03, or a label."),
    ] = None,
) -> None:
    """Play a run as it happened, without doing anything of it.

    On a terminal its trace grows; any key ends it. On a pipe there is a line for each thing that happened, with its
    time. A wait of more than two seconds is cut short, and a note says how long it was.
    """
    from dashboard.cli.playing import Pace, drawn, told
    from hive_bus import moment_of

    pace = Pace(_speed(speed))
    async with shell.bus() as bus:
        run_id = await bus.resolve(run)
        then = None if until is None else await moment_of(bus, until, run=run_id, field="--until")
        records = await bus.history(run_id, at=None if then is None else then.position)
    if shell.json or not (shell.live and shell.out.is_terminal):
        await told(shell, pace, records)
    else:
        await drawn(shell, pace, records)


def _speed(given: str) -> float | None:
    if given == "max":
        return None
    try:
        speed = float(given)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise UsageWrong(
            name="--speed",
            value=given,
            reason="it is no speed",
            remedy="4 is four times as fast, 0.5 half, max at once",
        )
    return speed
