"""The live tail from NATS while things go wrong: handlers see the log, each position once and in order, and otherwise only latency."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hive_bus import Record, open_bus
from hive_bus.mirror.connection import connected
from hive_bus.mirror.encoding import EXPECTED_SEQUENCE, encode
from hive_bus.mirror.relay import Relay
from hive_core_db.records import Epoch
from tests.support.followers import following, in_epoch
from tests.support.mirrors import QUICK, TICK, publish, reached, relaying, turn
from tests.support.nats_server import DropsAnswers, NatsServer
from tests.support.patience import WITHIN
from tests.support.unmeasured import unmeasured

# Servers start, die and start again.


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A server of this test's own."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.mark.parametrize("data", ["its own", "older", "none"])
async def test_a_server_that_goes_and_comes_back_costs_latency_only(hive_url: str, nats: NatsServer, data: str) -> None:
    """Killed under load and started with its data, with older data, or with none: the database serves meanwhile, then NATS again."""
    async with (
        open_bus(hive_url, source="a test", nats="") as bus,
        relaying(bus, nats.settings()),
        following(hive_url, nats.settings()) as follower,
    ):
        await follower.has(await publish(bus, 200))
        await follower.fed_by("nats")
        if data == "older":
            await asyncio.to_thread(nats.stop)
            await asyncio.to_thread(nats.save, "older")
            await nats.restarted()
            await follower.has(await publish(bus, 200))
            await follower.fed_by("nats")
        await asyncio.gather(publish(bus, 1000), asyncio.to_thread(nats.kill))
        await follower.fed_by("database")
        await follower.has(await publish(bus, 200))
        if data != "its own":
            await asyncio.to_thread(nats.put_back, None if data == "none" else data)
        await nats.restarted()
        await publish(bus, 200)
        await follower.fed_by("nats")
        await follower.is_the_log(await publish(bus, 200))


async def test_a_server_that_goes_at_once_ends_nothing(hive_url: str, nats: NatsServer) -> None:
    """Gone between the connection and the first question: the bus lives on, and the log is read."""
    async with open_bus(hive_url, source="a test", nats=nats.settings()) as bus:
        real, gone = bus.store.log.epochs, asyncio.Event()

        async def epochs() -> list[Epoch]:
            if not gone.is_set():
                await asyncio.to_thread(nats.kill)
                for _ in range(20):
                    await turn()  # nats-py sees the end of the connection meanwhile
                gone.set()
            return list(await real())

        bus.store.log.epochs = epochs  # type: ignore[method-assign]
        async with bus.subscribe("mirror_test.*") as records, asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
            following_it = tasks.create_task(_next(records))
            await gone.wait()
            head = await publish(bus, 1)
            assert (await following_it).position == head


async def _next(records: AsyncIterator[Record]) -> Record:
    return await anext(records)


async def test_a_relay_that_is_killed_is_no_loss(hive_url: str, nats: NatsServer) -> None:
    """`kill -9` under load: its silence is noticed, the database serves, and the next relay's stream is followed again."""
    async with open_bus(hive_url, source="a test", nats="") as bus, following(hive_url, nats.settings()) as follower:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.mirror_process", hive_url, nats.url, env=unmeasured()
        )
        try:
            await publish(bus, 500)
            await follower.fed_by("nats")
            await publish(bus, 1500)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        await follower.has(await publish(bus, 500))
        await follower.fed_by("database", "no relay has spoken")
        async with relaying(bus, nats.settings(), 2):
            await publish(bus, 500)
            await follower.fed_by("nats")
            await follower.is_the_log(await publish(bus, 500))


async def test_a_mirror_that_is_far_behind_is_not_waited_for(hive_url: str, nats: NatsServer) -> None:
    """The relay pauses while the log grows by thousands: they are read, and NATS is joined where it has caught up."""
    async with open_bus(hive_url, source="a test", nats="") as bus, following(hive_url, nats.settings()) as follower:
        async with relaying(bus, nats.settings()):
            await publish(bus, 100)
            await follower.fed_by("nats")
        await follower.has(await publish(bus, 6000))
        await follower.fed_by("database")
        async with relaying(bus, nats.settings()):
            await publish(bus, 100)
            await follower.fed_by("nats")
            await follower.is_the_log(await publish(bus, 100))


