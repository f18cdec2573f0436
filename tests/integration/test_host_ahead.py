"""Decisions ahead of the log: what another process says about the same key is neither jumped over nor forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hive_bus.brains.brain import Input
from hive_bus.brains.session import Session
from hive_bus.event import Draft, Event
from hive_bus.groups.member import Owned
from hive_bus.record import Record
from hive_bus.testing import SimulatedLoop, canonical_state, refold, run_simulated
from hive_errors import StoreBusy
from tests.support.brains import Asked, Bench, Done, Lab, LabBrain, Trial, Try, bench, pass_time, simulated_bus


class Noted(Event, topic="lab.noted"):
    """What was done was noted."""


class NotingBrain(LabBrain):
    """A lab that decides on results as well."""

    def decide(self, state: Lab, record: Input) -> Sequence[Event | Draft]:
        """Note what was done."""
        return [Noted()] if isinstance(record.event, Done) else super().decide(state, record)


@dataclass
class Plot:
    """A lab whose hand, host and store can each be held up; ``other`` asks through a process of its own."""

    one: Bench
    path: Path
    brain: LabBrain = field(default_factory=LabBrain)
    perform: asyncio.Event = field(default_factory=asyncio.Event)
    read_on: asyncio.Event = field(default_factory=asyncio.Event)
    reply: asyncio.Event = field(default_factory=asyncio.Event)
    held: set[int] = field(default_factory=set)

    async def hand(self, intent: Try, ctx: Any) -> Done:
        """Be done when it is time."""
        await self.perform.wait()
        return Done()

    @property
    def session(self) -> Session[Lab]:
        """What the host keeps of the key."""
        found: Session[Lab] = self.one.hosts["lab"]._sessions["lab1"]
        return found

    def hold_reading(self) -> None:
        """Let the host handle one input at a time, and none of those at ``held`` before it may read on."""
        host = self.one.hosts["lab"]
        handle = host.handle

        async def held(partition: Owned, page: Sequence[Record]) -> None:
            for record in page:
                if record.position in self.held:
                    await self.read_on.wait()
                await handle(partition, [record])

        host.handle = held  # type: ignore[method-assign]

    def hold_reply(self, topic: str) -> None:
        """Let the store keep for itself that it has appended an event of this topic."""
        log = self.one.bus.store.log
        append = log.append

        async def late(batch: Any) -> Any:
            verdicts = await append(batch)
            if any(event.topic == topic for request in batch for event in request.events):
                await self.reply.wait()
            return verdicts

        log.append = late  # type: ignore[method-assign]

    def refuse(self, topic: str) -> asyncio.Event:
        """Let the store be busy once when it should append an event of this topic; the event says that it was."""
        log, refused = self.one.bus.store.log, asyncio.Event()
        append = log.append

        async def busy(batch: Any) -> Any:
            if not refused.is_set() and any(event.topic == topic for request in batch for event in request.events):
                refused.set()
                raise StoreBusy(url="lab", waited=0.0)
            return await append(batch)

        log.append = busy  # type: ignore[method-assign]
        return refused

    async def ask_elsewhere(self) -> int:
        """Another process asks for one more try."""
        other = await simulated_bus(self.one.loop, self.path, "other")
        position = await other.publish(Asked(), correlation_id="lab1", stream="lab1/lab")
        await other.close()
        return position

    async def is_in_order(self) -> tuple[int, bool]:
        """When all is read: how many tries were asked for, and whether the live state is the rebuilt one."""
        self.perform.set()
        self.read_on.set()
        self.reply.set()
        await pass_time(5.0)
        await self.one.hosts["lab"].member.caught_up(await self.one.bus.head(), within=60)
        asked = (await self.one.topics()).count("try.requested")
        causes = [one.cause_position for one in await self.one.bus.history("lab1") if one.cause_position is not None]
        same = canonical_state(self.session.state) == await refold(self.one.bus, self.brain, "lab1")
        return asked, same and causes == sorted(causes)


def played(
    path: Path, play: Callable[[Plot], Coroutine[Any, Any, None]], *, brain: LabBrain | None = None
) -> tuple[int, bool]:
    """Play with a lab whose hand has begun with a first try."""

    async def main(loop: SimulatedLoop) -> tuple[int, bool]:
        async def perform(intent: Try, ctx: Any) -> Done:
            return await plot.hand(intent, ctx)

        hosted = brain or LabBrain()
        async with bench(loop, path, hands=[Trial(perform)], brains=[hosted]) as one:
            plot = Plot(one, path, hosted)
            plot.hold_reading()
            await one.ask(Asked())
            await one.until("try.started")
            await play(plot)
            return await plot.is_in_order()

    return run_simulated(1, main)


def test_an_input_that_waits_is_not_jumped_over(tmp_path: Path) -> None:
    """Another process's question is known here, and not handled yet: a result must not be decided on before it."""

    async def play(plot: Plot) -> None:
        plot.held.add(position := await plot.ask_elsewhere())
        await plot.one.bus.tail.wait(position - 1)
        assert plot.session.seen == position
        plot.perform.set()
        await plot.one.until("try.done")

    assert played(tmp_path / "h.db", play) == (2, True)


