"""Group commit: judges a batch of append requests and writes what was accepted, in one transaction.

Owns the order of verdicts and the rows of the log. What work items, owners and
views have to say is in `work_changes`, `ownership` and `view_changes`.

The order of every batch: the write lock; then, in a new statement, the head;
then each request as if committed apart; one bulk insert, counted; owners, work,
parks, views; commit. Ids are not looked up first: the unique index finds a
repetition, and then the batch is judged again with look-ups.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import chain
from typing import Final

from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    Conflict,
    Corrupt,
    FencedOff,
    NewEvent,
    NotQuiet,
    Refused,
    StoredEvent,
    Verdict,
)
from hive_core_db.sqlite.blobs import KEEP_BLOB, PUT_BLOB
from hive_core_db.sqlite.connection import Now, immediate
from hive_core_db.sqlite.ownership import Ownership
from hive_core_db.sqlite.view_changes import ViewChanges
from hive_core_db.sqlite.work_changes import WorkChanges
from hive_errors.store import LogCorrupt, PayloadTooLarge, ValueRefused

# Bodies above this many bytes lie in `blobs`; the row keeps their digest.
INLINE_LIMIT: Final = 64 * 1024
PAYLOAD_LIMIT: Final = 16 * 1024 * 1024
# A text of so many characters cannot have more than INLINE_LIMIT bytes: four is the most that one takes.
_SURELY_SMALL: Final = INLINE_LIMIT // 4
_VERSIONS_KEPT: Final = 65_536

# What the head is, under the lock; the left join answers for an empty log too.
HEAD = """
SELECT e.position, e.recorded_at, m.epoch, b.first_position
FROM log_meta AS m JOIN epochs AS b ON b.epoch = m.epoch
LEFT JOIN events AS e ON e.position = (SELECT max(position) FROM events)"""
# The version of a stream is its last one; the unique index (stream, version) answers.
STREAM_VERSION = "SELECT max(version) FROM events WHERE stream = ?"
# The last position of a correlation; the index (correlation_id, position) answers.
LAST_OF_CORRELATION = "SELECT max(position) FROM events WHERE correlation_id = ?"
# What an event id stands for: enough to tell a repetition from a mix-up.
KNOWN_EVENT = "SELECT position, append_first, stream, topic, digest FROM events WHERE event_id = ?"
NEW_TOPIC = "INSERT OR IGNORE INTO topics (topic) VALUES (?)"

_COLUMNS = ", ".join(StoredEvent._fields)
_ONE_ROW = "(" + ", ".join("?" * len(StoredEvent._fields)) + ")"
# Positions are written, never chosen by the database. Many rows in one statement: after each
# statement the driver waits for the interpreter, up to a switch interval while the event loop is busy. 500 is a full batch.
_INSERTS = tuple(
    (rows, f"INSERT INTO events ({_COLUMNS}) VALUES {', '.join([_ONE_ROW] * rows)}")
    for rows in (500, 256, 64, 16, 4, 1)
)

_new_row: Callable[[type[StoredEvent], tuple[object, ...]], StoredEvent] = tuple.__new__
_new_verdict: Callable[[type[Appended], tuple[object, ...]], Appended] = tuple.__new__

# What the driver and the judge raise when a value cannot be stored.
_FAULTS = (
    PayloadTooLarge,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    OverflowError,
    UnicodeError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
)


class Appender:
    """Appends batches on the writer's connection; keeps what it knows of the log while nobody else writes."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._versions: dict[str, int] = {}
        self._topics: set[str] = set()
        self._next = -1

    def append(self, db: sqlite3.Connection, batch: Sequence[AppendRequest]) -> list[Verdict]:
        """Judge and write ``batch``; the fault of one request never fails its neighbours."""
        try:
            self._put_large(db, batch)
        except _FAULTS:
            return [self._alone(db, request) for request in batch]
        try:
            return self._attempt(db, batch, look=False)
        except _FAULTS:
            # A known id, or a value: the next attempt looks the ids up, the one after finds the owner of the fault.
            pass
        try:
            return self._attempt(db, batch, look=True)
        except _FAULTS:
            return [self._alone(db, request) for request in batch]

    def _alone(self, db: sqlite3.Connection, request: AppendRequest) -> Verdict:
        try:
            self._put_large(db, (request,))
            return self._attempt(db, (request,), look=True)[0]
        except PayloadTooLarge as error:
            return Refused(error)
        except _FAULTS as error:
            return Refused(ValueRefused(reason=f"{type(error).__name__}: {error}"))

    def _put_large(self, db: sqlite3.Connection, batch: Iterable[AppendRequest]) -> None:
        """Write large bodies in a transaction of their own: the head lock is not held for their length."""
        large = [event for request in batch for event in request.events if len(event.payload) > _SURELY_SMALL]
        if not large:
            return
        bodies = [(event, event.payload.encode()) for event in large]
        bodies = [(event, body) for event, body in bodies if len(body) > INLINE_LIMIT]
        for event, body in bodies:
            if len(body) > PAYLOAD_LIMIT:
                raise PayloadTooLarge(field=f"payload of {event.event_id}", size=len(body), limit=PAYLOAD_LIMIT)
            if sha256(body).hexdigest() != event.digest:
                raise ValueError(f"the digest of {event.event_id} is not that of its payload")
        if bodies:
            now = self._now()
            with immediate(db):
                db.executemany(PUT_BLOB, [(event.digest, body, now) for event, body in bodies])

    def _attempt(self, db: sqlite3.Connection, batch: Sequence[AppendRequest], *, look: bool) -> list[Verdict]:
        db.execute("BEGIN IMMEDIATE")
        try:
            # The lock first, the head in the next statement: a snapshot taken before the wait is stale.
            batch_writer = _Batch(db, self._now(), self._versions, self._topics, look=look)
            if batch_writer.next != self._next or len(self._versions) > _VERSIONS_KEPT:
                self._versions.clear()
            judge = batch_writer.judge
            verdicts = [judge(request) for request in batch]
            batch_writer.write()
            db.execute("COMMIT")
        except BaseException:
            # What was believed of the log included rows that are gone now.
            self._versions.clear()
            self._topics.clear()
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._next = batch_writer.next
        return verdicts


