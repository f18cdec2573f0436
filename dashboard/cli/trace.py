"""trace: a run as a tree, a timeline or a log, once or as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dashboard.cli.answers import RunName
from dashboard.cli.command import command
from dashboard.cli.drawing import Growing, Shape, draw
from dashboard.cli.events import show
from dashboard.cli.labels import At, as_of
from dashboard.cli.shell import Shell
from dashboard.cli.text import Line, cut
from hive_errors import UsageWrong

if TYPE_CHECKING:
    from hive_bus import Bus, Record, Trace, TraceNode


@command("trace", examples=("trace @", "trace 7k3m --as timeline", "trace @ --as log --follow", "trace @ --at @40"))
async def trace(
    shell: Shell,
    run: RunName = "@",
    shape: Annotated[
        Shape, typer.Option("--as", help="A tree of causes, bars on a scale of time, or plain events.")
    ] = Shape.TREE,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it happens, until the run ends.")] = False,
    at: At = None,
) -> None:
    """Show what happened in a run, why, when, and at what cost.

    Waits and work, attempts, model calls, and what its end had to wait for.
    """
    from dashboard.views import is_run

    if follow and at is not None:
        raise UsageWrong(
            name="--at", value=at, reason="--follow shows what comes, --at what was", remedy="leave one of them out"
        )
    async with shell.bus() as bus:
        run_id = await bus.resolve(run)
        then = await as_of(shell, bus, at, run=run_id)
        position = None if then is None else then.position
        records = await bus.history(run_id, at=position)
        known = is_run(records)
        if shape is Shape.LOG:
            for record in records:
                show(shell, record)
            if follow:
                await _follow_log(shell, bus, run_id, after=records[-1].position, is_run=known)
        elif not known:
            await _causes(shell, await bus.trace(run_id, at=position))
        elif follow and not shell.json:
            await _follow_drawing(shell, bus, records, shape)
        else:
            if follow:
                records = await _until_the_end(bus, run_id)
            draw(shell, records, shape, now=bus.now() if then is None else then.time)


async def _causes(shell: Shell, traced: Trace) -> None:
    """The tree of a correlation that is no run: which event caused which."""
    if shell.json:
        shell.emit(traced.as_dict())
        return
    shell.print([("correlation ", ""), (traced.correlation_id, "bold")])
    waiting: list[tuple[TraceNode, str, str]] = [(node, "", "") for node in reversed(traced.roots)]
    while waiting:
        node, branch, below = waiting.pop()
        line: Line = [
            (branch, "dim"),
            (node.topic, "cyan"),
            (f"  {node.position}  {node.record.stream}  {node.record.source}", "dim"),
        ]
        if node.waited:
            line.append((f"  +{node.waited * 1000:.0f} ms", "dim"))
        shell.print([(cut(text, shell.width), style) for text, style in line])
        for number, child in enumerate(reversed(node.children)):
            last = number == 0
            waiting.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))


async def _until_the_end(bus: Bus, run_id: str) -> list[Record]:
    from agents.run import Run

    return [record async for record in Run(bus, run_id).events()]


async def _follow_log(shell: Shell, bus: Bus, run_id: str, *, after: int, is_run: bool) -> None:
    from agents.run import Run

    if is_run:
        async for record in Run(bus, run_id).events():
            if record.position > after:
                show(shell, record)
        return
    async with bus.subscribe(start=after) as records:
        async for record in records:
            if record.correlation_id == run_id:
                show(shell, record)


async def _follow_drawing(shell: Shell, bus: Bus, records: list[Record], shape: Shape) -> None:
    """Redraw on a terminal as events come; on a pipe, draw once when the run has ended."""
    from agents.run import Run
    from dashboard.cli.watching import hearing
    from hive_bus.tasks import together

    run_id, known = records[-1].correlation_id, records[-1].position
    if not (shell.live and shell.out.is_terminal):
        draw(shell, await _until_the_end(bus, run_id), shape, now=bus.now())
        return
    shell.carry_signals(bus)
    with Growing(shell, shape, now=bus.now, drawn=False) as picture:
        async with together() as tasks:
            hears = tasks.create_task(hearing(bus, run_id, picture.underway.hear))
            async for record in Run(bus, run_id).events():
                picture.add(record)
                # What is known already is drawn at once, not event by event.
                picture.drawn = picture.drawn or record.position >= known
            hears.cancel()
    draw(shell, picture.records, shape, now=bus.now())
