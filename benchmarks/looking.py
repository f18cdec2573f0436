"""Looking back: what `--at` costs in a log of a million events, and what it costs to decide a long run again."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from agents.colony import brains
from agents.hive import Hive
from agents.queen import Queen
from benchmarks.pairs import Figure
from benchmarks.places import Ground
from benchmarks.runs import chain
from dashboard.views import newest_runs, read_agents_at, read_status_at, trace_view
from hive_bus import Bus, Moment, Record, moment_of, open_bus, state_at
from hive_bus.replay.redrive import keys_of_run, redrive
from hive_core_db.records import StoredEvent

EVENTS, STEPS, ASKED = 1_000_000, 20, 120
REDRIVEN, REDRIVES = 10_000, 5
BATCH = 5000
Spent = tuple[float, float]
"""Time on the wall, and of the process's threads on a processor."""


async def at(ground: Ground, *, must: float, aim: float, events: int = EVENTS) -> Figure:
    """A million events of runs of twenty steps: the slowest of `--at`'s questions, its 99th percentile, in milliseconds."""
    async with ground() as place:
        async with Hive(place.url) as hive:
            await (await hive.start(chain(STEPS), id="copy-0")).result()
        async with open_bus(place.url) as bus:
            run = list(map(StoredEvent._make, await bus.history("copy-0")))
            head = await bus.head()
        copies = 0
        while head < events:
            rows: list[StoredEvent] = []
            while len(rows) < BATCH:
                copies += 1
                rows += _copied(run, f"copy-{copies}", head + len(rows))
            await place.raw.append(rows)
            head = rows[-1].position
        async with open_bus(place.url) as bus:
            spent = await _asked(bus, copies)
    worst = max(wall for wall, _ in spent.values())
    return Figure(
        name=f"--at in a log of {head:,} events, p99 of the slowest question",
        ratio=worst,
        must=must,
        aim=aim,
        candidate=worst,
        floor=0.0,
        unit="ms",
        pairs=ASKED,
        lower_is_better=True,
        also={
            "p99": {name: round(wall, 1) for name, (wall, _) in spent.items()},
            "p99 of processor time": {name: round(cpu, 1) for name, (_, cpu) in spent.items()},
        },
    )


def _copied(run: Sequence[StoredEvent], name: str, head: int) -> list[StoredEvent]:
    """The run again, under another name and behind ``head``."""
    moved = head + 1 - run[0].position
    return [
        row._replace(
            position=(position := head + 1 + number),
            event_id=f"{name}-{number}",
            stream=row.stream.replace("copy-0", name),
            correlation_id=name,
            causation_id=row.causation_id and f"{name}-{row.causation_id}",
            cause_position=row.cause_position and row.cause_position + moved,
            append_first=position,
            recorded_at=run[-1].recorded_at + position,
        )
        for number, row in enumerate(run)
    ]


async def _asked(bus: Bus, copies: int) -> dict[str, Spent]:
    """The 99th percentile of each question, in milliseconds."""
    random, queen = Random(1), Queen()

    async def trace(run: str, then: Moment) -> Any:
        return trace_view(await bus.history(run, at=then.position), now=then.time)

    questions: dict[str, Callable[[str, Moment], Awaitable[Any]]] = {
        "trace": trace,
        "state": lambda run, then: state_at(bus, queen, run, at=then.position),
        "runs": lambda _, then: _all(newest_runs(bus, limit=20, at=then.position)),
        "agents": lambda _, then: read_agents_at(bus, then),
        "status": lambda _, then: read_status_at(bus, then, seconds=3600, place="here"),
    }
    spent: dict[str, list[Spent]] = {}
    for _ in range(ASKED):
        run = f"copy-{random.randint(1, copies)}"
        ordinal = f"@{random.randint(1, 100)}"
        then = await moment_of(bus, ordinal, run=run)
        asked: dict[str, Callable[[], Awaitable[Any]]] = {
            "ordinal": lambda: moment_of(bus, ordinal, run=run),  # noqa: B023 - asked before the next turn
            "time": lambda: bus.store.log.position_at(then.time),  # noqa: B023 - as above
            **{name: partial(question, run, then) for name, question in questions.items()},
        }
        for name, ask in asked.items():
            begin, cpu = time.perf_counter(), time.process_time()
            await ask()
            spent.setdefault(name, []).append((time.perf_counter() - begin, time.process_time() - cpu))
    return {
        name: (_late(wall), _late(cpu)) for name, times in spent.items() for wall, cpu in [zip(*times, strict=True)]
    }


def _late(seconds: Sequence[float]) -> float:
    """The 99th percentile, in milliseconds."""
    return statistics.quantiles(seconds, n=100)[98] * 1000


async def _all(views: Any) -> list[Any]:
    return [view async for view in views]


async def redriven(ground: Ground, *, must: float, aim: float) -> Figure:
    """A run of ten thousand events, decided again by all four brains; no hand is there that could call anything."""
    async with ground() as place:
        async with Hive(place.url) as hive:
            run = await hive.start(chain(20))
            await run.result()
            each = len(await hive.bus.history(run.id)) / 20
            run = await hive.start(chain(round(REDRIVEN / each)))
            await run.result()
        async with open_bus(place.url) as bus:
            records: list[Record] = await bus.history(run.id)
            spent = [await _redrive(bus, run.id, records[-1].position) for _ in range(REDRIVES)]
    seconds = statistics.median(wall for wall, _ in spent)
    return Figure(
        name=f"redrive of a run of {len(records):,} events",
        ratio=seconds,
        must=must,
        aim=aim,
        candidate=seconds,
        floor=0.0,
        unit="s",
        pairs=REDRIVES,
        lower_is_better=True,
        also={"processor time": round(statistics.median(cpu for _, cpu in spent), 2)},
    )


async def _redrive(bus: Bus, run: str, upto: int) -> Spent:
    begin, cpu = time.perf_counter(), time.process_time()
    log = bus.store.log
    for brain in brains():
        for key in await keys_of_run(log, brain, run):
            async for difference in redrive(log, brain, key, upto=upto):
                raise AssertionError(difference)
    return time.perf_counter() - begin, time.process_time() - cpu
