"""Real processes that come and go: a drain during a command, a second signal, a kill; all of it read from the log."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from hive_bus import Bus, Record, open_bus
from hive_bus.reading import FROM_BEGINNING
from tests.support.console import Console
from tests.support.patience import WITHIN

# Commands say who runs them, and one of them waits for a file. A command that is cut off says nothing.
WAITS = """\
name: waits
steps:
  - {id: wait, run: 'echo $PPID; touch begun; until [ -e go ]; do sleep 0.02; done'}
"""
QUICK = """\
name: quick
steps:
  - {id: quick, run: 'echo $PPID'}
"""
STUBBORN = """\
name: stubborn
steps:
  - {id: stay, run: 'trap "touch told" TERM; touch begun; until [ -e go ]; do sleep 0.02; done'}
"""
AGENT = """\
from hive_bus import Agent

slow = Agent("slow", version="7", specialisation="takes its time")


@slow.task(capability="nap", concurrency=1)
async def nap(task, ctx):
    return "rested"
"""


SOON = 6.0
"""A second where nothing else runs. Who is not told waits for a lease's time instead: seven seconds and a half at least."""


@dataclass
class Apiary:
    """A directory with processes that serve one database, and a bus that listens."""

    console: Console
    bus: Bus
    processes: list[Popen[str]] = field(default_factory=list)

    async def up(self, *words: str) -> Popen[str]:
        """One more `hive up` (or another command), which is online when this returns."""
        process = await asyncio.to_thread(self.console.start, *(words or ("up", "--json")))
        self.processes.append(process)
        await self.heard("agent.online", lambda record: record.data["pid"] == process.pid)
        return process

    async def run(self, name: str) -> str:
        """Ask for a run of a workflow; its id."""
        done = await asyncio.to_thread(self.console, "run", name, "--detach", "--json")
        assert done.code == 0, done.err
        return str(done.json[0]["run"])

    async def heard(self, topic: str, wanted: Callable[[Record], bool] = lambda _: True, *, number: int = 1) -> Record:
        """The first record of a topic that is wanted (or the so-and-so-manyth), as soon as it is there."""
        async with asyncio.timeout(WITHIN), self.bus.subscribe(topic, start=FROM_BEGINNING) as records:
            async for record in records:
                number -= wanted(record)
                if number == 0:
                    return record
        raise AssertionError(topic)

    async def output(self, run: str) -> str:
        """What the run's command wrote."""
        returned = await self.heard("task.returned", lambda record: record.correlation_id == run)
        return str(returned.data["output"]).strip()

    async def begun(self) -> None:
        """Return when the command that waits has begun."""
        async with asyncio.timeout(WITHIN):
            while not (self.console.directory / "begun").exists():
                await self.bus.tail.wait(self.bus.tail.head, timeout=0.02)

    async def ended(self, process: Popen[str]) -> tuple[int, str]:
        """How it ended: its exit code and what it said."""
        _, err = await asyncio.to_thread(process.communicate, timeout=WITHIN)
        return process.returncode, err

    async def said(self, pattern: str, pid: int) -> list[dict[str, Any]]:
        """What was said of the agents of one process, in log order."""
        leases = {
            record.data["lease_id"]
            async for record in self.bus.read("agent.online")
            if record.data["pid"] == pid
        }  # fmt: skip
        return [r.data async for r in self.bus.read(pattern) if r.data["lease_id"] in leases]


@pytest.fixture
async def apiary(tmp_path: Path, console_database: str) -> AsyncIterator[Apiary]:
    """A new database and the workflows; whatever still runs at the end is killed."""
    (tmp_path / "waits.yaml").write_text(WAITS)
    (tmp_path / "quick.yaml").write_text(QUICK)
    (tmp_path / "stubborn.yaml").write_text(STUBBORN)
    (tmp_path / "slow.py").write_text(AGENT)
    console = Console(tmp_path, console_database)
    async with open_bus(console.url, source="test") as bus:
        there = Apiary(console, bus)
        yield there
        for process in there.processes:
            if process.poll() is None:
                process.kill()
            await asyncio.to_thread(process.communicate)


def seconds(earlier: Record, later: Record) -> float:
    """How much later one was recorded than the other."""
    return (later.recorded_at - earlier.recorded_at) / 1_000_000


@asynccontextmanager
async def draining(apiary: Apiary, process: Popen[str]) -> AsyncIterator[Record]:
    """Tell a process to stop; the record in which it says that it drains."""
    process.send_signal(signal.SIGTERM)
    yield await apiary.heard("agent.draining", lambda record: record.data["name"] == "drone")


