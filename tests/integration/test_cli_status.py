"""status and agents: what they say with nothing there, with processes at work, and of a log that is long."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from dashboard.views import read_agents, read_status
from dashboard.views.reading import MOST
from hive_bus import Event, open_bus
from hive_bus.envelope import encode_event
from hive_core_db.records import AppendRequest
from tests.integration.test_cli_agents import BILLING, BOTTLES
from tests.support.console import Console, screen
from tests.support.patience import WITHIN


class Chatter(Event, topic="chat.started"):
    number: int


@pytest.fixture
def hive(tmp_path: Path, console_database: str) -> Console:
    """A directory with an agent and workflows, and a database that is there."""
    (tmp_path / "shop.py").write_text(BILLING)
    (tmp_path / "bottles.yaml").write_text(BOTTLES)
    (tmp_path / "nobody.yaml").write_text(BOTTLES.replace("capability: bottle", "capability: nobody"))
    console = Console(tmp_path, console_database)
    done = console("db", "upgrade")
    assert done.code == 0, done.err
    return console


@pytest.fixture
def serving(hive: Console) -> Iterator[list[Popen[str]]]:
    """`hive up` and `hive agent`, stopped politely in the end."""
    processes = [hive.start("up", "--json"), hive.start("agent", "shop:billing", "--json")]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline()
    yield processes
    for process in processes:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WITHIN)
        assert process.returncode == 0


def test_with_nothing_there_both_say_so(hive: Console) -> None:
    """No tables, no errors: nobody serves, nothing waits, and what to do about it."""
    agents = hive("agents")
    assert (agents.code, agents.out) == (0, "")
    assert "no process serves this database" in agents.err
    status = hive("status")
    assert status.code == 0
    assert "0 requested, 0 completed" in status.out
    assert "nothing needs anybody's eye" in status.out
    (told,) = hive("status", "--json").json
    assert (told["head"], told["processes"], told["capabilities"], told["attention"]) == (0, [], [], [])


@pytest.mark.parametrize("since", ["soon", "0s", "-1h", "90d"])
def test_a_time_that_is_none_is_refused(hive: Console, since: str) -> None:
    """With what would be one."""
    done = hive("status", "--since", since)
    assert done.code == 2
    assert "try: 90s, 15m, 1h or 2d" in done.err


def test_status_tells_what_was_done_and_what_waits_for_nobody(hive: Console, serving: list[Popen[str]]) -> None:
    """A step that was done has a time; one that nobody can take is what needs an eye."""
    done = hive("run", "bottles.yaml", "--json")
    assert done.code == 0, done.err
    assert hive("run", "nobody.yaml", "--detach").code == 0
    follower = hive.start("events", "task.ready", "--from", "0", "--follow", "--json")
    assert follower.stdout is not None
    assert [follower.stdout.readline() for _ in range(2)]
    follower.kill()
    follower.communicate()
    (told,) = hive("status", "--since", "10m", "--json").json
    queues = {one["queue"]: one for one in told["capabilities"]}
    assert (queues["task:bottle"]["activity"]["ended"], queues["task:bottle"]["agents"]) == (1, 1)
    assert queues["task:bottle"]["activity"]["worked"][0] >= 0
    assert (queues["task:nobody"]["queued"], queues["task:nobody"]["agents"]) == (1, 0)
    # That the machine is slow may be said as well: it is true of many that run tests.
    needs = [line for line in told["attention"] if ": loop: " not in line and ": database: " not in line]
    assert needs == ["1 of task:nobody waits, and nobody online can take it"]
    assert told["runs_since"] == {"requested": 2, "completed": 1, "failed": 0, "cancelled": 0}
    assert {process["owner"] for process in told["processes"]} == {"hive", "agent/billing"}
    shown = hive("status").out
    assert "nobody online can take it" in shown
    for columns in (80, 200):
        _, written = hive.terminal("status", columns=columns)
        table = screen(written).partition("queue ")[2]
        assert all(len(line) <= columns for line in table.splitlines())
        assert "task:nobody" in table


def test_agents_tells_presence_and_execution(hive: Console, serving: list[Popen[str]]) -> None:
    """One row for each agent and process, at any width; afterwards they are offline, with the reason."""
    done = hive("run", "bottles.yaml", "--json")
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in hive("agents", "--json").json if row["presence"] == "online"}
    assert {"billing", "drone", "queen", "planner", "reviewer"} <= set(rows)
    assert (rows["billing"]["version"], rows["billing"]["capabilities"]) == ("1.0", ["bottle"])
    assert (rows["billing"]["slots"], rows["queen"]["slots"]) == (8, None)
    for columns in (80, 200):
        _, written = hive.terminal("agents", columns=columns)
        shown = screen(written)
        assert all(len(line) <= columns for line in shown.splitlines())
        assert "● online" in shown
    serving[1].send_signal(signal.SIGTERM)
    serving[1].communicate(timeout=WITHIN)
    (row,) = [row for row in hive("agents", "--json").json if row["name"] == "billing"]
    assert (row["presence"], row["reason"], row["version"]) == ("offline", "drained", "1.0")
    assert "· offline" in hive("agents").out


async def test_a_long_log_is_not_read_whole(hive_url: str) -> None:
    """Latencies come from the newest events, rates from positions, however many there are."""
    async with open_bus(hive_url) as bus:
        for first in range(0, 3 * MOST, 1000):
            events = tuple(
                encode_event(
                    Chatter(number=number),
                    stream=f"c/{number}",
                    correlation_id="c",
                    source="test",
                    event_id=bus.ids.event_id(bus.now()),
                )
                for number in range(first, first + 1000)
            )
            await bus.submit(AppendRequest(epoch=bus.writer.epoch, events=events))
        view = await read_status(bus, seconds=3600, place="here")
        assert (view.head, view.events_since) == (3 * MOST, 3 * MOST)
        assert view.sampled_seconds < 60
        assert await read_agents(bus) == []
