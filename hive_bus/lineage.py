"""Lineage: which events a run consists of: its ancestors' up to where it was forked, then its own.

A branch is a run whose first event is ``workflow.forked``: it shares the history of ``parent`` up to ``position``,
and nothing is copied. Records keep the correlation id they were recorded under; positions ascend along a lineage.
This module reads. What brains do with an inherited past is ``brains/fold.py``'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from pydantic_core import from_json, to_json

from hive_core_db.records import StoredEvent
from hive_core_db.store import EventLog

FORKED: Final = "workflow.forked"
PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a run's history: the events of ``correlation_id`` with ``after < position <= upto`` (None: no end yet).

    ``forked`` is the event that began it, None for the oldest. ``edits`` are bodies that descendants gave to
    inherited events, by event id: whoever reads the lineage sees these.
    """

    correlation_id: str
    after: int = 0
    upto: int | None = None
    forked: StoredEvent | None = None
    edits: Mapping[str, Any] = field(default_factory=dict)

    def cut(self, rows: Sequence[StoredEvent]) -> list[StoredEvent]:
        """The rows, of this segment's correlation and ascending, that belong to it, with its edits."""
        last = self.upto
        if not self.after and last is None and not self.edits:
            return list(rows)
        kept = [row for row in rows if row.position > self.after and (last is None or row.position <= last)]
        return [_edited(row, self.edits) for row in kept] if self.edits else kept

    def ends_before(self, position: int) -> bool:
        """Whether nothing of it lies at ``position`` or behind."""
        return self.upto is not None and position > self.upto


def _edited(row: StoredEvent, edits: Mapping[str, Any]) -> StoredEvent:
    body = edits.get(row.event_id)
    if body is None:
        return row
    payload = to_json(body)
    return row._replace(payload=payload.decode(), digest=sha256(payload).hexdigest())


async def lineage(log: EventLog, run: str) -> tuple[Segment, ...]:
    """The segments of a run or any other correlation, oldest ancestor first; one where it is no branch.

    It costs one read of an index for each ancestor, however long the histories are.
    """
    segments: list[Segment] = []
    upto: int | None = None
    edits: Mapping[str, Any] = {}
    while True:
        forked = await _forked(log, run)
        if forked is None:
            segments.append(Segment(correlation_id=run, upto=upto, edits=edits))
            return tuple(reversed(segments))
        begins = forked.position
        if upto is None or begins <= upto:
            segments.append(Segment(correlation_id=run, after=begins - 1, upto=upto, forked=forked, edits=edits))
        body = from_json(forked.payload)
        edits = {**body.get("edits", {}), **edits}
        # What was forked in the past of its own parent never had the events in between.
        upto = min(body["position"], begins - 1, *([] if upto is None else [upto]))
        run = body["parent"]


async def ancestry(log: EventLog, run: str) -> list[str]:
    """A run and all that it was forked from, the youngest first; also those of which it inherits nothing themselves."""
    found: list[str] = []
    while run not in found:
        found.append(run)
        forked = await _forked(log, run)
        if forked is not None:
            run = from_json(forked.payload)["parent"]
    return found


async def _forked(log: EventLog, run: str) -> StoredEvent | None:
    """The event that began the run as a branch of another."""
    rows = await log.read_stream(f"{run}/run", limit=1)
    return rows[0] if rows and origin(run, rows[0]) is not None else None


def origin(run: str, first: StoredEvent) -> tuple[str, int] | None:
    """The parent that the first event of a run names, and where the run was forked from it; None where it is no branch."""
    if first.topic != FORKED:
        return None
    body = from_json(first.payload)
    # Anybody may publish the topic; without a parent, or with itself, it begins a run of its own.
    parent, position = body.get("parent"), body.get("position", 0)
    return (parent, position) if parent not in (None, "", run) and position > 0 else None


def run_of(stream: str) -> str:
    """The run that a stream belongs to, if it is a run's: ``<run>/drone/fix.1``."""
    return stream.partition("/")[0]


async def read_branch(
    log: EventLog, segments: Sequence[Segment], *, after: int = 0, upto: int | None = None
) -> AsyncIterator[list[StoredEvent]]:
    """The events of a lineage with ``after < position <= upto``, in log order, a page at a time (no page is empty)."""
    for segment in segments:
        place = max(after, segment.after)
        while not segment.ends_before(place + 1) and (upto is None or place < upto):
            rows = await log.read_correlation(segment.correlation_id, after=place, limit=PAGE)
            kept = segment.cut(rows)
            if upto is not None:
                kept = [row for row in kept if row.position <= upto]
            if kept:
                yield kept
            if len(rows) < PAGE:
                break
            place = rows[-1].position


async def read_branch_stream(log: EventLog, segments: Sequence[Segment], name: str) -> AsyncIterator[list[StoredEvent]]:
    """The events of the stream ``name`` within a lineage's runs (``drone/fix.1``), in log order, a page at a time.

    A branch's stream goes on from its parent's; its versions count from 1.
    """
    for segment in segments:
        stream, version = f"{segment.correlation_id}/{name}", 0
        while True:
            rows = await log.read_stream(stream, after=version, limit=PAGE)
            kept = segment.cut(rows)
            if kept:
                yield kept
            if len(rows) < PAGE or segment.ends_before(rows[-1].position + 1):
                break
            version = rows[-1].version


async def end_of_append(log: EventLog, position: int) -> int:
    """The last position of the append that ``position`` lies in; 0 where nothing lies there."""
    rows = await log.read(position - 1, limit=1)
    if not rows or rows[0].position != position:
        return 0
    first = rows[0].append_first
    while page := await log.read(position, limit=PAGE):
        own = [row for row in page if row.append_first == first]
        position = own[-1].position if own else position
        if len(own) < len(page):
            break
    return position
