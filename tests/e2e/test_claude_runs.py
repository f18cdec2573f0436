"""Claude on a whole hive: the real client, a strict server over loopback, real tools on a real repository, and every fault in mid-run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest

from agents.hive import Hive
from agents.run import Run
from hive_bus.record import Record
from tests.conftest import HiveUrls
from tests.integration.test_anthropic import _no_proxy
from tests.support.claude import Claude, Told, cut, says, uses, verdict
from tests.support.hives import bodies, finished, hive_at, topics
from tests.support.messages_server import MessagesServer, Play, error, events_of, stream
from tests.support.patience import WITHIN
from tests.support.repositories import git, make_checkout
from tests.support.tables import dump

__all__ = ["_no_proxy"]

KEY = "sk-ant-never-to-be-seen-007"
MODEL = "claude-sonnet-5-5"
GOAL = "Make both files say what they are for"
STEPS = [
    {"id": "fix", "prompt": "Do #fix: one.txt must say first."},
    {"id": "extend", "prompt": "Do #extend: two.txt must say second."},
    {"id": "check", "needs": ["fix", "extend"], "run": "cat one.txt two.txt"},
]
BUSY = error(529, "overloaded_error", "later", headers={"retry-after-ms": "20"})
SLOW_DOWN = error(429, "rate_limit_error", "too many", headers={"retry-after-ms": "30"})


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MessagesServer]:
    """The strict server, and the environment that leads the real client to it."""
    async with MessagesServer() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A user's checkout with two files."""
    return make_checkout(tmp_path / "work")


def work(**more: Sequence[Play]) -> dict[str, Sequence[Play]]:
    """What everybody says in a run that goes well; ``more`` comes before it, by name with ``_`` for a space."""
    said: dict[str, Sequence[Play]] = {
        "planner 1": [says({"steps": STEPS})],
        "drone fix 1": [uses("a", "read", "I look.", path="one.txt")],
        "drone fix 2": [uses("b", "edit", path="one.txt", old="one", new="first")],
        "drone fix 3": [says("It says first.")],
        "drone extend 1": [uses("c", "edit", path="two.txt", old="two", new="second")],
        "drone extend 2": [says("It says second.")],
        "reviewer fix 1": [verdict("approved")],
        "reviewer extend 1": [verdict("approved", "Fine.")],
    }
    return {name: [*more.get(name.replace(" ", "_"), ()), *plays] for name, plays in said.items()}


def price(told: Sequence[Told]) -> Decimal:
    """What the price table says of the tokens that the server counted."""
    prices = (
        genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=one.input + one.read + one.write,
                cache_read_tokens=one.read,
                cache_write_tokens=one.write,
                output_tokens=one.output,
            ),
            MODEL,
            provider_id="anthropic",
        ).total_price
        for one in told
    )
    return sum(prices, Decimal(0))


def costs(records: Sequence[Record]) -> Decimal:
    """What the log says: replies, and attempts that failed after something was counted."""
    ends = ("model.responded", "model.attempt_failed", "model.failed")
    return sum((Decimal(one.data["cost"] or 0) for one in records if one.topic in ends), Decimal(0))


def nowhere(url: str, caplog: pytest.LogCaptureFixture, *more: object) -> None:
    """The key is in no column of any table, in no line of the log, in nothing else that was shown."""
    everything = dump(url)
    assert "workflow.requested" in everything
    for text in (everything, caplog.text, *map(repr, more)):
        assert KEY not in text


async def shown(run: Run) -> str:
    """The run's trace, as JSON."""
    from dashboard.views import trace_view

    view = trace_view(await run.bus.history(run.id))
    assert view is not None
    return json.dumps(view.as_dict())


