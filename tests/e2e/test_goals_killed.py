"""`kill -9` of `hive run` in the middle of a goal, again and again: the run completes, and what was finished is not done again."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dashboard.cli.exits import COMPLETED, WAITING
from hive_bus.opening import open_bus
from tests.support.console import HIVE, Console
from tests.support.hives import EVERYBODY_APPROVED, differences, findings, plan, script, topics, use
from tests.support.repositories import git, make_checkout
from tests.support.unmeasured import unmeasured

RUN = "killed-again"
KILLS = 6
STEP = (8, 30)
"""How much longer the log is when the next kill comes."""
_NAME = re.compile(r"echo ([a-z]+-\d) >>")


class Goal:
    """A goal whose every command leaves a line in a ledger outside the workspace."""

    def __init__(self, directory: Path, database: str) -> None:
        self.console = Console(directory, database)
        self.ledger = directory / "ledger"
        self.ledger.touch()
        self.repository = make_checkout(directory / "work")
        self.model = script(
            directory / "answers.yaml",
            planner={"": [plan(*self._steps())]},
            drone={"fix": self._drone("fix", "one"), "extend": self._drone("extend", "two")},
            reviewer=EVERYBODY_APPROVED,
        )

    def _leaves(self, name: str) -> str:
        return f"echo {name} >>{self.ledger}"

    def _steps(self) -> list[dict[str, Any]]:
        return [
            {"id": "fix", "prompt": "Mend one.txt."},
            {"id": "extend", "prompt": "Mend two.txt."},
            {"id": "look", "needs": ["fix", "extend"], "run": f"{self._leaves('look-1')}; cat one.txt two.txt"},
            {"id": "ship", "needs": ["look"], "run": self._leaves("ship-1"), "effect": "unsafe"},
            {"id": "tell", "needs": ["ship"], "run": f"{self._leaves('tell-1')}; echo told"},
        ]

    def _drone(self, name: str, word: str) -> list[dict[str, Any]]:
        edit = use("edit", path=f"{word}.txt", old=word, new=f"{word} mended")
        commands = [use("command", command=self._leaves(f"{name}-{number}")) for number in range(3)]
        return [commands[0], edit, *commands[1:], {"text": f"{word} is mended."}]

    async def start(self, *command: str) -> asyncio.subprocess.Process:
        """A process of the real command, in a group of its own."""
        return await asyncio.create_subprocess_exec(
            *(HIVE, *command),
            cwd=self.console.directory,
            env=unmeasured(self.console.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self) -> asyncio.subprocess.Process:
        """`hive run` of the goal: it starts the run, or goes on with it."""
        where = ("--workspace", "work", "--model", self.model, "--id", RUN, "--if-exists", "return")
        return await self.start("run", "mend both", *where)

    async def approve(self) -> None:
        """A person says yes."""
        answering = await self.start("approve", RUN)
        assert await answering.wait() == 0

    def done(self) -> Counter[str]:
        """How often each command did what it does."""
        return Counter(self.ledger.read_text().split())

    async def finished(self) -> set[str]:
        """The commands whose result is in the log; a task that may have run, nobody knows, has none."""
        async with open_bus(self.console.url) as bus:
            records = [record async for record in bus.read("tool.*", "task.*")]
        returned = [one for one in records if one.topic in {"tool.returned", "task.returned"}]
        ended = {one.causation_id for one in returned if one.data.get("outcome") != "unknown"}
        asked = [one for one in records if one.topic in {"tool.requested", "task.ready"} and one.event_id in ended]
        names = [
            _NAME.search(str(one.data.get("input", {}).get("command") or one.data.get("command"))) for one in asked
        ]
        return {found.group(1) for found in names if found}


async def killed_after(goal: Goal, events: int) -> bool:
    """Let a process append so many events, then kill it; False if it had ended before."""
    async with open_bus(goal.console.url) as bus, asyncio.TaskGroup() as group:
        position = await bus.head() + events
        process = await goal.run()
        ending = group.create_task(process.wait())
        reaching = group.create_task(_reached(bus, position))
        await asyncio.wait([ending, reaching], return_when=asyncio.FIRST_COMPLETED)
        reaching.cancel()
        if not ending.done():
            process.kill()
        code = await ending
    assert process.stdout is not None
    said = (await process.stdout.read()).decode()
    assert code in {-9, COMPLETED, WAITING}, said
    return code == -9


async def _reached(bus: Any, position: int) -> None:
    async with bus.subscribe(start=0) as records:
        async for record in records:
            if record.position >= position:
                return


async def completed_by_run(goal: Goal) -> int:
    """Let `hive run` end it, saying yes to whatever may have run in part; returns how often that was asked."""
    asked = 0
    while True:
        process = await goal.run()
        assert process.stdout is not None
        said = (await process.stdout.read()).decode()
        code = await process.wait()
        if code != WAITING:
            assert code == COMPLETED, said
            return asked
        asked += 1
        await goal.approve()


async def completed_by_up(goal: Goal) -> int:
    """Let `hive up` end it, as somebody watches the log and says yes; then a signal stops it."""
    process = await goal.start("up")
    assert process.stdout is not None
    # What it found of the processes that were killed comes before.
    async for line in process.stdout:
        if line.startswith(b"serving"):
            break
    asked, topic = 0, ""
    async with open_bus(goal.console.url) as bus, bus.subscribe("workflow.*", "approval.*", start=0) as records:
        while topic != "workflow.completed":
            record = await anext(records)
            topic = record.topic
            if topic == "approval.requested" and await bus.store.work.item(record.event_id) is not None:
                asked += 1
                await goal.approve()
    process.terminate()
    assert await process.wait() == COMPLETED
    return asked


@pytest.mark.parametrize(("seed", "complete"), [(1, completed_by_run), (2, completed_by_up)])
async def test_a_goal_survives_kill_9_at_any_moment(
    tmp_path: Path, console_database: str, seed: int, complete: Callable[[Goal], Awaitable[int]]
) -> None:
    """Killed at random lengths of its log, started again each time: one result, a sound log and repository, every finished command once."""
    goal = Goal(tmp_path, console_database)
    chance = random.Random(seed)
    (tmp_path / ".hive").mkdir()
    finished: set[str] = set()
    counts: Counter[str] = Counter()
    kills = 0
    for _ in range(KILLS):
        kills += await killed_after(goal, chance.randint(*STEP))
        assert {name: goal.done()[name] for name in finished} == {name: counts[name] for name in finished}
        finished, counts = await goal.finished(), goal.done()
        assert await asyncio.to_thread(findings, goal.console.url) == []
    assert kills >= KILLS // 2
    asked = await complete(goal)
    assert {name: goal.done()[name] for name in finished} == {name: counts[name] for name in finished}
    done = goal.done()
    assert set(done) == {"fix-0", "fix-1", "fix-2", "extend-0", "extend-1", "extend-2", "look-1", "ship-1", "tell-1"}
    assert done["ship-1"] <= 1 + asked
    await sound(goal)


async def sound(goal: Goal) -> None:
    """The log holds one run with one end that today's brains decide the same, and the repository has its result."""
    async with open_bus(goal.console.url) as bus:
        records = await bus.history(RUN)
        assert await differences(bus, RUN) == []
    ends = [topic for topic in topics(records) if topic.startswith("workflow.")]
    assert ends.count("workflow.completed") == 1
    assert topics(records).count("workflow.requested") == 1
    assert topics(records).count("task.completed") == 5
    assert await asyncio.to_thread(findings, goal.console.url) == []
    assert git(goal.repository, "show", "HEAD:one.txt", "HEAD:two.txt") == "one mended\ntwo mended"
    assert git(goal.repository, "status", "--porcelain") == ""
    assert git(goal.repository, "fsck", "--no-progress", "--no-dangling") == ""
    assert git(goal.repository, "worktree", "list").count("\n") == 0
    assert [str(path) for path in (goal.repository / ".git").rglob("*.lock")] == []
