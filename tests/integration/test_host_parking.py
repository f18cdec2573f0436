"""Brains that fail, that change, and that are older than what they read: whose key waits, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hive_bus.brains.brain import Input
from hive_bus.envelope import encode_event
from hive_bus.event import Draft, Event
from hive_bus.events.system import EventDiscarded, KeyUnparked
from hive_bus.testing import SimulatedLoop, canonical_state, refold, run_simulated
from hive_core_db.records import AppendRequest
from tests.support.brains import Asked, Bench, Done, Lab, LabBrain, Trial, Try, bench, pass_time

GROUP = "brain/lab"


class Fragile(LabBrain):
    """Fails on the topics it was told to fail on, until it is mended."""

    fails_on: tuple[str, ...] = ("lab.stop_asked",)

    def decide(self, state: Lab, record: Input) -> Sequence[Event | Draft]:
        """As the lab does, or not at all."""
        if record.topic in self.fails_on and record.correlation_id == "lab1":
            raise ValueError("a mistake in the brain")
        return super().decide(state, record)


async def instant(intent: Try, ctx: Any) -> Done:
    """Do it now."""
    return Done()


async def order(one: Bench, event: Event) -> None:
    """Append what a person's command appends."""
    new = encode_event(
        event, stream="system", correlation_id="system", source="person", event_id=f"order-{one.loop.now()}"
    )
    await one.bus.submit(AppendRequest(epoch=one.bus.writer.epoch, events=(new,)))


def test_a_brain_that_raises_parks_its_key_and_no_other(tmp_path: Path) -> None:
    """The key waits from the event on, the others flow; once mended it is taken up where it stood."""

    async def main(loop: SimulatedLoop) -> tuple[list[str], list[str], int, bool]:
        brain = Fragile()
        brain.fails_on = ("lab.asked",)
        async with bench(loop, tmp_path / "h.db", hands=[Trial(instant)], brains=[brain]) as one:
            await one.ask(Asked())
            await one.ask(Asked())
            await one.ask(Asked(), "lab2")
            await one.until("try.done", key="lab2")
            before = await one.topics()
            parked = await one.bus.store.checkpoints.parked(GROUP)
            brain.fails_on = ()
            await order(one, KeyUnparked(group=GROUP, key="lab1"))
            await one.until("try.done", 2)
            await one.hosts["lab"].member.caught_up(await one.bus.head(), within=60)
            left = await one.bus.store.checkpoints.parked(GROUP)
            live = one.hosts["lab"].states()["lab1"]
            same = canonical_state(live) == await refold(one.bus, brain, "lab1")
            return before, await one.topics(), len(parked) + 10 * len(left), same

    before, after, rows, same = run_simulated(1, main)
    assert [topic for topic in before if topic != "system.parked"] == ["lab.asked", "lab.asked"]
    assert after.count("try.done") == 2
    assert rows == 1
    assert same


def test_a_key_that_fails_again_stays_parked(tmp_path: Path) -> None:
    """Taking it up without a mend parks it again on the same event."""

    async def main(loop: SimulatedLoop) -> list[int]:
        brain = Fragile()
        brain.fails_on = ("lab.asked",)
        async with bench(loop, tmp_path / "h.db", brains=[brain]) as one:
            position = await one.ask(Asked())
            await pass_time(2.0)
            await order(one, KeyUnparked(group=GROUP, key="lab1"))
            await pass_time(2.0)
            return [position, *[row.from_position for row in await one.bus.store.checkpoints.parked(GROUP)]]

    position, *parked = run_simulated(1, main)
    assert parked == [position]


def test_a_discarded_event_is_left_out_by_every_rebuild(tmp_path: Path) -> None:
    """The key goes on behind the event that nobody could handle."""

    async def main(loop: SimulatedLoop) -> list[str]:
        brain = Fragile()
        brain.fails_on = ("lab.asked",)
        async with bench(loop, tmp_path / "h.db", hands=[Trial(instant)], brains=[brain]) as one:
            position = await one.ask(Asked())
            await pass_time(2.0)
            brain.fails_on = ()
            await one.ask(Asked())
            await order(one, EventDiscarded(group=GROUP, key="lab1", position=position))
            await one.until("try.done")
            return await one.topics()

    topics = [topic for topic in run_simulated(1, main) if topic.startswith("try.")]
    assert topics.count("try.requested") == 1


