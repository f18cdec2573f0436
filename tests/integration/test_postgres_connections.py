"""Connections to a real server: what a loss costs, what a cancelled call leaves, and who may use them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest

from hive_core_db.engine import open_store
from hive_core_db.postgres import database
from hive_core_db.postgres.database import Database
from hive_core_db.postgres.store import PostgresStore
from hive_core_db.store import Store
from hive_core_db.url import PostgresUrl, parse
from hive_errors.store import (
    DriverMissing,
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreForked,
    StoreUnavailable,
    StoreUnreachable,
)
from tests.conftest import NewDatabase
from tests.contract.making import appended, event, fill, positions, request, span, verdict
from tests.support.patience import WITHIN
from tests.support.postgres import OwnServer, with_database

CUT = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

REST = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1::integer[])"

SLEEPERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """An empty database."""
    return new_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    """A store on it."""
    async with await open_store(url) as opened:
        assert isinstance(opened, PostgresStore)
        yield opened


@pytest.fixture
async def pool(url: str) -> AsyncIterator[Database]:
    """Bare connections to it, two beside the lanes."""
    opened = await Database.open(address_of(with_database(url, address_of(url).database or "", pool_size="2")))
    yield opened
    await opened.close()


@pytest.fixture
def server() -> Iterator[OwnServer]:
    """A server that the test may kill."""
    with OwnServer(tcp=True) as own:
        yield own


def address_of(url: str) -> PostgresUrl:
    """The parsed address."""
    address = parse(url)
    assert isinstance(address, PostgresUrl)
    return address


async def news(store: Store, above: int) -> int:
    """Poll until the head is above a position."""
    async with asyncio.timeout(WITHIN):
        while (head := await store.log.poll()) is None or head <= above:
            await asyncio.sleep(0)
    return head


async def cut(store: PostgresStore) -> None:
    """End every session of the store's database, as an administrator can, and wait until they have heard of it."""
    own = await Database.open(store._database.url)
    cut = await own.fetch(CUT)
    async with asyncio.timeout(WITHIN):
        while await own.fetchval(REST, [pid for pid, _ in cut]):
            await asyncio.sleep(0)
    await own.close()


async def test_cut_connections_are_replaced(store: PostgresStore) -> None:
    """Reads, appends and renewals go on: who wants a connection and finds it closed has a new one."""
    await fill(store, 3)
    lease = await store.leases.open("me", ttl=60_000_000)
    await cut(store)
    assert positions(await store.log.read(0, limit=10)) == [1, 2, 3]
    await cut(store)
    assert span(await verdict(store, request(event()))) == (4, 4)
    await cut(store)
    assert await store.leases.renew(lease.lease_id, ttl=1)


async def test_a_call_that_is_cut_off_says_so(pool: Database) -> None:
    """Whether it happened is not known, so it may be repeated, by who knows how."""
    own = await Database.open(pool.url)
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(outcome(pool.execute("SELECT pg_sleep(60)")))
        while not await own.fetchval(SLEEPERS):
            await asyncio.sleep(0)
        await own.execute(CUT)
    await own.close()
    assert isinstance(call.result(), StoreUnreachable)


async def outcome(call: Coroutine[Any, Any, object]) -> object:
    """What a call returns or raises."""
    try:
        return await call
    except StoreError as error:
        return error


async def test_a_killed_server_comes_back_to_its_clients(server: OwnServer) -> None:
    """Killed -9 and started again: what was appended is there, reads, appends and wake-ups go on, nobody opened anything anew."""
    async with await open_store(server.url()) as one, await open_store(server.url()) as two:
        await fill(one, 5)
        assert await news(two, 0) == 5
        await asyncio.to_thread(server.kill)
        with pytest.raises(StoreUnreachable):
            await one.log.head()
        with pytest.raises(StoreUnreachable):
            await appended(one, event())
        await asyncio.to_thread(server.start)
        assert positions(await two.log.read(0, limit=10)) == [1, 2, 3, 4, 5]
        await appended(one, event())
        assert await news(two, 5) == 6
        heard = asyncio.Event()
        two.log.watch(lambda _: heard.set())
        async with asyncio.timeout(WITHIN):
            # The listener comes back within its waits; until then only the poll finds news.
            while not heard.is_set():
                await appended(one, event())
                await asyncio.sleep(0)


async def test_a_server_that_is_not_there_is_named(server: OwnServer) -> None:
    """Opening says where it looked, without the password, and that it may be there later."""
    url = server.url(tcp=True)
    await (await open_store(url)).close()
    await asyncio.to_thread(server.stop)
    with pytest.raises(StoreUnreachable) as caught:
        await open_store(url)
    assert "127.0.0.1" in str(caught.value)
    assert (address_of(url).password or "-") not in str(caught.value)


