"""Dumps, failovers and rewinds of real PostgreSQL servers: whatever was lost, no number ever means two events."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_bus import Bus, Event, open_bus
from hive_core_db import epochs
from hive_core_db.engine import open_store
from hive_errors import EpochOver, StoreUnreachable
from tests.support.console import Console
from tests.support.lived import audited
from tests.support.patience import WITHIN
from tests.support.postgres import QUICK, USER, OwnServer, account, binaries, psql


class Noted(Event, topic="epochs_test.noted_there"):
    """Something that was stored on some server."""

    number: int = 0


@pytest.fixture(params=[18, 16])
def server(request: pytest.FixtureRequest) -> Iterator[OwnServer]:
    """A server of the test's own, with a database `hive`."""
    with OwnServer(request.param, settings=QUICK) as own:
        own.sql("CREATE DATABASE hive")
        yield own


class Shown:
    """Every position that any reader was shown, with the event that it meant."""

    def __init__(self) -> None:
        self.events: dict[int, str] = {}

    async def look(self, bus: Bus) -> None:
        """Read the whole log; a position that was shown as another event is the one thing that must never be."""
        async for record in bus.read():
            assert self.events.setdefault(record.position, record.event_id) == record.event_id

    @property
    def last(self) -> int:
        """The greatest of them."""
        return max(self.events)


def tool(server: OwnServer, name: str, *words: str | Path) -> None:
    """Run one of PostgreSQL's programs as the server's user."""
    command = [binaries(server.version) / name, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=WITHIN, check=False, **account())
    assert done.returncode == 0, done.stderr


async def published(bus: Bus, *numbers: int) -> None:
    """Publish so many events."""
    for number in numbers:
        await bus.publish(Noted(number=number))


async def refused(bus: Bus) -> EpochOver:
    """Publish until the server answers again, and return with what it refuses the process from before."""
    while True:
        try:
            await bus.publish(Noted(number=-1))
        except EpochOver as problem:
            return problem
        except StoreUnreachable:
            continue  # it has not heard of the end of its connection, or the server is not back
        else:
            pytest.fail("a process of the epoch before could append")


async def went_on(url: str, shown: Shown, old: Bus) -> None:
    """The log goes on in epoch 2, above every position that was shown; whoever was there before is fenced."""
    before = shown.last
    async with open_bus(url) as new:
        await published(new, 100, 101)
        problem = await refused(old)
        assert (problem.held, problem.actual) == (1, 2)
        await shown.look(new)
        meta, lives = await new.store.log.meta(), await new.store.log.epochs()
        assert (meta.epoch, len(lives)) == (2, 2)
        assert lives[1].first_position > before
        assert lives[1].first_position % epochs.ROUND == 0
        assert shown.last == lives[1].first_position + 2
    async with open_bus(url) as again:
        assert (await again.store.log.meta()).epoch == 2
    assert await audited(url) == []


def dump_into_a_new_cluster(server: OwnServer, dump: Path) -> None:
    """Put a dump into a cluster that was made anew, at the address of the old one."""
    server.stop()
    shutil.rmtree(server.data)
    tool(server, "initdb", "-D", server.data, "-U", USER, "--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust")
    server.start()
    tool(server, "pg_restore", "--create", "-d", server.url(), dump)


async def test_a_dump_restored_into_a_new_cluster(server: OwnServer) -> None:
    """What came after the dump is lost; the new cluster begins an epoch above it."""
    url, shown, dump = server.url("hive"), Shown(), server.directory / "dump"
    async with open_bus(url) as old:
        await published(old, *range(10))
        await asyncio.to_thread(tool, server, "pg_dump", "-Fc", "-f", dump, url)
        await published(old, *range(10, 20))
        await shown.look(old)
        await asyncio.to_thread(dump_into_a_new_cluster, server, dump)
        await went_on(url, shown, old)
    assert len(shown.events) == 20 + 3


async def test_a_dump_restored_over_the_database_that_it_came_from(server: OwnServer) -> None:
    """The server is the same one, the tables are not: their identifiers say so."""
    url, shown, dump = server.url("hive"), Shown(), server.directory / "dump"
    async with open_bus(url) as old:
        await published(old, *range(10))
        await asyncio.to_thread(tool, server, "pg_dump", "-Fc", "-f", dump, url)
        await published(old, *range(10, 15))
        await shown.look(old)
        await asyncio.to_thread(tool, server, "pg_restore", "--clean", "--if-exists", "-d", url, dump)
        await went_on(url, shown, old)


