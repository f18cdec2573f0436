"""The log on PostgreSQL: appends through the appender, reads by page, wake-ups by LISTEN and a poll underneath.

A page is fetched whole: no cursor and no transaction outlives a call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

from hive_core_db.postgres import identity
from hive_core_db.postgres.append import Appender
from hive_core_db.postgres.database import Database, elapsed
from hive_core_db.postgres.facts import Memory
from hive_core_db.postgres.listener import Listener, Notifier
from hive_core_db.records import Appended, AppendRequest, Epoch, LogMeta, StoredEvent, Verdict
from hive_core_db.rows import StoredRow, events_of
from hive_errors.store import LogCorrupt

_COLUMNS = ", ".join(StoredEvent._fields)
_EVENTS = f"SELECT {_COLUMNS} FROM events"
_LAST: Final = 2**63 - 1

META = "SELECT name, log_id, epoch, database_id, first_position FROM log_meta"
HEAD = "SELECT coalesce(max(position), 0) FROM events"
HEAD_AND_TIME = f"SELECT ({HEAD}), hive_now(NULL)"
# Contiguous from `after` on, but for an epoch's start; checked by arithmetic.
PAGE = f"{_EVENTS} WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3"
EPOCHS = "SELECT epoch, epoch_id, first_position, began_at, reason FROM epochs ORDER BY epoch"
EPOCH_STARTS = "SELECT first_position FROM epochs"
# The planner knows how common a topic is, not where in the log it stands: given `topic = x ORDER BY position` it may walk the primary
# key and leave rows out, to the log's end. A comparison of pairs has one index that can answer it. The limit stands in the text, so
# that the plan, which is made without values, knows that few rows are wanted.
ONE_TOPIC = f"""{_EVENTS} WHERE (topic, position) > ($1, $2::bigint) AND (topic, position) <= ($1, $3::bigint)
ORDER BY topic {{order}}, position {{order}} LIMIT {{limit}}"""
# Each topic's own stretch of the index, then the first of all of them; only these rows are fetched.
TOPICS_PAGE = f"""
SELECT {_COLUMNS} FROM events AS e JOIN (
    SELECT found.position AS wanted FROM unnest($1::text[]) AS t (name), LATERAL (
        SELECT o.position FROM events AS o
        WHERE (o.topic, o.position) > (t.name, $2::bigint) AND (o.topic, o.position) <= (t.name, $3::bigint)
        ORDER BY o.topic {{order}}, o.position {{order}} LIMIT {{limit}}
    ) AS found ORDER BY 1 {{order}} LIMIT {{limit}}
) AS page ON e.position = page.wanted ORDER BY e.position {{order}}"""
STREAM = f"{_EVENTS} WHERE stream = $1 AND version > $2 {{only}}ORDER BY version LIMIT {{limit}}"
CORRELATION = f"""{_EVENTS} WHERE (correlation_id, position) > ($1, $2::bigint) AND (correlation_id, position) <= ($1, $3::bigint)
{{only}}ORDER BY correlation_id, position LIMIT {{limit}}"""
# What one brain decided: `name@...`; '@' is followed by 'A', so the range is exactly the names with the '@'.
DECIDED = "AND decided_by >= ${n} || '@' AND decided_by < ${n} || 'A' "
# Not by the topic's index, which knows of the whole log.
OF_TOPICS = "AND (topic || '') = ANY ($4::text[]) "
LAST_OF_CORRELATION = f"""
SELECT position FROM events WHERE (correlation_id, position) >= ($1, 0) AND (correlation_id, position) <= ($1, {_LAST})
ORDER BY correlation_id DESC, position DESC LIMIT 1"""
# Both read the index alone: a run of a hundred thousand events is counted in milliseconds.
COUNT_CORRELATION = """
SELECT count(*) FROM events WHERE (correlation_id, position) >= ($1, 0) AND (correlation_id, position) <= ($1, $2::bigint)"""
NTH_OF_CORRELATION = f"""
SELECT position FROM events WHERE (correlation_id, position) >= ($1, 0) AND (correlation_id, position) <= ($1, {_LAST})
ORDER BY correlation_id, position LIMIT 1 OFFSET $2::bigint"""
ONE = f"{_EVENTS} WHERE event_id = $1"
SEVERAL = f"{_EVENTS} WHERE event_id = ANY ($1::text[]) ORDER BY position"
TOPICS = "SELECT topic FROM topics ORDER BY topic"
# A loose index scan: one step of the index for each correlation, whose events are never read.
CORRELATIONS = """
WITH RECURSIVE found (id, number) AS (
    (SELECT correlation_id, 1 FROM events WHERE correlation_id >= $1 AND correlation_id < $2 ORDER BY correlation_id LIMIT 1)
    UNION ALL
    SELECT (SELECT e.correlation_id FROM events AS e WHERE e.correlation_id > f.id AND e.correlation_id < $2
            ORDER BY e.correlation_id LIMIT 1), f.number + 1
    FROM found AS f WHERE f.id IS NOT NULL AND f.number < $3
)
SELECT id FROM found WHERE id IS NOT NULL ORDER BY id LIMIT $3"""
# recorded_at never falls, so a time is found by halving; where an epoch jumped over the middle, the next position above decides.
POSITION_AT = f"""
WITH RECURSIVE search (low, high) AS (
    SELECT 0::bigint, ({HEAD})
    UNION ALL
    SELECT
        CASE WHEN below.recorded_at <= $1 THEN below.position
             WHEN below.position IS NULL AND above.recorded_at <= $1 THEN above.position ELSE s.low END,
        CASE WHEN below.recorded_at > $1 THEN below.position - 1
             WHEN below.position IS NULL AND (above.recorded_at > $1 OR above.position IS NULL) THEN s.low ELSE s.high END
    FROM search AS s
    LEFT JOIN LATERAL (SELECT e.position, e.recorded_at FROM events AS e
        WHERE e.position > s.low AND e.position <= (s.low + s.high + 1) / 2 ORDER BY e.position DESC LIMIT 1) AS below ON TRUE
    LEFT JOIN LATERAL (SELECT e.position, e.recorded_at FROM events AS e
        WHERE e.position > s.low ORDER BY e.position LIMIT 1) AS above ON TRUE
    WHERE s.low < s.high
)
SELECT max(low) FROM search"""
BODY = "SELECT body FROM blobs WHERE digest = $1"

# How often the server is asked for its head (seconds): beside wake-ups rarely; without them quickly while something happens.
POLL_BESIDE_WAKE_UPS: Final = 1.0
QUICKEST_POLL: Final = 0.01
SLOWEST_POLL: Final = 1.0

_PAYLOAD: Final = StoredEvent._fields.index("payload")
_payload = itemgetter(_PAYLOAD)
_position = itemgetter(StoredEvent._fields.index("position"))


class PostgresEventLog:
    """The port `EventLog` on PostgreSQL."""

    reads_elsewhere: Final = True

    def __init__(self, database: Database, listener: Listener, notifier: Notifier, memory: Memory) -> None:
        self._database = database
        self._appender = Appender(database, memory)
        self._listener = listener
        self._notifier = notifier
        self._seen = -1
        self._next_poll = 0.0
        self._interval = QUICKEST_POLL

    @property
    def lanes(self) -> int:
        """Two appends at once, or one while other processes append as much."""
        return self._appender.lanes

    async def meta(self) -> LogMeta:
        """Return the log's identity."""
        row = await self._database.fetchrow(META)
        if row is None:
            raise LogCorrupt(position=0, reason="log_meta has no row")
        return LogMeta(name=row[0], log_id=row[1], epoch=row[2], database_id=row[3], first_position=row[4])

    async def epochs(self) -> list[Epoch]:
        """Return the lives of the log, the present one last."""
        return [
            Epoch(number=row[0], epoch_id=row[1], first_position=row[2], began_at=row[3], reason=row[4])
            for row in await self._database.fetch(EPOCHS)
        ]

    async def begin_epoch(self, reason: str, *, epoch: int, above: int) -> Epoch:
        """Begin a new epoch under the head lock, unless somebody was first; return the present one."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(identity.NOT_FOR_EVER)
            await connection.execute(identity.LOCK_HEAD)
            row = await connection.fetchrow(META)
            if row is not None and row[2] == epoch:
                await identity.begin_epoch(connection, self._database.given_now(), why=reason, above=above)
        return (await self.epochs())[-1]

    async def append(self, batch: Sequence[AppendRequest]) -> list[Verdict]:
        """Judge the requests in order and write what is accepted, in one transaction."""
        if not batch:
            return []
        verdicts = await self._appender.append(batch)
        # Positions rise within a batch: the last accepted request with events has the head.
        for verdict in reversed(verdicts):
            if type(verdict) is Appended and verdict.events:
                self._notifier.announce(verdict.last)
                break
        return verdicts

    async def head(self) -> int:
        """Return the last position, 0 for an empty log."""
        head: int = await self._database.fetchval(HEAD)
        return head

    async def poll(self) -> int | None:
        """Return the head if it is news; asks the server once a second while wake-ups come, else every 10 ms to 1 s."""
        self._database.guard()
        known = self._listener.head
        if self._seen < known:
            self._seen = known
            self._interval = QUICKEST_POLL
            return known
        now = time.monotonic()
        if now < self._next_poll:
            return None
        asked = elapsed()
        row = await self._database.fetchrow(HEAD_AND_TIME)
        assert row is not None
        head, server = row
        self._database.clock_read(server, asked, elapsed())
        is_news = head > self._seen
        if self._listener.is_alive:
            self._interval = POLL_BESIDE_WAKE_UPS
        else:
            self._interval = QUICKEST_POLL if is_news else min(2 * self._interval, SLOWEST_POLL)
        self._next_poll = time.monotonic() + self._interval
        self._seen = max(self._seen, head)
        return self._seen if is_news else None

    def watch(self, callback: Callable[[int], None]) -> None:
        """Call ``callback`` on the loop with each head that another process announces."""
        self._listener.watch(callback)

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
        last = _LAST if until is None else until
        if topics is None:
            return await self._checked(after, await self._rows(PAGE, after, last, limit))
        return await self._of_topics(topics, after, last, limit, "ASC")

    async def read_stream(
        self, stream: str, *, after: int = 0, limit: int = 1000, decider: str | None = None
    ) -> list[StoredEvent]:
        """Return a stream's events behind version ``after``, all or those that one brain decided."""
        if decider is None:
            return await self._page(STREAM.format(only="", limit=int(limit)), stream, after)
        return await self._page(STREAM.format(only=DECIDED.format(n=3), limit=int(limit)), stream, after, decider)

    async def read_correlation(
        self, correlation_id: str, *, after: int = 0, until: int | None = None, limit: int = 1000,
        decider: str | None = None, topics: Sequence[str] | None = None,
    ) -> list[StoredEvent]:  # fmt: skip
        """Return a correlation's events behind ``after``: all, those that one brain decided, or those of some topics."""
        only, values = "", tuple[object, ...]()
        if decider is not None:
            only, values = DECIDED.format(n=4), (decider,)
        elif topics is not None:
            only, values = OF_TOPICS, (list(topics),)
        statement = CORRELATION.format(only=only, limit=int(limit))
        return await self._page(statement, correlation_id, after, _LAST if until is None else until, *values)

    async def last_of_correlation(self, correlation_id: str) -> int:
        """Return the correlation's last position, 0 if it has none."""
        return await self._database.fetchval(LAST_OF_CORRELATION, correlation_id) or 0

    async def count_correlation(self, correlation_id: str, *, until: int) -> int:
        """Return how many events a correlation has at or before position ``until``."""
        count: int = await self._database.fetchval(COUNT_CORRELATION, correlation_id, until)
        return count

    async def nth_of_correlation(self, correlation_id: str, number: int) -> int:
        """Return the position of a correlation's event ``number``, counted from 1; 0 if it has fewer."""
        return await self._database.fetchval(NTH_OF_CORRELATION, correlation_id, max(number, 1) - 1) or 0

    async def get(self, event_id: str) -> StoredEvent | None:
        """Return one event, None if the log does not have it."""
        rows = await self._page(ONE, event_id)
        return rows[0] if rows else None

    async def several(self, event_ids: Sequence[str]) -> list[StoredEvent]:
        """Return the events of these ids that the log has, in log order."""
        return await self._page(SEVERAL, list(event_ids))

    async def latest(self, topics: Sequence[str], *, limit: int, before: int | None = None) -> list[StoredEvent]:
        """Return the newest events of these topics, newest first."""
        return events_of(await self._of_topics(topics, -1, _LAST if before is None else before - 1, limit, "DESC"))

    async def topics(self) -> list[str]:
        """Return every topic that the log has seen, sorted."""
        return [row[0] for row in await self._database.fetch(TOPICS)]

    async def correlations(self, prefix: str, *, limit: int = 10) -> list[str]:
        """Return correlation ids that begin with ``prefix``, sorted."""
        rows = await self._database.fetch(CORRELATIONS, prefix, prefix + "\U0010ffff", limit)
        return [row[0] for row in rows]

    async def position_at(self, time: int) -> int:
        """Return the last position recorded at or before ``time``, 0 if none."""
        position: int = await self._database.fetchval(POSITION_AT, time)
        return position

    async def _of_topics(
        self, topics: Sequence[str], after: int, until: int, limit: int, order: str
    ) -> list[StoredRow]:
        wanted = list(dict.fromkeys(topics))
        if not wanted:
            return []
        if len(wanted) == 1:
            return await self._rows(ONE_TOPIC.format(order=order, limit=int(limit)), wanted[0], after, until)
        return await self._rows(TOPICS_PAGE.format(order=order, limit=int(limit)), wanted, after, until)

    async def _page(self, statement: str, *values: object) -> list[StoredEvent]:
        return events_of(await self._rows(statement, *values))

    async def _rows(self, statement: str, *values: object) -> list[StoredRow]:
        rows: list[StoredRow] = [*await self._database.fetch(statement, *values)]
        if None in map(_payload, rows):
            for index, row in enumerate(rows):
                if _payload(row) is None:
                    rows[index] = (*row[:_PAYLOAD], await self._large(StoredEvent(*row[:])), *row[_PAYLOAD + 1 :])
        return rows

    async def _large(self, row: StoredEvent) -> str:
        body = await self._database.fetchval(BODY, row.digest)
        if body is None:
            raise LogCorrupt(position=row.position, reason=f"its payload, blob {row.digest}, is gone")
        return bytes(body).decode()

    async def _checked(self, after: int, rows: list[StoredRow]) -> list[StoredRow]:
        """Return the rows if no position is missing behind ``after``; an epoch's start may follow a jump."""
        if not rows or _position(rows[-1]) - after == len(rows):
            return rows
        starts = {row[0] for row in await self._database.fetch(EPOCH_STARTS)}
        previous = after
        for position in map(_position, rows):
            if position != previous + 1 and position not in starts:
                raise LogCorrupt(position=previous + 1, reason="this position is missing")
            previous = position
        return rows
