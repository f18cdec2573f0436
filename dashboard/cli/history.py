"""history: runs as JSON Lines, out of one hive and into another."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dashboard.cli.command import command
from dashboard.cli.shell import Shell
from dashboard.cli.text import plural
from hive_errors import UsageWrong


class Action(StrEnum):
    """Which way."""

    EXPORT = "export"
    IMPORT = "import"


@command(
    "history",
    examples=("history export @ run.jsonl", "history export --all hive.jsonl", "history import run.jsonl --db new.db"),
)
async def history(
    shell: Shell,
    action: Annotated[Action, typer.Argument(metavar="export|import", help="Write a file, or read one into the log.")],
    words: Annotated[
        list[str], typer.Argument(metavar="[RUN] FILE", help="A run's id, prefix or @ (to export); the file.")
    ],
    every: Annotated[bool, typer.Option("--all", help="Export every run and correlation.")] = False,
) -> None:
    """Export runs as JSON Lines, or import them.

    Ids, streams, bodies and deciders stay; positions are the other log's. No effect begins again: a run with open
    effects, and one whose id is taken, are refused. `hive redrive FILE` reads such a file as it is.
    """
    wanted = 2 if action is Action.EXPORT and not every else 1
    if len(words) != wanted or (every and action is Action.IMPORT):
        raise UsageWrong(
            name="RUN FILE",
            value=" ".join(words),
            reason="`history export` takes RUN and FILE, or --all and FILE; `history import` takes FILE",
            remedy=shell.command("history", "export", "@", "run.jsonl"),
        )
    if action is Action.EXPORT:
        await _export(shell, None if every else words[0], Path(words[-1]))
    else:
        await _import(shell, Path(words[0]))


async def _export(shell: Shell, run: str | None, file: Path) -> None:
    from hive_bus.replay.transfer import export_history

    async with shell.bus() as bus:
        count = await export_history(bus.store.log, file, run=None if run is None else await bus.resolve(run))
    if shell.json:
        shell.emit({"file": str(file), "events": count})
    else:
        shell.print(f"{file}: {plural(count, 'event')}")


async def _import(shell: Shell, file: Path) -> None:
    from hive_bus.replay.transfer import import_history, read_history

    rows = read_history(file)
    async with shell.bus(make=True) as bus:
        done = await import_history(bus, rows)
    if shell.json:
        shell.emit_all(asdict(one) for one in done)
        return
    for one in done:
        told = "there already" if one.already else plural(one.events, "event")
        shell.print(f"{', '.join(one.correlations)}: {told}")
