"""Many writers on one log, and what must be true of what they were told: a model that knows only verdicts and rows.

Each writer appends, with conditions that are right or nearly, repeats itself, repeats itself elsewhere at the same time, changes its
mind in the middle. Knows buses, requests and rows; nothing of a database.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from hive_bus import Bus
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    Conflict,
    Corrupt,
    NewEvent,
    StoredEvent,
    Verdict,
)
from tests.contract.making import event, request

STREAMS = 12
END = "writers.done"


@dataclass
class World:
    """What all writers share: who was told what, and which versions they saw."""

    settled: list[tuple[AppendRequest, int]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    waiting: int = 0
    stopping: bool = False

    def settle(self, asked: AppendRequest, first: int) -> None:
        """Remember where a request lies in the log."""
        self.settled.append((asked, first))


@dataclass
class Writer:
    """One of the many: a task with a chance of its own, and with a bus at hand, or another one."""

    name: str
    chance: Random
    bus: Bus
    other: Bus
    world: World
    asked: list[tuple[AppendRequest, int]] = field(default_factory=list)
    number: int = 0

    async def run(self) -> None:
        """Do one thing after the other until the world stops."""
        acts = (
            self.plain,
            self.plain,
            self.expecting,
            self.expecting,
            self.again,
            self.twice,
            self.cancelled,
            self.mixed,
        )
        while not self.world.stopping:
            await self.chance.choice(acts)()

    def made(self) -> AppendRequest:
        """A request with one to five new events in streams that all share."""
        events = []
        for _ in range(self.chance.choice((1, 1, 1, 2, 5))):
            self.number += 1
            stream = f"shared-{self.chance.randrange(STREAMS)}"
            new = event(stream, event_id=f"{self.name}-{self.number}", correlation_id=f"run-{self.chance.randrange(5)}")
            events.append(new)
        return request(*events)

    async def ask(self, asked: AppendRequest, bus: Bus | None = None) -> Verdict:
        """Append, and remember what was said."""
        self.world.waiting += 1
        try:
            found = await (bus or self.bus).writer.append(asked)
        finally:
            self.world.waiting -= 1
        self.world.told[type(found).__name__] += 1
        if isinstance(found, Appended):
            for row in found.events:
                self.world.versions[row.stream] = max(row.version, self.world.versions.get(row.stream, 0))
        return found

    async def settle(self, asked: AppendRequest) -> None:
        """Ask for what must be accepted, or was before."""
        found = await self.ask(asked)
        if not isinstance(found, Appended | AlreadyThere):
            self.world.wrong.append(f"{asked.events[0].event_id}: {found}")
            return
        self.asked.append((asked, found.first))
        self.world.settle(asked, found.first)

    async def plain(self) -> None:
        """New events without a condition."""
        await self.settle(self.made())

    async def expecting(self) -> None:
        """New events on the condition that a stream is as somebody saw it; often it is not any more."""
        asked = self.made()
        stream = asked.events[0].stream
        expected = max(0, self.world.versions.get(stream, 0) + self.chance.choice((0, 0, 0, -1, 1)))
        asked = request(*asked.events, expected={stream: expected})
        found = await self.ask(asked)
        match found:
            case Appended(first=first):
                if found.events[0].version != expected + 1:
                    self.world.wrong.append(
                        f"{asked.events[0].event_id} expected {expected}: {found.events[0].version}"
                    )
                self.world.settle(asked, first)
            case Conflict():
                self.world.conflicts.append(found)
                if (found.stream, found.expected) != (stream, expected) or found.actual == expected:
                    self.world.wrong.append(f"{asked.events[0].event_id}: {found}")
            case _:
                self.world.wrong.append(f"{asked.events[0].event_id}: {found}")

    async def again(self) -> None:
        """What is in the log already, by any bus: it is said to be where it was."""
        if not self.asked:
            return
        asked, first = self.chance.choice(self.asked)
        found = await self.ask(asked, self.chance.choice((self.bus, self.other)))
        if not isinstance(found, AlreadyThere) or found.first != first:
            self.world.wrong.append(f"{asked.events[0].event_id} again, which was at {first}: {found}")

    async def twice(self) -> None:
        """One request by two processes at once: one of them appends it."""
        asked = self.made()
        found = await asyncio.gather(self.ask(asked), self.ask(asked, self.other))
        places = {one.first for one in found if isinstance(one, Appended | AlreadyThere)}
        if len(places) != 1 or sorted(type(one).__name__ for one in found) != ["AlreadyThere", "Appended"]:
            self.world.wrong.append(f"{asked.events[0].event_id} twice at once: {found}")
            return
        self.world.settle(asked, places.pop())

    async def cancelled(self) -> None:
        """A caller who goes away at some moment, and comes back to see what became of it: all of it or nothing."""
        asked = self.made()
        async with asyncio.TaskGroup() as tasks:
            doomed = tasks.create_task(self.ask(asked))
            for _ in range(self.chance.randrange(12)):
                await asyncio.sleep(0)
            doomed.cancel()
        await self.settle(asked)

    async def mixed(self) -> None:
        """What is there and what is not, in one request: refused."""
        if not self.asked:
            return
        asked, _ = self.chance.choice(self.asked)
        found = await self.ask(request(*asked.events, *self.made().events))
        if not isinstance(found, Corrupt):
            self.world.wrong.append(f"{asked.events[0].event_id} with strangers: {found}")


@dataclass
class Reader:
    """Follows the log: by the tail that its process shares, or page by page with what the log says.

    It remembers of each row in turn what it was, in few bytes: a soak reads many.
    """

    bus: Bus
    by_tail: bool
    positions: list[int] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    ended: bool = False

    async def run(self) -> None:
        """Read until the event that says the end."""
        while not self.ended:
            head = self.positions[-1] if self.positions else 0
            if self.by_tail:
                rows = await self.bus.tail.page(head)
            else:
                await self.bus.tail.wait(head)
                rows = await self.bus.store.log.read(head, limit=100)
            self.positions += [row.position for row in rows]
            self.looks += map(hash, rows)
            self.ended = any(row.topic == END for row in rows)


def disagreements(world: World, readers: Sequence[Reader], rows: Sequence[StoredEvent]) -> list[str]:
    """Everything that is not as it was said, in words; ``rows`` is the whole log."""
    wrong = list(world.wrong)
    log = {row.position: row for row in rows}
    for number, reader in enumerate(readers):
        if reader.positions != list(range(1, len(log) + 1)):
            wrong.append(f"reader {number} did not see every position once and in order")
        elif reader.looks != list(map(hash, rows)):
            wrong.append(f"reader {number} saw other rows")
    accounted: set[int] = set()
    for asked, first in world.settled:
        there = [log.get(first + offset) for offset in range(len(asked.events))]
        if [_identity(row) for row in there] != [_identity(new) for new in asked.events]:
            wrong.append(f"{asked.events[0].event_id} is not at {first}")
        accounted |= set(range(first, first + len(asked.events)))
    if accounted != set(log):
        wrong.append(f"events that nobody was told of: {sorted(set(log) - accounted)[:5]}")
    versions = Counter(row.stream for row in log.values())
    wrong += [
        f"{one} of a stream with {versions[one.stream]}" for one in world.conflicts if one.actual > versions[one.stream]
    ]
    return wrong


def _identity(one: StoredEvent | NewEvent | None) -> tuple[str, str, str] | None:
    return None if one is None else (one.event_id, one.stream, one.payload)
