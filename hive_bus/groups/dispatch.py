"""How a group's pages reach its partitions: read once, with the next page on its way, and fed in order.

One cursor serves all partitions of a member: the lowest of what they were fed. A
partition that does not keep up is left behind after a moment and fed again from its
own place when it has worked off what it has, so memory stays bounded and the others
flow. Nothing here knows checkpoints, leases or bodies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Final, Literal
from zlib import crc32

from hive_bus.reading import to_record, to_records
from hive_bus.record import Record
from hive_bus.surely import patiently
from hive_bus.tail import PAGE, Tail
from hive_bus.topics import check_pattern, expand, matches
from hive_core_db.records import StoredEvent
from hive_core_db.rows import StoredRow
from hive_core_db.store import EventLog

CHUNK: Final = 256
FIRST_CHUNK: Final = 16
CHUNK_SECONDS: Final = 0.5
ROOM: Final = 1024
PATIENCE: Final = 1.0
_REMEMBERED: Final = 65_536

Key = Literal["stream", "correlation"] | Callable[[Record], str | None]
"""What a group keeps in order: the stream, the correlation id, or a function (None: the group leaves the record out)."""

_POSITION: Final = StoredEvent._fields.index("position")
_TOPIC: Final = StoredEvent._fields.index("topic")
_COLUMN: Final = {
    "stream": StoredEvent._fields.index("stream"),
    "correlation": StoredEvent._fields.index("correlation_id"),
}


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key: the same in every process, for ever."""
    return crc32(key.encode()) % partitions


def key_function(key: Key) -> Callable[[Record], str | None]:
    """The function that gives a record's key."""
    return itemgetter(_COLUMN[key]) if isinstance(key, str) else key


class Topics(dict[str, bool]):
    """Whether a topic is among the patterns (none: every topic is); answered once per topic."""

    def __init__(self, patterns: Sequence[str], *, always: Sequence[str] = ()) -> None:
        super().__init__()
        self.patterns = tuple(check_pattern(pattern) for pattern in patterns)
        self._all = (*self.patterns, *always) if self.patterns and ">" not in self.patterns else ()

    def __missing__(self, topic: str) -> bool:
        known = self[topic] = not self.patterns or any(matches(pattern, topic) for pattern in self.patterns)
        return known

    def among(self, topics: Sequence[str]) -> list[str] | None:
        """Those of ``topics`` that must be read; None: every one, the log may be read as it is."""
        if not self._all:
            return None
        found = expand(self._all, topics)
        return None if len(found) == len(topics) else found


class Places(dict[str, list[StoredRow]]):
    """A list for each partition, found by key; remembers as many keys as fit."""

    def __init__(self, partitions: int) -> None:
        super().__init__()
        self.lists: tuple[list[StoredRow], ...] = tuple([] for _ in range(partitions))

    def __missing__(self, key: str) -> list[StoredRow]:
        if len(self) >= _REMEMBERED:
            self.clear()
        place = self[key] = self.lists[partition_of(key, len(self.lists))]
        return place


class Pages:
    """Pages of the log from any position: from the tail's memory, else read, with the next one read ahead."""

    def __init__(self, log: EventLog, tail: Tail, topics: Topics, tasks: asyncio.TaskGroup) -> None:
        self._log = log
        self._tail = tail
        self._topics = topics
        self._tasks = tasks
        self._ahead: tuple[int, asyncio.Task[tuple[Sequence[StoredRow], int]]] | None = None
        # The wanted ones of the topics up to a position: they hold for every page below it.
        self._listed: tuple[int, Sequence[str] | None] = (0, None)

    async def page(self, after: int) -> tuple[Sequence[StoredRow], int]:
        """Rows above ``after`` that may be wanted, and the position up to which the log is read with them."""
        ahead, self._ahead = self._ahead, None
        rows: Sequence[StoredRow] | None = self._tail.recent(after, limit=PAGE)
        if rows is not None:
            if ahead is not None:
                ahead[1].cancel()
            return rows, rows[-1][_POSITION] if rows else after
        if ahead is not None and ahead[0] == after:
            rows, until = await ahead[1]
        else:
            if ahead is not None:
                ahead[1].cancel()
            rows, until = await self._fetch(after)
        if self._tail.recent(until, limit=1) is None:
            self._ahead = until, self._tasks.create_task(self._fetch(until), name="next page")
            if self._log.reads_elsewhere:
                # It is asked for now, not when this page is sorted. A thread of this process would only wait for the loop.
                await asyncio.sleep(0)
        return rows, until

    async def _fetch(self, after: int) -> tuple[Sequence[StoredRow], int]:
        return await patiently(lambda: self._read(after))

    async def _read(self, after: int) -> tuple[Sequence[StoredRow], int]:
        head, topics = self._listed
        if after >= head:
            # The head first: a topic that appears later than the list of topics lies above it.
            head = self._tail.head
            topics = self._topics.among(await self._log.topics()) if self._topics.patterns else None
            self._listed = head, topics
        rows: Sequence[StoredRow] = ()
        if topics is None or topics:
            rows = await self._log.rows(after, limit=PAGE, topics=topics, until=head)
        return rows, rows[-1][_POSITION] if len(rows) >= PAGE else max(after, head)


