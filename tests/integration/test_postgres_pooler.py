"""Through a pooler in transaction mode: every statement may meet another server process, and nothing may depend on which."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core_db.engine import open_store
from hive_core_db.records import Appended
from hive_core_db.store import Store
from hive_core_db.url import PostgresUrl, parse
from tests.conftest import NewDatabase
from tests.contract.making import appended, claim, event, fill, insert, positions, verdicts
from tests.contract.making import request as asked
from tests.support.patience import WITHIN
from tests.support.pooler import Pooler


@pytest.fixture
def direct(new_database: NewDatabase) -> str:
    """The address of an empty database, past the pooler."""
    return new_database()


@pytest.fixture
async def pooled(direct: str, tmp_path: Path) -> AsyncIterator[str]:
    """The address of the same database, through the pooler."""
    address = parse(direct)
    assert isinstance(address, PostgresUrl)
    assert address.host is not None
    pooler = Pooler(Path(address.host), user=address.user or "", database=address.database or "")
    async with pooler.serve(tmp_path):
        yield f"postgresql://{address.user}@/{address.database}?host={tmp_path}&pgbouncer=on"
    assert pooler.transactions > 0


async def test_a_store_works_through_a_pooler(pooled: str) -> None:
    """The schema is made, events of several callers are appended in order, read, claimed; leases and groups live."""
    async with await open_store(pooled) as store:
        await fill(store, 20, batch=7)
        found = await asyncio.gather(*(verdicts(store, asked(event()), asked(event("s"))) for _ in range(5)))
        assert all(isinstance(one, Appended) for batch in found for one in batch)
        assert positions(await store.log.read(0, limit=100)) == list(range(1, 31))
        lease = await store.leases.open("me", ttl=60_000_000)
        assert await store.checkpoints.ensure_group("g", partitions=2, start=0) == 2
        await store.checkpoints.join("g", lease.lease_id)
        taken = await store.checkpoints.take("g", 1, lease.lease_id)
        assert taken is not None
        assert taken.fence == 1
        work_id = await insert(store)
        assert [item.work_id for item in await store.work.claimable(["q"], limit=5)] == [work_id]
        assert isinstance(await claim(store, work_id, lease.lease_id), Appended)
        assert await store.blobs.get(await store.blobs.put(b"x" * 100_000)) == b"x" * 100_000
        await store.leases.close(lease.lease_id)


async def test_who_polls_through_a_pooler_sees_the_others(pooled: str, direct: str) -> None:
    """Without LISTEN the head is asked for; events of a process past the pooler arrive, and the other way round."""
    async with await open_store(pooled) as one, await open_store(direct) as two:
        assert await one.log.poll() == 0
        await appended(two, event())
        assert await news(one) == 1
        await appended(one, event())
        assert await news(two) == 2


async def news(store: Store) -> int:
    """Poll until there is news."""
    async with asyncio.timeout(WITHIN):
        while (head := await store.log.poll()) is None:
            await asyncio.sleep(0)
    return head
