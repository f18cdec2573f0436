"""The clock: the one place where time enters the log.

In any process, any number at once: it takes the queue's due rows (timers, retries,
expired leases, timeouts, cancellations) and appends what they mean, conditional on the
row's fence, so that of several clocks one prevails and a hand that was quicker wins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hive_bus.bus import Bus
from hive_bus.effects import LOST_ATTEMPTS, EffectClass, Failure, Intent, WorkPolicy
from hive_bus.envelope import encode_event
from hive_bus.event import Event, event_class
from hive_bus.hands.attempt import LOST, lost_attempts
from hive_bus.hands.budgets import release
from hive_bus.lease import reap_dead
from hive_bus.record import Record
from hive_bus.surely import patiently, surely
from hive_bus.tasks import set_within
from hive_bus.telemetry import get_logger
from hive_core_db.records import AppendRequest, StoredEvent, WorkChange, WorkEnd, WorkItem, WorkRetry
from hive_errors import HiveError

POLL = 1.0
NEARLY = 0.005
"""The database's clock is behind what this process takes it for: a moment later it is due there too."""
PAGE = 200

_log = get_logger(__name__)


class Struck(NamedTuple):
    """How many due rows were dealt with, and how many are left: to newer processes, or to later."""

    done: int
    left: int


class Clock:
    """Makes what is due happen, until cancelled. ``on_ready`` is told when work became claimable by time."""

    def __init__(self, bus: Bus, *, on_ready: Callable[[], None] | None = None) -> None:
        self.bus = bus
        self._on_ready = on_ready
        self._wake = asyncio.Event()
        self._reap_at = 0.0

    async def run(self) -> None:
        """Wait for the next due row, act, again; a poll underneath bounds what other processes add."""
        forget = self.bus.writer.on_commit(self._note)
        try:
            while True:
                self._wake.clear()
                await patiently(self._reap)
                due = await patiently(self.bus.store.work.next_due)
                if due is None or due > self.bus.now():
                    left = POLL if due is None else (due - self.bus.now()) / 1_000_000
                    await set_within(self._wake, min(max(left, 0.0), POLL))
                    continue
                struck = await patiently(self.strike)
                if not struck.done:
                    # What is left to newer processes stays due: nobody may run in circles for it.
                    await set_within(self._wake, POLL if struck.left else NEARLY)
        finally:
            forget()

    async def _reap(self) -> None:
        """Once a second, end the leases of processes that are gone: nobody waits for their time."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._reap_at:
            self._reap_at = loop.time() + POLL
            await reap_dead(self.bus.store.leases)

    async def strike(self) -> Struck:
        """Act on everything that is due now."""
        items = await self.bus.store.work.due(limit=PAGE)
        done = 0
        for item in items:
            done += await self._act(item)
        return Struck(done, len(items) - done)

    def _note(self, rows: Sequence[StoredEvent]) -> None:
        """Something was appended that falls due before the poll would see it."""
        if self._wake.is_set():
            return
        # What somebody acted upon in the very same commit waits for nothing.
        done = {row.causation_id for row in rows}
        if any(row.event_id not in done and _soon(row) for row in rows):
            self._wake.set()

    async def _act(self, item: WorkItem) -> bool:
        """Do what the row means; False: it is for a newer process, or for a later time."""
        if item.reason == "lease" and self.bus.rest():
            return False
        record, intent = await self._intent(item)
        if record is None or intent is None:
            return False
        if item.reason == "delay" and _policy(intent).waits_for != "time":
            if await self.bus.store.work.make_ready(item.work_id) and self._on_ready is not None:
                self._on_ready()
            return True
        event, change = meaning(item, intent, lost=await self._lost(item, record, intent))
        now = self.bus.now()
        new = encode_event(
            event,
            stream=record.stream,
            correlation_id=record.correlation_id,
            causation_id=record.event_id,
            source="clock",
            event_id=self.bus.ids.event_id(now),
            occurred_at=now,
        )
        back = await release(self.bus, record) if item.attempt and _policy(intent).spends else []
        await surely(self.bus.writer, AppendRequest(epoch=self.bus.writer.epoch, events=(new, *back), work=(change,)))
        if self._on_ready is not None and isinstance(change, WorkRetry):
            self._on_ready()
        return True

    async def _lost(self, item: WorkItem, record: Record, intent: Intent) -> int:
        """How many attempts' processes died before; only asked where it matters."""
        if item.reason not in _CUT_OFF or item.attempt < _policy(intent).max_attempts:
            return 0
        return await lost_attempts(self.bus, record)

    async def _intent(self, item: WorkItem) -> tuple[Record | None, Intent | None]:
        """The item's intent; one that this process cannot decode is left to newer ones."""
        row = await self.bus.store.log.get(item.work_id)
        if row is None:
            return None, None
        record = Record._make(row)
        try:
            body = record.event
        except HiveError as problem:
            _log.error("clock.undecodable", work_id=item.work_id, error=str(problem))
            return None, None
        return (record, body) if isinstance(body, Intent) else (None, None)