async def test_a_process_drains_while_a_command_runs(apiary: Apiary) -> None:
    """The command is finished where it runs; meanwhile another process takes over what is new, at once."""
    one = await apiary.up()
    waits = await apiary.run("waits.yaml")
    await apiary.begun()
    two = await apiary.up()
    async with draining(apiary, one) as told:
        assert (told.data["running"], told.data["within"]) == (1, 30.0)
        quick = await apiary.run("quick.yaml")
        assert await apiary.output(quick) == str(two.pid)
        requested = await apiary.heard("workflow.requested", lambda record: record.correlation_id == quick)
        started = await apiary.heard("workflow.started", lambda record: record.correlation_id == quick)
        assert seconds(requested, started) < SOON + max(0.0, SOON - seconds(told, requested))
        (apiary.console.directory / "go").touch()
        assert await apiary.output(waits) == str(one.pid)
        returned = await apiary.heard("task.returned", lambda record: record.correlation_id == waits)
        completed = await apiary.heard("workflow.completed", lambda record: record.correlation_id == waits)
        assert seconds(returned, completed) < SOON
    code, err = await apiary.ended(one)
    assert (code, "nothing was left to do" in err) == (0, True), err
    assert {said["reason"] for said in await apiary.said("agent.offline", one.pid)} == {"drained"}
    assert len(await apiary.said("agent.offline", one.pid)) == 4
    assert len(await apiary.said("agent.draining", one.pid)) == 4
    assert await apiary.said("agent.offline", two.pid) == []


async def test_a_second_signal_stops_at_once(apiary: Apiary) -> None:
    """The command is ended, and another process has it again as soon as the lease is closed."""
    one = await apiary.up()
    waits = await apiary.run("waits.yaml")
    await apiary.begun()
    two = await apiary.up()
    async with draining(apiary, one):
        one.send_signal(signal.SIGTERM)
    code, err = await apiary.ended(one)
    assert (code, "what ran is given back" in err) == (0, True), err
    gone = await apiary.heard("agent.offline")
    assert gone.data["reason"] == "stopped"
    again = await apiary.heard("task.assigned", lambda record: record.data["attempt"] == 2)
    assert seconds(gone, again) < SOON
    (apiary.console.directory / "go").touch()
    assert await apiary.output(waits) == str(two.pid)


async def test_ctrl_c_stops_a_drain_too(apiary: Apiary) -> None:
    """Whoever sits there need not know which signal came first."""
    one = await apiary.up()
    await apiary.run("waits.yaml")
    await apiary.begun()
    async with draining(apiary, one):
        one.send_signal(signal.SIGINT)
    code, _ = await apiary.ended(one)
    assert code == 0
    assert {said["reason"] for said in await apiary.said("agent.offline", one.pid)} == {"stopped"}


async def test_who_was_killed_is_said_to_be_gone_once(apiary: Apiary) -> None:
    """Two processes see it: each agent of the dead one is offline exactly once, and its work goes on elsewhere."""
    one = await apiary.up()
    waits = await apiary.run("waits.yaml")
    await apiary.begun()
    two, three = await apiary.up(), await apiary.up()
    one.kill()
    (apiary.console.directory / "go").touch()
    assert await apiary.output(waits) in {str(two.pid), str(three.pid)}
    await apiary.heard("agent.offline", number=4)
    said = await apiary.said("agent.offline", one.pid)
    assert sorted(one["name"] for one in said) == ["drone", "planner", "queen", "reviewer"]
    assert {one["crashed"] for one in said} == {True}
    assert [record.data["name"] async for record in apiary.bus.read("agent.registered")].count("queen") == 1


async def test_an_agent_of_ones_own_drains(apiary: Apiary) -> None:
    """`hive agent` has nothing to finish: it says so, and is gone at once, with exit code 0."""
    process = await apiary.up("agent", "slow:slow", "--json")
    (registered,) = [record.data async for record in apiary.bus.read("agent.registered")]
    assert (registered["version"], registered["specialisation"]) == ("7", "takes its time")
    assert len(registered["digest"]) == 12
    process.send_signal(signal.SIGTERM)
    code, err = await apiary.ended(process)
    assert (code, "nothing was left to do" in err) == (0, True), err
    assert [one["reason"] for one in await apiary.said("agent.offline", process.pid)] == ["drained"]


async def test_a_run_that_is_told_to_stop_finishes_its_step(apiary: Apiary) -> None:
    """`hive run` drains as well: the step's result is in the log, the rest goes on where a hive serves."""
    process = await apiary.up("run", "waits.yaml", "--json")
    await apiary.begun()
    async with draining(apiary, process):
        (apiary.console.directory / "go").touch()
        await apiary.heard("task.returned")
    code, err = await apiary.ended(process)
    assert code in {0, 130}, err
    two = await apiary.up()
    completed = await apiary.heard("workflow.completed")
    assert completed.position > 0
    assert json.loads((await apiary.bus.store.leases.live())[0].info)["pid"] == two.pid


async def test_a_third_signal_exits_at_once(apiary: Apiary) -> None:
    """A command that will not end holds nobody who insists: the process is gone, and its command with it."""
    one = await apiary.up()
    await apiary.run("stubborn.yaml")
    await apiary.begun()
    async with draining(apiary, one):
        one.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN):
            while not (apiary.console.directory / "told").exists():
                await apiary.bus.tail.wait(apiary.bus.tail.head, timeout=0.02)
        one.send_signal(signal.SIGTERM)
    code, _ = await apiary.ended(one)
    assert code == 130
    two = await apiary.up()
    (apiary.console.directory / "go").touch()
    again = await apiary.heard("task.assigned", lambda record: record.data["attempt"] == 2)
    assert again.position > 0
    assert {said["crashed"] for said in await apiary.said("agent.offline", one.pid)} <= {True}
    assert two.poll() is None
