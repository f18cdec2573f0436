"""status: is the hive well, what waits for whom, how fast it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dashboard.cli.command import command
from dashboard.cli.labels import At, as_of
from dashboard.cli.shell import Shell
from dashboard.cli.text import Line, columns, duration, moment, plural, thousands
from hive_errors import UsageWrong

if TYPE_CHECKING:
    from dashboard.views import CapabilityView, StatusView


@command("status", examples=("status", "status --since 15m", "status --json", "status --at 14:03"))
async def status(
    shell: Shell,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far back rates and latencies look: 90s, 15m, 1h, 2d.")
    ] = "1h",
    at: At = None,
) -> None:
    """Show whether the hive is well, and what waits for whom.

    What needs somebody's eye comes first; then processes, queues, groups, limits, and the runs with open work.
    Of the past (--at) it shows what the log says: rates, processes, and what queues did; depths are known of now alone.
    """
    from dashboard.views import read_status, read_status_at

    seconds = _seconds(since)
    async with shell.bus() as bus:
        then = await as_of(shell, bus, at)
        if then is None:
            view = await read_status(bus, seconds=seconds, place=shell.place)
        else:
            view = await read_status_at(bus, then, seconds=seconds, place=shell.place)
    if shell.json:
        shell.emit(view.as_dict())
        return
    tables = [table for table in (list(_summary(view, since, live=then is None)), *_tables(view, shell.width)) if table]
    for number, table in enumerate(tables):
        shell.print(*([""] if number else []), *table)
    if then is None and not view.processes:
        shell.say("no process serves this database", f"try: {shell.command('up')}")


def _seconds(since: str) -> float:
    from agents.workflows.workflow import parse_duration

    try:
        seconds = parse_duration(since)
    except ValueError as problem:
        raise UsageWrong(name="--since", value=since, reason=str(problem), remedy="90s, 15m, 1h or 2d") from problem
    if not seconds:
        raise UsageWrong(name="--since", value=since, reason="it is no time at all", remedy="90s, 15m, 1h or 2d")
    return seconds


def _summary(view: StatusView, over: str, *, live: bool) -> Iterator[Line]:
    """How it is, in a few lines."""
    from dashboard.views import live_tails

    yield [("database  ", "dim"), (view.database, "")]
    rate = f"{view.events_per_second:.2f} events/s over {over}"
    yield [("log       ", "dim"), (f"{view.log}, epoch {view.epoch}, at {view.head}; {rate}", "")]
    asked, *ends = (f"{_counted(count)} {word}" for word, count in view.runs_since.items())
    work = f"; {len(view.runs)} with open work" if live else ""
    yield [("runs      ", "dim"), (f"{asked}, {', '.join(ends)} over {over}{work}", "")]
    if not live:
        return
    if tails := live_tails(view.processes):
        yield [("live tail ", "dim"), (tails, "")]
    if not view.attention:
        yield [("health    ", "dim"), ("✓ nothing needs anybody's eye", "green")]
    for sentence in view.attention:
        yield [("health    ", "dim"), ("! ", "bold yellow"), (sentence, "yellow")]


def _tables(view: StatusView, width: int) -> Iterator[list[Line]]:
    """Tables, each only when there is something in it."""
    yield columns(
        [
            (
                f"{process.owner} {'draining' if process.draining else ''}".strip(),
                duration((view.now - process.since) / 1_000_000),
                f"{process.pid or ''}",
                process.host,
                " ".join(process.agents),
            )
            for process in view.processes
        ],
        width=width,
        flexible=(4, 3),
        right=(1, 2),
        head=("process", "up", "pid", "host", "agents"),
    )
    yield columns(
        [_capability(one) for one in view.capabilities],
        width=width,
        flexible=(10, 8, 9, 7, 6, 0),
        right=tuple(range(1, 12)),
        head=(
            *("queue", "queued", "oldest", "running", "ended", "failed", "/min"),
            *("waited", "95%", "worked", "95%", "later", "agents"),
        ),
    )
    yield columns(
        [
            (
                group.name,
                str(group.behind),
                duration(group.oldest_seconds) if group.behind else "",
                str(group.parked or ""),
                f"{group.free} of {group.partitions}" if group.free else "",
                ", ".join(f"{owner} {count}" for owner, count in sorted(group.held_by.items())) or "nobody",
            )
            for group in view.groups
        ],
        width=width,
        flexible=(5,),
        right=(1, 2, 3, 4),
        head=("group", "behind", "oldest", "parked", "free", "held by"),
    )
    yield columns(
        [
            (
                limit.key,
                f"{limit.taken} of {limit.ceiling}" if limit.ceiling is not None else "",
                str(limit.missing or ""),
                f"{limit.level:.1f} of {limit.burst:g}" if limit.level is not None and limit.burst is not None else "",
                _left(limit.held_until, view.now),
            )
            for limit in view.limits
        ],
        width=width,
        flexible=(0,),
        right=(1, 2, 3, 4),
        head=("limit", "taken", "wait", "left", "held for"),
    )
    yield columns(
        [
            (
                run.correlation_id,
                *(str(count or "") for count in (run.ready, run.claimed, run.delayed, run.waiting)),
                moment(run.since),
            )
            for run in view.runs
        ],
        width=width,
        flexible=(5,),
        right=(1, 2, 3, 4),
        head=("run", "queued", "running", "delayed", "waiting", "since"),
    )


def _capability(one: CapabilityView) -> tuple[str, ...]:
    did = one.activity
    return (
        one.queue,
        _counted(one.queued) if one.queued else "",
        duration(one.oldest_wait) if one.queued else "",
        str(one.running or ""),
        str(did.ended) if did else "",
        str(did.failed or "") if did else "",
        f"{one.per_minute:.1f}" if one.per_minute is not None else "",
        *_span(did.waited if did else None),
        *_span(did.worked if did else None),
        str(one.delayed + one.waiting or ""),
        plural(one.agents, "agent") if one.agents else "nobody" if one.queued else "",
    )


def _counted(number: int) -> str:
    """A count, with a plus where no more were counted."""
    from dashboard.views.reading import COUNTED

    return f"{thousands(number)}+" if number >= COUNTED else str(number)


def _span(percentiles: tuple[float, float] | None) -> tuple[str, str]:
    """The median and the 95th percentile."""
    return ("", "") if percentiles is None else (duration(percentiles[0]), duration(percentiles[1]))


def _left(until: int | None, now: int) -> str:
    return "" if until is None or until <= now else duration((until - now) / 1_000_000)
