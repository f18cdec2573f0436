"""Groups across processes: members join, leave, are killed and stood still, and the log proves who owned what."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from hive_bus.bus import Bus
from hive_bus.opening import open_bus
from hive_bus.reading import FROM_BEGINNING
from hive_bus.record import Record
from hive_errors import StoreError
from tests.integration.group_process import GROUP, Heard, Ready, Spoken
from tests.support.unmeasured import unmeasured

TTL = 20.0
SHORT = 8.0
PATIENCE = 2.0
"""Seconds after which a stopped process that holds a file's lock is let go on for a moment."""


@asynccontextmanager
async def processes() -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Processes that are gone when the test is."""
    started: list[asyncio.subprocess.Process] = []
    try:
        yield started
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def start(what: str, url: str, name: str, number: float) -> asyncio.subprocess.Process:
    """Start one process of the group."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.group_process", what, url, name, str(number), env=unmeasured()
    )


async def heard(bus: Bus, count: int) -> list[Record]:
    """So many answers, as soon as they are there."""
    async with bus.subscribe("echo.heard", start=FROM_BEGINNING) as records:
        return [await anext(records) for _ in range(count)]


async def ready(bus: Bus, *members: str) -> None:
    """Return when these processes run."""
    missing = set(members)
    async with bus.subscribe("echo.ready", start=FROM_BEGINNING) as records:
        while missing:
            event = (await anext(records)).event
            assert isinstance(event, Ready)
            missing.discard(event.member)


async def owners(bus: Bus, members: int) -> dict[int, str]:
    """Who holds what, as soon as every partition is held and shared by so many."""
    while True:
        rows = await bus.store.checkpoints.partitions(GROUP)
        held = {row.number: row.lease_id for row in rows if row.lease_id is not None}
        counts = [list(held.values()).count(lease) for lease in set(held.values())]
        if rows and len(held) == len(rows) and len(counts) == members and max(counts) - min(counts) <= 1:
            return held
        await bus.tail.wait(bus.tail.head, timeout=0.05)


async def stop(process: asyncio.subprocess.Process, bus: Bus) -> None:
    """Stop it where it holds nobody up: one that has just locked a SQLite file is let go on for a moment."""
    while True:
        process.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(PATIENCE):
                await bus.publish(Ready(member="tester"))
                return
        except (TimeoutError, StoreError):
            process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def timed(what: str) -> AsyncIterator[None]:
    """Print how long the block took: seconds, of which no test may depend on a small number."""
    begun = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begun:.2f} s")  # noqa: T201 - a figure for whoever wants one


def check(answers: Iterable[Record], spoken: Iterable[Record]) -> None:
    """Every event is answered exactly once, in order per stream, and by one owner at a time."""
    bodies = [record.event for record in answers]
    heard = [body for body in bodies if isinstance(body, Heard)]
    assert sorted(body.position for body in heard) == sorted(record.position for record in spoken)
    streams, fences, leases = defaultdict(list), defaultdict(list), defaultdict(set)
    for body in heard:
        streams[body.stream].append(body.position)
        fences[body.partition].append(body.fence)
        leases[body.partition, body.fence].add((body.lease_id, body.member))
    assert all(positions == sorted(positions) for positions in streams.values())
    assert all(seen == sorted(seen) for seen in fences.values()), "a stale owner wrote behind its successor"
    assert all(len(holders) == 1 for holders in leases.values()), "two owners had one fence"


async def spoken(bus: Bus) -> list[Record]:
    """Everything that was to be answered."""
    return [record async for record in bus.read(Spoken.TOPIC)]


async def test_two_members_share_what_three_processes_publish(hive_url: str, fault_seconds: float) -> None:
    """Nothing is lost, doubled or out of order, and "database is locked" never surfaces, while five processes write."""
    each = min(12_000, round(fault_seconds * 300))
    async with processes() as started, open_bus(hive_url) as bus:
        started += [await start("share", hive_url, name, TTL) for name in ("ann", "bob")]
        await ready(bus, "ann", "bob")
        await owners(bus, 2)
        started += [await start("publish", hive_url, f"speaker-{n}", each) for n in range(3)]
        answers = await heard(bus, 3 * each)
        check(answers, await spoken(bus))
        assert len({record.event.member for record in answers if isinstance(record.event, Heard)}) == 2
        for process in started[:2]:
            process.terminate()
        assert [await process.wait() for process in started] == [0] * 5


