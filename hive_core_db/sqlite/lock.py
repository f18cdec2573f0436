"""How a writer waits for the write lock that all processes of a file share, and gives way to who waits.

SQLite's own wait sleeps for up to 100 ms between two tries, and a busy process frees the lock for a tenth of a
millisecond between two commits: who waits like that misses it for seconds. So a writer's connection has no busy
handler. It tries every millisecond, and one that has met others lately leaves them room after each commit.
Owns the beginning and the end of a transaction. Knows no tables.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Final

# Seconds between two tries, at random. A try costs some 30 us of processor time.
_PAUSES: Final = (0.0003, 0.001)
# As long as the lock is left alone after a commit where others want it too: each of them tries once at least.
_ROOM: Final = 0.0012
# So many seconds after the lock was not to be had at once, others are still expected.
_REMEMBERED: Final = 1.0


class Connection(sqlite3.Connection):
    """A connection of ours: opened with SQLite's busy handler; a writer then waits for itself."""

    # Seconds for which `begin` waits itself; 0: SQLite's busy handler waits.
    patience: float = 0.0
    # Until when others are expected (0: nobody is), and when they were last let in; of the monotonic clock.
    crowded_until: float = 0.0
    freed: float = 0.0

    def wait_in_turn(self, patience: float) -> None:
        """From now on `begin` waits, for ``patience`` seconds; any other statement that meets a lock is busy at once."""
        self.execute("PRAGMA busy_timeout=0")
        self.patience = patience

    def give_way(self) -> None:
        """Leave the lock alone for a moment if it was freed just now, as long as others are expected."""
        now = time.monotonic()
        if now > self.crowded_until:
            self.crowded_until = 0.0
        elif (left := self.freed + _ROOM - now) > 0:
            time.sleep(left)


def begin(db: sqlite3.Connection) -> None:
    """Begin a transaction that holds the write lock; give way first if others want it too.

    Raises:
        sqlite3.OperationalError: Busy: others held the lock for as long as the connection waits.
    """
    if isinstance(db, Connection) and db.crowded_until:
        db.give_way()
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if not (is_busy(error) and isinstance(db, Connection) and db.patience):
            raise
        patiently(lambda: db.execute("BEGIN IMMEDIATE"), db.patience)
        db.crowded_until = time.monotonic() + _REMEMBERED


def commit(db: sqlite3.Connection) -> None:
    """Commit what `begin` began, and with it free the lock."""
    db.execute("COMMIT")
    if isinstance(db, Connection) and db.crowded_until:
        db.freed = time.monotonic()


def patiently(do: Callable[[], object], patience: float) -> None:
    """Do something until no lock is in its way, for ``patience`` seconds at most; what met a lock has done nothing.

    Raises:
        sqlite3.OperationalError: Busy: there was a lock to the end.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            do()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(*_PAUSES))
        else:
            return


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another connection's lock was in the way."""
    return primary_code(error) == sqlite3.SQLITE_BUSY


def primary_code(error: sqlite3.Error) -> int:
    """Return what went wrong, without where."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
