"""Rosters: who is in the groups of this process and who holds what, seen by one look for all of them.

A look is one question to the database, asked once a second while everything stands
still, more often for a moment after something has changed, and at once when a group
says so. It tells what is; what follows from it is each group's business.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from hive_bus.lease import ProcessLease
from hive_bus.surely import patiently
from hive_bus.tasks import set_within
from hive_core_db.records import Roster
from hive_errors import BusClosed, GroupTaken

if TYPE_CHECKING:
    from hive_bus.bus import Bus

CALM_SECONDS: Final = 1.0
STIRRED_SECONDS: Final = 0.2
SETTLING_SECONDS: Final = 3.0
GATHERING_SECONDS: Final = 0.01
"""What several groups ask for at the same moment is one question."""

_of_lease: WeakKeyDictionary[ProcessLease, Rosters] = WeakKeyDictionary()


class Rosters:
    """The looks of one process, under one lease, at all the groups that it is in."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._groups: set[str] = set()
        self._asked: dict[str, asyncio.Future[Roster]] = {}
        self._seen: dict[str, tuple[object, ...]] = {}
        self._asking = asyncio.Event()
        self._soon = asyncio.Event()
        self._stirred_until = 0.0
        self._looking: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, bus: Bus, lease: ProcessLease) -> Rosters:
        """The process's rosters under this lease."""
        return _of_lease.setdefault(lease, cls(bus))

    def enter(self, group: str) -> None:
        """Look at this group too, at once. Raises :class:`GroupTaken` when this process is in it already, :class:`BusClosed`."""
        if group in self._groups:
            raise GroupTaken(group=group)
        if not self._groups:
            self._looking = self._bus.spawn(self._run(), name="rosters of groups")
        self._groups.add(group)
        self.hurry()

    def leave(self, group: str) -> None:
        """Look at it no more."""
        self._groups.discard(group)
        self._seen.pop(group, None)
        if not self._groups and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def hurry(self) -> None:
        """Look at once, and often for a moment: something has changed."""
        self._stirred_until = asyncio.get_running_loop().time() + SETTLING_SECONDS
        self._soon.set()

    async def look(self, group: str) -> Roster:
        """The group's roster, by a look that begins after this call. Raises what the store fails with, :class:`BusClosed`."""
        asked: asyncio.Future[Roster] = asyncio.get_running_loop().create_future()
        self._asked[group] = asked
        self._asking.set()
        return await asked

    async def _run(self) -> None:
        """Look, for as long as somebody is in a group; never raises, for it runs beside the bus."""
        try:
            while True:
                await self._asking.wait()
                await self._pause()
                if rest := self._bus.rest():
                    # This process stood still, and would find everybody gone.
                    await asyncio.sleep(rest)
                else:
                    await self._look()
        finally:
            self._answer(self._asked, BusClosed(what="group", reason="the bus is closed"))

    async def _pause(self) -> None:
        stirred = asyncio.get_running_loop().time() < self._stirred_until
        if await set_within(self._soon, STIRRED_SECONDS if stirred else CALM_SECONDS):
            await asyncio.sleep(GATHERING_SECONDS)

    async def _look(self) -> None:
        self._soon.clear()
        asked = dict(self._asked)
        try:
            rosters = await patiently(lambda: self._bus.store.checkpoints.rosters(sorted(asked)))
        except Exception as problem:  # noqa: BLE001 - it is handed over as it is, to those who asked
            self._answer(asked, problem)
            return
        for group, future in asked.items():
            self._note(group, rosters[group])
            if not future.done():
                future.set_result(rosters[group])
        self._forget(asked)

    def _note(self, group: str, roster: Roster) -> None:
        """Whether anything moved: then more is to be expected."""
        owners = (*roster.members, *(row.lease_id for row in roster.partitions))
        if self._seen.get(group) != owners:
            self._seen[group] = owners
            self._stirred_until = asyncio.get_running_loop().time() + SETTLING_SECONDS

    def _answer(self, asked: dict[str, asyncio.Future[Roster]], problem: Exception) -> None:
        for future in asked.values():
            if not future.done():
                future.set_exception(problem)
        self._forget(dict(asked))

    def _forget(self, asked: dict[str, asyncio.Future[Roster]]) -> None:
        # Whoever left and came back meanwhile has asked anew, and is answered by the next look.
        for group, future in asked.items():
            if self._asked.get(group) is future:
                del self._asked[group]
        if not self._asked:
            self._asking.clear()
