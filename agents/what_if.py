"""What if: a run decided again on other terms, its effects answered from the log as far as the log has them.

Owns the hive beside: a log in a file of its own, thrown away afterwards, in which today's brains decide the run from
its request on. It reads the run's log and never writes to it. What is compared with what is its callers'.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.colony import brains
from agents.conversation import key_of_call
from agents.forking import Otherwise
from agents.hands import CommandHand, ModelHand, Places, TaskToolHand, ToolHand
from agents.model import Model
from agents.models import open_model
from agents.run import ENDS
from agents.tool import Tools
from hive_bus import Brain, Bus, Event, Hand, HandContext, Record, open_bus
from hive_bus.brains.brain import Input
from hive_bus.brains.host import BrainHost
from hive_bus.clock import Clock
from hive_bus.effects import EffectClass, Failure, Intent
from hive_bus.envelope import encode_event
from hive_bus.events import (
    ApprovalDenied,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRequested,
    ModelRequested,
    ModelResponded,
    TaskReady,
    ToolRequested,
    ToolReturned,
    WorkflowForked,
    WorkflowRequested,
)
from hive_bus.hands.runner import HandRunner
from hive_bus.reading import FROM_BEGINNING
from hive_core_db.records import AppendRequest, WorkEnd
from hive_errors import WhatIfRefused

__all__ = ["WhatIf", "what_if"]

QUIET_SECONDS = 0.2
"""What has no answer stops what needs it; the rest goes on until nothing was said for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What would have happened: the records, ``answered`` effects from the log, and the intents that it had no answer for.

    Costs in the records are what was paid for now: nothing for what the log answered.
    """

    records: Sequence[Record]
    answered: int
    new: Sequence[Record]
    ended: bool


async def what_if(
    bus: Bus,
    run: str,
    *,
    otherwise: Otherwise,
    tools: Tools,
    live: bool = False,
    answers: str | None = None,
) -> WhatIf:
    """Decide a run again from its request on; the n-th effect with a key in a stream has the n-th recorded result.

    The first effect that the log cannot answer ends it, and what runs beside that as far as the log has answers, unless it
    goes on ``live``: models are called, or the one that ``answers`` names (such as ``scripted:FILE``) in the place of all,
    and tools work in worktrees of their own, which are removed again; the run's branch is handed over to nobody.

    Raises :class:`NotFound`, :class:`WhatIfRefused`; live, also what making a worktree raises.
    """
    history = await bus.history(run)
    if history[0].topic != WorkflowRequested.TOPIC or history[0].correlation_id != run:
        raise WhatIfRefused(run=run, reason="it is a branch, or did not begin with a request")
    with tempfile.TemporaryDirectory(prefix="hive-what-if-") as directory:
        async with open_bus(str(Path(directory) / "hive.db"), source="what-if", nats="") as beside:
            opener = _opener(answers) if live or answers else None
            world = _World(history, beside, run, otherwise=otherwise, open_model=opener, tools=tools)
            return await world.live()


def _opener(answers: str | None) -> Callable[[str], Model]:
    return open_model if answers is None else lambda _: open_model(answers)


class _World:
    """One hive beside, for one question."""

    def __init__(
        self,
        history: Sequence[Record],
        bus: Bus,
        run: str,
        *,
        otherwise: Otherwise,
        open_model: Callable[[str], Model] | None,
        tools: Tools,
    ) -> None:
        self.bus, self.run, self.otherwise = bus, run, otherwise
        self.recordings = _Recordings(history)
        self.new: list[Record] = []
        self.stopped = asyncio.Event()
        self.working = 0
        self._history = history
        self._live = open_model is not None
        self._places = Places()
        self._model = ModelHand(open_model) if open_model is not None else None
        self._hands = self._all_hands(tools)

    def _all_hands(self, tools: Tools) -> list[Hand]:
        queues = {
            "task:run",
            "task:tool",
            *(f"task:{one.capability}" for one in self.recordings.steps if one.capability),
        }
        tool = ToolHand(self._places, tools) if self._live else None
        hands: list[Hand] = [
            _Answering(self, ModelRequested, ("model",), self._model),
            _Answering(self, ToolRequested, ("tool",), tool),
        ]
        for queue in sorted(queues):
            live: Hand | None = None
            if self._live and queue == "task:run":
                live = CommandHand(self._places)
            elif self._live and queue == "task:tool":
                live = TaskToolHand(self._places, tools)
            hands.append(_Answering(self, TaskReady, (queue,), live))
        return hands

    @property
    def branch(self) -> str:
        """The name under which worktrees are made: never the run's own."""
        return f"{self.run}-what-if"

    async def live(self) -> WhatIf:
        """Serve until the run has ended, or is stopped."""
        forked = WorkflowForked(
            parent=self.run,
            models=dict(self.otherwise.models),
            prompts=dict(self.otherwise.prompts),
            max_parallel=self.otherwise.max_parallel,
            review=self.otherwise.review,
            approve=self.otherwise.approve,
            # What is recorded is answered, also of what is unsafe; the hands refuse the rest.
            allow=("unsafe",),
        )
        hosts = {brain.name: BrainHost(self.bus, on_terms(brain, forked, self.run)) for brain in brains()}
        runner = HandRunner(self.bus, self._hands, hosts=hosts)
        clock = Clock(self.bus, on_ready=runner.wake)
        base = await self._begin()
        try:
            async with asyncio.TaskGroup() as services:
                serving = [services.create_task(host.run()) for host in hosts.values()]
                serving += [services.create_task(work) for work in (runner.run(), clock.run(), self._people())]
                ended = await self._until_the_end()
                for task in serving:
                    task.cancel()
        finally:
            if self._model is not None:
                await self._model.close()
            if base is not None:
                await (await self._places.repository(base)).cleanup(self.branch, forget=True)
        records = await self.bus.history(self.run)
        return WhatIf(records=records, answered=self.recordings.answered, new=self.new, ended=ended)

    async def _begin(self) -> str | None:
        """Ask for the run again; returns the repository's path where live effects need one."""
        asked = self._history[0]
        new = encode_event(
            asked.event,
            stream=f"{self.run}/run",
            correlation_id=self.run,
            source="what-if",
            event_id=asked.event_id,
            occurred_at=asked.occurred_at,
        )
        await self.bus.submit(AppendRequest(epoch=self.bus.writer.epoch, events=(new,)))
        workspace: Mapping[str, Any] = asked.data.get("workspace") or {}
        if not (self._live and workspace.get("base")):
            return None
        path = str(workspace["path"])
        await (await self._places.repository(path)).begin(self.branch, str(workspace["base"]), when=asked.time)
        return path

    async def _until_the_end(self) -> bool:
        """Whether the run ended by itself."""
        async with asyncio.TaskGroup() as waiting:
            ending = waiting.create_task(self._ended())
            stopping = waiting.create_task(self.stopped.wait())
            await asyncio.wait([ending, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                await self._quiet()
            ended = ending.done()
            ending.cancel()
            stopping.cancel()
        return ended

    async def _quiet(self) -> None:
        """Wait until nothing goes on any more but what nobody answers."""
        before, head = -1, await self.bus.head()
        while self.working or head != before:
            await asyncio.sleep(QUIET_SECONDS)
            before, head = head, await self.bus.head()

    async def _ended(self) -> None:
        async with self.bus.subscribe(*ENDS, start=FROM_BEGINNING) as records:
            async for _ in records:
                return

    async def _people(self) -> None:
        """Answer questions as people did."""
        async with self.bus.subscribe(ApprovalRequested.TOPIC, start=FROM_BEGINNING) as records:
            async for record in records:
                answer = self.recordings.take(record)
                if answer is None:
                    self.meet(record)
                    continue
                new = encode_event(
                    answer,
                    stream=record.stream,
                    correlation_id=self.run,
                    causation_id=record.event_id,
                    source="what-if",
                    event_id=self.bus.ids.event_id(self.bus.now()),
                )
                end = WorkEnd(work_id=record.event_id, fence=None)
                await self.bus.submit(AppendRequest(epoch=self.bus.writer.epoch, events=(new,), work=(end,)))

    def meet(self, record: Record) -> None:
        """An effect that the log has no answer for."""
        self.new.append(record)
        if not self._live or record.topic == ApprovalRequested.TOPIC:
            self.stopped.set()


class _Recordings:
    """The results of a run's effects, by stream and key, in the order in which they were asked for."""

    def __init__(self, history: Sequence[Record]) -> None:
        self.answered = 0
        self.steps = [record.event for record in history if isinstance(record.event, TaskReady)]
        results = {record.causation_id: record for record in history if record.topic in _RESULTS}
        self._waiting: dict[tuple[str, str], deque[Event]] = defaultdict(deque)
        for record in history:
            if isinstance(record.event, _ASKED) and record.event_id in results:
                self._waiting[_key(record)].append(results[record.event_id].event)

    def take(self, record: Record) -> Event | None:
        """The result of the next effect with this one's key, None where there is no more."""
        waiting = self._waiting[_key(record)]
        if not waiting:
            return None
        self.answered += 1
        return waiting.popleft()


_ASKED = (ModelRequested, ToolRequested, TaskReady, ApprovalRequested)
_RESULTS = frozenset(
    {"model.responded", "model.failed", "tool.returned", "tool.failed", "task.returned"}
    | {ApprovalGranted.TOPIC, ApprovalDenied.TOPIC, ApprovalExpired.TOPIC}
)
_INPUTS = ("tool", "input", "task_id", "kind", "command", "env", "approval_id")


def _key(record: Record) -> tuple[str, str]:
    data = record.data
    within = record.stream.removeprefix(f"{record.correlation_id}/")
    plain = {name: data[name] for name in _INPUTS if name in data}
    return within, data.get("effect_key") or key_of_call(record.topic, "", plain)


class _Answering(Hand):
    """Answers from the recordings; what they have not goes to the live hand, or stops the world."""

    def __init__(self, world: _World, intent: type[Intent], queues: tuple[str, ...], live: Hand | None) -> None:
        self.intent, self.queues, self.concurrency = intent, queues, 64
        self._world, self._live = world, live

    async def perform(self, intent: Any, ctx: HandContext) -> Event | Failure:
        """The recorded result, or the live hand's."""
        result = self._world.recordings.take(ctx.record)
        if result is not None:
            return _said(result)
        self._world.meet(ctx.record)
        if self._live is None:
            # Nobody answers it: the world ends here, and this with it.
            self._world.stopped.set()
            never: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
            return await never
        if getattr(intent, "tool", "") == "workspace.finish":
            commit = intent.input.get("commit")
            return ToolReturned(tool=intent.tool, output=str(commit), data={"commit": commit})
        if getattr(intent, "effect", None) is EffectClass.UNSAFE and not self._world.otherwise.unsafe:
            return Failure(reason="it is unsafe, and nothing of that kind happens in a what-if", kind="blocked")
        if not isinstance(intent, ModelRequested):
            ctx = replace(ctx, record=ctx.record._replace(correlation_id=self._world.branch))
        self._world.working += 1
        try:
            outcome: Event | Failure = await self._live.perform(intent, ctx)
        finally:
            self._world.working -= 1
        return outcome


def _said(result: Event) -> Event | Failure:
    if isinstance(result, ModelResponded):
        return result.model_copy(update={"cost": "0" if result.cost is not None else None})
    if result.TOPIC in {"model.failed", "tool.failed"}:
        return Failure(reason=getattr(result, "reason", ""), kind=getattr(result, "kind", "error"))
    return result


def on_terms(brain: Brain[Any], forked: WorkflowForked, run: str) -> Brain[Any]:
    """The brain, under a branch's terms from the first."""
    told = Input(forked, "", forked.TOPIC, "run", run, None, "what-if", 0)
    initial = brain.inherit(brain.initial(), told)
    cls = type(brain)
    made: Brain[Any] = type(cls.__name__, (cls,), {"initial": lambda _: initial, "__module__": cls.__module__})()
    return made