@pytest.mark.parametrize("fault", ["cut", "late"])
async def test_a_partition_is_noticed_and_survived(hive_url: str, nats: NatsServer, fault: str) -> None:
    """Nothing comes from NATS any more, or only what the relay says: what it says is there, and does not come, is read."""
    async with (
        DropsAnswers(nats) as proxy,
        open_bus(hive_url, source="a test", nats="") as bus,
        relaying(bus, nats.settings()),
        following(hive_url, proxy.settings()) as follower,
    ):
        await follower.has(await publish(bus, 300))
        await follower.fed_by("nats")
        setattr(proxy, fault, True)
        await follower.has(await publish(bus, 1000))
        await follower.fed_by("database")
        await follower.has(await publish(bus, 1000))
        setattr(proxy, fault, False)
        await follower.fed_by("nats")
        await follower.is_the_log(await publish(bus, 300))


async def test_a_subscriber_that_was_away_longer_than_the_stream_keeps_reads_the_gap(
    hive_url: str, nats: NatsServer
) -> None:
    """The stream begins above where it wants to go on: the database has what is missing, then NATS has the rest."""
    settings = nats.settings(keep_bytes=200_000)
    async with open_bus(hive_url, source="a test", nats="") as bus, relaying(bus, settings):
        seen = await publish(bus, 50, "x" * 500)
        await reached(settings, bus, head := await publish(bus, 2000, "x" * 500))
        async with connected(settings) as connection:
            assert (await connection.ask("STREAM.INFO.HIVE_hive_1"))["state"]["first_seq"] > seen + 1
        async with following(hive_url, settings, start=seen) as follower:
            await follower.has(head)
            await follower.fed_by("nats")
            await follower.is_the_log(await publish(bus, 300), after=seen)


@pytest.mark.parametrize("forged", [False, True])
async def test_a_foreign_message_is_not_delivered(hive_url: str, nats: NatsServer, forged: bool) -> None:
    """Somebody publishes in the relay's place, even with a relay's headers: it is not taken, and the new epoch is read."""
    async with following(hive_url, nats.settings()) as follower:
        async with open_bus(hive_url, source="a test", nats="") as bus, connected(nats.settings()) as other:
            relay = Relay(bus, nats.settings(), silence=QUICK, tick=TICK)
            _ = bus.spawn(relay.serve(), name="relay")
            await follower.has(last := await publish(bus, 100))
            await follower.fed_by("nats")
            await reached(nats.settings(), bus, last)
            (row,) = await bus.store.log.read(last - 1, limit=1)
            message = encode(row, "hive.hive.events.", max_payload=10_000)
            headers = {**message.headers, EXPECTED_SEQUENCE: str(last)} if forged else None
            body = b'{"number":666,"text":""}' if forged else message.body
            await other.client.publish(message.subject, body, headers=headers)
            await follower.fed_by("database", f"message {last + 1} is not the relay's")
            await in_epoch(bus, 2)
        async with open_bus(hive_url, source="a test", nats="") as bus, relaying(bus, nats.settings()):
            head = await publish(bus, 100)
            await follower.is_the_log(head)
            await follower.fed_by("database", "epoch")
        assert head > last + 101


async def test_a_relay_of_another_epoch_sends_everybody_to_the_database(hive_url: str, nats: NatsServer) -> None:
    """A new epoch began elsewhere: what is appended there is read across the jump, and nothing of it is taken from NATS."""
    async with following(hive_url, nats.settings()) as follower:
        async with open_bus(hive_url, source="a test", nats="") as bus:
            _ = bus.spawn(Relay(bus, nats.settings(), silence=QUICK, tick=TICK).serve(), name="relay")
            await follower.has(await publish(bus, 100))
            await follower.fed_by("nats")
            await bus.store.log.begin_epoch("a test", epoch=1, above=1000)
        async with open_bus(hive_url, source="a test", nats="") as bus, relaying(bus, nats.settings()):
            await follower.is_the_log(await publish(bus, 100))
            await follower.fed_by("database", "epoch")


async def test_another_logs_stream_is_not_followed(hive_url: str, tmp_path: Path, nats: NatsServer) -> None:
    """Two hives of one name on one server: the second one's processes live off their own database, and say why."""
    async with open_bus(hive_url, source="a test", nats="") as bus, relaying(bus, nats.settings()):
        await reached(nats.settings(), bus, await publish(bus, 50))
        other_url = f"sqlite:///{tmp_path}/other.db"
        async with (
            open_bus(other_url, source="another", nats="") as other,
            following(other_url, nats.settings()) as follower,
        ):
            await follower.fed_by("database", "not this log's mirror")
            await follower.is_the_log(await publish(other, 50))
