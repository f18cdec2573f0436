"""Runs under fault that are forked while they live: at any position, forks of forks too, on other terms.

Owns what people do here beside what they do in ``runs_simulation``; the rules are the same, of every branch too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.hive import Hive
from hive_bus.bus import Bus
from hive_bus.events import WorkflowForked
from hive_bus.lineage import end_of_append, lineage
from hive_bus.record import Record
from hive_bus.testing import SimulatedLoop
from tests.support.runs_simulation import RunsSimulation, said

TERMS: Sequence[Mapping[str, Any]] = (
    {},
    {"allow": ("unsafe",)},
    {"approve": "all"},
    {"models": {"": "other"}, "max_parallel": 1},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFork:
    """A fork ``after`` so many seconds, of a run by its number (-1: the youngest), ``at`` so many percent of its past."""

    after: int
    parent: int
    at: int
    terms: Mapping[str, Any] = field(default_factory=dict)


class ForksSimulation(RunsSimulation):
    """A colony whose runs are forked: by the people who started them, or as ``forks`` says."""

    def __init__(self, loop: SimulatedLoop, path: Path, forks: Sequence[PlannedFork] | None = None) -> None:
        super().__init__(loop, path)
        self._forks = forks
        self.shared: dict[str, list[Record]] = {}
        """What each branch was to inherit, as it was read when it was forked."""

    async def _person(self, bus: Bus, hive: Hive, run: str) -> None:
        """Starts a run, and forks it now and then, at whatever moment of its past."""
        if self._forks is not None:
            async with asyncio.TaskGroup() as people:
                people.create_task(super()._person(bus, hive, run))
                if run == self._runs[0]:
                    people.create_task(self._as_planned(bus, hive, self._forks))
            return
        await super()._person(bus, hive, run)
        for number in range(self._random.choice([1, 2, 3])):
            await asyncio.sleep(self._random.expovariate(0.4))
            parent = self._random.choice([run, *self._branches(run)])
            position = self._random.choice(await bus.history(parent)).position
            forked = await self._forked(bus, parent, position, self._random.choice(TERMS))
            await self._fork(bus, hive, f"{run}-{number}", forked)

    async def _as_planned(self, bus: Bus, hive: Hive, forks: Sequence[PlannedFork]) -> None:
        for number, fork in enumerate(forks):
            await asyncio.sleep(fork.after)
            parent = self._runs[fork.parent % len(self._runs)]
            while not await bus.store.log.read_correlation(parent, limit=1):
                await asyncio.sleep(0.1)
            past = await bus.history(parent)
            position = past[fork.at * (len(past) - 1) // 100].position
            await self._fork(bus, hive, f"branch-{number}", await self._forked(bus, parent, position, fork.terms))

    async def _at_rest(self, bus: Bus, hive: Hive) -> list[str]:
        """What holds of every run, and: a branch shares every event of its parent's, up to where it was forked."""
        wrong = await super()._at_rest(bus, hive)
        for run, inherited in self.shared.items():
            forked = (await lineage(bus.store.log, run))[-1].forked
            assert forked is not None
            body = Record._make(forked).data
            shared = [one for one in await bus.history(run) if one.position <= body["position"]]
            parents = [one for one in await bus.history(body["parent"]) if one.position <= body["position"]]
            wrong += [] if inherited == shared == parents else [f"{run} does not share the past of {body['parent']}"]
        return wrong

    def _branches(self, run: str) -> list[str]:
        return [name for name in self._runs if name.startswith(f"{run}-")]

    async def _forked(self, bus: Bus, parent: str, position: int, terms: Mapping[str, Any]) -> WorkflowForked:
        position = await end_of_append(bus.store.log, position)
        (last,) = await bus.store.log.read(position - 1, limit=1)
        return WorkflowForked(parent=parent, position=position, at=last.recorded_at, **terms)

    async def _fork(self, bus: Bus, hive: Hive, branch: str, event: WorkflowForked) -> None:
        past = await bus.history(event.parent)
        self.shared[branch] = [record for record in past if record.position <= event.position]
        await said(
            lambda: bus.publish(event, correlation_id=branch, stream=f"{branch}/run", event_id=f"forked-{branch}")
        )
        self._runs.append(branch)
        # A run that was paused at that moment is so in its branch too.
        await asyncio.sleep(self._random.random() * 4)
        await said(lambda: hive.resume(branch))
