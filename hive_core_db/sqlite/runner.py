"""Where SQL runs: on threads beside the event loop, or on the loop itself for a simulation.

Owns connections and their threads. A job is a function of a connection; it never
awaits, and no cursor outlives it. Knows no tables.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from hive_core_db.sqlite.connection import READER_CACHE, WAL_LIMIT, WRITER_CACHE, connect, fold_wal, translate
from hive_core_db.url import SqliteUrl
from hive_errors.store import StoreClosed, StoreError, StoreForked

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
Pause = Callable[[], Awaitable[None]]
READERS = 2


class Runner(Protocol):
    """Runs jobs against one file.

    Guarantees:
        Writes run one at a time, in the order of their calls; a job that was started runs to its end, also
        when its caller is cancelled. Driver errors arrive as errors of the store.
    """

    async def write(self, job: Job[T]) -> T:
        """Run ``job`` on the writer's connection; it opens and ends its own transaction."""
        ...

    async def read(self, job: Job[T]) -> T:
        """Run ``job`` on a reader's connection; each statement sees one snapshot."""
        ...

    def data_version(self) -> int:
        """A number that differs after any other connection's commit; without a thread, in microseconds."""
        ...

    async def close(self) -> None:
        """End threads and connections after the jobs that wait; calling it twice is fine."""
        ...


class Opener:
    """Opens connections to one file and folds its write-ahead log: what both runners share."""

    __slots__ = ("busy_timeout", "durable", "pid", "url", "wal", "wal_limit")

    def __init__(self, url: SqliteUrl, *, busy_timeout: float, durable: bool) -> None:
        self.url = url
        self.busy_timeout = busy_timeout
        self.durable = durable
        self.pid = os.getpid()
        self.wal = url.path.with_name(url.path.name + "-wal")
        self.wal_limit = WAL_LIMIT

    def connect(self, *, writer: bool = False, create: bool = False) -> sqlite3.Connection:
        """Open one more connection."""
        cache = WRITER_CACHE if writer else READER_CACHE
        return connect(
            self.url, busy_timeout=self.busy_timeout, durable=self.durable, create=create, cache=cache, writer=writer
        )

    def guard(self) -> None:
        """Refuse to work in another process than the one that opened the file."""
        if os.getpid() != self.pid:
            raise StoreForked(url=str(self.url), opened_by=self.pid, used_by=os.getpid())

    def after_write(self, db: sqlite3.Connection) -> None:
        """Fold the write-ahead log back when it has grown."""
        self.wal_limit = fold_wal(db, self.wal, self.wal_limit)

    def error(self, error: sqlite3.Error) -> StoreError:
        """The store's error for the driver's."""
        return translate(error, self.url, self.busy_timeout)


