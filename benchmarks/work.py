"""The work queue: effects of which nothing is known but that they do nothing, and what a claim costs among many."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.log import publish_rate, workers
from benchmarks.pairs import Sides, Turn
from benchmarks.places import CALLERS, Ground, Place
from benchmarks.postgres import PostgresRaw
from hive_bus import Bus, Event, Failure, Hand, HandContext, Intent, WorkPolicy, open_bus
from hive_bus.envelope import encode_event
from hive_core_db.records import Appended, AppendRequest, WorkClaim, WorkItem

EFFECTS = 5000
FEW, MANY = 1000, 1_000_000
PULL = 10
QUEUE = "bench"


class NoopRequested(Intent, topic="noop_effect.requested", results=("noop_effect.done",)):
    """Asks for nothing."""

    number: int

    def work(self) -> WorkPolicy:
        """One queue for all."""
        return WorkPolicy(labels=(QUEUE,))


class NoopDone(Event, topic="noop_effect.done"):
    """Nothing was done."""


class NoopHand(Hand):
    """Does nothing, in the way of a hand that does something: a claim, then a result."""

    intent = NoopRequested
    queues = (QUEUE,)
    concurrency = 200

    async def perform(self, intent: NoopRequested, ctx: HandContext) -> Event | Failure:
        """Nothing."""
        return NoopDone()


@asynccontextmanager
async def effects(place: Place) -> AsyncIterator[Sides]:
    """No-op effects claimed, started and finished per second by four processes, against events published by one."""
    async with open_bus(place.url, source="bench") as bus, workers(place) as processes:

        async def candidate() -> float:
            await asyncio.gather(*(bus.publish(NoopRequested(number=n)) for n in range(EFFECTS)))
            begin = time.perf_counter()
            await asyncio.gather(*(one.ask("work") for one in processes))
            async with asyncio.timeout(60):
                # Whoever asked the table would walk what an old snapshot keeps in it.
                while sum(await asyncio.gather(*(one.ask("done") for one in processes))) < EFFECTS:
                    await asyncio.sleep(0.05)
            answers = await asyncio.gather(*(one.ask("rest") for one in processes))
            return float(sum(one["done"] for one in answers) / (max(one["end"] for one in answers) - begin))

        yield Sides(floor=lambda: publish_rate(bus, CALLERS, []), candidate=candidate)


@asynccontextmanager
async def claims(place: Place, waiting: int) -> AsyncIterator[Turn]:
    """Milliseconds of a claim while so many items wait: pulled and claimed in tens, as a hand does."""
    raw = place.raw
    assert isinstance(raw, PostgresRaw)
    async with open_bus(place.url, source="bench") as bus:
        first = await bus.publish(NoopRequested(number=0))
        await _remember(raw, first)
        await _enqueue(raw, waiting)
        lease = await bus.open_lease()

        async def turn() -> float:
            times = []
            claimed: list[str] = []
            for _ in range(20):
                begin = time.perf_counter()
                items = await bus.store.work.claimable([QUEUE], limit=PULL, worker="bench")
                futures = [bus.writer.submit(_claim(bus, item, lease.lease_id)) for item in items]
                verdicts = await asyncio.gather(*futures)
                times.append((time.perf_counter() - begin) / PULL)
                claimed += [item.work_id for item, one in zip(items, verdicts, strict=True) if type(one) is Appended]
            if len(claimed) != 20 * PULL:
                raise RuntimeError(f"{len(claimed)} claims of {20 * PULL} succeeded")
            # As many wait at the next turn.
            await raw.db.execute("DELETE FROM work WHERE work_id = ANY($1)", claimed)
            await _enqueue(raw, len(claimed))
            return statistics.median(times) * 1000

        yield turn
        # Nobody could perform what has no event.
        await raw.db.execute("DELETE FROM work")


def _claim(bus: Bus, item: WorkItem, lease_id: str) -> AppendRequest:
    now = bus.now()
    started = encode_event(
        NoopRequested(number=0).started(attempt=1, by="bench"),
        stream=item.work_id,
        correlation_id=item.correlation_id,
        event_id=bus.ids.event_id(now),
        source="bench",
        occurred_at=now,
    )
    claim = WorkClaim(work_id=item.work_id, fence=item.fence, lease_id=lease_id)
    return AppendRequest(epoch=bus.writer.epoch, events=(started,), work=(claim,))


async def _remember(raw: PostgresRaw, position: int) -> None:
    """Keep the item of the event there: others are made like it."""
    await raw.db.execute("DROP TABLE IF EXISTS pattern")
    await raw.db.execute(f"CREATE TEMP TABLE pattern AS SELECT * FROM work WHERE position = {position}")


async def _enqueue(raw: PostgresRaw, number: int) -> None:
    """So many more items at the queue's end, of a thousand runs; past the log, for speed."""
    own = {
        "work_id": "gen_random_uuid()::text",
        "correlation_id": "'run-' || n % 1000",
        # The first items of all runs come first, then the second ones: as the queue itself orders them.
        "base": "last.base + n / 1000",
        "turn": "last.base + n / 1000 + one.turn - one.base",
    }
    columns = [row["attname"] for row in await raw.db.fetch(_COLUMNS)]
    values = ", ".join(own.get(name, f"one.{name}") for name in columns)
    await raw.db.execute(
        f"INSERT INTO work ({', '.join(columns)}) SELECT {values} FROM pattern one, generate_series(1, {number}) n, "
        "(SELECT coalesce(max(base), 0) AS base FROM work) last",
        timeout=600,
    )
    await raw.db.execute("ANALYZE work", timeout=600)


_COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = 'pattern'::regclass AND attnum > 0 AND NOT attisdropped"


@asynccontextmanager
async def claim_among_many(ground: Ground) -> AsyncIterator[Sides]:
    """A claim with a million items waiting, against one with a thousand."""
    async with ground() as one, ground() as two, claims(one, FEW) as few, claims(two, MANY) as many:
        yield Sides(floor=few, candidate=many)
