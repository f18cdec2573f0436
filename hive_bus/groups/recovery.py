"""What becomes of failed records: parked, tried again when due, released in the append that catches up.

Main flow and retries of a partition share one chain of appends, so their order is the
order of their conclusions. A key leaves the shelf only when no record of it has passed
behind the one just handled: that is decided without an await between look and removal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from hive_bus.envelope import Collector
from hive_bus.events.system import EventDiscarded
from hive_bus.groups.chain import Chain, Link
from hive_bus.groups.consumer import Owned
from hive_bus.groups.dispatch import Key, key_function
from hive_bus.groups.parking import Parked, RetryPolicy, parked_event, records_of
from hive_bus.record import Record
from hive_bus.surely import patiently
from hive_bus.tasks import set_within, together
from hive_bus.telemetry import get_logger
from hive_core_db.records import NewEvent, ParkChange, UnparkKey, Verdict
from hive_errors import Fenced, NewerVersion

if TYPE_CHECKING:
    from hive_bus.bus import Bus

AT_ONCE: Final = 16
AHEAD: Final = 64

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A record failed: why, seconds until the next try (None: by the policy), and whether only a person can help."""

    error: str
    wait: float | None = None
    forever: bool = False


@dataclass(slots=True, eq=False)
class Holding:
    """What this process holds of a partition: its appends, its parked keys, and how far its records have passed."""

    owned: Owned
    chain: Chain
    parked: dict[str, Parked] = field(default_factory=dict)
    passed: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


Call = Callable[[Owned, Record, int], Awaitable[tuple[Failure | None, Collector]]]
"""Calls the handler with a record of a partition, for the n-th time."""


