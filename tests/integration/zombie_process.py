"""A process that can be made a zombie: ``python -m tests.integration.zombie_process URL NAME TTL GATE WHOM``.

It hosts a brain that asks riddles of a hand (and says whom it asks: ``WHOM``) and tells the answer, a group that
hears what was told, and the clock. At its gate (``decision``, ``result``, ``checkpoint`` or ``none``) it says so in the log and
waits for a line of standard input; what the store then does not append, and what it was told to stop, it says as well.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hive_bus import Bus, Draft, Event, Hand, HandContext, Record, open_bus
from hive_bus.brains.brain import Brain, Input
from hive_bus.brains.host import BrainHost
from hive_bus.clock import Clock
from hive_bus.effects import EffectClass, Failure, Intent, WorkPolicy
from hive_bus.groups.handler import Context, HandlerGroup
from hive_bus.hands.runner import HandRunner
from hive_core_db.records import Appended, AppendRequest, Verdict

Gate = Literal["decision", "result", "checkpoint", "none"]
LISTENERS = "listeners"


class Asked(Event, topic="riddle.asked"):
    effect: EffectClass = EffectClass.IDEMPOTENT


class SolveRequested(Intent, topic="solve.requested", results=("solve.done",)):
    effect: EffectClass
    whom: str

    def work(self) -> WorkPolicy:
        """As the riddle says."""
        return WorkPolicy(labels=("solve",), effect=self.effect, backoff=0.1)


class SolveDone(Event, topic="solve.done"):
    by: str


class Told(Event, topic="riddle.told"):
    how: str


class Heard(Event, topic="zombie.heard"):
    member: str
    fence: int


class Nothing(Event, topic="zombie.nothing"):
    """Only shows that somebody can write."""


class Waiting(Event, topic="zombie.waiting"):
    member: str
    gate: str


class Refused(Event, topic="zombie.refused"):
    """What the store did not append: the kind of verdict, the topics of the request, and whether it moved a checkpoint."""

    member: str
    verdict: str
    topics: tuple[str, ...]
    moves: bool


class Stopped(Event, topic="zombie.stopped"):
    member: str


class Back(Event, topic="zombie.back"):
    """The process has a new lease."""

    member: str
    lease_id: str


@dataclass(frozen=True, slots=True)
class Riddle:
    """How far a riddle is."""

    told: int = 0


class Riddler(Brain[Riddle]):
    """Has every riddle solved, and tells the answer once."""

    name = "riddler"
    folds = ("riddle.*", "solve.*")
    home = "riddle"
    opens = "riddle.asked"

    def __init__(self, whom: str) -> None:
        self._whom = whom

    def initial(self) -> Riddle:
        """Not told."""
        return Riddle()

    def evolve(self, state: Riddle, record: Input) -> Riddle:
        """Count."""
        return replace(state, told=state.told + 1) if isinstance(record.event, Told) else state

    def decide(self, state: Riddle, record: Input) -> Sequence[Event | Draft]:
        """Ask the hand; tell what it brought."""
        match record.event:
            case Asked(effect=effect):
                return [SolveRequested(effect=effect, whom=self._whom)]
            case SolveDone(by=by):
                return [Told(how=f"solved by {by}")]
            case _ if record.event.TOPIC == "solve.failed":
                return [Told(how="unsolved")]
        return []


class Witness:
    """Says in the log what happens to the process, on a connection of its own; and is its gate."""

    def __init__(self, bus: Bus, name: str, gate: Gate) -> None:
        self._bus, self._name, self._gate = bus, name, gate
        self._open = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin, self._lift)

    async def wait_at(self, gate: Gate) -> None:
        """Wait, if that is the gate; the first time only."""
        if gate != self._gate or self._open.is_set():
            return
        await self.say(Waiting(member=self._name, gate=gate))
        await self._open.wait()

    async def say(self, event: Event) -> None:
        """Say it."""
        await self._bus.publish(event, stream=f"witness/{self._name}", apart=True)

    async def tell(self, request: AppendRequest, verdict: Verdict) -> None:
        """Say what the store did not append."""
        if not isinstance(verdict, Appended):
            topics = tuple(event.topic for event in request.events)
            kind, moves = type(verdict).__name__, bool(request.checkpoints)
            await self.say(Refused(member=self._name, verdict=kind, topics=topics, moves=moves))

    def _lift(self) -> None:
        sys.stdin.readline()
        asyncio.get_running_loop().remove_reader(sys.stdin)
        self._open.set()


class GatedLog:
    """A log whose appends of decisions wait at the gate: what arrives was made long ago. What is not appended is told."""

    def __init__(self, log: Any, witness: Witness) -> None:
        self._log, self._witness = log, witness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, batch: Sequence[AppendRequest]) -> list[Verdict]:
        """Wait, then append."""
        if any(event.decided_by for request in batch for event in request.events):
            await self._witness.wait_at("decision")
        verdicts: list[Verdict] = await self._log.append(batch)
        for request, verdict in zip(batch, verdicts, strict=True):
            await self._witness.tell(request, verdict)
        return verdicts


class Solver(Hand):
    """Solves at once, but for the gate."""

    intent = SolveRequested
    queues = ("solve",)

    def __init__(self, name: str, witness: Witness) -> None:
        self._name, self._witness = name, witness

    async def perform(self, intent: SolveRequested, ctx: HandContext) -> Event | Failure:
        """Say who solved it; whoever is told to stop says so."""
        try:
            await self._witness.wait_at("result")
        except asyncio.CancelledError:
            await self._witness.say(Stopped(member=self._name))
            raise
        return SolveDone(by=self._name)

    async def reconcile(self, intent: SolveRequested, ctx: HandContext) -> Event | Failure | None:
        """Whatever the one before did, it has left nothing."""
        return None


async def serve(url: str, name: str, ttl: float, gate: Gate, whom: str) -> None:
    """Host everything until SIGTERM."""
    async with open_bus(url, source=f"witness-{name}") as own, open_bus(url, source=name) as bus:
        bus.lease_seconds = ttl
        witness = Witness(own, name, gate)
        bus.writer._log = GatedLog(bus.store.log, witness)

        async def hear(record: Record, ctx: Context) -> None:
            await witness.wait_at("checkpoint")
            await ctx.publish(Heard(member=name, fence=ctx.fence), stream=f"heard/{record.stream}")

        host = BrainHost(bus, Riddler(whom), partitions=2)
        runner = HandRunner(bus, [Solver(name, witness)], hosts={"riddler": host})
        listeners = HandlerGroup(bus, hear, group=LISTENERS, patterns=("riddle.told",), partitions=2)
        clock = Clock(bus, on_ready=runner.wake)

        async def leases() -> None:
            while True:
                lease = await bus.open_lease()
                await witness.say(Back(member=name, lease_id=lease.lease_id))
                await lease.lost.wait()

        async with asyncio.TaskGroup() as tasks:
            services = [tasks.create_task(each.run()) for each in (host, runner, listeners, clock)]
            services.append(tasks.create_task(leases()))

            def end() -> None:
                for service in services:
                    service.cancel()

            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4], sys.argv[5]))  # type: ignore[arg-type]
