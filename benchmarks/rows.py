"""The rows of the table: what each is called, how it is measured, what it must reach and what it should."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from benchmarks import log, process, relay, tail, work
from benchmarks.pairs import PAIRS, Figure, Sides, paired
from benchmarks.places import Ground, Place, sqlite_place
from benchmarks.postgres import Server, postgres_place

Case = Callable[[Place], AbstractAsyncContextManager[Sides]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row: its name on the command line, and what measures it."""

    name: str
    postgres: bool = False
    measure: Callable[[Ground], Awaitable[Figure | None]]


def at(case: Case) -> Callable[[Ground], AbstractAsyncContextManager[Sides]]:
    """The case in one new place."""

    @asynccontextmanager
    async def opened(ground: Ground) -> AsyncIterator[Sides]:
        async with ground() as place, case(place) as sides:
            yield sides

    return opened


def pair(
    name: str,
    title: str,
    opened: Callable[[Ground], AbstractAsyncContextManager[Sides]],
    *,
    must: float,
    aim: float,
    unit: str = "events/s",
    pairs: int = PAIRS,
    lower_is_better: bool = False,
) -> Row:
    """A row of two sides that take turns."""

    async def measure(ground: Ground) -> Figure:
        async with opened(ground) as sides:
            return await paired(
                title, sides, must=must, aim=aim, unit=unit, pairs=pairs, lower_is_better=lower_is_better
            )

    return Row(name=name, postgres=name.startswith("pg-"), measure=measure)


def start_up(name: str, title: str, arguments: list[str], *, must: float, aim: float) -> Row:
    """A row of one process's start."""

    async def measure(_: Ground) -> Figure:
        return process.start_up(title, arguments, must=must, aim=aim)

    return Row(name=name, measure=measure)


# What needs the agents imports them when it is measured: a memory figure must not pay for its neighbours.


async def _steps(ground: Ground) -> None:
    from benchmarks import runs

    rates = {"one run of 1,000": await runs.in_sequence(ground), "1,000 runs of 5": await runs.side_by_side(ground)}
    for name, rate in rates.items():
        line = {"name": f"noop steps, {name}", "candidate": round(rate, 1), "unit": "steps/s"}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


async def _commands(ground: Ground) -> Figure:
    from benchmarks import runs

    return await runs.commands(ground, must=300, aim=300)


async def _resumed(ground: Ground) -> Figure:
    from benchmarks import runs

    return await runs.resumed(ground, must=1.0, aim=0.3)


async def _looking_back(ground: Ground) -> Figure:
    from benchmarks import looking

    return await looking.at(ground, must=100, aim=30)


async def _redriven(ground: Ground) -> Figure:
    from benchmarks import looking

    return await looking.redriven(ground, must=2.0, aim=0.5)


async def _forked(ground: Ground) -> Figure:
    from benchmarks import forking

    return await forking.append(ground, must=1.5, aim=1.1)


async def _branch_decides(ground: Ground) -> Figure:
    from benchmarks import forking

    return await forking.decision(ground, must=1.0, aim=0.2)


def _sqlite() -> list[Row]:
    return [
        pair("publish-many", "publish, 1,000 callers", at(log.publish_many), must=0.55, aim=0.70),
        pair("publish-one", "publish, one caller", at(log.publish_one), must=0.40, aim=0.50),
        pair("catch-up", "catch-up of a group", at(log.catch_up), must=0.60, aim=0.80, pairs=4),
        pair("fold", "fold of a history", at(log.fold), must=0.65, aim=0.85),
        pair(
            "latency",
            "publish to handler, p50",
            at(log.latency),
            must=1.5,
            aim=1.2,
            unit="ms",
            lower_is_better=True,
        ),
        Row(name="commands", measure=_commands),
        Row(name="steps", measure=_steps),
        Row(name="look-back", measure=_looking_back),
        Row(name="redrive", measure=_redriven),
        Row(name="fork", measure=_forked),
        Row(name="branch", measure=_branch_decides),
        start_up("import", "import hive_bus", process.IMPORT, must=0.35, aim=0.2),
        start_up("help", "hive --help", process.HELP, must=0.5, aim=0.3),
    ]


def _postgres() -> list[Row]:
    return [
        pair("pg-publish-many", "publish, 1,000 callers, PostgreSQL", at(log.publish_many), must=0.70, aim=0.85),
        pair("pg-publish-four", "publish, four processes of 1,000", at(log.publish_four), must=0.9, aim=1.2),
        pair("pg-publish-one", "publish, one caller, PostgreSQL", at(log.publish_one), must=0.6, aim=0.8),
        pair("pg-catch-up", "catch-up of a group, PostgreSQL", at(log.catch_up), must=0.80, aim=0.95, pairs=4),
        pair(
            "pg-latency",
            "appended here, handled in another process, p50",
            at(log.elsewhere),
            must=1.6,
            aim=1.2,
            unit="ms",
            lower_is_better=True,
        ),
        pair(
            "pg-work",
            "effects of four processes, against events published",
            at(work.effects),
            must=0.20,
            aim=0.33,
            unit="effects/s, floor: events/s",
        ),
        pair(
            "pg-claim",
            "a claim, 1,000,000 items waiting against 1,000",
            work.claim_among_many,
            must=1.3,
            aim=1.1,
            unit="ms",
            lower_is_better=True,
        ),
        Row(name="pg-steps", postgres=True, measure=_steps),
        Row(name="pg-look-back", postgres=True, measure=_looking_back),
        Row(name="pg-resume", postgres=True, measure=_resumed),
    ]


async def _reads(ground: Ground) -> Figure:
    return await tail.reads(ground, must=1.1, aim=1.0)


def _nats() -> list[Row]:
    return [
        pair(
            "nats-relay",
            "the log relayed to JetStream, against a plain publisher of the same bytes",
            at(relay.relay),
            must=0.90,
            aim=1.0,
        ),
        pair(
            "nats-handlers",
            "handled over NATS, against fetch(1000) with explicit acks",
            at(tail.throughput),
            must=3.0,
            aim=4.0,
        ),
        pair(
            "nats-latency",
            "appended here, handled in another process through NATS, p50",
            at(tail.latency),
            must=1.5,
            aim=1.2,
            unit="ms",
            lower_is_better=True,
        ),
        Row(name="pg-nats-reads", postgres=True, measure=_reads),
    ]


ROWS = [*_sqlite(), *_postgres(), *_nats()]


async def measure(rows: list[Row], server: Server | None) -> bool:
    """Measure and say each; whether all reach what they must."""
    good = True
    for row in rows:
        ground: Ground = sqlite_place
        if row.postgres:
            assert server is not None

            def ground(running: Server = server) -> AbstractAsyncContextManager[Place]:
                return postgres_place(running)

        figure = await row.measure(ground)
        if figure is not None:
            figure.say()
            good = good and figure.holds
    return good