class Recovery:
    """The parked keys of a group's partitions that this process holds.

    ``call`` handles a record, ``give_up`` is told of a partition that is no longer to be held, and why.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        group: str,
        key: Key,
        patterns: tuple[str, ...],
        policy: RetryPolicy,
        call: Call,
        give_up: Callable[[int, Exception], None],
    ) -> None:
        self._bus = bus
        self._group = group
        self._key = key
        self.key_of = key_function(key)
        self._patterns = patterns
        self._policy = policy
        self._call = call
        self._give_up = give_up
        self._holdings: dict[int, Holding] = {}
        self._wake = asyncio.Event()

    async def hold(self, owned: Owned) -> Holding:
        """Begin with a partition: learn which keys wait."""
        holding = Holding(owned, Chain(self._bus, owned), passed=owned.position)
        now, loop_now = self._bus.now(), asyncio.get_running_loop().time()
        parked = self._bus.store.checkpoints.parked
        for row in await patiently(lambda: parked(self._group, partition=owned.number)):
            holding.parked[row.key] = Parked(
                key=row.key,
                from_position=row.from_position,
                reach=owned.position,
                attempt=row.attempt,
                due=None if row.next_try is None else loop_now + (row.next_try - now) / 1_000_000,
                error=row.error,
            )
        self._holdings[owned.number] = holding
        self._wake.set()
        return holding

    async def let_go(self, owned: Owned) -> None:
        """End with a partition: retries are cancelled, appends on their way are stored or fenced."""
        holding = self._holdings.pop(owned.number, None)
        if holding is None:
            return
        for task in holding.tasks:
            task.cancel()
        if holding.tasks:
            await asyncio.wait(holding.tasks)
        if holding.chain.failure is None:
            try:
                await holding.chain.drain()
            except Fenced:
                return

    def park(self, holding: Holding, record: Record, failure: Failure) -> None:
        """First failure: the key's row is written in the append that moves the checkpoint past the record."""
        key = self.key_of(record) or ""
        parked = Parked(key=key, from_position=record.position, reach=record.position, attempt=0, due=None, error="")
        holding.parked[key] = parked
        holding.chain.add(self._failed(holding, parked, record, failure, move=record.position))

    def link(
        self,
        holding: Holding,
        record: Record,
        collector: Collector,
        *,
        move: int | None = None,
        parks: tuple[ParkChange, ...] = (),
    ) -> Link:
        """The conclusion of a handled record: what the handler published, and what goes with it."""
        return Link(
            key=self.key_of(record) or "",
            position=record.position,
            events=tuple(collector.events),
            work=tuple(collector.work),
            expected=dict(collector.expected),
            views=tuple(getattr(collector, "views", ())),
            parks=parks,
            move=move,
            refused=lambda link, verdict: self._refused(holding, record, link, verdict),
        )

    def obey(self, owned: Owned, record: Record) -> None:
        """A person's order; the row is then written as this owner knows it, whatever the order left there."""
        holding, key = self._holdings[owned.number], str(record.data["key"])
        parked = holding.parked.get(key)
        if parked is None:
            unpark = UnparkKey(group=self._group, key=key)
            holding.chain.add(Link(key=key, position=record.position, parks=(unpark,)))
            return
        if record.topic == EventDiscarded.TOPIC:
            position = int(record.data["position"])
            parked.discarded.add(position)
            if parked.from_position == position:
                parked.from_position = position + 1
        parked.attempt, parked.due = 0, asyncio.get_running_loop().time()
        row = parked.row(self._group, owned.number, retry_in=0)
        holding.chain.add(Link(key=key, position=record.position, parks=(row,)))
        self._wake.set()

    async def beside(self, member: Coroutine[None, None, None]) -> None:
        """Run the member with the retries beside it; they end with it."""
        async with together() as tasks:
            retries = tasks.create_task(self.run(), name="retries")
            try:
                await member
            finally:
                retries.cancel()

    async def run(self) -> None:
        """Start what is due, side by side, until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                free = AT_ONCE - sum(len(holding.tasks) for holding in self._holdings.values())
                later = None
                for due, holding, parked in self._waiting():
                    if free > 0 and due <= loop.time():
                        self._start(holding, parked, tasks)
                        free -= 1
                    else:
                        later = due if free > 0 else None
                        break
                await set_within(self._wake, None if later is None else max(0.0, later - loop.time()))

    def _waiting(self) -> list[tuple[float, Holding, Parked]]:
        waiting = [
            (parked.due, holding, parked)
            for holding in self._holdings.values()
            for parked in holding.parked.values()
            if parked.due is not None and not parked.running
        ]
        return sorted(waiting, key=lambda entry: entry[0])

    def _start(self, holding: Holding, parked: Parked, tasks: asyncio.TaskGroup) -> None:
        parked.running = True
        task = tasks.create_task(self._catch_up(holding, parked), name=f"{self._group}: retry {parked.key}")
        holding.tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            parked.running = False
            holding.tasks.discard(task)
            self._wake.set()

        task.add_done_callback(ended)

    async def _catch_up(self, holding: Holding, parked: Parked) -> None:
        """Handle the key's records from where it failed, until none has passed that was not handled."""
        try:
            while True:
                until = parked.reach
                if not await patiently(partial(self._through, holding, parked, until)):
                    return
                if holding.parked.get(parked.key) is not parked:
                    return
                if parked.reach == until:
                    unpark = UnparkKey(group=self._group, key=parked.key)
                    del holding.parked[parked.key]
                    holding.chain.add(Link(key=parked.key, position=until, parks=(unpark,)))
                    return
                parked.from_position = max(parked.from_position, until + 1)
        except (Fenced, NewerVersion) as problem:
            self._give_up(holding.owned.number, problem)

    async def _through(self, holding: Holding, parked: Parked, until: int) -> bool:
        """Handle the key's records up to ``until``; whether there is more to do. Begun again, it goes on where it was."""
        records = records_of(
            self._bus, self._key, parked.key, self._patterns, after=parked.from_position - 1, until=until
        )
        async with aclosing(records):
            async for record in records:
                if not await self._again(holding, parked, record):
                    return False
        return True

    async def _again(self, holding: Holding, parked: Parked, record: Record) -> bool:
        """Handle one record of a parked key; whether there is more to do for the key now."""
        if holding.parked.get(parked.key) is not parked:
            return False
        if record.position in parked.discarded or record.position < parked.from_position:
            return True
        failure, collector = await self._call(holding.owned, record, parked.attempt + 1)
        if holding.parked.get(parked.key) is not parked:
            return False
        gone = record.position in parked.discarded
        if failure is not None and not gone:
            holding.chain.add(self._failed(holding, parked, record, failure))
            return False
        if gone:
            collector = Collector(record=record)
        parked.attempt, parked.from_position = 0, record.position + 1
        if record.position >= parked.reach:
            del holding.parked[parked.key]
            unpark = UnparkKey(group=self._group, key=parked.key)
            holding.chain.add(self.link(holding, record, collector, parks=(unpark,)))
            return False
        link = self.link(holding, record, collector)
        if link.events or link.views:
            link.parks = (parked.row(self._group, holding.owned.number, retry_in=0),)
            holding.chain.add(link)
        if len(holding.chain) > AHEAD:
            await holding.chain.drain()
        return True

    def _failed(
        self, holding: Holding, parked: Parked, record: Record, failure: Failure, *, move: int | None = None
    ) -> Link:
        """What is appended when a record of a parked key failed; with an event when it is new, or for a person."""
        parked.attempt += 1
        parked.error, parked.from_position = failure.error, record.position
        pause = None if failure.forever else self._policy.wait(parked.attempt, self._bus.ids.jitter())
        if pause is not None and failure.wait is not None:
            pause = max(0.0, failure.wait)
        parked.due = None if pause is None else asyncio.get_running_loop().time() + pause
        _log.warning(
            "group.parked",
            group=self._group,
            key=parked.key,
            position=record.position,
            attempt=parked.attempt,
            retry_in=pause,
            error=failure.error,
        )
        self._wake.set()
        events: tuple[NewEvent, ...] = ()
        # Never about such an event itself: a group that fails on every event would feed itself for ever.
        if (parked.attempt == 1 or pause is None) and not record.topic.startswith("system."):
            events = (parked_event(self._bus, self._group, parked, record),)
        row = parked.row(self._group, holding.owned.number, retry_in=pause)
        return Link(key=parked.key, position=record.position, events=events, parks=(row,), move=move)

    def _refused(self, holding: Holding, record: Record, link: Link, verdict: Verdict) -> Link:
        """The store will not have what the handler published: the record failed after all."""
        holding.chain.forget(link.key)
        known = holding.parked.get(link.key)
        parked = Parked(
            key=link.key,
            from_position=record.position,
            # Whatever has passed of this key since was concluded too early and waits as well.
            reach=holding.passed,
            attempt=known.attempt if known is not None else 0,
            due=None,
            error="",
        )
        holding.parked[link.key] = parked
        failure = Failure(error=f"what it published was refused: {verdict}")
        return self._failed(holding, parked, record, failure, move=link.move)
