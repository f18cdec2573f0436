"""Runs under fault that are forked while they live: at any position, forks of forks too, on other terms.

Owns what people do here beside what they do in ``runs_simulation``; the rules are the same, of every branch too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from agents.hive import Hive
from hive_bus.bus import Bus
from hive_bus.events import WorkflowForked
from hive_bus.lineage import end_of_append, lineage
from hive_bus.record import Record
from tests.support.runs_simulation import RunsSimulation, said


class ForksSimulation(RunsSimulation):
    """A colony whose runs are forked by the people who started them."""

    async def _person(self, bus: Bus, hive: Hive, run: str) -> None:
        """Starts a run, and forks it now and then, at whatever moment of its past."""
        await super()._person(bus, hive, run)
        for number in range(self._random.choice([1, 2, 3])):
            await asyncio.sleep(self._random.expovariate(0.4))
            await self._fork(bus, hive, self._random.choice([run, *self._branches(run)]), f"{run}-{number}")

    async def _at_rest(self, bus: Bus, hive: Hive) -> list[str]:
        """What holds of every run, and: a branch shares every event of its parent's, up to where it was forked."""
        wrong = await super()._at_rest(bus, hive)
        for run in self._runs:
            forked = (await lineage(bus.store.log, run))[-1].forked
            if forked is not None:
                body = Record._make(forked).data
                shared = [one for one in await bus.history(run) if one.position <= body["position"]]
                parents = [one for one in await bus.history(body["parent"]) if one.position <= body["position"]]
                wrong += [] if shared == parents else [f"{run} does not share the past of {body['parent']}"]
        return wrong

    def _branches(self, run: str) -> list[str]:
        return [name for name in self._runs if name.startswith(f"{run}-")]

    async def _fork(self, bus: Bus, hive: Hive, parent: str, branch: str) -> None:
        random = self._random
        past = [record.position for record in await bus.history(parent)]
        position = await end_of_append(bus.store.log, random.choice(past))
        (last,) = await bus.store.log.read(position - 1, limit=1)
        terms: dict[str, Any] = random.choice(
            [{}, {"allow": ("unsafe",)}, {"approve": "all"}, {"models": {"": "other"}, "max_parallel": 1}]
        )
        event = WorkflowForked(parent=parent, position=position, at=last.recorded_at, **terms)
        await said(
            lambda: bus.publish(event, correlation_id=branch, stream=f"{branch}/run", event_id=f"forked-{branch}")
        )
        self._runs.append(branch)
        # A run that was paused at that moment is so in its branch too.
        await asyncio.sleep(random.random() * 4)
        await said(lambda: hive.resume(branch))
