"""Group commit on SQLite: a batch of append requests is judged and written in one transaction.

The verdicts are the judge's (`hive_core_db.judge`), which reads its facts lazily under the write lock.

The order of every batch: the write lock; then, in a new statement, the head;
then each request as if committed apart; one bulk insert, counted; owners, work,
parks, views; commit. Ids are not looked up first: the unique index finds a
repetition, and then the batch is judged again with look-ups.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import chain
from typing import Final

from hive_core_db.judge.batch import INLINE_LIMIT, PAYLOAD_LIMIT, SURELY_SMALL, Batch
from hive_core_db.judge.work_changes import WorkPlan
from hive_core_db.judge.work_row import all_values, changed_values
from hive_core_db.records import AppendRequest, ParkChange, ParkKey, Refused, StoredEvent, Verdict
from hive_core_db.sqlite.blobs import KEEP_BLOB, PUT_BLOB
from hive_core_db.sqlite.connection import Now, immediate
from hive_core_db.sqlite.facts import SqliteFacts
from hive_core_db.sqlite.lock import begin, commit
from hive_core_db.sqlite.view_changes import view_statements
from hive_core_db.sqlite.work_changes import DELETE, INSERT, RAISE_QUEUE, UPDATE
from hive_errors.store import LogCorrupt, PayloadTooLarge, ValueRefused

_VERSIONS_KEPT: Final = 65_536

# What the head is, under the lock; the left join answers for an empty log too.
HEAD = """
SELECT e.position, e.recorded_at, m.epoch, b.first_position
FROM log_meta AS m JOIN epochs AS b ON b.epoch = m.epoch
LEFT JOIN events AS e ON e.position = (SELECT max(position) FROM events)"""
NEW_TOPIC = "INSERT OR IGNORE INTO topics (topic) VALUES (?)"
# Judged before: the owner is the one that asks, and the checkpoint only moves forward.
MOVE = "UPDATE partitions SET position = ? WHERE group_name = ? AND number = ?"
# The first failure of a key, and each later one, are one row.
PARK = """
INSERT INTO parked (group_name, key, number, from_position, attempt, next_try, error, parked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (group_name, key) DO UPDATE SET number = excluded.number, from_position = excluded.from_position,
    attempt = excluded.attempt, next_try = excluded.next_try, error = excluded.error"""
UNPARK = "DELETE FROM parked WHERE group_name = ? AND key = ?"

_COLUMNS = ", ".join(StoredEvent._fields)
_ONE_ROW = "(" + ", ".join("?" * len(StoredEvent._fields)) + ")"
# Positions are written, never chosen by the database. Many rows in one statement: after each
# statement the driver waits for the interpreter, up to a switch interval while the event loop is busy. 500 is a full batch.
_INSERTS = tuple(
    (rows, f"INSERT INTO events ({_COLUMNS}) VALUES {', '.join([_ONE_ROW] * rows)}")
    for rows in (500, 256, 64, 16, 4, 1)
)

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
        self._wall_now = 0

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
        large = [event for request in batch for event in request.events if len(event.payload) > SURELY_SMALL]
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
        begin(db)
        try:
            # The lock first, the head in the next statement: a snapshot taken before the wait is stale.
            staged = self._begin(db, look=look)
            judge = staged.judge
            verdicts = [judge(request) for request in batch]
            _write(db, staged, self._wall_now)
            commit(db)
        except BaseException:
            # What was believed of the log included rows that are gone now.
            self._versions.clear()
            self._topics.clear()
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._next = staged.next
        return verdicts

    def _begin(self, db: sqlite3.Connection, *, look: bool) -> Batch:
        row = db.execute(HEAD).fetchone()
        if row is None:
            raise LogCorrupt(position=0, reason="log_meta has no row, or its epoch is not listed")
        last, recorded_at, epoch, epoch_first = row
        # An epoch's start is the one place where numbers may jump.
        begin = epoch_first if last is None else max(last + 1, epoch_first)
        if begin != self._next or len(self._versions) > _VERSIONS_KEPT:
            self._versions.clear()
        self._wall_now = now = self._now()
        return Batch(
            SqliteFacts(db),
            epoch=epoch,
            next=begin,
            # Never below the predecessor's, whatever the clock does.
            recorded_at=now if recorded_at is None or now > recorded_at else recorded_at,
            now=now,
            versions=self._versions,
            topics=self._topics,
            look=look,
        )


def _write(db: sqlite3.Connection, staged: Batch, now: int) -> None:
    """Write everything that was staged: the rows, owners, work, parks, views."""
    if staged.rows:
        _insert(db, staged)
    if staged.new_topics:
        db.executemany(NEW_TOPIC, [(topic,) for topic in staged.new_topics])
    if staged.refs:
        db.executemany(KEEP_BLOB, staged.refs)
    if moved := staged.ownership.moved:
        db.executemany(MOVE, [(position, *slot) for slot, position in sorted(moved.items())])
    if staged.work.touched:
        _write_work(db, staged.work.plan())
    for request in staged.parks:
        _park(db, request.parks, now)
    for step in staged.views.steps:
        for statement, values in view_statements(*step):
            db.execute(statement, values)


def _write_work(db: sqlite3.Connection, work: WorkPlan) -> None:
    if work.gone:
        db.executemany(DELETE, [(work_id,) for work_id in work.gone])
    if work.changed:
        db.executemany(UPDATE, map(changed_values, work.changed))
    if work.new:
        db.executemany(INSERT, map(all_values, work.new))
    if work.turns:
        db.executemany(RAISE_QUEUE, work.turns)


def _insert(db: sqlite3.Connection, staged: Batch) -> None:
    rows = staged.rows
    if staged.lean_rows:
        rows = rows.copy()
        for index, lean in staged.lean_rows:
            rows[index] = lean
    start, total, inserted = 0, len(rows), 0
    for size, statement in _INSERTS:
        while total - start >= size:
            values = list(chain.from_iterable(rows[start : start + size]))
            inserted += db.execute(statement, values).rowcount
            start += size
    if inserted != total:
        raise LogCorrupt(position=rows[0].position, reason=f"{inserted} rows were inserted, not {total}")


def _park(db: sqlite3.Connection, changes: Iterable[ParkChange], now: int) -> None:
    """Set keys aside, move their next try, or let them go."""
    for change in changes:
        if isinstance(change, ParkKey):
            next_try = None if change.retry_in is None else now + change.retry_in
            row = change.group, change.key, change.partition, change.from_position, change.attempt
            db.execute(PARK, (*row, next_try, change.error, now))
        else:
            db.execute(UNPARK, (change.group, change.key))
