"""Three NATS servers, set up as examples/compose does, and the log mirrored on all of them while their leader dies again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from hive_bus import open_bus
from hive_bus.mirror.comparison import compare
from hive_bus.mirror.connection import ApiRefused, Connection, connected
from hive_errors.mirror import MirrorUnreachable
from tests.conftest import DEFAULT_FAULT_SECONDS, FAULT_SECONDS_VARIABLE
from tests.support.followers import following
from tests.support.mirrors import equal, leader, publish, reached, relaying
from tests.support.nats_cluster import PASSWORD, READERS, NatsCluster
from tests.support.patience import WITHIN
from tests.support.tables import tamper

STREAM = "HIVE_hive_1"
SECONDS = float(os.environ.get(FAULT_SECONDS_VARIABLE, DEFAULT_FAULT_SECONDS))


@pytest.mark.sqlite_only("what a cluster does is the same for either database, and elections take their time")
@pytest.mark.timeout(400 + 3 * SECONDS)
async def test_the_leader_is_killed_during_load(
    hive_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_seconds: float
) -> None:
    """Nothing is lost, doubled or reordered, on the servers or for a subscriber; whoever only reads cannot write; a changed byte is named."""
    monkeypatch.setenv("HIVE_NATS_PASSWORD", PASSWORD)
    loop = asyncio.get_running_loop()
    with NatsCluster(tmp_path / "nats") as cluster:
        settings = cluster.settings(replicas=3, keep_days=14)
        async with (
            open_bus(hive_url, source="a test") as bus,
            relaying(bus, settings) as (relay,),
            following(hive_url, settings) as follower,
        ):
            await reached(settings, bus, await publish(bus, 500))
            until, kills = loop.time() + fault_seconds, 0
            while not kills or loop.time() < until:
                leading = await leader(settings, STREAM)
                await asyncio.gather(publish(bus, 1500), asyncio.to_thread(cluster.kill, leading))
                # The other two choose a leader and go on.
                await reached(settings, bus, await publish(bus, 500))
                await asyncio.to_thread(cluster.start, leading)
                kills += 1
            await leader(settings, STREAM)
            await _only_reads(cluster, monkeypatch)
            await equal(settings, bus, last := await publish(bus, 100))
            await follower.is_the_log(last)
            assert relay.state.lag <= 100
            await asyncio.to_thread(tamper, hive_url, "UPDATE events SET source = 'x' WHERE position = 777")
            async with connected(settings) as connection:
                found = await compare(bus.store.log, connection)
            assert [(one.position, one.kind) for one in found.differences] == [(777, "Hive-Source")]


async def _only_reads(cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other:
        other.setenv("HIVE_NATS_PASSWORD", READERS)
        async with connected(cluster.settings(user="reader")) as connection:
            assert sorted(await connection.messages(STREAM, 1, 10)) == list(range(1, 11))
            await connection.publish("hive.hive.events.mirror_test.noted", b"{}")
            # The server says so in its own time, behind the publication.
            async with asyncio.timeout(WITHIN):
                while "permissions violation" not in str(connection.trouble).lower():
                    await connection.client.flush()
            with pytest.raises(ApiRefused, match="10059"):
                await _asked(connection, "STREAM.INFO.NOBODYS")


async def _asked(connection: Connection, subject: str) -> None:
    """Ask until somebody answers: of a stream that is not there the leader of the whole cluster knows, and that one may just be chosen."""
    while True:
        with contextlib.suppress(MirrorUnreachable):
            await connection.ask(subject)
            return
