"""SIGTERM and Ctrl-C: a first SIGTERM drains, Ctrl-C or a second one stops the work in order, one more exits at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dashboard.cli.exits import INTERRUPTED

if TYPE_CHECKING:
    import asyncio

Result = TypeVar("Result")
Drain = Callable[[], Awaitable[object]]


class Interrupted(Exception):
    """A signal ended the work; ``signum`` says which came first, ``drained`` whether all that ran was finished."""

    def __init__(self, signum: int, *, drained: bool = False) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.drained = drained


class Interruptible(Generic[Result]):
    """Work that signals may end.

    SIGTERM calls ``drain`` (it returns whether everything was finished) and then cancels the work; SIGINT, a
    SIGTERM where nothing can be drained, and any signal during a drain cancel the work at once, which then
    leaves its leases in order. A signal after that exits: what is in the log is safe, and what holds leases is
    taken over.
    """

    def __init__(self, work: Coroutine[Any, Any, Result], *, drain: Drain | None = None) -> None:
        self._work = work
        self._drain = drain
        self._first: int | None = None
        self._stopping = False
        self._drained = False

    async def run(self) -> Result:
        """The work's result. Raises :class:`Interrupted`, and what the work fails with."""
        import asyncio

        from hive_bus.tasks import together

        loop = asyncio.get_running_loop()
        async with together() as group:
            task = group.create_task(self._work)
            drains: list[asyncio.Task[None]] = []

            def told(signum: int) -> None:
                if self._stopping:
                    os._exit(INTERRUPTED)
                if signum == signal.SIGTERM and self._drain is not None and self._first is None:
                    drains.append(group.create_task(self._drain_first(task, self._drain)))
                else:
                    self._stop(task)
                self._first = self._first or signum

            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(signum, told, signum)
            try:
                await asyncio.wait([task])
            finally:
                for signum in (signal.SIGINT, signal.SIGTERM):
                    loop.remove_signal_handler(signum)
                for drain in drains:
                    drain.cancel()
        if self._first is not None and task.cancelled():
            raise Interrupted(self._first, drained=self._drained)
        return task.result()

    async def _drain_first(self, task: asyncio.Task[Result], drain: Drain) -> None:
        self._drained = bool(await drain())
        self._stop(task)

    def _stop(self, task: asyncio.Task[Result]) -> None:
        self._stopping = True
        task.cancel()


async def interruptible(work: Coroutine[Any, Any, Result], *, drain: Drain | None = None) -> Result:
    """Run the work; see :class:`Interruptible`."""
    return await Interruptible(work, drain=drain).run()
