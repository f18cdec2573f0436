"""What the append call is told, and what its answer means: events as columns, changes as arrays, verdicts from numbers.

Pure: no connection passes here. The arguments are those of `ddl/postgres_append.sql`, in its order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import chain, repeat
from operator import add
from typing import Any, Final, NamedTuple

from hive_core_db.judge.batch import Batch
from hive_core_db.judge.facts import Document
from hive_core_db.judge.work_changes import WorkPlan
from hive_core_db.judge.work_row import COLUMNS, MUTABLE, all_values, changed_values
from hive_core_db.postgres.facts import Believed
from hive_core_db.postgres.hints import Hints
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    NotQuiet,
    ParkKey,
    StoredEvent,
    Verdict,
    ViewWrite,
    WorkClaim,
)

_EVENT_COLUMNS: Final = 16
_SIDE: Final = 6
_STORED: Final = 4
_CHANGED: Final = 1 + len(MUTABLE)
_NEW: Final = len(COLUMNS)
_TAIL: Final = 6
_ARGUMENTS: Final = 5 + _EVENT_COLUMNS + 5 + _SIDE + _STORED + 1 + _CHANGED + _NEW + _TAIL
APPEND: Final = f"SELECT hive_append({', '.join(f'${number}' for number in range(1, _ARGUMENTS + 1))})"
APPEND_ONE: Final = f"SELECT hive_append_one({', '.join(f'${number}' for number in range(1, 20))})"
_NUMBERS: Final = frozenset({5, 8, 12})
_PAYLOAD: Final = 9
_NOTHING_ELSE: Final = (None,) * (_ARGUMENTS - 26)

_event: Callable[[tuple[object, ...]], StoredEvent] = partial(tuple.__new__, StoredEvent)
_appended: Callable[[tuple[object, ...]], Appended] = partial(tuple.__new__, Appended)


class Marks(NamedTuple):
    """What parts the values of a column in one text, and what stands for null among them."""

    between: str = "\x1f"
    null: str = "\x1e"


class MarksOccur(Exception):
    """A value holds one of the marks: others must be taken."""


def joined(column: Sequence[str | None], marks: Marks) -> str:
    """The column as one text: the driver writes that ten times as fast as an array.

    Raises:
        MarksOccur: A value holds a mark.
        TypeError: A value is no text.
    """
    between, null = marks
    nulls = column.count(None)
    text = between.join([null if value is None else value for value in column] if nulls else column)  # type: ignore[arg-type]
    if text.count(between) != len(column) - 1 or text.count(null) != nulls:
        raise MarksOccur
    return text


class Columns(NamedTuple):
    """Events by column, as the call takes them and as the rows are made from them.

    ``versions`` count from the base of the stream, which is number ``bases`` (from 1) of ``streams``, or 0 where that is
    None. ``firsts`` are offsets of each event's append. None for a whole column: 1, each has its own, and each by itself.
    """

    events: tuple[Sequence[Any], ...]
    versions: Sequence[int] | None
    bases: Sequence[int | None] | None
    firsts: Sequence[int] | None
    streams: Sequence[str] | None

    def arguments(self, marks: Marks, *, lean: Sequence[int] = ()) -> list[object]:
        """The sixteen columns of the call; the payloads at the indexes of ``lean`` are stored elsewhere."""
        count = len(self.events[0])
        values: list[object] = []
        for number, column in enumerate(self.events[:13]):
            if column.count(None) == count:
                values.append(None)
            elif number in _NUMBERS:
                values.append(column)
            else:
                if lean and number == _PAYLOAD:
                    column = list(column)  # noqa: PLW2901 - the same column, with holes
                    for index in lean:
                        column[index] = None
                values.append(joined(column, marks))
        return [*values, self.versions, self.bases, self.firsts]

    def rows(self, first: int, stamp: int, stored: Sequence[int | None]) -> list[StoredEvent]:
        """The rows as they are stored, from the call's answer; ``stored`` are the versions that its streams had."""
        (
            ids, streams, topics, correlations, causations, causes, deciders, sources, schemas, payloads, metadata, digests,
            occurred, _,
        ) = self.events  # fmt: skip
        count = len(ids)
        positions = range(first, first + count)
        versions: Iterable[int] = repeat(1) if self.versions is None else self.versions
        if self.streams is not None:
            bases = stored
            if self.bases is not None:
                bases = [0 if base is None else stored[base - 1] for base in self.bases]
            versions = map(add, bases, versions)
        firsts: Sequence[int] = positions if self.firsts is None else [first + offset for offset in self.firsts]
        if causes.count(None) != count:
            # The cause is event i of the same append, named as -1 - i.
            causes = [
                begin - 1 - cause if cause is not None and cause < 0 else cause
                for cause, begin in zip(causes, firsts, strict=True)
            ]
        times: Iterable[int] = repeat(stamp)
        if occurred.count(None) != count:
            times = [stamp if time is None else time for time in occurred]
        return list(
            map(
                _event,
                zip(
                    positions,
                    ids,
                    streams,
                    versions,
                    topics,
                    correlations,
                    causations,
                    causes,
                    deciders,
                    sources,
                    schemas,
                    payloads,
                    metadata,
                    digests,
                    firsts,
                    times,
                    repeat(stamp),
                ),
            )
        )


