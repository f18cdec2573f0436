"""Redrive: recorded decisions against today's brain; and the log alone gives the same states in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from hive_bus.brains.brain import Input
from hive_bus.bus import Bus
from hive_bus.event import Draft, Event
from hive_bus.replay.redrive import Difference, keys_of_run, redrive
from hive_bus.testing import SimulatedLoop, canonical_state, run_simulated
from tests.support.brains import bench, simulated_bus
from tests.support.sample_brain import OrderClosed, OrderNoted, OrderPlaced, Shop
from tests.support.sample_hands import Moods, World, shop_hands

KEY = "order1"


class Dearer(Shop):
    """Another file, another digest: it answers notes by telling less."""

    def decide(self, state: Any, record: Input) -> Sequence[Event | Draft]:
        """As the shop, but silent on notes."""
        return [] if record.topic == "shop.noted" else super().decide(state, record)


def sold(path: Path) -> bytes:
    """Sell one lamp, with a note; returns the live state as bytes."""

    async def main(loop: SimulatedLoop) -> bytes:
        hands = shop_hands(World(), Moods(Random(1), trouble=0.0))
        async with bench(loop, path, hands=hands, brains=[Shop()]) as one:
            await one.ask(OrderPlaced(items=("lamp", "rug")), KEY)
            await one.ask(OrderNoted(note="blue, please"), KEY)
            await one.until("shop.closed", key=KEY)
            await one.hosts["shop"].member.caught_up(await one.bus.head(), within=60)
            return canonical_state(one.hosts["shop"].states()[KEY])

    return run_simulated(1, main)


def redriven(path: Path, brain: Shop) -> list[Difference]:
    """Every difference of the order."""

    async def main(loop: SimulatedLoop) -> list[Difference]:
        bus = await simulated_bus(loop, path)
        try:
            keys = await keys_of_run(bus.store.log, brain, KEY)
            return [found for key in keys async for found in redrive(bus.store.log, brain, key, upto=10**9)]
        finally:
            await bus.close()

    return run_simulated(1, main)


def position_of(path: Path, topic: str) -> int:
    """Where the order's one event of a topic lies."""

    async def main(loop: SimulatedLoop) -> int:
        bus: Bus = await simulated_bus(loop, path)
        try:
            (position,) = [row.position for row in await bus.history(KEY) if row.topic == topic]
            return position
        finally:
            await bus.close()

    return run_simulated(1, main)


def test_an_unchanged_brain_is_silent(tmp_path: Path) -> None:
    """Today's code decides what was recorded, on every input."""
    sold(tmp_path / "h.db")
    assert redriven(tmp_path / "h.db", Shop()) == []


def test_one_changed_rule_is_named_where_it_matters(tmp_path: Path) -> None:
    """The position of its cause, what was decided and what would be; nothing that follows is blamed on it."""
    sold(tmp_path / "h.db")

    class Hasty(Shop):
        def decide(self, state: Any, record: Input) -> Sequence[Event | Draft]:
            if record.topic == "ship.sent":
                return [OrderClosed(outcome="sent, for all I know")]
            return super().decide(state, record)

    (found,) = redriven(tmp_path / "h.db", Hasty())
    assert found.position == position_of(tmp_path / "h.db", "ship.sent")
    assert [topic for _, topic, _ in found.recorded] == ["timer.cancel_requested"]
    assert [topic for _, topic, _ in found.today] == ["shop.closed"]


def test_a_decision_of_another_version_is_marked(tmp_path: Path) -> None:
    """Recorded by another file's code: the digest says so."""
    sold(tmp_path / "h.db")
    (found,) = redriven(tmp_path / "h.db", Dearer())
    assert found.other_version
    assert (found.topic, found.today) == ("shop.noted", ())


def test_a_rule_that_fails_is_told_with_its_error(tmp_path: Path) -> None:
    """A brain that raises on an old event is a difference, and the fold goes on."""
    sold(tmp_path / "h.db")
    shop = Shop()

    def fail(state: Any, record: Input) -> Sequence[Event | Draft]:
        if record.topic == "shop.noted":
            raise KeyError("blue")
        return Shop.decide(shop, state, record)

    shop.decide = fail  # type: ignore[method-assign]
    (found,) = redriven(tmp_path / "h.db", shop)
    assert found.error == "KeyError: 'blue'"
    assert not found.other_version


def test_the_log_alone_gives_the_same_bytes_under_any_hash_seed(tmp_path: Path) -> None:
    """The state that was live, and the one that two other processes rebuild with other orders of sets."""
    live = sold(tmp_path / "h.db")
    command = [sys.executable, "-m", "tests.support.state_dump", str(tmp_path / "h.db"), KEY]
    dumps = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("0", "1")
    ]
    assert dumps == [live, live]
