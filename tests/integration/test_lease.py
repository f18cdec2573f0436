"""The lease of a process: one row, renewed until it is closed, left behind by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hive_bus import Bus, open_bus
from hive_bus.lease import ProcessLease
from hive_errors import BusClosed
from tests.support.handling import until


@pytest.fixture
async def bus(hive_url: str) -> AsyncIterator[Bus]:
    """A bus on a new hive."""
    async with open_bus(hive_url) as bus:
        yield bus


async def test_a_lease_is_the_processes_own(bus: Bus) -> None:
    """It is opened once, and shared by whoever asks."""
    first, second = await asyncio.gather(bus.open_lease(), bus.open_lease())
    assert first is second
    assert [lease.lease_id for lease in await bus.store.leases.live()] == [first.lease_id]


async def test_who_is_cancelled_while_a_lease_opens_leaves_none_behind(hive_url: str) -> None:
    """At whatever point: the row is known to the bus, which closes it, so nobody has to find out that the process is gone."""
    for steps in range(0, 40, 3):
        async with open_bus(hive_url) as bus:
            async with asyncio.TaskGroup() as tasks:
                opening = tasks.create_task(bus.open_lease())
                for _ in range(steps):
                    await asyncio.sleep(0)
                opening.cancel()
            leases = await bus.store.leases.live()
            assert len(leases) <= 1
            # Whoever asks next has that one, and it is kept.
            assert (await bus.open_lease()).usable
            assert len(await bus.store.leases.live()) == 1
        async with open_bus(hive_url) as after:
            assert await after.store.leases.live() == []


async def test_a_lease_is_renewed_until_closed(bus: Bus) -> None:
    """It outlives its time while it is renewed, and ends when it is closed, once and for all."""
    async with ProcessLease(bus.store.leases, owner="me", now=bus.now, ttl=3.0) as lease:
        for _ in range(2):
            await _renewed(bus, lease)
        assert [lease.usable] == [True]
    await lease.close()
    assert [lease.usable, await bus.store.leases.live()] == [False, []]


async def _renewed(bus: Bus, lease: ProcessLease) -> None:
    async def expires_at() -> int:
        (row,) = [row for row in await bus.store.leases.live() if row.lease_id == lease.lease_id]
        return row.expires_at

    async def is_later() -> bool:
        return await expires_at() > before

    before = await expires_at()
    await until(is_later, bus)


async def test_a_lease_that_is_not_open_has_no_id(bus: Bus) -> None:
    """Naming it too early is an error, not an empty name."""
    with pytest.raises(BusClosed, match="not open yet"):
        _ = ProcessLease(bus.store.leases, owner="me", now=bus.now).lease_id
