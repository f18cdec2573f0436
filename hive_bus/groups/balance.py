"""Fair shares: which partitions a member of a group gives up and which it takes, seen from its roster.

Pure but for what it remembers: since when a partition is free, and what was adopted or
refused. It knows no database and no tasks; whoever asks does what it says.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from hive_core_db.records import Partition, Roster

ADOPT_SECONDS: Final = 3.0
"""So long a partition is free before somebody takes it beyond its share: whoever should have it will not."""


class Plan(NamedTuple):
    """What to do now: ``give_up`` are numbers, ``take`` is free and within the share, ``adopt`` is free and nobody's."""

    give_up: list[int]
    take: list[Partition]
    adopt: list[Partition]


class Balance:
    """One member's part of its group.

    ``own`` is its lease, under which the roster names it; ``refused`` are partitions whose
    events are newer than its code: it never takes them.
    """

    def __init__(self, own: str, *, refused: Collection[int] = ()) -> None:
        self._own = own
        self._refused = refused
        self._members: list[str] = []
        self._adopted: set[int] = set()
        self._free_since: dict[int, float] = {}

    def plan(self, roster: Roster, held: Collection[int], now: float) -> Plan:
        """What to give up and what to take, holding ``held``; ``now`` is in seconds and only moves forward."""
        members = sorted({*roster.members, self._own})
        if members != self._members:
            self._members = members
            self._adopted.clear()
            self._free_since.clear()
        quota = fair_share(len(roster.partitions), len(members), members.index(self._own))
        mine = set(held) - self._adopted
        give_up = surplus(mine, quota)
        missing = max(0, quota - len(mine))
        free = self._free(roster.partitions, held, now)
        # Nobody whose share it is will have them, for they hold events newer than its code.
        orphans = [row for row in free[missing:] if self._free_since[row.number] <= now - ADOPT_SECONDS]
        self._adopted.update(row.number for row in orphans)
        return Plan(give_up, free[:missing], orphans)

    def gone(self, number: int) -> None:
        """It is held no more."""
        self._adopted.discard(number)

    def begun(self, number: int) -> None:
        """It is held now."""
        self._free_since.pop(number, None)

    def _free(self, rows: tuple[Partition, ...], held: Collection[int], now: float) -> list[Partition]:
        """Partitions that nobody else alive holds and this member may have; notes since when."""
        others = set(self._members) - {self._own}
        free = []
        # Everybody begins to look at another place, so that members who join at once do not want the same ones.
        start = self._members.index(self._own) * len(rows) // len(self._members)
        for row in (*rows[start:], *rows[:start]):
            if row.number in held or row.number in self._refused:
                continue
            if row.lease_id in others:
                self._free_since.pop(row.number, None)
                continue
            self._free_since.setdefault(row.number, now)
            free.append(row)
        return free


def fair_share(partitions: int, members: int, index: int) -> int:
    """How many partitions the member at ``index`` of the sorted members should hold."""
    share, rest = divmod(partitions, members)
    return share + (index < rest)


def surplus(held: set[int], quota: int) -> list[int]:
    """What to give up: the highest numbers beyond the quota."""
    return sorted(held)[quota:]