async def test_a_killed_member_is_replaced(hive_url: str) -> None:
    """Its partitions go to the others when its lease has ended; what it had in flight is done once."""
    count = 600
    async with processes() as started, open_bus(hive_url) as bus:
        names = ("ann", "bob", "cid")
        started += [await start("share", hive_url, name, TTL) for name in names]
        await ready(bus, *names)
        await owners(bus, 3)
        started.append(await start("publish", hive_url, "speaker", count))
        await heard(bus, count // 6)
        started[0].kill()
        async with timed("shared by two after a kill -9"):
            held = await owners(bus, 2)
        assert len(held) == 16
        check(await heard(bus, count), await spoken(bus))


async def test_a_member_that_stands_still_is_replaced_and_comes_back(hive_url: str) -> None:
    """Stopped past its lease, others take over; when it goes on, what it had in hand is refused, and it gets its share again."""
    count = 600
    async with processes() as started, open_bus(hive_url) as bus:
        names = ("ann", "bob", "cid")
        started += [await start("share", hive_url, name, TTL) for name in names]
        await ready(bus, *names)
        before = await owners(bus, 3)
        started.append(await start("publish", hive_url, "speaker", count))
        await heard(bus, count // 6)
        await stop(started[0], bus)
        async with timed(f"shared by two after a SIGSTOP, the lease being {TTL} s"):
            without = await owners(bus, 2)
        started[0].send_signal(signal.SIGCONT)
        async with timed("shared by three after a SIGCONT"):
            again = await owners(bus, 3)
        started.append(await start("publish", hive_url, "speaker-2", count))
        check(await heard(bus, 2 * count), await spoken(bus))
        assert len(set(before.values()) & set(without.values())) == 2
        assert len(set(again.values()) - set(before.values())) == 1


async def test_members_that_stood_still_together_keep_what_they_have(hive_url: str) -> None:
    """Both are stopped past their leases; the first to go on takes nothing from the other, which goes on a renewal later."""
    async with processes() as started, open_bus(hive_url) as bus:
        started += [await start("share", hive_url, name, SHORT) for name in ("ann", "bob")]
        await ready(bus, "ann", "bob")
        before = await owners(bus, 2)
        for process in started:
            await stop(process, bus)
        while await alive(bus):
            await bus.tail.wait(bus.tail.head, timeout=0.05)
        started[0].send_signal(signal.SIGCONT)
        renewals = set[int]()
        while len(renewals) < 2:
            renewals.update(await alive(bus))
            await bus.tail.wait(bus.tail.head, timeout=0.05)
        started[1].send_signal(signal.SIGCONT)
        while len(await alive(bus)) < 2:
            await bus.tail.wait(bus.tail.head, timeout=0.05)
        started.append(await start("publish", hive_url, "speaker", 100))
        check(await heard(bus, 100), await spoken(bus))
        assert await owners(bus, 2) == before


async def alive(bus: Bus) -> list[int]:
    """Until when each lease lives."""
    return [lease.expires_at for lease in await bus.store.leases.live()]


async def test_a_member_that_leaves_frees_its_partitions_at_once(hive_url: str) -> None:
    """A clean end waits for no lease: the other member holds everything long before it would have expired."""
    async with processes() as started, open_bus(hive_url) as bus:
        started += [await start("share", hive_url, name, 600) for name in ("ann", "bob")]
        await ready(bus, "ann", "bob")
        await owners(bus, 2)
        async with timed("held by one after a clean leave"):
            started[0].terminate()
            assert await started[0].wait() == 0
            assert len(set((await owners(bus, 1)).values())) == 1


@pytest.mark.parametrize("late", [1, 2])
async def test_late_members_get_their_share(hive_url: str, late: int) -> None:
    """Who joins later gets partitions from those who have too many, while events flow."""
    count = 300
    async with processes() as started, open_bus(hive_url) as bus:
        started.append(await start("share", hive_url, "ann", 600))
        await ready(bus, "ann")
        await owners(bus, 1)
        started.append(await start("publish", hive_url, "speaker", count))
        started += [await start("share", hive_url, f"late-{n}", 600) for n in range(late)]
        await ready(bus, *(f"late-{n}" for n in range(late)))
        async with timed(f"shared by {1 + late} after a join"):
            await owners(bus, 1 + late)
        check(await heard(bus, count), await spoken(bus))
