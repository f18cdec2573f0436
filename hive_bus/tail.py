"""The tail: how far the log is, and its newest rows, read once per process and shared.

Rows of this process's own commits are handed over from memory; those of other
processes are offered by a feed, or seen by a poll that runs only while somebody waits, and are read once.
A slow listener whose place has left the memory reads the log itself. The tail knows
rows and positions; topics it only passes on, where nobody wants every row.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from hive_bus.writer import Committed, Writer
from hive_core_db.records import StoredEvent
from hive_core_db.store import EventLog
from hive_errors import BusClosed, StoreError

PAGE: Final = 1000
POLL_SECONDS: Final = 0.015
SKIM_SECONDS: Final = 0.05
"""Between two reads for a few topics, where nobody wants every row."""
LONGEST_WAIT: Final = 1.0
"""Between two looks at a database that cannot answer, in seconds."""
LATE_SECONDS: Final = 0.5
"""So long may a feed let a position wait that is known to be in the log; then the log is read."""
RELAYS: Final = "this process relays the log to NATS"
UNATTENDED: Final = "nobody follows the log here yet"
LONGEST_NAP: Final = 3600.0
MOST_EARLY: Final = 64
"""So many own commits are kept while what lies before them is on its way."""
KEPT_ROWS: Final = 4096
KEPT_BYTES: Final = 8_000_000

_Listener = tuple[Committed, frozenset[str]]


class Tail:
    """The end of the log as this process knows it.

    Guarantees:
        ``head`` never falls within an epoch, and every row up to it can be had by
        ``page``, in order, without a hole. Memory is bounded by rows and bytes, however
        many listen and however slow they are.
    """

    def __init__(self, log: EventLog, writer: Writer, *, head: int) -> None:
        self.head = head
        self.late_seconds = LATE_SECONDS
        self._log = log
        self._rows: list[StoredEvent] = []
        self._bytes = 0
        self._behind = head
        self._failing = 0.0
        self._skim_at = 0.0
        self._early: dict[int, Sequence[StoredEvent]] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._hearers: set[asyncio.Future[None]] = set()
        self._listeners: list[_Listener] = []
        self._nap: asyncio.Future[None] | None = None
        self._idle = False
        self._closed = False
        self._leave_feed: Callable[[str], None] | None = None
        self._hole = False
        self._moved_at = 0.0
        self._attended = False
        self._relays = 0
        self._wanted: asyncio.Future[None] | None = None
        self._unsubscribe = writer.on_commit(self._committed)
        log.watch(self.told)

    async def page(self, after: int, *, limit: int = PAGE) -> Sequence[StoredEvent]:
        """Rows with positions above ``after``, at least one: waits until there is one.

        From memory where they are kept, else from the log.
        """
        if after >= self.head:
            await self.wait(after)
        rows = self.recent(after, limit=limit)
        return rows if rows is not None else await self._log.read(after, limit=limit)

    def recent(self, after: int, *, limit: int = PAGE) -> Sequence[StoredEvent] | None:
        """Rows above ``after`` from memory (none at the head); None where they are kept no more."""
        if after >= self.head:
            return ()
        if not self._rows:
            return None
        index = after + 1 - self._rows[0].position
        return self._rows[index : index + limit] if index >= 0 else None

    async def wait(self, beyond: int, *, timeout: float | None = None) -> int:
        """Return the head once it is above ``beyond``, or at the timeout (seconds) whatever it is then.

        Raises :class:`BusClosed` when nothing more can come, and the store's error when the log cannot be read.
        """
        if self.head > beyond:
            return self.head
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while self.head <= beyond:
            if self._closed:
                raise BusClosed(what="wait for events", reason="the bus is closed")
            if deadline is not None and loop.time() >= deadline:
                break
            await self._news(self._waiters, deadline)
        return self.head

    async def heard(self) -> int:
        """Return how far the log is said to be when that is news: before it is read, where not every row is. Raises as ``wait`` does."""
        if self._closed:
            raise BusClosed(what="wait for events", reason="the bus is closed")
        await self._news(self._hearers)
        return max(self._behind, self.head)

    def listen(self, callback: Committed, *, topics: Collection[str] = ()) -> Callable[[], None]:
        """Call ``callback`` on the loop with every row from now on, in order and without a hole; returns what ends that.

        With ``topics`` rows of others may be left out: while nobody here wants every row, the log is asked for these alone.
        It must return quickly and keep nothing without a bound; whoever needs time uses ``page``.
        """
        if not self._listeners:
            self._leap()
        listener = callback, frozenset(topics)
        self._listeners.append(listener)
        self._attend()
        return lambda: self._listeners.remove(listener)

    async def run(self) -> None:
        """Look for other processes' appends while somebody listens, until closed."""
        loop = asyncio.get_running_loop()
        next_poll = 0.0
        while not self._closed:
            if not self._waiters and not self._hearers and not self._listeners:
                await self._sleep(None)
                continue
            if self._leave_feed is not None and not self._hole:
                if (rest := self._patience(loop.time())) > 0:
                    await self._sleep(rest)
                    continue
                self._leave("it is late: the log goes on, and NATS does not")
            # A waiter that comes and goes with every event must not make every event a poll.
            if (self._behind <= self.head or self._wanted_topics()) and (wait := next_poll - loop.time()) > 0:
                await self._sleep(wait)
                continue
            next_poll = loop.time() + POLL_SECONDS
            await self._look()

    async def close(self) -> None:
        """End ``run``, and let everybody who waits go."""
        if self._closed:
            return
        self._closed = True
        self._unsubscribe()
        self._rouse()
        self._release()

    async def wanted(self, told: Callable[[str], None]) -> None:
        """Return once somebody follows the log in this process, and nothing in it reads the log for the others.

        ``told`` hears what is in the way.
        """
        while not self._attended or self._relays:
            told(RELAYS if self._relays else UNATTENDED)
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted

    def join(self, leave: Callable[[str], None]) -> bool:
        """A feed offers every row from now on, so the log is not asked, until ``part``; False where it has to be.

        A feed that lets what is in the log wait for too long is parted with, and ``leave`` is told why.
        """
        if self._relays:
            leave(RELAYS)
            return False
        self._moved_at = asyncio.get_running_loop().time()
        self._leave_feed = leave
        return True

    def part(self) -> None:
        """There is no feed any more: the log is asked again, at once."""
        if self._leave_feed is not None:
            self._leave_feed, self._hole = None, False
            self._rouse()

    def offer(self, rows: Sequence[StoredEvent]) -> None:
        """Rows as the log has them, without a hole: what is known is left out, and what lies behind a hole is read from the log."""
        first, last = rows[0].position, rows[-1].position
        if last <= self.head:
            return
        if first > self.head + 1:
            self.unoffered(last)
            return
        self._extend(rows[self.head + 1 - first :])
        self._go_on()

    def unoffered(self, position: int) -> None:
        """The log has this position, and no feed will offer it, or what comes before it: the log is read."""
        self._hole = self._leave_feed is not None
        self.told(position)
        if self._hole and not self._idle:
            self._rouse()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While it lasts the log itself is read, with no feed: for whoever feeds the others."""
        self._relays += 1
        self._look_again()
        self._leave(RELAYS)
        try:
            yield
        finally:
            self._relays -= 1
            self._look_again()

    async def refresh(self) -> int:
        """Ask the log how far it is, and return that; whoever waits below hears of it."""
        self.told(await self._log.head())
        return max(self._behind, self.head)

    def told(self, head: int) -> None:
        """The log is known to be this far."""
        if head > self._behind:
            began = self._behind <= self.head
            self._behind = head
            if began and self._leave_feed is not None:
                self._moved_at = asyncio.get_running_loop().time()
            if head > self.head and not self._idle and (began or self._leave_feed is None):
                self._rouse()
            if self._wanted_topics():
                _release(self._hearers)

    async def _news(self, waiters: set[asyncio.Future[None]], deadline: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        waiters.add(waiter)
        self._attend()
        timer = None if deadline is None else loop.call_at(deadline, _finish, waiter)
        try:
            await waiter
        finally:
            waiters.discard(waiter)
            if timer is not None:
                timer.cancel()

    async def _look(self) -> None:
        hole, self._hole = self._hole, False
        try:
            # `poll` may say None although somebody knows better: a commit of ours showed that others came before it.
            if self._behind <= self.head or self._wanted_topics():
                self.told(await self._log.poll() or 0)
            rests = not hole and self._wanted_topics() and asyncio.get_running_loop().time() < self._skim_at
            if self._behind > self.head and not rests:
                await self._catch_up()
        except StoreError as problem:
            self._hole = hole and self._leave_feed is not None
            # A locked file will be free again; anything else is for those who wait to hear.
            if not problem.retryable:
                self._release(problem)
            # A server that is away is asked less and less often.
            self._failing = min(2 * self._failing or POLL_SECONDS, LONGEST_WAIT)
            await asyncio.sleep(self._failing)
        else:
            self._failing = 0.0

    async def _catch_up(self) -> None:
        """Read what others appended, page by page, up to the log's head."""
        if not self._listeners:
            self._leap()
        while not self._closed:
            self._early.clear()
            aim = self._behind
            if topics := self._wanted_topics():
                await self._skim(topics)
                return
            rows = await self._log.read(self.head, limit=PAGE)
            # Own commits may have been handed over while this read ran: what is known is left out.
            news = [row for row in rows if row.position > self.head]
            if news:
                self._extend(news)
            if len(rows) < PAGE:
                # The log ends here as far as this read saw; a commit that raced it was contiguous, or is `behind` now.
                if not rows and self._behind == aim:
                    self._behind = self.head
                return

    async def _skim(self, topics: frozenset[str]) -> None:
        """Read what others appended of these topics alone; a full page is as far as it goes, until the next look."""
        # Asked, not heard: nothing is left to come below it.
        self._skim_at = asyncio.get_running_loop().time() + SKIM_SECONDS
        heard, head = self._behind, await self._log.head()
        rows = await self._log.read(self.head, until=head, limit=PAGE, topics=sorted(topics))
        if self._wanted_topics() != topics:
            # Somebody came meanwhile who wants more of the same stretch.
            return
        if self._behind == heard:
            self._behind = head
        end = rows[-1].position if len(rows) == PAGE else head
        if end > self.head:
            news = [row for row in rows if row.position > self.head]
            self._skip(end)
            self._tell(news)

    def _wanted_topics(self) -> frozenset[str]:
        """The topics that are enough for everybody here; none: somebody wants every row, or nobody listens."""
        wanted = [topics for _, topics in self._listeners]
        return frozenset().union(*wanted) if all(wanted) and not self._waiters else frozenset()

    def _leap(self) -> None:
        """Nobody asked for the rows that came meanwhile: of more than are kept, only how far the log is counts."""
        if self._behind - self.head > KEPT_ROWS:
            self._skip(self._behind)

    def _skip(self, head: int) -> None:
        """Go on from there; whoever wants the rows before it reads the log."""
        self._forget()
        self.head = head
        self._release()

    def _committed(self, rows: Sequence[StoredEvent]) -> None:
        first, last = rows[0].position, rows[-1].position
        whole = last - first == len(rows) - 1
        if whole and first == self.head + 1:
            self._extend(rows)
            self._go_on()
        elif last > self.head:
            # Another process appended in between (the reader fetches its rows and ours in one go), or our other lane
            # did: its commit is handed over in this very moment.
            if whole and not self._idle and len(self._early) < MOST_EARLY:
                self._early[first] = rows
            self.told(last)

    def _go_on(self) -> None:
        """Take what came too early, if it follows now."""
        while self._early and (first := min(self._early)) <= self.head + 1:
            rows = self._early.pop(first)
            if rows[-1].position > self.head:
                self._extend(rows[self.head + 1 - first :])

    def _patience(self, now: float) -> float:
        """Seconds that the feed may still take."""
        return self._moved_at + self.late_seconds - now if self._behind > self.head else LONGEST_NAP

    def _leave(self, reason: str) -> None:
        leave = self._leave_feed
        self.part()
        if leave is not None:
            leave(reason)

    def _extend(self, rows: Sequence[StoredEvent]) -> None:
        if self._rows and rows[0].position != self._rows[-1].position + 1:
            self._forget()
        if rows[-1].position - rows[0].position == len(rows) - 1:
            self._rows.extend(rows)
            self._bytes += sum(len(row.payload) for row in rows)
            self._trim()
        else:
            # An epoch begins within the page: numbers jump, so an index is no position. Readers go to the log.
            self._forget()
        self.head = rows[-1].position
        if self._leave_feed is not None:
            self._moved_at = asyncio.get_running_loop().time()
        self._tell(rows)
        self._release()

    def _tell(self, rows: Sequence[StoredEvent]) -> None:
        for callback, _ in tuple(self._listeners) if rows else ():
            callback(rows)

    def _trim(self) -> None:
        """Halve what is kept once it is too much: rare, so the cost per row is small."""
        while len(self._rows) > KEPT_ROWS or (self._bytes > KEPT_BYTES and len(self._rows) > 1):
            half = (len(self._rows) + 1) // 2
            self._bytes -= sum(len(row.payload) for row in self._rows[:half])
            del self._rows[:half]

    def _forget(self) -> None:
        self._rows.clear()
        self._bytes = 0

    def _release(self, problem: StoreError | None = None) -> None:
        _release(self._waiters, problem)
        _release(self._hearers, problem)

    async def _sleep(self, seconds: float | None) -> None:
        """Sleep for so long, or until roused."""
        loop = asyncio.get_running_loop()
        nap = self._nap = loop.create_future()
        self._idle = seconds is None
        timer = None if seconds is None else loop.call_later(seconds, _finish, nap)
        try:
            await nap
        finally:
            if timer is not None:
                timer.cancel()

    def _attend(self) -> None:
        """Somebody listens: polling goes on, if it had stopped."""
        if not self._attended:
            self._attended = True
            self._look_again()
        if self._idle or (self._waiters and self._behind > self.head):
            self._rouse()

    def _look_again(self) -> None:
        """Whoever waits to feed looks again."""
        if self._wanted is not None:
            _finish(self._wanted)

    def _rouse(self) -> None:
        self._idle = False
        if self._nap is not None:
            _finish(self._nap)


def _finish(future: asyncio.Future[None], problem: StoreError | None = None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(None)
    else:
        future.set_exception(copy.copy(problem))


def _release(waiters: set[asyncio.Future[None]], problem: StoreError | None = None) -> None:
    while waiters:
        _finish(waiters.pop(), problem)