class _Batch:
    """One transaction's view: the log as it will be when the requests judged so far are committed."""

    def __init__(
        self, db: sqlite3.Connection, now: int, versions: dict[str, int], topics: set[str], *, look: bool
    ) -> None:
        self._db = db
        self._look = look
        self._versions = versions
        self._topics = topics
        self._new_topics: list[str] = []
        row = db.execute(HEAD).fetchone()
        if row is None:
            raise LogCorrupt(position=0, reason="log_meta has no row, or its epoch is not listed")
        last, recorded_at, self._epoch, epoch_first = row
        # An epoch's start is the one place where numbers may jump.
        self.next: int = epoch_first if last is None else max(last + 1, epoch_first)
        self._start = self.next
        # Never below the predecessor's, whatever the clock does.
        self._now = now if recorded_at is None or now > recorded_at else recorded_at
        self._rows: list[StoredEvent] = []
        self._lean_rows: list[tuple[int, StoredEvent]] = []
        self._refs: list[tuple[str, int]] = []
        self._correlations: dict[str, int] = {}
        self._correlations_seen = 0
        self._work = WorkChanges(db, now)
        self._ownership = Ownership(db)
        self._views = ViewChanges(db)
        self._parks: list[AppendRequest] = []
        self._wall_now = now

    def judge(self, request: AppendRequest) -> Verdict:
        """Give the request its verdict; if it is accepted, everything in it is staged."""
        if self._look and (known := self._known(request.events)) is not None:
            return known
        if request.epoch != self._epoch:
            return self._known_or(request, FencedOff("epoch", request.epoch, self._epoch))
        # Spelled out, not gathered first: most requests are plain events, and this is asked of each.
        if (
            request.work or request.checkpoints or request.expected or request.quiet
            or request.owner or request.parks or request.views or request.blobs
        ):  # fmt: skip
            return self._judge_conditions(request)
        return self._stage(request.events)

    def _judge_conditions(self, request: AppendRequest) -> Verdict:
        first = self.next
        ownership = self._ownership.judge(request, first + len(request.events) - 1)
        if isinstance(ownership, FencedOff):
            return self._known_or(request, ownership)
        views = self._views.judge(request.views)
        if isinstance(views, FencedOff):
            return self._known_or(request, views)
        for digest in request.blobs:
            if self._db.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,)).fetchone() is None:
                return self._known_or(request, FencedOff(f"blob {digest}, which is not stored", 0, 0))
        work = self._work.judge(request, first)
        if isinstance(work, tuple):
            return self._known_or(request, work)
        for stream, expected in request.expected.items():
            actual = self._version(stream)
            if actual != expected:
                return self._known_or(request, Conflict(stream, expected, actual))
        for correlation, after in request.quiet.items():
            last = self._last_of(correlation)
            if last > after:
                return self._known_or(request, NotQuiet(correlation, last))
        self._ownership.accept(ownership)
        self._views.accept(views)
        self._work.accept(work)
        if request.parks:
            self._parks.append(request)
        self._refs.extend((digest, first) for digest in request.blobs)
        return self._stage(request.events)

    def _stage(self, events: tuple[NewEvent, ...]) -> Appended:
        rows = self._rows
        versions = self._versions
        topics = self._topics
        now = self._now
        first = position = self.next
        for event in events:
            (
                event_id, stream, topic, correlation_id, causation_id, cause_position, decided_by, source,
                schema_version, payload, metadata, digest, occurred_at, fresh,
            ) = event  # fmt: skip
            version = versions.get(stream)
            if version is None:
                version = 0 if fresh and not self._look else self._version(stream)
            versions[stream] = version = version + 1
            if cause_position is not None and cause_position < 0:
                # The cause is event i of this very append, named as -1 - i: its position is only known here.
                cause_position = first - 1 - cause_position
            row = _new_row(
                StoredEvent,
                (
                    position, event_id, stream, version, topic, correlation_id, causation_id, cause_position, decided_by,
                    source, schema_version, payload, metadata, digest, first,
                    now if occurred_at is None else occurred_at, now,
                ),
            )  # fmt: skip
            rows.append(row)
            position += 1
            if topic not in topics:
                topics.add(topic)
                self._new_topics.append(topic)
            if len(payload) > _SURELY_SMALL and len(payload.encode()) > INLINE_LIMIT:
                self._lean_rows.append((len(rows) - 1, row._replace(payload=None)))  # type: ignore[arg-type]
                self._refs.append((digest, row.position))
        self.next = position
        return _new_verdict(Appended, (first, position - 1, tuple(rows[first - self._start :])))

    def _version(self, stream: str) -> int:
        version = self._versions.get(stream)
        if version is None:
            version = self._db.execute(STREAM_VERSION, (stream,)).fetchone()[0] or 0
            self._versions[stream] = version
        return version

    def _last_of(self, correlation: str) -> int:
        for row in self._rows[self._correlations_seen :]:
            self._correlations[row.correlation_id] = row.position
        self._correlations_seen = len(self._rows)
        last = self._correlations.get(correlation)
        if last is None:
            last = self._db.execute(LAST_OF_CORRELATION, (correlation,)).fetchone()[0] or 0
        return last

    def _known_or(self, request: AppendRequest, verdict: Verdict) -> Verdict:
        # A repetition whose first try was committed is refused for what that try itself did: the ids know better.
        if self._look:
            return verdict
        return self._known(request.events) or verdict

    def _known(self, events: tuple[NewEvent, ...]) -> AlreadyThere | Corrupt | None:
        """Look the ids up, in the log and in this batch: all known as they are, some known, or none."""
        if not events:
            return None
        staged = {row.event_id: row for row in self._rows}
        found: list[tuple[int, int, str, str, str] | None] = []
        for event in events:
            row = staged.get(event.event_id)
            if row is None:
                found.append(self._db.execute(KNOWN_EVENT, (event.event_id,)).fetchone())
            else:
                found.append((row.position, row.append_first, row.stream, row.topic, row.digest))
        if not any(found):
            ids = {event.event_id for event in events}
            return None if len(ids) == len(events) else Corrupt(_first_repeated(events))
        opening = found[0]
        for offset, (event, stored) in enumerate(zip(events, found, strict=True)):
            if opening is None or stored is None:
                return Corrupt(next(e.event_id for e, s in zip(events, found, strict=True) if s is not None))
            position, append_first, stream, topic, digest = stored
            apart = position != opening[0] + offset or append_first != opening[1]
            if apart or stream != event.stream or topic != event.topic or digest != event.digest:
                return Corrupt(event.event_id)
        assert opening is not None
        return AlreadyThere(opening[0], opening[0] + len(events) - 1)

    def write(self) -> None:
        """Write everything that was staged."""
        rows = self._rows
        if rows:
            self._insert(rows)
        if self._new_topics:
            self._db.executemany(NEW_TOPIC, [(topic,) for topic in self._new_topics])
        if self._refs:
            self._db.executemany(KEEP_BLOB, self._refs)
        self._ownership.write()
        self._work.write()
        for request in self._parks:
            self._ownership.park(request.parks, self._wall_now)
        self._views.write()

    def _insert(self, rows: list[StoredEvent]) -> None:
        if self._lean_rows:
            rows = rows.copy()
            for index, lean in self._lean_rows:
                rows[index] = lean
        start, total, inserted = 0, len(rows), 0
        for size, statement in _INSERTS:
            while total - start >= size:
                values = list(chain.from_iterable(rows[start : start + size]))
                inserted += self._db.execute(statement, values).rowcount
                start += size
        if inserted != total:
            raise LogCorrupt(position=rows[0].position, reason=f"{inserted} rows were inserted, not {total}")


def _first_repeated(events: tuple[NewEvent, ...]) -> str:
    seen: set[str] = set()
    for event in events:
        if event.event_id in seen:
            return event.event_id
        seen.add(event.event_id)
    raise AssertionError("no id is repeated")
