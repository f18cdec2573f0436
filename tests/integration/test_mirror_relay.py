"""The relay against a real NATS server: sequence is position, and every doubt ends in equality."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_bus import open_bus
from hive_bus.mirror import connection, relay
from hive_bus.mirror.connection import Connection, connected
from hive_bus.mirror.encoding import BLOB, EVENT_ID
from hive_bus.mirror.stream import find
from tests.support.mirrors import QUICK, doubted, equal, publish, reached, relaying
from tests.support.nats_server import DropsAnswers, NatsServer


async def find_last(direct: Connection) -> int:
    """Where the stream ends."""
    stream = await find(direct, "HIVE_hive_1")
    assert stream is not None
    return stream.last


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A server of this test's own."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


async def test_a_sequence_is_a_position(hive_url: str, nats: NatsServer) -> None:
    """What was there before, and what comes while the relay works, has the number of its position; headers and body are the row's."""
    async with open_bus(hive_url, source="a test") as bus:
        await publish(bus, 1500)
        async with relaying(bus, nats.settings()):
            head = await publish(bus, 700, "grün, 50 %\n")
            await equal(nats.settings(), bus, head)
        (row,) = await bus.store.log.read(head - 1, limit=1)
        async with connected(nats.settings()) as connection:
            message = (await connection.messages("HIVE_hive_1", head, head))[head]
    assert message.subject == "hive.hive.events.mirror_test.noted"
    assert message.body == row.payload.encode()
    assert message.headers[EVENT_ID] == row.event_id
    assert message.headers["Hive-Stream"] == row.stream


async def test_a_message_beyond_the_limit_goes_by_reference(hive_url: str, tmp_path: Path) -> None:
    """The body stays in the database, the message names its digest."""
    with NatsServer(tmp_path / "small", max_payload=128 * 1024) as small:
        async with open_bus(hive_url, source="a test") as bus, relaying(bus, small.settings()):
            head = await publish(bus, 1, "x" * 300_000)
            await equal(small.settings(), bus, head)
            (row,) = await bus.store.log.read(head - 1, limit=1)
            async with connected(small.settings()) as connection:
                message = (await connection.messages("HIVE_hive_1", head, head))[head]
    assert (message.headers[BLOB], message.body) == (f"sha256:{row.digest}", b"")


@pytest.mark.parametrize("number", [2, 5])
async def test_several_relays_at_once_are_as_safe_as_one(hive_url: str, nats: NatsServer, number: int) -> None:
    """Without any lease between them they refuse each other, and nothing is doubled, reordered or lost."""
    async with open_bus(hive_url, source="a test") as bus, relaying(bus, nats.settings(), number):
        await publish(bus, 2000)
        head = await publish(bus, 2000)
        await equal(nats.settings(), bus, head)


async def test_lost_answers_are_a_doubt_and_no_more(hive_url: str, nats: NatsServer) -> None:
    """What was stored without an answer is found again, and nothing is published twice."""
    async with (
        open_bus(hive_url, source="a test") as bus,
        DropsAnswers(nats) as proxy,
        relaying(bus, proxy.settings()) as (working,),
    ):
        await reached(nats.settings(), bus, await publish(bus, 10))
        proxy.dropping = True
        head = await publish(bus, 500)
        await reached(nats.settings(), bus, head)
        await doubted(working)
        proxy.dropping = False
        head = await publish(bus, 500)
        await equal(nats.settings(), bus, head)
    assert proxy.dropped


async def test_a_network_that_holds_back_is_waited_for(
    hive_url: str, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes, in shortened time: nothing passes and nobody is told. What was on its way arrives late, and is refused."""
    async with (
        open_bus(hive_url, source="a test") as bus,
        DropsAnswers(nats) as network,
        relaying(bus, network.settings()),
    ):
        await reached(nats.settings(), bus, await publish(bus, 500))
        for module, name in (
            (connection, "REQUEST_SECONDS"),
            (connection, "CONNECT_SECONDS"),
            (relay, "LONGEST_PAUSE"),
        ):
            monkeypatch.setattr(module, name, QUICK)
        network.hold()
        await publish(bus, 2000)
        # Again and again it connects, and hears nothing.
        await network.meets(network.met + 10)
        monkeypatch.undo()
        async with connected(nats.settings()) as direct:
            assert (await find_last(direct)) < await bus.head()
        network.mend()
        await equal(nats.settings(), bus, await publish(bus, 500))


async def test_a_second_relay_stands_by_until_the_first_is_gone(hive_url: str, nats: NatsServer) -> None:
    """One works by its lease; when it ends, the other goes on."""
    async with open_bus(hive_url, source="first") as first, open_bus(hive_url, source="second") as second:
        async with relaying(second, nats.settings()) as (standby,):
            await reached(nats.settings(), first, await publish(first, 10))
            async with relaying(first, nats.settings()) as (other,):
                await equal(nats.settings(), first, await publish(first, 10))
                assert (standby.state.working, other.state.working) == (True, False)
        assert not standby.state.working
        async with relaying(first, nats.settings()):
            await equal(nats.settings(), first, await publish(first, 10))
