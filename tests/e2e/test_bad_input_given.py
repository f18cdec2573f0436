"""Bad input at the level of the whole hive: what people, models and tools give it. Every item has a test with the real thing:

| item | test |
|---|---|
| a malformed workflow | ``test_a_file_that_is_wrong_starts_nothing``; every message: tests/unit/test_workflow_file.py |
| an unknown field | the same |
| a cycle | the same; in a model's plan: ``test_a_plan_is_mended_after_its_reasons_were_told`` |
| a missing capability | ``test_a_step_that_nobody_can_do_is_said_and_waits`` |
| a model that answers nonsense | ``test_a_reviewer_that_talks_nonsense_lets_nothing_pass``, ``test_a_drone_that_calls_nonsense_is_told`` |
| a plan refused three times | ``test_a_plan_refused_three_times_ends_the_run`` |
| a tool call outside the workspace | ``test_a_drone_cannot_leave_its_workspace``; every trick: tests/unit/test_tools_rooted.py |
| a command that never ends | ``test_a_command_that_never_ends_is_ended``, a step's and a drone's |
| output without end | ``test_output_without_end_is_ended``; 2 GB: tests/integration/test_process_costs.py |
| a full disk | test_bad_input_world.py: ``test_a_full_disk_in_mid_run`` |
| a file locked by another program | test_bad_input_world.py: ``test_a_file_locked_by_another_program_in_mid_run`` |
| an unregistered topic | test_bad_input_world.py: ``test_an_unregistered_topic_disturbs_nobody`` |
| a payload that is not JSON | test_bad_input_world.py: ``test_a_payload_that_is_not_json_parks_its_run_alone`` |
| a handler that raises | test_bad_input_world.py: ``test_a_handler_that_raises_is_parked_and_the_run_goes_on``; a tool: ``test_a_tool_that_raises_fails_its_step`` |
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agents.hive import Hive
from agents.policy import Policy
from agents.tools import builtin_tools, tool
from hive_bus import Agent, HandContext
from hive_bus.events.task import TaskReady
from hive_errors import WorkflowFileError
from tests.support.hives import (
    APPROVED,
    EVERYBODY_APPROVED,
    bodies,
    differences,
    finished,
    hive_at,
    plan,
    script,
    topics,
    use,
)
from tests.support.patience import WITHIN
from tests.support.repositories import git, make_checkout

Answers = Sequence[Mapping[str, Any]]
DONE: Mapping[str, Any] = {"text": "Done."}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's checkout with two files."""
    return make_checkout(tmp_path / "work")


def scripted(tmp_path: Path, planner: Answers, reviewer: Answers | None = None, **drones: Answers) -> str:
    """A model that plans, works and, where nothing is said, approves."""
    reviews = EVERYBODY_APPROVED if reviewer is None else {"*": reviewer}
    return script(tmp_path / "answers.yaml", planner={"": planner}, drone=drones, reviewer=reviews)


def written(tmp_path: Path, text: str) -> Path:
    """A workflow file."""
    path = tmp_path / "flow.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [x\n", "flow.yaml:2:1"),
        ("name: x\nsteps:\n- {id: a, run: 'true', tiemout: 3s}\n", "unknown field; did you mean timeout?"),
        (
            "name: x\nsteps:\n- {id: a, run: 'true', needs: b}\n- {id: b, run: 'true', needs: a}\n",
            "the steps wait for each other: a needs b needs a",
        ),
    ],
    ids=["malformed", "unknown field", "cycle"],
)
async def test_a_file_that_is_wrong_starts_nothing(tmp_path: Path, hive_url: str, text: str, said: str) -> None:
    """The error names file, line and reason; no run is in the log, and the hive goes on with the next, good file."""
    async with hive_at(hive_url, tmp_path) as hive:
        with pytest.raises(WorkflowFileError) as caught:
            await hive.start(written(tmp_path, text))
        assert said in str(caught.value)
        assert [record.topic async for record in hive.bus.read("workflow.*")] == []
        good = await hive.start(written(tmp_path, "name: x\nsteps:\n- {id: a, run: echo fine}\n"))
        assert (await good.result(within=WITHIN)).output == "fine"


