"""state: what the brains knew of a run, now or at any moment of its past."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dashboard.cli.answers import RunName
from dashboard.cli.command import command
from dashboard.cli.labels import At, as_of
from dashboard.cli.shell import Shell
from dashboard.cli.text import Line, cut
from hive_errors import UsageWrong

if TYPE_CHECKING:
    from hive_bus import Brain

_INDENT: Final = 2
_DEEPEST: Final = 3
"""From here on a value is one line, cut: what is inside a task's specification is `--json`'s."""


@command("state", examples=("state @", "state 7k3m --brain queen --at @12", "state @ --brain drone --at 14:03 --json"))
async def state(
    shell: Shell,
    run: RunName = "@",
    brain: Annotated[
        str | None, typer.Option("--brain", metavar="NAME", help="One of queen, planner, reviewer, drone [all].")
    ] = None,
    at: At = None,
) -> None:
    """Show what the brains know of a run.

    A brain is the state it had when it had handled that moment, with its decisions on events up to there. What is
    empty is left out; with --json it is there.
    """
    from hive_bus.replay.states import keys_at, plain, state_at

    chosen = _brains(brain)
    async with shell.bus() as bus:
        run_id = await bus.resolve(run)
        then = await as_of(shell, bus, at, run=run_id)
        position = then.position if then is not None else await bus.head()
        for one in chosen:
            for key in await keys_at(bus.store.log, one, run_id, at=position):
                value = plain(await state_at(bus, one, key, at=position))
                if shell.json:
                    shell.emit({"brain": one.name, "key": key, "position": position, "state": value})
                else:
                    shell.print([(f"{one.name} ", "bold"), (f"of {key}", "dim")], *_lines(value, 1, shell.width))


def _brains(name: str | None) -> list[Brain[Any]]:
    from agents.colony import brains

    known = brains()
    chosen = [one for one in known if name in {None, one.name}]
    if not chosen:
        names = ", ".join(one.name for one in known)
        raise UsageWrong(name="--brain", value=str(name), reason="no brain is called so", remedy=f"one of: {names}")
    return chosen


def _lines(value: Any, depth: int, width: int) -> Iterator[Line]:
    """A value as indented lines; what is short stands on one."""
    margin = " " * (_INDENT * depth)
    items = list(value.items()) if isinstance(value, dict) else [("-", item) for item in value]
    for name, item in items:
        if name != "-" and (item is None or item is False or item in ("", [], {})):
            continue
        head = f"{margin}{name}" if name == "-" else f"{margin}{name}:"
        text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        if not isinstance(item, dict | list) or depth >= _DEEPEST or len(head) + len(text) < width:
            yield [(head, "cyan"), (f" {cut(text, max(width - len(head) - 1, 20))}", "")]
        else:
            yield [(head, "cyan")]
            yield from _lines(item, depth + 1, width)
