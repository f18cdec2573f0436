"""History files: runs as JSON Lines, out of one log and into another.

A line is one event by the log's columns, its whole body in it, however large. Into another log go the same event ids,
streams, bodies and deciders; positions are that log's, and so is ``recorded_at``, which never falls: when and where an
event was first recorded is kept in its metadata as ``imported``, and ``history`` tells that time. No effect of what is
imported begins again: the queue is left alone, so a run with open effects is refused.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from hive_bus.brains.fold import SAME_APPEND
from hive_bus.codec import decode
from hive_bus.effects import Intent
from hive_bus.event import event_class
from hive_bus.history import IMPORTED
from hive_bus.lineage import FORKED, Segment, ancestry, origin, read_branch
from hive_core_db.records import AlreadyThere, Appended, AppendRequest, NewEvent, NotQuiet, StoredEvent
from hive_core_db.store import EventLog
from hive_errors import HistoryUnusable

if TYPE_CHECKING:
    from hive_bus.bus import Bus

_position: Final = itemgetter(0)
_LABELLED: Final = "workflow.labelled"
_PAGE: Final = 1000
_STORED: Final = TypeAdapter(StoredEvent)


async def export_history(log: EventLog, file: Path, *, run: str | None = None) -> int:
    """Write a run with what it inherits, or (None) all correlations but the hive's own, in log order; how many events.

    Raises :class:`HistoryUnusable` where ``file`` cannot be written.
    """
    count = 0
    try:
        with file.open("w", encoding="utf-8") as out:
            async for page in _of_run(log, run) if run is not None else _of_all(log):
                out.writelines(json.dumps(_first(row)._asdict(), ensure_ascii=False) + "\n" for row in page)
                count += len(page)
    except OSError as problem:
        raise HistoryUnusable(file=str(file), reason=f"it cannot be written: {problem}") from problem
    return count


def read_history(file: Path) -> list[StoredEvent]:
    """The events of a history file, by position. Raises :class:`HistoryUnusable`, which names the line."""
    rows = []
    try:
        # Only here does a line end: bodies may hold other characters that `splitlines` takes for an end.
        text = file.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise HistoryUnusable(file=str(file), reason=f"it cannot be read: {problem}") from problem
    if not text:
        raise HistoryUnusable(file=str(file), reason="it holds no event")
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            row = _row(line)
        except ValueError as problem:
            raise HistoryUnusable(file=f"{file}:{number}", reason=f"it is {problem}") from problem
        if sha256(row.payload.encode()).hexdigest() != row.digest:
            raise HistoryUnusable(file=f"{file}:{number}", reason="its body is not the one that its digest is of")
        rows.append(row)
    if reason := _broken(rows):
        raise HistoryUnusable(file=str(file), reason=reason)
    return sorted(rows, key=_position)


def _row(line: str) -> StoredEvent:
    """The event of a line. Raises ValueError, which says what it is instead."""
    try:
        row = _STORED.validate_json(line, strict=True)
        bodies = from_json(row.payload), from_json(row.metadata or "{}")
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        columns = [StoredEvent._fields[part] if isinstance(part, int) else part for part in first["loc"]]
        said = ": ".join([*columns, first["msg"]])
        raise ValueError(f"no event of an exported history: {said}") from problem
    except ValueError as problem:
        raise ValueError(f"no event of an exported history: its body is no JSON: {problem}") from problem
    if not all(isinstance(body, dict) for body in bodies):
        raise ValueError("no event of an exported history: its body is no object")
    return row


def _broken(rows: Sequence[StoredEvent]) -> str:
    """What of a file was lost or doubled; empty where nothing was: a run's own streams are in it from their first event on."""
    runs = {row.correlation_id for row in rows if row.stream == f"{row.correlation_id}/run"}
    for name in ("event_id", "position"):
        twice = [value for value, count in Counter(getattr(row, name) for row in rows).items() if count > 1]
        if twice:
            return f"two of its events have the {name.replace('_', ' ')} {twice[0]}"
    last: dict[str, int] = {}
    for row in sorted(rows, key=_position):
        if row.correlation_id in runs and row.stream.startswith(f"{row.correlation_id}/"):
            if row.version != (due := last.get(row.stream, 0) + 1):
                return f"event {due} of stream {row.stream} is not in it"
            last[row.stream] = due
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of the correlations that belong together: ``events`` of them, or they were there already."""

    correlations: tuple[str, ...]
    events: int
    already: bool


async def import_history(bus: Bus, rows: Sequence[StoredEvent]) -> list[Imported]:
    """Append what a history file holds, each run whole or not at all; the hive's own events are left out.

    What is there already, from an earlier import, stays as it is. Raises :class:`HistoryUnusable` if a correlation id
    of the file is another's here, or a run has effects that have not ended; nothing of it is appended then.
    """
    families = _families([row for row in rows if not _is_own(row)])
    for family in families:
        _refuse_orphans(family)
        _refuse_open(family)
    moved: dict[int, int] = {}
    return [await _import(bus, family, moved) for family in families]


# Out.


async def _of_run(log: EventLog, run: str) -> AsyncIterator[list[StoredEvent]]:
    """A run and all of its ancestors, each to its own end: what it inherits is only whole with what became of it."""
    rows: list[StoredEvent] = []
    for name in await ancestry(log, run):
        async for page in read_branch(log, [Segment(correlation_id=name)]):
            rows += page
    yield sorted(rows, key=_position)


async def _of_all(log: EventLog) -> AsyncIterator[list[StoredEvent]]:
    after = 0
    while page := await log.read(after, limit=_PAGE):
        yield [row for row in page if not _is_own(row)]
        after = page[-1].position


def _is_own(row: StoredEvent) -> bool:
    """Whether the hive said it about itself: agents and epochs are those of the log in which it was said."""
    return row.correlation_id == "system" or row.stream == "system" or row.topic.startswith("agent.")


def _first(row: StoredEvent) -> StoredEvent:
    """The row with the time at which it was recorded before it was imported, and without a word of that."""
    metadata: dict[str, Any] = from_json(row.metadata) if row.metadata else {}
    said = metadata.pop(IMPORTED, None)
    if said is None:
        return row
    kept = to_json(metadata).decode() if metadata else None
    return row._replace(recorded_at=said["recorded_at"], metadata=kept)


# In.


def _families(rows: Sequence[StoredEvent]) -> list[list[StoredEvent]]:
    """Rows that must be imported together: of one correlation, one stream, or a run and its branches."""
    family: dict[str, str] = {}

    def head(name: str) -> str:
        while family.setdefault(name, name) != name:
            family[name] = name = family[family[name]]
        return name

    for row in rows:
        family[head(f"s {row.stream}")] = head(f"c {row.correlation_id}")
        if row.topic == FORKED:
            family[head(f"c {from_json(row.payload).get('parent')}")] = head(f"c {row.correlation_id}")
    found: dict[str, list[StoredEvent]] = {}
    for row in rows:
        found.setdefault(head(f"c {row.correlation_id}"), []).append(row)
    return list(found.values())


def _refuse_orphans(rows: Sequence[StoredEvent]) -> None:
    there = {row.correlation_id for row in rows}
    for branch, (parent, _) in _origins(rows).items():
        if parent not in there:
            reason = f"it is a branch of {parent}, of which the file holds nothing"
            raise HistoryUnusable(file=f"of {branch}", reason=reason)


def _origins(rows: Sequence[StoredEvent]) -> dict[str, tuple[str, int]]:
    """The parents of all branches, and where they were forked from them."""
    firsts = {row.correlation_id: row for row in rows if row.version == 1 and row.stream == f"{row.correlation_id}/run"}
    found = {run: origin(run, first) for run, first in firsts.items()}
    return {run: come for run, come in found.items() if come is not None}


def _refuse_open(rows: Sequence[StoredEvent]) -> None:
    ends = {(row.causation_id, row.topic) for row in rows}
    for row in rows:
        cls = event_class(row.topic)
        if cls is None or not issubclass(cls, Intent):
            continue
        intent = decode(row.topic, row.schema_version, row.payload)
        if not isinstance(intent, Intent) or intent.work() is None:
            continue
        if not any((row.event_id, topic) in ends for topic in intent.ends()):
            reason = f"its effect {row.topic} at position {row.position} has not ended: it would begin again here"
            raise HistoryUnusable(file=f"of {row.correlation_id}", reason=reason)


class _Past:
    """Of which events the histories in a file consist, by the positions that they had: labels tell no history."""

    def __init__(self, rows: Sequence[StoredEvent]) -> None:
        self._own: dict[str, list[int]] = {}
        self._forked = _origins(rows)
        for row in rows:
            if row.topic != _LABELLED:
                self._own.setdefault(row.correlation_id, []).append(row.position)

    def last(self, run: str, position: int) -> int:
        """The last event of a history at or before a position; its first one where all lie behind."""
        while not (number := bisect_right(self._own[run], position)) and run in self._forked:
            run, before = self._forked[run]
            position = min(position, before)
        return self._own[run][max(number - 1, 0)]


@dataclass(slots=True)
class _Moves:
    """Where events lie in the log they came from, and where they are in this one."""

    known: dict[int, int]
    past: _Past
    here: dict[int, int] = field(default_factory=dict)

    def cause(self, position: int | None) -> int | None:
        """The cause of a decision, as the log takes it."""
        if position is None:
            return None
        return SAME_APPEND - self.here[position] if position in self.here else self.known.get(position)

    def place(self, run: str, position: int) -> int:
        """The last imported event of a run's history at or before a position."""
        return self.known[self.past.last(run, position)]


