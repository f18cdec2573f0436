"""What if: a finished run decided again on other terms, its effects answered from the log; nothing of it is touched."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agents import Hive, Otherwise
from agents.tools import builtin_tools
from agents.what_if import what_if
from agents.workflows.workflow import Workflow
from dashboard.cli.demo import make_repository, write_answers
from dashboard.views import compare
from tests.support.hives import bodies, finished, hive_at, script, use
from tests.support.patience import WITHIN
from tests.support.repositories import git

STRICT = Otherwise(prompts={"reviewer": "Be strict. Answer with the JSON object alone."})


async def demo(hive_url: str, directory: Path) -> tuple[Hive, str, str]:
    """A hive on the demo's repository, the goal, and the model."""
    goal = await asyncio.to_thread(make_repository, directory / "jars")
    model = f"scripted:{write_answers(directory / 'answers.yaml')}"
    return Hive(hive_url, workspace=directory / "jars", model=model), goal, model


async def said_of_runs(hive: Hive) -> list[int]:
    """The positions of everything that was said of runs; processes come, go and complain when they like."""
    return [one.position async for one in hive.bus.read() if one.topic.partition(".")[0] not in {"agent", "system"}]


async def test_unchanged_everything_is_answered_from_the_log(hive_url: str, tmp_path: Path) -> None:
    """The run ends as it did, at no cost, without a model, a tool or a worktree; its own log is as it was."""
    opened, goal, _ = await demo(hive_url, tmp_path)
    async with opened as hive:
        run = await hive.start(goal)
        result = await run.result(within=WITHIN)
        history, said = await hive.bus.history(run.id), await said_of_runs(hive)
        refs = git(tmp_path / "jars", "for-each-ref")
        found = await what_if(hive.bus, run.id, otherwise=Otherwise(), tools=builtin_tools())
        assert (found.new, found.ended) == ([], True)
        compared = compare(run.id, history, run.id, found.records)
        assert {pair.fate for pair in compared.pairs} == {"reused"}
        assert compared.b.cost.dollars == 0
        assert compared.b.commit == result.commit
        assert git(tmp_path / "jars", "for-each-ref") == refs
        assert (await hive.bus.history(run.id), await said_of_runs(hive)) == (history, said)


async def test_another_reviewer_prompt_reuses_every_call_before_the_first_review(hive_url: str, tmp_path: Path) -> None:
    """Planner and drones are answered from the log; the first review is new, and there it stops."""
    opened, goal, _ = await demo(hive_url, tmp_path)
    async with opened as hive:
        run = await hive.start(goal)
        await run.result(within=WITHIN)
        found = await what_if(hive.bus, run.id, otherwise=STRICT, tools=builtin_tools())
        assert not found.ended
        assert {str(one.data["role"]) for one in found.new} == {"reviewer"}
        asked = [one for one in found.records if one.topic == "model.requested" and one.data["role"] != "reviewer"]
        recorded = {one.data["effect_key"] for one in await hive.bus.history(run.id) if one.topic == "model.requested"}
        assert {one.data["effect_key"] for one in asked} <= recorded
        assert {str(one.data["role"]) for one in asked} == {"planner", "drone"}


async def test_what_runs_beside_is_answered_as_far_as_the_log_has_answers(hive_url: str, tmp_path: Path) -> None:
    """One drone's review is new and stops it; the other's calls are all there, however long it takes."""
    await asyncio.to_thread(make_repository, tmp_path / "jars")
    calls = [use("list", path=".") for _ in range(5)]
    drone = {"quick": [{"text": "done"}], "slow": [*calls, {"text": "done"}]}
    yes = {"json": {"verdict": "approved", "comments": []}}
    model = script(tmp_path / "a.json", drone=drone, reviewer={"quick": [yes]})
    steps = [{"id": "quick", "prompt": "Say.", "review": True}, {"id": "slow", "prompt": "Look."}]
    async with hive_at(hive_url, tmp_path / "jars", model=model) as hive:
        run = await hive.start(Workflow.model_validate({"name": "w", "steps": steps}))
        await finished(run)
        async with asyncio.timeout(WITHIN):
            found = await what_if(hive.bus, run.id, otherwise=STRICT, tools=builtin_tools())
        assert [one.data["role"] for one in found.new] == ["reviewer"]
        assert [one["task_id"] for one in bodies(found.records, "task.completed")] == ["slow"]


async def test_what_is_new_goes_live_where_that_is_asked_for(hive_url: str, tmp_path: Path) -> None:
    """Another reviewer's words lead to the end of another run; its worktrees are gone, and no branch was moved."""
    opened, goal, model = await demo(hive_url, tmp_path)
    async with opened as hive:
        run = await hive.start(goal)
        await run.result(within=WITHIN)
        refs, said = git(tmp_path / "jars", "for-each-ref"), await said_of_runs(hive)
        found = await what_if(hive.bus, run.id, otherwise=STRICT, tools=builtin_tools(), answers=model)
        assert found.ended
        assert found.records[-1].topic == "workflow.completed"
        assert "reviewer" in {str(one.data.get("role")) for one in found.new}
        assert (git(tmp_path / "jars", "for-each-ref"), await said_of_runs(hive)) == (refs, said)


async def test_the_same_command_before_and_after_a_fix_is_answered_rightly(hive_url: str, tmp_path: Path) -> None:
    """Each call has the answer of its own tree: it failed, was mended, and passed, and does so again."""
    await asyncio.to_thread(make_repository, tmp_path / "jars")
    check = use("command", command="test -f fixed && echo good || echo bad")
    model = script(
        tmp_path / "a.json", drone={"a": [check, use("write", path="fixed", content="1"), check, {"text": "."}]}
    )
    async with hive_at(hive_url, tmp_path / "jars", model=model) as hive:
        run = await hive.start(Workflow.model_validate({"name": "w", "steps": [{"id": "a", "prompt": "Mend."}]}))
        await finished(run)
        async with asyncio.timeout(WITHIN):
            found = await what_if(hive.bus, run.id, otherwise=STRICT, tools=builtin_tools())
        answers = [one["output"].splitlines()[0] for one in bodies(found.records, "tool.returned", tool="command")]
        assert (found.ended, answers) == (True, ["bad", "good"])
