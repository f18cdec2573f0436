"""Lineage: a branch's history is its ancestors' up to where it was forked, then its own; nothing is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hive_bus.bus import Bus
from hive_bus.event import Event
from hive_bus.events import WorkflowForked
from hive_bus.factories import WorkflowEventType, create_workflow_event
from hive_bus.lineage import end_of_append, lineage, read_branch, read_branch_stream
from hive_bus.opening import open_bus


class Named(Event, topic="lineage.named"):
    name: str = ""


async def say(bus: Bus, run: str, name: str, stream: str = "run") -> int:
    """Something happens in a run."""
    return await bus.publish(Named(name=name), stream=f"{run}/{stream}", correlation_id=run)


async def fork(bus: Bus, run: str, parent: str, position: int, **more: Any) -> int:
    """A branch begins."""
    body = WorkflowForked(parent=parent, position=position, **more)
    return await bus.publish(body, stream=f"{run}/run", correlation_id=run)


async def told(bus: Bus, run: str, **limits: Any) -> list[str]:
    """What a run's history says, by name, forks by their parent."""
    records = await bus.history(run, **limits)
    return [record.data.get("name") or f"fork of {record.data['parent']}" for record in records]


async def test_a_branch_shares_what_came_before_its_fork(hive_url: str) -> None:
    """Its own events follow; neither sees what the other does afterwards, and records keep their correlation id."""
    async with open_bus(hive_url) as bus:
        await say(bus, "root", "a")
        at = await say(bus, "root", "b")
        await say(bus, "root", "c")
        await fork(bus, "left", "root", at)
        await say(bus, "root", "d")
        await say(bus, "left", "e")
        assert await told(bus, "left") == ["a", "b", "fork of root", "e"]
        assert await told(bus, "root") == ["a", "b", "c", "d"]
        assert [record.correlation_id for record in await bus.history("left")] == ["root", "root", "left", "left"]
        assert await told(bus, "left", after=at) == ["fork of root", "e"]
        assert (await bus.trace("left")).correlation_id == "left"


async def test_forks_of_forks_share_all_the_way_down(hive_url: str) -> None:
    """Also one that forks a branch in what that had inherited: then the branch itself is no part of it."""
    async with open_bus(hive_url) as bus:
        first = await say(bus, "root", "a")
        second = await say(bus, "root", "b")
        await fork(bus, "left", "root", second)
        third = await say(bus, "left", "c")
        await say(bus, "left", "d")
        await fork(bus, "deep", "left", third)
        await fork(bus, "flat", "left", first)
        assert await told(bus, "deep") == ["a", "b", "fork of root", "c", "fork of left"]
        assert await told(bus, "flat") == ["a", "fork of left"]
        segments = await lineage(bus.store.log, "deep")
        assert [(one.correlation_id, one.upto) for one in segments] == [("root", 2), ("left", 4), ("deep", None)]
        pages = [page async for page in read_branch(bus.store.log, segments, after=1, upto=4)]
        assert [row.position for page in pages for row in page] == [2, 3, 4]


async def test_a_stream_goes_on_in_the_branch(hive_url: str) -> None:
    """Reading a branch's stream gives its parent's up to the fork first."""
    async with open_bus(hive_url) as bus:
        at = await say(bus, "root", "a", stream="drone/x")
        await say(bus, "root", "b", stream="drone/x")
        await fork(bus, "left", "root", at)
        await say(bus, "left", "c", stream="drone/x")
        segments = await lineage(bus.store.log, "left")
        pages = [page async for page in read_branch_stream(bus.store.log, segments, "drone/x")]
        assert [(row.stream, row.version) for page in pages for row in page] == [
            ("root/drone/x", 1),
            ("left/drone/x", 1),
        ]


async def test_long_histories_are_read_by_pages(tmp_path: Path) -> None:
    """The boundary of the branch may lie anywhere in a page."""
    async with open_bus(str(tmp_path / "h.db")) as bus:
        await bus.append("root/run", [Named(name=f"{number}") for number in range(2500)], correlation_id="root")
        await fork(bus, "left", "root", 1700)
        await bus.append("left/run", [Named(name="own") for _ in range(1200)], correlation_id="left")
        names = await told(bus, "left")
        assert names == [*map(str, range(1700)), "fork of root", *["own"] * 1200]


async def test_an_edited_event_reads_otherwise_in_the_branch_alone(hive_url: str) -> None:
    """The branch and its own branches see the other body; a later edit of the same event wins."""
    async with open_bus(hive_url) as bus:
        at = await say(bus, "root", "a")
        event_id = (await bus.history("root"))[0].event_id
        await fork(bus, "left", "root", at, edits={event_id: {"name": "changed"}})
        await fork(bus, "deep", "left", at + 1)
        await fork(bus, "again", "left", at + 1, edits={event_id: {"name": "anew"}})
        assert await told(bus, "left") == ["changed", "fork of root"]
        assert await told(bus, "deep") == ["changed", "fork of root", "fork of left"]
        assert await told(bus, "again") == ["anew", "fork of root", "fork of left"]
        assert await told(bus, "root") == ["a"]


async def test_the_topic_alone_makes_no_branch(hive_url: str) -> None:
    """Anybody may publish it: without a parent, or with itself as its parent, the run has no past but its own."""
    async with open_bus(hive_url) as bus:
        await bus.publish(
            create_workflow_event(event_type=WorkflowEventType.FORKED, source_agent="me", workflow_id="w1")
        )
        await fork(bus, "self", "self", 1)
        assert [one.correlation_id for one in await lineage(bus.store.log, "self")] == ["self"]
        assert [one.correlation_id for one in await lineage(bus.store.log, "w1")] == ["w1"]
        assert await told(bus, "self") == ["fork of self"]


async def test_a_position_means_the_end_of_its_append(hive_url: str) -> None:
    """What was appended at once cannot be half inherited."""
    async with open_bus(hive_url) as bus:
        await say(bus, "root", "a")
        await bus.append("root/run", [Named(name="b"), Named(name="c"), Named(name="d")], correlation_id="root")
        await say(bus, "root", "e")
        log = bus.store.log
        assert [await end_of_append(log, position) for position in range(1, 7)] == [1, 4, 4, 4, 5, 0]
