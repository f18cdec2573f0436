"""agent, agents and parked: a process of one's own, who serves, and what was set aside."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from tests.support.console import Console
from tests.support.patience import WITHIN

BILLING = """\
from pathlib import Path

from hive_bus import Agent, Event, Park


class Placed(Event, topic="order.placed"):
    order: int


class Billed(Event, topic="order.billed"):
    order: int


billing = Agent("billing", version="1.0")


@billing.on(Placed, key="correlation")
async def bill(record, ctx):
    if record.event.order == 13 and not Path("mended").exists():
        return Park(reason="thirteen")
    await ctx.publish(Billed(order=record.event.order))


@billing.task(capability="bottle")
async def bottle(task, ctx):
    return f"bottled {task.task_id}"
"""
BOTTLES = """\
name: bottles
steps:
  - {id: red, run: 'true', capability: bottle}
"""


@pytest.fixture
def hive(tmp_path: Path, console_database: str) -> Console:
    """A directory with a module that has an agent."""
    (tmp_path / "shop.py").write_text(BILLING)
    (tmp_path / "bottles.yaml").write_text(BOTTLES)
    return Console(tmp_path, console_database)


@pytest.fixture
def agent(hive: Console) -> Iterator[Popen[str]]:
    """The agent in a process of its own, ready when it has said so; it is stopped politely."""
    process = hive.start("agent", "shop:billing")
    assert process.stderr is not None
    said = process.stderr.readline()
    assert "agent billing: 1 subscription, 1 hand" in said
    yield process
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WITHIN)
    assert process.returncode == 0


def _follow(hive: Console, topic: str) -> dict[str, object]:
    """The first event of a topic, waited for."""
    follower = hive.start("events", topic, "--from", "0", "--follow", "--json")
    try:
        assert follower.stdout is not None
        data: dict[str, object] = json.loads(follower.stdout.readline())
        return data
    finally:
        follower.kill()
        follower.communicate()


def _order(hive: Console, number: int) -> None:
    body = f'{{"order": {number}}}'
    done = hive("publish", "order.placed", body, "--module", "shop", "--correlation", f"order-{number}")
    assert done.code == 0, done.err


def test_an_agent_follows_and_a_failing_key_is_parked(hive: Console, agent: Popen[str]) -> None:
    """What it handles is in the log; a key whose event fails is set aside while others flow; a retry takes it up."""
    _order(hive, 13)
    _order(hive, 7)
    assert _follow(hive, "order.billed")["data"] == {"order": 7}
    assert _follow(hive, "system.parked")["source"]
    (parked,) = hive("parked", "--json").json
    assert (parked["group"], parked["key"]) == ("agent/billing/bill", "order-13")
    assert "thirteen" in parked["error"]
    assert "order-13" in hive("parked").out
    (hive.directory / "mended").touch()
    retried = hive("parked", "retry", "agent/billing/bill", "order-13")
    assert retried.code == 0, retried.err
    assert "tried again" in retried.out
    follower = hive.start("events", "order.billed", "--correlation", "order-13", "--from", "0", "--follow", "--json")
    assert follower.stdout is not None
    assert '"order": 13' in follower.stdout.readline()
    follower.kill()
    follower.communicate()


def test_a_failing_event_can_be_discarded(hive: Console, agent: Popen[str]) -> None:
    """`discard` lets the one event count as handled, with the reason in the log."""
    _order(hive, 13)
    _follow(hive, "system.parked")
    done = hive("parked", "discard", "agent/billing/bill", "order-13", "--reason", "a test order")
    assert done.code == 0, done.err
    discarded = _follow(hive, "system.discarded")["data"]
    assert isinstance(discarded, dict)
    assert (discarded["key"], discarded["reason"]) == ("order-13", "a test order")


def test_agents_and_status_show_who_is_there(hive: Console, agent: Popen[str]) -> None:
    """The agent with its process; groups with the holders of their partitions; for people and for programs."""
    _order(hive, 7)
    _follow(hive, "order.billed")
    (row,) = hive("agents", "--json").json
    assert (row["name"], row["presence"], row["process"], row["pid"]) == (
        "billing",
        "online",
        "agent/billing",
        agent.pid,
    )
    assert "billing  ● online" in hive("agents").out
    (told,) = hive("status", "--json").json
    (process,), (group,) = told["processes"], told["groups"]
    assert process["owner"] == "agent/billing"
    assert (group["name"], sum(group["held_by"].values())) == ("agent/billing/bill", group["partitions"])


def test_an_agent_takes_the_steps_of_its_capability(hive: Console, agent: Popen[str]) -> None:
    """A step with a capability is performed by whoever has it, in its own process."""
    done = hive("run", "bottles.yaml", "--json")
    assert done.code == 0, done.err
    (run,) = done.json
    assert run["output"] == "bottled red"


def test_interrupting_an_agent(hive: Console) -> None:
    """Ctrl-C ends it with 130, and it says goodbye in the log."""
    process = hive.start("agent", "shop:billing", "--json")
    assert process.stdout is not None
    assert '"agent": "billing"' in process.stdout.readline()
    assert _follow(hive, "agent.online")["data"]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WITHIN)
    assert process.returncode == 130
    assert _follow(hive, "agent.offline")["stream"] == "agent/billing"


@pytest.mark.parametrize("target", ["shop", "shop:nothing", "nowhere:agent", "shop:Placed"])
def test_what_is_no_agent_says_so(hive: Console, target: str) -> None:
    """MODULE:NAME must lead to an Agent."""
    done = hive("agent", target)
    assert done.code == 2, done.err
    assert "try: " in done.err
    assert "Traceback" not in done.err
