"""label: names for moments of a run; and `--at`, which takes them, on every command that looks back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dashboard.cli.answers import By, RunName, login
from dashboard.cli.command import command
from dashboard.cli.shell import Shell
from dashboard.cli.text import Cell, columns, moment, zoned

if TYPE_CHECKING:
    from hive_bus import Bus, Label, Moment

At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="P", help="As of then: position 812, the run's event @12, 14:03, 2026-11-20T14:03, or a label."
    ),
]


async def as_of(shell: Shell, bus: Bus, at: str | None, *, run: str | None = None) -> Moment | None:
    """The moment that `--at` means, said on standard error; None without one. Raises :class:`MomentInvalid`."""
    from hive_bus import moment_of

    if at is None:
        return None
    then = await moment_of(bus, at, run=run)
    shell.say([(f"as of position {then.position}, {zoned(then.time)}", "dim")])
    return then


@command("label", examples=("label @ before-refactor", "label 7k3m good --at @40", "label @"))
async def label(
    shell: Shell,
    run: RunName,
    name: Annotated[
        str | None, typer.Argument(metavar="LABEL", help="Letters, digits and . _ - behind a first letter.")
    ] = None,
    at: At = None,
    by: By = None,
) -> None:
    """Give a moment of a run a name, or list the run's labels.

    The moment is the run's last event, unless --at says another. A label stands wherever a command takes --at. It is one event of the log; one that is set again moves.
    """
    from hive_bus import labels, moment_of, set_label

    async with shell.bus() as bus:
        run_id = await bus.resolve(run)
        if name is None:
            await _list(shell, bus, await labels(bus.store.log, run_id))
            return
        then = None if at is None else await moment_of(bus, at, run=run_id)
        made = await set_label(bus, run_id, name, at=then, by=by or login())
    if shell.json:
        shell.emit(asdict(made))
    else:
        shell.print(f"{made.name} is position {made.position} of run {made.run}")


async def _list(shell: Shell, bus: Bus, found: list[Label]) -> None:
    if shell.json:
        shell.emit_all(asdict(one) for one in found)
        return
    from hive_bus.history import first_recorded

    rows: list[tuple[Cell, ...]] = []
    for one in found:
        events = await bus.store.log.read(one.position - 1, limit=1, until=one.position)
        topic, when = (events[0].topic, moment(first_recorded(events[0]).recorded_at)) if events else ("", "")
        rows.append((one.name, str(one.position), topic, when, one.by))
    head = ("label", "position", "event", "recorded", "by")
    shell.print(*columns(rows, width=shell.width, flexible=(2, 4), right=(1,), head=head))
    if not found:
        shell.say("no label yet", f"try: {shell.command('label', '@', 'before-refactor')}")