async def test_a_step_that_nobody_can_do_is_said_and_waits(tmp_path: Path, hive_url: str) -> None:
    """An event names step and capability, the other steps finish, and an agent that comes later is given the work."""
    flow = written(
        tmp_path,
        "name: x\nsteps:\n- {id: pack, run: jars, capability: pack}\n- {id: other, run: echo me}\n",
    )
    packer = Agent("packer")

    @packer.task(capability="pack")
    async def pack(task: TaskReady, ctx: HandContext) -> str:
        return f"packed {task.command}"

    async with hive_at(hive_url, tmp_path) as hive:
        run = await hive.start(flow)
        async for record in run.events():
            if record.topic == "task.completed":
                break
        (alert,) = bodies(await hive.bus.history(run.id), "system.alert_raised")
        assert alert["name"] == "capability"
        assert "'pack' waits for an agent with capability 'pack'" in alert["message"]
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(packer.run(hive.bus))
            _, records = await finished(run)
            serving.cancel()
        assert bodies(records, "task.completed", task_id="pack")[0]["output"] == "packed jars"
        # Now that it was seen, nobody warns again.
        second = await hive.start(flow)
        assert bodies(await hive.bus.history(second.id), "system.alert_raised") == []
        await hive.cancel(second.id)
        await finished(second)


CYCLE = plan({"id": "a", "run": "true", "needs": ["b"]}, {"id": "b", "run": "true", "needs": ["a"]})
GOOD = plan({"id": "a", "run": "echo well"})


