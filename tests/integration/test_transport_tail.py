"""The live tail from NATS while all is well: the same records as from the database, without a read of its table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from nats.aio.client import Client

from hive_bus import Bus, Draft, Record, open_bus
from hive_bus.groups.handler import Context, HandlerGroup
from hive_bus.mirror.reader import Reader
from hive_bus.mirror.settings import NatsSettings
from hive_core_db.records import StoredEvent
from tests.support.followers import feeding, following, until
from tests.support.handling import Answered, Said, answers, running
from tests.support.mirrors import Noted, publish, relaying
from tests.support.nats_server import NatsServer
from tests.support.patience import WITHIN

ODD = 'grün, 50 %\n\ttab: "quoted" \U0001f41d'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server of this module's tests, one after the other."""
    with NatsServer(tmp_path_factory.mktemp("nats"), max_payload=128 * 1024) as server:
        yield server


@pytest.fixture
async def nats(server: NatsServer) -> AsyncIterator[NatsSettings]:
    """The way to it; the log's stream is gone afterwards."""
    yield server.settings()
    await server.emptied()


@pytest.fixture
async def bus(hive_url: str, nats: NatsSettings) -> AsyncIterator[Bus]:
    """A bus that publishes and relays."""
    async with open_bus(hive_url, source="a test", nats="") as bus, relaying(bus, nats, ack_seconds=2):
        yield bus


