"""The writer: one per process and store, it turns what waits into commits.

Group commit without a timer: what queued while the last commit ran is the next
batch, at most 500 events or 1 MB of payload (a larger request goes alone). Where the
log takes two appends at once, two lanes take turns, each with about half of what waits.
The writer knows neither topics nor bodies.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from hive_bus.order import touched
from hive_core_db.records import EPOCH, Appended, AppendRequest, FencedOff, StoredEvent, Verdict
from hive_core_db.store import EventLog
from hive_errors import BusClosed, EpochOver, HiveError

BATCH_EVENTS: Final = 500
BATCH_BYTES: Final = 1_000_000
ROOM: Final = 10_000
SHARED: Final = 32
"""So many requests and more are shared out between idle lanes; fewer are one append."""

Committed = Callable[[Sequence[StoredEvent]], None]
_Waiting = tuple[AppendRequest, "asyncio.Future[Verdict]", "asyncio.Future[Verdict] | None"]


class _Batch:
    """What goes in one append, and what it touches: other lanes keep off that."""

    __slots__ = ("futures", "keys", "waiting")

    def __init__(self) -> None:
        self.waiting: list[_Waiting] = []
        self.keys: set[object] = set()
        self.futures: set[asyncio.Future[Verdict] | None] = set()


class Writer:
    """Appends for this process.

    Guarantees:
        A request is in the log whole or not at all, also when its caller was cancelled. Requests that touch the
        same stream, correlation, work item, partition or document are appended in the order of ``submit``; all are
        where the log has one lane.
        A verdict, and a store's error, reaches exactly the requests it is about; the
        writer lives on. When the log is in another epoch, that error is :class:`EpochOver`. Callbacks of ``on_commit`` run on the loop after each commit,
        before any caller of that batch resumes.
    """

    def __init__(self, log: EventLog, *, epoch: int, place: str = "the log") -> None:
        self.epoch = epoch
        self._place = place
        self._log = log
        self._queue: deque[_Waiting] = deque()
        self._gates: deque[asyncio.Future[None]] = deque()
        self._callbacks: list[Committed] = []
        self._lanes = log.lanes
        self._under_way: list[_Batch] = []
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def submit(
        self, request: AppendRequest, *, after: asyncio.Future[Verdict] | None = None
    ) -> asyncio.Future[Verdict]:
        """Queue a request at once, in call order; the future is its verdict, or the store's error.

        Callers pipeline with it and bound themselves. A request that comes ``after`` another fails with that
        one's error if it failed: what was given to the store again is never overtaken.
        Raises :class:`BusClosed` after ``close``.
        """
        if self._closed:
            raise BusClosed(what="append", reason="the bus is closed")
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        verdict: asyncio.Future[Verdict] = loop.create_future()
        self._queue.append((request, verdict, after))
        self._rouse()
        return verdict

    async def append(self, request: AppendRequest) -> Verdict:
        """Queue a request and wait for its verdict; waits first while 10,000 requests do.

        A caller cancelled while it waits for the verdict leaves its request in the queue.
        """
        if self.full:
            await self._room()
        return await self.submit(request)

    @property
    def full(self) -> bool:
        """Whether so many requests wait that one more should wait outside."""
        return len(self._queue) >= ROOM

    def on_commit(self, callback: Committed) -> Callable[[], None]:
        """Call ``callback`` with all rows of each commit, ascending (of two lanes, the later commit may come first).

        Returns what ends that.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def run(self) -> None:
        """Commit until closed; then whatever still waits is committed, and it returns."""
        self._loop = asyncio.get_running_loop()
        try:
            if self._lanes == 1:
                await self._serve()
            else:
                async with asyncio.TaskGroup() as lanes:
                    for number in range(self._lanes):
                        lanes.create_task(self._serve(), name=f"hive-bus writer {number}")
        finally:
            self._closed = True
            self._refuse_the_rest()

    async def _serve(self) -> None:
        """One lane: an append after the other."""
        while True:
            # The log may advise fewer appends at once for a while.
            if self._queue and len(self._under_way) < self._log.lanes and (batch := self._take()).waiting:
                self._under_way.append(batch)
                try:
                    await self._commit(batch.waiting)
                    if self._log.lanes < self._lanes:
                        # Large batches go furthest now: who was just answered and goes on at once comes into the next one.
                        await asyncio.sleep(0)
                finally:
                    self._under_way.remove(batch)
                    # Another lane may have kept off what this one touched.
                    self._rouse()
            elif self._closed and not self._queue:
                self._rouse()
                return
            else:
                self._wake.clear()
                await self._wake.wait()

    async def close(self) -> None:
        """Take no more requests; ``run`` ends when those that wait are committed."""
        self._closed = True
        self._rouse()

    def _rouse(self) -> None:
        self._wake.set()

    def _take(self) -> _Batch:
        """The next batch, in order: up to what touches the same as an append that is under way."""
        queue, others = self._queue, self._under_way
        batch = _Batch()
        waiting, limit = batch.waiting, BATCH_EVENTS
        lanes = self._log.lanes
        if lanes > 1 and not others and len(queue) >= SHARED:
            limit = min(limit, -(-len(queue) // lanes))
        events = size = 0
        while queue:
            request, future, after = queue[0]
            if after is not None and after.done() and not after.cancelled() and (problem := after.exception()):
                _fail([queue.popleft()], problem)
                continue
            more_events, more_size = len(request.events) or 1, 0
            for event in request.events:
                more_size += len(event.payload)
            if waiting and (events + more_events > limit or size + more_size > BATCH_BYTES):
                break
            if self._lanes > 1:
                keys = set(touched(request))
                if any(after in other.futures or not keys.isdisjoint(other.keys) for other in others):
                    break
                batch.keys |= keys
                batch.futures.add(future)
            waiting.append(queue.popleft())
            events += more_events
            size += more_size
        self._open_gates()
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        try:
            verdicts = await self._log.append([request for request, _, _ in batch])
        except asyncio.CancelledError:
            unsure = BusClosed(
                what="append", reason="the bus was stopped during the commit; the events may be in the log"
            )
            _fail(batch, unsure)
            raise
        except Exception as problem:  # noqa: BLE001 - those who wait hear of it, whatever it is; the writer serves the next
            _fail(batch, problem)
            return
        if self._callbacks:
            self._tell([row for verdict in verdicts if type(verdict) is Appended for row in verdict.events])
        for (_, future, _), verdict in zip(batch, verdicts, strict=True):
            # A cancelled caller's future is done already; its request is in the log all the same.
            if future.done():
                continue
            if type(verdict) is FencedOff and verdict.what == EPOCH:
                # No verdict about this request: nothing that this process appends will ever be taken again.
                future.set_exception(EpochOver(url=self._place, held=verdict.held, actual=verdict.actual))
                # Some of those who asked are gone; whoever asks next hears the same.
                future.exception()
            else:
                future.set_result(verdict)

    def _tell(self, rows: Sequence[StoredEvent]) -> None:
        if not rows:
            return
        for callback in tuple(self._callbacks):
            callback(rows)

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        while len(self._queue) >= ROOM and not self._closed:
            gate = loop.create_future()
            self._gates.append(gate)
            try:
                await gate
            except asyncio.CancelledError:
                # The gate may have been opened in the same moment: whoever waits behind gets the place.
                self._open_gates()
                raise

    def _open_gates(self) -> None:
        places = ROOM - len(self._queue) if not self._closed else len(self._gates)
        while self._gates and places > 0:
            gate = self._gates.popleft()
            if not gate.done():
                gate.set_result(None)
                places -= 1

    def _refuse_the_rest(self) -> None:
        rest = list(self._queue)
        self._queue.clear()
        _fail(rest, BusClosed(what="append", reason="the bus was stopped before the commit; nothing was written"))
        self._open_gates()


def _fail(batch: Sequence[_Waiting], problem: BaseException) -> None:
    for _, future, _ in batch:
        if not future.done():
            # An error of its own for each: a raised one collects the traceback of its caller.
            future.set_exception(copy.copy(problem) if isinstance(problem, HiveError) else problem)
            # Some of those who asked may be gone, by the same trouble; that is no second one.
            future.exception()
