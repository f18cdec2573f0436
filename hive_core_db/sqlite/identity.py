"""Which database this file is, and the new epoch that begins where it is another one than it was.

A file cannot tell that it is a copy, so whatever copies one takes its identity away (`forget`); the first writer that
opens the copy finds none, draws a new one and begins a new epoch before anything is appended.
The formula is in `hive_core_db.epochs`.
"""

from __future__ import annotations

import secrets
import sqlite3
from typing import Final

from hive_core_db import epochs

# What a copy has in the place of an identity.
NONE: Final = ""

IDENTITY = "SELECT database_id FROM log_meta"
FORGET = f"UPDATE log_meta SET database_id = '{NONE}'"
# The greatest position that may have been shown, and when: the head, or the beginning of an epoch without an event.
LAST = """
SELECT max(coalesce(e.position, 0), b.first_position - 1),
    CASE WHEN e.position >= b.first_position THEN e.recorded_at ELSE b.began_at END, m.epoch
FROM log_meta AS m JOIN epochs AS b ON b.epoch = m.epoch
LEFT JOIN events AS e ON e.position = (SELECT max(position) FROM events)"""
LIST = "INSERT INTO epochs (epoch, epoch_id, first_position, began_at, reason) VALUES (?, ?, ?, ?, ?)"
BEGIN = "UPDATE log_meta SET epoch = ?, database_id = ?"
# Whoever held something held it in another database: the clock finds the work, members join anew.
END_LEASES = "UPDATE leases SET closed_at = ? WHERE closed_at IS NULL"
FREE_PARTITIONS = "UPDATE partitions SET lease_id = NULL, fence = fence + 1 WHERE lease_id IS NOT NULL"
FORGET_MEMBERS = "DELETE FROM members"


def is_missing(db: sqlite3.Connection) -> bool:
    """Return whether the file is a copy that nobody has opened yet."""
    row = db.execute(IDENTITY).fetchone()
    # Without a row the log has no identity at all, which is corruption and for others to say.
    return row is not None and row[0] == NONE


def settle(db: sqlite3.Connection, now: int) -> None:
    """Give a copy its identity and a new epoch, in the caller's transaction; look under the write lock whether it is one."""
    if is_missing(db):
        begin_epoch(db, now, why=epochs.reason(before="", after="a file of its own"))


def begin_epoch(db: sqlite3.Connection, now: int, *, why: str, above: tuple[int, int] = (0, 0)) -> int:
    """Begin a new epoch in the caller's transaction and return its first position.

    It is above every position that this file has shown; ``above`` is the last position and epoch of another file whose
    place this one takes: its epoch's number must be a new one too, for processes that know that file still run.
    """
    last, since, epoch = db.execute(LAST).fetchone()
    first = epochs.first_position(last=max(last, above[0]), since=since, now=now)
    number = max(epoch, above[1]) + 1
    db.execute(LIST, (number, secrets.token_hex(16), first, now, why))
    db.execute(BEGIN, (number, secrets.token_hex(16)))
    # Not before what they held was claimed, also where this server's clock is behind the last one's.
    db.execute(END_LEASES, (max(now, since),))
    db.execute(FREE_PARTITIONS)
    db.execute(FORGET_MEMBERS)
    return first


def forget(db: sqlite3.Connection) -> None:
    """Take the identity away, in the caller's transaction: this file is a copy."""
    db.execute(FORGET)