def counting(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From where on this bus reads pages of the log, from now on."""
    reads: list[int] = []
    plain = bus.store.log.read

    async def read(after: int, **wishes: int) -> list[StoredEvent]:
        reads.append(after)
        return await plain(after, **wishes)  # type: ignore[arg-type]

    monkeypatch.setattr(bus.store.log, "read", read)
    return reads


async def test_records_are_the_databases_and_its_table_is_not_read(
    hive_url: str, bus: Bus, nats: NatsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every column of every record, odd texts and all; not one page is read while NATS serves."""
    async with following(hive_url, nats, patient=True) as follower:
        await follower.has(await publish(bus, 50))
        await follower.fed_by("nats")
        reads = counting(follower.bus, monkeypatch)
        cause = await bus.publish(Noted(text=ODD), stream=f"s {ODD}", correlation_id=f"c {ODD}", source=ODD)
        (row,) = await bus.store.log.read(cause - 1, limit=1)
        await bus.publish(Noted(text=ODD), caused_by=Record._make(row), metadata={"who": ODD}, occurred_at=17)
        await bus.append("one append", [Draft(event=Noted(number=n), correlation_id=f"run{n}") for n in range(5)])
        await follower.has(head := await publish(bus, 3000))
        assert not reads
        await follower.is_the_log(head)


async def test_a_large_event_comes_from_the_database_in_its_place(
    hive_url: str, bus: Bus, nats: NatsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message holds only a reference: what goes before and after it is not disturbed, and NATS goes on serving."""
    async with following(hive_url, nats, patient=True) as follower:
        await follower.has(await publish(bus, 20))
        await follower.fed_by("nats")
        reads = counting(follower.bus, monkeypatch)
        for number in range(3):
            await publish(bus, 20)
            await bus.publish(Noted(number=number, text="x" * 300_000))
        head = await publish(bus, 20)
        await follower.has(head)
        assert 1 <= len(reads) <= 10
        assert follower.feed.state.source == "nats"
        monkeypatch.undo()
        await follower.is_the_log(head)


async def test_a_process_that_publishes_and_follows_sees_its_own_among_the_others(
    hive_url: str, bus: Bus, nats: NatsSettings
) -> None:
    """Own commits are handed over from memory, those of others come from NATS, in between: one order, the log's."""
    async with following(hive_url, nats, patient=True) as follower:
        await follower.has(await publish(bus, 20))
        await follower.fed_by("nats")
        await asyncio.gather(*(publish(one, 300) for one in (bus, follower.bus, bus, follower.bus)))
        await follower.is_the_log(await publish(follower.bus, 10))
        assert follower.feed.state.source == "nats"


async def test_a_groups_handlers_answer_once_while_the_source_changes(
    hive_url: str, bus: Bus, server: NatsServer, nats: NatsSettings
) -> None:
    """A group on two fed buses, and NATS killed and started under it: each event is answered exactly once."""

    async def answer(record: Record, ctx: Context) -> None:
        await ctx.publish(Answered(number=record.data["number"]))

    async def said(first: int) -> int:
        await asyncio.gather(*(bus.publish(Said(number=n), stream=f"s{n % 20}") for n in range(first, first + 400)))
        return await bus.head()

    async with open_bus(hive_url, nats="") as one, open_bus(hive_url, nats="") as two:
        groups = [HandlerGroup(each, answer, group="answers", patterns=("test.said",)) for each in (one, two)]
        feeds = [feeding(each, nats) for each in (one, two)]
        async with running(*groups):
            for turn in range(3):
                await until(lambda: all(feed.state.source == "nats" for feed in feeds))
                await asyncio.gather(said(400 * turn), asyncio.to_thread(server.kill))
                await server.restarted()
            head = await bus.head()
            for group in groups:
                await group.caught_up(head, within=WITHIN)
    assert sorted(await answers(bus)) == list(range(1200))


async def test_a_process_that_only_publishes_follows_nothing(hive_url: str, bus: Bus, nats: NatsSettings) -> None:
    """No stream is consumed for nobody; who begins to follow later is fed."""
    async with open_bus(hive_url, nats=nats) as other:
        await publish(other, 100)
        assert other.about["tail"]["why"] == "nobody follows the log here yet"
        forget = other.tail.listen(lambda _: None)
        await until(lambda: other.about["tail"]["source"] == "nats")
        forget()


async def test_who_relays_reads_the_log(bus: Bus, hive_url: str, nats: NatsSettings) -> None:
    """A process may do both: while it relays, its own tail is the database's, for all others live off that."""
    async with following(hive_url, nats, patient=True) as standby:
        await standby.fed_by("nats")
        async with relaying(standby.bus, nats, 2, ack_seconds=2):
            await standby.fed_by("database", "relays")
            await standby.has(await publish(bus, 50))
        await standby.fed_by("nats")
        await standby.is_the_log(await publish(bus, 50))


async def test_the_settings_lead_every_process_there(
    hive_url: str, bus: Bus, nats: NatsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``HIVE_NATS`` is enough for any program that opens a bus; an empty address switches it off."""
    monkeypatch.setenv("HIVE_NATS", nats.url)
    async with open_bus(hive_url) as fed, open_bus(hive_url, nats="") as alone:
        assert fed.about["tail"]["source"] == "database"
        assert "tail" not in alone.about
        forget = fed.tail.listen(lambda _: None)
        await until(lambda: fed.about["tail"]["source"] == "nats")
        forget()


@pytest.mark.parametrize("short", [True, False])
async def test_messages_take_the_short_way_or_else_the_usual_one(
    hive_url: str, bus: Bus, nats: NatsSettings, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    """nats-py still calls the method that is overridden; should it call another one day, the same rows come its way."""
    if not short:
        monkeypatch.delattr(Reader, "_process_msg")
    usual: list[bytes] = []
    plain = Client._process_msg

    async def noted(self: Client, sid: int, subject: bytes, *rest: bytes) -> None:
        usual.append(subject)
        await plain(self, sid, subject, *rest)

    monkeypatch.setattr(Client, "_process_msg", noted)
    async with following(hive_url, nats, patient=True) as follower:
        await follower.has(await publish(bus, 20))
        await follower.fed_by("nats")
        await follower.is_the_log(await publish(bus, 200))
        assert follower.feed.state.source == "nats"
    assert (usual.count(b"hive.hive.events.mirror_test.noted") >= 200) is not short