def fail_over(server: OwnServer, replica: Path) -> None:
    """Lose the server; what was copied earlier is promoted in its place, on a new timeline."""
    server.kill()
    shutil.rmtree(server.data)
    replica.rename(server.data)
    server.start()
    tool(server, "pg_ctl", "-D", server.data, "-w", "promote")


def copy_as_replica(server: OwnServer) -> Path:
    """Copy the running server, as a standby that has nobody to follow: it knows what it knows now."""
    replica = server.directory / "replica"
    words = ("-D", replica, "-X", "fetch", "-c", "fast", "--no-sync", "--write-recovery-conf")
    tool(server, "pg_basebackup", "-d", server.url(), *words)
    return replica


async def test_a_failover_that_lost_a_tail(server: OwnServer) -> None:
    """The replica had not got the last events: its timeline says that something may be missing."""
    url, shown = server.url("hive"), Shown()
    async with open_bus(url) as old:
        await published(old, *range(10))
        replica = await asyncio.to_thread(copy_as_replica, server)
        await published(old, *range(10, 20))
        await shown.look(old)
        await asyncio.to_thread(fail_over, server, replica)
        await went_on(url, shown, old)


async def test_two_restores_of_one_dump_are_two_epochs(server: OwnServer) -> None:
    """Both are epoch 2 by number; a process of the first is fenced in the second all the same."""
    url, dump = server.url("hive"), server.directory / "dump"

    async def put_back() -> None:
        await asyncio.to_thread(tool, server, "pg_restore", "--clean", "--if-exists", "-d", url, dump)

    async with open_bus(url) as bus:
        await published(bus, 1)
    await asyncio.to_thread(tool, server, "pg_dump", "-Fc", "-f", dump, url)
    await put_back()
    async with open_bus(url) as first:
        await published(first, 2)
        await put_back()
        await asyncio.to_thread(
            server.sql, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'hive'"
        )
        async with open_bus(url) as second:
            await published(second, 3)
            problem = await refused(first)
            assert (problem.held, problem.actual) == (2, 2)


async def test_one_epoch_however_many_start(server: OwnServer) -> None:
    """Ten processes that find the restored database at once agree on one."""
    url, dump = server.url("hive"), server.directory / "dump"
    async with open_bus(url) as bus:
        await published(bus, 1)
    await asyncio.to_thread(tool, server, "pg_dump", "-Fc", "-f", dump, url)
    await asyncio.to_thread(tool, server, "pg_restore", "--clean", "--if-exists", "-d", url, dump)
    stores = await asyncio.gather(*(open_store(url) for _ in range(10)))
    try:
        assert {(await store.log.meta()).epoch for store in stores} == {2}
        assert [epoch.number for epoch in await stores[0].log.epochs()] == [1, 2]
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def test_a_restart_begins_nothing(server: OwnServer) -> None:
    """A server that crashed and recovered lost nothing that was reported as stored: the epoch goes on."""
    url = server.url("hive")
    async with open_bus(url) as bus:
        await published(bus, *range(5))
        await asyncio.to_thread(server.restart)
        async with open_bus(url) as again:
            await published(again, 5)
            assert (await again.store.log.meta()).epoch == 1
            assert await again.head() == 6


async def test_an_ordinary_role_is_enough(server: OwnServer) -> None:
    """Who owns nothing but the hive's database can tell which one it is."""
    await asyncio.to_thread(server.sql, "CREATE ROLE plain LOGIN; CREATE DATABASE plain OWNER plain")
    url = server.url("plain").replace(f"{USER}@", "plain@")
    async with open_bus(url) as bus:
        await published(bus, 1)
        system, timeline, *rest = (await bus.store.log.meta()).database_id.split("/")
    assert system == (await asyncio.to_thread(psql, url, "SELECT system_identifier FROM pg_control_system()"))
    assert (timeline, len(rest)) == ("1", 2)


async def test_hive_up_ends_after_a_failover(server: OwnServer, tmp_path: Path) -> None:
    """It waits while the server is away; then it is of an epoch that is over, says so and ends, to be started again."""
    url = server.url("hive")
    console = Console(tmp_path, url)
    up = await asyncio.to_thread(console.start, "up")
    try:
        assert up.stderr is not None
        assert "serving" in await asyncio.to_thread(up.stderr.readline)
        replica = await asyncio.to_thread(copy_as_replica, server)
        await asyncio.to_thread(fail_over, server, replica)
        assert await asyncio.to_thread(up.wait, WITHIN) == 1
        said = await asyncio.to_thread(up.stderr.read)
        assert "began a new epoch: this process is of epoch 1, the log is at epoch 2" in said
        assert "Traceback" not in said
    finally:
        up.kill()
        await asyncio.to_thread(up.communicate)
