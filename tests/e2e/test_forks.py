"""Forks of whole runs: from any moment, with other models and other bodies, in git and among people; real tools, no key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agents import Hive, Otherwise, Run
from agents.tools import builtin_tools
from agents.tools.function import tool
from agents.workflows.workflow import Workflow
from dashboard.cli.demo import make_repository, write_answers
from hive_bus import EffectClass, Record
from hive_bus.lineage import end_of_append
from hive_errors import EditRefused, MomentInvalid, RunExists
from tests.conftest import DEFAULT_FAULT_SECONDS
from tests.support.hives import bodies, finished, hive_at, script, topics, use
from tests.support.patience import WITHIN
from tests.support.repositories import git

AT_ONCE = 4


async def demo(url: str, directory: Path) -> tuple[Hive, str]:
    """A hive on the demo's repository, and the goal."""
    goal = await asyncio.to_thread(make_repository, directory / "jars")
    answers = write_answers(directory / "answers.json")
    return Hive(url, workspace=directory / "jars", model=f"scripted:{answers}"), goal


async def ends(hive: Hive, run: Run) -> list[int]:
    """Every position that a fork of the run can share: the ends of its appends."""
    found = [await end_of_append(hive.bus.store.log, record.position) for record in await hive.bus.history(run.id)]
    return list(dict.fromkeys(found))


def where(records: Sequence[Record], topic: str, number: int = 0) -> int:
    """The position of an event of the run."""
    return [record.position for record in records if record.topic == topic][number]


def one_step(**step: Any) -> Workflow:
    """A workflow of one step."""
    return Workflow.model_validate({"name": "w", "steps": [{"id": "a", **step}]})


async def test_a_fork_at_any_position_of_the_demo_completes(
    hive_url: str, tmp_path: Path, fault_seconds: float
) -> None:
    """It ends as the run did, with the same tree, and decides as today's brains would; a soak forks at every position."""
    opened, goal = await demo(hive_url, tmp_path)
    async with opened as hive:
        run = await hive.start(goal)
        await run.result(within=WITHIN)
        positions = await ends(hive, run)
        chosen = positions[:: 1 if fault_seconds > DEFAULT_FAULT_SECONDS else 21]
        places = asyncio.Semaphore(AT_ONCE)

        async def forked(position: int) -> tuple[int, str, str]:
            async with places:
                branch = await hive.fork(run.id, at=position)
                result, _ = await finished(branch)
                return position, result.status, git(tmp_path / "jars", "rev-parse", f"{result.commit}^{{tree}}")

        found = await asyncio.gather(*map(forked, chosen))
        tree = git(tmp_path / "jars", "rev-parse", "main^{tree}")
        assert found == [(position, "completed", tree) for position in chosen]


async def test_a_fork_before_an_edit_begins_at_the_commit_of_that_moment(hive_url: str, tmp_path: Path) -> None:
    """The worktree is what the tool call before had left; what came afterwards is not in it."""
    await asyncio.to_thread(make_repository, tmp_path / "jars")
    write = [use("write", path="a", content="1"), use("write", path="b", content="2"), {"text": "done"}]
    look = [use("write", path="a", content="1"), use("list", path="."), {"text": "seen"}]
    first = script(tmp_path / "write.json", drone={"a": write})
    second = script(tmp_path / "look.json", drone={"a": look})
    async with hive_at(hive_url, tmp_path / "jars", model=first) as hive:
        run = await hive.start(one_step(prompt="Write."))
        _, records = await finished(run)
        left = bodies(records, "tool.returned", tool="write")[0]["commit"]
        at = where(records, "model.requested", 1)
        branch = await hive.fork(run.id, at=at, otherwise=Otherwise(models={"": second}))
        _, lived = await finished(branch)
        (listed,) = bodies(lived, "tool.returned", tool="list")
        assert "a" in listed["output"].split()
        assert "b" not in listed["output"].split()
        worktree = f"refs/hive/{branch.id}/worktrees/a.1/base"
        assert git(tmp_path / "jars", "rev-parse", f"{worktree}^{{tree}}") == git(
            tmp_path / "jars", "rev-parse", f"{left}^{{tree}}"
        )


async def test_commands_before_any_drone_see_the_commit_of_that_moment(hive_url: str, tmp_path: Path) -> None:
    """The parent's result has been handed over since: its branch finds the file as it was when the run began."""
    await asyncio.to_thread(make_repository, tmp_path / "jars")
    model = script(
        tmp_path / "one.json", drone={"write": [use("write", path="README.md", content="new"), {"text": "done"}]}
    )
    steps = [{"id": "look", "run": "cat README.md"}, {"id": "write", "needs": ["look"], "prompt": "Write."}]
    async with hive_at(hive_url, tmp_path / "jars", model=model) as hive:
        run = await hive.start(Workflow.model_validate({"name": "w", "steps": steps}))
        _, records = await finished(run)
        assert (tmp_path / "jars" / "README.md").read_text() == "new"
        _, lived = await finished(await hive.fork(run.id, at="@1"))
        before, after = (bodies(one, "task.returned", task_id="look")[0]["output"] for one in (records, lived))
        assert before == after != "new"