class _Lane:
    """A queue of jobs and the threads that serve it, each with a connection of its own."""

    def __init__(self, opener: Opener, name: str, threads: int, *, writes: bool, create: bool = False) -> None:
        self._opener = opener
        self._name = name
        self._limit = threads
        self._writes = writes
        self._create = create
        self._jobs: SimpleQueue[tuple[Job[Any] | None, asyncio.AbstractEventLoop, asyncio.Future[Any]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting = 0

    def submit(self, job: Job[T]) -> asyncio.Future[T]:
        """Queue ``job``; the future resolves on the calling loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting += 1
        # A further thread only when jobs wait for the ones that are there.
        if len(self._threads) < min(self._limit, self._waiting):
            thread = threading.Thread(target=self._serve, name=f"hive-{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((job, loop, future))
        return future

    async def close(self) -> None:
        """Let the threads finish what waits, then end."""
        loop = asyncio.get_running_loop()
        threads, self._threads = self._threads, []
        # Each thread says that it ends: a join would need one more thread, and there are none to be had at exit.
        ends: list[asyncio.Future[None]] = [loop.create_future() for _ in threads]
        for end in ends:
            self._jobs.put((None, loop, end))
        for end in ends:
            await end

    def _serve(self) -> None:
        db: sqlite3.Connection | None = None
        while True:
            job, loop, future = self._jobs.get()
            if job is None:
                break
            value: Any = None
            failure: BaseException | None = None
            try:
                if db is None:
                    db = self._opener.connect(writer=self._writes, create=self._create)
                value = job(db)
            except sqlite3.Error as error:
                failure = self._opener.error(error)
                failure.__cause__ = error
            except BaseException as error:  # noqa: BLE001 - it belongs to the caller who waits, not to this thread
                failure = error
            self._hand_over(loop, future, value, failure)
            # No reference may keep a result alive while the thread waits for its next job.
            del job, loop, future, value, failure
            if self._writes and db is not None:
                try:
                    self._opener.after_write(db)
                except sqlite3.Error:
                    # The commit stands; what is wrong with the file meets the next job, which has a caller to tell.
                    continue
        if db is not None:
            db.close()
        self._hand_over(loop, future, None, None)

    def _hand_over(
        self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], value: object, failure: BaseException | None
    ) -> None:
        try:
            loop.call_soon_threadsafe(self._resolve, future, value, failure)
        except RuntimeError:
            # The loop was closed while the job ran: nobody waits any more, and the job's outcome is in the file.
            return

    def _resolve(self, future: asyncio.Future[Any], value: object, failure: BaseException | None) -> None:
        self._waiting -= 1
        if future.cancelled():
            return
        if failure is None:
            future.set_result(value)
        else:
            future.set_exception(failure)


class ThreadRunner:
    """One writer thread and a few reader threads: the ordinary way."""

    def __init__(self, opener: Opener, *, create: bool) -> None:
        self._opener = opener
        self._writer = _Lane(opener, "writer", 1, writes=True, create=create)
        self._readers = _Lane(opener, "reader", READERS, writes=False)
        self._watch: sqlite3.Connection | None = None
        self._closed = False

    def _guard(self) -> None:
        self._opener.guard()
        if self._closed:
            raise StoreClosed(url=str(self._opener.url))

    async def write(self, job: Job[T]) -> T:
        """Run ``job`` on the writer thread."""
        self._guard()
        return await self._writer.submit(job)

    async def read(self, job: Job[T]) -> T:
        """Run ``job`` on a reader thread."""
        self._guard()
        return await self._readers.submit(job)

    def data_version(self) -> int:
        """Ask SQLite, on a connection of the loop's own that holds nothing between two calls."""
        self._guard()
        try:
            if self._watch is None:
                self._watch = self._opener.connect()
            version: int = self._watch.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise self._opener.error(error) from error
        return version

    async def close(self) -> None:
        """Finish what waits, then end the threads."""
        self._opener.guard()
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.close()
        await self._readers.close()
        await self._writer.close()


class InlineRunner:
    """Everything on the calling loop, without threads: a simulation decides when anything happens."""

    def __init__(self, opener: Opener, *, create: bool, pause: Pause | None) -> None:
        self._opener = opener
        self._pause = pause
        self._create = create
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._closed = False

    def _run(self, job: Job[T], *, writes: bool) -> T:
        self._opener.guard()
        if self._closed:
            raise StoreClosed(url=str(self._opener.url))
        try:
            if self._db is None:
                self._db = self._opener.connect(writer=True, create=self._create)
            if writes:
                value = job(self._db)
                self._opener.after_write(self._db)
                return value
            if self._reader is None:
                self._reader = self._opener.connect()
            return job(self._reader)
        except sqlite3.Error as error:
            raise self._opener.error(error) from error

    async def _between(self) -> None:
        if self._pause is not None:
            await self._pause()

    async def write(self, job: Job[T]) -> T:
        """Run ``job`` now; the caller may be stopped before it and after it, never within."""
        await self._between()
        value = self._run(job, writes=True)
        await self._between()
        return value

    async def read(self, job: Job[T]) -> T:
        """Run ``job`` now; the caller may be stopped before it and after it, never within."""
        await self._between()
        value = self._run(job, writes=False)
        await self._between()
        return value

    def data_version(self) -> int:
        """Ask SQLite on the reader's connection."""
        version: int = self._run(lambda db: db.execute("PRAGMA data_version").fetchone()[0], writes=False)
        return version

    async def close(self) -> None:
        """Close both connections."""
        self._closed = True
        for db in (self._reader, self._db):
            if db is not None:
                db.close()
        self._db = self._reader = None