_TIMELY = (".attempt_failed", ".cancel_requested")
_CUT_OFF = {"lease": "its process is gone", "running": "it ran too long", "silent": "it fell silent"}


def _soon(row: StoredEvent) -> bool:
    """Whether the event makes something due within a poll's time."""
    if row.topic.endswith(_TIMELY):
        return True
    cls = event_class(row.topic)
    if cls is None or not issubclass(cls, Intent):
        return False
    try:
        intent = Record._make(row).event
    except HiveError:
        return False
    policy = intent.work() if isinstance(intent, Intent) else None
    if policy is None:
        return False
    times = (policy.waiting_timeout, policy.running_timeout, policy.silent_timeout, policy.total_timeout)
    soonest = min((seconds for seconds in times if seconds is not None), default=POLL)
    return 0 < policy.delay < POLL or policy.waits_for == "time" or soonest < POLL


def meaning(item: WorkItem, intent: Intent, *, lost: int = 0) -> tuple[Event, WorkChange]:
    """What a due row means: the event to append, and what becomes of the row (a pure function).

    ``lost`` is how many attempts before this one ended with their process.
    """
    end = WorkEnd(work_id=item.work_id, fence=item.fence)
    match item.reason:
        case "delay":
            return intent.due(), end
        case "cancel":
            return intent.cancelled("cancelled on request"), end
        case "total" if _policy(intent).waits_for == "person":
            return intent.due(), end
        case "lease" | "running" | "silent":
            return _cut_off(item, intent, lost)
        case _:
            reason = f"{item.reason} timeout: nobody ended it in time"
            return intent.failed(Failure(reason=reason, kind="timeout"), attempts=item.attempt), end


def _cut_off(item: WorkItem, intent: Intent, lost: int) -> tuple[Event, WorkChange]:
    """An attempt that nobody will finish: its effect class decides."""
    policy, gone = _policy(intent), item.reason == "lease"
    reason = _CUT_OFF[item.reason or "lease"]
    if policy.effect is EffectClass.UNSAFE:
        failure = Failure(reason=f"{reason}: it may have run, in part or in full", kind="unknown")
    else:
        failure = Failure(reason=reason, kind=LOST if gone else "timeout", retryable=True)
        # A process that died says nothing about the effect, unless they keep dying in it.
        if item.attempt - lost - gone < policy.max_attempts and lost < LOST_ATTEMPTS:
            event = intent.attempt_failed(failure, attempt=item.attempt, retry_in=0.0)
            return event, WorkRetry(work_id=item.work_id, fence=item.fence, delay=0)
    return intent.failed(failure, attempts=item.attempt), WorkEnd(work_id=item.work_id, fence=item.fence)


def _policy(intent: Intent) -> WorkPolicy:
    return intent.work() or WorkPolicy(labels=())