def plain_columns(batch: Sequence[AppendRequest]) -> Columns:
    """The columns of requests that depend on nothing."""
    firsts: list[int] | None = None
    if all(len(request[1]) == 1 for request in batch):
        events = [request[1][0] for request in batch]
    else:
        events, firsts = [], []
        for request in batch:
            firsts += repeat(len(events), len(request[1]))
            events += request[1]
    columns = tuple(zip(*events, strict=True))
    streams, fresh = columns[1], columns[13]
    if len(set(streams)) == len(streams):
        if all(fresh):
            return Columns(columns, None, None, firsts, None)
        if not any(fresh):
            return Columns(columns, None, None, firsts, streams)
    return _numbered(columns, firsts)


def _numbered(columns: tuple[Sequence[Any], ...], firsts: list[int] | None) -> Columns:
    last: dict[str, int] = {}
    numbers: dict[str, int | None] = {}
    bases: list[int | None] = []
    versions = []
    asked: list[str] = []
    for stream, is_fresh in zip(columns[1], columns[13], strict=True):
        version = last.get(stream, 0) + 1
        if version == 1 and not is_fresh:
            asked.append(stream)
            numbers[stream] = len(asked)
        last[stream] = version
        versions.append(version)
        bases.append(numbers.get(stream))
    return Columns(columns, versions, bases if asked else None, firsts, asked or None)


def plain_arguments(
    columns: Columns, marks: Marks, *, epoch: int, given_now: int | None, topics: list[str] | None, hints: Hints
) -> list[object]:
    """The call's arguments for requests that depend on nothing."""
    streams = columns.streams
    known, holds_at = (None, None) if streams is None else (hints.of(streams), hints.holds_at(streams))
    named = None if streams is None or columns.bases is None else joined(streams, marks)
    return [
        epoch, given_now, *marks, len(columns.events[0]), *columns.arguments(marks), named, None, known, holds_at, topics,
        *_NOTHING_ELSE,
    ]  # fmt: skip


def plain_verdicts(batch: Sequence[AppendRequest], rows: list[StoredEvent], first: int) -> list[Verdict]:
    """Each request with its rows."""
    if len(rows) == len(batch):
        return [_appended((row[0], row[0], (row,))) for row in rows]
    verdicts: list[Verdict] = []
    begin = 0
    for request in batch:
        end = begin + len(request.events)
        verdicts.append(_appended((first + begin, first + end - 1, tuple(rows[begin:end]))))
        begin = end
    return verdicts


