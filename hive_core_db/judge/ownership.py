"""What a batch does to partitions: who may, and the checkpoints that follow.

Lease and fence decide, never the clock: a lease that somebody closed holds no
partition any more, so a stale owner finds another lease or none in the row.
"""

from __future__ import annotations

from hive_core_db.judge.facts import Facts, Slot
from hive_core_db.records import AppendRequest, FencedOff

Moves = dict[Slot, int]


class Ownership:
    """The partitions that a batch touches, as they will be after it; ``moved`` are the checkpoints to write."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._owners: dict[Slot, tuple[str | None, int]] = {}
        self._positions: dict[Slot, int] = {}
        self.moved: Moves = {}

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
        self.moved.update(moves)

    def _stale(self, slot: Slot, lease: str, fence: int) -> FencedOff | None:
        if slot not in self._owners:
            row = self._facts.partition(slot)
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
