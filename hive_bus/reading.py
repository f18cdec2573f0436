"""Reading the log by topic: what is there, and what comes, page by page.

A follower reads the past by topic and then lives off the tail. Patterns mean the topics
that exist; a topic that appears later is noticed when its first record passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import Enum
from functools import partial
from typing import Final, Literal, NamedTuple

from hive_bus.record import Record
from hive_bus.tail import PAGE, Tail
from hive_bus.topics import check_pattern, expand, matches
from hive_core_db.records import StoredEvent
from hive_core_db.rows import StoredRow, plain
from hive_core_db.store import EventLog


class _Start(Enum):
    NOW = "now"
    BEGINNING = "beginning"


FROM_NOW: Final = _Start.NOW
"""Begin with the first event after this moment."""
FROM_BEGINNING: Final = _Start.BEGINNING
"""Begin with the log's first event."""

Start = _Start | int
"""Where a subscription begins: ``FROM_NOW``, ``FROM_BEGINNING``, or a position (what follows it)."""

GroupKey = Literal["stream", "correlation"]
"""What a group keeps in order."""

to_record: Final = partial(tuple.__new__, Record)
"""A stored row as a record, at the price of copying a tuple."""


class Page(NamedTuple):
    """Records that matched, ascending, and how far the log is read with them (``until`` >= the last record's position)."""

    records: Sequence[Record]
    until: int


async def start_position(start: Start, log: EventLog) -> int:
    """The position that ``start`` means now: what follows it is delivered."""
    if start is FROM_BEGINNING:
        return 0
    if start is FROM_NOW:
        return await log.head()
    assert isinstance(start, int)
    return start


class Follower:
    """The log from a position on, filtered by patterns (none: everything), page by page, without an end.

    One reader each. ``position`` is how far it has read.
    """

    def __init__(self, log: EventLog, tail: Tail, patterns: Sequence[str], *, after: int) -> None:
        self.position = after
        self.patterns = tuple(check_pattern(pattern) for pattern in patterns)
        self._log = log
        self._tail = tail
        self._wanted: dict[str, bool] = {}

    def wants(self, topic: str) -> bool:
        """Whether a topic is among the patterns."""
        known = self._wanted.get(topic)
        if known is None:
            known = self._wanted[topic] = any(matches(pattern, topic) for pattern in self.patterns)
        return known

    async def page(self, *, limit: int = PAGE) -> Page:
        """The next page: waits until the log goes on; it may hold no record when nothing matched."""
        if self.position >= self._tail.head:
            await self._tail.wait(self.position)
        rows = self._tail.recent(self.position, limit=limit)
        if rows is None:
            return await self._past(limit)
        self.position = rows[-1].position if rows else self.position
        if self.patterns:
            rows = [row for row in rows if self.wants(row.topic)]
        return Page(to_records(rows), self.position)

    async def _past(self, limit: int) -> Page:
        """A page from the log itself: by the index of topics, up to the head as it is now."""
        head = self._tail.head
        topics = None if not self.patterns else expand(self.patterns, await self._log.topics())
        rows: Sequence[StoredEvent] = ()
        if topics is None or topics:
            rows = await self._log.read(self.position, limit=limit, topics=topics, until=head)
        # A short page has seen everything up to the head; a full one only up to its last row.
        self.position = rows[-1].position if len(rows) >= limit else max(self.position, head)
        return Page(to_records(rows), self.position)


def to_records(rows: Sequence[StoredRow]) -> list[Record]:
    """Stored rows as records."""
    return list(map(to_record, map(plain, rows)))


async def read(
    log: EventLog, patterns: Sequence[str], *, after: int = 0, until: int | None = None
) -> AsyncIterator[Record]:
    """Records of these topics above ``after`` up to ``until`` (None: the head as it is now), a page at a time."""
    for pattern in patterns:
        check_pattern(pattern)
    last = await log.head() if until is None else until
    topics = expand(patterns, await log.topics()) if patterns else None
    if topics == []:
        return
    while after < last:
        rows = await log.read(after, limit=PAGE, topics=topics, until=last)
        for record in to_records(rows):
            yield record
        if len(rows) < PAGE:
            return
        after = rows[-1].position
