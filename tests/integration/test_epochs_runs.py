"""Runs, brains and read models cross an epoch's jump: what waited before it goes on behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from hive_bus import Projection, ProjectionHost, Record, View, open_bus
from hive_bus.projection import rebuild
from hive_core_db.admin import begin_epoch
from tests.support.console import Console
from tests.support.handling import number_of, running, say
from tests.support.patience import WITHIN

WORKFLOW = """
name: ship
steps:
  - {id: build, run: echo built}
  - {id: ship, needs: [build], run: "echo shipped {{ steps.build.output }}", approval: Ship it now?}
"""

Document = dict[str, Any]


class Sums(Projection):
    """The sum of the numbers said in each stream."""

    name = "sums"
    topics = ("test.said",)

    def apply(self, document: Document | None, record: Record) -> Document | None:
        return {"sum": (document or {"sum": 0})["sum"] + number_of(record)}


async def test_documents_go_on_behind_the_jump(hive_url: str) -> None:
    """Folded on both sides, as they were on either, and the same when they are rebuilt."""
    sums = Sums()
    async with open_bus(hive_url) as bus, running(host := ProjectionHost(bus, sums)):
        before = await say(bus, 1, 2)
        await host.caught_up(before, within=WITHIN)
    first = (await asyncio.to_thread(begin_epoch, hive_url, reason="a test")).first_position
    async with open_bus(hive_url) as bus:
        async with running(host := ProjectionHost(bus, sums)):
            await host.caught_up(await say(bus, 3, 4), within=WITHIN)
        view = View(bus, sums)
        assert await view.get("one") == {"sum": 10}
        assert await view.get("one", at=before) == {"sum": 3}
        assert await view.get("one", at=first - 1) == {"sum": 3}
        assert await view.get("one", at=first + 1) == {"sum": 6}
        comparison = await rebuild(bus, sums, version=2, within=WITHIN)
        assert (comparison.same, comparison.different) == (1, ())


async def test_a_run_goes_on_behind_the_jump(console_database: str, tmp_path: Path) -> None:
    """It waited for a person; the answer comes in the next epoch, where it is finished, traced and decided again alike."""
    (tmp_path / "ship.yaml").write_text(WORKFLOW)
    console = Console(tmp_path, console_database)

    def hive(*words: str, code: int = 0) -> str:
        done = console(*words)
        assert done.code == code, done
        return done.out

    def story() -> None:
        hive("run", "ship.yaml", "--id", "over-the-edge", code=3)
        hive("db", "epoch", "--reason", "a test")
        hive("approve", "over-the-edge")
        # A second run with the same name goes on with the first one.
        said = hive("run", "ship.yaml", "--id", "over-the-edge", "--if-exists", "return")
        assert "completed" in said
        assert "shipped built" in said
        assert "shipped" in hive("trace", "over-the-edge")
        events = console("events", "--correlation", "over-the-edge", "--json").json
        # What the agents say of themselves may come before the run's first event.
        assert (events[0]["topic"], events[-1]["topic"]) == ("workflow.requested", "workflow.completed")
        assert events[0]["position"] < 1_000_000 < events[-1]["position"]
        assert hive("redrive", "--all") == ""
        hive("audit")

    await asyncio.to_thread(story)
