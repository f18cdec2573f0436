"""The bus whose tests pass with and without NATS: what its live tail comes from is a parameter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from hive_bus import Bus, open_bus
from hive_bus.mirror.relay import Relay
from tests.support.followers import PATIENT, feeding, until
from tests.support.mirrors import TICK
from tests.support.nats_server import NatsServer

SOURCES = ("database", "nats")


@pytest.fixture(scope="session")
def shared_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for the tests of a process, one after the other; each leaves it without a stream."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def reading_bus(hive_url: str) -> AsyncIterator[Bus]:
    """An open bus on a new log, living off the database: for tests of how that is asked."""
    async with open_bus(hive_url) as bus:
        yield bus


@pytest.fixture(params=SOURCES)
async def bus(hive_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    """An open bus on a new log, living off the database, or off a stream that another bus relays."""
    if request.param == "database":
        async with open_bus(hive_url) as bus:
            yield bus
        return
    server: NatsServer = request.getfixturevalue("shared_nats")
    async with open_bus(hive_url, source="a relay") as other:
        # Without a lease: the tests count those of the bus.
        _ = other.spawn(Relay(other, server.settings(), alone=False, tick=TICK).serve(), name="relay")
        async with open_bus(hive_url) as bus:
            bus.tail.late_seconds = PATIENT
            feed = feeding(bus, server.settings(), silence=PATIENT)
            forget = bus.tail.listen(lambda _: None)
            await until(lambda: feed.state.source == "nats")
            forget()
            yield bus
    await server.emptied()