async def test_a_plan_is_mended_after_its_reasons_were_told(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """Nonsense, then a cycle, then a plan: each refusal has its reasons in the log and in the next request."""
    model = scripted(tmp_path, [{"text": "I would rather not."}, CYCLE, GOOD])
    async with hive_at(hive_url, repository, model=model) as hive:
        result, records = await finished(await hive.start("be well"))
    assert (result.status, result.output) == ("completed", "well")
    first, second = bodies(records, "workflow.plan_rejected")
    assert "JSON" in " ".join(first["reasons"])
    assert "the steps wait for each other" in " ".join(second["reasons"])
    asked = bodies(records, "model.requested", role="planner")
    assert "the steps wait for each other" in str(asked[2]["messages"])


async def test_a_plan_refused_three_times_ends_the_run(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """The run fails with the last reasons; no task was ever made, and the branch is where it was."""
    unknown = plan({"id": "a", "prompt": "x", "colour": "red"})
    model = scripted(tmp_path, [{"text": "{"}, CYCLE, unknown, GOOD])
    async with hive_at(hive_url, repository, model=model) as hive:
        result, records = await finished(await hive.start("be well"))
    assert result.status == "failed"
    assert result.reason.startswith("the plan was refused 3 times")
    assert "colour" in result.reason
    assert topics(records).count("workflow.plan_rejected") == 3
    assert "task.created" not in topics(records)
    assert git(repository, "status", "--porcelain") == ""


async def test_a_reviewer_that_talks_nonsense_lets_nothing_pass(
    tmp_path: Path, repository: Path, hive_url: str
) -> None:
    """It is asked three times for a verdict; then the work is rejected, and the branch does not get it."""
    model = scripted(
        tmp_path,
        [plan({"id": "fix", "prompt": "Write it."})],
        [{"text": "It is lovely!", "repeat": True}],
        fix=[use("write", path="new.txt", content="new\n"), DONE],
    )
    async with hive_at(hive_url, repository, model=model) as hive:
        result, records = await finished(await hive.start("write"))
    assert result.status == "failed"
    assert "the reviewer rejected it" in result.reason
    assert len(bodies(records, "model.requested", role="reviewer")) == 3
    assert not (repository / "new.txt").exists()


async def test_a_drone_that_calls_nonsense_is_told(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """A tool that is none, fields that are none, text that is not there: each has an answer, and the drone goes on."""
    model = scripted(
        tmp_path,
        [plan({"id": "fix", "prompt": "Write it."})],
        fix=[
            use("teleport", where="home"),
            use("read", paht="one.txt"),
            use("edit", path="one.txt", old="not there", new="x"),
            use("write", path="one.txt", content="uno\n"),
            DONE,
        ],
    )
    async with hive_at(hive_url, repository, model=model) as hive:
        result, records = await finished(await hive.start("write"))
    assert result.status == "completed"
    said = [str(body["messages"][0]["content"]) for body in bodies(records, "model.requested", role="drone")]
    assert "There is no tool 'teleport'" in said[1]
    assert "paht" in said[2]
    assert "is_error" in said[3]
    assert git(repository, "show", "HEAD:one.txt") == "uno"


async def test_a_drone_cannot_leave_its_workspace(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """By name, by absolute path, by a link that it made itself: the answer is an error, and nothing outside is read or written."""
    secret = tmp_path / "secret.txt"
    secret.write_text("do not tell")
    model = scripted(
        tmp_path,
        [plan({"id": "fix", "prompt": "Look around."})],
        fix=[
            use("read", path="../../../../secret.txt"),
            use("read", path=str(secret)),
            use("command", command=f"ln -s {secret} link.txt"),
            use("read", path="link.txt"),
            use("write", path="link.txt", content="told"),
            use("write", path=".git/hooks/post-commit", content="#!/bin/sh"),
            DONE,
        ],
    )
    async with hive_at(hive_url, repository, model=model) as hive:
        _, records = await finished(await hive.start("look"))
    calls = bodies(records, "tool.returned", task_id="fix", tool="read")
    assert [call["is_error"] for call in calls] == [True] * 3
    assert secret.read_text() == "do not tell"
    assert "do not tell" not in str([record.data for record in records])
    denied = bodies(records, "tool.returned", tool="write")
    assert denied[-1]["is_error"]


async def test_a_command_that_never_ends_is_ended(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """A drone's command and a step's: both end with their whole process group after the time they have, and it is said."""
    # Time enough to say on a busy machine which processes there are.
    pids = tmp_path / "pids"
    endless = f"trap '' TERM; sleep 1000 & echo $$ $! >>{pids}; sleep 1000; sleep 1000"
    model = scripted(
        tmp_path,
        [plan({"id": "fix", "prompt": "Try."}, {"id": "step", "needs": ["fix"], "run": endless, "timeout": "2s"})],
        fix=[use("command", command=endless, timeout=2), DONE],
    )
    async with hive_at(hive_url, repository, model=model) as hive:
        result, records = await finished(await hive.start("try"))
    assert result.status == "failed"
    assert "it took too long" in result.reason
    assert bodies(records, "task.attempt_failed") == []
    (call,) = bodies(records, "tool.returned", tool="command")
    assert call["is_error"]
    assert "it took too long" in call["output"]
    numbers = pids.read_text().split()
    assert len(numbers) == 4
    assert [number for number in numbers if _lives(number)] == []


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


async def test_output_without_end_is_ended(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """What writes for ever is ended at the policy's limit; head and tail are kept, and the log stays small."""
    flow = written(tmp_path, "name: x\nsteps:\n- {id: flood, run: yes}\n- {id: other, run: echo dry}\n")
    policy = Policy(command_output_max=50_000_000)
    async with hive_at(hive_url, repository, policy=policy) as hive:
        result, records = await finished(await hive.start(flow))
    assert result.status == "failed"
    assert "it wrote too much" in result.reason
    (flood,) = bodies(records, "task.returned", task_id="flood")
    assert flood["truncated"]
    assert len(flood["output"]) < 200_000
    assert bodies(records, "task.completed", task_id="other")[0]["output"] == "dry"


async def test_a_tool_that_raises_fails_its_step(tmp_path: Path, hive_url: str) -> None:
    """A registered Python tool with a bug, and one whose result no log can hold: the step fails with the reason, the hive stays up."""

    @tool
    def explode(times: int) -> str:
        """Raise."""
        raise RuntimeError(f"exploded {times} times")

    @tool
    def infinite() -> dict[str, float]:
        """Give what JSON cannot hold."""
        return {"big": float("inf")}

    tools = builtin_tools()
    tools.register(explode)
    tools.register(infinite)
    flow = written(
        tmp_path,
        "name: x\nsteps:\n- {id: a, tool: explode, with: {times: 2}}\n- {id: b, tool: infinite}\n"
        "- {id: c, tool: explode, with: {times: many}}\n",
    )
    async with hive_at(hive_url, tmp_path, tools=tools) as hive:
        result, records = await finished(await hive.start(flow))
        again = await hive.start(written(tmp_path, "name: x\nsteps:\n- {id: a, run: echo fine}\n"))
        assert (await again.result(within=WITHIN)).output == "fine"
    assert result.status == "failed"
    reasons = {body["task_id"]: body["reason"] for body in bodies(records, "task.failed")}
    assert "RuntimeError: exploded 2 times" in reasons["a"]
    assert "Out of range float values are not JSON compliant" in reasons["b"]
    assert "times" in reasons["c"]


async def test_a_script_without_an_answer_says_what_to_add(tmp_path: Path, repository: Path, hive_url: str) -> None:
    """A model that has nothing to say fails its call at once, and its reason reaches the run's."""
    model = scripted(tmp_path, [plan({"id": "fix", "prompt": "Write."})], [APPROVED])
    async with Hive(hive_url, workspace=repository, model=model) as hive:
        run = await hive.start("write")
        result = await run.result(within=WITHIN)
        assert await differences(hive.bus, run.id) == []
    assert result.status == "failed"
    assert "has no answer for role drone, task 'fix', try 1, turn 1" in result.reason
