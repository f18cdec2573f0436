"""The log's order on PostgreSQL while commits are slow, fail or are cut off, and while others hold old snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from hive_bus.bus import Bus
from hive_bus.opening import open_bus
from hive_core_db.audit import audit
from hive_core_db.engine import open_store
from hive_core_db.records import Appended, AppendRequest, Refused
from hive_core_db.store import Store
from hive_errors import StoreError
from tests.conftest import NewDatabase
from tests.contract.making import appended, event, positions, request, span, verdict
from tests.integration.test_groups_members import Notes, member
from tests.support.handling import running, say, until
from tests.support.patience import WITHIN
from tests.support.sessions import SLOW, gate, session


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """A new database."""
    return new_database()


@pytest.fixture
async def stores(url: str) -> AsyncIterator[list[Store]]:
    """Two processes' stores, as far as the database can tell."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await open_store(url)) for _ in range(2)]
    assert list(map(str, await asyncio.to_thread(lambda: list(audit(url))))) == []


def slow(*more: str) -> AppendRequest:
    """A request that the gate holds, of one event or of several."""
    return request(*(event(topic=topic) for topic in (SLOW, *more)))


@pytest.mark.parametrize("more", [(), ("thing.more",)], ids=["one", "many"])
async def test_nobody_overtakes_a_slow_commit(url: str, stores: list[Store], more: tuple[str, ...]) -> None:
    """The first to take a position commits late: the second waits for it, and a tailing reader sees both in order, none skipped."""
    first, second = stores
    async with gate(url) as held, open_bus(url) as bus, asyncio.TaskGroup() as tasks:
        late = tasks.create_task(verdict(first, slow(*more)))
        await held.reached()
        quick = tasks.create_task(verdict(second, request(*(event(topic="thing.quick") for _ in range(1 + len(more))))))
        await held.queued()
        assert await bus.head() == 0, "nobody sees what may still be rolled back"
        async with bus.subscribe(start=0) as records:
            await held.open()
            seen = [(await anext(records)).position for _ in range(2 + 2 * len(more))]
    assert seen == list(range(1, 3 + 2 * len(more)))
    assert span(late.result()) == (1, 1 + len(more))
    assert span(quick.result()) == (2 + len(more), 2 + 2 * len(more))


async def test_the_head_that_was_read_before_the_lock_is_not_believed(url: str, stores: list[Store]) -> None:
    """An append that began while another was in its commit gets the position behind it, and the next version of a shared stream."""
    first, second = stores
    async with gate(url) as held, asyncio.TaskGroup() as tasks:
        late = tasks.create_task(verdict(first, request(event("shared", topic=SLOW))))
        await held.reached()
        behind = tasks.create_task(verdict(second, request(event("shared"))))
        await held.queued()
        await held.open()
    assert (span(late.result()), span(behind.result())) == ((1, 1), (2, 2))
    assert [row.version for row in await first.log.read_stream("shared")] == [1, 2]


async def test_an_append_that_the_server_refuses_leaves_no_hole(url: str, stores: list[Store]) -> None:
    """A value that cannot be stored rolls its transaction back; its neighbours are appended, and the positions have no gap."""
    store, other = stores
    async with session(url) as admin:
        await admin.execute("ALTER TABLE events ADD CONSTRAINT sober CHECK (topic <> 'thing.odd')")
        await appended(store, event())
        with pytest.raises(StoreError):
            _raised(await verdict(store, request(event(topic="thing.odd"))))
        good, odd, late = await store.log.append(
            [request(event()), request(event(), event(topic="thing.odd")), request(event())]
        )
    assert (span(good), span(late)) == ((2, 2), (3, 3))
    assert isinstance(odd, Refused)
    assert await appended(other, event())
    assert positions(await other.log.read(0, limit=10)) == [1, 2, 3, 4]


