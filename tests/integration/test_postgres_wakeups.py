"""Wake-ups between processes on PostgreSQL: lost ones, dead listeners and foreign words cost time, never an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hive_bus import Bus, Event, Record, open_bus
from tests.conftest import NewDatabase
from tests.support.postgres import with_options
from tests.support.sessions import session, true
from tests.support.tables import change

BOUND = 30.0
"""Seconds within which an event is seen that no wake-up announced: a poll looks once a second, machines are busy."""
QUICK = 120
"""So many events, one after the other, take more than the bound if each of them waits for a poll."""
LISTENERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
CUT = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE "
)


class Rung(Event, topic="bell.rung"):
    number: int


@pytest.fixture
def url(new_log: NewDatabase) -> str:
    """A new log."""
    return new_log()


@pytest.fixture
async def buses(url: str) -> AsyncIterator[tuple[Bus, Bus]]:
    """One that publishes and one that listens, as two processes would."""
    async with open_bus(url, source="speaker") as speaker, open_bus(url, source="listener") as listener:
        yield speaker, listener


async def heard(records: AsyncIterator[Record], count: int, *, within: float = BOUND) -> list[int]:
    """The numbers of so many events."""
    async with asyncio.timeout(within):
        return [(await anext(records)).data["number"] for _ in range(count)]


async def test_a_dead_listener_costs_time_and_comes_back(url: str, buses: tuple[Bus, Bus]) -> None:
    """Its session is ended by an administrator: what is published meanwhile is seen by polling, and then it listens again."""
    speaker, listener = buses
    async with session(url) as admin, listener.subscribe("bell.*", start=0) as records:
        await true(admin, f"SELECT ({LISTENERS}) = 2")
        assert await admin.fetchval(f"{CUT} 'LISTEN%'") == 2
        for number in range(20):
            await speaker.publish(Rung(number=number))
        assert await heard(records, 20) == list(range(20))
        await true(admin, f"SELECT ({LISTENERS}) = 2")
        await speaker.publish(Rung(number=20))
        assert await heard(records, 1) == [20]


async def test_a_wake_up_that_is_lost_costs_a_poll(url: str, buses: tuple[Bus, Bus]) -> None:
    """An event that nobody announces, and a notifier whose session is gone: both are seen within the polling bound."""
    speaker, listener = buses
    async with session(url) as admin, listener.subscribe("bell.*", start=0) as records:
        await speaker.publish(Rung(number=1))
        assert await heard(records, 1) == [1]
        copied = "event_id || '-2', stream || '-2', version, topic, correlation_id, source, schema_version, "
        await asyncio.to_thread(
            change,
            url,
            "INSERT INTO events (position, event_id, stream, version, topic, correlation_id, source, schema_version, payload, "
            f"digest, append_first, occurred_at, recorded_at) SELECT position + 1, {copied} payload, digest, "
            "append_first + 1, occurred_at, recorded_at FROM events WHERE position = 1",
        )
        assert await heard(records, 1) == [1]
        await admin.fetchval(f"{CUT} '%NOTIFY%'")
        await speaker.publish(Rung(number=3))
        assert await heard(records, 1) == [3]


async def test_words_of_others_on_the_channel_are_passed_over(url: str, buses: tuple[Bus, Bus]) -> None:
    """Anybody may notify: what is no number says nothing, and a number beyond the head shows nothing that is not there."""
    speaker, listener = buses
    async with session(url) as admin, listener.subscribe("bell.*", start=0) as records:
        await true(admin, f"SELECT ({LISTENERS}) = 2")
        for word in ("", "soon", "-4", "9" * 40, "1e3", "99"):
            await admin.execute(f"SELECT pg_notify('hive_public', '{word}')")
        await speaker.publish(Rung(number=1))
        assert await heard(records, 1) == [1]
        await speaker.publish(Rung(number=2))
        assert await heard(records, 1) == [2]
        assert await listener.head() == 2


async def test_without_listening_polls_find_everything(url: str) -> None:
    """`listen=off` on both sides: no session listens, and a stream of events still arrives in order."""
    quiet = with_options(url, listen="off")
    async with (
        session(url) as admin,
        open_bus(quiet, source="speaker") as speaker,
        open_bus(quiet, source="listener") as listener,
        listener.subscribe("bell.*", start=0) as records,
    ):
        for number in range(50):
            await speaker.publish(Rung(number=number))
        assert await heard(records, 50) == list(range(50))
        assert await admin.fetchval(LISTENERS) == 0


async def test_wake_ups_are_quicker_than_polls(buses: tuple[Bus, Bus]) -> None:
    """One event after the other, each published when the last was heard: polls alone would take a second for each."""
    speaker, listener = buses
    async with asyncio.timeout(BOUND), listener.subscribe("bell.*", start=0) as records:
        for number in range(QUICK):
            await speaker.publish(Rung(number=number))
            assert await heard(records, 1) == [number]
