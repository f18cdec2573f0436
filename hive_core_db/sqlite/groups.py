"""Groups, their partitions and members; moving a checkpoint is part of an append."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from hive_core_db.records import ParkedKey, Partition, Roster
from hive_core_db.rows import parked_of
from hive_core_db.sqlite.connection import Now, immediate
from hive_core_db.sqlite.leases import close_lease
from hive_core_db.sqlite.runner import Runner
from hive_errors.store import Fenced

# The first caller fixes the number of partitions for ever: keys are spread by it.
MAKE_GROUP = "INSERT OR IGNORE INTO consumer_groups (group_name, partitions, made_at) VALUES (?, ?, ?)"
MAKE_PARTITION = "INSERT INTO partitions (group_name, number, position, lease_id, fence) VALUES (?, ?, ?, NULL, 0)"
SIZE = "SELECT partitions FROM consumer_groups WHERE group_name = ?"
GROUPS = "SELECT group_name FROM consumer_groups ORDER BY group_name"
PARTITIONS = "SELECT group_name, number, position, lease_id, fence FROM partitions WHERE group_name = ? ORDER BY number"
# An open lease only: a member that was closed must not come back through a late call.
JOIN = """
INSERT OR IGNORE INTO members (group_name, lease_id, joined_at)
SELECT ?, lease_id, ? FROM leases WHERE lease_id = ? AND closed_at IS NULL"""
IS_MEMBER = "SELECT 1 FROM members WHERE group_name = ? AND lease_id = ?"
LEAVE = "DELETE FROM members WHERE group_name = ? AND lease_id = ?"
RELEASE_ALL = "UPDATE partitions SET lease_id = NULL WHERE group_name = ? AND lease_id = ?"
MEMBERS = """
SELECT m.lease_id FROM members AS m JOIN leases AS l ON l.lease_id = m.lease_id
WHERE m.group_name = ? AND l.closed_at IS NULL AND l.expires_at > ? ORDER BY m.lease_id"""
# All that a process must know of its groups. Members first: who joins in between is seen the next time.
MEMBERS_OF = """
SELECT m.group_name, m.lease_id FROM members AS m JOIN leases AS l ON l.lease_id = m.lease_id
WHERE m.group_name IN (SELECT value FROM json_each(?)) AND l.closed_at IS NULL AND l.expires_at > ? ORDER BY m.lease_id"""
PARTITIONS_OF = """
SELECT group_name, number, position, lease_id, fence FROM partitions
WHERE group_name IN (SELECT value FROM json_each(?)) ORDER BY group_name, number"""
HOLDER = """
SELECT p.position, p.lease_id, p.fence, l.closed_at, l.expires_at
FROM partitions AS p LEFT JOIN leases AS l ON l.lease_id = p.lease_id WHERE p.group_name = ? AND p.number = ?"""
IS_OPEN = "SELECT 1 FROM leases WHERE lease_id = ? AND closed_at IS NULL"
# The fence grows with each owner, so what the one before still has in flight is refused.
TAKE = "UPDATE partitions SET lease_id = ?, fence = fence + 1 WHERE group_name = ? AND number = ?"
RELEASE = "UPDATE partitions SET lease_id = NULL WHERE group_name = ? AND number = ? AND lease_id = ? AND fence = ?"
_PARKED = "SELECT group_name, key, number, from_position, attempt, next_try, error FROM parked"


class SqliteCheckpoints:
    """The port `Checkpoints` on SQLite."""

    def __init__(self, runner: Runner, now: Now) -> None:
        self._runner = runner
        self._now = now

    async def ensure_group(self, group: str, *, partitions: int, start: int) -> int:
        """Make the group if it is new; return its number of partitions.

        Raises:
            ValueError: ``partitions`` is below one.
        """
        if partitions < 1:
            raise ValueError(f"a group has at least one partition, not {partitions}")
        now = self._now()

        def job(db: sqlite3.Connection) -> int:
            with immediate(db):
                if db.execute(MAKE_GROUP, (group, partitions, now)).rowcount:
                    db.executemany(MAKE_PARTITION, [(group, number, start) for number in range(partitions)])
                return int(db.execute(SIZE, (group,)).fetchone()[0])

        return await self._runner.write(job)

    async def partitions(self, group: str) -> list[Partition]:
        """Return the group's partitions, by number."""
        rows = await self._runner.read(lambda db: db.execute(PARTITIONS, (group,)).fetchall())
        return [_partition(*row) for row in rows]

    async def groups(self) -> list[str]:
        """Return the names of all groups, sorted."""
        rows = await self._runner.read(lambda db: db.execute(GROUPS).fetchall())
        return [row[0] for row in rows]

    async def join(self, group: str, lease_id: str) -> None:
        """Become a member; joining twice is fine.

        Raises:
            Fenced: The lease is closed.
        """
        now = self._now()

        def job(db: sqlite3.Connection) -> bool:
            with immediate(db):
                db.execute(JOIN, (group, now, lease_id))
                return db.execute(IS_MEMBER, (group, lease_id)).fetchone() is not None

        if not await self._runner.write(job):
            raise Fenced(what=f"lease {lease_id}, closed", held=0, actual=0)

    async def leave(self, group: str, lease_id: str, *, release: bool = True) -> None:
        """Stop being a member, and free what the member holds of the group, unless that goes on for a moment."""

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                db.execute(LEAVE, (group, lease_id))
                if release:
                    db.execute(RELEASE_ALL, (group, lease_id))

        await self._runner.write(job)

    async def members(self, group: str) -> list[str]:
        """Return the lease ids of living members, sorted."""
        now = self._now()
        rows = await self._runner.read(lambda db: db.execute(MEMBERS, (group, now)).fetchall())
        return [row[0] for row in rows]

    async def rosters(self, groups: Sequence[str]) -> dict[str, Roster]:
        """Return members and partitions of each of these groups."""
        names, now = json.dumps(list(groups)), self._now()

        def job(db: sqlite3.Connection) -> tuple[list[tuple[str, str]], list[tuple[str, int, int, str | None, int]]]:
            members = db.execute(MEMBERS_OF, (names, now)).fetchall()
            return members, db.execute(PARTITIONS_OF, (names,)).fetchall()

        members, rows = await self._runner.read(job)
        partitions = [_partition(*row) for row in rows]
        return {
            group: Roster(
                members=tuple(lease_id for name, lease_id in members if name == group),
                partitions=tuple(row for row in partitions if row.group == group),
            )
            for group in groups
        }

    async def take(self, group: str, partition: int, lease_id: str) -> Partition | None:
        """Own a partition that nobody alive holds; None if somebody does, or the own lease is closed."""
        now = self._now()

        def job(db: sqlite3.Connection) -> Partition | None:
            with immediate(db):
                row = db.execute(HOLDER, (group, partition)).fetchone()
                if row is None or db.execute(IS_OPEN, (lease_id,)).fetchone() is None:
                    return None
                position, holder, fence, closed_at, expires_at = row
                if holder == lease_id:
                    return _partition(group, partition, position, lease_id, fence)
                if holder is not None and closed_at is None and expires_at is not None:
                    if expires_at > now:
                        return None
                    # The lease first, and all that it holds with it: from here on its owner writes nothing.
                    close_lease(db, holder, now)
                db.execute(TAKE, (lease_id, group, partition))
                return _partition(group, partition, position, lease_id, fence + 1)

        return await self._runner.write(job)

    async def release(self, group: str, partition: int, lease_id: str, fence: int) -> None:
        """Free a partition, if it is still held under this lease and fence."""

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                db.execute(RELEASE, (group, partition, lease_id, fence))

        await self._runner.write(job)

    async def parked(self, group: str | None = None, *, partition: int | None = None) -> list[ParkedKey]:
        """Return the keys set aside, by group, partition and position."""
        conditions = {"group_name": group, "number": partition}
        given = {name: value for name, value in conditions.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given) or "TRUE"
        statement = f"{_PARKED} WHERE {where} ORDER BY group_name, number, from_position, key"
        rows = await self._runner.read(lambda db: db.execute(statement, tuple(given.values())).fetchall())
        return [parked_of(row) for row in rows]


def _partition(group: str, number: int, position: int, lease_id: str | None, fence: int) -> Partition:
    return Partition(group=group, number=number, position=position, lease_id=lease_id, fence=fence)
