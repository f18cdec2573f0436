"""The colony: everything that makes runs move, hosted in one process.

Brains, hands and the clock are one crew, which the registry knows; any number of processes may
host a colony on one database and share the work. It knows no files and no terminals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from hive_bus.brains.fold import decider
from hive_bus.brains.host import BrainHost
from hive_bus.budget import HiveBudget
from hive_bus.clock import Clock
from hive_bus.hands.runner import HandRunner
from hive_bus.limit import Limit
from hive_bus.registry.crew import DRAIN_SECONDS, Crew
from hive_bus.registry.enrolment import Enrolment, package_version
from hive_bus.registry.registry import HEALTH_SECONDS


def brains() -> list[Brain[Any]]:
    """The four brains."""
    return [Queen(), Planner(), Reviewer(), Drone()]


class Colony:
    """Hosts brains, hands and the clock until cancelled or drained.

    ``tools`` are what drones and ``tool`` steps may use, ``open`` opens a model by name,
    ``extra_brains`` and ``extra_hands`` are a program's own, ``limits`` what all processes may use of what, by key,
    ``budget`` what all runs together may use.
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
        health_seconds: float = HEALTH_SECONDS,
        limits: Mapping[str, Limit] | None = None,
        budget: HiveBudget | None = None,
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
        self.hands = HandRunner(bus, hands, hosts=self.hosts, limits=limits, budget=budget)
        self.clock = Clock(bus, on_ready=self.hands.wake)
        self.crew = Crew(
            bus,
            [
                _enrolled(host.brain, self.hands if name == "drone" else None, hands)
                for name, host in self.hosts.items()
            ],
            [*self.hosts.values(), self.hands],
            beside=[self.clock],
            health_seconds=health_seconds,
        )

    async def run(self) -> None:
        """Serve until cancelled or drained."""
        try:
            await self.crew.run()
        finally:
            await self._models.close()

    async def drain(self, *, within: float = DRAIN_SECONDS) -> bool:
        """Take nothing new, hand over what others can have, finish the rest; see :class:`Crew`."""
        return await self.crew.drain(within=within)


def _enrolled(brain: Brain[Any], runner: HandRunner | None, hands: Sequence[Hand]) -> Enrolment:
    """A brain as the registry knows it; the drone brings the hands that do what the others ask for."""
    hands = hands if runner is not None else ()
    return Enrolment(
        name=brain.name,
        kind="brain",
        capabilities=tuple(sorted({queue.removeprefix("task:") for hand in hands for queue in hand.queues})),
        specialisation=(type(brain).__doc__ or "").strip().partition("\n")[0].replace("``", ""),
        version=package_version(),
        digest=decider(brain).rpartition(":")[2],
        concurrency=sum(hand.concurrency for hand in hands),
        follows=brain.folds,
        load=None if runner is None else runner.load,
    )
