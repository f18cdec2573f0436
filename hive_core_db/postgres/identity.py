"""Which database this is, and the new epoch that begins where it is another one than it was.

A database is known by its cluster (system identifier), the cluster's timeline (a promotion begins a new one), and by
the identifiers of the database and of the table `log_meta` in it. A failover changes the timeline; a dump that was restored, into
whatever place, changes one of the rest. What changes none of them is a copy of the files of a stopped server, or a
snapshot of its disk, that is started as if nothing had happened: after such a restore `hive db epoch` says so.

Owns the comparison and what a new epoch does to the tables. The formula is in `hive_core_db.epochs`.
"""

from __future__ import annotations

import secrets
from typing import Final

from hive_core_db import epochs
from hive_core_db.postgres.driver import Connection
from hive_core_db.url import PostgresUrl
from hive_errors.store import EpochOver

# The timeline is read from the write-ahead log's own name: the control file learns of a promotion at the next checkpoint only.
IDENTITY: Final = """
SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
    ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer,
    (SELECT oid FROM pg_database WHERE datname = current_database()), 'log_meta'::regclass::oid)"""
# One statement, so that identity and epoch are of one moment.
STORED: Final = f"""
SELECT m.database_id, ({IDENTITY}), m.epoch, e.epoch_id FROM log_meta AS m LEFT JOIN epochs AS e ON e.epoch = m.epoch"""
LOCK_HEAD: Final = "SELECT hive_lock_head()"
# The one lock that spans round trips: a client that stands still must not hold it for ever (milliseconds).
NOT_FOR_EVER: Final = "SET LOCAL idle_in_transaction_session_timeout = 5000"
# The greatest position that may have been shown, and when: the head, or the beginning of an epoch without an event.
LAST: Final = """
SELECT greatest(coalesce(e.position, 0), b.first_position - 1),
    CASE WHEN e.position >= b.first_position THEN e.recorded_at ELSE b.began_at END, m.epoch, hive_now($1)
FROM log_meta AS m JOIN epochs AS b ON b.epoch = m.epoch
LEFT JOIN events AS e ON e.position = (SELECT max(position) FROM events)"""
LIST: Final = "INSERT INTO epochs (epoch, epoch_id, first_position, began_at, reason) VALUES ($1, $2, $3, $4, $5)"
BEGIN: Final = f"UPDATE log_meta SET epoch = $1, database_id = ({IDENTITY})"
# Whoever held something held it in another database: the clock finds the work, members join anew.
END_LEASES: Final = "UPDATE leases SET closed_at = $1 WHERE closed_at IS NULL"
FREE_PARTITIONS: Final = "UPDATE partitions SET lease_id = NULL, fence = fence + 1 WHERE lease_id IS NOT NULL"
FORGET_MEMBERS: Final = "DELETE FROM members"


class Identity:
    """What a process knows of the database that it writes to; asked at each connect.

    ``settle`` begins a new epoch where the database is another one, and refuses a process that is of another epoch than
    the one it finds, also where both have the same number: two restores of one dump give their epochs the same one.
    """

    def __init__(self, url: PostgresUrl) -> None:
        self._url = url
        self._epoch: tuple[int, str] | None = None

    @property
    def is_known(self) -> bool:
        """Whether it was asked once."""
        return self._epoch is not None

    async def settle(self, connection: Connection, given_now: int | None) -> None:
        """Compare; one process begins the new epoch, however many look.

        Raises:
            EpochOver: The log is in another epoch than this process was opened in.
        """
        row = await connection.fetchrow(STORED)
        if row is not None and row[0] != row[1]:
            async with connection.transaction():
                await connection.execute(NOT_FOR_EVER)
                await connection.execute(LOCK_HEAD)
                # The lock first, the identity in the next statement: another process may have been first.
                row = await connection.fetchrow(STORED)
                if row is not None and row[0] != row[1]:
                    await begin_epoch(connection, given_now, why=epochs.reason(before=row[0], after=row[1]))
                    row = await connection.fetchrow(STORED)
        if row is None:
            return  # a log without its one row is corrupt; whoever appends says so
        found = int(row[2]), str(row[3])
        if self._epoch is None:
            self._epoch = found
        elif self._epoch != found:
            raise EpochOver(url=str(self._url), held=self._epoch[0], actual=found[0])


async def begin_epoch(connection: Connection, given_now: int | None, *, why: str, above: int = 0) -> int:
    """Begin a new epoch in the caller's transaction, which holds the head lock; return its first position.

    ``above`` is a position that others have shown: the epoch begins above it too.
    """
    row = await connection.fetchrow(LAST, given_now)
    assert row is not None, "a log has one row in log_meta, and its epoch is listed"
    last, since, epoch, now = row
    first = epochs.first_position(last=max(last, above), since=since, now=now)
    await connection.execute(LIST, epoch + 1, secrets.token_hex(16), first, now, why)
    await connection.execute(BEGIN, epoch + 1)
    # Not before what they held was claimed, also where this server's clock is behind the last one's.
    await connection.execute(END_LEASES, max(now, since))
    await connection.execute(FREE_PARTITIONS)
    await connection.execute(FORGET_MEMBERS)
    return first
