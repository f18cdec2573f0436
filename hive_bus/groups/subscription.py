"""Subscriptions: follow topics from now, from the beginning or from a position; alone, or as a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from hive_bus.groups.consumer import Owned
from hive_bus.groups.member import GroupMember
from hive_bus.reading import Follower, GroupKey, Start, start_position
from hive_bus.record import Record
from hive_bus.surely import patiently
from hive_errors import BusClosed

if TYPE_CHECKING:
    from hive_bus.bus import Bus


def subscribe(
    bus: Bus, patterns: Sequence[str], *, group: str | None, start: Start, key: GroupKey
) -> AbstractAsyncContextManager[AsyncIterator[Record]]:
    """See ``Bus.subscribe``."""
    return _alone(bus, patterns, start) if group is None else _shared(bus, patterns, start, group, key)


@asynccontextmanager
async def _alone(bus: Bus, patterns: Sequence[str], start: Start) -> AsyncIterator[AsyncIterator[Record]]:
    after = await start_position(start, bus.store.log)
    await bus.tail.refresh()
    records = _records(Follower(bus.store.log, bus.tail, patterns, after=after))
    try:
        yield records
    finally:
        await records.aclose()


async def _records(follower: Follower) -> AsyncGenerator[Record, None]:
    while True:
        # A database that is away for a while costs its readers time, not their subscription.
        for record in (await patiently(follower.page)).records:
            yield record


@asynccontextmanager
async def _shared(
    bus: Bus, patterns: Sequence[str], start: Start, group: str, key: GroupKey
) -> AsyncIterator[AsyncIterator[Record]]:
    hands = _Hands()
    member = GroupMember(bus, group=group, patterns=patterns, key=key, consumer=hands, start=start, checkpoint="each")
    task = bus.spawn(hands.serve(member), name=f"group {group}")
    task.add_done_callback(hands.ended)
    records = hands.records()
    try:
        yield records
    finally:
        await records.aclose()
        task.cancel()
        # The member leaves the group before the subscription ends: what it held is free for others then.
        await asyncio.wait([task])


class _Hands:
    """The consumer behind an iterator: one record at a time from hand to hand, handled when the next is asked for."""

    def __init__(self) -> None:
        # As many offers as partitions at most: each waits for its answer.
        self._offers: asyncio.Queue[tuple[Record, asyncio.Future[None]] | Exception] = asyncio.Queue()

    async def assigned(self, partition: Owned) -> None: ...

    async def revoked(self, partition: Owned) -> None: ...

    async def handle(self, partition: Owned, page: Sequence[Record]) -> None:
        """Return when every record of the page was taken and the one behind it was asked for."""
        for record in page:
            handled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._offers.put_nowait((record, handled))
            await handled

    async def records(self) -> AsyncGenerator[Record, None]:
        """The records, one by one; raises what ended the member."""
        while True:
            offer = await self._offers.get()
            if isinstance(offer, Exception):
                raise offer
            record, handled = offer
            # The partition may have been taken away meanwhile: then the record is somebody else's.
            if handled.done():
                continue
            yield record
            if not handled.done():
                handled.set_result(None)

    async def serve(self, member: GroupMember) -> None:
        """Run the member; what it fails with is raised where the records are asked for, not in the bus."""
        try:
            await member.run()
        except Exception as problem:  # noqa: BLE001 - it is handed over as it is
            self._offers.put_nowait(problem)

    def ended(self, _: asyncio.Task[None]) -> None:
        """No more records: whoever asks for one hears so."""
        self._offers.put_nowait(BusClosed(what="subscription", reason="it was closed"))
