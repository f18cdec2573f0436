"""Usage as it is read from a log: by run and branch, by time and metadata, with intents looked up where they are needed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dashboard.views import read_usage
from hive_bus import Bus, Event, open_bus
from hive_bus.envelope import encode_event
from hive_bus.events import ModelRequested, ModelResponded, WorkflowForked, WorkflowRequested
from hive_core_db.records import Appended, AppendRequest
from tests.support.console import Console

HELLO = "name: hello\nsteps: [{id: who, run: echo you}, {id: greet, run: echo hello, needs: [who]}]\n"


@pytest.fixture
async def bus(hive_url: str) -> AsyncIterator[Bus]:
    """An open bus on a new log."""
    async with open_bus(hive_url) as bus:
        yield bus


async def tell(bus: Bus, run: str, *events: Event, metadata: Mapping[str, Any] | None = None, stream: str = "") -> int:
    """Append a run's events as its owners would; the position of the last."""
    rows = [
        encode_event(
            event,
            stream=stream or f"{run}/run",
            correlation_id=run,
            source="story",
            event_id=bus.ids.event_id(bus.now()),
            metadata=metadata,
        )
        for event in events
    ]
    verdict = await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=tuple(rows)))
    assert isinstance(verdict, Appended)
    return verdict.last


def answer(cost: str, **more: Any) -> ModelResponded:
    """An answer that cost so much."""
    return ModelResponded(role="drone", task_id="fix", model="m", output_tokens=1, cost=cost, **more)


async def test_what_branches_share_is_counted_once(bus: Bus) -> None:
    """A branch has its own calls alone; what it shares is said apart; a run and its branches add up to what was paid."""
    shared = await tell(bus, "trunk1", WorkflowRequested(goal="g"), answer("1"))
    await tell(bus, "trunk1", answer("10"))
    middle = await tell(bus, "branch1", WorkflowForked(parent="trunk1", position=shared), answer("100"))
    await tell(bus, "branch1", answer("1000"))
    await tell(bus, "branch2", WorkflowForked(parent="branch1", position=middle), answer("10000"))
    by_run = await read_usage(bus, by=("run", "branch"))
    assert {key: usage.cost.dollars for key, usage in by_run.rows} == {
        ("trunk1", "trunk1"): Decimal(11),
        ("trunk1", "branch1"): Decimal(1100),
        ("trunk1", "branch2"): Decimal(10000),
    }
    branch = await read_usage(bus, by=("task",), run="branch2")
    assert branch.total.cost.dollars == Decimal(10000)
    assert [(one.run, one.upto, one.usage.cost.dollars) for one in branch.inherited] == [
        ("branch1", middle, Decimal(100)),
        ("trunk1", shared, Decimal(1)),
    ]


async def test_runs_are_chosen_by_their_metadata(bus: Bus) -> None:
    """What was said with a run holds for its branches, unless they say otherwise."""
    first = await tell(bus, "first1", WorkflowRequested(goal="g"), metadata={"team": "search", "try": 1})
    await tell(bus, "first1", answer("1"))
    await tell(bus, "second", WorkflowRequested(goal="g"), metadata={"team": "mail", "try": 1})
    await tell(bus, "second", answer("10"))
    await tell(bus, "third1", WorkflowForked(parent="first1", position=first), metadata={"try": 2})
    await tell(bus, "third1", answer("100"))
    await tell(bus, "other1", answer("1000"))

    async def spent(**where: Any) -> int:
        return int((await read_usage(bus, by=("run",), where=where)).total.cost.dollars)

    assert await spent(team="search") == 101
    assert await spent(team="search", **{"try": 1}) == 1
    assert await spent(**{"try": "1"}) == 11
    assert await spent(team="nobody") == 0
    assert await spent() == 1111


async def test_a_call_before_the_events_knew_who_asked_is_looked_up(bus: Bus) -> None:
    """Answers of version 1 name nobody: their intents do, also when these lie before the time that was asked for."""
    intent = encode_event(
        ModelRequested(conversation="drone", turn=1, role="drone", task_id="old", model="anthropic:m"),
        stream="old123/drone/old.1",
        correlation_id="old123",
        source="story",
        event_id=bus.ids.event_id(bus.now()),
    )
    old = encode_event(
        answer("1"),
        stream="old123/drone/old.1",
        correlation_id="old123",
        causation_id=intent.event_id,
        source="story",
        event_id=bus.ids.event_id(bus.now()),
    )._replace(schema_version=1, payload='{"conversation":"drone","model":"m","output_tokens":3,"cost":"1"}')
    await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=(intent,)))
    asked = await bus.history("old123")
    await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=(old,)))
    view = await read_usage(bus, by=("task", "drone", "model"), since=asked[0].recorded_at + 1)
    assert [key for key, _ in view.rows] == [("old", "old.1", "m")]
    assert (await read_usage(bus, by=("task",), since=bus.now() + 60_000_000)).rows == ()


def test_usage_is_shown(tmp_path: Path, console_database: str) -> None:
    """A table with a sum, JSON with the same numbers, and errors that say what would do."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    hive = Console(tmp_path, console_database)
    assert hive("run", "hello.yaml", "--id", "hello-1", "--meta", "team=search").code == 0
    shown = hive("usage", "--by", "task,tool", "--since", "1h", "--where", "team=search")
    assert shown.code == 0, shown.err
    assert shown.out.split() >= ["task", "tool", "tools", "time"]
    assert shown.out.splitlines()[-1].startswith("total")
    (told,) = hive("usage", "hello-1", "--json").json
    assert [row["task"] for row in told["rows"]] == ["greet", "who"]
    assert told["total"]["tools"] == 2
    assert hive("usage", "--where", "team=mail").err.startswith("nothing was used that fits")
    for wrong in (("--by", "colour"), ("--since", "soon"), ("--where", "team")):
        assert hive("usage", *wrong).code == 2
