"""Moments: what people write where something takes `--at`, and the position in the log that it means.

A position (``812``), an ordinal within the run (``@12``), a time (``14:03``, ``2026-11-20T14:03``), or a label.
One parser for everything that looks back or branches off. It knows nothing of what is done with a position.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from hive_bus.event import Draft
from hive_bus.events.workflow import WorkflowLabelled
from hive_bus.history import first_recorded
from hive_bus.lineage import Segment, lineage
from hive_bus.record import Record
from hive_core_db.store import EventLog
from hive_errors import MomentInvalid, NotFound

if TYPE_CHECKING:
    from hive_bus.bus import Bus

FORMS: Final = (
    "a position (812), an event of the run (@12), a time (14:03, 2026-11-20T14:03), or a label (before-refactor)"
)
_LABEL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_DATE: Final = re.compile(r"\d{4}-\d")
_CLOCK: Final = re.compile(r"\d{1,2}:")
_TIME: Final = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)?(?:(?:^|(?<=\d)[T ])(?P<clock>\d\d:\d\d)(?P<seconds>:\d\d)?(?P<fraction>\.\d{1,6})?)?"
    r"(?P<zone>Z|[+-]\d\d:\d\d)?"
)
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A place in the log: everything at or before ``position`` had happened. ``time`` is when, UTC microseconds."""

    given: str
    position: int
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A name that somebody gave to a position of a run; ``said_at`` is the position of the event that says so."""

    run: str
    name: str
    position: int
    said_at: int
    by: str


async def moment_of(bus: Bus, given: str, *, run: str | None = None, field: str = "--at") -> Moment:
    """The moment that ``given`` means; ``run`` is a correlation id, without which there are no ordinals.

    A time without a zone is the local one, today's without a date, and lasts until the end of what it says: ``14:03``
    holds everything recorded in that minute. A label is the run's own; without a run, that of whichever run has it.

    Raises :class:`MomentInvalid`, which names ``field``.
    """
    text = given.strip()
    wrong = _Wrong(field, given)
    if text.isascii() and text.isdigit():
        return await _at_position(bus, int(text), run, wrong)
    if text.startswith("@"):
        return await _at_ordinal(bus, text[1:], run, wrong)
    if _DATE.match(text) or _CLOCK.match(text):
        return await _at_time(bus, text, run, wrong)
    if _LABEL.fullmatch(text):
        return await _at_label(bus, text, run, wrong)
    raise wrong("it is no moment", f"write {FORMS}")


async def labels(log: EventLog, run: str | None = None) -> list[Label]:
    """Every label of a run, or of all runs, by position; one that was set again means what was said last.

    A branch has its ancestors' labels too, as far as they are about what it inherits; its own come first.
    """
    found: dict[tuple[str, str], Label] = {}
    after = 0
    while page := await log.read(after, limit=_PAGE, topics=[WorkflowLabelled.TOPIC]):
        for record in map(Record._make, page):
            if isinstance(record.event, WorkflowLabelled):
                one = _label(record, record.event)
                found[one.run, one.name] = one
        after = page[-1].position
    known = found.values() if run is None else _inherited(found, await lineage(log, run))
    return sorted(known, key=lambda label: (label.position, label.said_at))


def _inherited(found: Mapping[tuple[str, str], Label], segments: Sequence[Segment]) -> Collection[Label]:
    """The labels that hold in a lineage, of each name the youngest run's."""
    own: dict[str, Label] = {}
    for segment in segments:
        for (run, name), label in found.items():
            if run == segment.correlation_id and not segment.ends_before(label.position):
                own[name] = label
    return own.values()