def test_a_brain_that_fails_on_a_result_fails_alone(tmp_path: Path) -> None:
    """The result is in the log, the key is parked, and the process goes on with the others."""

    async def main(loop: SimulatedLoop) -> tuple[list[str], int]:
        brain = Fragile()
        brain.fails_on = ("try.done",)
        async with bench(loop, tmp_path / "h.db", hands=[Trial(instant)], brains=[brain]) as one:
            await one.ask(Asked())
            await one.until("try.done")
            await pass_time(2.0)
            await one.ask(Asked(), "lab2")
            await one.until("try.done", key="lab2")
            return await one.topics(), len(await one.bus.store.checkpoints.parked(GROUP))

    topics, parked = run_simulated(1, main)
    assert topics.count("try.done") == 1
    assert parked == 1


@pytest.mark.parametrize("newer", ["event", "brain"])
def test_what_is_newer_is_left_to_newer_members(newer: str, tmp_path: Path) -> None:
    """An event or a decision of a newer version parks nothing: the member gives the partition up."""

    async def main(loop: SimulatedLoop) -> tuple[int, list[str | None]]:
        brain = LabBrain()
        async with bench(loop, tmp_path / "h.db", brains=[brain]) as one:
            await one.ask(Asked())
            (cause,) = [row for row in await one.until("try.requested") if row.topic == "lab.asked"]
            new = encode_event(Asked(), stream="lab1/lab", correlation_id="lab1", source="newer", event_id="newer-1")
            if newer == "event":
                new = new._replace(schema_version=99)
            else:
                new = new._replace(decided_by="lab@99:abc", cause_position=cause.position, causation_id=cause.event_id)
            await one.bus.submit(AppendRequest(epoch=one.bus.writer.epoch, events=(new,)))
            await one.ask(Asked(), "lab2")
            await pass_time(3.0)
            partitions = await one.bus.store.checkpoints.partitions(GROUP)
            parked = await one.bus.store.checkpoints.parked(GROUP)
            return len(parked), [row.lease_id for row in partitions]

    parked, owners = run_simulated(1, main)
    assert parked == 0
    assert owners.count(None) == 1


def test_new_code_holds_from_the_next_event_on(tmp_path: Path) -> None:
    """Decided is decided: what an older version decided stays, and nothing is decided about it again."""

    class Quiet(LabBrain):
        def decide(self, state: Lab, record: Input) -> Sequence[Event | Draft]:
            return []

    async def main(loop: SimulatedLoop) -> tuple[list[str], bool]:
        path = tmp_path / "h.db"
        async with bench(loop, path, brains=[LabBrain()]) as one:
            await one.ask(Asked())
            await one.until("try.requested")
        async with bench(loop, path, brains=[Quiet()]) as one:
            await one.ask(Asked())
            await one.hosts["lab"].member.caught_up(await one.bus.head(), within=60)
            live = one.hosts["lab"].states()["lab1"]
            same = canonical_state(live) == await refold(one.bus, Quiet(), "lab1")
            return await one.topics(), same

    assert run_simulated(1, main) == (["lab.asked", "try.requested", "lab.asked"], True)


class Forgetful(LabBrain):
    """Cannot fold what it once could, until it is mended."""

    mended = False

    def evolve(self, state: Lab, record: Input) -> Lab:
        """As the lab does, unless the event is older than its mistake."""
        if not self.mended and record.topic == "lab.asked" and record.correlation_id == "lab1":
            raise ValueError("a mistake in the brain")
        return super().evolve(state, record)


def test_a_key_whose_history_can_no_longer_be_folded_is_parked(tmp_path: Path) -> None:
    """New code that fails on an old event parks that key at its next event; the host stays up, and a mend takes it up."""

    async def main(loop: SimulatedLoop) -> tuple[list[str], list[str], bool]:
        async with bench(loop, tmp_path / "h.db", hands=[Trial(instant)], brains=[LabBrain()]) as one:
            await one.ask(Asked())
            await one.until("try.done")
            await one.hosts["lab"].member.caught_up(await one.bus.head(), within=60)
        brain = Forgetful()
        async with bench(loop, tmp_path / "h.db", hands=[Trial(instant)], brains=[brain]) as one:
            await one.ask(Asked())
            await one.ask(Asked(), "lab2")
            await one.until("try.done", key="lab2")
            rows = [row.key for row in await one.bus.store.checkpoints.parked(GROUP)]
            await order(one, KeyUnparked(group=GROUP, key="lab1"))
            await pass_time(2.0)
            rows += [row.key for row in await one.bus.store.checkpoints.parked(GROUP)]
            brain.mended = True
            await order(one, KeyUnparked(group=GROUP, key="lab1"))
            await one.until("try.done", 2)
            await one.hosts["lab"].member.caught_up(await one.bus.head(), within=60)
            left = await one.bus.store.checkpoints.parked(GROUP)
            live = one.hosts["lab"].states()["lab1"]
            return rows, [row.key for row in left], canonical_state(live) == await refold(one.bus, brain, "lab1")

    assert run_simulated(1, main) == (["lab1", "lab1"], [], True)
