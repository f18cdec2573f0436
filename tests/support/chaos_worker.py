"""One process of the chaos test: ``python -m tests.support.chaos_worker URL NAME DIRECTORY``; serves until it is terminated.

It hosts the whole colony, with a hand for each effect class whose effects are in the world of `chaos_world`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from random import Random

from agents.colony import Colony
from hive_bus import Bus, Event, Hand, HandContext, open_bus
from hive_bus.effects import Failure
from hive_bus.events import TaskReady, TaskReturned
from hive_bus.surely import patiently
from hive_bus.telemetry import configure_logging
from tests.support.chaos_world import EFFECTS, LEASE_SECONDS, LONGEST_EFFECT, Act, World


class WorldHand(Hand):
    """Performs the steps of one effect class: waits, acts, waits, answers; how long follows from key and attempt."""

    intent = TaskReady

    def __init__(self, effect: str, world: World, worker: str) -> None:
        self.queues = (f"task:{effect}",)
        self._effect, self._world, self._worker = effect, world, worker

    async def perform(self, intent: TaskReady, ctx: HandContext) -> Event | Failure:
        """Act once; a reconcilable effect that the world refuses has happened."""
        random = Random(f"{ctx.idempotency_key} {ctx.attempt}")
        await asyncio.sleep(min(random.expovariate(2), LONGEST_EFFECT))
        self._world.act(self._effect, Act(ctx.idempotency_key, ctx.attempt, self._worker, time.time_ns() // 1000))
        await asyncio.sleep(min(random.expovariate(2), LONGEST_EFFECT))
        return self._result(intent, ctx)

    async def reconcile(self, intent: TaskReady, ctx: HandContext) -> Event | Failure | None:
        """Ask the world."""
        return self._result(intent, ctx) if self._world.knows(ctx.idempotency_key) else None

    def _result(self, intent: TaskReady, ctx: HandContext) -> Event:
        return TaskReturned(
            task_id=intent.task_id, try_number=intent.try_number, output=ctx.idempotency_key, attempts=ctx.attempt
        )


async def serve(url: str, name: str, directory: Path) -> None:
    """Host the colony until SIGTERM."""
    configure_logging(json=False, level="WARNING")
    world = World(directory)
    # It may be started while the server is away: whoever runs a hive for good starts it again until it is there.
    async with await patiently(lambda: _opened(url, name)) as bus:
        bus.lease_seconds = LEASE_SECONDS
        colony = Colony(bus, extra_hands=[WorldHand(effect, world, name) for effect in EFFECTS])
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(colony.run())
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
            sys.stdout.write("serving\n")
            sys.stdout.flush()


async def _opened(url: str, name: str) -> Bus:
    return await open_bus(url, source=name)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