def test_an_input_that_nobody_here_knows_is_not_jumped_over(tmp_path: Path) -> None:
    """Another process's question is in the log, and this process has not looked: the append finds the key not quiet."""

    async def play(plot: Plot) -> None:
        async def nothing() -> None:
            return None

        plot.one.bus.store.log.poll = nothing  # type: ignore[method-assign]
        position = await plot.ask_elsewhere()
        plot.held.add(position)
        assert plot.session.seen < position
        plot.perform.set()
        await plot.one.until("try.done")

    assert played(tmp_path / "h.db", play) == (2, True)


@pytest.mark.parametrize("forgotten", ["key", "unmet"])
def test_an_input_of_a_forgotten_key_is_not_jumped_over(forgotten: str, tmp_path: Path) -> None:
    """The key was dropped for want of room and is loaded again for the first of two questions: the second waits still."""

    async def play(plot: Plot) -> None:
        host = plot.one.hosts["lab"]
        await host.member.caught_up(await plot.one.bus.head(), within=60)
        host._sessions.clear()
        first, second = await plot.ask_elsewhere(), await plot.ask_elsewhere()
        plot.held |= {first, second}
        await plot.one.bus.tail.wait(second - 1)
        if forgotten == "unmet":
            host._unmet.clear()
            host._unmet_below = second
        plot.held.remove(first)
        plot.read_on.set()
        plot.read_on = asyncio.Event()
        await plot.one.until("try.requested", 2)
        assert plot.session.handled < second
        plot.perform.set()
        await plot.one.until("try.done")

    assert played(tmp_path / "h.db", play) == (3, True)


def test_a_decision_that_the_store_has_not_taken_is_not_overtaken(tmp_path: Path) -> None:
    """The store was busy with a decision, which is given to it again: a result that comes meanwhile is decided on behind it."""

    async def play(plot: Plot) -> None:
        refused = plot.refuse("try.requested")
        await plot.ask_elsewhere()
        await refused.wait()
        plot.perform.set()
        await plot.one.until("try.done")

    assert played(tmp_path / "h.db", play, brain=NotingBrain()) == (2, True)


def test_a_late_reply_restores_no_older_state(tmp_path: Path) -> None:
    """The tail brought what was decided ahead, and more, before the store's reply: the reply changes nothing."""

    async def play(plot: Plot) -> None:
        plot.hold_reply("try.done")
        plot.perform.set()
        await plot.one.until("try.done")
        assert plot.session.ahead is not None
        position = await plot.ask_elsewhere()
        while plot.session.handled < position:
            await pass_time(0.1)
        assert plot.session.ahead is not None
        plot.reply.set()

    assert played(tmp_path / "h.db", play) == (2, True)
