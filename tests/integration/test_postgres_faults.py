"""Connections that break, clients that stop and servers that die, in the middle of an append: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from hive_bus import Bus, Event, open_bus
from hive_core_db.audit import audit
from hive_core_db.engine import open_store
from hive_core_db.records import AlreadyThere, Appended
from hive_core_db.store import Store
from hive_core_db.url import PostgresUrl, parse
from hive_errors import StoreError, StoreUnreachable
from tests.conftest import NewDatabase
from tests.contract.making import appended, event, positions, request, span, verdict
from tests.support.patience import WITHIN
from tests.support.postgres import OwnServer
from tests.support.unmeasured import unmeasured
from tests.support.wire import Fault, Wire, wire


class Ticked(Event, topic="clock.ticked"):
    caller: int
    number: int


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """A new database."""
    return new_database()


def findings(url: str) -> list[str]:
    """What the auditor says."""
    return list(map(str, audit(url)))


LONG = 4.0
"""Seconds, fewer than after which the server ends a transaction that waits for its client."""


@asynccontextmanager
async def through_wire(url: str, place: Path) -> AsyncIterator[tuple[Wire, Store]]:
    """A store whose every connection goes through a proxy, each of its two appending lanes used once."""
    address = parse(url)
    assert isinstance(address, PostgresUrl)
    assert address.host is not None
    async with wire(Path(address.host), place) as (proxy, where):
        store = await open_store(f"postgresql://{address.user}@/{address.database}?{where}")
        async with store:
            await asyncio.gather(*(appended(store, event()) for _ in range(2)))
            yield proxy, store


async def test_a_session_that_was_told_it_is_over_is_not_used(url: str, tmp_path: Path) -> None:
    """A server's last word comes before it closes: reads, appends and renewals of that moment go over a new connection."""
    async with through_wire(url, tmp_path) as (proxy, store):
        lease = await store.leases.open("me", ttl=60_000_000)
        proxy.last_word()
        # It is read from the socket before the answer of any connection that was opened later.
        await (await open_store(url)).close()
        assert positions(await store.log.read(0, limit=10)) == [1, 2]
        proxy.last_word()
        await (await open_store(url)).close()
        verdicts = await asyncio.gather(*(verdict(store, request(event())) for _ in range(2)))
        assert {tuple(span(each)) for each in verdicts} == {(3, 3), (4, 4)}
        proxy.last_word()
        await (await open_store(url)).close()
        assert await store.leases.renew(lease.lease_id, ttl=60_000_000)


async def test_a_session_that_was_told_it_is_over_costs_several_statements_a_retry(url: str, tmp_path: Path) -> None:
    """Who is within several statements hears of the loss as of any other, and the connection is dropped."""
    async with through_wire(url, tmp_path) as (proxy, store):
        proxy.last_word()
        await (await open_store(url)).close()
        with pytest.raises(StoreUnreachable, match="the session had ended"):
            await store.leases.open("me", ttl=60_000_000)
        assert (await store.leases.open("me", ttl=60_000_000)).owner == "me"


@pytest.mark.parametrize("size", [1, 3])
async def test_a_connection_cut_between_commit_and_reply(url: str, tmp_path: Path, size: int) -> None:
    """Nobody knows whether it was committed: the error is retryable, and the repetition with the same ids finds it there."""
    new = request(*(event() for _ in range(size)))
    async with through_wire(url, tmp_path) as (proxy, store):
        proxy.fail("cut")
        with pytest.raises(StoreUnreachable) as caught:
            await verdict(store, new)
        assert caught.value.retryable
        found = await verdict(store, new)
        assert isinstance(found, AlreadyThere)
        assert span(found) == (3, 2 + size)
        assert positions(await store.log.read(0, limit=10)) == list(range(1, 3 + size))


async def test_a_read_whose_connection_breaks_is_asked_again(url: str, tmp_path: Path) -> None:
    """All connections are lost while nobody uses them: readers notice nothing, and the next append says that it may be repeated."""
    async with through_wire(url, tmp_path) as (proxy, store):
        proxy.cut_all()
        assert positions(await store.log.read(0, limit=10)) == [1, 2]
        new = request(event())
        try:
            found = await verdict(store, new)
        except StoreUnreachable:
            found = await verdict(store, new)
        assert span(found) == (3, 3)


