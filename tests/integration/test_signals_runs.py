"""Signals of whole runs: commands, tools and models are heard while they work, and the log knows nothing of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.hive import Hive
from agents.run import Run
from agents.tool import ToolContext, Tools
from agents.tools.function import tool
from hive_bus import EffectClass
from hive_bus.hands.hand import HandContext
from hive_bus.hands.runner import HandRunner
from hive_bus.signals import LONGEST, Listener, Signal
from hive_bus.testing import SimulatedLoop, run_simulated
from hive_bus.underway import Underway
from hive_bus.voice import EVERY
from tests.integration.test_anthropic import _no_proxy
from tests.support.brains import Asked, Done, Trial, Try, bench, simulated_bus
from tests.support.claude import Claude
from tests.support.messages_server import Connection, MessagesServer, events_of, stream
from tests.support.patience import WITHIN
from tests.support.repositories import make_checkout

__all__ = ["_no_proxy"]


@asynccontextmanager
async def begun(directory: Path, step: str, **options: Any) -> AsyncIterator[tuple[Hive, Run, Listener]]:
    """A hive, a run of one step in it, and who listens."""
    file = directory / "one.yaml"
    file.write_text(f"name: one\nsteps:\n  - {step}\n")
    async with Hive(f"sqlite:///{directory}/h.db", **{"workspace": directory, **options}) as hive:
        with hive.bus.signals.listen() as listener:
            yield hive, await hive.start(file, review=False), listener


async def until(listener: Listener, word: str) -> list[Signal]:
    """What is heard up to a word."""
    found: list[Signal] = []
    async with asyncio.timeout(WITHIN):
        while not found or word not in found[-1].text:
            found.append(await anext(listener))
    return found


async def test_a_command_is_heard_before_it_ends(tmp_path: Path) -> None:
    """Its lines are there while it waits for us, under its task's name; the log is as long as if nobody had listened."""
    step = "{id: wait, run: 'echo first; while ! test -e go; do sleep 0.01; done; echo last'}"
    async with begun(tmp_path, step) as (hive, run, listener):
        heard = await until(listener, "first\n")
        assert await run.ended() is None
        (tmp_path / "go").touch()
        result = await run.result(within=WITHIN)
        heard += await until(listener, "last\n")
        assert result.output == "first\nlast" == "".join(one.text for one in heard).rstrip()
        assert {(one.kind, one.task, one.run, one.attempt) for one in heard} == {("output", "wait", run.id, 1)}
        before = len(await hive.bus.history(run.id))
        underway = Underway()
        for one in heard:
            underway.hear(one)
        for record in await hive.bus.history(run.id):
            underway.tell(record)
        assert underway.doing == ()
    async with Hive(f"sqlite:///{tmp_path}/other.db", workspace=tmp_path) as hive:
        run = await hive.start(tmp_path / "one.yaml")
        await run.result(within=WITHIN)
        assert len(await hive.bus.history(run.id)) == before
        assert hive.bus.signals.sent == 0


async def test_a_flood_of_bytes_is_a_few_signals(tmp_path: Path) -> None:
    """Megabytes that are no text come as bounded pieces, twenty in a second at most; the result is what it always was."""
    line = "head -c 4000000 /dev/urandom; yes | head -c 8000000; printf done"
    loop = asyncio.get_running_loop()
    since = loop.time()
    async with begun(tmp_path, f"{{id: flood, run: '{line}'}}") as (hive, run, listener):
        heard = await until(listener, "done")
        assert (await run.result(within=WITHIN)).status == "completed"
        assert hive.bus.signals.sent <= (loop.time() - since) / EVERY + 1
    assert max(len(one.text) for one in heard) <= LONGEST
    assert sum(one.left_out for one in heard) >= 12_000_000 - LONGEST * (len(heard) + 1)


async def test_a_tool_says_how_far_it_is(tmp_path: Path) -> None:
    """A plain function, which runs in a thread, reports through its context."""
    go = threading.Event()

    @tool(effect=EffectClass.IDEMPOTENT)
    def pack(ctx: ToolContext) -> str:
        """Pack two boxes, in a thread."""
        ctx.progress("1 of 2", fraction=0.5)
        ctx.say("a box")
        go.wait(WITHIN)
        return "packed"

    async with begun(tmp_path, "{id: boxes, tool: pack}", tools=Tools(pack)) as (_, run, listener):
        heard = await until(listener, "1 of 2")
        go.set()
        assert (await run.result(within=WITHIN)).output == "packed"
    assert [(one.kind, one.text, one.fraction, one.task) for one in heard] == [
        ("text", "a box", None, "boxes"),
        ("progress", "1 of 2", 0.5, "boxes"),
    ]


