"""Agents: what they follow, the tasks they take, how they are loaded, and what is said about them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hive_bus import Agent, Bus, Context, Failure, HandContext, Intent, Record, open_bus
from hive_bus.agent import load
from hive_bus.envelope import encode_event, work_changes
from hive_bus.event import Event
from hive_bus.events.task import TaskReady, TaskReturned
from hive_bus.reading import FROM_BEGINNING
from hive_core_db.records import AppendRequest, ParkedKey
from hive_errors import AgentInvalid, AgentNotLoaded, InvalidTopic
from tests.support.handling import Answered, Said, answers, number_of, running, say, until
from tests.support.patience import WITHIN

ROOT = Path(__file__).parents[2]


class LetterRequested(Intent, topic="letter.requested", results=("letter.sent",)):
    text: str


class LetterSent(Event, topic="letter.sent"):
    text: str


@pytest.fixture
async def bus(hive_url: str) -> AsyncIterator[Bus]:
    """An open bus on a new file."""
    async with open_bus(hive_url) as bus:
        yield bus


@dataclass(frozen=True)
class Process:
    """An agent on a bus."""

    agent: Agent
    bus: Bus

    async def run(self) -> None:
        """Until cancelled."""
        await self.agent.run(self.bus)


async def ask(bus: Bus, intent: Intent) -> None:
    """What a brain does with its decision: the intent and its work, in one append."""
    event = encode_event(
        intent, stream="w/run", correlation_id="w", event_id=bus.ids.event_id(bus.now()), source="test"
    )
    await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=(event,), work=work_changes((intent,))))


async def first(bus: Bus, topic: str) -> Record:
    """The first record of a topic, as soon as it is there."""
    async with asyncio.timeout(WITHIN), bus.subscribe(topic, start=FROM_BEGINNING) as records:
        return await anext(records)


async def test_every_function_is_a_group_of_its_own(bus: Bus) -> None:
    """Both see everything, by class or by pattern, and adding the second later takes nothing from the first."""
    agent, seen = Agent("ears"), []

    @agent.on(Said)
    async def one(record: Record, ctx: Context) -> None:
        await ctx.publish(Answered(number=number_of(record)), stream="answers")

    async def heard_by(count: int) -> None:
        async def enough() -> bool:
            return len(await answers(bus)) == count

        async with running(Process(agent, bus)):
            await until(enough, bus)

    await say(bus, 1, 2)
    await heard_by(2)

    @agent.on("*.said", "none.>", name="two", key=lambda record: record.topic)
    async def again(record: Record, ctx: Context) -> None:
        seen.append(number_of(record))
        await ctx.publish(Answered(number=-number_of(record)), stream="answers")

    await say(bus, 3)
    await heard_by(6)
    assert seen == [1, 2, 3]
    assert sorted(await answers(bus)) == [-3, -2, -1, 1, 2, 3]
    assert await bus.store.checkpoints.groups() == ["agent/ears/one", "agent/ears/two"]
    told = [record.topic async for record in bus.read("agent.*")]
    assert told == ["agent.registered", "agent.online", "agent.offline"] * 2


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("done", {"outcome": "completed", "output": "done"}),
        ({"answer": 42}, {"outcome": "completed", "data": {"answer": 42}}),
        (None, {"outcome": "completed", "output": ""}),
        (TaskReturned(task_id="t", output="whole"), {"output": "whole"}),
        (Failure(reason="no"), {"outcome": "failed", "reason": "no"}),
        (
            7,
            {
                "outcome": "failed",
                "reason": "the function returned a int, not TaskReturned, str, dict, Failure or None",
            },
        ),
    ],
)
async def test_a_task_returns_what_its_function_did(bus: Bus, returned: Any, expected: dict[str, Any]) -> None:
    """Text is its output, a dict its data, nothing is fine too; anything else is a failure that says so."""
    agent = Agent("worker")

    @agent.task(capability="pack")
    def work(task: TaskReady, ctx: HandContext) -> Any:
        assert (task.task_id, ctx.attempt) == ("t", 1)
        return returned

    await ask(bus, TaskReady(task_id="t", kind="worker", capability="pack"))
    async with running(Process(agent, bus)):
        record = await first(bus, "task.returned")
    assert {name: record.data[name] for name in expected} == expected
    assigned = await first(bus, "task.assigned")
    assert assigned.data["assignee"] == "worker"


async def test_an_agent_performs_intents(bus: Bus) -> None:
    """And says so when it registers."""
    agent = Agent("post")

    @agent.hand(LetterRequested)
    async def send(intent: LetterRequested, ctx: HandContext) -> LetterSent:
        return LetterSent(text=intent.text)

    await ask(bus, LetterRequested(text="dear"))
    async with running(Process(agent, bus)):
        assert (await first(bus, "letter.sent")).data == {"text": "dear"}
    assert (await first(bus, "agent.registered")).data["capabilities"] == ["letter.requested"]


async def test_an_agent_without_functions_is_refused(bus: Bus) -> None:
    """It would run for ever and do nothing."""
    with pytest.raises(AgentInvalid, match="its set of functions"):
        await Agent("idle").run(bus)


def test_mistakes_are_found_when_the_agent_is_put_together() -> None:
    """With the agent, the function and the reason."""
    agent = Agent("a")

    def plain(record: Record, ctx: Context) -> None: ...

    async def fine(record: Record, ctx: Context) -> None: ...

    with pytest.raises(AgentInvalid, match="not an async function"):
        agent.on("a.b")(plain)  # type: ignore[type-var]
    with pytest.raises(AgentInvalid, match="names no topic"):
        agent.on()(fine)
    agent.on("a.b")(fine)
    with pytest.raises(AgentInvalid, match="another function has that name"):
        agent.on("a.c")(fine)
    with pytest.raises(InvalidTopic):
        agent.on("not a topic")
    with pytest.raises(AgentInvalid, match="the class has no topic"):
        agent.on(Event)
    with pytest.raises(AgentInvalid, match="holds a space"):
        agent.task(capability="two words")
    agent.task(capability="one")(lambda _task, _ctx: None)
    with pytest.raises(AgentInvalid, match="another function has it"):
        agent.task(capability="one")
    with pytest.raises(AgentInvalid, match="its name"):
        Agent("a/b")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nonsense", "not of the form MODULE:NAME"),
        ("no_such_module:agent", "there is no module 'no_such_module'"),
        ("bot_needs:agent", "bot_needs needs 'not_installed_at_all'"),
        ("bot_raises:agent", "importing bot_raises raised ZeroDivisionError"),
        ("bot:missing", "bot has no 'missing'; it has bot_agent"),
        ("bot:number", "'number' is a int, not an Agent; it has bot_agent"),
        ("bot_empty:agent", "it has no agent at all"),
    ],
)
def test_loading_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, reason: str) -> None:
    """Whether the name, the module, what it imports, or what it holds."""
    (tmp_path / "bot.py").write_text("from hive_bus import Agent\nbot_agent = Agent('bot')\nnumber = 7\n")
    (tmp_path / "bot_empty.py").write_text("")
    (tmp_path / "bot_needs.py").write_text("import not_installed_at_all\n")
    (tmp_path / "bot_raises.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("bot", "bot_empty", "bot_needs", "bot_raises"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(AgentNotLoaded, match=re.escape(reason)):
        load(target)
    assert load("bot:bot_agent").name == "bot"


async def test_the_example_works(bus: Bus, hive_url: str) -> None:
    """Two processes of it share orders and tasks; what has no price waits."""
    program = f"""