async def set_label(bus: Bus, run: str, name: str, *, at: Moment | None = None, by: str = "") -> Label:
    """Name a moment of a run, by default its last event: one event. A name that it has already moves.

    Raises :class:`MomentInvalid` for a name that could be another form, :class:`NotFound` if ``run`` is no run.
    """
    if not _LABEL.fullmatch(name):
        reason = "a label begins with a letter; letters, digits and . _ - follow, 64 at most"
        raise MomentInvalid(field="LABEL", value=name, reason=reason, remedy="such as before-refactor")
    if not await bus.store.log.read_stream(f"{run}/run", limit=1):
        raise NotFound(kind="run", name=run, reason="that correlation id belongs to no run")
    position = at.position if at is not None else await bus.store.log.last_of_correlation(run)
    event = WorkflowLabelled(label=name, position=position)
    metadata = {"by": by} if by else None
    said_at = await bus.publish(Draft(event=event, stream=f"{run}/run", correlation_id=run, metadata=metadata))
    return Label(run=run, name=name, position=position, said_at=said_at, by=by)


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Makes the error about one given text."""

    field: str
    value: str

    def __call__(self, reason: str, remedy: str) -> MomentInvalid:
        return MomentInvalid(field=self.field, value=self.value, reason=reason, remedy=remedy)


async def _at_position(bus: Bus, position: int, run: str | None, wrong: _Wrong) -> Moment:
    log = bus.store.log
    head = await log.head()
    if not 1 <= position <= head:
        raise wrong(
            f"the log has positions 1 to {head}" if head else "the log is empty", "`hive events` shows positions"
        )
    rows = await log.read(position - 1, limit=1, until=position)
    if not rows:
        raise wrong("no event has this position: an epoch jumped over it", "`hive events` shows positions")
    await _within(log, position, run, wrong)
    # Of a run that was imported the times are those that it had; the log as a whole has its own.
    row = rows[0] if run is None else first_recorded(rows[0])
    return Moment(given=wrong.value, position=position, time=row.recorded_at)


async def _at_ordinal(bus: Bus, text: str, run: str | None, wrong: _Wrong) -> Moment:
    if run is None:
        raise wrong("an ordinal counts the events of one run, and no run is meant here", "write a position or a time")
    if not (text.isascii() and text.isdigit()):
        raise wrong("behind @ stands the number of an event of the run", "write @1 for its first event")
    log, number, count = bus.store.log, int(text), 0
    for segment in await lineage(log, run):
        before = await log.count_correlation(segment.correlation_id, until=segment.after)
        upto = segment.upto if segment.upto is not None else await log.head()
        there = await log.count_correlation(segment.correlation_id, until=upto) - before
        if count < number <= count + there:
            position = await log.nth_of_correlation(segment.correlation_id, before + number - count)
            return await _at_position(bus, position, run, wrong)
        count += there
    raise wrong(f"run {run} has events @1 to @{count}", f"write @{count} for its last one")


async def _at_time(bus: Bus, text: str, run: str | None, wrong: _Wrong) -> Moment:
    now = bus.now()
    first, last = _span(text, now, wrong)
    if first > now and _DATE.match(text):
        raise wrong("it is yet to come", f"it is {_local(now)} now")
    if first > now:
        again = datetime.fromtimestamp(first / 1_000_000, UTC).astimezone() - timedelta(days=1)
        raise wrong("it is yet to come", f"for yesterday's write {again:%Y-%m-%dT%H:%M}")
    position = await bus.store.log.position_at(last)
    if not position:
        rows = await bus.store.log.read(0, limit=1)
        began = f"the first event was recorded at {_local(rows[0].recorded_at)}" if rows else "the log is empty"
        raise wrong(f"nothing had been recorded by {_local(last)}", began)
    await _within(bus.store.log, position, run, wrong)
    return Moment(given=wrong.value, position=position, time=min(last, now))


async def _at_label(bus: Bus, name: str, run: str | None, wrong: _Wrong) -> Moment:
    known = await labels(bus.store.log, run)
    meant = [label for label in known if label.name == name]
    if not meant:
        whose = f"run {run}" if run is not None else "any run"
        close = get_close_matches(name, {label.name for label in known}, n=1)
        raise wrong(f"no label of {whose} is called so", f"did you mean {close[0]}?" if close else f"write {FORMS}")
    if len(meant) > 1:
        others = ", ".join(f"{label.position} in run {label.run}" for label in meant[:5])
        raise wrong(f"it may mean {others}", "write the position that you mean")
    return await _at_position(bus, meant[0].position, run, wrong)


async def _within(log: EventLog, position: int, run: str | None, wrong: _Wrong) -> None:
    """Refuse a moment before a run began: there is nothing of it to look at."""
    if run is None:
        return
    first = await log.nth_of_correlation((await lineage(log, run))[0].correlation_id, 1)
    if position < first:
        raise wrong(f"run {run} began later, at position {first}", "write @1 for its first event")


def _span(text: str, now: int, wrong: _Wrong) -> tuple[int, int]:
    """The first and the last microsecond of the time that is said."""
    parts = _TIME.fullmatch(text)
    if parts is None or not (parts["day"] or parts["clock"]) or (parts["fraction"] and not parts["seconds"]):
        raise wrong(
            "it is no time", "write 14:03, 14:03:20.5, 2026-11-20 or 2026-11-20T14:03, with +01:00 or Z if need be"
        )
    try:
        zone = _zone(parts["zone"])
        today = datetime.fromtimestamp(now / 1_000_000, UTC).astimezone(zone).date().isoformat()
        said = f"{parts['day'] or today}T{parts['clock'] or '00:00'}{parts['seconds'] or ':00'}"
        first = datetime.fromisoformat(said)
    except ValueError as problem:
        raise wrong(str(problem), "write it as a clock and a calendar show it: 2026-11-20T14:03") from None
    digits = len(parts["fraction"] or ".") - 1
    first += timedelta(microseconds=int((parts["fraction"] or ".0")[1:].ljust(6, "0")))
    lasts = (
        timedelta(microseconds=10 ** (6 - digits))
        if digits
        else timedelta(seconds=1)
        if parts["seconds"]
        else timedelta(minutes=1)
        if parts["clock"]
        else timedelta(days=1)
    )
    return _micros(first, zone), _micros(first + lasts, zone) - 1


def _zone(said: str | None) -> tzinfo | None:
    """The zone that a time names; None: the local one, with its summer time."""
    if said is not None and said[1:3] > "23":
        raise ValueError("a zone is less than 24 hours from UTC")
    return datetime.fromisoformat(f"2000-01-01T00:00{said}").tzinfo if said else None


def _micros(naive: datetime, zone: tzinfo | None) -> int:
    aware = naive.replace(tzinfo=zone) if zone is not None else naive.astimezone()
    return round((aware - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def _local(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds / 1_000_000, UTC).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _label(record: Record, event: WorkflowLabelled) -> Label:
    return Label(
        run=record.correlation_id,
        name=event.label,
        position=event.position,
        said_at=record.position,
        by=str(record.metadata.get("by", "")),
    )
