"""Signals between processes, on a real NATS server: heard there and back, bounded, and never in anybody's way."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import orjson
import pytest

from agents.hive import Hive
from hive_bus import Bus, open_bus
from hive_bus.mirror.connection import connected
from hive_bus.mirror.encoding import names_of
from hive_bus.mirror.settings import NatsSettings
from hive_bus.mirror.signals import WAITING, NatsSignals, encode, token
from hive_bus.mirror.stream import mirrored
from hive_bus.signals import Listener, Signal
from hive_core_db.records import Epoch, LogMeta
from tests.support.console import Console
from tests.support.mirrors import Noted, turn
from tests.support.nats_server import NatsServer
from tests.support.patience import WITHIN

pytestmark = pytest.mark.sqlite_only("what is said is in no database")

STEP = """\
name: slow
steps:
  - {id: wait, run: 'echo first; while ! test -e go; do sleep 0.05; done; echo last'}
"""


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server for tests that leave it alone."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


def said(ordinal: int, run: str = "run-1", text: str = "") -> Signal:
    """Something said in a run."""
    return Signal(
        run=run, stream=run, intent_id="i", topic="tool.requested", attempt=1, kind="text", ordinal=ordinal, text=text
    )


@asynccontextmanager
async def carrying(url: str, settings: NatsSettings) -> AsyncIterator[tuple[Bus, NatsSignals]]:
    """A process of its own, as far as signals go: a bus, and what carries for it."""
    async with open_bus(url, source="a test") as bus:
        carrier = NatsSignals(bus, settings)
        serving = bus.spawn(carrier.serve(), name="signals")
        yield bus, carrier
        serving.cancel()
        await asyncio.wait([serving])


async def until_listening(carrier: NatsSignals, *runs: str) -> None:
    """Return once the server was asked for these runs."""
    async with asyncio.timeout(WITHIN):
        while carrier.listening_to != frozenset(runs):
            await turn()


async def until_heard(say: Callable[[], Awaitable[None]], listener: Listener) -> Signal:
    """Say something again and again, until the server lets it through; what was heard."""
    while True:
        await say()
        try:
            async with asyncio.timeout(0.05):
                return await anext(listener)
        except TimeoutError:
            continue


def saying(bus: Bus, signal: Signal) -> Callable[[], Awaitable[None]]:
    """What says a signal from a bus."""

    async def say() -> None:
        bus.signals.send(signal)

    return say


async def drain(bus: Bus, *listeners: Listener, run: str = "run-1") -> None:
    """Forget what the bus said of a run and what is still on its way, by something said behind it."""
    mark = said(10**9, run)
    bus.signals.send(mark)
    for listener in listeners:
        while await anext(listener) != mark:
            pass


async def test_there_and_back(tmp_path: Path, nats: NatsServer) -> None:
    """Two processes of a hive hear each other, each signal once and whole; a run's listener hears its run, whatever it is called."""
    url, odd = f"sqlite:///{tmp_path}/h.db", "order 7.*>/ä%"
    async with carrying(url, nats.settings()) as (one, _), carrying(url, nats.settings()) as (two, there):
        with two.signals.listen(odd) as listener, one.signals.listen() as own:
            await until_listening(there, odd)
            wanted = said(1, odd, "größer\0\x1b[31m")
            assert await until_heard(saying(one, wanted), listener) == wanted
            await drain(one, listener, own, run=odd)
            for number in range(5):
                one.signals.send(said(number, "another"))
                one.signals.send(said(number, odd))
            assert [(await anext(listener)).ordinal for _ in range(5)] == list(range(5))
            assert [(await anext(own)).ordinal for _ in range(10)] == [number // 2 for number in range(10)], "no echo"
            with two.signals.listen() as everything:
                await until_listening(there, "*")
                assert (await until_heard(saying(one, said(9, "another")), everything)).run == "another"
        await until_listening(there)
    assert token(odd) == "order%207%2E%2A%3E%2F%C3%A4%25"


async def test_what_others_publish_there_is_no_harm(tmp_path: Path, nats: NatsServer) -> None:
    """A hive of the same name on another database, a copy of this one, and anybody's rubbish are not heard."""
    url = f"sqlite:///{tmp_path}/h.db"
    async with carrying(url, nats.settings()) as (bus, carrier), connected(nats.settings()) as stranger:
        known = mirrored(await bus.store.log.meta(), await bus.store.log.epochs())
        with bus.signals.listen("run-1") as listener:
            await until_listening(carrier, "run-1")
            subject = f"{names_of('hive', 1).signals}run-1.text"
            good = orjson.loads(encode(said(1), known))
            for wrong in (
                {**good, "log_id": "another"},
                {**good, "epoch_id": "a copy's"},
                {**good, "text": "x" * 100_000},
                {**good, "attempt": "first"},
                {"text": "nothing else"},
                [1, 2],
            ):
                await stranger.publish(subject, orjson.dumps(wrong))
            await stranger.publish(subject, b"\xff\x00 rubbish")
            await stranger.publish(subject, orjson.dumps({**good, "ordinal": 77, "new": "field"}))
            heard = await until_heard(
                partial(stranger.publish, subject, orjson.dumps({**good, "ordinal": 77})), listener
            )
            assert heard.ordinal == 77


async def test_a_server_that_goes_and_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While it is away nothing is kept for it and nobody waits; when it is back signals go on."""
    url = f"sqlite:///{tmp_path}/h.db"
    with NatsServer(tmp_path / "nats") as server:
        async with carrying(url, server.settings()) as (one, _), carrying(url, server.settings()) as (two, there):
            with two.signals.listen("run-1") as listener, caplog.at_level(logging.WARNING, "hive_bus"):
                await until_listening(there, "run-1")
                await until_heard(saying(one, said(1)), listener)
                await asyncio.to_thread(server.kill)
                await until_listening(there)
                for number in range(10 * WAITING):
                    one.signals.send(said(number))
                await server.restarted()
                await until_listening(there, "run-1")
                await until_heard(saying(one, said(10**6)), listener)
                await drain(one, listener)
                assert (await until_heard(saying(one, said(5, text="again")), listener)).text == "again"
    assert "signals.again" in caplog.text


async def test_a_flood_is_bounded_and_counted(tmp_path: Path, nats: NatsServer) -> None:
    """More than the way holds is dropped, the oldest first; sending it takes no time, and the last one comes through."""
    url = f"sqlite:///{tmp_path}/h.db"
    async with carrying(url, nats.settings()) as (one, _), carrying(url, nats.settings()) as (two, there):
        with two.signals.listen("run-1") as listener:
            await until_listening(there, "run-1")
            await until_heard(saying(one, said(0)), listener)
            await drain(one, listener)
            for number in range(10 * WAITING):
                one.signals.send(said(number, text="x" * 4096))
            heard = [await anext(listener)]
            while heard[-1].ordinal != 10 * WAITING - 1:
                heard.append(await anext(listener))
    assert [one.ordinal for one in heard] == list(range(9 * WAITING, 10 * WAITING))
    assert one.signals.dropped == 9 * WAITING


async def test_a_user_who_may_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server refuses the subjects, it is said once with what to allow, and the work goes on as without NATS."""
    more = (
        'authorization { users: [ { user: w, password: p, permissions: { publish: "other", subscribe: "other" } } ] }'
    )
    (tmp_path / "password").write_text("p")
    with NatsServer(tmp_path / "nats", more=more) as server:
        settings = server.settings(user="w", password_file=tmp_path / "password")
        async with open_bus(f"sqlite:///{tmp_path}/h.db") as bus:
            with bus.signals.listen() as listener, caplog.at_level(logging.ERROR, "hive_bus"):
                serving = bus.spawn(NatsSignals(bus, settings).serve(), name="signals")
                while not serving.done():
                    bus.signals.send(said(1))
                    await asyncio.wait([serving], timeout=0.05)
                assert (await anext(listener)).ordinal == 1
    assert "signals.stopped" in caplog.text
    assert "hive.hive.signals.>" in caplog.text


async def test_a_run_is_watched_from_another_process(tmp_path: Path, nats: NatsServer) -> None:
    """`hive watch` hears over NATS what a command says in `hive up`: as lines, as JSON, and ends with the run's result."""
    (tmp_path / "hive.yaml").write_text(f"nats: {nats.url}\n")
    (tmp_path / "slow.yaml").write_text(STEP.replace("echo first;", "").replace("sleep 0.05", "echo tick; sleep 0.05"))
    hive = Console(tmp_path)
    started = [up := await asyncio.to_thread(hive.start, "up")]
    try:
        name = (await asyncio.to_thread(hive, "run", "slow.yaml", "--detach")).out.strip()
        started += [lines := await asyncio.to_thread(hive.start, "watch", name)]
        started += [objects := await asyncio.to_thread(hive.start, "watch", name, "--json")]
        assert lines.stderr is not None
        assert objects.stdout is not None
        told = [await asyncio.to_thread(lines.stderr.readline)]
        while "┆ tick" not in told[-1]:
            told.append(await asyncio.to_thread(lines.stderr.readline))
        known = [json.loads(await asyncio.to_thread(objects.stdout.readline))]
        while "signal" not in known[-1]:
            known.append(json.loads(await asyncio.to_thread(objects.stdout.readline)))
        (tmp_path / "go").touch()
        result, rest = await asyncio.to_thread(lines.communicate, timeout=WITHIN)
        more, _ = await asyncio.to_thread(objects.communicate, timeout=WITHIN)
        up.send_signal(signal.SIGTERM)
        await asyncio.to_thread(up.communicate, timeout=WITHIN)
    finally:
        for one in started:
            one.kill()
    assert (lines.returncode, objects.returncode) == (0, 0)
    assert "completed" in result
    assert "✓ completed: tick" in rest
    assert known[0]["event"]["topic"] == "workflow.requested"
    assert known[-1]["signal"]["task"] == "wait"
    assert json.loads(more.splitlines()[-1])["event"]["topic"] == "workflow.completed"


async def test_without_a_server_watching_says_so(tmp_path: Path) -> None:
    """Events are shown all the same, with a line to try; what is no run is not watched."""
    (tmp_path / "slow.yaml").write_text(STEP)
    (tmp_path / "go").touch()
    hive = Console(tmp_path)
    async with Hive(hive.url, workspace=tmp_path) as colony:
        await (await colony.start(tmp_path / "slow.yaml")).result(within=WITHIN)
        await colony.bus.publish(Noted(), correlation_id="noted-1")
    watched = await asyncio.to_thread(hive, "watch", "@")
    assert watched.code == 0
    assert "stays in the process that runs them" in watched.err
    assert "HIVE_NATS=" in watched.err
    assert "✓ completed: first" in watched.err
    refused = await asyncio.to_thread(hive, "watch", "noted-1")
    assert (refused.code, "no run" in refused.err) == (4, True)


def test_whose_it_is_stands_in_the_message() -> None:
    """The body is the signal's fields, the log's id and its epoch's: what docs/nats.md promises to other languages."""
    meta = LogMeta(log_id="l", name="hive", epoch=1, database_id="d", first_position=1)
    known = mirrored(meta, [Epoch(number=1, epoch_id="e", first_position=1, began_at=0, reason="new")])
    assert orjson.loads(encode(said(3, text="a"), known)) == {
        "log_id": "l",
        "epoch_id": "e",
        "run": "run-1",
        "stream": "run-1",
        "intent_id": "i",
        "topic": "tool.requested",
        "task": "",
        "attempt": 1,
        "kind": "text",
        "ordinal": 3,
        "left_out": 0,
        "text": "a",
        "fraction": None,
    }
