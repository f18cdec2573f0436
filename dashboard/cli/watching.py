"""Watching a run: its progress as it goes on, its questions asked or answered, and how it ended."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from dashboard.cli.live import Progress
from dashboard.cli.shell import Shell
from dashboard.cli.text import cut
from dashboard.views import Question, RunFold, RunView
from hive_bus.tasks import together
from hive_errors import NothingWaits

if TYPE_CHECKING:
    from agents.hive import Hive
    from agents.run import Run
    from hive_bus import Bus
    from hive_bus.signals import Signal

Approve = Literal["ask", "all", "none"]
_LOOK_AGAIN: Final = 0.1
"""Seconds between two looks whether anything but people can still move a run."""


class Watch:
    """Follows one run until it ends or, where nobody can be asked, waits for a person."""

    def __init__(self, shell: Shell, hive: Hive, run: Run, progress: Progress, *, approve: Approve) -> None:
        self.shell, self.hive, self.run, self.progress, self.approve = shell, hive, run, progress, approve
        self._fold = RunFold()
        self._changed = asyncio.Event()

    @property
    def view(self) -> RunView | None:
        """The run as of the last event seen."""
        return self._fold.view

    async def follow(self) -> RunView:
        """Return the run as it is when it has ended, or when only a person can move it."""
        async with together() as tasks:
            both = [
                tasks.create_task(self._events()),
                tasks.create_task(self._questions()),
                tasks.create_task(self.hive.serve()),
            ]
            if self.progress.hears:
                both.append(tasks.create_task(hearing(self.hive.bus, self.run.id, self.progress.hear)))
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
        view = self.view
        assert view is not None, "a run has at least its request"
        return view

    async def _events(self) -> None:
        async for record in self.run.events():
            self._fold.add(record)
            view = self._fold.view
            assert view is not None
            self.progress.show(record, view)
            self._changed.set()

    async def _questions(self) -> None:
        """Answer, ask, or return when there is nobody to ask and nothing else to do."""
        while True:
            questions = self.view.questions if self.view is not None else ()
            if not questions and not (self.view is not None and self.view.over_budget):
                self._changed.clear()
                await self._changed.wait()
            elif questions and self.approve != "ask":
                await self._answer(questions[0], yes=self.approve == "all")
            elif questions and self.shell.asks:
                await self._ask(questions[0])
            elif await self._stuck():
                return
            else:
                await asyncio.sleep(_LOOK_AGAIN)

    async def _ask(self, question: Question) -> None:
        """Ask on the terminal; somebody else may answer first."""
        self.progress.pause()
        what = f"{question.task_id}: {question.question}" if question.task_id else question.question
        self.shell.err.print(f"{cut(what, 400)} [y/N] ", end="", style="bold yellow")
        try:
            async with together() as tasks:
                reading = tasks.create_task(_line())
                elsewhere = tasks.create_task(self._gone(question))
                await asyncio.wait([reading, elsewhere], return_when=asyncio.FIRST_COMPLETED)
                reading.cancel()
                elsewhere.cancel()
            if elsewhere.done() and not elsewhere.cancelled():
                self.shell.say("", "answered elsewhere")
                return
        finally:
            self.progress.resume()
        await self._answer(question, yes=reading.result().strip().lower() in {"y", "yes"})

    async def _gone(self, question: Question) -> None:
        while self.view is not None and question in self.view.questions:
            self._changed.clear()
            await self._changed.wait()

    async def _answer(self, question: Question, *, yes: bool) -> None:
        from dashboard.cli.answers import login

        answer = self.hive.approve if yes else self.hive.deny
        try:
            await answer(self.run.id, question.approval_id, by=login())
        except NothingWaits:
            pass  # somebody else was faster
        await self._gone(question)

    async def _stuck(self) -> bool:
        """Whether only people can move the run: nothing but questions, or calls that no budget allows, is open, and every brain has seen everything."""
        store = self.hive.bus.store
        view = self.view
        assert view is not None
        items = await store.work.items(self.run.id)
        waits = {"approval.requested"}
        if view.over_budget:
            # The queen's timers only say when a drone has taken too long.
            waits |= {"model.requested", "timer.set"}
        if not items or any(item.topic not in waits or item.state == "claimed" for item in items):
            return False
        last = await store.log.last_of_correlation(self.run.id)
        for brain in ("queen", "planner", "reviewer", "drone"):
            partitions = await store.checkpoints.partitions(f"brain/{brain}")
            if not partitions or any(partition.position < last for partition in partitions):
                return False
        return last == view.position


async def hearing(bus: Bus, run: str, hear: Callable[[Signal], object]) -> None:
    """Let somebody hear what is said in a run, until the bus closes."""
    with bus.signals.listen(run) as heard:
        async for signal in heard:
            hear(signal)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _line() -> str:
    """A line of standard input, without blocking the loop; empty at its end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = sys.stdin.fileno()
    loop.add_reader(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 4096).decode(errors="replace")
