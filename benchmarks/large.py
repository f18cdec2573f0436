"""``python -m benchmarks.large``: what ten million events, and an old snapshot, cost every figure of PostgreSQL.

Two databases on one server of its own, in a temporary directory that is removed afterwards: a small one and
a large one. The same measurement takes turns in both, and the speed of the large one in terms of the small one's is
the figure. Then it is made again while a snapshot of the large database has been held open for
minutes, during which events, effects and checkpoints went on: what they left behind cannot be vacuumed.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from fnmatch import fnmatch

from benchmarks import log, work
from benchmarks.pairs import Figure, Sides, Turn, paired
from benchmarks.places import TEXT, TOPIC, Place
from benchmarks.postgres import PostgresRaw, connect, postgres_place, server
from hive_bus import tune_process

SMALL, LARGE = 100_000, 10_000_000
CHUNK = 250_000
BYTES_PER_EVENT = 1_400
"""Row, five indexes, and their share of the write-ahead log."""
MUST, AIM = 0.8, 0.95

Measurement = Callable[[Place], AbstractAsyncContextManager[Turn]]


def sped(case: Callable[[Place], AbstractAsyncContextManager[Sides]]) -> Measurement:
    """The hive's side of a case whose figure is a rate."""

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[Turn]:
        async with case(place) as sides:
            yield sides.candidate

    return opened


def timed(opened: Measurement) -> Measurement:
    """A measurement in milliseconds, as so many per second."""

    @asynccontextmanager
    async def inverse(place: Place) -> AsyncIterator[Turn]:
        async with opened(place) as turn:

            async def per_second() -> float:
                return 1000 / await turn()

            yield per_second

    return inverse


@asynccontextmanager
async def claim(place: Place) -> AsyncIterator[Turn]:
    """A claim among a thousand."""
    async with work.claims(place, work.FEW) as turn:
        yield turn


@asynccontextmanager
async def steps(place: Place) -> AsyncIterator[Turn]:
    """No-op steps of two hundred runs at once."""
    from benchmarks import runs

    def ground() -> AbstractAsyncContextManager[Place]:
        return nullcontext(place)

    async def turn() -> float:
        return await runs.side_by_side(ground, 200)

    yield turn


MEASUREMENTS: dict[str, Measurement] = {
    "publish-many": sped(log.publish_many),
    "publish-four": sped(log.publish_four),
    "publish-one": sped(log.publish_one),
    "catch-up": sped(log.catch_up),
    "latency": timed(sped(log.elsewhere)),
    "work": sped(work.effects),
    "claim": timed(claim),
    "steps": steps,
    "trace": sped(log.trace),
}


async def fill(place: Place, total: int) -> None:
    """Events of runs of fifty, made by the server itself, until there are so many."""
    raw = place.raw
    assert isinstance(raw, PostgresRaw)
    await raw.db.execute(f"INSERT INTO topics VALUES ('{TOPIC}') ON CONFLICT DO NOTHING")
    head = await raw.head()
    while head < total:
        upto = min(head + CHUNK, total)
        await raw.db.execute(
            f"""INSERT INTO events
            SELECT n, '01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 'old-' || ((n - 1) / 50) || '/run',
                   (n - 1) % 50 + 1, '{TOPIC}', 'old-' || ((n - 1) / 50), NULL, NULL, NULL, 'fill', 1,
                   '{{"number":' || n || ',"name":"a measured event","text":"{TEXT}"}}', NULL, repeat('0', 64), n,
                   1600000000000000 + n, 1600000000000000 + n
            FROM generate_series({head + 1}, {upto}) n""",
            timeout=600,
        )
        head = upto
        _say(f"{head:,} events")
    await raw.db.execute("VACUUM ANALYZE events", timeout=1200)
    await raw.db.execute("CHECKPOINT", timeout=600)


@asynccontextmanager
async def snapshot(place: Place, minutes: float) -> AsyncIterator[None]:
    """A transaction that has been reading for so many minutes, while others wrote."""
    holder = await connect(place.url)
    try:
        await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await holder.fetchval("SELECT count(*) FROM log_meta")
        until = time.monotonic() + minutes * 60
        async with log.publish_many(place) as publishing, work.effects(place) as working:
            while time.monotonic() < until:
                await publishing.candidate()
                await working.candidate()
                # Enough to leave something behind, too little to make another table of it.
                await asyncio.sleep(5)
        yield
        await holder.execute("COMMIT")
    finally:
        await holder.close()


async def compare(small: Place, large: Place, name: str, title: str, pairs: int) -> Figure:
    """One measurement, taking turns in both."""
    async with MEASUREMENTS[name](small) as one, MEASUREMENTS[name](large) as other:
        sides = Sides(floor=one, candidate=other)
        return await paired(f"{name}, {title}", sides, must=MUST, aim=AIM, unit="per second", pairs=pairs)


async def measure(names: list[str], *, events: int, minutes: float, pairs: int) -> bool:
    """Every figure that was asked for, twice; whether all reach what they must."""
    good = True
    async with server() as running, postgres_place(running) as small, postgres_place(running) as large:
        await fill(small, SMALL)
        await fill(large, events)
        titles = {f"{events:,} events against {SMALL:,}": 0.0}
        if minutes:
            titles[f"the same behind a snapshot of {minutes:g} minutes"] = minutes
        for title, held in titles.items():
            async with snapshot(large, held) if held else nullcontext():
                for name in names:
                    row = await compare(small, large, name, title, pairs)
                    row.say()
                    good = good and row.holds
    return good


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> int:
    """Measure; 1 when a figure misses what it must, 2 without room on the disk."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help=f"rows: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--events", type=int, default=LARGE, help=f"in the large database (default {LARGE:,})")
    parser.add_argument(
        "--minutes", type=float, default=10, help="how long the snapshot is held first (0: no snapshot)"
    )
    parser.add_argument("--pairs", type=int, default=4, help="turns that count (default 4)")
    wanted = parser.parse_args()
    needed = wanted.events * BYTES_PER_EVENT + 4_000_000_000
    free = shutil.disk_usage(tempfile.gettempdir()).free
    _say(f"needs {needed / 1e9:.1f} GB under {tempfile.gettempdir()}, which has {free / 1e9:.1f} GB free")
    if free < needed:
        parser.error("there is no room; set TMPDIR to a larger disk, or ask for fewer --events")
    names = [name for name in MEASUREMENTS if any(fnmatch(name, pattern) for pattern in wanted.only)]
    tune_process()
    return 0 if asyncio.run(measure(names, events=wanted.events, minutes=wanted.minutes, pairs=wanted.pairs)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
