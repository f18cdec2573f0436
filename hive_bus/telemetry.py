"""What the hive says about itself while it works: one table of everything that is logged, and how it is written.

Every line has a name of the table, the correlation id of what is being worked on, and the fields that the
table promises; a test compares the table with what the code says. The log of *events* is the truth about
runs; these lines are for whoever looks after a process, and no fold ever needs one.

Lines go through the standard library's ``logging``, so whoever embeds the bus sees them as any library's, and
nothing is printed that nobody asked for. ``configure_logging``, which the ``hive`` commands call, has structlog
render them; only there is it loaded. OpenTelemetry is never loaded here: ``current_traceparent`` looks at it
only where the program has loaded it already.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TextIO

__all__ = [
    "TELEMETRY",
    "Log",
    "Signal",
    "configure_logging",
    "current_correlation",
    "current_traceparent",
    "get_logger",
    "with_correlation",
]


@dataclass(frozen=True, slots=True)
class Signal:
    """A line of the table: its name, when it is said, its fields with their units (``""`` where there is none)."""

    name: str
    when: str
    fields: tuple[tuple[str, str], ...] = ()


TELEMETRY: Final[tuple[Signal, ...]] = (
    Signal(
        "agent.left_silently",
        "a process ended without being able to say so in the log; its lease ends by itself, and others say it",
        (("agents", "names"), ("error", "")),
    ),
    Signal(
        "agent.lost",
        "another process ended without a word; its lease ended, and this process said so in the log",
        (("agent", "name"), ("lease_id", ""), ("reason", "")),
    ),
    Signal(
        "append.again",
        "the store was busy or full and refused a decision or a result; it is asked again after the wait",
        (("error", ""), ("seconds", "s")),
    ),
    Signal(
        "brain.not_ahead",
        "a brain's code failed on a result that was to share an append; the result goes alone, and the key is parked on it",
        (("correlation_id", ""), ("error", "")),
    ),
    Signal(
        "brain.parked",
        "a brain's code failed on an event; its key is set aside until the code is mended",
        (("brain", "name"), ("key", ""), ("position", "log position"), ("error", "")),
    ),
    Signal(
        "brain.snapshot_left_out",
        "a snapshot of a brain's state could not be written or read: that part of its past is folded from the log",
        (("brain", "name"), ("key", ""), ("error", "")),
    ),
    Signal(
        "budget.exceeded",
        "a run pauses: its next call may need more than its budget, or the hive's, has left",
        (("correlation_id", ""), ("reason", "")),
    ),
    Signal(
        "clock.undecodable",
        "a timer or a retry is due for an intent that this process cannot decode; it is left to a newer one",
        (("work_id", "event id"), ("error", "")),
    ),
    Signal(
        "epoch.started",
        "the database was restored, copied or promoted: the log goes on in a new epoch, and this process said so in it",
        (("epoch", "number"), ("first_position", "log position")),
    ),
    Signal(
        "group.fenced",
        "another member took a partition over while this one handled it; what it wanted to append is refused",
        (("group", "name"), ("partition", "number"), ("error", "")),
    ),
    Signal(
        "group.lease_lost",
        "this member lost its lease; its partitions go to the others",
        (("group", "name"), ("lease_id", "")),
    ),
    Signal(
        "group.left_late",
        "the bus closed or the store was too slow while this member left; its lease runs out by itself",
        (("group", "name"), ("lease_id", "")),
    ),
    Signal(
        "group.newer_version",
        "an event is of a newer version than this member knows; it gives the partition up to a newer one",
        (("group", "name"), ("partition", "number"), ("error", "")),
    ),
    Signal(
        "group.parked",
        "a record failed; its key is set aside, until the next try or, without one, until a person helps",
        (
            ("group", "name"),
            ("key", ""),
            ("position", "log position"),
            ("attempt", ""),
            ("retry_in", "s"),
            ("error", ""),
        ),
    ),
    Signal(
        "group.skipped",
        "a handler skipped a record on purpose",
        (("group", "name"), ("position", "log position"), ("reason", "")),
    ),
    Signal(
        "hand.forgotten",
        "a result was on its way when the lease was lost or the process ended, and what became of it could not be asked",
        (("work_id", "event id"), ("error", "")),
    ),
    Signal(
        "hand.raised",
        "a hand's own code raised; that is the outcome of its effect, with the traceback here",
        (("topic", ""), ("error", "")),
    ),
    Signal(
        "hand.superseded",
        "a result came too late: the item was taken over or has ended, so the result ends nothing",
        (("work_id", "event id"), ("verdict", "name")),
    ),
    Signal(
        "hand.undecodable",
        "an item's intent cannot be decoded by this process; it is left to others",
        (("work_id", "event id"), ("error", "")),
    ),
    Signal(
        "hands.lease_lost",
        "this process lost its lease, so the effects that it was performing are cancelled; it goes on under a new one",
        (("worker", "name"),),
    ),
    Signal(
        "lease.lost",
        "the lease ran out or was closed by another process; what was held under it is fenced",
        (("lease_id", ""), ("owner", "name")),
    ),
    Signal(
        "lease.not_closed",
        "the store was busy or full when the lease was to be closed; it ends by its time, or when its process is found gone",
        (("lease_id", ""), ("error", "")),
    ),
    Signal(
        "lease.not_renewed",
        "the store was busy or full when the lease was to be renewed; it is tried again at the next turn",
        (("lease_id", ""), ("error", "")),
    ),
    Signal(
        "lease.reaped",
        "the process of a lease is gone, on this system; the lease is closed at once, and others take over",
        (("lease_id", ""), ("owner", "name")),
    ),
    Signal(
        "limit.pause",
        "a provider refused an effect for the moment; nobody begins one of this key until it is over",
        (("key", ""), ("seconds", "s")),
    ),
    Signal(
        "limit.unheard",
        "the store was busy or full when it was asked for a limit or told of it; what is held too much comes back later",
        (("error", ""),),
    ),
    Signal(
        "limit.waits",
        "effects wait for a slot or a rate of this key from now on; it is asked for again after the time",
        (("key", ""), ("effects", "number"), ("seconds", "s")),
    ),
    Signal(
        "mirror.again",
        "the NATS server or the store did not answer the relay; it begins again after the wait, and the log waits for nobody",
        (("error", ""), ("seconds", "s")),
    ),
    Signal(
        "mirror.differs",
        "the mirror is ahead of the log or differs from it; a new epoch began above all that it has shown",
        (("position", "log position"), ("reason", ""), ("epoch", "number")),
    ),
    Signal(
        "mirror.doubt",
        "a message was refused or not answered; the relay reads where the stream ends and goes on from there",
        (("position", "log position"), ("reason", "")),
    ),
    Signal(
        "mirror.lag",
        "every second: by how many positions the mirror is behind the log",
        (("positions", "number"), ("head", "log position")),
    ),
    Signal(
        "mirror.stopped",
        "the relay of this process stopped and needs a person: another log's stream, a mirror disturbed twice, or a new epoch",
        (("code", ""), ("reason", ""), ("advice", "")),
    ),
    Signal(
        "model.stream_event_unknown",
        "a provider streamed kinds of events that this version does not know; they were left out of the reply",
        (("kinds", "names"), ("model", "name")),
    ),
    Signal(
        "registry.again",
        "the store failed when this process looked who is there and whether it is well; it looks again in a second",
        (("error", ""),),
    ),
    Signal(
        "signals.again",
        "the NATS server cannot be had for signals of other processes; it is tried again after the wait, and the work waits for nobody",
        (("error", ""), ("seconds", "s")),
    ),
    Signal(
        "signals.dropped",
        "every ten seconds at most: somebody who listens was too slow; how many of all signals were dropped since the bus is open",
        (("dropped", "number"), ("sent", "number")),
    ),
    Signal(
        "signals.stopped",
        "signals of this process stay in it, and others' do not come, until a person mends what is wrong",
        (("code", ""), ("reason", ""), ("advice", "")),
    ),
    Signal(
        "store.again",
        "the store was busy or full when a group, the clock or a lease asked; it is asked again after the wait",
        (("error", ""), ("seconds", "s")),
    ),
    Signal(
        "tail.database",
        "the live tail comes from the database from now on: NATS is away, late or in doubt, or this process relays",
        (("position", "log position"), ("reason", "")),
    ),
    Signal(
        "tail.nats",
        "the live tail comes from NATS from now on, and the table of events is not asked for it",
        (("position", "log position"),),
    ),
)
"""Everything that is logged, by name. A new line of code that logs needs a line here; a test compares both."""

_OWN_PACKAGES: Final = ("hive_core_db", "hive_bus", "agents", "dashboard")
_correlation: ContextVar[str | None] = ContextVar("hive_correlation", default=None)


@dataclass(frozen=True, slots=True)
class Log:
    """Says lines of the table under a logger's name, with the correlation id of the context."""

    name: str

    def debug(self, event: str, /, **fields: Any) -> None:
        """For whoever follows a single message through the code."""
        self._say(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """Ordinary, and worth a line."""
        self._say(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """The hive helped itself, but somebody should look at it some day."""
        self._say(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Something needs a person."""
        self._say(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """As ``error``, with the traceback of the exception that is being handled."""
        self._say(logging.ERROR, event, fields, traceback=True)

    def _say(self, level: int, event: str, fields: dict[str, Any], *, traceback: bool = False) -> None:
        logger = logging.getLogger(self.name)
        if not logger.isEnabledFor(level):
            return
        correlation = _correlation.get()
        if correlation is not None:
            fields.setdefault("correlation_id", correlation)
        # For plain handlers the fields are part of the message; the structured ones read `hive`.
        words = [event, *(f"{name}={value!r}" for name, value in fields.items())]
        logger.log(level, "%s", " ".join(words), exc_info=traceback, extra={"hive": {**fields, "event": event}})


def get_logger(name: str) -> Log:
    """Make a module's logger, by custom ``_log``; it costs nothing until a line is said."""
    return Log(name)


def current_correlation() -> str | None:
    """The correlation id that this context works on, if any."""
    return _correlation.get()


@contextlib.contextmanager
def with_correlation(correlation_id: str | None) -> Iterator[None]:
    """Give every line said inside, also in tasks started there, this correlation id."""
    token = _correlation.set(correlation_id)
    try:
        yield
    finally:
        _correlation.reset(token)


def current_traceparent() -> str | None:
    """The W3C ``traceparent`` of the current OpenTelemetry span, to be kept in the metadata of events.

    None without a valid span, and wherever the program does not use OpenTelemetry, which is not loaded here.
    """
    trace = sys.modules.get("opentelemetry.trace")
    # Another thread may be in the middle of importing it.
    get_current_span = getattr(trace, "get_current_span", None)
    if get_current_span is None:
        return None
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def configure_logging(*, json: bool, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Write the lines of this process for people, or one JSON object each; for programs, never for libraries.

    The hive's own lines are written from ``level`` upwards, those of other packages from WARNING (or from
    ``level``, if that is higher). A second call replaces the first.

    Args:
        json: JSON objects with UTC times instead of text.
        level: A level's name of the standard library: DEBUG, INFO, WARNING or ERROR.
        stream: Where to write; standard error by default, for standard output is for data.
    """
    target = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(target)
    handler.set_name("hive")
    handler.setFormatter(_formatter(json=json, colors=target.isatty() and not os.environ.get("NO_COLOR")))
    root = logging.getLogger()
    for old in [known for known in root.handlers if known.get_name() == "hive"]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))
    for package in _OWN_PACKAGES:
        logging.getLogger(package).setLevel(number)


def _formatter(*, json: bool, colors: bool) -> logging.Formatter:
    import structlog

    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    )
    render = [structlog.processors.format_exc_info, renderer] if json else [renderer]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_fields,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )


def _with_fields(_: Any, __: str, line: Any) -> Any:
    """Put the fields of a line of ours in place of its message; give a foreign one the correlation id."""
    fields = getattr(line["_record"], "hive", None)
    if fields is not None:
        line.update(fields)
    elif (correlation := _correlation.get()) is not None:
        line["correlation_id"] = correlation
    return line
