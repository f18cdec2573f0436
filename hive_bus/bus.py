"""The bus: publish, append, submit, read, subscribe, trace. One per process and database; ``opening`` opens it.

It puts the floors below together and owns the tasks of writer and tail; whatever has
rules of its own has a module: ``envelope`` makes rows, ``guards`` knows what may not be
published, ``history`` reads runs, ``reading`` and ``groups`` follow topics.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, assert_never

from hive_bus import history
from hive_bus.envelope import Collector, current_handler, encode_event, work_changes
from hive_bus.epochs import same_epoch
from hive_bus.event import Draft, Event
from hive_bus.guards import Guard, guard_of, guarded, no_run
from hive_bus.ids import Ids
from hive_bus.lease import TTL, ProcessLease, process_info, reap_dead
from hive_bus.reading import FROM_NOW, GroupKey, Start, read
from hive_bus.record import Record
from hive_bus.signals import Signals
from hive_bus.tail import Tail
from hive_bus.tasks import to_the_end
from hive_bus.telemetry import current_traceparent
from hive_bus.writer import Writer
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    Conflict,
    Corrupt,
    Ended,
    FencedOff,
    NewEvent,
    NotQuiet,
    Refused,
    Verdict,
)
from hive_core_db.store import Store
from hive_errors import BusClosed, DuplicateMismatch, Fenced, StreamConflict, WorkEnded

if TYPE_CHECKING:
    from hive_bus.history import Trace


class Bus:
    """The open bus; made by ``open_bus``.

    ``source`` names this program in the envelope of what it publishes. All methods are for the loop that opened it;
    ``get_event_bus`` is the front for other threads. ``about`` is what this process says of itself in its lease, JSON
    values; a renewal brings changes there. ``signals`` are what hands say while they work.
    """

    def __init__(self, store: Store, *, epoch: int, head: int, source: str, ids: Ids) -> None:
        self.store = store
        self.source = source
        self.ids = ids
        self.writer = Writer(store.log, epoch=epoch, place=store.url)
        self.tail = Tail(store.log, self.writer, head=head)
        self.signals = Signals()
        self.lease_seconds = TTL
        self.about: dict[str, Any] = process_info()
        # What a service of this process gave up over, by its name, in words for people; `hive status` shows it.
        self.given_up: dict[str, str] = {}
        self._services: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._spawned: set[asyncio.Task[None]] = set()
        self._lease: ProcessLease | None = None
        self._leasing = asyncio.Lock()

    def now(self) -> int:
        """Database time, UTC microseconds."""
        return self.store.now()

    async def publish(
        self,
        event: Event | Draft,
        *,
        stream: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        caused_by: Record | None = None,
        event_id: str | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        occurred_at: int | None = None,
        apart: bool = False,
    ) -> int:
        """Append one event and return its position once it is durable.

        Without a stream it goes to the stream named like its correlation id, and without that to
        a fresh one for both; a stream alone is its own correlation id. ``caused_by`` sets causation and correlation.
        ``occurred_at`` is UTC microseconds (None: when it was recorded). Publishing the same
        ``event_id`` with the same content again returns the first position.

        Inside a group's handler it only adds to the handler's append and returns 0 at once;
        ``apart=True`` appends now and gives up *exactly once*.

        Raises :class:`GuardedTopic`, :class:`PayloadRefused`, :class:`DuplicateMismatch`,
        :class:`BusClosed`, or what the store failed with (:class:`StoreBusy`, :class:`StoreFull`); :class:`EpochOver`
        when the database was restored, copied or promoted: open a new bus.
        """
        handler = None if apart else current_handler.get()
        if handler is not None and handler.bus is not None and handler.bus is not self:
            handler = None  # another bus's handler publishes here: this is no part of its append
        if isinstance(event, Draft):
            stream, correlation_id = stream or event.stream, correlation_id or event.correlation_id
            causation_id, event_id = causation_id or event.causation_id, event_id or event.event_id
            source, metadata = source or event.source, metadata if metadata is not None else event.metadata
            occurred_at = occurred_at if occurred_at is not None else event.occurred_at
        if caused_by is None and handler is not None and causation_id is None and correlation_id is None:
            caused_by = handler.record
        if caused_by is not None:
            causation_id, correlation_id = (
                causation_id or caused_by.event_id,
                correlation_id or caused_by.correlation_id,
            )
        traceparent = current_traceparent()
        if traceparent is not None:
            metadata = {"traceparent": traceparent, **(metadata or {})}
        fresh = event_id is None and stream is None and correlation_id is None
        if correlation_id is None:
            correlation_id = stream or self.ids.run_id()
        new = encode_event(
            event,
            stream=stream or correlation_id,
            correlation_id=correlation_id,
            event_id=event_id or (handler and handler.next_id()) or self.ids.event_id(self.store.now()),
            source=source or self.source,
            causation_id=causation_id,
            occurred_at=occurred_at,
            metadata=metadata,
            fresh=fresh,
        )
        guard = None if fresh else guard_of(new.topic)
        if handler is not None:
            return await self._add(handler, new, event, guard)
        request = AppendRequest(
            epoch=self.writer.epoch,
            events=(new,),
            expected={} if guard is None else no_run(new),
            work=work_changes((event,), built_in=False),
        )
        writer = self.writer
        verdict = await (writer.append(request) if writer.full else writer.submit(request))
        if type(verdict) is Appended:
            return verdict.first
        if guard is not None and isinstance(verdict, Conflict):
            raise guarded(new, guard, verdict.stream)
        return accepted(verdict).first

    async def append(
        self,
        stream: str,
        events: Sequence[Event | Draft],
        *,
        expected: int | None = None,
        correlation_id: str | None = None,
        caused_by: Record | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Appended | AlreadyThere:
        """Append events to one stream, all or none; ``expected`` is the version it must have (0: no event yet).

        Raises :class:`StreamConflict` when it has another, else as ``publish``.
        """
        if caused_by is not None:
            correlation_id = correlation_id or caused_by.correlation_id
        news: list[NewEvent] = []
        for item in events:
            draft = item if isinstance(item, Draft) else Draft(event=item)
            news.append(
                encode_event(
                    item,
                    stream=stream,
                    correlation_id=correlation_id or draft.correlation_id or stream,
                    event_id=draft.event_id or self.ids.event_id(self.store.now()),
                    source=source or draft.source or self.source,
                    causation_id=draft.causation_id or (caused_by.event_id if caused_by is not None else None),
                    occurred_at=draft.occurred_at,
                    metadata=metadata if metadata is not None else draft.metadata,
                )
            )
        owned = [(new, guard) for new in news if (guard := guard_of(new.topic)) is not None]
        versions = {run: 0 for new, _ in owned for run in no_run(new)}
        if expected is not None:
            versions[stream] = expected
        request = AppendRequest(
            epoch=self.writer.epoch,
            events=tuple(news),
            expected=versions,
            work=work_changes(events, built_in=False),
        )
        verdict = await self.writer.append(request)
        if isinstance(verdict, Conflict):
            for new, guard in owned:
                if verdict.stream in no_run(new) and verdict.expected == 0:
                    raise guarded(new, guard, verdict.stream)
        return accepted(verdict)

    async def submit(self, request: AppendRequest) -> Appended | AlreadyThere:
        """Append a request as it is: for hosts, which answer for topics, fences and work themselves.

        Raises the verdict's error: :class:`StreamConflict`, :class:`Fenced`, :class:`WorkEnded`,
        :class:`DuplicateMismatch`, :class:`ValueRefused`.
        """
        return accepted(await self.writer.append(request))

    async def history(self, correlation_id: str, *, after: int = 0, at: int | None = None) -> list[Record]:
        """Every record of a run or correlation, in log order, above position ``after`` and up to ``at``.

        A branch's begins with its ancestors', up to where it was forked; these keep their correlation id.
        Any unique prefix of four or more characters names it, ``@`` the last run. Raises :class:`NotFound`.
        """
        return await history.history(self.store.log, correlation_id, after=after, at=at)

    async def trace(self, correlation_id: str, *, at: int | None = None) -> Trace:
        """What caused what, as a tree, up to position ``at``. Raises :class:`NotFound`."""
        return await history.trace(self.store.log, correlation_id, at=at)

    async def resolve(self, name: str) -> str:
        """The correlation id that ``name`` means: itself, a unique prefix, or ``@``. Raises :class:`NotFound`."""
        return await history.resolve(self.store.log, name)

    def read(self, *patterns: str, after: int = 0, until: int | None = None) -> AsyncIterator[Record]:
        """Records of these topics (none: all) above ``after``, up to ``until`` or the head as it is now."""
        return read(self.store.log, patterns, after=after, until=until)

    def subscribe(
        self, *patterns: str, group: str | None = None, start: Start = FROM_NOW, key: GroupKey = "stream"
    ) -> AbstractAsyncContextManager[AsyncIterator[Record]]:
        """Follow topics: ``async with bus.subscribe("task.*") as records: async for record in records: ...``.

        Without a group: from ``start`` on (``FROM_NOW``, ``FROM_BEGINNING`` or a position), remembered
        nowhere. With one: the group's members share the records by ``key`` (``stream`` or ``correlation``);
        a record counts as handled when the next one is asked for.
        """
        from hive_bus.groups.subscription import subscribe  # groups stand on the bus

        return subscribe(self, patterns, group=group, start=start, key=key)

    async def head(self) -> int:
        """The last position of the log, 0 when it is empty."""
        return await self.store.log.head()

    async def get(self, event_id: str) -> Record | None:
        """The record of an event id."""
        row = await self.store.log.get(event_id)
        return None if row is None else Record._make(row)

    async def open_lease(self) -> ProcessLease:
        """This process's lease: opened at first, anew after a loss. Raises :class:`BusClosed`, :class:`EpochOver`."""
        async with self._leasing:
            if self._services is None or self._tasks is None:
                raise BusClosed(what="lease", reason="the bus is closed")
            if self._lease is None or not self._lease.usable:
                if self._lease is not None:
                    await same_epoch(self.store, self.writer.epoch)
                await reap_dead(self.store.leases)
                self._lease = ProcessLease(
                    self.store.leases, owner=self.source, now=self.now, ttl=self.lease_seconds, info=self.about
                )
                try:
                    await self._lease.open()
                finally:
                    if self._lease.usable:
                        self._tasks.create_task(self._lease.serve(), name="hive-bus lease")
            return self._lease

    def rest(self) -> float:
        """For how many seconds more nothing is taken from others whose leases are over (:meth:`ProcessLease.rest`)."""
        return self._lease.rest() if self._lease is not None else 0.0

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run ``work`` beside the bus, which cancels it when it closes. It must not raise: that would end the bus."""
        if self._services is None or self._tasks is None:
            work.close()
            raise BusClosed(what=name, reason="the bus is closed")
        task = self._tasks.create_task(work, name=name)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task

    async def close(self) -> None:
        """Commit what waits, end the services, close the store; a cancellation meanwhile comes after that. Closing twice is fine."""
        services, self._services = self._services, None
        if services is not None:
            await to_the_end(self._close(services))

    async def _close(self, services: asyncio.Task[None]) -> None:
        self.signals.close()
        if self._spawned:
            for task in self._spawned:
                task.cancel()
            await asyncio.wait(tuple(self._spawned))
        try:
            if self._lease is not None:
                await self._lease.close()
        finally:
            await self.tail.close()
            await self.writer.close()
            try:
                await services
            finally:
                await self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to serve; ``open_bus`` has done so."""
        if self._services is None:
            serving = asyncio.Event()
            # The bus owns this one task and ends it in `close`; everything else lives in its task group.
            self._services = asyncio.get_running_loop().create_task(self._serve(serving), name="hive-bus")
            await serving.wait()

    async def _serve(self, serving: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as services:
            self._tasks = services
            serving.set()
            services.create_task(self.writer.run(), name="hive-bus writer")
            services.create_task(self.tail.run(), name="hive-bus tail")

    async def _add(self, handler: Collector, new: NewEvent, item: Event | Draft, guard: Guard | None) -> int:
        if guard is not None:
            for run in no_run(new):
                if await self.store.log.read_stream(run, limit=1):
                    raise guarded(new, guard, run)
                handler.expected[run] = 0
        handler.add(new, item)
        return 0


def accepted(verdict: Verdict) -> Appended | AlreadyThere:
    """The verdict if the request is in the log, else its error is raised."""
    match verdict:
        case Appended() | AlreadyThere():
            return verdict
        case Conflict(stream, expected, actual):
            raise StreamConflict(stream=stream, expected=expected, actual=actual)
        case NotQuiet(correlation_id, position):
            raise StreamConflict(stream=f"(correlation {correlation_id})", expected=0, actual=position)
        case FencedOff(what, held, actual):
            raise Fenced(what=what, held=held, actual=actual)
        case Ended(work_id):
            raise WorkEnded(work_id=work_id)
        case Corrupt(event_id):
            raise DuplicateMismatch(event_id=event_id)
        case Refused(error):
            raise error
        case _:
            assert_never(verdict)