async def test_a_goal_goes_through_claude(
    server: MessagesServer, repository: Path, hive_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Plan, two drones, reviews, merges, a command; tokens and dollars in the log are those of the server and the price table."""
    claude = Claude(server, work())
    caplog.set_level("DEBUG")
    async with hive_at(hive_url, repository, model=MODEL) as hive:
        run = await hive.start(GOAL)
        result, records = await finished(run)
        trace = await shown(run)
    assert (result.status, result.output) == ("completed", "first\nsecond")
    assert git(repository, "show", "HEAD:one.txt") == "first"
    assert claude.never_orphaned()
    replies = bodies(records, "model.responded")
    counted = [
        (b["input_tokens"], b["output_tokens"], b["cache_read_tokens"], b["cache_write_tokens"]) for b in replies
    ]
    assert sorted(counted) == sorted((one.input, one.output, one.read, one.write) for one in claude.told)
    assert costs(records) == price(claude.told) > 0
    assert {reply["provider_request_id"] for reply in replies} == {"req_011"}
    assert all(reply["ttft"] >= 0 for reply in replies)
    nowhere(hive_url, caplog, trace, result)


async def test_faults_in_mid_run_are_events_and_the_run_completes(
    server: MessagesServer, repository: Path, hive_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused for now, overloaded, cut, reset, garbled: each is an attempt in the log with its cost, and the work is done once."""
    garbled = events_of([{"type": "tool_use", "id": "toolu_x", "name": "edit", "input": {}}], stop_reason="tool_use")
    piece = {"type": "input_json_delta", "partial_json": '{"path": "one'}
    garbled[3:5] = [{"type": "content_block_delta", "index": 0, "delta": piece}]
    told: dict[str, Any] = {"type": "error", "error": {"type": "overloaded_error", "message": f"key {KEY}"}}
    faults = work(
        planner_1=[SLOW_DOWN, BUSY],
        drone_fix_1=[cut("I lo")],
        drone_fix_2=[stream(garbled)],
        drone_extend_1=[cut("I am", then="reset"), BUSY],
        reviewer_extend_1=[stream([*events_of([{"type": "text", "text": "{"}])[:4], told])],
    )
    claude = Claude(server, faults)
    caplog.set_level("DEBUG")
    async with hive_at(hive_url, repository, model=MODEL) as hive:
        run = await hive.start(GOAL)
        result, records = await finished(run)
        trace = await shown(run)
    assert (result.status, result.output) == ("completed", "first\nsecond")
    assert claude.never_orphaned()
    failed = bodies(records, "model.attempt_failed")
    assert sorted(body["kind"] for body in failed) == [
        "connection_error",
        "connection_error",
        "malformed_tool_input",
        "overloaded_error",
        "overloaded_error",
        "overloaded_error",
        "rate_limit_error",
    ]
    (waits,) = [body["retry_in"] for body in failed if body["kind"] == "rate_limit_error"]
    assert waits == 0.03
    paid = [body for body in failed if body["cost"]]
    assert len(paid) == 4
    assert costs(records) == price(claude.told)
    # A call that failed on its way is one more attempt of the same intent, and never one more turn.
    assert len(bodies(records, "model.requested")) == len(bodies(records, "model.responded")) == 8
    assert len(bodies(records, "tool.requested", tool="edit")) == 2
    nowhere(hive_url, caplog, trace, result)


async def test_what_failed_attempts_cost_is_in_the_sum(server: MessagesServer, repository: Path, hive_url: str) -> None:
    """The run's cost, as the trace shows it, is everything that must be paid: replies and broken streams."""
    from dashboard.views import trace_view

    claude = Claude(server, work(planner_1=[cut("{")]))
    async with hive_at(hive_url, repository, model=MODEL) as hive:
        run = await hive.start(GOAL)
        _, records = await finished(run)
    view = trace_view(records)
    assert view is not None
    assert view.run.cost.dollars == price(claude.told)
    assert view.root.as_dict()["cost"] == view.run.cost.as_dict()


async def test_a_refusal_is_said_and_fails_the_run(server: MessagesServer, repository: Path, hive_url: str) -> None:
    """A drone whose model refuses ends with its words; the other step finishes, and the branch stays where it was."""
    plays = work() | {"drone fix 2": [says("I will not do that.", stop_reason="refusal")]}
    claude = Claude(server, plays)
    async with hive_at(hive_url, repository, model=MODEL) as hive:
        result, records = await finished(await hive.start(GOAL))
    assert result.status == "failed"
    assert "the model refused: I will not do that." in result.reason
    assert topics(records).count("task.completed") == 1
    assert git(repository, "show", "HEAD:two.txt") == "two"
    assert claude.never_orphaned()


async def test_a_wrong_key_fails_at_once_and_is_not_told(
    server: MessagesServer, repository: Path, hive_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No attempt would mend it, so there is none; a server that echoes the key does not get it into log or trace."""
    Claude(server, {"planner 1": [error(401, "authentication_error", f"invalid x-api-key {KEY}")] * 9})
    async with hive_at(hive_url, repository, model=MODEL) as hive:
        run = await hive.start(GOAL)
        result, records = await finished(run)
        trace = await shown(run)
    assert result.status == "failed"
    assert "HTTP 401 authentication_error" in result.reason
    assert topics(records).count("model.attempt_failed") == 0
    nowhere(hive_url, caplog, trace, result)


async def test_a_server_that_stays_broken_ends_the_run(server: MessagesServer, repository: Path, hive_url: str) -> None:
    """After the last attempt the call has failed; the planner asks anew, and after the third time the run ends with the reason."""
    Claude(server, {"planner 1": [BUSY] * 99})
    async with hive_at(hive_url, repository, model=MODEL) as hive:
        result, records = await finished(await hive.start(GOAL))
    assert result.status == "failed"
    assert "HTTP 529 overloaded_error: later" in result.reason
    assert [body["attempts"] for body in bodies(records, "model.failed")] == [5, 5, 5]


def _and_hangs(text: str) -> Play:
    return stream(events_of([{"type": "text", "text": text}])[:4], then="hang")


async def test_cancelling_in_mid_stream_closes_it(server: MessagesServer, repository: Path, hive_url: str) -> None:
    """A person cancels while the planner's answer streams: the connection is closed, and the run ends as cancelled."""
    Claude(server, {"planner 1": [_and_hangs("{")]})
    async with hive_at(hive_url, repository, model=MODEL) as hive:
        run = await hive.start(GOAL)
        await server.arrived.wait()
        await hive.cancel(run.id, reason="not today", by="me")
        async with asyncio.timeout(WITHIN):
            await server.hung_up.wait()
        result, records = await finished(run)
    assert (result.status, result.reason) == ("cancelled", "not today")
    assert topics(records).count("model.cancelled") == 1
    assert topics(records)[-1] == "workflow.cancelled"


async def test_stopping_the_process_in_mid_stream_loses_nothing(
    server: MessagesServer, repository: Path, hive_urls: HiveUrls
) -> None:
    """The stream of a hive that is closed is closed too; the next hive asks again and completes the run."""
    url = hive_urls()
    claude = Claude(server, work(drone_extend_1=[_and_hangs("I am")]))
    async with hive_at(url, repository, model=MODEL) as hive:
        run = await hive.start(GOAL)
        async for record in run.events():
            if record.topic == "task.completed" and record.data["task_id"] == "fix":
                break
    async with asyncio.timeout(WITHIN):
        await server.hung_up.wait()
    async with hive_at(url, repository, model=MODEL) as again:
        result, records = await finished(await again.run(run.id))
    assert (result.status, result.output) == ("completed", "first\nsecond")
    assert claude.asked.count("drone extend 1") == 2
    assert claude.asked.count("drone fix 1") == 1
    assert [body["kind"] for body in bodies(records, "model.attempt_failed")] == ["lost"]
    assert claude.never_orphaned()


@pytest.mark.parametrize("words", [("--verbose",), ("--debug",)])
async def test_the_command_line_never_shows_the_key(
    server: MessagesServer, repository: Path, tmp_path: Path, words: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """`hive run` and `hive trace` through Claude: the run completes, and neither output nor database holds the key."""
    from tests.support.console import HIVE, Console

    Claude(server, work(planner_1=[BUSY, error(500, "api_error", f"echo {KEY}", headers={"retry-after-ms": "1"})]))
    environment = Console(tmp_path).environment | {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": KEY}
    said = b""
    for command in (["run", GOAL, "--workspace", "work", "--model", MODEL], ["trace", "@"], ["events", "--json"]):
        process = await asyncio.create_subprocess_exec(
            *(HIVE, *command, *words),
            cwd=tmp_path,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        said += out
    assert b"overloaded_error" in said
    assert KEY.encode() not in said
    nowhere(f"sqlite:///{tmp_path}/.hive/hive.db", caplog)


async def test_without_a_key_nothing_starts(repository: Path, hive_url: str) -> None:
    """The start is refused with what to set, and no run is in the log."""
    from hive_errors import ModelSettingMissing

    async with Hive(hive_url, workspace=repository, model=MODEL) as hive:
        with pytest.raises(ModelSettingMissing, match="ANTHROPIC_API_KEY"):
            await hive.start(GOAL)
        assert [record.topic async for record in hive.bus.read("workflow.*")] == []
