"""why: from an event, a file or a charge back to the goal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dashboard.cli.command import command
from dashboard.cli.shell import Shell
from dashboard.cli.text import Line, cut, dollars, moment

if TYPE_CHECKING:
    from dashboard.views import WhyView


@command("why", examples=("why 812", "why src/jars.py --run 7k3m", "why 01a1fd82-ae3a --json"))
async def why(
    shell: Shell,
    what: Annotated[
        str,
        typer.Argument(
            metavar="EVENT|FILE|CHARGE", help="A position, an event's id, or a file of the run's workspace."
        ),
    ],
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN", help="Where files, and first letters of ids, are looked for [@]."),
    ] = None,
) -> None:
    """Walk the causes of something back to the goal.

    An event; a charge, as `hive usage --by charge` names it; or a file: which call of which drone wrote it, in which try, and who reviewed that.
    """
    from dashboard.views import read_why

    async with shell.bus() as bus:
        view = await read_why(bus, what, run=None if run is None else await bus.resolve(run))
    if shell.json:
        shell.emit(view.as_dict())
    else:
        shell.print(*_lines(view, shell.width))


def _lines(view: WhyView, width: int) -> Iterator[Line]:
    yield [(view.what, "bold"), (f"  run {view.run}", "dim")]
    for writer in view.writers:
        where = f"drone {writer.drone}" if writer.drone else f"task {writer.task}, try {writer.try_number}"
        said = ", ".join(f"{verdict.replace('_', ' ')} by {by}" for verdict, by, _ in writer.reviews)
        notes = "; ".join(filter(None, (said, "" if writer.merged else "not merged")))
        text = f"  {writer.position}  {where}: {writer.what}" + (f"  ({notes})" if notes else "")
        yield [(cut(text, width), "" if writer.merged else "dim")]
    places = max((len(str(step.position)) for step in view.steps), default=0)
    for number, step in enumerate(view.steps):
        branch = "↳ " if number else "  "
        price = f"  {dollars(step.cost)}" if step.cost.calls else ""
        head = f"{branch}{step.position:>{places}}  "
        yield [(head, "dim"), (cut(step.what, max(width - len(head) - len(price), 20)), ""), (price, "dim")]
    if view.steps:
        yield [(f"asked for at {moment(view.steps[0].at)}, by {view.steps[0].by}", "dim")]
