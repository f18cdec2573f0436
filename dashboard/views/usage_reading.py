"""Asks the bus for what usage is made of: events by their topics, the intents of failures by their ids, who descends from whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from dashboard.views.usage import TOPICS, Inherited, Meter, Usage, UsageView, Use, usage_view
from hive_bus import Bus, Record
from hive_bus.lineage import FORKED

_PAGE: Final = 1000

Forks = Mapping[str, tuple[str, int]]
"""Of each branch its parent, and the position up to which it shares the parent's history."""


async def read_usage(
    bus: Bus,
    *,
    by: Sequence[str],
    run: str | None = None,
    since: int | None = None,
    where: Mapping[str, Any] | None = None,
) -> UsageView:
    """Usage of the whole log, or of the one run or branch ``run`` (its correlation id).

    ``since`` is UTC microseconds; ``where`` what the metadata of the runs must say.
    """
    forks = await _forks(bus)
    start = 0 if since is None else await bus.store.log.position_at(since - 1)
    chosen = None if not where else await _runs_where(bus, forks, where)
    roots = {branch: _root(branch, forks) for branch in forks}
    uses = [use async for use in _uses(bus, roots, run=run, after=start) if chosen is None or use.branch in chosen]
    shared = [] if run is None else [await _shared(bus, *part) for part in ancestors(run, forks)]
    return usage_view(uses, by, inherited=shared)


def ancestors(run: str, forks: Forks) -> list[tuple[str, int]]:
    """From whom a branch has inherited, and up to which position of theirs; the oldest last."""
    found: list[tuple[str, int]] = []
    bound: int | None = None
    while run in forks and forks[run][0] not in {name for name, _ in found}:
        run, upto = forks[run]
        bound = upto if bound is None else min(bound, upto)
        found.append((run, bound))
    return found


async def _forks(bus: Bus) -> dict[str, tuple[str, int]]:
    """Of every branch, as its lineage has it: anybody may publish the topic, but only what begins a run's stream makes a branch."""
    found = {}
    async for record in _of_topics(bus, [FORKED]):
        run, parent = record.correlation_id, str(record.data.get("parent") or "")
        upto = int(record.data.get("position") or 0)
        if record.stream == f"{run}/run" and record.version == 1 and parent not in {"", run} and upto > 0:
            found[run] = (parent, min(upto, record.position - 1))
    return found


def _root(branch: str, forks: Forks) -> str:
    line = ancestors(branch, forks)
    return line[-1][0] if line else branch


async def _runs_where(bus: Bus, forks: Forks, where: Mapping[str, Any]) -> set[str]:
    """The runs and branches whose metadata say so; a branch has its ancestors', but for what its own say otherwise."""
    own: dict[str, dict[str, Any]] = {}
    async for record in _of_topics(bus, ["workflow.forked", "workflow.requested"]):
        own.setdefault(record.correlation_id, record.metadata)
    chosen = set()
    for run, metadata in own.items():
        line = [own.get(name, {}) for name, _ in reversed(ancestors(run, forks))]
        known: dict[str, Any] = {}
        for one in (*line, metadata):
            known |= one
        if all(key in known and value in (known[key], str(known[key])) for key, value in where.items()):
            chosen.add(run)
    return chosen


async def _shared(bus: Bus, run: str, upto: int) -> Inherited:
    usage = Usage()
    async for use in _uses(bus, {}, run=run, after=0):
        if use.position <= upto:
            usage = usage.with_use(use)
    return Inherited(run=run, upto=upto, usage=usage)


async def _uses(bus: Bus, roots: Mapping[str, str], *, run: str | None, after: int) -> AsyncIterator[Use]:
    meter = Meter(roots)
    log = bus.store.log
    while True:
        if run is None:
            rows = await log.read(after, limit=_PAGE, topics=TOPICS)
        else:
            rows = await log.read_correlation(run, after=after, limit=_PAGE)
        records = [Record._make(row) for row in rows]
        missing = meter.unknown(records)
        for row in await log.several(missing) if missing else ():
            meter.know(Record._make(row))
        for record in records:
            use = meter.add(record)
            if use is not None:
                yield use
        if len(rows) < _PAGE:
            return
        after = rows[-1].position


async def _of_topics(bus: Bus, topics: Sequence[str]) -> AsyncIterator[Record]:
    after = 0
    while rows := await bus.store.log.read(after, limit=_PAGE, topics=topics):
        for row in rows:
            yield Record._make(row)
        after = rows[-1].position