async def test_a_wrong_password_is_no_reason_to_try_again(server: OwnServer) -> None:
    """The server answered, so it is unavailable for good."""
    url = server.url(tcp=True).replace(address_of(server.url(tcp=True)).password or "-", "wrong", 1)
    with pytest.raises(StoreUnavailable) as caught:
        await open_store(url)
    assert not caught.value.retryable


async def test_a_cancelled_call_leaves_connections_that_work(pool: Database) -> None:
    """More calls are cancelled than there are connections; all of them can be used afterwards, none is in a transaction."""
    for _ in range(5):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(pool.fetchval("SELECT pg_sleep(60)"))
            await asyncio.sleep(0)
            while not task.cancel():
                await asyncio.sleep(0)
    assert [await pool.fetchval("SELECT $1::bigint", number) for number in range(5)] == list(range(5))


async def test_a_caller_that_goes_away_in_a_transaction_leaves_nothing(pool: Database) -> None:
    """Its connection is dropped, and the server rolls back what it did."""
    await pool.execute("CREATE TABLE thing (n bigint)")

    async def half() -> None:
        async with pool.connection() as connection:
            await connection.execute("BEGIN")
            await connection.execute("INSERT INTO thing VALUES (1)")

    await half()
    assert await pool.fetchval("SELECT count(*) FROM thing") == 0


async def test_a_statement_that_takes_too_long_is_given_up(url: str) -> None:
    """After the timeout the caller hears of it, and the connection is free again."""
    database = await Database.open(address_of(url), command_timeout=2.0)
    with pytest.raises(StoreBusy):
        await database.fetchval("SELECT pg_sleep(60)")
    assert await database.fetchval("SELECT 1") == 1
    await database.close()


async def test_closing_waits_for_what_is_under_way(store: PostgresStore) -> None:
    """What was begun ends; what comes later finds the store closed; closing twice is fine."""
    async with asyncio.TaskGroup() as tasks:
        appends = [tasks.create_task(appended(store, event())) for _ in range(10)]
        await asyncio.sleep(0)
        closing = tasks.create_task(store.close())
    assert closing.done()
    assert sorted(task.result().first for task in appends if not task.cancelled()) == list(range(1, 11))
    with pytest.raises(StoreClosed):
        await store.log.head()
    await store.close()


@pytest.mark.may_block("it waits for a child that ends at once, or when its coverage is written")
async def test_a_connection_never_crosses_a_fork(store: PostgresStore) -> None:
    """In a child process every call is refused before it touches a socket."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = "nothing"
        try:
            store._database.guard()
        except StoreForked:
            outcome = "forked"
        finally:
            os.write(writer, outcome.encode())
            os._exit(0)
    os.close(writer)
    try:
        assert os.read(reader, 100) == b"forked"
    finally:
        os.close(reader)
        os.waitpid(child, 0)
    assert await store.log.head() == 0


async def test_the_clock_is_read_again_where_nobody_polls(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that lives off NATS asks the table of events nothing, and has the server's time all the same."""
    monkeypatch.setattr(database, "CLOCK_SECONDS", 0.02)
    async with await open_store(new_database()) as store:
        assert isinstance(store, PostgresStore)
        wrong = store._database._clock_offset = store._database._clock_offset + 3_600_000_000
        async with asyncio.timeout(WITHIN):
            while store._database._clock_offset > wrong - 1_800_000_000:
                await store._database.fetchval("SELECT 1")


async def test_the_clock_is_the_server_s(store: PostgresStore) -> None:
    """``now`` is within a round trip of what the server says, whatever this machine's clock thinks; a busy machine's may take a second."""
    before = store.now()
    said: int = await store._database.fetchval("SELECT hive_now(NULL)")
    after = store.now()
    assert before - 2_000_000 <= said <= after + 2_000_000


async def test_values_that_cannot_be_stored_do_not_cost_the_connection(pool: Database) -> None:
    """A refused value is the caller's; the next statement goes on."""
    with pytest.raises(StoreError):
        await pool.fetchval("SELECT $1::bigint", 2**70)
    with pytest.raises(StoreError):
        await pool.fetchval("SELECT $1::text", "\0")
    assert await pool.fetchval("SELECT 1") == 1


async def test_without_the_driver_the_hint_installs_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package and the extra."""
    monkeypatch.setattr("hive_core_db.postgres.driver.asyncpg", None)
    with pytest.raises(DriverMissing, match="asyncpg") as caught:
        await open_store(url)
    assert "pip install 'hive-orchestrator[postgres]'" in caught.value.advice
