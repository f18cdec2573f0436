"""A run as its starter sees it: its id, its events, its result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from hive_bus import Bus, Record
from hive_bus.events import WorkflowCancelled, WorkflowCompleted, WorkflowFailed
from hive_bus.lineage import lineage, read_branch
from hive_core_db.records import StoredEvent
from hive_errors import TimedOut

Status = Literal["completed", "failed", "cancelled"]
ENDS = {"workflow.completed": "completed", "workflow.failed": "failed", "workflow.cancelled": "cancelled"}
TASK_ENDS = {"task.completed": False, "task.failed": True, "task.skipped": True, "task.cancelled": True}
"""The ends of tasks, and whether a person may ask for another try behind them."""


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
        ending = Ending(whole=not after)
        head = await self.bus.tail.refresh()
        async for record in self.recorded(after):
            after = record.position
            ending.see(record)
            yield record
        head = max(head, after)
        while ending.record is None:
            rows = await self.bus.tail.page(head)
            head = rows[-1].position if rows else head
            for row in rows:
                if row.correlation_id == self.id and row.position > after:
                    after = row.position
                    record = Record._make(row)
                    ending.see(record)
                    yield record

    async def recorded(self, after: int = 0) -> AsyncIterator[Record]:
        """The run's records that are in the log now; of a branch first those that it shares."""
        log = self.bus.store.log
        async for page in read_branch(log, await lineage(log, self.id), after=after):
            for row in page:
                yield Record._make(row)

    async def result(self, *, within: float | None = None) -> RunResult:
        """Wait for the run's end. Raises :class:`TimedOut` after ``within`` seconds."""
        coming = endings(self.bus).expect(self.id)
        try:
            async with asyncio.timeout(within):
                known = await self.ended()
                return result_of(known if known is not None else await coming, self.id)
        except TimeoutError:
            raise TimedOut(what=f"the end of run {self.id}", seconds=within or 0.0) from None
        finally:
            coming.cancel()

    async def ended(self) -> Record | None:
        """The record that ended the run, None while it has not, or goes on again."""
        ending = Ending()
        async for record in self.recorded():
            ending.see(record)
        return ending.record

    async def failed_tasks(self) -> list[str]:
        """The tasks that failed and were not tried again, in the order in which they did."""
        failed: dict[str, None] = {}
        async for record in self.recorded():
            if record.topic == "task.failed":
                failed[record.data["task_id"]] = None
            elif record.topic in {"task.retried", "task.completed"}:
                failed.pop(record.data["task_id"], None)
        return list(failed)


class Ending:
    """Follows a run's records to its end: ``record`` is the one that ended it, None while it goes on.

    A retry that the queen will take up opens the run again at once: whoever waits for its end waits on. One
    that nothing follows from, of a task that completed or that never was, does not. ``whole`` is False where
    the records do not begin with the run: a task that is not known may have failed before.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self.record: Record | None = None
        self._whole = whole
        self._tasks: list[Record] = []

    def see(self, record: Record) -> None:
        """The next record of the run."""
        if record.topic in ENDS:
            self.record = record
        elif record.topic in TASK_ENDS:
            self._tasks.append(record)
        elif self.record is None:
            return
        elif record.topic == "workflow.resumed" or (record.topic == "task.retry_requested" and self._taken_up(record)):
            self.record = None

    def _taken_up(self, wish: Record) -> bool:
        task = wish.data.get("task_id")
        last = next((end for end in reversed(self._tasks) if end.data["task_id"] == task), None)
        return not self._whole if last is None else TASK_ENDS[last.topic]


class Endings:
    """Tells whoever waits for a run's end; one listener for all of them, however many runs are open."""

    def __init__(self, bus: Bus) -> None:
        self._waiting: dict[str, list[asyncio.Future[Record]]] = {}
        bus.tail.listen(self._look)

    def expect(self, run_id: str) -> asyncio.Future[Record]:
        """The end of a run, if it comes from now on; cancel it when it is no longer awaited."""
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        waiting = [one for one in self._waiting.get(run_id, ()) if not one.done()]
        self._waiting[run_id] = [*waiting, future]
        return future

    def _look(self, rows: Sequence[StoredEvent]) -> None:
        for row in rows:
            if row.topic in ENDS:
                for future in self._waiting.pop(row.correlation_id, ()):
                    if not future.done():
                        future.set_result(Record._make(row))


_endings: WeakKeyDictionary[Bus, Endings] = WeakKeyDictionary()


def endings(bus: Bus) -> Endings:
    """The bus's one listener for ends."""
    known = _endings.get(bus)
    if known is None:
        known = _endings[bus] = Endings(bus)
    return known


def result_of(record: Record, run: str) -> RunResult:
    """The result of a run that its end event tells; a branch may have inherited its end."""
    match record.event:
        case WorkflowCompleted() as event:
            return RunResult(
                run=run,
                status="completed",
                output=event.output,
                commit=event.commit,
                branch=event.branch,
                merge_command=event.merge_command,
            )
        case WorkflowFailed(reason=reason):
            return RunResult(run=run, status="failed", reason=reason)
        case WorkflowCancelled(reason=reason):
            return RunResult(run=run, status="cancelled", reason=reason)
        case _:
            raise TypeError(f"{record.topic} ends no run")