async def _import(bus: Bus, rows: Sequence[StoredEvent], known: dict[int, int]) -> Imported:
    """A family: its events in one append, but for what names positions of its own, which goes behind them."""
    correlations = tuple(dict.fromkeys(row.correlation_id for row in rows))
    past = _Past(rows)
    added = 0
    for part in _parts(rows):
        moves = _Moves(known, past, {row.position: number for number, row in enumerate(part)})
        new = tuple(_new(row, moves) for row in part)
        fresh = {row.correlation_id: 0 for row in part if row.topic != _LABELLED}
        verdict = await bus.writer.append(AppendRequest(epoch=bus.writer.epoch, events=new, quiet=fresh))
        if not isinstance(verdict, Appended | AlreadyThere):
            taken = "other events of that correlation id" if isinstance(verdict, NotQuiet) else "some of these events"
            reason = f"this log has {taken} already"
            raise HistoryUnusable(file=f"of {', '.join(correlations)}", reason=reason)
        added += len(part) if isinstance(verdict, Appended) else 0
        known |= {row.position: verdict.first + number for number, row in enumerate(part)}
    return Imported(correlations=correlations, events=added, already=not added)


def _parts(rows: Sequence[StoredEvent]) -> list[list[StoredEvent]]:
    """Rows in the order of their appends: a branch behind what it inherits, labels behind what they name."""
    parts: dict[str, list[StoredEvent]] = {}
    labels = []
    for row in rows:
        if row.topic == _LABELLED:
            labels.append(row)
        else:
            parts.setdefault(row.correlation_id, []).append(row)
    branches = [part for part in parts.values() if part[0].topic == FORKED]
    roots = [row for part in parts.values() if part[0].topic != FORKED for row in part]
    return [part for part in (sorted(roots, key=_position), *branches, labels) if part]


def _new(row: StoredEvent, moves: _Moves) -> NewEvent:
    first = _first(row)
    metadata: dict[str, Any] = from_json(first.metadata) if first.metadata else {}
    metadata[IMPORTED] = {"position": row.position, "recorded_at": first.recorded_at}
    payload, digest = row.payload, row.digest
    if row.topic in {_LABELLED, FORKED}:
        # What names a position names it in this log's numbers.
        body = from_json(payload)
        payload = to_json(body | {"position": moves.place(row.correlation_id, body["position"])}).decode()
        digest = sha256(payload.encode()).hexdigest()
    return NewEvent(
        event_id=row.event_id,
        stream=row.stream,
        topic=row.topic,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        cause_position=moves.cause(row.cause_position),
        decided_by=row.decided_by,
        source=row.source,
        schema_version=row.schema_version,
        payload=payload,
        metadata=to_json(metadata).decode(),
        digest=digest,
        occurred_at=row.occurred_at,
    )
