"""Projections on a real file: documents with their checkpoint, the past, failures, rebuilds and switches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hive_bus import Bus, Projection, ProjectionHost, Record, RetryPolicy, View, open_bus
from hive_bus.groups.parking import discard_parked
from hive_bus.projection import compare, encode_document, rebuild, switch
from hive_errors import TimedOut
from tests.support.handling import nothing_parked, number_of, running, say, waits_for_person
from tests.support.patience import WITHIN

Document = dict[str, Any]


class Totals(Projection):
    """Per stream: how many, and their sum; a negative number ends the document, 13 is bad luck."""

    name = "totals"
    topics = ("test.said",)

    def __init__(self) -> None:
        self.lucky = False

    def apply(self, document: Document | None, record: Record) -> Document | None:
        number = number_of(record)
        if number < 0:
            return None
        if number == 13 and not self.lucky:
            raise ValueError("bad luck")
        document = document or {"sum": 0, "count": 0}
        # In place on purpose: the host must not mind.
        document["sum"] += number
        document["count"] += 1
        return document

    def sort(self, document: Document) -> str:
        return f"{document['sum']:08}"


@pytest.fixture
async def bus(hive_url: str) -> AsyncIterator[Bus]:
    """An open bus on a new file."""
    async with open_bus(hive_url) as bus:
        yield bus


async def test_documents_follow_the_log(bus: Bus) -> None:
    """They hold what was folded, as it is and as it was, listed in their order; an ended one is gone."""
    totals = Totals()
    host, view = ProjectionHost(bus, totals), View(bus, totals)
    async with running(host):
        await say(bus, 1, 2, stream="a")
        await say(bus, 1, stream="b")
        position = await say(bus, 5, -1, stream="c")
        await host.caught_up(position, within=WITHIN)
    assert await view.get("a") == {"sum": 3, "count": 2}
    assert await view.get("a", at=1) == {"sum": 1, "count": 1}
    assert await view.get("a", at=0) is None
    assert await view.get("c") is None
    assert await view.get("c", at=position - 1) == {"sum": 5, "count": 1}
    assert [key for key, _ in await view.rows()] == ["b", "a"]
    assert [key for key, _ in await view.rows(at=position - 1)] == ["b", "a", "c"]


async def test_documents_go_on_in_another_process(bus: Bus, hive_url: str) -> None:
    """Checkpoint and documents are one append: nothing is folded twice."""
    async with running(host := ProjectionHost(bus, Totals())):
        await host.caught_up(await say(bus, 1, 2), within=WITHIN)
    async with open_bus(hive_url) as other, running(host := ProjectionHost(other, Totals())):
        await host.caught_up(await say(other, 3), within=WITHIN)
        assert await View(other, Totals()).get("one") == {"sum": 6, "count": 3}


async def test_a_failing_document_waits_and_catches_up(bus: Bus) -> None:
    """All other documents go on; when it is tried again and works, nothing is missing."""
    totals = Totals()
    host = ProjectionHost(bus, totals, retry=RetryPolicy(first=0.02))
    async with running(host):
        await say(bus, 1, 13, 2, stream="unlucky")
        await host.caught_up(await say(bus, 1, 2, stream="lucky"), within=WITHIN)
        assert await View(bus, totals).get("unlucky") == {"sum": 1, "count": 1}
        assert await View(bus, totals).get("lucky") == {"sum": 3, "count": 2}
        totals.lucky = True
        await nothing_parked(bus)
        assert await View(bus, totals).get("unlucky") == {"sum": 16, "count": 3}


async def test_a_rebuild_is_the_same_byte_for_byte(bus: Bus) -> None:
    """Also in what people discarded, and in where every row begins; then a switch is one row."""
    totals = Totals()
    host = ProjectionHost(bus, totals, retry=RetryPolicy(attempts=1))
    async with running(host):
        for stream in ("a", "b", "c"):
            await say(bus, 1, 2, 3, -1, 4, stream=stream)
        await say(bus, 13, 5, stream="a")
        await waits_for_person(bus, host.group)
        await discard_parked(bus, host.group, "a", reason="a test")
        await nothing_parked(bus)
    comparison = await rebuild(bus, totals, version=2, within=WITHIN)
    assert (comparison.same, comparison.different) == (3, ())
    assert await View(bus, totals).version() == 1
    await switch(bus, "totals", 2)
    assert await View(bus, totals).version() == 2
    assert await View(bus, totals).get("a") == {"sum": 9, "count": 2}


async def test_a_comparison_names_what_differs(bus: Bus) -> None:
    """Documents that are different, missing or too many, by key."""
    totals = Totals()
    async with running(host := ProjectionHost(bus, totals)):
        await say(bus, 1, stream="a")
        await host.caught_up(await say(bus, 2, stream="b"), within=WITHIN)
    assert (await compare(bus, "totals", 1, 2)).different == ("a", "b")


async def test_waiting_for_a_position_ends_in_time(bus: Bus) -> None:
    """Nobody folds: the error says what was waited for, and how long."""
    with pytest.raises(TimedOut, match=r"group view/totals.1 reaching position 1 did not happen within 0.05 s"):
        await ProjectionHost(bus, Totals()).caught_up(1, within=0.05)


def test_equal_documents_are_equal_bytes() -> None:
    """Whatever order their fields came in."""
    assert encode_document({"b": 1, "a": "ü"}) == encode_document({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'
