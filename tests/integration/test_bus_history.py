"""History and trace: a run by any of its names, and its causal tree."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hive_bus import Bus, Event, Trace, TraceNode, open_bus
from hive_bus.events import WorkflowRequested
from hive_bus.history import causal_tree
from hive_bus.reading import to_record
from hive_core_db.records import StoredEvent
from hive_errors import NotFound


class Step(Event, topic="step.done"):
    name: str = ""


@pytest.fixture
async def bus(hive_url: str) -> AsyncIterator[Bus]:
    """An open bus on a new file."""
    async with open_bus(hive_url) as bus:
        yield bus


async def test_a_correlation_is_read_in_log_order(bus: Bus) -> None:
    """All of its streams, nobody else's events, from a position on if one is given."""
    await bus.publish(Step(name="a"), stream="x", correlation_id="c1")
    await bus.publish(Step(name="other"), correlation_id="c2")
    await bus.publish(Step(name="b"), stream="y", correlation_id="c1")
    assert [record.data["name"] for record in await bus.history("c1")] == ["a", "b"]
    assert [record.data["name"] for record in await bus.history("c1", after=1)] == ["b"]


async def test_a_long_history_is_read_whole(bus: Bus) -> None:
    """Also where it fills more than a page."""
    await bus.append("s", [Step(name=str(number)) for number in range(2500)])
    assert [record.position for record in await bus.history("s")] == list(range(1, 2501))


async def test_a_run_goes_by_its_prefix(bus: Bus) -> None:
    """Four characters are enough when they are its own; the whole id always is."""
    for run in ("abcd111111", "abcd222222", "wxyz333333"):
        await bus.publish(WorkflowRequested(goal="g"), stream=f"{run}/run", correlation_id=run)
    assert await bus.resolve("wxyz") == "wxyz333333"
    assert await bus.resolve("abcd1") == "abcd111111"
    assert await bus.resolve("abcd222222") == "abcd222222"
    with pytest.raises(NotFound, match="abcd111111, abcd222222"):
        await bus.resolve("abcd")


async def test_a_short_correlation_id_is_its_own_name(bus: Bus) -> None:
    """What is exactly an id needs no four characters."""
    await bus.publish(Step(), correlation_id="c")
    assert await bus.resolve("c") == "c"


@pytest.mark.parametrize(
    ("name", "reason"), [("abc", "4 characters"), ("abcdef", "nothing"), ("", "4 characters"), ("@", "no run")]
)
async def test_what_names_nothing_says_so(bus: Bus, name: str, reason: str) -> None:
    """Too short, unknown, empty, or the last run of a log without runs."""
    with pytest.raises(NotFound, match=reason):
        await bus.history(name)


async def test_the_last_run_is_at(bus: Bus) -> None:
    """Ordinary events published later do not take its place."""
    await bus.publish(WorkflowRequested(goal="g"), correlation_id="first-run")
    await bus.publish(WorkflowRequested(goal="g"), correlation_id="second-run")
    await bus.publish(Step(), correlation_id="something-else")
    assert await bus.resolve("@") == "second-run"


async def test_a_trace_is_the_causal_tree(bus: Bus) -> None:
    """Children below what caused them, in log order; orphans under the root; JSON of it all."""
    await bus.publish(Step(name="root"), stream="r", correlation_id="r", event_id="root")
    await bus.publish(Step(name="a"), correlation_id="r", causation_id="root", event_id="a")
    await bus.publish(Step(name="b"), correlation_id="r", causation_id="root", event_id="b")
    await bus.publish(Step(name="a1"), correlation_id="r", causation_id="a", event_id="a1")
    await bus.publish(Step(name="orphan"), correlation_id="r", causation_id="somewhere else", event_id="o")
    trace = await bus.trace("r")
    assert _shape(trace) == [("root", [("a", [("a1", [])]), ("b", []), ("o", [])])]
    root = trace.roots[0]
    assert root.waited == 0.0
    assert 0.0 <= root.children[0].waited <= root.duration == trace.duration
    assert root.last_recorded_at == root.children[-1].record.recorded_at
    assert [node.position for node in trace.walk()] == [1, 2, 4, 3, 5]
    plain = json.loads(json.dumps(trace.as_dict()))
    assert plain["correlation_id"] == "r"
    flat = [(node["event_id"], node["depth"], node["parent"]) for node in plain["nodes"]]
    assert flat == [("root", 0, None), ("a", 1, 1), ("a1", 2, 2), ("b", 1, 1), ("o", 1, 1)]
    assert plain["nodes"][0]["data"] == {"name": "root"}


async def test_a_trace_of_topics_that_nobody_knows(bus: Bus) -> None:
    """A topic without a class in this process is a node like any other."""
    await bus.publish(Step(name="root"), correlation_id="r")
    [record] = await bus.history("r")
    foreign = to_record(record._replace(topic="foreign.thing", schema_version=9, event_id="f", position=2))
    [root] = causal_tree([record, foreign])[:1]
    assert root.topic == "step.done"
    assert [node.topic for node in causal_tree([foreign])] == ["foreign.thing"]


def test_a_chain_of_thousands_is_no_problem() -> None:
    """Each event caused by the one before: neither the tree nor its JSON runs out of stack."""
    records = [
        _record(position, f"e{position}", f"e{position - 1}" if position > 1 else None) for position in range(1, 5001)
    ]
    trace = Trace(correlation_id="c", roots=causal_tree(records))
    assert sum(1 for _ in trace.walk()) == 5000
    nodes = json.loads(json.dumps(trace.as_dict()))["nodes"]
    assert [node["depth"] for node in nodes] == list(range(5000))


def test_a_circle_of_causes_is_cut() -> None:
    """A cause that lies behind its effect is a publisher's invention; nothing hangs and nothing is lost."""
    records = [_record(1, "a", "b"), _record(2, "b", "a")]
    assert [node.position for root in causal_tree(records) for node in root.walk()] == [1, 2]


def _record(position: int, event_id: str, cause: str | None) -> Any:
    return to_record(
        StoredEvent(
            position, event_id, "s", position, "step.done", "c", cause, None, None, "t", 1, "{}", None, "", position, position, position
        )
    )  # fmt: skip


def _shape(trace: Trace) -> list[tuple[str, Any]]:
    def shape(node: TraceNode) -> tuple[str, Any]:
        return node.record.event_id, [shape(child) for child in node.children]

    return [shape(root) for root in trace.roots]
