"""A run as its starter sees it: its id, its events, its result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from hive_bus import Bus, Record
from hive_bus.events import WorkflowCancelled, WorkflowCompleted, WorkflowFailed
from hive_errors import TimedOut

Status = Literal["completed", "failed", "cancelled"]
ENDS = {"workflow.completed": "completed", "workflow.failed": "failed", "workflow.cancelled": "cancelled"}
REOPENS = "workflow.resumed"
PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. ``output`` is the last task's, ``reason`` says why it failed or was cancelled.

    ``branch`` and ``merge_command`` tell where the work lies when the workspace's branch could not be moved.
    """

    run: str
    status: Status
    output: str = ""
    reason: str = ""
    commit: str | None = None
    branch: str | None = None
    merge_command: str | None = None


class Run:
    """A handle on one run; any process may have one."""

    def __init__(self, bus: Bus, run_id: str) -> None:
        self.bus = bus
        self.id = run_id

    async def events(self, *, after: int = 0) -> AsyncIterator[Record]:
        """Every record of the run from position ``after`` on, as it happens; ends behind the run's end."""
        ended = False
        while True:
            head = await self.bus.head()
            async for record in self._page(after):
                after = record.position
                ended = record.topic in ENDS or (ended and record.topic != REOPENS)
                yield record
            if ended:
                return
            await self.bus.tail.wait(head)

    async def _page(self, after: int) -> AsyncIterator[Record]:
        while page := await self.bus.store.log.read_correlation(self.id, after=after, limit=PAGE):
            for row in page:
                yield Record._make(row)
            if len(page) < PAGE:
                return
            after = page[-1].position

    async def result(self, *, within: float | None = None) -> RunResult:
        """Wait for the run's end. Raises :class:`TimedOut` after ``within`` seconds."""
        try:
            async with asyncio.timeout(within):
                last: Record | None = None
                async for record in self.events():
                    if record.topic in ENDS:
                        last = record
        except TimeoutError:
            raise TimedOut(what=f"the end of run {self.id}", seconds=within or 0.0) from None
        assert last is not None, "events() ends behind an end"
        return result_of(last)


def result_of(record: Record) -> RunResult:
    """The result that a run's end event tells."""
    match record.event:
        case WorkflowCompleted() as event:
            return RunResult(
                run=record.correlation_id,
                status="completed",
                output=event.output,
                commit=event.commit,
                branch=event.branch,
                merge_command=event.merge_command,
            )
        case WorkflowFailed(reason=reason):
            return RunResult(run=record.correlation_id, status="failed", reason=reason)
        case WorkflowCancelled(reason=reason):
            return RunResult(run=record.correlation_id, status="cancelled", reason=reason)
        case _:
            raise TypeError(f"{record.topic} ends no run")