async def test_a_script_speaks_at_its_pace(tmp_path: Path) -> None:
    """An answer with a pace is heard word by word, so that streaming can be seen without a key."""
    checkout = make_checkout(tmp_path / "work")
    (tmp_path / "says.yaml").write_text("drone: {'*': [{text: 'one two three four', pace: 15}]}")
    model = f"scripted:{tmp_path / 'says.yaml'}"
    async with begun(tmp_path, "{id: fix, prompt: Count}", workspace=checkout, model=model) as (_, run, listener):
        heard = await until(listener, "four")
        assert (await run.result(within=WITHIN)).status == "completed"
    assert len(heard) > 1
    assert "".join(one.text for one in heard) == "one two three four"


async def test_claude_is_heard_while_it_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deltas of the real client come before the reply; those of an attempt that breaks off are not mixed with the next one's."""
    go_on = asyncio.Event()
    whole = events_of([{"type": "text", "text": "I look at the jars."}])

    async def slowly(connection: Connection) -> None:
        await connection.head(200, "text/event-stream")
        await stream(whole[:4], then="stay")(_Begun(connection))
        await go_on.wait()
        await stream(whole[4:])(_Begun(connection))

    checkout = make_checkout(tmp_path / "work")
    async with MessagesServer() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-unheard")
        Claude(server, {"drone fix 1": [stream(whole[:4], then="reset"), slowly]})
        step = "{id: fix, prompt: 'Do #fix'}"
        underway = Underway()
        async with begun(tmp_path, step, workspace=checkout, model="claude-sonnet-5-5") as (_, run, listener):
            attempts: list[tuple[int, str]] = []
            async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
                follows = tasks.create_task(_follow(run, underway))
                while (2, "I look at") not in attempts:
                    doing = underway.hear(await anext(listener))
                    if doing is not None:
                        attempts.append((doing.attempt, doing.text))
                assert await run.ended() is None
                go_on.set()
                await follows
            assert (await run.result(within=WITHIN)).output == "I look at the jars."
        assert attempts[0] == (1, "I look at")
        assert underway.doing == ()


class _Begun(Connection):
    """A connection whose head is sent already."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.seen, connection.reader, connection.writer, connection.server)

    async def head(self, *_: object) -> None:
        """It was sent."""


async def _follow(run: Run, underway: Underway) -> None:
    async for record in run.events():
        underway.tell(record)


def test_a_zombie_is_told_apart(tmp_path: Path) -> None:
    """A process that lost its lease goes on talking: whoever hears both shows the attempt that counts, and its result ends it."""

    async def main(loop: SimulatedLoop) -> list[tuple[int, str] | None]:
        gate, go_on = asyncio.Event(), asyncio.Event()

        async def work(intent: Try, ctx: HandContext) -> Any:
            ctx.say(f"attempt {ctx.attempt}")
            if ctx.attempt == 1:
                await asyncio.shield(gate.wait())
                ctx.say(", late")
            await asyncio.shield(go_on.wait())
            return Done(word=str(ctx.attempt))

        underway = Underway()
        shown: list[tuple[int, str] | None] = []

        async def hear(listener: Listener, text: str) -> None:
            signal = await anext(listener)
            assert signal.text == text
            doing = underway.hear(signal)
            shown.append(None if doing is None else (doing.attempt, doing.text))

        async with bench(loop, tmp_path / "h.db", hands=[]) as one:
            other = await simulated_bus(loop, tmp_path / "h.db", "other")
            with other.signals.listen() as theirs, one.bus.signals.listen() as ours:
                one.serve(HandRunner(other, [Trial(work)]))
                await one.ask(Asked())
                await hear(theirs, "attempt 1")
                other.store.log.poll = _nothing_new  # type: ignore[method-assign]
                lease = await other.open_lease()
                await one.bus.store.leases.close(lease.lease_id)
                one.serve(HandRunner(one.bus, [Trial(work)]))
                await hear(ours, "attempt 2")
                gate.set()
                await hear(theirs, ", late")
                go_on.set()
                for record in await one.until("try.superseded"):
                    underway.tell(record)
            assert underway.doing == ()
            one.services[-2].cancel()
            await asyncio.wait([one.services[-2]])
            await other.close()
        return shown

    assert run_simulated(1, main) == [(1, "attempt 1"), (2, "attempt 2"), None]


async def _nothing_new() -> None:
    """What a log says that nobody else wrote to."""
