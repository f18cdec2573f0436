"""One PostgreSQL database as this process sees it: its connections, its clock, and what its errors mean.

Owns the two connections that append, the pool for everything else, and the tasks that live as long as the store.
Knows no tables.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self

from hive_core_db.postgres.connection import check_server
from hive_core_db.postgres.driver import (
    COMMAND_SECONDS,
    Connection,
    Row,
    connect,
    failures,
    is_unsent,
    lost_track,
    translate,
)
from hive_core_db.postgres.identity import Identity
from hive_core_db.url import PostgresUrl
from hive_errors.store import EpochOver, StoreClosed, StoreError, StoreForked, StoreUnreachable

LANES: Final = 2
# A reading of the server's clock is believed for so long; until then only one with a quicker answer replaces it.
CLOCK_SECONDS: Final = 30.0
CLOCK = "SELECT hive_now(NULL)"
_CLOSE_SECONDS: Final = 5.0
_COUNTS_SLEEP: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> int:
    """Nanoseconds since this machine started, those that it slept among them where the system counts them."""
    return time.clock_gettime_ns(_COUNTS_SLEEP)


class Database:
    """Connections to one address.

    Guarantees:
        A connection is used by one caller at a time, by the process that opened it, and goes back without
        an open transaction. A lost connection is replaced by the next caller who wants one; that it was lost
        while nobody used it, only callers of several statements hear of.
    """

    def __init__(self, url: PostgresUrl, *, given: Callable[[], int] | None, command_timeout: float) -> None:
        self.url = url
        self._given = given
        self._command_timeout = command_timeout
        self._pid = os.getpid()
        self._closed = False
        self._identity = Identity(url)
        self._idle: list[Connection] = []
        self._permits = asyncio.Semaphore(url.pool_size)
        self._lanes: list[Connection | None] = [None] * LANES
        self._lane_locks = [asyncio.Lock() for _ in range(LANES)]
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self._clock_offset = time.time_ns() // 1000 - elapsed() // 1000
        self._clock_doubt = float("inf")
        self._clock_read = float("-inf")

    @classmethod
    async def open(
        cls, url: PostgresUrl, *, given: Callable[[], int] | None = None, command_timeout: float = COMMAND_SECONDS
    ) -> Self:
        """Connect for the first time, to see whether the server is there and keeps what a log needs.

        Args:
            url: Where.
            given: A clock to use in place of the server's, UTC microseconds: a test's.
            command_timeout: Seconds after which a statement is given up.

        Raises:
            DriverMissing: asyncpg is not installed.
            StoreUnreachable: The server does not answer.
            StoreUnavailable: It refuses this user, database or TLS setting.
            ServerUnsuitable: It does not keep what a log needs.
        """
        database = cls(url, given=given, command_timeout=command_timeout)
        await database._group.__aenter__()
        try:
            async with database.connection():
                return database
        except BaseException:
            await database.close()
            raise

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection of the pool; the driver's errors come out as the store's."""
        self.guard()
        async with self._permits:
            self.guard()
            connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_closed():
                # Before the tables are there, nothing can be compared.
                connection = await (self.settled(reads=True) if self._identity.is_known else self.connect())
            try:
                yield connection
            except failures() as error:
                trouble = self._trouble(connection, error)
                if isinstance(trouble, StoreUnreachable):
                    # All others that were idle are as dead as this one.
                    self._drop_idle()
                raise trouble from error
            finally:
                if self._is_fit(connection):
                    self._idle.append(connection)

    @asynccontextmanager
    async def appender(self, lane: int) -> AsyncIterator[Connection]:
        """Use the connection of an appending lane, alone; it is opened again after a loss."""
        self.guard()
        async with self._lane_locks[lane]:
            self.guard()
            connection = self._lanes[lane]
            if connection is None or connection.is_closed():
                # Whoever promoted or restored the database meanwhile began a new epoch, or this connection does.
                connection = self._lanes[lane] = await self.settled()
            try:
                yield connection
            except failures() as error:
                raise self._trouble(connection, error) from error
            finally:
                if not self._is_fit(connection):
                    self._lanes[lane] = None

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """Return what a reading statement finds; a connection that is lost meanwhile is replaced, once."""
        with suppress(StoreUnreachable):
            async with self.connection() as connection:
                return await connection.fetch(query, *args)
        async with self.connection() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        """Return the first row that a reading statement finds."""
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: object) -> Any:
        """Return the first value of the first row, None without one."""
        rows = await self.fetch(query, *args)
        return rows[0][0] if rows else None

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        """Run one statement that writes, and return what the server says of it; after a loss it is repeated only if it was not sent."""
        try:
            async with self.connection() as connection:
                return await connection.execute(query, *args, timeout=timeout)
        except StoreUnreachable as error:
            if not is_unsent(error.__cause__):
                raise
        async with self.connection() as connection:
            return await connection.execute(query, *args, timeout=timeout)

    async def call(self, lane: int, query: str, *args: object) -> Any:
        """Run one statement on an appending lane and return its value; after a loss it is repeated only if it was not sent."""
        try:
            async with self.appender(lane) as connection:
                return await connection.fetchval(query, *args)
        except StoreUnreachable as error:
            if not is_unsent(error.__cause__):
                raise
        async with self.appender(lane) as connection:
            return await connection.fetchval(query, *args)

    async def connect(self) -> Connection:
        """Open a connection that is the caller's own."""
        connection = await connect(self.url, command_timeout=self._command_timeout, steady_plans=True)
        try:
            await check_server(connection, self.url)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, failures()):
                raise self.translate(error) from error
            raise
        return connection

    async def settle(self, connection: Connection) -> None:
        """Begin a new epoch if the database is another one than it was; on another epoch than before, raise :class:`EpochOver`."""
        await self._identity.settle(connection, self.given_now())

    async def settled(self, *, reads: bool = False) -> Connection:
        """Open a connection of the caller's own, to the database that this process was opened on, in its epoch.

        Also one that only ``reads`` begins a new epoch where it must: a process that has nothing to append would hold its leases
        in a database that is another one now. It goes on in any epoch.

        Raises:
            EpochOver: The log is in another epoch, and the connection is for more than reading.
        """
        connection = await self.connect()
        try:
            with suppress(*((EpochOver,) if reads else ())):
                await self.settle(connection)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, failures()):
                raise self.translate(error) from error
            raise
        return connection

    def translate(self, error: Exception) -> StoreError:
        """The store's error for the driver's."""
        return translate(error, self.url, waited=self._command_timeout)

    def guard(self) -> None:
        """Refuse to work when closed, or in another process than the one that opened the connections."""
        if os.getpid() != self._pid:
            raise StoreForked(url=str(self.url), opened_by=self._pid, used_by=os.getpid())
        if self._closed:
            raise StoreClosed(url=str(self.url))

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run ``work`` beside the store until it is closed; it handles its own failures."""
        self._tasks.append(self._group.create_task(work, name=name))

    def given_now(self) -> int | None:
        """The time of the clock that was given, for SQL; None: SQL takes the server's."""
        return None if self._given is None else self._given()

    def now(self) -> int:
        """The server's time as this process knows it, UTC microseconds."""
        return elapsed() // 1000 + self._clock_offset if self._given is None else self._given()

    def clock_read(self, server: int, asked: int, answered: int) -> None:
        """Learn the server's time from an answer: ``asked`` and ``answered`` are :func:`elapsed` around it."""
        doubt = (answered - asked) / 2e9
        old = time.monotonic() - self._clock_read > CLOCK_SECONDS
        if old or doubt <= self._clock_doubt:
            self._clock_offset = server - (asked + answered) // 2000
            self._clock_doubt = doubt
            self._clock_read = time.monotonic()

    async def read_clock(self) -> None:
        """Ask the server for its time, three times: the quickest answer is the most exact."""
        for _ in range(3):
            asked = elapsed()
            server = await self.fetchval(CLOCK)
            self.clock_read(server, asked, elapsed())

    async def keep_clock(self) -> None:
        """Read the server's clock whenever nobody else has for a while, until cancelled: not every process polls the log."""
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            if time.monotonic() - self._clock_read > CLOCK_SECONDS:
                # A server that is away is asked again, and keeps its time meanwhile.
                with suppress(StoreError):
                    await self.read_clock()

    async def close(self) -> None:
        """Finish what waits, then close every connection; closing twice is fine."""
        if os.getpid() != self._pid:
            raise StoreForked(url=str(self.url), opened_by=self._pid, used_by=os.getpid())
        if self._closed:
            return
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)
        for lock in self._lane_locks:
            await lock.acquire()
        for _ in range(self.url.pool_size):
            await self._permits.acquire()
        self._closed = True
        open_ones = [connection for connection in (*self._idle, *self._lanes) if connection is not None]
        self._idle.clear()
        for connection in open_ones:
            await self.end(connection)
        # Whoever still waits for a turn finds the store closed.
        for lock in self._lane_locks:
            lock.release()
        for _ in range(self.url.pool_size):
            self._permits.release()

    async def end(self, connection: Connection) -> None:
        """Say goodbye to the server; a dead connection is dropped."""
        try:
            await connection.close(timeout=_CLOSE_SECONDS)
        except failures():
            connection.terminate()

    def _trouble(self, connection: Connection, error: Exception) -> StoreError:
        if lost_track(error):
            connection.terminate()
        return self.translate(error)

    def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()

    def _is_fit(self, connection: Connection) -> bool:
        if connection.is_closed():
            return False
        if connection.is_in_transaction():
            # Its caller was cancelled between two statements: the server rolls back what it holds when it sees the end.
            connection.terminate()
            return False
        return True
