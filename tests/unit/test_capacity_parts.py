"""Limits as settings, and the keys and tokens by which the hive's own hands count."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.hands import CommandHand, ModelHand, Places, TaskToolHand, ToolHand
from agents.tools import builtin_tools
from hive_bus import Limit, load_settings
from hive_bus.effects import Failure
from hive_bus.events import ModelRequested, ModelResponded, TaskReady, ToolRequested
from hive_bus.offers import _RING, Offers
from hive_bus.testing import SimulatedLoop, run_simulated
from hive_core_db.records import WorkItem
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


def test_the_stretches_of_all_processes_are_the_whole_ring(tmp_path: Path) -> None:
    """Of what all see, each picks its own; together they leave nothing out, and the order within a stretch is the queue's."""

    async def main(loop: SimulatedLoop) -> None:
        bus = await simulated_bus(loop, tmp_path / "h.db")
        try:
            items = [_item(number) for number in range(1000)]
            offers = Offers(bus, worker="w", by_queue={"job": JobHand(Count())})
            seen: list[list[str]] = []
            for place in range(4):
                offers._place = place * _RING // 4
                seen.append([item.work_id for item in offers._share(items, 1000, 4, 0)])
            assert all(mine == sorted(mine) and 150 < len(mine) < 350 for mine in seen)
            assert sorted(work_id for mine in seen for work_id in mine) == [item.work_id for item in items]
            # With next to nothing in the own stretch, what lies behind it is anybody's.
            few = [item for item in items if item.work_id not in seen[-1]][:40]
            assert len(offers._share(few, 200, 4, 0)) == 10
        finally:
            await bus.close()

    run_simulated(1, main)
