"""What a batch does to partitions and parked keys: who may, and the rows that follow.

Lease and fence decide, never the clock: a lease that somebody closed holds no
partition any more, so a stale owner finds another lease or none in the row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from hive_core_db.records import AppendRequest, FencedOff, ParkChange, ParkKey

# A partition's row as verdicts need it; a closed lease holds nothing, whatever the row says.
OWNER = """
SELECT p.position, CASE WHEN l.closed_at IS NULL THEN l.lease_id END, p.fence
FROM partitions AS p LEFT JOIN leases AS l ON l.lease_id = p.lease_id
WHERE p.group_name = ? AND p.number = ?"""
# Judged before: the owner is the one that asks, and the checkpoint only moves forward.
MOVE = "UPDATE partitions SET position = ? WHERE group_name = ? AND number = ?"
# The first failure of a key, and each later one, are one row.
PARK = """
INSERT INTO parked (group_name, key, number, from_position, attempt, next_try, error, parked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (group_name, key) DO UPDATE SET number = excluded.number, from_position = excluded.from_position,
    attempt = excluded.attempt, next_try = excluded.next_try, error = excluded.error"""
UNPARK = "DELETE FROM parked WHERE group_name = ? AND key = ?"

Slot = tuple[str, int]
Moves = dict[Slot, int]


class Ownership:
    """The partitions that a batch touches, as they will be after it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._owners: dict[Slot, tuple[str | None, int]] = {}
        self._positions: dict[Slot, int] = {}
        self._moved: Moves = {}

    def judge(self, request: AppendRequest, head: int) -> Moves | FencedOff:
        """Return the checkpoints after the request, ``head`` being the head after it; or what fences it off."""
        if request.owner is not None:
            group, number, lease, fence = request.owner
            stale = self._stale((group, number), lease, fence)
            if stale is not None:
                return stale
        moves: Moves = {}
        for move in request.checkpoints:
            slot = move.group, move.partition
            stale = self._stale(slot, move.lease_id, move.fence)
            if stale is not None:
                return stale
            present = moves.get(slot, self._positions[slot])
            if move.position > head:
                return FencedOff(f"checkpoint of {_name(slot)}, beyond the head", move.position, head)
            if move.position < present:
                return FencedOff(f"checkpoint of {_name(slot)}, backwards", move.position, present)
            moves[slot] = move.position
        return moves

    def accept(self, moves: Moves) -> None:
        """Let later requests of the batch see the moves."""
        self._positions.update(moves)
        self._moved.update(moves)

    def write(self) -> None:
        """Write the checkpoints, in key order."""
        if self._moved:
            self._db.executemany(MOVE, [(position, *slot) for slot, position in sorted(self._moved.items())])

    def park(self, changes: Iterable[ParkChange], now: int) -> None:
        """Set keys aside, move their next try, or let them go."""
        for change in changes:
            if isinstance(change, ParkKey):
                next_try = None if change.retry_in is None else now + change.retry_in
                row = (
                    change.group,
                    change.key,
                    change.partition,
                    change.from_position,
                    change.attempt,
                    next_try,
                    change.error,
                    now,
                )
                self._db.execute(PARK, row)
            else:
                self._db.execute(UNPARK, (change.group, change.key))

    def _stale(self, slot: Slot, lease: str, fence: int) -> FencedOff | None:
        if slot not in self._owners:
            row = self._db.execute(OWNER, slot).fetchone()
            if row is None:
                return FencedOff(f"{_name(slot)}, which does not exist", fence, 0)
            self._positions[slot], owner, actual = row
            self._owners[slot] = owner, actual
        owner, actual = self._owners[slot]
        if owner != lease or actual != fence:
            return FencedOff(_name(slot), fence, actual)
        return None


def _name(slot: Slot) -> str:
    return f"partition {slot[1]} of group {slot[0]}"
