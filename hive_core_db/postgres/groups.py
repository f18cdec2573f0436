"""Groups, their partitions and members; moving a checkpoint is part of an append."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hive_core_db.postgres.database import Database
from hive_core_db.postgres.driver import Row
from hive_core_db.records import ParkedKey, Partition, Roster
from hive_core_db.rows import parked_of
from hive_errors.store import Fenced

# The first caller fixes the number of partitions for ever: keys are spread by it. Group and partitions are one statement.
MAKE_GROUP = """
WITH made AS (
    INSERT INTO consumer_groups (group_name, partitions, made_at) VALUES ($1, $2, hive_now($4))
    ON CONFLICT (group_name) DO NOTHING RETURNING partitions)
INSERT INTO partitions (group_name, number, position, lease_id, fence)
SELECT $1, n, $3, NULL, 0 FROM made, generate_series(0, made.partitions - 1) AS n"""
SIZE = "SELECT partitions FROM consumer_groups WHERE group_name = $1"
GROUPS = "SELECT group_name FROM consumer_groups ORDER BY group_name"
_PARTITIONS: Final = "SELECT group_name, number, position, lease_id, fence FROM partitions"
PARTITIONS = f"{_PARTITIONS} WHERE group_name = $1 ORDER BY number"
# An open lease only: a member that was closed must not come back through a late call. The share lock keeps it open until the end.
JOIN = """
INSERT INTO members (group_name, lease_id, joined_at)
SELECT $1, l.lease_id, hive_now($3) FROM leases AS l WHERE l.lease_id = $2 AND l.closed_at IS NULL FOR KEY SHARE
ON CONFLICT (group_name, lease_id) DO UPDATE SET joined_at = members.joined_at"""
LEAVE = "SELECT hive_leave($1, $2, $3)"
_MEMBERS: Final = """
FROM members AS m JOIN leases AS l ON l.lease_id = m.lease_id
WHERE l.closed_at IS NULL AND l.expires_at > (SELECT hive_now($2))"""
MEMBERS = f"SELECT m.lease_id {_MEMBERS} AND m.group_name = $1 ORDER BY m.lease_id"
# All that a process must know of its groups, in one question and of one moment. Members are the rows without a number.
ROSTERS = f"""
SELECT m.group_name, NULL::bigint AS number, NULL::bigint AS position, m.lease_id, NULL::bigint AS fence
{_MEMBERS} AND m.group_name = ANY ($1::text[])
UNION ALL {_PARTITIONS} WHERE group_name = ANY ($1::text[]) ORDER BY group_name, number, lease_id"""
TAKE = "SELECT taken_position, taken_fence FROM hive_take($1, $2, $3, $4)"
RELEASE = "UPDATE partitions SET lease_id = NULL WHERE group_name = $1 AND number = $2 AND lease_id = $3 AND fence = $4"
PARKED = """
SELECT group_name, key, number, from_position, attempt, next_try, error FROM parked
WHERE ($1::text IS NULL OR group_name = $1) AND ($2::smallint IS NULL OR number = $2)
ORDER BY group_name, number, from_position, key"""


class PostgresCheckpoints:
    """The port `Checkpoints` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure_group(self, group: str, *, partitions: int, start: int) -> int:
        """Make the group if it is new; return its number of partitions.

        Raises:
            ValueError: ``partitions`` is below one.
        """
        if partitions < 1:
            raise ValueError(f"a group has at least one partition, not {partitions}")
        async with self._database.connection() as connection:
            size: int | None = await connection.fetchval(SIZE, group)
            if size is None:
                await connection.execute(MAKE_GROUP, group, partitions, start, self._database.given_now())
                size = await connection.fetchval(SIZE, group)
        assert size is not None
        return size

    async def partitions(self, group: str) -> list[Partition]:
        """Return the group's partitions, by number."""
        return [_partition(row) for row in await self._database.fetch(PARTITIONS, group)]

    async def groups(self) -> list[str]:
        """Return the names of all groups, sorted."""
        return [row[0] for row in await self._database.fetch(GROUPS)]

    async def join(self, group: str, lease_id: str) -> None:
        """Become a member; joining twice is fine.

        Raises:
            Fenced: The lease is closed.
        """
        if await self._database.execute(JOIN, group, lease_id, self._database.given_now()) == "INSERT 0 0":
            raise Fenced(what=f"lease {lease_id}, closed", held=0, actual=0)

    async def leave(self, group: str, lease_id: str, *, release: bool = True) -> None:
        """Stop being a member; what the member holds of the group is freed, or kept until it is released."""
        await self._database.execute(LEAVE, group, lease_id, release)

    async def members(self, group: str) -> list[str]:
        """Return the lease ids of living members, sorted."""
        return [row[0] for row in await self._database.fetch(MEMBERS, group, self._database.given_now())]

    async def rosters(self, groups: Sequence[str]) -> dict[str, Roster]:
        """Return members and partitions of each of these groups."""
        wanted = list(groups)
        rows = await self._database.fetch(ROSTERS, wanted, self._database.given_now())
        return {
            group: Roster(
                members=tuple(row[3] for row in rows if row[0] == group and row[1] is None),
                partitions=tuple(_partition(row) for row in rows if row[0] == group and row[1] is not None),
            )
            for group in wanted
        }

    async def take(self, group: str, partition: int, lease_id: str) -> Partition | None:
        """Own a partition that nobody alive holds; None if somebody does, or the own lease is closed."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(TAKE, group, partition, lease_id, self._database.given_now())
        if row is None:
            return None
        return Partition(group=group, number=partition, position=row[0], lease_id=lease_id, fence=row[1])

    async def release(self, group: str, partition: int, lease_id: str, fence: int) -> None:
        """Free a partition, if it is still held under this lease and fence."""
        await self._database.execute(RELEASE, group, partition, lease_id, fence)

    async def parked(self, group: str | None = None, *, partition: int | None = None) -> list[ParkedKey]:
        """Return the keys set aside, by group, partition and position."""
        return [parked_of(row) for row in await self._database.fetch(PARKED, group, partition)]


def _partition(row: Row) -> Partition:
    group, number, position, lease_id, fence = row
    return Partition(group=group, number=number, position=position, lease_id=lease_id, fence=fence)
