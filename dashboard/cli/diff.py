"""diff: two runs or branches beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dashboard.cli.command import command
from dashboard.cli.shell import Shell
from dashboard.cli.text import Cell, Line, columns, cut, dollars, duration, sign, style_of, tokens

if TYPE_CHECKING:
    from dashboard.views import Comparison, Pair, RunView

_SIGNS = {"changed": ("~", "yellow"), "new": ("+", "green"), "lost": ("-", "red"), "reused": ("=", "dim")}


@command("diff", examples=("diff 7k3m 9p2x", "diff 7k3m @ --files", "diff 7k3m @ --all --json"))
async def diff(
    shell: Shell,
    *,
    a: Annotated[str, typer.Argument(metavar="A", help="A run or branch: id, its first letters, or @ for the last.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The one to compare with it.")],
    everything: Annotated[bool, typer.Option("--all", help="Effects that are alike, too.")] = False,
    files: Annotated[bool, typer.Option("--files", help="What differs in the files, line by line.")] = False,
) -> int:
    """Compare two runs: effects, outputs, files, verdicts, cost, time.

    Effects are aligned by what was asked: = the same came of it, ~ it was asked or answered otherwise, + only B has it, - only A.
    The exit code is 1 where they differ.
    """
    from dashboard.views import read_comparison

    async with shell.bus() as bus:
        first, second = await bus.resolve(a), await bus.resolve(b)
        comparison = await read_comparison(bus, first, second, patch=files)
    if shell.json:
        shell.emit(comparison.as_dict())
    else:
        shell.print(*lines(comparison, width=shell.width, everything=everything))
    return 0 if comparison.empty else 1


def lines(comparison: Comparison, *, width: int, everything: bool = False) -> list[Line]:
    """A comparison as text; what is alike is only counted, unless ``everything``."""
    parts = [
        columns([_side("a", comparison.a), _side("b", comparison.b)], width=width, flexible=(5,), right=(3, 4)),
        [[(_counted(comparison), "bold")]],
        columns(
            [_row(pair) for pair in comparison.pairs if everything or pair.fate != "reused"],
            width=width,
            flexible=(4, 2),
            right=(3,),
        ),
        list(_changes("the run", comparison.run, width)),
        [line for task in comparison.tasks for line in _changes(task.task, task.fields, width)],
        list(_files(comparison)),
    ]
    shown: list[Line] = []
    for part in parts:
        if part:
            shown += [*([[]] if shown else []), *part]
    return shown


def _side(name: str, run: RunView) -> tuple[Cell, ...]:
    mark, style = sign(run.status)
    return (
        (name, "dim"),
        (run.id, "bold"),
        (f"{mark} {run.status}", style),
        duration(run.seconds),
        dollars(run.cost),
        tokens(run.cost),
    )


def _counted(comparison: Comparison) -> str:
    if comparison.empty:
        return f"no difference: {comparison.count('reused')} effects alike"
    fates = ", ".join(f"{comparison.count(fate)} {fate}" for fate in ("reused", "changed", "new", "lost"))
    shared = f"; they share their first {comparison.shared} events" if comparison.shared else ""
    return f"effects: {fates}{shared}"


def _row(pair: Pair) -> tuple[Cell, ...]:
    effect = pair.either
    said = effect.said
    if pair.a is not None and pair.b is not None and pair.fate == "changed":
        alike = "asked otherwise" if pair.asked else "otherwise below its first line"
        said = f"{pair.a.said} → {pair.b.said}" if pair.a.said != pair.b.said else f"{alike}: {said}"
        if not (pair.a.result and pair.b.result):
            said = f"not answered in {'b' if pair.a.result else 'a'}: {pair.a.said or pair.b.said}"
    return (_SIGNS[pair.fate], effect.task or "the run", effect.label, dollars(effect.cost), (said, "dim"))


def _changes(what: str, fields: Mapping[str, tuple[Any, Any]], width: int) -> Iterator[Line]:
    for name, (before, after) in fields.items():
        style = style_of(str(after)) if name == "status" else ""
        text = f"{_short(before)} → {_short(after)}"
        yield [(f"{what}: {name}  ", "bold"), (cut(text, max(width - len(what) - len(name) - 4, 20)), style)]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "nothing" if value in (None, "") else " ".join(str(value).split())


def _files(comparison: Comparison) -> Iterator[Line]:
    from dashboard.cli.demo import coloured

    if comparison.unlike:
        yield [("files: ", "bold"), (comparison.unlike, "dim")]
    for file in comparison.files or ():
        counts = "" if file.added is None else f"  +{file.added} -{file.removed}"
        yield [(f"{file.state} ", "yellow"), (file.path, ""), (counts, "dim")]
    yield from coloured(comparison.patch)
