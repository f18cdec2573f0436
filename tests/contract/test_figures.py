"""Leases that say what is in them and how they ended, and bounded figures about the whole store."""

from __future__ import annotations

import pytest

from hive_core_db.records import WorkCancel
from hive_core_db.store import Store
from tests.contract.making import SECOND, START, Clock, appended, claim, event, insert


async def member(store: Store, owner: str, *, ttl: int = 10 * SECOND) -> str:
    """Open a lease and return its id."""
    return (await store.leases.open(owner, ttl=ttl)).lease_id


async def test_a_renewal_may_say_something_new(store: Store) -> None:
    """What the process says of itself is replaced by the renewal that brings it, and kept by those that bring none."""
    lease = await store.leases.open("ada", ttl=10 * SECOND, info='{"load": 1}')
    assert await store.leases.renew(lease.lease_id, ttl=10 * SECOND, info='{"load": 2}')
    assert await store.leases.renew(lease.lease_id, ttl=10 * SECOND)
    assert [row.info for row in await store.leases.live()] == ['{"load": 2}']
    await store.leases.close(lease.lease_id)
    assert not await store.leases.renew(lease.lease_id, ttl=10 * SECOND, info="{}")
    assert [row.info for row in await store.leases.ended(0)] == ['{"load": 2}']


async def test_who_ended_is_told_in_order(store: Store, clock: Clock) -> None:
    """Closed ones by when they were closed, and those whose time is over, which nobody has closed yet."""
    for owner, ttl in (("closed", 10), ("expired", 5), ("alive", 60), ("early", 60)):
        await member(store, owner, ttl=ttl * SECOND)
    by_owner = {lease.owner: lease.lease_id for lease in await store.leases.live()}
    await store.leases.close(by_owner["early"])
    clock.pass_time(3)
    since = START + 3 * SECOND
    assert [(row.owner, row.closed, row.closed_at) for row in await store.leases.ended(START)] == [
        ("early", True, START)
    ]
    assert await store.leases.ended(since) == []
    clock.pass_time(5)
    await store.leases.close(by_owner["closed"])
    ended = await store.leases.ended(since)
    assert [(row.owner, row.closed) for row in ended] == [("expired", False), ("closed", True)]
    assert [row.closed_at for row in ended] == [None, START + 8 * SECOND]


async def test_only_what_is_over_expires(store: Store, clock: Clock) -> None:
    """A lease that was renewed in time is left alone; one that expires lets go of all it holds, once."""
    await store.checkpoints.ensure_group("g", partitions=1, start=0)
    lease_id = await member(store, "ada", ttl=10 * SECOND)
    assert await store.checkpoints.take("g", 0, lease_id)
    clock.pass_time(8)
    await store.leases.renew(lease_id, ttl=10 * SECOND)
    clock.pass_time(8)
    assert not await store.leases.expire(lease_id)
    clock.pass_time(8)
    assert await store.leases.expire(lease_id)
    assert not await store.leases.expire(lease_id)
    assert not await store.leases.renew(lease_id, ttl=10 * SECOND)
    assert [row.lease_id for row in await store.checkpoints.partitions("g")] == [None]


async def test_queues_tell_what_is_open(store: Store, clock: Clock) -> None:
    """By state, with the oldest wait, and no more than was asked for; what was cancelled waits for nobody."""
    lease_id = await member(store, "ada")
    running = await insert(store, queue="pack")
    clock.pass_time(1)
    await claim(store, running, lease_id)
    for _ in range(4):
        clock.pass_time(1)
        await insert(store, queue="bake")
    clock.pass_time(1)
    gone = await insert(store, queue="bake")
    await appended(store, work=(WorkCancel(work_id=gone),))
    await insert(store, queue="pack", state="delayed", delay=SECOND)
    await insert(store, queue="person", state="waiting")
    bake, pack, person = await store.figures.queues(limit=100)
    assert (bake.queue, bake.ready, bake.claimed, bake.oldest_ready_at) == ("bake", 4, 0, START + 2 * SECOND)
    assert (pack.queue, pack.ready, pack.claimed, pack.delayed) == ("pack", 0, 1, 1)
    assert pack.oldest_claimed_at == START + SECOND
    assert (person.queue, person.waiting, person.oldest_ready_at) == ("person", 1, None)
    assert (await store.figures.queues(limit=2))[0].ready == 2


async def test_runs_tell_their_open_work(store: Store) -> None:
    """Those with the most come first."""
    lease_id = await member(store, "ada")
    await insert(store, correlation_id="small")
    work_ids = [await insert(store, correlation_id="large") for _ in range(3)]
    await claim(store, work_ids[-1], lease_id)
    large, small = await store.figures.runs(limit=100)
    assert (large.correlation_id, large.ready, large.claimed, large.open) == ("large", 2, 1, 3)
    assert (small.correlation_id, small.ready, small.since) == ("small", 1, START)
    assert len(await store.figures.runs(limit=1)) == 1


@pytest.mark.parametrize("limit", [2, 100])
async def test_topics_are_counted(store: Store, limit: int) -> None:
    """Above a position, up to another if one is given, and not beyond the limit."""
    await appended(store, event(topic="a.b"), event(topic="a.b"), event(topic="c.d"))
    await appended(store, event(topic="a.b"), event(topic="a.b"))
    counts = await store.figures.counts(["a.b", "c.d", "e.f"], after=1, limit=limit)
    assert counts == {"a.b": min(3, limit), "c.d": 1, "e.f": 0}
    assert await store.figures.counts(["a.b", "c.d"], after=0, limit=limit, until=2) == {"a.b": 2, "c.d": 0}