class Judged:
    """A judged batch on its way: its arguments for the call, and from the answer its verdicts and its streams' ``versions``."""

    def __init__(self, batch: Sequence[AppendRequest], verdicts: list[Verdict], staged: Batch, facts: Believed) -> None:
        self.work: WorkPlan = staged.work.plan()
        self._verdicts = verdicts
        self._staged = staged
        self._facts = facts
        self._start = staged.next - len(staged.rows)
        self._accepted = [
            (request, verdict) for request, verdict in zip(batch, verdicts, strict=True) if type(verdict) is Appended
        ]
        self.versions: dict[str, int] = {}
        self._hinted: list[int | None] = []
        self._columns = self._event_columns() if staged.rows else None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was accepted: there is nothing to call for."""
        return not self._accepted

    def _event_columns(self) -> Columns:
        events = list(chain.from_iterable(request.events for request, _ in self._accepted))
        columns = tuple(zip(*events, strict=True))
        numbers = {stream: number for number, stream in enumerate(self._facts.asked, 1)}
        told = self._facts.asked
        rows = self._staged.rows
        return Columns(
            columns,
            [row.version - told.get(row.stream, 0) for row in rows],
            [numbers.get(row.stream) for row in rows],
            [row.append_first - self._start for row in rows],
            list(told) or None,
        )

    @property
    def streams(self) -> Collection[str]:
        """The streams whose versions are asked for."""
        return self._facts.asked

    @property
    def count(self) -> int:
        """How many events are appended."""
        return len(self._staged.rows)

    def arguments(self, marks: Marks, *, epoch: int, given_now: int | None, now: int, hints: Hints) -> list[object]:
        """All arguments of the call."""
        facts, staged = self._facts, self._staged
        events: list[object] = [None] * _EVENT_COLUMNS
        if self._columns is not None:
            events = self._columns.arguments(marks, lean=[index for index, _ in staged.lean_rows])
        self._hinted = hints.of(facts.asked)
        believed = [facts.versions.get(stream) for stream in facts.asked]
        return [
            epoch,
            given_now,
            *marks,
            len(staged.rows),
            *events,
            joined(list(facts.asked), marks) if facts.asked else None,
            believed if any(version is not None for version in believed) else None,
            self._hinted or None,
            hints.holds_at(facts.asked),
            staged.new_topics or None,
            *self._conditions(),
            *_work_arguments(self.work, self._start, marks),
            _records(self.work.turns, "queue", "current"),
            _records(
                ((*slot, to) for slot, to in sorted(staged.ownership.moved.items())), "group_name", "number", "position"
            ),
            _records(((digest, position - self._start) for digest, position in staged.refs), "digest", "number"),
            *_park_arguments(staged.parks, now),
            _view_lines(staged.views.steps),
        ]

    def _conditions(self) -> list[object]:
        """What must hold: quiet correlations, the least head, owners, leases, blobs, documents."""
        quiet: dict[str, int] = {}
        owners: dict[tuple[str, int], tuple[str, int, int | None]] = {}
        leases: set[str] = set()
        blobs: set[str] = set()
        documents: dict[Document, int] = {}
        least_head: int | None = None
        for request, verdict in self._accepted:
            for correlation, after in request.quiet.items():
                quiet[correlation] = min(after, quiet.get(correlation, after))
            if request.owner is not None:
                group, number, lease, fence = request.owner
                owners.setdefault((group, number), (lease, fence, None))
            for move in request.checkpoints:
                slot = move.group, move.partition
                reaches = owners[slot][2] if slot in owners else None
                # The first move of a batch is the lowest: from where it goes on.
                owners[slot] = move.lease_id, move.fence, move.position if reaches is None else reaches
                needed = move.position - (verdict.last - self._start + 1)
                least_head = needed if least_head is None else max(needed, least_head)
            leases.update(change.lease_id for change in request.work if isinstance(change, WorkClaim))
            blobs.update(request.blobs)
            for write in request.views:
                documents.setdefault((write.view, write.version, write.key), write.position)
        return [
            _records(quiet.items(), "correlation_id", "after"),
            least_head,
            _records(((*slot, *owner) for slot, owner in sorted(owners.items())), "group_name", "number", "lease_id", "fence", "reaches"),
            sorted(leases) or None,
            sorted(blobs) or None,
            _records(((*document, position) for document, position in documents.items()), "view", "version", "key", "position"),
        ]  # fmt: skip

    def verdicts(self, answer: Sequence[int]) -> list[Verdict]:
        """The verdicts, with the positions, versions and times that the call gave."""
        first, stamp = answer[0], answer[1]
        rows = [] if self._columns is None else self._columns.rows(first, stamp, answer[2:] or self._hinted)
        self.versions = {row.stream: row.version for row in rows}
        shift = first - self._start
        found: list[Verdict] = []
        for verdict in self._verdicts:
            if type(verdict) is Appended:
                begin, end = verdict.first - self._start, verdict.last - self._start + 1
                found.append(Appended(verdict.first + shift, verdict.last + shift, tuple(rows[begin:end])))
            elif type(verdict) is AlreadyThere and verdict.first >= self._start:
                # Its twin is in this very batch.
                found.append(AlreadyThere(verdict.first + shift, verdict.last + shift))
            elif type(verdict) is NotQuiet and verdict.position >= self._start:
                found.append(NotQuiet(verdict.correlation_id, verdict.position + shift))
            else:
                found.append(verdict)
        for row in self.work.new:
            row.position += shift
        return found


def _work_arguments(work: WorkPlan, start: int, marks: Marks) -> list[object]:
    arrays: list[object] = [None] * (_STORED + 1 + _CHANGED + _NEW)
    if work.stored:
        stored = {row.work_id: row for row in work.stored}
        # In the order of the call: those that change, then those that go.
        checked = [stored[row.work_id] for row in work.changed] + [stored[work_id] for work_id in work.gone]
        arrays[:_STORED] = _columns(
            ((row.work_id, row.state, row.fence, row.cancel_requested) for row in checked), marks
        )
    if work.gone:
        arrays[_STORED] = joined(work.gone, marks)
    if work.changed:
        *changed, ids = _columns(map(changed_values, work.changed), marks)
        arrays[_STORED + 1 : _STORED + 1 + _CHANGED] = [ids, *changed]
    if work.new:
        columns = _columns(map(all_values, work.new), marks)
        columns[1] = [row.position - start for row in work.new]
        arrays[_STORED + 1 + _CHANGED :] = columns
    return arrays


def _columns(rows: Iterable[tuple[object, ...]], marks: Marks) -> list[object]:
    """Rows as arguments of the call: texts joined, numbers as arrays, a column without any value as null."""
    columns: list[object] = []
    for column in zip(*rows, strict=True):
        value = next((value for value in column if value is not None), None)
        columns.append(joined(column, marks) if isinstance(value, str) else None if value is None else column)
    return columns


def _park_arguments(requests: Sequence[AppendRequest], now: int) -> tuple[str | None, str | None]:
    """What the parks of a batch come to, by key: set aside as last said, let go before that."""
    parked: dict[tuple[str, str], ParkKey] = {}
    gone: dict[tuple[str, str], None] = {}
    for request in requests:
        for change in request.parks:
            slot = change.group, change.key
            if isinstance(change, ParkKey):
                parked[slot] = change
            else:
                parked.pop(slot, None)
                gone[slot] = None
    rows = (
        (
            one.group, one.key, one.partition, one.from_position, one.attempt,
            None if one.retry_in is None else now + one.retry_in, one.error, now,
        )
        for one in parked.values()
    )  # fmt: skip
    names = "group_name", "key", "number", "from_position", "attempt", "next_try", "error", "parked_at"
    return _records(rows, *names), _records(gone, "group_name", "key")


def _view_lines(steps: Iterable[tuple[ViewWrite, int | None]]) -> str | None:
    """The rows that documents get: of writes at one position the last one, each until the next."""
    writes: dict[Document, dict[int, ViewWrite]] = {}
    for write, _ in steps:
        writes.setdefault((write.view, write.version, write.key), {})[write.position] = write
    rows = []
    for document, by_position in writes.items():
        ordered = list(by_position.values())
        for write, after in zip(ordered, [*ordered[1:], None], strict=True):
            if write.body is not None:
                until = None if after is None else after.position
                rows.append((*document, write.position, until, write.sort, write.body))
    return _records(rows, "view", "version", "key", "from_position", "until_position", "sort", "body")


def _records(rows: Iterable[Iterable[object]], *names: str) -> str | None:
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    return json.dumps(objects, ensure_ascii=False) if objects else None