import asyncio
from hive_bus import open_bus
from hive_bus.agent import load

async def main():
    async with open_bus({hive_url!r}) as bus:
        await load("examples.shop:shop").run(bus)

asyncio.run(main())
"""
    from examples.shop import OrderPlaced

    async def set_aside() -> Sequence[ParkedKey]:
        return await bus.store.checkpoints.parked("agent/shop/invoice")

    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT) for _ in range(2)]
    try:
        for order in range(20):
            await bus.publish(
                OrderPlaced(order=order, item="honey" if order % 10 else "gold"), stream=f"c/{order % 10}"
            )
        await ask(bus, TaskReady(task_id="t", command="one jar", capability="pack"))
        assert (await first(bus, "task.returned")).data["output"] == "packed one jar (attempt 1)"
        async with asyncio.timeout(WITHIN), bus.subscribe("shop.invoice_written", start=FROM_BEGINNING) as records:
            invoices = [(await anext(records)).data["order"] for _ in range(18)]
        assert sorted(invoices) == [order for order in range(20) if order % 10]
        await until(set_aside, bus)
        (row,) = await set_aside()
        assert (row.key, row.error) == ("c/0", "no price for gold")
    finally:
        for process in processes:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("index", range(5))
def test_the_page_about_agents_is_right(tmp_path: Path, index: int) -> None:
    """Every example of docs/agents.md runs as it stands."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "agents.md").read_text(), flags=re.DOTALL)
    assert len(examples) == 5
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", examples[index]],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == ("", "", "", "", "{'cents': 350} {'cents': 250} [('ada', {'cents': 350})]\n")[index]
