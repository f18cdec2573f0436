"""Wake-ups between processes: NOTIFY from a connection of its own, LISTEN on another.

A wake-up names the head and nothing else; a lost one costs latency only, for a poll runs underneath.
Knows no events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hive_core_db.postgres.database import Database
from hive_core_db.postgres.driver import Connection, failures
from hive_errors.store import StoreError

# The first wake-up goes at once, further ones at most so often (seconds): a thousand appends are a hundred wake-ups.
TOGETHER: Final = 0.01
# Waits before a lost connection is opened again (seconds).
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 5.0
# How long a closing store tries to get its last wake-up through (seconds).
LAST_WORD: Final = 1.0

# A transaction of its own: in the append's it would queue the commits of all processes behind one lock. Nothing is lost with it that
# a poll does not find, so nobody waits for the disk. One simple query: no state stays in the session, as poolers want it.
SEND = "BEGIN; SET LOCAL synchronous_commit = off; NOTIFY {channel}, '{head}'; COMMIT"


class Notifier:
    """Tells the other processes how far the log is, after commits of this one."""

    def __init__(self, database: Database, channel: str) -> None:
        self._database = database
        self._channel = channel
        self._head = 0
        self._sent = 0
        self._news = asyncio.Event()
        self._connection: Connection | None = None
        self.pid = 0

    def announce(self, head: int) -> None:
        """Let the others know, soon, that the log has grown to ``head``."""
        if head > self._head:
            self._head = head
            self._news.set()

    async def run(self) -> None:
        """Send what is announced until cancelled; what is then unsent still goes."""
        try:
            while True:
                await self._news.wait()
                await self._send()
                await asyncio.sleep(TOGETHER)
        finally:
            if self._head > self._sent:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORD):
                        await self._send()
            if self._connection is not None:
                await self._database.end(self._connection)

    async def _send(self) -> None:
        self._news.clear()
        head = self._head
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._database.connect()
                self.pid = self._connection.get_server_pid()
            await self._connection.execute(SEND.format(channel=self._channel, head=head))
        except _troubles():
            # The others find it by polling, or by the next wake-up that gets through.
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
        self._sent = head


class Listener:
    """Hears the other processes' wake-ups; comes back by itself after a loss."""

    def __init__(self, database: Database, channel: str, *, own: Notifier) -> None:
        self._database = database
        self._channel = channel
        self._own = own
        self._callbacks: list[Callable[[int], None]] = []
        self.is_alive = False
        self.head = -1

    def watch(self, callback: Callable[[int], None]) -> None:
        """Call ``callback`` on the loop with each head that another process announces."""
        self._callbacks.append(callback)

    async def run(self) -> None:
        """Listen until cancelled."""
        wait = FIRST_WAIT
        while True:
            try:
                await self._listen()
                wait = FIRST_WAIT
            except _troubles():
                wait = min(2 * wait, LONGEST_WAIT)
            await asyncio.sleep(wait)

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        lost = asyncio.Event()
        connection = await self._database.connect()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(self._channel, self._hear)
            self.is_alive = True
            await lost.wait()
        finally:
            self.is_alive = False
            connection.terminate()

    def _hear(self, _connection: Any, pid: int, _channel: str, payload: str) -> None:
        # What this process appended it knows. Anybody may notify on any channel: what is no number is none of ours.
        if pid == self._own.pid or not (payload.isascii() and payload.isdigit() and len(payload) < 19):
            return
        self.head = head = int(payload)
        for callback in tuple(self._callbacks):
            callback(head)


def _troubles() -> tuple[type[Exception], ...]:
    return StoreError, *failures()
