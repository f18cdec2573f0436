"""Groups: consumers that share a subscription, each key in order, across processes.

A group has a fixed number of partitions, each with a checkpoint, the lease that holds
it and a fence. Members take a fair share of them, give up what is too much when one
joins, and take over what a dead one held. This module owns membership and checkpoints;
what is done with the records is the consumer's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from hive_bus.groups.balance import Balance
from hive_bus.groups.consumer import Commands, Consumer, Owned
from hive_bus.groups.dispatch import CHUNK, PATIENCE, ROOM, Key, Lane, Pages, Router, Topics
from hive_bus.groups.roster import Rosters
from hive_bus.lease import LeaseLost, ProcessLease
from hive_bus.reading import FROM_BEGINNING, Start, start_position
from hive_bus.record import Record
from hive_bus.surely import patiently, surely
from hive_bus.tasks import alone, heed_cancellation, set_within
from hive_bus.telemetry import get_logger
from hive_core_db.records import Appended, AppendRequest, Partition
from hive_errors import BusClosed, Fenced, NewerVersion, StoreError, TimedOut

if TYPE_CHECKING:
    from hive_bus.bus import Bus

PARTITIONS: Final = 16
CHECKPOINT_SECONDS: Final = 0.2
LEAVE_SECONDS: Final = 5.0

__all__ = ["PARTITIONS", "Commands", "Commit", "Consumer", "GroupMember", "Owned"]

Commit = Literal["page", "each", "consumer"]

_log = get_logger(__name__)


class GroupMember:
    """One member of a group: one per group and bus.

    ``patterns`` are the topics (none: all), ``key`` what is kept in order, ``partitions``
    how many there are (fixed by the first member ever), ``start`` where a new group begins.
    ``checkpoint``: ``page`` moves it up to 200 ms after a page was handled, ``each`` after
    every record and before the next, ``consumer`` leaves it to the consumer, whose appends
    move it and who sets ``partition.position``.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        group: str,
        patterns: Sequence[str],
        key: Key,
        consumer: Consumer,
        partitions: int = PARTITIONS,
        start: Start = FROM_BEGINNING,
        checkpoint: Commit = "page",
        commands: Commands | None = None,
    ) -> None:
        self.group = group
        self.owned: dict[int, Owned] = {}
        self._bus = bus
        self._patterns = tuple(patterns)
        self._key = key
        self._consumer = consumer
        self._partitions = partitions
        self._start = start
        self._checkpoint = checkpoint
        self._commands = commands
        self._topics = Topics(patterns, always=commands.command_topics if commands is not None else ())
        self._lanes: dict[int, Lane] = {}
        self._refused: set[int] = set()
        self._balance = Balance("")
        self._stir = asyncio.Event()
        self._progress = asyncio.Event()
        self._goals: list[int] = []
        self._room = asyncio.Event()
        self._dirty = asyncio.Event()
        self._draining = asyncio.Event()

    async def run(self) -> None:
        """Be a member until cancelled or drained; a lost lease is replaced by a new one.

        Raises :class:`GroupTaken` when this bus has a member of the group already,
        :class:`BusClosed`, and whatever the consumer fails with.
        """
        while True:
            lease = await patiently(self._bus.open_lease)
            if lease.lost.is_set():
                raise Fenced(what=f"lease {lease.lease_id}", held=0, actual=0)
            self._rosters = Rosters.of(self._bus, lease)
            self._balance = Balance(lease.lease_id, refused=self._refused)
            self._rosters.enter(self.group)
            try:
                with alone():
                    await self._membership(lease)
            except LeaseLost:
                _log.warning("group.lease_lost", group=self.group, lease_id=lease.lease_id)
                heed_cancellation()
            except _Drained:
                return
            finally:
                self._rosters.leave(self.group)

    def drain(self) -> None:
        """Take nothing more and hand everything over: what is in hand is handled to its end, then ``run`` returns."""
        self._draining.set()

    async def caught_up(self, position: int, *, within: float) -> None:
        """Return when every partition, of any member, has reached ``position``; :class:`TimedOut` after ``within`` s."""
        try:
            async with asyncio.timeout(within):
                self._goals.append(position)
                while not await self._reached(position):
                    self._progress.clear()
                    # Progress of others is seen by looking; own partitions say so themselves.
                    await set_within(self._progress, 0.05)
        except TimeoutError:
            raise TimedOut(what=f"group {self.group} reaching position {position}", seconds=within) from None
        finally:
            self._goals.remove(position)

    async def _reached(self, position: int) -> bool:
        if any(owned.handled < position for owned in self.owned.values()):
            return False
        rows = await patiently(lambda: self._bus.store.checkpoints.partitions(self.group))
        return bool(rows) and all(
            (self.owned[row.number].handled if row.number in self.owned else row.position) >= position for row in rows
        )

    async def _membership(self, lease: ProcessLease) -> None:
        checkpoints, tail = self._bus.store.checkpoints, self._bus.tail
        start = await patiently(lambda: start_position(self._start, self._bus.store.log))
        count = await patiently(lambda: checkpoints.ensure_group(self.group, partitions=self._partitions, start=start))
        await self._join(lease)
        forget = tail.listen(lambda _: self._stir.set())
        try:
            await patiently(tail.refresh)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(lease.raise_when_lost(), name=f"{self.group}: lease")
                tasks.create_task(self._keep_balance(lease, tasks), name=f"{self.group}: balance")
                tasks.create_task(self._keep_checkpoints(), name=f"{self.group}: checkpoints")
                tasks.create_task(self._hand_over(lease), name=f"{self.group}: drain")
                await self._read(count, tasks)
        finally:
            forget()
            await self._leave(lease)

    async def _join(self, lease: ProcessLease) -> None:
        try:
            await patiently(lambda: self._bus.store.checkpoints.join(self.group, lease.lease_id))
        except Fenced:
            # Others closed it while this process stood still: its renewal hears of it soon, then there is a new one.
            await lease.lost.wait()
            raise LeaseLost from None

    async def _hand_over(self, lease: ProcessLease) -> None:
        """When drained: no member any more, so that the others share what is free, and what is in hand comes free one by one."""
        await self._draining.wait()
        leave = self._bus.store.checkpoints.leave
        await patiently(lambda: leave(self.group, lease.lease_id, release=False))
        for lane in self._lanes.values():
            lane.close()
        while self._lanes:
            self._progress.clear()
            await self._progress.wait()
        raise _Drained

    async def _leave(self, lease: ProcessLease) -> None:
        """Store how far it is, and free everything for the others."""
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                if not lease.lost.is_set():
                    await self._move_checkpoints(last=True)
                await self._bus.store.checkpoints.leave(self.group, lease.lease_id)
        except (TimeoutError, BusClosed, StoreError) as problem:
            if isinstance(problem, StoreError) and not problem.retryable:
                raise
            # The lease ends anyway, with the bus or by its time; others then take over.
            _log.warning("group.left_late", group=self.group, lease_id=lease.lease_id)
        finally:
            self.owned.clear()
            self._lanes.clear()

    # Reading: one loop for all partitions, from the lowest place that still takes.

    async def _read(self, partitions: int, tasks: asyncio.TaskGroup) -> None:
        commands = self._commands
        router = Router(
            self._topics,
            self._key,
            partitions,
            commands=() if commands is None else commands.command_topics,
            command_key=None if commands is None else commands.command_key,
        )
        pages, tail = Pages(self._bus.store.log, self._bus.tail, self._topics, tasks), self._bus.tail
        while True:
            self._stir.clear()
            lanes = [lane for lane in self._lanes.values() if lane.takes()]
            cursor = min((lane.fed for lane in lanes), default=tail.head)
            if cursor >= tail.head:
                await self._stir.wait()
                continue
            rows, until = await pages.page(cursor)
            router.route(rows, until, lanes)
            await self._wait_for_room(lanes)

    async def _wait_for_room(self, lanes: Sequence[Lane]) -> None:
        """Go at the pace of the slowest, but not for long: who has no room after a moment is left behind."""
        furthest = max((lane.fed for lane in lanes), default=0)
        full = []
        for lane in lanes:
            if lane.backlog < ROOM:
                lane.late = lane.late and lane.fed < furthest
            elif lane.late:
                lane.paused = True
            else:
                full.append(lane)
        if not full:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                while any(lane.backlog >= ROOM and lane.takes() for lane in full):
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            for lane in full:
                lane.late = lane.paused = lane.backlog >= ROOM

    # Checkpoints: what is handled is stored soon, all partitions in one request.

    def _handled(self, owned: Owned, position: int, *, store: bool) -> Awaitable[None] | None:
        self._passed(owned, position)
        self._room.set()
        self._stir.set()
        return self._store(owned) if store else None

    def _passed(self, owned: Owned, position: int) -> None:
        """A page held nothing of this partition: it counts as handled, and is stored when something is."""
        before, owned.handled = owned.handled, max(owned.handled, position)
        self._dirty.set()
        if any(before < goal <= owned.handled for goal in self._goals):
            self._progress.set()

    async def _store(self, owned: Owned) -> None:
        if not await self._move([(owned, owned.handled)]):
            raise Fenced(
                what=f"partition {owned.number} of group {self.group}", held=owned.fence, actual=owned.fence + 1
            )

    async def _keep_checkpoints(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(CHECKPOINT_SECONDS)
            self._dirty.clear()
            await self._move_checkpoints()

    async def _move_checkpoints(self, *, last: bool = False) -> None:
        if self._checkpoint == "consumer":
            return
        every = [(owned, owned.handled) for owned in self.owned.values()]
        if await self._move(every, last=last):
            return
        for one in every:
            # Somebody else has one of them: that lane ends, the others are stored.
            if not await self._move([one], last=last):
                self._drop(one[0].number)

    async def _move(self, to: Sequence[tuple[Owned, int]], *, last: bool = False) -> bool:
        """Store these checkpoints in one request; False when one of the partitions is no longer ours.

        The ``last`` one before a partition is let go of stores what is on its way too: to let go may overtake that.
        """
        behind = [(owned, position) for owned, position in to if position > (owned.position if last else owned.moving)]
        if not behind:
            return True
        moves = tuple(owned.move(position) for owned, position in behind)
        verdict = await surely(self._bus.writer, AppendRequest(epoch=self._bus.writer.epoch, checkpoints=moves))
        stored = isinstance(verdict, Appended)
        for owned, position in behind:
            owned.position = max(owned.position, position) if stored else owned.position
            owned.moving = max(owned.moving, owned.position) if stored else owned.position
        return stored

    def give_up(self, number: int, problem: Exception) -> None:
        """Let go of a partition: it is somebody else's, or its events are newer than this process's code."""
        if isinstance(problem, NewerVersion):
            self._refused.add(number)
            _log.error("group.newer_version", group=self.group, partition=number, error=str(problem))
        else:
            _log.warning("group.fenced", group=self.group, partition=number, error=str(problem))
        self._drop(number)

    def _drop(self, number: int) -> None:
        """The partition is somebody else's: nothing more is fed, and nothing stored."""
        lane = self._lanes.get(number)
        if lane is not None:
            lane.close()

    # Balance: as many partitions as is fair, taken when free, given up when too many.

    async def _keep_balance(self, lease: ProcessLease, tasks: asyncio.TaskGroup) -> None:
        while not self._draining.is_set():
            roster = await self._rosters.look(self.group)
            for row in roster.partitions:
                owned = self.owned.get(row.number)
                if owned is not None and (row.lease_id, row.fence) != (owned.lease_id, owned.fence):
                    self._drop(row.number)
            plan = self._balance.plan(roster, set(self._lanes), asyncio.get_running_loop().time())
            for number in plan.give_up:
                self._lanes[number].close()
            # A partition that was taken and not begun is free to be taken again, under a new fence.
            taken = await patiently(partial(self._take, [*plan.take, *plan.adopt], lease))
            # Begun together: a reader that starts with one partition reads its pages for that one alone.
            for partition in taken:
                if partition is not None:
                    self._begin(partition, lease, tasks)

    async def _take(self, rows: Sequence[Partition], lease: ProcessLease) -> list[Partition | None]:
        take = self._bus.store.checkpoints.take
        return await asyncio.gather(*(take(self.group, row.number, lease.lease_id) for row in rows))

    def _begin(self, row: Partition, lease: ProcessLease, tasks: asyncio.TaskGroup) -> None:
        owned = Owned(
            group=self.group, number=row.number, lease_id=lease.lease_id, fence=row.fence, position=row.position
        )
        self._balance.begun(row.number)
        self._lanes[row.number] = self._lane(owned)
        if self._draining.is_set():
            self._lanes[row.number].close()
        self.owned[row.number] = owned
        tasks.create_task(self._serve(owned), name=f"{self.group}: partition {row.number}")

    def _lane(self, owned: Owned) -> Lane:
        consumer, commands = self._consumer, self._commands

        async def command(record: Record) -> None:
            if commands is not None:
                await commands.command(owned, record)

        each = self._checkpoint == "each"
        return Lane(
            owned.number,
            position=owned.position,
            handle=lambda page: consumer.handle(owned, page),
            command=command,
            reached=lambda position: self._handled(owned, position, store=each),
            passed=None if each else lambda position: self._passed(owned, position),
            chunk=1 if each else CHUNK,
        )

    async def _serve(self, owned: Owned) -> None:
        """A partition's life at this member: from its assignment to its release."""
        lane = self._lanes[owned.number]
        try:
            await self._consumer.assigned(owned)
            self._stir.set()
            await lane.run()
        except (Fenced, NewerVersion) as problem:
            self.give_up(owned.number, problem)
        finally:
            await self._consumer.revoked(owned)
        await self._release(owned)

    async def _release(self, owned: Owned) -> None:
        # What was handled is stored first: whoever takes the partition next begins behind it.
        if self._checkpoint != "consumer":
            await self._move([(owned, owned.handled)], last=True)
        release = self._bus.store.checkpoints.release
        await patiently(lambda: release(self.group, owned.number, owned.lease_id, owned.fence))
        del self._lanes[owned.number], self.owned[owned.number]
        self._balance.gone(owned.number)
        self._rosters.hurry()
        self._progress.set()


class _Drained(Exception):
    """Nothing is in hand any more, and nothing more was wanted."""
