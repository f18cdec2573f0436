"""Read models built anew beside the one that answers, and switched to, while events flow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hive_bus import Bus, Projection, ProjectionHost, Record, View, open_bus
from hive_bus.projection import kept, rebuild, switch
from tests.support.console import Console
from tests.support.handling import number_of, running, say
from tests.support.patience import WITHIN

MODULE = """\
from hive_bus import Projection

class Orders(Projection):
    name = "orders"
    topics = ("order.placed",)

    def apply(self, document, record):
        return {"count": (document or {"count": 0})["count"] + STEP}
"""


class Sums(Projection):
    """Per stream the sum of what was said, in some unit."""

    name = "sums"
    topics = ("test.said",)

    def __init__(self, unit: int = 1) -> None:
        self.unit = unit

    def apply(self, document: dict[str, Any] | None, record: Record) -> dict[str, Any]:
        return {"sum": (document or {"sum": 0})["sum"] + number_of(record) * self.unit}


async def _talk(bus: Bus) -> None:
    while True:
        await say(bus, 1, stream="busy")


async def test_a_switch_takes_whoever_keeps_the_view_along(hive_url: str) -> None:
    """Both versions hold all events; the one that answers goes on while the other is built; no program begins again."""
    async with open_bus(hive_url) as bus, open_bus(hive_url) as other, running(host := ProjectionHost(bus, Sums())):
        await host.caught_up(await say(bus, 1, 2, 3, stream="a"), within=WITHIN)
        async with asyncio.TaskGroup() as tasks:
            talking = tasks.create_task(_talk(other))
            found = await rebuild(other, Sums(unit=100), version=2, beside=1, within=WITHIN)
            assert "a" in found.different
            assert await View(bus, Sums()).get("a") == {"sum": 6}
            host.projection = Sums(unit=100)
            await switch(other, "sums", 2)
            talking.cancel()
        last = await say(other, 4, stream="a")
        while host.version == 1:
            await asyncio.sleep(0)
        await host.caught_up(last, within=WITHIN)
        assert await View(other, Sums()).get("a") == {"sum": 1000}
        said = len([record async for record in bus.read("test.said") if record.stream == "busy"])
        assert await View(other, Sums()).get("busy") == {"sum": said * 100}
        assert [(one.version, one.answers, one.held) for one in await kept(bus)] == [(1, False, False), (2, True, True)]


async def test_a_switch_of_another_view_changes_nothing(hive_url: str) -> None:
    """Who keeps a view hears of every switch, and goes on with its own."""
    async with open_bus(hive_url) as bus, running(host := ProjectionHost(bus, Sums())):
        await host.caught_up(await say(bus, 1, stream="a"), within=WITHIN)
        member = host.member
        await switch(bus, "another", 7)
        await host.caught_up(await say(bus, 1, stream="a"), within=WITHIN)
        assert host.member is member
        assert await View(bus, Sums()).get("a") == {"sum": 2}


@pytest.mark.sqlite_only("about words, not about a database")
def test_views_are_listed_and_rebuilt(tmp_path: Path) -> None:
    """`hive views` finds what a module defines, compares it with what answers, and switches when asked."""
    console = Console(tmp_path)
    (tmp_path / "shop.py").write_text(MODULE.replace("STEP", "1"))
    for order in ("a", "b"):
        assert console("publish", "order.placed", "{}", "--raw", "--correlation", order).code == 0
    assert console("views", "list").out == ""
    first = console("views", "rebuild", "shop:Orders", "--switch", "--json")
    assert (first.json[0]["version"], first.json[0]["switched"], first.code) == (2, True, 0)
    same = console("views", "rebuild", "shop:Orders")
    assert "version 3 has 2 documents as in version 2, 0 otherwise" in same.out
    assert same.code == 0
    (tmp_path / "shop.py").write_text(MODULE.replace("STEP", "2"))
    other = console("views", "rebuild", "shop:Orders", "--json")
    assert (other.json[0]["same"], other.json[0]["different"], other.code) == (0, ["a", "b"], 1)
    (listed,) = console("views", "list", "--json").json
    assert (listed["view"], listed["version"], listed["answers"], listed["held"]) == ("orders", 2, True, False)
    assert console("views", "rebuild", "shop:Nothing").code == 2
    assert console("views", "rebuild").code == 2
    assert console("audit").code == 0
