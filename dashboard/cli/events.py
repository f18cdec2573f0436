"""events and publish: the log as it is, and one more event in it."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dashboard.cli.command import command
from dashboard.cli.labels import At, as_of
from dashboard.cli.shell import Shell
from dashboard.cli.text import Line, clock, cut
from hive_errors import UnregisteredTopic, UsageWrong

if TYPE_CHECKING:
    from hive_bus import Bus, Event, Record

_LAST = 50


@command(
    "events",
    examples=(
        "events",
        "events 'task.*' --follow",
        "events '*.failed' --from 0 --json",
        "events --correlation @",
        "events --at 14:03",
    ),
)
async def events(
    shell: Shell,
    *,
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Topics: 'task.*' for one part, 'task.>' for the rest.")
    ] = None,
    start: Annotated[
        int | None,
        typer.Option("--from", metavar="POSITION", min=0, help=f"Show what follows this position [the last {_LAST}]."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events happen, until Ctrl-C.")] = False,
    correlation: Annotated[
        str | None, typer.Option("--correlation", "-c", metavar="ID", help="Only one run or correlation.")
    ] = None,
    at: At = None,
) -> None:
    """Show events of the log, oldest first.

    With --at up to that moment, the last ones unless --from says more.
    """
    from hive_bus.topics import check_pattern, matches

    if follow and at is not None:
        raise UsageWrong(
            name="--at", value=at, reason="--follow shows what comes, --at what was", remedy="leave one of them out"
        )
    patterns = (check_pattern(pattern),) if pattern else ()
    async with shell.bus() as bus:
        wanted = await bus.resolve(correlation) if correlation else None
        then = await as_of(shell, bus, at, run=wanted)
        head = await bus.head() if then is None else then.position
        after = start if start is not None else await _last_ones(bus, patterns, wanted, head)
        last = after
        if wanted is not None:
            for record in await bus.history(wanted, after=after, at=None if then is None else head):
                if not patterns or matches(patterns[0], record.topic):
                    show(shell, record)
                last = record.position
        else:
            async for record in bus.read(*patterns, after=after, until=head):
                show(shell, record)
            last = max(head, after)
        if not follow:
            return
        async with bus.subscribe(*patterns, start=last) as records:
            async for record in records:
                if wanted in {None, record.correlation_id}:
                    show(shell, record)


async def _last_ones(bus: Bus, patterns: tuple[str, ...], correlation: str | None, head: int) -> int:
    """The position behind which the last few events of a pattern lie; 0 for one correlation, which is shown whole."""
    from hive_bus.topics import expand

    if correlation is not None:
        return 0
    topics = await bus.store.log.topics()
    chosen = expand(patterns, topics) if patterns else topics
    newest = await bus.store.log.latest(chosen, limit=_LAST, before=head + 1) if chosen else []
    return newest[-1].position - 1 if newest else 0


def show(shell: Shell, record: Record) -> None:
    """One event on one line."""
    if shell.json:
        shell.emit(as_dict(record))
    else:
        shell.print(line_of(record, shell.width))


def as_dict(record: Record) -> dict[str, Any]:
    """A record as plain JSON values; times are UTC microseconds."""
    return {
        "position": record.position,
        "event_id": record.event_id,
        "topic": record.topic,
        "stream": record.stream,
        "version": record.version,
        "correlation_id": record.correlation_id,
        "causation_id": record.causation_id,
        "source": record.source,
        "decided_by": record.decided_by,
        "schema_version": record.schema_version,
        "occurred_at": record.occurred_at,
        "recorded_at": record.recorded_at,
        "metadata": record.metadata,
        "data": record.data,
    }


def line_of(record: Record, width: int) -> Line:
    """A record as a line: position, time, topic, stream, and as much of its body as there is room for."""
    family = record.topic.rpartition(".")[2]
    style = "bold red" if family in ("failed", "attempt_failed") else "green" if family == "completed" else "cyan"
    line: Line = [
        (f"{record.position:>6}  ", "dim"),
        (f"{clock(record.recorded_at)}  ", "dim"),
        (f"{record.topic:<24}  ", style),
        (f"{record.stream:<16}  ", ""),
    ]
    room = max(width - sum(len(text) for text, _ in line), 20)
    body = record.data if isinstance(record.data, dict) else {"data": record.data}
    said = " ".join(f"{key}={_value(value)}" for key, value in body.items() if value not in (None, "", [], {}))
    return [*line, (cut(said, room), "dim")]


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)


@command(
    "publish",
    examples=(
        """publish system.alert_raised '{"name": "disk", "message": "90 % full"}'""",
        """publish order.placed '{"order": 7}' --raw --correlation order-7""",
    ),
)
async def publish(
    shell: Shell,
    *,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Such as order.placed.")],
    body: Annotated[str, typer.Argument(metavar="JSON", help="The fields, as a JSON object; - reads standard input.")],
    correlation: Annotated[
        str | None, typer.Option("--correlation", "-c", metavar="ID", help="The run or process it belongs to.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", metavar="NAME", help="Whom it is about; the correlation by default.")
    ] = None,
    module: Annotated[
        str | None, typer.Option("--module", metavar="MODULE", help="Import this first: it defines the topic's class.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Allow a topic that no class of this process claims.")] = False,
) -> None:
    """Append one event and print its position.

    The fields are checked against the class of the topic.
    """
    event = _event(topic, body, module=module, raw=raw)
    async with shell.bus(make=True) as bus:
        position = await bus.publish(event, correlation_id=correlation, stream=stream)
    if shell.json:
        shell.emit({"position": position, "topic": topic})
    else:
        shell.print(f"{position}")


def _event(topic: str, body: str, *, module: str | None, raw: bool) -> Event:
    """The event that the words mean. Raises :class:`UnregisteredTopic`, :class:`UsageWrong`, :class:`InvalidTopic`."""
    import sys

    import hive_bus.events  # noqa: F401 - the built-in topics are registered by importing them
    from hive_bus.codec import decode
    from hive_bus.event import event_class, registered_topics
    from hive_bus.events.base import Fact
    from hive_bus.topics import check_topic
    from hive_errors import UndecodableEvent

    if module is not None:
        from dashboard.cli.modules import import_here

        import_here(module)
    text = sys.stdin.read() if body == "-" else body
    try:
        data = json.loads(text)
    except ValueError as problem:
        raise UsageWrong(
            name="JSON", value=cut(text, 60), reason=str(problem), remedy="quote it for the shell: '{\"name\": 1}'"
        ) from None
    if not isinstance(data, dict):
        raise UsageWrong(
            name="JSON", value=cut(text, 60), reason="it must be an object", remedy="write '{\"name\": 1}'"
        )
    known = event_class(check_topic(topic))
    if known is None:
        if raw:
            return _class_of(topic, Fact)(**data)
        close = difflib.get_close_matches(topic, registered_topics(), n=1)
        raise UnregisteredTopic(
            topic=topic,
            suggestion=f"; did you mean {close[0]!r}?"
            if close
            else "; --module imports the module that has it, --raw publishes without",
        )
    try:
        return decode(topic, known.VERSION, json.dumps(data))
    except UndecodableEvent as problem:
        raise UsageWrong(
            name=topic, value=cut(text, 60), reason=problem.reason, remedy="name its fields as its class does"
        ) from None


def _class_of(topic: str, base: type[Event]) -> type[Event]:
    """A class for a topic that has none: it keeps whatever fields it is given."""
    import types

    return types.new_class("Published", (base,), {"topic": topic})
