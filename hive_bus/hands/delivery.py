"""Delivery: what comes of an attempt as appends, and the decisions that share them.

Owns which events an outcome means, and how an append with a decision ahead goes alone when it is refused. It knows
brains' hosts and the writer; it starts nothing and claims nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hive_bus.brains.ahead import Ahead
from hive_bus.brains.host import BrainHost
from hive_bus.bus import Bus
from hive_bus.effects import Failure
from hive_bus.envelope import encode_event
from hive_bus.event import Event
from hive_bus.events.budget import BudgetSettled
from hive_bus.hands.attempt import Claimed, backoff, lost_attempts
from hive_bus.hands.load import Tally
from hive_bus.record import Record
from hive_bus.surely import patiently, surely
from hive_bus.telemetry import get_logger
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    Ended,
    FencedOff,
    NewEvent,
    Verdict,
    WorkChange,
    WorkEnd,
    WorkRetry,
)
from hive_errors import BusClosed, HiveError

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """Events on their way: alone, or together with what they lead to; ``chained`` are the intents that end with them."""

    record: Record
    alone: AppendRequest
    together: AppendRequest | None
    ahead: Ahead[Any] | None
    chained: Sequence[str]
    future: asyncio.Future[Verdict]


class Delivery:
    """Appends what comes of attempts, for one process.

    ``chained`` are intents of appends on their way that end within them: they are nobody's to claim.
    """

    def __init__(self, bus: Bus, hosts: Mapping[str, BrainHost[Any]], *, worker: str) -> None:
        self.chained: set[str] = set()
        self.tally = Tally()
        self._bus = bus
        self._hosts = hosts
        self._worker = worker

    async def lost(self, claimed: Claimed, outcome: Event | Failure) -> int:
        """How many attempts ended because their process died; only asked where it matters."""
        last = claimed.attempt >= claimed.policy.max_attempts
        if isinstance(outcome, Failure) and outcome.retryable and last:
            return await patiently(lambda: lost_attempts(self._bus, claimed.record))
        return 0

    def outcome(
        self, claimed: Claimed, outcome: Event | Failure, *, lost: int = 0
    ) -> tuple[list[NewEvent], tuple[WorkChange, ...]]:
        """The events and queue changes of an outcome: a result, another attempt, or the end."""
        work_id, fence = claimed.work_id, claimed.fence
        end: tuple[WorkChange, ...] = (WorkEnd(work_id=work_id, fence=fence),)
        self.tally.note(outcome, self._bus.now())
        if not isinstance(outcome, Failure):
            return [self.event(claimed, outcome)], end
        if outcome.retryable and claimed.attempt - lost < claimed.policy.max_attempts:
            wait = backoff(claimed, outcome, self._bus.ids.jitter())
            event = claimed.intent.attempt_failed(outcome, attempt=claimed.attempt, retry_in=round(wait, 3))
            retry = WorkRetry(work_id=work_id, fence=fence, delay=round(wait * 1_000_000))
            return [self.event(claimed, event)], (retry,)
        return [self.event(claimed, claimed.intent.failed(outcome, attempts=claimed.attempt))], end

    def ahead(self, claimed: Claimed, events: Sequence[NewEvent], work: Sequence[WorkChange]) -> Ahead[Any] | None:
        """The events with the decisions they lead to, where the brain that asked is at rest here."""
        asker = (claimed.record.decided_by or "").partition("@")[0]
        host = self._hosts.get(asker)
        ahead = None if host is None else host.ahead(claimed.record.correlation_id)
        if host is None or ahead is None:
            return None
        if self.extend(ahead, events, work):
            return ahead
        host.settle_ahead(claimed.record.correlation_id, ahead)
        return None

    def extend(self, ahead: Ahead[Any], events: Sequence[NewEvent], work: Sequence[WorkChange]) -> bool:
        """Decide on these events too; False: they go alone, and the brain fails on them where that parks their key."""
        try:
            ahead.add(events, work)
        except Exception as problem:  # noqa: BLE001 - a brain's mistake, whatever it is
            _log.warning("brain.not_ahead", correlation_id=events[0].correlation_id, error=str(problem))
            return False
        return True

    def submit(
        self,
        claimed: Claimed,
        events: Sequence[NewEvent],
        work: tuple[WorkChange, ...],
        ahead: Ahead[Any] | None,
        *,
        chained: Sequence[str] = (),
    ) -> Share:
        """Submit the events, with what they lead to or alone."""
        alone = AppendRequest(epoch=self._bus.writer.epoch, events=tuple(events), work=work)
        together = None if ahead is None else ahead.request(alone.epoch)
        return Share(claimed.record, alone, together, ahead, chained, self._bus.writer.submit(together or alone))

    async def settle(self, share: Share) -> Verdict:
        """The verdict of the events; if they could not share an append with a decision, they go alone."""
        if share.together is None or share.ahead is None:
            return await surely(self._bus.writer, share.alone, share.future)
        try:
            verdict = await surely(self._bus.writer, share.together, share.future)
        finally:
            self.chained.difference_update(share.chained)
            asker = (share.record.decided_by or "").partition("@")[0]
            self._hosts[asker].settle_ahead(share.record.correlation_id, share.ahead)
        if isinstance(verdict, Appended | AlreadyThere) or _is_gone(share.record.event_id, verdict):
            return verdict
        return await surely(self._bus.writer, share.alone)

    async def finish(
        self,
        claimed: Claimed,
        outcome: Event | Failure | None,
        events: Sequence[NewEvent],
        work: tuple[WorkChange, ...],
    ) -> None:
        """Append an outcome; what is refused because the item is no longer ours is kept as superseded."""
        share = self.submit(claimed, events, work, self.ahead(claimed, events, work))
        try:
            verdict = await self.settle(share)
        except asyncio.CancelledError:
            # The lease was lost while the result was on its way: it is not forgotten for that.
            if isinstance(outcome, Event):
                with suppress(BusClosed):
                    # The bus owns the task; nobody waits for it.
                    _ = self._bus.spawn(self._after_all(claimed, outcome, share.alone), name="late result")
            raise
        await self._keep(claimed, outcome, verdict, share.alone)

    async def _after_all(self, claimed: Claimed, outcome: Event, alone: AppendRequest) -> None:
        """Ask again what became of a result, by its ids, and keep it if it was refused; never raises, for it runs beside the bus."""
        try:
            await self._keep(claimed, outcome, await surely(self._bus.writer, alone), alone)
        except HiveError as problem:
            _log.warning("hand.forgotten", work_id=claimed.work_id, error=str(problem))

    async def _keep(
        self, claimed: Claimed, outcome: Event | Failure | None, verdict: Verdict, alone: AppendRequest
    ) -> None:
        if isinstance(verdict, Appended | AlreadyThere):
            return
        _log.warning("hand.superseded", work_id=claimed.work_id, verdict=type(verdict).__name__)
        if isinstance(outcome, Event):
            late = self.event(claimed, claimed.intent.superseded(outcome, attempt=claimed.attempt))
            # It was paid for all the same.
            paid = [event for event in alone.events if event.topic == BudgetSettled.TOPIC]
            await surely(self._bus.writer, AppendRequest(epoch=self._bus.writer.epoch, events=(late, *paid)))

    def started(self, claimed: Claimed) -> NewEvent:
        """What is appended with the claim."""
        return self.event(claimed, claimed.intent.started(attempt=claimed.attempt, by=self._worker))

    def event(self, claimed: Claimed, event: Event) -> NewEvent:
        """A lifecycle event: into the intent's stream, caused by the intent."""
        now = self._bus.now()
        return encode_event(
            event,
            stream=claimed.record.stream,
            correlation_id=claimed.record.correlation_id,
            causation_id=claimed.record.event_id,
            source=self._worker,
            event_id=self._bus.ids.event_id(now),
            occurred_at=now,
        )


def _is_gone(work_id: str, verdict: Verdict) -> bool:
    """Whether the item itself is somebody else's by now, or nobody's: then nothing about it is accepted in any company."""
    match verdict:
        case Ended():
            return verdict.work_id == work_id
        case FencedOff():
            return verdict.what.startswith(f"work item {work_id},")
        case _:
            return False