def _raised(found: object) -> None:
    if isinstance(found, Refused):
        raise found.error


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_an_append_that_is_cut_off_leaves_no_hole(url: str, stores: list[Store], how: str) -> None:
    """Its statement or its session is ended in mid-commit: it fails with a retryable error, the repetition is appended, without a gap."""
    store, other = stores
    new = slow("thing.more")
    async with gate(url) as held, session(url) as admin, asyncio.TaskGroup() as tasks:
        cut = tasks.create_task(_failed(store, new))
        await admin.execute(f"SELECT {how}({await held.reached()})")
        assert (await cut).retryable
        meanwhile = await appended(other, event())
        await held.open()
    found = await verdict(store, new)
    assert isinstance(found, Appended)
    assert (meanwhile.first, span(found)) == (1, (2, 3))


async def _failed(store: Store, new: AppendRequest) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await verdict(store, new)
    return caught.value


@pytest.mark.parametrize("batch", [1, 20])
async def test_a_cancelled_append_is_whole_or_not_there(url: str, stores: list[Store], batch: int) -> None:
    """Its caller is cancelled while it commits; the log has all of it or nothing, the store goes on, and a repetition settles it."""
    store, _ = stores
    new = request(event(topic=SLOW), *(event() for _ in range(batch - 1)))
    async with gate(url) as held, asyncio.TaskGroup() as tasks:
        doomed = tasks.create_task(verdict(store, new))
        await held.reached()
        doomed.cancel()
        await held.open()
    there = await store.log.read(0, limit=100)
    assert len(there) in {0, batch}
    await appended(store, event())
    assert span(await verdict(store, new))[0] in {1, 2}
    assert positions(await store.log.read(0, limit=100)) == list(range(1, batch + 2))


async def test_others_transactions_hold_no_reader_up(url: str, stores: list[Store]) -> None:
    """Sessions that are idle in a transaction, with a number of their own or with an old snapshot: events are read as if nobody were there."""
    store, other = stores
    await appended(store, event())
    async with session(url) as writing, session(url) as looking:
        await writing.execute("BEGIN")
        await writing.execute("CREATE TEMPORARY TABLE mine (number int)")
        assert await writing.fetchval("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
        await looking.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        assert await looking.fetchval("SELECT count(*) FROM events") == 1
        async with (
            asyncio.timeout(WITHIN),
            open_bus(store=await open_store(url)) as bus,
            bus.subscribe(start=0) as records,
        ):
            for number in range(50):
                await appended(other, event())
                assert (await anext(records)).position == number + 1
        assert await looking.fetchval("SELECT count(*) FROM events") == 1


async def test_a_partition_is_not_freed_before_its_checkpoint_is_stored(url: str, stores: list[Store]) -> None:
    """A commit that takes long holds the checkpoint up, and with it the release: whoever takes over repeats nothing."""
    notes = Notes()
    async with gate(url) as held, open_bus(url) as bus, open_bus(url) as joining, asyncio.TaskGroup() as tasks:
        lease = await joining.open_lease()
        async with running(one := member(bus, notes)):
            notes.gate.clear()
            position = await say(bus, 1, 2, stream="a")
            late = tasks.create_task(verdict(stores[0], slow()))
            await held.reached()
            notes.gate.set()
            await one.caught_up(position, within=WITHIN)
            await held.queued()
            await joining.store.checkpoints.join("g", lease.lease_id)
            await until(lambda: _told(notes, "revoked 1"), bus)
            assert (await bus.store.checkpoints.partitions("g"))[1].position == 0
            await held.open()
            await until(lambda: _free(bus, 1), bus)
            assert (await bus.store.checkpoints.partitions("g"))[1].position == position
    assert span(late.result()) == (3, 3)


async def _told(notes: Notes, word: str) -> bool:
    return word in notes.told


async def _free(bus: Bus, number: int) -> bool:
    return (await bus.store.checkpoints.partitions("g"))[number].lease_id is None
