"""The colony: everything that makes runs move, hosted in one process.

Brains, hands and the clock are services of one task group; any number of processes may
host a colony on one database and share the work. It knows no files and no terminals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from agents.drone import Drone
from agents.hands import CommandHand, ModelHand, Places, TaskToolHand, ToolHand
from agents.model import Model
from agents.models import open_model
from agents.planner import Planner
from agents.policy import DEFAULT_POLICY, Policy
from agents.queen import Queen
from agents.reviewer import Reviewer
from agents.tool import Tools
from agents.tools import builtin_tools
from hive_bus import Brain, Bus, Hand
from hive_bus.clock import Clock
from hive_bus.hands import HandRunner
from hive_bus.host import BrainHost


def brains() -> list[Brain[Any]]:
    """The four brains."""
    return [Queen(), Planner(), Reviewer(), Drone()]


class Colony:
    """Hosts brains, hands and the clock until cancelled.

    ``tools`` are what drones and ``tool`` steps may use, ``open`` opens a model by name,
    ``extra_brains`` and ``extra_hands`` are a program's own.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        tools: Tools | None = None,
        policy: Policy = DEFAULT_POLICY,
        open: Callable[[str], Model] = open_model,  # noqa: A002 - it opens models, and nothing here opens files
        extra_brains: Sequence[Brain[Any]] = (),
        extra_hands: Sequence[Hand] = (),
    ) -> None:
        tools = tools if tools is not None else builtin_tools()
        places = Places()
        self._models = ModelHand(open)
        hands: list[Hand] = [
            CommandHand(places, policy=policy),
            TaskToolHand(places, tools, policy=policy),
            ToolHand(places, tools, policy=policy),
            self._models,
            *extra_hands,
        ]
        self.hosts = {brain.name: BrainHost(bus, brain) for brain in [*brains(), *extra_brains]}
        self.hands = HandRunner(bus, hands, hosts=self.hosts)
        self.clock = Clock(bus, on_ready=self.hands.wake)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with asyncio.TaskGroup() as services:
                for name, host in self.hosts.items():
                    services.create_task(host.run(), name=f"brain {name}")
                services.create_task(self.hands.run(), name="hands")
                services.create_task(self.clock.run(), name="clock")
        finally:
            await self._models.close()
