"""Limits as settings, and the keys and tokens by which the hive's own hands count."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.hands import CommandHand, ModelHand, Places, TaskToolHand, ToolHand
from agents.tools import builtin_tools
from hive_bus import Limit, load_settings
from hive_bus.effects import Failure
from hive_bus.events import ModelRequested, ModelResponded, TaskReady, ToolRequested
from hive_bus.hands.offers import HANDOVER, ROTATION, Offers, stretch_of
from hive_bus.testing import SimulatedLoop, run_simulated
from hive_core_db.records import RING, WorkItem
from hive_errors import SettingInvalid
from tests.support.brains import simulated_bus
from tests.support.capacity import Count, JobHand


def test_limits_are_read_from_the_file_and_the_environment(tmp_path: Path) -> None:
    """Keys with colons, a key without numbers, and JSON in a variable."""
    (tmp_path / "hive.yaml").write_text(
        "limits:\n  model:anthropic: {concurrency: 8, tokens_per_minute: 40000}\n  tool:github:\n"
    )
    settings = load_settings(environment={}, directory=tmp_path)
    assert settings.limits == {
        "model:anthropic": Limit(concurrency=8, tokens_per_minute=40_000),
        "tool:github": Limit(),
    }
    environment = {"HIVE_LIMITS": '{"task:run": {"requests_per_minute": 0.5}}'}
    settings = load_settings(environment=environment, directory=tmp_path)
    assert settings.limits == {"task:run": Limit(requests_per_minute=0.5)}
    assert load_settings(environment={}, directory=tmp_path.parent).limits == {}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{task:run: {concurrency: 0}}", "limits.task:run.concurrency"),
        ("{task:run: {requests_per_minute: .inf}}", "limits.task:run.requests_per_minute"),
        ("{task:run: {per_hour: 3}}", "limits.task:run.per_hour"),
        ("{task:run: 3}", "limits.task:run"),
        ("[1]", "limits"),
    ],
)
def test_a_wrong_limit_is_named_with_its_place(tmp_path: Path, text: str, key: str) -> None:
    """The whole path to it, and the file."""
    (tmp_path / "hive.yaml").write_text(f"limits: {text}\n")
    with pytest.raises(SettingInvalid) as problem:
        load_settings(environment={}, directory=tmp_path)
    assert problem.value.key == key
    assert "hive.yaml" in problem.value.origin


def test_limits_in_the_environment_are_json(tmp_path: Path) -> None:
    """Anything else says so."""
    with pytest.raises(SettingInvalid, match="JSON"):
        load_settings(environment={"HIVE_LIMITS": "task:run=4"}, directory=tmp_path)


def _model(name: str = "anthropic:big", **fields: object) -> ModelRequested:
    return ModelRequested.model_validate({"conversation": "c", "turn": 1, "role": "drone", "model": name, **fields})


def test_a_model_call_counts_for_its_model_and_its_provider() -> None:
    """The most particular first; a model without a provider is its own."""
    hand = ModelHand(pytest.fail)
    assert hand.keys(_model()) == ("model:anthropic:big", "model:anthropic")
    assert hand.keys(_model("local")) == ("model:local",)


def test_tokens_of_a_model_call_are_estimated_and_then_counted() -> None:
    """A call that was refused used none; of one that failed otherwise nobody knows; what came from a cache does not count."""
    hand = ModelHand(pytest.fail)
    call = _model(system="s" * 4000, max_tokens=100)
    assert hand.estimate(call) == 1100.0
    assert hand.estimate(_model(max_tokens=100_000)) == 1024.0
    reply = ModelResponded(input_tokens=10, output_tokens=20, cache_read_tokens=1000, cache_write_tokens=5)
    assert hand.used(call, reply) == 35.0
    assert hand.used(call, Failure(reason="429", kind="rate_limit_error")) == 0.0
    assert hand.used(call, Failure(reason="cut", kind="timeout")) is None


def test_a_tool_call_counts_for_the_tool_and_what_it_belongs_to() -> None:
    """The same for a drone's call and for a step; commands have no keys but their queue."""
    tools, places = builtin_tools(), Places()
    hand = ToolHand(places, tools)
    wanted = ("tool:mcp__github__search", "tool:github.search", "tool:github")

    def keys(tool: str) -> tuple[str, ...]:
        return hand.keys(ToolRequested(tool_use_id="u", tool=tool))

    assert keys("mcp__github__search") == wanted
    assert keys("github.search") == ("tool:github.search", "tool:github")
    assert keys("read_file") == ("tool:read_file",)
    step = TaskReady(task_id="t", kind="tool", tool="github.search")
    assert TaskToolHand(places, tools).keys(step) == ("tool:github.search", "tool:github")
    assert CommandHand(places).keys(TaskReady(task_id="t", kind="run", command="true")) == ()


def _item(number: int) -> WorkItem:
    return WorkItem(
        work_id=f"item-{number:05}", position=number, topic="job.requested", correlation_id="run", stream="run/jobs",
        queue="job", state="ready", turn=float(number), attempt=0, fence=0, lease_id=None, cancel_requested=False,
        due_at=None, claimed_at=None, inserted_at=0,
    )  # fmt: skip


def test_what_lies_next_is_anybodys_when_the_own_stretch_is_empty(tmp_path: Path) -> None:
    """With next to nothing on it, each takes its share of what all see; else the own stretch in turn, and nothing else."""

    async def main(loop: SimulatedLoop) -> None:
        bus = await simulated_bus(loop, tmp_path / "h.db")
        try:
            items = [_item(number) for number in range(1000)]
            offers = Offers(bus, worker="w", by_queue={"job": JobHand(Count())})
            offers._stretch = stretch_of(1, 4, bus.now())
            mine = offers._share(items, 1000, 4, 0)
            assert mine == sorted(mine, key=lambda item: item.turn)
            assert 200 < len(mine) < 250
            few = [item for item in items if item not in mine][:40]
            assert len(offers._share(few, 200, 4, 0)) == 10
        finally:
            await bus.close()

    run_simulated(1, main)


@pytest.mark.parametrize("rivals", [1, 2, 3, 4, 7])
def test_stretches_never_meet_and_every_place_comes_to_everybody(rivals: int) -> None:
    """Not even with what another held a moment ago; and within one round each process has had the whole ring."""
    seen: list[set[int]] = [set() for _ in range(rivals)]
    for now in range(0, ROTATION * rivals, HANDOVER // 4):
        lately = [stretch_of(index, rivals, at) for index in range(rivals) for at in (now, now + HANDOVER * 9 // 10)]
        for place in range(0, RING, 997):
            holders = [n // 2 for n, one in enumerate(lately) if (place - one.start) % RING < one.length]
            assert len(set(holders)) <= 1
            for holder in holders:
                seen[holder].add(place)
    assert all(len(places) == len(range(0, RING, 997)) for places in seen)


def test_neighbouring_positions_lie_all_over_the_ring() -> None:
    """Whatever the distance between the intents of a run, each of four stretches has about a quarter of them."""
    for gap in (1, 2, 3, 4, 7, 16, 64):
        counts = [0] * 4
        for number in range(1000):
            counts[stretch_of(0, 1, 0).distance(number * gap) * 4 // RING] += 1
        assert max(counts) - min(counts) < 30, gap
