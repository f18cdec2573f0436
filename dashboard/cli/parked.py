"""parked: keys that were set aside because their events failed, tried again or discarded."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from dashboard.cli.command import command
from dashboard.cli.shell import Shell
from dashboard.cli.text import columns, duration
from hive_errors import UsageWrong


class Action(StrEnum):
    """What is done about parked keys."""

    LIST = "list"
    RETRY = "retry"
    DISCARD = "discard"


@command(
    "parked",
    examples=("parked", "parked retry agent/billing/on_order", "parked discard agent/billing/on_order order-7"),
)
async def parked(
    shell: Shell,
    action: Annotated[Action, typer.Argument(metavar="[retry|discard]", help="Without it: list them.")] = Action.LIST,
    group: Annotated[str | None, typer.Argument(metavar="GROUP", help="The group whose key it is.")] = None,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The key; `retry` without one means all of the group.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why it is discarded; kept in the log.")] = "",
) -> None:
    """Show keys that were set aside after failures.

    The events of all other keys flow on.

    `retry` tries now instead of later. `discard` lets the one failing event count as handled.
    """
    from hive_bus.groups.parking import discard_parked, parked_keys, retry_parked

    async with shell.bus() as bus:
        if action is Action.LIST:
            rows = await parked_keys(bus, group)
            if shell.json:
                shell.emit_all(asdict(row) for row in rows)
            elif not rows:
                shell.say("nothing is parked")
            else:
                head = ("group", "key", "from", "failures", "next try", "error")
                table = [
                    (
                        row.group,
                        row.key,
                        str(row.from_position),
                        str(row.attempt),
                        "never" if row.next_try is None else f"in {duration(max(row.next_try - bus.now(), 0) / 1e6)}",
                        row.error,
                    )
                    for row in rows
                ]
                shell.print(*columns(table, width=shell.width, flexible=(5,), right=(2, 3), head=head))
            return
        if group is None or (key is None and action is Action.DISCARD):
            missing = "GROUP" if group is None else "KEY"
            raise UsageWrong(
                name=missing,
                value="nothing",
                reason=f"{action} needs it",
                remedy=f"`{shell.command('parked')}` lists groups and keys",
            )
        keys = [key] if key is not None else [row.key for row in await parked_keys(bus, group)]
        if not keys:
            shell.say(f"group {group} has parked nothing")
        for one in keys:
            position = await (
                retry_parked(bus, group, one)
                if action is Action.RETRY
                else discard_parked(bus, group, one, reason=reason)
            )
            done = "tried again" if action is Action.RETRY else "discarded"
            if shell.json:
                shell.emit({"group": group, "key": one, "action": str(action), "position": position})
            else:
                shell.print(f"{one}: {done} by group {group} (position {position})")
