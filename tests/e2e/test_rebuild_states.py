"""The log is the truth: without checkpoints, leases and read models every state comes back byte for byte, and nothing is done again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.colony import Colony
from agents.hive import Hive
from agents.run import Run
from dashboard.cli.demo import make_repository, write_answers
from hive_bus.bus import Bus
from hive_bus.opening import open_bus
from hive_bus.testing import canonical_state
from tests.architecture.tree import ROOT
from tests.support.hives import findings
from tests.support.patience import WITHIN
from tests.support.rebuilt import States, strip
from tests.support.tables import copy, rows

LOG = "SELECT * FROM events ORDER BY position"
TOPIC = 4
"""Its column in the log."""
FLOW = """\
name: steps
steps:
- {id: ask, run: echo asked, approval: Really?}
- {id: fails, run: "echo $RANDOM; exit 3", retries: 1, backoff: 10ms}
- {id: after, needs: fails, when: failed('fails'), run: "echo after {{ steps.fails.exit_code }}"}
"""


@asynccontextmanager
async def served(bus: Bus) -> AsyncIterator[Colony]:
    """A colony on this bus."""
    colony = Colony(bus)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(colony.run())
        yield colony
        serving.cancel()


async def settle(bus: Bus, colony: Colony) -> int:
    """Return the log's head when every brain has handled everything up to it, and nothing followed."""
    while True:
        head = await bus.head()
        for host in colony.hosts.values():
            await host.member.caught_up(head, within=WITHIN)
        if await bus.head() == head:
            return head


async def until(run: Run, topic: str) -> None:
    """Return when the run has such an event."""
    async for record in run.events():
        if record.topic == topic:
            return


async def live_states(url: str, workspace: Path, answers: Path, goal: str) -> tuple[States, str]:
    """Do four runs of four kinds, and return the states that the brains then have, and the run that waits for a person."""
    async with open_bus(url, source="hive") as bus, served(bus) as colony:
        hive = Hive(bus=bus, workspace=workspace, serve=False)
        flow = answers.with_name("flow.yaml")
        waiting, cancelled, failed = [await hive.start(flow) for _ in range(3)]
        done = await hive.start(goal, model=f"scripted:{answers}")
        for run in (waiting, cancelled, failed):
            await until(run, "approval.requested")
        await hive.cancel(cancelled.id, reason="enough")
        await hive.deny(failed.id, by="me", comment="no")
        assert [(await run.result(within=WITHIN)).status for run in (done, cancelled, failed)] == [
            "completed",
            "cancelled",
            "failed",
        ]
        async for record in waiting.events():
            if record.topic == "task.completed" and record.data["task_id"] == "after":
                break
        await settle(bus, colony)
        states = {
            name: {key: canonical_state(state).decode() for key, state in host.states().items()}
            for name, host in colony.hosts.items()
        }
        return states, waiting.id


@pytest.fixture
def places(tmp_path: Path, hive_url: str) -> tuple[str, Path, Path, str]:
    """A database that is not there yet, the demo's repository, its answers and its goal."""
    goal = make_repository(tmp_path / "jars")
    (tmp_path / "flow.yaml").write_text(FLOW)
    return hive_url, tmp_path / "jars", write_answers(tmp_path / "answers.yaml"), goal


def rebuilt(url: str, seed: str) -> States:
    """The states as another process folds them, whose sets and hashes have another order."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.rebuilt", url],
        cwd=ROOT,
        env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        text=True,
    )
    states: States = json.loads(done.stdout)
    return states


async def test_everything_but_the_log_may_be_lost(places: tuple[str, Path, Path, str]) -> None:
    """Whole runs; every checkpoint, lease and read model deleted; the states are the same, no event is new, and work goes on."""
    live, waiting = await live_states(*places)
    assert await asyncio.to_thread(findings, places[0]) == []
    stripped = await asyncio.to_thread(copy, places[0])
    gone = await asyncio.to_thread(strip, stripped)
    assert gone["partitions"] > 0
    assert gone["consumer_groups"] == len(live) == 4
    for seed in ("0", "1"):
        states = await asyncio.to_thread(rebuilt, stripped, seed)
        for brain, keys in live.items():
            assert keys, brain
            assert {key: states[brain][key] for key in keys} == keys
    assert len(live["drone"]) == 3
    await nothing_new(stripped, live)
    assert await asyncio.to_thread(findings, stripped) == []
    async with Hive(stripped, workspace=places[1]) as hive:
        await hive.approve(waiting, by="me")
        result = await (await hive.run(waiting)).result(within=WITHIN)
    assert result.status == "failed"
    assert "fails: exit code 3" in result.reason
    assert await asyncio.to_thread(findings, stripped) == []


async def nothing_new(url: str, live: States) -> None:
    """Host the brains on what is left until they have read it all: they know what they knew, and decide nothing.

    Only that the agents come and go is new, and what a busy machine makes their process complain of.
    """
    before = await asyncio.to_thread(rows, url, LOG)
    async with open_bus(url, source="hive") as bus, served(bus) as colony:
        await settle(bus, colony)
        for name, host in colony.hosts.items():
            assert {key: canonical_state(state).decode() for key, state in host.states().items()} == live[name]
    after = await asyncio.to_thread(rows, url, LOG)
    assert after[: len(before)] == before
    assert {row[TOPIC].partition(".")[0] for row in after[len(before) :]} <= {"agent", "system"}