class Lane:
    """One partition's queue of records and the loop that has them handled, in order, one chunk at a time.

    ``handle`` returns when its records are handled; ``reached`` is then told up to which
    position everything is; ``passed`` likewise, for pages that hold nothing of the lane.
    ``fed`` is how far the log was read for this lane.
    """

    def __init__(
        self,
        number: int,
        *,
        position: int,
        handle: Callable[[Sequence[Record]], Awaitable[None]],
        command: Callable[[Record], Awaitable[None]],
        reached: Callable[[int], Awaitable[None] | None],
        passed: Callable[[int], None] | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self.number = number
        self.fed = position
        self.backlog = 0
        self.open = False
        self.paused = False
        self.late = False
        self._handle = handle
        self._command = command
        self._reached = reached
        self._most = chunk
        self._chunk = min(chunk, FIRST_CHUNK)
        self._queue: deque[tuple[list[StoredRow], list[Record], int]] = deque()
        self._passed = passed
        self._idle = False
        self._closing = False
        self._wake = asyncio.Event()

    def takes(self) -> bool:
        """Whether records should be read for it now."""
        if self.paused and self.backlog <= ROOM // 4:
            self.paused = False
        return self.open and not self.paused and not self._closing

    def feed(self, rows: list[StoredRow], commands: list[Record], until: int) -> None:
        """Queue what lies between ``fed`` and ``until``."""
        if self._closing or until <= self.fed:
            return
        self.fed = until
        if self._idle and self._passed is not None and not rows and not commands:
            # Nothing for this lane on the page, as for most lanes on most pages: nobody is woken for it.
            self._passed(until)
            return
        self._idle = False
        self._queue.append((rows, commands, until))
        self.backlog += len(rows)
        self._wake.set()

    def close(self) -> None:
        """Drop what has not begun; ``run`` returns when the chunk in hand is handled."""
        self._closing = True
        self._queue.clear()
        self._wake.set()

    async def run(self) -> None:
        """Have everything handled that is fed, until closed."""
        self.open = True
        loop = asyncio.get_running_loop()
        while not self._closing:
            if not self._queue:
                self._wake.clear()
                self._idle = True
                await self._wake.wait()
                self._idle = False
                continue
            rows, commands, until = self._next()
            for record in commands:
                await self._command(record)
            if rows:
                begun = loop.time()
                await self._handle(to_records(rows))
                self.backlog -= len(rows)
                self._pace(len(rows), loop.time() - begun)
            told = self._reached(until)
            if told is not None:
                await told

    def _pace(self, count: int, seconds: float) -> None:
        """Slow records come in small chunks: who has to give the partition up finishes the chunk in hand first."""
        fitting = self._most if seconds * self._most <= count * CHUNK_SECONDS else count * CHUNK_SECONDS / seconds
        self._chunk = max(1, min(self._most, 2 * self._chunk, int(fitting)))

    def _next(self) -> tuple[list[StoredRow], list[Record], int]:
        """A chunk: small pages together, a large one in parts."""
        rows, commands, until = self._queue.popleft()
        if len(rows) > self._chunk:
            self._queue.appendleft((rows[self._chunk :], [], until))
            return rows[: self._chunk], commands, rows[self._chunk - 1][_POSITION]
        while self._queue and len(rows) + len(self._queue[0][0]) <= self._chunk:
            more, told, until = self._queue.popleft()
            rows, commands = rows + more, commands + told
        return rows, commands, until


class Router:
    """Sorts pages into lanes."""

    def __init__(
        self,
        topics: Topics,
        key: Key,
        partitions: int,
        *,
        commands: Sequence[str] = (),
        command_key: Callable[[Record], str | None] | None = None,
    ) -> None:
        self._topics = topics
        self._column = _COLUMN[key] if isinstance(key, str) else None
        self._key = key_function(key)
        self._places = Places(partitions)
        self._commands = frozenset(commands)
        self._command_key = command_key

    def route(self, rows: Sequence[StoredRow], until: int, lanes: Sequence[Lane]) -> None:
        """Feed every lane what is its own of a page that reaches ``until``."""
        self._sort(rows)
        told = self._told(rows)
        first = rows[0][_POSITION] if rows else until
        for lane in lanes:
            own = self._places.lists[lane.number]
            own = [row for row in own if row[_POSITION] > lane.fed] if lane.fed >= first else own.copy()
            commands = [record for number, record in told if number == lane.number and record.position > lane.fed]
            lane.feed(own, commands, until)
        for place in self._places.lists:
            place.clear()

    def _sort(self, rows: Sequence[StoredRow]) -> None:
        places, column, topics = self._places, self._column, self._topics
        if column is not None:
            for row in rows:
                if topics[row[_TOPIC]]:
                    places[row[column]].append(row)
            return
        for row in rows:
            if topics[row[_TOPIC]] and (key := self._key(to_record(row))) is not None:
                places[key].append(row)

    def _told(self, rows: Sequence[StoredRow]) -> list[tuple[int, Record]]:
        """Commands to lanes, each with its lane's number."""
        found: list[tuple[int, Record]] = []
        if self._command_key is None:
            return found
        for row in rows:
            if row[_TOPIC] in self._commands:
                record = to_record(row)
                key = self._command_key(record)
                if key is not None:
                    found.append((partition_of(key, len(self._places.lists)), record))
        return found
