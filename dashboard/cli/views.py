"""views: the read models that a database has, and how one is built anew beside the one that answers."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dashboard.cli.command import command
from dashboard.cli.exits import FAILED
from dashboard.cli.modules import import_here
from dashboard.cli.shell import Shell
from dashboard.cli.text import Cell, columns, plural
from hive_errors import UsageWrong

if TYPE_CHECKING:
    from hive_bus import Bus, Projection

_SHOWN = 10


class Action(StrEnum):
    """What is done with read models."""

    LIST = "list"
    REBUILD = "rebuild"


@command(
    "views", examples=("views list", "views rebuild shop.views:Totals", "views rebuild shop.views:Totals --switch")
)
async def views(
    shell: Shell,
    action: Annotated[
        Action, typer.Argument(metavar="list|rebuild", help="Show what there is, or build one anew beside it.")
    ],
    target: Annotated[
        str | None,
        typer.Argument(metavar="MODULE:NAME", help="The Projection to rebuild; the current directory first."),
    ] = None,
    switch: Annotated[bool, typer.Option("--switch", help="Let the new one answer, also where it differs.")] = False,
) -> int | None:
    """List read models, or rebuild one and compare.

    A rebuild folds the log from its beginning into another version, while the one that answers goes on. Documents
    are compared where both have come to: 0 when they are the same, 1 when not. Programs that keep the view go over
    to a version that was switched to, without being started again.
    """
    async with shell.bus() as bus:
        if action is Action.LIST:
            await _list(shell, bus)
            return None
        if target is None:
            raise UsageWrong(
                name="MODULE:NAME", value="nothing", reason="which read model?", remedy="such as shop.views:Totals"
            )
        return await _rebuild(shell, bus, _projection(target), switch=switch)


async def _list(shell: Shell, bus: Bus) -> None:
    from hive_bus.projection import kept

    head = await bus.head()
    # A version that was built to be compared, and dropped, is not listed.
    found = [one for one in await kept(bus) if one.answers or one.held or not one.empty]
    if shell.json:
        shell.emit_all(asdict(one) | {"behind": head - one.position} for one in found)
        return
    rows: list[tuple[Cell, ...]] = [
        (
            one.view,
            str(one.version),
            ("✓", "green") if one.answers else "",
            str(one.position),
            str(head - one.position) if head > one.position else "",
            "yes" if one.held else "nobody",
        )
        for one in found
    ]
    head_line = ("view", "version", "answers", "position", "behind", "kept now")
    shell.print(*columns(rows, width=shell.width, flexible=(0,), right=(1, 3, 4), head=head_line))
    if not found:
        shell.say("no read model is stored here: what `hive` shows is folded when it is asked for")


async def _rebuild(shell: Shell, bus: Bus, projection: Projection, *, switch: bool) -> int | None:
    from hive_bus.projection import View, kept, rebuild
    from hive_bus.projection import switch as switch_to

    answers = await View(bus, projection).version()
    version = 1 + max([answers, *(one.version for one in await kept(bus) if one.view == projection.name)])
    found = await rebuild(bus, projection, version=version, beside=answers)
    if switch:
        await switch_to(bus, projection.name, version)
    else:
        await bus.store.views.drop(projection.name, version)
    if shell.json:
        shell.emit(asdict(found) | {"view": projection.name, "version": version, "switched": switch})
    else:
        named = f"{projection.name}: version {version}"
        same = f"{plural(found.same, 'document')} as in version {answers}"
        shell.print(f"{named} has {same}, {len(found.different)} otherwise, at position {found.position}")
        shell.print(*(f"  {key}" for key in found.different[:_SHOWN]))
        shell.say(f"version {version} answers now" if switch else f"version {answers} answers; --switch changes that")
    return FAILED if found.different and not switch else None


def _projection(target: str) -> Projection:
    """The projection that ``MODULE:NAME`` means: an instance, or a class made without arguments."""
    from hive_bus import Projection

    module, _, name = target.partition(":")
    import_here(module, name="MODULE:NAME")
    found = getattr(importlib.import_module(module), name, None) if name else None
    if isinstance(found, type) and issubclass(found, Projection):
        found = found()
    if not isinstance(found, Projection):
        raise UsageWrong(
            name="MODULE:NAME",
            value=target,
            reason="there is no Projection of that name",
            remedy="such as shop.views:Totals for `class Totals(Projection)` in shop/views.py",
        )
    return found