async def test_another_model_goes_on_from_there(hive_url: str, tmp_path: Path) -> None:
    """The shared calls are not made again; the call that was open is made to the other model, which sees what was said."""
    await asyncio.to_thread(make_repository, tmp_path / "jars")
    steps = [{"text": "I look.", **use("list", path=".")}, {"text": "first"}]
    first = script(tmp_path / "one.json", drone={"a": steps})
    second = script(tmp_path / "two.json", drone={"a": [{"text": "never heard"}, {"text": "second"}]})
    async with hive_at(hive_url, tmp_path / "jars", model=first) as hive:
        run = await hive.start(one_step(prompt="Look."))
        result, records = await finished(run)
        at = where(records, "model.requested", 1)
        branch = await hive.fork(run.id, at=at, otherwise=Otherwise(models={"drone": second}))
        other, lived = await finished(branch)
        assert (result.output, other.output) == ("first", "second")
        assert [record.position for record in lived if record.position <= at] == [
            record.position for record in records if record.position <= at
        ]
        assert [topic for topic in topics(lived) if topic.startswith("workflow.f")] == ["workflow.forked"]
        (asked,) = [one for one in bodies(lived, "model.requested") if one["model"] == second]
        assert asked["turn"] == 2
        again = await hive.fork(branch.id, at=at, otherwise=Otherwise(models={"": first}))
        assert (await finished(again))[0].output == "first"


async def test_people_are_asked_again(hive_url: str, tmp_path: Path) -> None:
    """What was said in the parent is not said of the branch, unless that is started with every approval given."""
    async with hive_at(hive_url, tmp_path) as hive:
        run = await hive.start(one_step(run="echo done", approval="May it?"))
        async with hive.bus.subscribe("approval.requested", start=0) as questions:
            async for _ in questions:
                break
        await hive.approve(run.id)
        _, records = await finished(run)
        for topic in ("approval.requested", "approval.granted"):
            at = where(records, topic)
            free = await hive.fork(run.id, at=at, otherwise=Otherwise(approve="all"))
            assert (await finished(free))[0].output == "done"
            denied = await hive.fork(run.id, at=at)
            async with hive.bus.subscribe("approval.requested", start=at) as questions:
                async for question in questions:
                    if question.correlation_id == denied.id:
                        break
            await hive.deny(denied.id)
            assert (await finished(denied))[0].status == "failed"


async def test_what_is_unsafe_is_blocked_in_a_branch(hive_url: str, tmp_path: Path) -> None:
    """A drone is told so and goes on without; a step fails and says why; both run where it is allowed."""
    await asyncio.to_thread(make_repository, tmp_path / "jars")
    sent: list[str] = []

    @tool(effect=EffectClass.UNSAFE)
    async def send(to: str) -> str:
        """Send something that cannot be taken back."""
        sent.append(to)
        return "sent"

    tools = builtin_tools()
    tools.register(send)
    model = script(tmp_path / "one.json", drone={"a": [use("send", to="you"), {"text": "over"}]})
    async with hive_at(hive_url, tmp_path / "jars", model=model, tools=tools) as hive:
        by_drone = await hive.start(one_step(prompt="Send it."))
        by_step = await hive.start(one_step(run="echo done", effect="unsafe"))
        _, drones = await finished(by_drone)
        _, steps = await finished(by_step)
        at = where(drones, "tool.requested"), where(steps, "task.ready")
        blocked = await finished(await hive.fork(by_drone.id, at=at[0]))
        assert sent == ["you"]
        assert (blocked[0].output, bodies(blocked[1], "tool.returned", tool="send")) == ("over", [])
        failed, _ = await finished(await hive.fork(by_step.id, at=at[1]))
        assert (failed.status, "not safe to do twice" in failed.reason) == ("failed", True)
        allowed = Otherwise(unsafe=True)
        await finished(await hive.fork(by_drone.id, at=at[0], otherwise=allowed))
        assert sent == ["you", "you"]
        again, _ = await finished(await hive.fork(by_step.id, at=at[1], otherwise=allowed))
        assert again.output == "done"


async def test_an_edited_event_is_what_the_branch_goes_on_from(hive_url: str, tmp_path: Path) -> None:
    """Another answer of a model, put in its place; what has no such body, or is not inherited, is refused."""
    await asyncio.to_thread(make_repository, tmp_path / "jars")
    model = script(tmp_path / "one.json", drone={"a": [{"text": "no"}]})
    async with hive_at(hive_url, tmp_path / "jars", model=model) as hive:
        run = await hive.start(one_step(prompt="Well?"))
        _, records = await finished(run)
        at = where(records, "model.responded")
        (said,) = bodies(records, "model.responded")
        edited = said | {"message": {"role": "assistant", "content": [{"type": "text", "text": "yes"}]}}
        branch = await hive.fork(run.id, at=at, otherwise=Otherwise(edits={str(at): edited}))
        assert (await finished(branch))[0].output == "yes"
        assert (await run.result(within=WITHIN)).output == "no"
        for event, body in ((str(at), {"message": 1}), (str(records[-1].position), {}), ("nothing", {})):
            with pytest.raises(EditRefused, match=event):
                await hive.fork(run.id, at=at, otherwise=Otherwise(edits={event: body}))


async def test_a_fork_of_what_had_ended_has_ended(hive_url: str, tmp_path: Path) -> None:
    """Its result is the inherited one, under its own name; a moment that is none, and a name that is taken, are refused."""
    async with hive_at(hive_url, tmp_path) as hive:
        run = await hive.start(one_step(run="echo done"))
        await finished(run)
        branch = await hive.fork(run.id, id="branch-1")
        result, _ = await finished(branch)
        assert (result.run, result.status, result.output) == ("branch-1", "completed", "done")
        with pytest.raises(RunExists):
            await hive.fork(run.id, id="branch-1")
        with pytest.raises(MomentInvalid):
            await hive.fork(run.id, at="@99")
