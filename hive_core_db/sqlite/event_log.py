"""The log on SQLite: appends through the judge, reads by page.

A page is fetched whole: no cursor outlives its job, so no reader holds a
snapshot while its caller thinks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

from hive_core_db.records import AppendRequest, Epoch, LogMeta, StoredEvent, Verdict
from hive_core_db.rows import StoredRow, events_of
from hive_core_db.sqlite import identity
from hive_core_db.sqlite.append import Appender
from hive_core_db.sqlite.blobs import GET_BLOB
from hive_core_db.sqlite.connection import Now, immediate
from hive_core_db.sqlite.runner import Runner
from hive_errors.store import LogCorrupt

_COLUMNS = ", ".join(StoredEvent._fields)
_EVENTS = f"SELECT {_COLUMNS} FROM events"

META = "SELECT name, log_id, epoch, database_id, first_position FROM log_meta"
HEAD = "SELECT max(position) FROM events"
# Contiguous from `after` on, but for an epoch's start; checked by arithmetic.
PAGE = f"{_EVENTS} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
EPOCHS = "SELECT epoch, epoch_id, first_position, began_at, reason FROM epochs ORDER BY epoch"
EPOCH_STARTS = "SELECT first_position FROM epochs"
# Each branch reads its own stretch of (topic, position) in order and the database merges them: no sort, no scan.
_OF_TOPIC = "SELECT position FROM events WHERE topic = ? AND position > ? AND position <= ?"
# With more topics than a compound may have, reading the log in order and leaving rows out is the better plan.
SCAN = f"{_EVENTS} WHERE +topic IN (SELECT value FROM json_each(?)) AND position > ? AND position <= ?"
STREAM = f"{_EVENTS} WHERE stream = ? AND version > ? ORDER BY version LIMIT ?"
_OF_CORRELATION = f"{_EVENTS} WHERE correlation_id = ? AND position > ? AND position <= ?"
CORRELATION = f"{_OF_CORRELATION} ORDER BY position LIMIT ?"
# What one brain decided: `name@...`; '@' is followed by 'A', so the range is exactly the names with the '@'.
_DECIDED = "decided_by >= ? || '@' AND decided_by < ? || 'A'"
STREAM_DECIDED = f"{_EVENTS} WHERE stream = ? AND version > ? AND {_DECIDED} ORDER BY version LIMIT ?"
CORRELATION_DECIDED = f"{_OF_CORRELATION} AND {_DECIDED} ORDER BY position LIMIT ?"
# By the correlation's index, and leaving rows out: a topic's index knows of the whole log.
CORRELATION_OF_TOPICS = f"{_OF_CORRELATION} AND +topic IN ({{topics}}) ORDER BY position LIMIT ?"
LAST_OF_CORRELATION = "SELECT max(position) FROM events WHERE correlation_id = ?"
# Both read the index alone: a run of a hundred thousand events is counted in milliseconds.
COUNT_CORRELATION = "SELECT count(*) FROM events WHERE correlation_id = ? AND position <= ?"
NTH_OF_CORRELATION = "SELECT position FROM events WHERE correlation_id = ? ORDER BY position LIMIT 1 OFFSET ?"
ONE = f"{_EVENTS} WHERE event_id = ?"
SEVERAL = f"{_EVENTS} WHERE event_id IN (SELECT value FROM json_each(?)) ORDER BY position"
TOPICS = "SELECT topic FROM topics ORDER BY topic"
# One step of a loose index scan: the events of a correlation are never read.
NEXT_CORRELATION = "SELECT min(correlation_id) FROM events WHERE correlation_id > ? AND correlation_id < ?"
THIS_CORRELATION = "SELECT min(correlation_id) FROM events WHERE correlation_id >= ? AND correlation_id < ?"
# recorded_at never falls, so a time is found by halving.
AT_OR_BELOW = "SELECT position, recorded_at FROM events WHERE position <= ? ORDER BY position DESC LIMIT 1"

_COMPOUND_LIMIT: Final = 400
_FOREVER: Final = 2**63 - 1
_PAYLOAD: Final = StoredEvent._fields.index("payload")
_payload = itemgetter(_PAYLOAD)
_position = itemgetter(StoredEvent._fields.index("position"))


class SqliteEventLog:
    """The port `EventLog` on SQLite."""

    lanes: Final = 1
    reads_elsewhere: Final = False

    def __init__(self, runner: Runner, now: Now) -> None:
        self._runner = runner
        self._now = now
        self._appender = Appender(now)
        self._seen_version: int | None = None

    async def meta(self) -> LogMeta:
        """Return the log's identity."""
        row = await self._runner.read(lambda db: db.execute(META).fetchone())
        if row is None:
            raise LogCorrupt(position=0, reason="log_meta has no row")
        return LogMeta(name=row[0], log_id=row[1], epoch=row[2], database_id=row[3], first_position=row[4])

    async def epochs(self) -> list[Epoch]:
        """Return the lives of the log, the present one last."""
        rows = await self._runner.read(lambda db: db.execute(EPOCHS).fetchall())
        return [
            Epoch(number=row[0], epoch_id=row[1], first_position=row[2], began_at=row[3], reason=row[4]) for row in rows
        ]

    async def begin_epoch(self, reason: str, *, epoch: int, above: int) -> Epoch:
        """Begin a new epoch in one transaction, unless somebody was first; return the present one."""

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                if db.execute(META).fetchone()[2] == epoch:
                    identity.begin_epoch(db, self._now(), why=reason, above=(above, epoch))

        await self._runner.write(job)
        return (await self.epochs())[-1]

    async def append(self, batch: Sequence[AppendRequest]) -> list[Verdict]:
        """Judge the requests in order and write what is accepted, in one transaction."""
        if not batch:
            return []
        append = self._appender.append
        return await self._runner.write(lambda db: append(db, batch))

    async def head(self) -> int:
        """Return the last position, 0 for an empty log."""
        row = await self._runner.read(lambda db: db.execute(HEAD).fetchone())
        return row[0] or 0

    async def poll(self) -> int | None:
        """Return the head if any connection may have written since the last poll; else None, without a thread."""
        version = self._runner.data_version()
        if version == self._seen_version:
            return None
        self._seen_version = version
        return await self.head()

    def watch(self, callback: Callable[[int], None]) -> None:
        """SQLite wakes nobody: `poll` is as quick."""

    async def read(
        self, after: int, *, limit: int, topics: Sequence[str] | None = None, until: int | None = None
    ) -> list[StoredEvent]:
        """Return the page behind ``after``.

        Raises:
            LogCorrupt: A position is missing where no epoch begins.
        """
        return events_of(await self.rows(after, limit=limit, topics=topics, until=until))

    async def rows(
        self, after: int, *, limit: int, topics: Sequence[str] | None = None, until: int | None = None
    ) -> list[StoredRow]:
        """Return the page behind ``after`` as it came; raises what ``read`` raises."""
        last = _FOREVER if until is None else until
        if topics is None:
            return await self._runner.read(lambda db: _checked(db, after, _rows(db, PAGE, (after, last, limit))))
        if not topics:
            return []
        return await self._of_topics(topics, after, last, limit, "ASC")

    async def read_stream(
        self, stream: str, *, after: int = 0, limit: int = 1000, decider: str | None = None
    ) -> list[StoredEvent]:
        """Return a stream's events behind version ``after``, all or those that one brain decided."""
        if decider is not None:
            return await self._runner.read(
                lambda db: _page(db, STREAM_DECIDED, (stream, after, decider, decider, limit))
            )
        return await self._runner.read(lambda db: _page(db, STREAM, (stream, after, limit)))

    async def read_correlation(
        self, correlation_id: str, *, after: int = 0, until: int | None = None, limit: int = 1000,
        decider: str | None = None, topics: Sequence[str] | None = None,
    ) -> list[StoredEvent]:  # fmt: skip
        """Return a correlation's events behind ``after``: all, those that one brain decided, or those of some topics."""
        span = (correlation_id, after, _FOREVER if until is None else until)
        statement, values = CORRELATION, tuple[str, ...]()
        if decider is not None:
            statement, values = CORRELATION_DECIDED, (decider, decider)
        elif topics is not None:
            statement, values = CORRELATION_OF_TOPICS.format(topics=", ".join("?" * len(topics))), tuple(topics)
        return await self._runner.read(lambda db: _page(db, statement, (*span, *values, limit)))

    async def last_of_correlation(self, correlation_id: str) -> int:
        """Return the correlation's last position, 0 if it has none."""
        row = await self._runner.read(lambda db: db.execute(LAST_OF_CORRELATION, (correlation_id,)).fetchone())
        return row[0] or 0

    async def count_correlation(self, correlation_id: str, *, until: int) -> int:
        """Return how many events a correlation has at or before position ``until``."""
        row = await self._runner.read(lambda db: db.execute(COUNT_CORRELATION, (correlation_id, until)).fetchone())
        count: int = row[0]
        return count

    async def nth_of_correlation(self, correlation_id: str, number: int) -> int:
        """Return the position of a correlation's event ``number``, counted from 1; 0 if it has fewer."""
        values = (correlation_id, max(number, 1) - 1)
        row = await self._runner.read(lambda db: db.execute(NTH_OF_CORRELATION, values).fetchone())
        return row[0] if row is not None else 0

    async def get(self, event_id: str) -> StoredEvent | None:
        """Return one event, None if the log does not have it."""
        rows = await self._runner.read(lambda db: _page(db, ONE, (event_id,)))
        return rows[0] if rows else None

    async def several(self, event_ids: Sequence[str]) -> list[StoredEvent]:
        """Return the events of these ids that the log has, in log order."""
        import json

        ids = json.dumps(list(event_ids))
        return await self._runner.read(lambda db: _page(db, SEVERAL, (ids,)))

    async def latest(self, topics: Sequence[str], *, limit: int, before: int | None = None) -> list[StoredEvent]:
        """Return the newest events of these topics, newest first."""
        if not topics:
            return []
        return events_of(await self._of_topics(topics, -1, _FOREVER if before is None else before - 1, limit, "DESC"))

    async def topics(self) -> list[str]:
        """Return every topic that the log has seen, sorted."""
        rows = await self._runner.read(lambda db: db.execute(TOPICS).fetchall())
        return [row[0] for row in rows]

    async def correlations(self, prefix: str, *, limit: int = 10) -> list[str]:
        """Return correlation ids that begin with ``prefix``, sorted."""
        beyond = prefix + "\U0010ffff"

        def job(db: sqlite3.Connection) -> list[str]:
            found: list[str] = []
            row = db.execute(THIS_CORRELATION, (prefix, beyond)).fetchone()
            while row[0] is not None and len(found) < limit:
                found.append(row[0])
                row = db.execute(NEXT_CORRELATION, (row[0], beyond)).fetchone()
            return found

        return await self._runner.read(job)

    async def position_at(self, time: int) -> int:
        """Return the last position recorded at or before ``time``, 0 if none."""

        def job(db: sqlite3.Connection) -> int:
            low, high = 0, db.execute(HEAD).fetchone()[0] or 0
            while low < high:
                row = db.execute(AT_OR_BELOW, ((low + high + 1) // 2,)).fetchone()
                if row is not None and row[0] > low and row[1] <= time:
                    low = row[0]
                elif row is not None and row[0] > low:
                    high = row[0] - 1
                else:
                    # Nothing lies in (low, middle]: an epoch jumped over it.
                    nearest = db.execute(PAGE, (low, high, 1)).fetchone()
                    if nearest is None or nearest[-1] > time:
                        return low
                    low = nearest[0]
            return low

        return await self._runner.read(job)

    async def _of_topics(
        self, topics: Sequence[str], after: int, until: int, limit: int, order: str
    ) -> list[StoredRow]:
        wanted = list(dict.fromkeys(topics))
        values: tuple[object, ...]
        if len(wanted) > _COMPOUND_LIMIT:
            import json

            statement = f"{SCAN} ORDER BY position {order} LIMIT ?"
            values = (json.dumps(wanted), after, until, limit)
        else:
            merged = " UNION ALL ".join([_OF_TOPIC] * len(wanted))
            statement = f"{_EVENTS} WHERE position IN ({merged} ORDER BY 1 {order} LIMIT ?) ORDER BY position {order}"
            values = (*(value for topic in wanted for value in (topic, after, until)), limit)
        return await self._runner.read(lambda db: _rows(db, statement, values))


def _page(db: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> list[StoredEvent]:
    return events_of(_rows(db, statement, values))


def _rows(db: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> list[StoredRow]:
    rows: list[StoredRow] = db.execute(statement, values).fetchall()
    if None in map(_payload, rows):
        for index, row in enumerate(rows):
            if _payload(row) is None:
                rows[index] = (*row[:_PAYLOAD], _large(db, StoredEvent(*row[:])), *row[_PAYLOAD + 1 :])
    return rows


def _large(db: sqlite3.Connection, row: StoredEvent) -> str:
    body = db.execute(GET_BLOB, (row.digest,)).fetchone()
    if body is None:
        raise LogCorrupt(position=row.position, reason=f"its payload, blob {row.digest}, is gone")
    return bytes(body[0]).decode()


def _checked(db: sqlite3.Connection, after: int, rows: list[StoredRow]) -> list[StoredRow]:
    """Return the rows if no position is missing behind ``after``; an epoch's start may follow a jump."""
    if not rows or _position(rows[-1]) - after == len(rows):
        return rows
    starts = {start for (start,) in db.execute(EPOCH_STARTS)}
    previous = after
    for position in map(_position, rows):
        if position != previous + 1 and position not in starts:
            raise LogCorrupt(position=previous + 1, reason="this position is missing")
        previous = position
    return rows
