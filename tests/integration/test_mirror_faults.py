"""What goes wrong around a mirror: servers that die or forget, processes that die, others on the same subjects, a log that was put back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_bus import open_bus
from hive_bus.mirror.comparison import compare
from hive_bus.mirror.connection import connected
from hive_bus.mirror.relay import Relay
from hive_core_db.admin import backup, restore
from hive_core_db.engine import open_store
from hive_errors import EpochOver
from hive_errors.mirror import MirrorDisturbed, MirrorNotOurs
from tests.integration.test_epochs_servers import tool
from tests.support.mirrors import QUICK, equal, publish, reached, relaying, stopped_by
from tests.support.nats_server import NatsServer
from tests.support.postgres import QUICK as QUICKLY
from tests.support.postgres import OwnServer
from tests.support.tables import tamper
from tests.support.unmeasured import unmeasured


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A server of this test's own."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.mark.parametrize("data", ["its own", "older", "none"])
async def test_a_server_that_died_gets_what_it_lost(hive_url: str, nats: NatsServer, data: str) -> None:
    """Killed in the middle of the work and started with its data, with older data, or with none: in the end it has all."""
    async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings()):
        await reached(nats.settings(), bus, await publish(bus, 300))
        if data == "older":
            await asyncio.to_thread(nats.stop)
            await asyncio.to_thread(nats.save, "older")
            await nats.restarted()
            await reached(nats.settings(), bus, await publish(bus, 300))
        await asyncio.gather(publish(bus, 2000), asyncio.to_thread(nats.kill))
        if data != "its own":
            await asyncio.to_thread(nats.put_back, None if data == "none" else data)
        await nats.restarted()
        head = await publish(bus, 100)
        await equal(nats.settings(), bus, head)


async def test_a_relay_that_is_killed_leaves_no_trace(hive_url: str, nats: NatsServer) -> None:
    """`kill -9` while messages are on their way, again and again: the next relay goes on behind what arrived."""
    async with open_bus(hive_url, source="a test") as bus:
        head = await publish(bus, 6000)
        for at in (1, 1500, 3000):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.support.mirror_process", hive_url, nats.url, env=unmeasured()
            )
            try:
                await reached(nats.settings(), bus, at)
            finally:
                os.kill(process.pid, signal.SIGKILL)
                await process.wait()
        async with relaying(bus, nats.settings(), 2):
            await equal(nats.settings(), bus, head)


async def test_a_foreign_message_begins_a_new_epoch_and_a_second_one_stops_the_relay(
    hive_url: str, nats: NatsServer
) -> None:
    """It is named, with the permission that was missing; the second one within the hour needs a person."""
    async with open_bus(hive_url, source="a test") as bus, connected(nats.settings()) as other:
        relay = Relay(bus, nats.settings(), ack_seconds=QUICK, silence=QUICK)
        async with stopped_by(relay, EpochOver):
            last = await publish(bus, 10)
            await equal(nats.settings(), bus, last)
            await other.publish("hive.hive.events.mirror_test.noted", b"{}")
    async with open_bus(hive_url, source="a test") as bus, connected(nats.settings()) as other:
        (*_, epoch) = await bus.store.log.epochs()
        assert epoch.number == 2
        assert epoch.first_position > last + 1
        assert f"position {last + 1}" in epoch.reason
        assert "take that permission" in epoch.reason
        relay = Relay(bus, nats.settings(), ack_seconds=QUICK, silence=QUICK)
        async with stopped_by(relay, MirrorDisturbed, "again"):
            await equal(nats.settings(), bus, await publish(bus, 10))
            await other.publish("hive.hive.events.mirror_test.noted", b"{}")
        assert len(await bus.store.log.epochs()) == 2
        await Relay(bus, nats.settings(), ack_seconds=QUICK, silence=QUICK).serve()
        assert "the relay stopped: stream HIVE_hive_2 differs" in bus.given_up["mirror"]


async def test_two_hives_with_one_name_are_a_configuration_error(
    hive_url: str, tmp_path: Path, nats: NatsServer
) -> None:
    """The second one is told so, and nothing of it is in the first one's stream."""
    async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings()):
        head = await publish(bus, 10)
        await reached(nats.settings(), bus, head)
        async with open_bus(f"sqlite:///{tmp_path}/other.db", source="another") as other:
            await publish(other, 50)
            with pytest.raises(MirrorNotOurs, match="it is of log"):
                await Relay(other, nats.settings()).run()
        await equal(nats.settings(), bus, head)


