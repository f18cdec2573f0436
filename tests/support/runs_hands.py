"""Stand-ins for commands, tools and models: what they answer follows from the intent alone, when and whether from chance.

No process, no file, no socket: an effect is a pause in virtual time. An attempt may be slow,
raise, fail for now, or hang until its time is over; the answer is the same in every attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import ClassVar

from hive_bus.effects import EffectClass, Failure
from hive_bus.event import Event
from hive_bus.events import ModelFailed, ModelRequested, TaskReady, TaskReturned, ToolRequested, ToolReturned
from hive_bus.hands.hand import Hand, HandContext
from tests.scenario.test_random_runs import some_reply
from tests.support.sample_hands import Moods


def answers_of(intent_id: str) -> Random:
    """The chance that decides what an effect answers: the same for each attempt and in each process."""
    return Random(f"answer {intent_id}")


class Command(Hand):
    """Stands for commands: fails now and then, hangs where a step has its own time, which it keeps."""

    intent = TaskReady
    queues = ("task:run",)
    keeps_time: ClassVar[bool] = True

    def __init__(self, moods: Moods, random: Random) -> None:
        self._moods, self._random = moods, random

    async def perform(self, intent: TaskReady, ctx: HandContext) -> Event | Failure:
        """Exit code 0 or 1, or too late."""
        try:
            async with asyncio.timeout(intent.timeout):
                if (intent.timeout or 60.0) < 10.0 and self._random.random() < 0.1:
                    await asyncio.get_running_loop().create_future()
                await asyncio.sleep(self._random.random() * 0.6)
                if (failure := self._moods.fails()) is not None:
                    return failure
        except TimeoutError:
            return _returned(intent, ctx, code=-9, reason="it took too long")
        return _returned(intent, ctx, code=int(answers_of(ctx.idempotency_key).random() < 0.2))

    async def reconcile(self, intent: TaskReady, ctx: HandContext) -> Event | Failure | None:
        """What is found when somebody asks what became of it."""
        found = answers_of(f"found {ctx.idempotency_key} {ctx.attempt}").random()
        if found < 0.3:
            return await super().reconcile(intent, ctx)
        return None if found < 0.6 else _returned(intent, ctx)


class StepTool(Hand):
    """Stands for the tools of ``tool`` steps; ``noop`` is done in the append that claims it."""

    intent = TaskReady
    queues = ("task:tool",)

    def __init__(self, moods: Moods, random: Random) -> None:
        self._moods, self._random = moods, random

    def inline(self, intent: TaskReady) -> bool:
        """As of the real one."""
        return intent.tool == "noop" and intent.effect is EffectClass.PURE

    async def perform(self, intent: TaskReady, ctx: HandContext) -> Event | Failure:
        """At once, or after a moment; what hangs is cut off by whoever looks at the time."""
        if self.inline(intent):
            return _returned(intent, ctx)
        if (intent.timeout or 60.0) < 10.0 and self._random.random() < 0.1:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self._random.random() * 0.4)
        return self._moods.fails() or _returned(intent, ctx)


class Tool(Hand):
    """Stands for the tools of drones, and for git: diffs, merges that may conflict, the handing over."""

    intent = ToolRequested
    queues = ("tool",)

    def __init__(self, moods: Moods, random: Random) -> None:
        self._moods, self._random = moods, random

    async def perform(self, intent: ToolRequested, ctx: HandContext) -> Event | Failure:
        """A commit of its own for whatever writes in git."""
        await asyncio.sleep(self._random.random() * 0.3)
        if (failure := self._moods.fails()) is not None:
            return failure
        answers = answers_of(ctx.idempotency_key)
        commit = f"c{answers.getrandbits(32):08x}" if intent.workspace.get("base") else None
        if intent.tool == "workspace.integrate" and answers.random() < 0.2:
            return ToolReturned(tool=intent.tool, is_error=True, data={"conflicts": ["a"], "head": commit})
        return ToolReturned(
            tool=intent.tool,
            tool_use_id=intent.tool_use_id,
            task_id=intent.task_id,
            output=f"did {intent.tool}",
            data={"head": commit},
            commit=commit,
            is_error=answers.random() < 0.1,
        )


class Model(Hand):
    """Stands for models: plans, verdicts, tool uses, nonsense, refusals."""

    intent = ModelRequested
    queues = ("model",)

    def __init__(self, moods: Moods, random: Random) -> None:
        self._moods, self._random = moods, random

    async def perform(self, intent: ModelRequested, ctx: HandContext) -> Event | Failure:
        """The answer of this very request."""
        await asyncio.sleep(self._random.random() * 0.5)
        if (failure := self._moods.fails()) is not None:
            return failure
        reply = some_reply(answers_of(ctx.idempotency_key), intent)
        return Failure(reason=reply.reason) if isinstance(reply, ModelFailed) else reply


def run_hands(random: Random, *, trouble: float) -> Sequence[Hand]:
    """One of each."""
    moods = Moods(random, trouble=trouble)
    return [kind(moods, random) for kind in (Command, StepTool, Tool, Model)]


def _returned(intent: TaskReady, ctx: HandContext, *, code: int = 0, reason: str = "") -> TaskReturned:
    return TaskReturned(
        task_id=intent.task_id,
        try_number=intent.try_number,
        outcome="failed" if code else "completed",
        output=f"{intent.task_id} said {answers_of(ctx.idempotency_key).randrange(1000)}",
        exit_code=code,
        reason=reason or (f"exit code {code}" if code else ""),
        attempts=ctx.attempt,
    )