@pytest.mark.parametrize("fault", ["half", "no answer"])
async def test_a_client_that_stops_in_an_append_holds_nobody_up(url: str, tmp_path: Path, fault: Fault) -> None:
    """Its request is half sent, or answered and not read, for as long as you like: others append and read meanwhile, and it goes on later."""
    async with through_wire(url, tmp_path) as (proxy, store), await open_store(url) as other:
        proxy.fail(fault)
        async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
            stopped = tasks.create_task(verdict(store, request(*(event() for _ in range(50)))))
            await proxy.struck.wait()
            meanwhile = [await appended(other, event()) for _ in range(20)]
            assert len(await other.log.read(0, limit=1000)) >= 22
            assert not stopped.done()
            proxy.release()
        first = 23 if fault == "half" else 3
        assert span(stopped.result()) == (first, first + 49)
        assert [found.first for found in meanwhile] == list(range(3, 23) if fault == "half" else range(53, 73))


async def test_processes_that_are_stopped_hold_nobody_up(url: str, fault_seconds: float) -> None:
    """SIGSTOP at random moments of a process that appends without a pause: whenever it strikes, another appends at once.

    It would after five seconds too, had the stopped one begun a transaction, which the server then ends: hardly any may take that long.
    """
    chance, took = random.Random(7), list[float]()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.log_writer", url, "busy"),
        stdout=asyncio.subprocess.PIPE,
        env=unmeasured(),
    )
    assert process.stdout is not None
    try:
        async with await open_store(url) as store:
            for _ in range(round(10 * fault_seconds)):
                for _ in range(chance.randrange(1, 4)):
                    await process.stdout.readline()
                os.kill(process.pid, signal.SIGSTOP)
                begun = time.monotonic()
                async with asyncio.timeout(WITHIN):
                    await appended(store, event())
                took.append(time.monotonic() - begun)
                os.kill(process.pid, signal.SIGCONT)
    finally:
        process.kill()
        await process.wait()
    assert sum(seconds > LONG for seconds in took) <= len(took) // 10, took
    assert await asyncio.to_thread(findings, url) == []


@pytest.fixture(scope="module")
def own_server() -> Iterator[OwnServer]:
    """A server of this file's own, with everything that keeps what was committed."""
    with OwnServer() as server:
        yield server


async def test_a_server_killed_under_load_loses_nothing(own_server: OwnServer, fault_seconds: float) -> None:
    """Kill -9 of all its processes and a new start, again and again: what was acknowledged is there once, callers just wait longer."""
    await asyncio.to_thread(own_server.sql, "CREATE DATABASE load")
    url = own_server.url("load")
    acknowledged: dict[int, list[int]] = {caller: [] for caller in range(8)}
    stopping = asyncio.Event()
    async with open_bus(url, source="load") as bus:
        async with asyncio.TaskGroup() as tasks:
            for caller, numbers in acknowledged.items():
                tasks.create_task(_tick(bus, caller, numbers, stopping))
            for _ in range(max(2, round(fault_seconds))):
                before = sum(map(len, acknowledged.values()))
                while sum(map(len, acknowledged.values())) < before + 200:
                    await bus.tail.wait(bus.tail.head, timeout=0.05)
                await asyncio.to_thread(own_server.restart)
            stopping.set()
        records = [record async for record in bus.read("clock.ticked")]
    assert [record.position for record in records] == list(range(1, len(records) + 1))
    found = {caller: [r.data["number"] for r in records if r.data["caller"] == caller] for caller in acknowledged}
    for caller, numbers in acknowledged.items():
        assert set(numbers) <= set(found[caller])
        assert found[caller] == sorted(set(found[caller])), "twice, or out of order"
    assert await asyncio.to_thread(findings, url) == []


async def _tick(bus: Bus, caller: int, acknowledged: list[int], stopping: asyncio.Event) -> None:
    """Publish one event after the other, each until it is acknowledged, always with the same id."""
    number = 0
    while not stopping.is_set():
        number += 1
        while True:
            try:
                await bus.publish(
                    Ticked(caller=caller, number=number), event_id=f"tick-{caller}-{number}", stream=f"s{caller}"
                )
            except StoreError as problem:
                if not problem.retryable:
                    raise
                await bus.tail.wait(bus.tail.head, timeout=0.02)
                continue
            break
        acknowledged.append(number)


async def test_a_server_that_stops_in_order_is_waited_for(own_server: OwnServer) -> None:
    """`pg_ctl stop` and a new start: sessions are ended with a word, and the store comes back by itself."""
    await asyncio.to_thread(own_server.sql, "CREATE DATABASE calm")
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await open_store(own_server.url("calm")))
        await appended(store, event())
        await asyncio.to_thread(own_server.stop)
        with pytest.raises(StoreUnreachable) as away:
            await store.log.read(0, limit=1)
        with pytest.raises(StoreUnreachable):
            await open_store(own_server.url("calm"))
        assert "server" in away.value.advice
        await asyncio.to_thread(own_server.start)
        found = await verdict(store, request(event()))
        assert isinstance(found, Appended)
        assert positions(await store.log.read(0, limit=10)) == [1, 2]
