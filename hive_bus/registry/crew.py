"""The crew: what one process runs, present in the registry while it does, and drained before it goes.

Services run until they are drained; then each finishes what it has and returns. It knows
neither brains nor hands, only that they run and can be drained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from hive_bus.bus import Bus
from hive_bus.registry.enrolment import Enrolment
from hive_bus.registry.registry import HEALTH_SECONDS, Registry
from hive_bus.tasks import together

DRAIN_SECONDS: Final = 30.0


class Service(Protocol):
    """Something that runs until cancelled, or until drained."""

    async def run(self) -> None: ...
    def drain(self) -> None:
        """Take nothing new; ``run`` returns when what is in hand is done."""
        ...


class Lasting(Protocol):
    """Something that runs until cancelled, and has nothing to finish."""

    async def run(self) -> None: ...


class Crew:
    """Services of one process, who they are (``agents``), and what runs ``beside`` them for as long as they do."""

    def __init__(
        self,
        bus: Bus,
        agents: Sequence[Enrolment],
        services: Sequence[Service],
        *,
        beside: Sequence[Lasting] = (),
        health_seconds: float = HEALTH_SECONDS,
    ) -> None:
        self.registry = Registry(bus, agents, health_seconds=health_seconds)
        self._services = list(services)
        self._beside = list(beside)
        self._ended = asyncio.Event()
        self._draining = False
        self._finished = False

    async def run(self) -> None:
        """Serve until cancelled or drained. Raises what a service fails with."""
        try:
            async with self.registry, together() as tasks:
                serving = [tasks.create_task(one.run(), name=_name(one)) for one in self._services]
                beside = [tasks.create_task(one.run(), name=_name(one)) for one in self._beside]
                if self._draining:
                    self._drain_all()
                if serving:
                    await asyncio.wait(serving)
                self._finished = self._draining
                for task in beside:
                    task.cancel()
        finally:
            self._ended.set()

    async def drain(self, *, within: float = DRAIN_SECONDS) -> bool:
        """Take nothing new, hand over what others can have at once, and finish the rest.

        Returns when all of it is done (True), or when it was cancelled or ``within`` seconds have passed (False):
        then whoever runs this cancels it, and what was not finished goes back to the queue.
        """
        self._draining = True
        self._drain_all()
        try:
            async with asyncio.timeout(within):
                await self.registry.drain(within=within)
                await self._ended.wait()
        except TimeoutError:
            return False
        return self._finished

    def _drain_all(self) -> None:
        for service in self._services:
            service.drain()


def _name(service: object) -> str:
    return str(getattr(service, "group", type(service).__name__))