@pytest.mark.sqlite_only(
    "a copy of a file is made and opened here; how a copy is known is each database's own business"
)
async def test_a_copy_of_a_log_that_is_alive_does_not_take_its_place(
    hive_url: str, tmp_path: Path, nats: NatsServer
) -> None:
    """Staging is a copy of production and begins an epoch of its own: while production relays, staging is refused."""
    async with open_bus(hive_url, source="production") as bus, relaying(bus, nats.settings()):
        head = await publish(bus, 10)
        await reached(nats.settings(), bus, head)
        staging = tmp_path / "staging.db"
        await asyncio.to_thread(backup, hive_url, staging)
        async with open_bus(f"sqlite:///{staging}", source="staging") as other:
            await publish(other, 50)
            with pytest.raises(MirrorNotOurs, match="copy of one that is alive"):
                await Relay(other, nats.settings(), silence=2.5, patience=4).run()
        await equal(nats.settings(), bus, await publish(bus, 10))


@pytest.mark.sqlite_only("the hive itself restores files only; a server's own tools restore the others")
async def test_a_log_that_was_put_back_begins_a_new_stream_beside_the_old_one(
    hive_url: str, tmp_path: Path, nats: NatsServer
) -> None:
    """The old stream keeps what it showed, under other subjects; the new one begins above all of it."""
    async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings()):
        await publish(bus, 50)
        await asyncio.to_thread(backup, hive_url, tmp_path / "monday.db")
        lost = await publish(bus, 50)
        await reached(nats.settings(), bus, lost)
    await asyncio.to_thread(restore, hive_url, tmp_path / "monday.db")
    async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings()):
        await equal(nats.settings(), bus, await publish(bus, 50))
        async with connected(nats.settings()) as connection:
            found = await compare(bus.store.log, connection)
            old = await connection.messages("HIVE_hive_1", 1, lost)
    assert (found.stream, found.first > lost) == ("HIVE_hive_2", True)
    assert len(old) == lost


@pytest.fixture
def postgres() -> Iterator[OwnServer]:
    """A PostgreSQL server of this test's own."""
    with OwnServer(18, settings=QUICKLY) as server:
        server.sql("CREATE DATABASE hive")
        yield server


async def test_a_server_restored_from_an_older_backup_begins_a_new_stream(
    postgres: OwnServer, nats: NatsServer
) -> None:
    """PostgreSQL's own tools put back an older dump: a relay from before stops, loudly; the next one overwrites nothing."""
    url, dump = postgres.url("hive"), postgres.directory / "dump"
    async with open_bus(url, source="from before") as before:
        async with relaying(before, nats.settings()):
            await publish(before, 50)
            await asyncio.to_thread(tool, postgres, "pg_dump", "-Fc", "-f", dump, url)
            lost = await publish(before, 50)
            await equal(nats.settings(), before, lost)
        async with connected(nats.settings()) as connection:
            shown = await connection.messages("HIVE_hive_1", 1, lost)
        await asyncio.to_thread(tool, postgres, "pg_restore", "--clean", "--if-exists", "-d", url, dump)
        # Whoever opens it first begins the epoch; a relay from before finds that its own is over.
        async with open_bus(url, source="another") as another:
            await publish(another, 1)
        with pytest.raises(EpochOver):
            await Relay(before, nats.settings()).run()
    async with open_bus(url, source="a test") as bus, relaying(bus, nats.settings()):
        await equal(nats.settings(), bus, await publish(bus, 50))
        async with connected(nats.settings()) as connection:
            found = await compare(bus.store.log, connection)
            old = await connection.messages("HIVE_hive_1", 1, lost)
    assert (found.stream, found.first > lost) == ("HIVE_hive_2", True)
    assert {at: one.body for at, one in old.items()} == {at: one.body for at, one in shown.items()}
    assert len(old) == lost


async def test_a_mirror_that_is_ahead_of_the_log_begins_a_new_epoch(hive_url: str, nats: NatsServer) -> None:
    """A disk was put back and nobody noticed: no position that the mirror has shown is used again."""
    async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings()):
        last = await publish(bus, 60)
        await reached(nats.settings(), bus, last)
    await asyncio.to_thread(tamper, hive_url, f"DELETE FROM events WHERE position > {last - 20}")
    async with open_bus(hive_url, source="a test") as bus:
        with pytest.raises(EpochOver):
            await Relay(bus, nats.settings(), silence=QUICK).run()
    async with await open_store(hive_url) as store:
        (*_, epoch) = await store.log.epochs()
    assert epoch.first_position > last
    async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings()):
        await equal(nats.settings(), bus, await publish(bus, 10))


async def test_a_changed_byte_is_named(hive_url: str, nats: NatsServer) -> None:
    """One letter of one payload, and another event's source: position and field are named, all else is equal."""
    async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings()):
        head = await publish(bus, 2500, "honey")
        await equal(nats.settings(), bus, head)
        await asyncio.to_thread(
            tamper,
            hive_url,
            "UPDATE events SET payload = replace(payload, 'honey', 'money') WHERE position = 1234",
            "UPDATE events SET source = 'somebody else' WHERE position = 2001",
        )
        async with connected(nats.settings()) as connection:
            found = await compare(bus.store.log, connection)
    assert [(one.position, one.kind) for one in found.differences] == [(1234, "body"), (2001, "Hive-Source")]
    assert found.blocks == 3
