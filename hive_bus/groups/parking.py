"""Parked keys: what fails is set aside, tried again with backoff, and released when it has caught up.

A key's row says from which position on its events wait. Only the owner of the
partition writes what becomes of it; what people want (``retry_parked``,
``discard_parked``) are events that the owner obeys. This module knows rows and rules;
who calls the handler is in ``handler.py``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hive_bus.envelope import encode_event
from hive_bus.event import Event
from hive_bus.events.system import EventDiscarded, KeyParked, KeyUnparked
from hive_bus.groups.dispatch import Key, key_function
from hive_bus.reading import to_record
from hive_bus.record import Record
from hive_bus.tail import PAGE
from hive_bus.topics import expand
from hive_core_db.records import AppendRequest, NewEvent, ParkedKey, ParkKey, StoredEvent
from hive_errors import HiveError, NotFound, UndecodableEvent, UpcasterMissing

if TYPE_CHECKING:
    from hive_bus.bus import Bus

STREAM: Final = "system"
COMMANDS: Final = (KeyUnparked.TOPIC, EventDiscarded.TOPIC)
_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed record is tried again: ``first`` s after the first failure, doubled each time up to ``longest`` s.

    After ``attempts`` failures it waits for a person. ``jitter`` is the share of the wait that is left to chance.
    """

    attempts: int = 8
    first: float = 1.0
    longest: float = 300.0
    jitter: float = 0.25

    def wait(self, attempt: int, chance: float) -> float | None:
        """Seconds until the next try after failure number ``attempt``; None: no more. ``chance`` is in [0, 1)."""
        if attempt >= self.attempts:
            return None
        full = min(self.first * 2.0 ** min(attempt - 1, 60), self.longest)
        return full * (1 - self.jitter + self.jitter * chance)


@dataclass(slots=True, eq=False, kw_only=True)
class Parked:
    """A parked key as its owner knows it.

    Its records from ``from_position`` on wait, ``reach`` being the last one that passed.
    ``due`` is when it is tried again, in the loop's time; None: when a person says so.
    """

    key: str
    from_position: int
    reach: int
    attempt: int
    due: float | None
    error: str
    discarded: set[int] = field(default_factory=set)
    running: bool = False

    def row(self, group: str, partition: int, *, retry_in: float | None) -> ParkKey:
        """The change that stores it."""
        return ParkKey(
            group=group,
            key=self.key,
            partition=partition,
            from_position=self.from_position,
            attempt=self.attempt,
            retry_in=None if retry_in is None else max(0, round(retry_in * _MICROSECONDS)),
            error=self.error,
        )


def hopeless(problem: Exception) -> bool:
    """Whether trying again cannot help: the event does not fit its class, and neither changes by waiting."""
    return isinstance(problem, UndecodableEvent | UpcasterMissing)


def describe(problem: Exception) -> str:
    """An error as a row keeps it."""
    text = str(problem) if isinstance(problem, HiveError) else f"{type(problem).__name__}: {problem}"
    return text[:2000]


def system_event(bus: Bus, event: Event, *, cause: StoredEvent | None, group: str) -> NewEvent:
    """An event of the stream ``system``, in the trace of ``cause``."""
    return encode_event(
        event,
        stream=STREAM,
        correlation_id=cause.correlation_id if cause is not None else STREAM,
        causation_id=cause.event_id if cause is not None else None,
        source=group,
        event_id=bus.ids.event_id(bus.now()),
    )


def parked_event(bus: Bus, group: str, parked: Parked, record: Record) -> NewEvent:
    """``system.parked`` for a record that failed."""
    body = KeyParked(group=group, key=parked.key, position=record.position, attempt=parked.attempt, error=parked.error)
    return system_event(bus, body, cause=record, group=group)


async def records_of(
    bus: Bus, key: Key, value: str, patterns: tuple[str, ...], *, after: int, until: int
) -> AsyncGenerator[Record, None]:
    """The group's records of one key with ``after < position <= until``, in order, by the best index there is."""
    log, of = bus.store.log, key_function(key)
    topics = set(expand(patterns, await log.topics())) if patterns else None
    place = after
    if key == "stream":
        place = await _version_before(bus, value, after)
    while True:
        if key == "stream":
            rows = await log.read_stream(value, after=place, limit=PAGE)
        elif key == "correlation":
            rows = await log.read_correlation(value, after=place, limit=PAGE)
        else:
            rows = await log.read(place, limit=PAGE, topics=None if topics is None else sorted(topics), until=until)
        for row in rows:
            record = to_record(row)
            wanted = after < row.position <= until and (topics is None or row.topic in topics)
            if wanted and (isinstance(key, str) or of(record) == value):
                yield record
        if len(rows) < PAGE or rows[-1].position >= until:
            return
        place = rows[-1].version if key == "stream" else rows[-1].position


async def _version_before(bus: Bus, stream: str, after: int) -> int:
    """A version of the stream below which nothing lies above position ``after``: that of the record behind it."""
    rows = await bus.store.log.read(after, limit=1)
    return rows[0].version - 1 if rows and rows[0].stream == stream else 0


async def parked_keys(bus: Bus, group: str | None = None) -> list[ParkedKey]:
    """Every key that is set aside, of one group or of all."""
    return await bus.store.checkpoints.parked(group)


async def retry_parked(bus: Bus, group: str, key: str) -> int:
    """Ask the group to try a parked key again now; returns the request's position. Raises :class:`NotFound`."""
    row = await _row(bus, group, key)
    return await _tell(bus, row, KeyUnparked(group=group, key=key), from_position=row.from_position)


async def discard_parked(bus: Bus, group: str, key: str, *, reason: str) -> int:
    """Let the record that a parked key fails on count as handled, and go on behind it.

    Returns the request's position. Raises :class:`NotFound`.
    """
    row = await _row(bus, group, key)
    event = EventDiscarded(group=group, key=key, position=row.from_position, reason=reason)
    return await _tell(bus, row, event, from_position=row.from_position + 1)


async def _row(bus: Bus, group: str, key: str) -> ParkedKey:
    for row in await bus.store.checkpoints.parked(group):
        if row.key == key:
            return row
    raise NotFound(kind="parked key", name=key, reason=f"group {group} has not set it aside")


async def _tell(bus: Bus, row: ParkedKey, event: Event, *, from_position: int) -> int:
    # The row is for owners that look at rows; the owner that follows events sets it right, whatever it finds.
    cause = await bus.store.log.read(row.from_position - 1, limit=1)
    request = AppendRequest(
        epoch=bus.writer.epoch,
        events=(system_event(bus, event, cause=cause[0] if cause else None, group=bus.source),),
        parks=(
            ParkKey(
                group=row.group,
                key=row.key,
                partition=row.partition,
                from_position=from_position,
                attempt=0,
                retry_in=0,
                error=row.error,
            ),
        ),
    )
    return (await bus.submit(request)).first


async def discarded(bus: Bus, of: Callable[[str], bool]) -> dict[int, str]:
    """Positions that people discarded for the groups that ``of`` says yes to, and of which key: a rebuild leaves them out."""
    found = [record.data async for record in bus.read(EventDiscarded.TOPIC)]
    return {int(data["position"]): str(data.get("key")) for data in found if of(str(data.get("group")))}
