"""The hand runner: claims work for this process's hands, performs it, appends what came of it.

A claim is an append like any other: the item is taken and ``*.started`` is in the log,
or neither. A result is only appended as the completion of its item, under the claim's
fence; what comes too late is kept as ``*.superseded``. A result and the decision it
leads to share one append when nothing else waits for that key; when that decision asks
for what takes no time at all, that is done in the same append too, and so on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hive_bus.ahead import Ahead, provisional
from hive_bus.attempt import Claimed, backoff, lost_attempts, perform, raised
from hive_bus.bus import Bus
from hive_bus.effects import Failure, WorkPolicy
from hive_bus.envelope import encode_event
from hive_bus.event import Event
from hive_bus.hand import Hand, HandContext
from hive_bus.host import BrainHost
from hive_bus.lease import ProcessLease
from hive_bus.load import Load, Tally
from hive_bus.record import Record
from hive_bus.surely import patiently, surely
from hive_bus.telemetry import get_logger, with_correlation
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    NewEvent,
    StoredEvent,
    Verdict,
    WorkChange,
    WorkClaim,
    WorkEnd,
    WorkItem,
    WorkRetry,
    WorkTouch,
)
from hive_errors import HiveError

POLL = 1.0
PULL = 200
REMEMBERED = 10_000
CHAIN = 64
"""An append that does one thing after the other ends at so many events: others wait for the loop meanwhile."""
_CUT = (".attempt_failed", ".failed", ".cancelled")

_log = get_logger(__name__)


class HandRunner:
    """Runs hands in this process until cancelled; any number of processes share the queues."""

    def __init__(
        self, bus: Bus, hands: Sequence[Hand], *, hosts: Mapping[str, BrainHost[Any]] | None = None, worker: str = ""
    ) -> None:
        self.bus = bus
        self.worker = worker or bus.source
        self._hands = list(hands)
        self._hosts = hosts or {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._load = {id(hand): 0 for hand in hands}
        self._cancelled: dict[str, str] = {}
        self._ending: set[str] = set()
        self._chained: set[str] = set()
        self._intents: OrderedDict[str, Record] = OrderedDict()
        self._by_queue = {queue: hand for hand in reversed(hands) for queue in hand.queues}
        self._topics = {hand.intent.TOPIC for hand in hands}
        self._wake = asyncio.Event()
        self._own_head = 0
        self._draining = False
        self._tally = Tally()

    async def run(self) -> None:
        """Claim and perform until cancelled or drained; a lost lease ends everything it holds, and a new one begins."""
        forget = (self.bus.writer.on_commit(self._note), self.bus.tail.listen(self._cut_off))
        try:
            while not self._draining:
                try:
                    await self._serve(await patiently(self.bus.open_lease))
                except* _LeaseLost:
                    _log.error("hands.lease_lost", worker=self.worker)
        finally:
            for each in forget:
                each()

    async def _serve(self, lease: ProcessLease) -> None:
        """Claim and perform under this lease."""
        async with asyncio.TaskGroup() as group:
            watching = (
                group.create_task(_raise_when_lost(lease), name="hands:lease"),
                group.create_task(self._follow(), name="hands:follow"),
            )
            while not self._draining or self._running:
                self._wake.clear()
                await self._cancel_asked(lease)
                if self._draining or not await self._pull(lease, group):
                    await _wait(self._wake, POLL)
            for task in watching:
                task.cancel()

    def drain(self) -> None:
        """Claim nothing more; what runs goes on to its end, then ``run`` returns."""
        self._draining = True
        self._wake.set()

    def load(self) -> Load:
        """What runs here now, and what became of the rest."""
        return self._tally.load({hand: self._load[id(hand)] for hand in self._hands}, ending=self._ending)

    def _note(self, rows: Sequence[StoredEvent]) -> None:
        """Remember fresh intents of this process's commits: they need not be read again."""
        for row in rows:
            if row.topic in self._topics:
                if row.event_id in self._chained:
                    continue
                self._intents[row.event_id] = Record._make(row)
                self._wake.set()
            elif row.topic.endswith((".cancel_requested", ".attempt_failed")):
                self._wake.set()
        self._own_head = rows[-1].position
        while len(self._intents) > REMEMBERED:
            self._intents.popitem(last=False)

    async def _follow(self) -> None:
        """Wake up when another process appended something."""
        head = self.bus.tail.head
        while True:
            head = await self.bus.tail.wait(head)
            if head > self._own_head:
                self._wake.set()

    def wake(self) -> None:
        """Look again: time has made something ready."""
        self._wake.set()

    def _cut_off(self, rows: Sequence[StoredEvent]) -> None:
        """Somebody ended an attempt that runs here (a clock, whose timeout struck): it stops, and its slot is free."""
        for row in rows:
            work_id = row.causation_id or ""
            if work_id in self._running and work_id not in self._ending and row.topic.endswith(_CUT):
                self._ending.add(work_id)
                self._running[work_id].cancel()

    async def _pull(self, lease: ProcessLease, group: asyncio.TaskGroup) -> bool:
        """Claim what there are free slots for, in one read of all queues; whether more may be waiting."""
        free = {id(hand): hand.concurrency - self._load[id(hand)] for hand in self._hands}
        queues = [queue for queue, hand in self._by_queue.items() if free[id(hand)] > 0]
        limit = min(sum(slots for slots in free.values() if slots > 0), PULL)
        if not queues:
            return False
        items = await self.bus.store.work.claimable(queues, limit=limit, worker=self.worker)
        wanted, left = [], 0
        for item in items:
            hand = self._by_queue[item.queue]
            if free[id(hand)] <= 0:
                left += 1
            elif (found := await self._find(item, hand)) is not None:
                wanted.append(found)
                # What is done at once takes no slot.
                free[id(hand)] -= not hand.inline(found.intent)
        await self._claim(wanted, lease, group)
        # A full page of what only newer processes can read is no reason to ask again at once.
        return bool(wanted) and (len(items) == limit or left > 0)

    async def _find(self, item: WorkItem, hand: Hand) -> Claimed | None:
        """The item's intent; what this process cannot decode is left to others."""
        if item.work_id in self._running:
            return None
        record = self._intents.pop(item.work_id, None)
        if record is None:
            row = await self.bus.store.log.get(item.work_id)
            if row is None:
                return None
            record = Record._make(row)
        try:
            intent = record.event
        except HiveError as problem:
            _log.error("hand.undecodable", work_id=item.work_id, error=str(problem))
            return None
        if not isinstance(intent, hand.intent):
            return None
        # Whatever is in the queue has a policy.
        policy = intent.work() or WorkPolicy(labels=())
        return Claimed(item.work_id, record, intent, policy, hand, item.fence + 1, item.attempt + 1)

    async def _claim(self, wanted: Sequence[Claimed], lease: ProcessLease, group: asyncio.TaskGroup) -> None:
        """Claim them all in one commit; inline ones are done with it, the others start."""
        claims: list[tuple[Claimed, AppendRequest, asyncio.Future[Verdict]]] = []
        inline: list[Share] = []
        for claimed in wanted:
            if claimed.hand.inline(claimed.intent):
                inline.append(await self._at_once(claimed, lease))
                # Many of them are no reason to keep the loop from everybody else.
                await asyncio.sleep(0)
                continue
            started = self._event(claimed, claimed.intent.started(attempt=claimed.attempt, by=self.worker))
            claim = (_claim(claimed, lease),)
            request = AppendRequest(epoch=self.bus.writer.epoch, events=(started,), work=claim)
            claims.append((claimed, request, self.bus.writer.submit(request)))
        for claimed, request, future in claims:
            if isinstance(await surely(self.bus, request, future), Appended | AlreadyThere):
                self._start(claimed, group)
        for share in inline:
            await self._settle(share)

    async def _at_once(self, claimed: Claimed, lease: ProcessLease) -> Share:
        """Claim, perform and submit what takes no time; and what its result leads to, as far as that takes none either."""
        events, work = await self._whole(claimed, lease)
        ahead = self._ahead(claimed, events, work)
        if ahead is None:
            return self._submit(claimed, events, work, None)
        chained = []
        while len(ahead.events) < CHAIN and (following := self._following(ahead)) is not None:
            if not self._extend(ahead, *await self._whole(following, lease)):
                break
            chained.append(following.work_id)
        self._chained.update(chained)
        return self._submit(claimed, events, work, ahead, chained=chained)

    async def _whole(self, claimed: Claimed, lease: ProcessLease) -> tuple[list[NewEvent], tuple[WorkChange, ...]]:
        """All of an effect that takes no time: its claim, its start and its end."""
        started = self._event(claimed, claimed.intent.started(attempt=claimed.attempt, by=self.worker))
        try:
            outcome = await claimed.hand.perform(claimed.intent, self._context(claimed))
        except Exception as problem:  # noqa: BLE001 - as in `_perform`
            outcome = raised(claimed, problem)
        events, work = self._outcome(claimed, outcome)
        return [started, *events], (_claim(claimed, lease), *work)

    def _following(self, ahead: Ahead[Any]) -> Claimed | None:
        """The next intent of an append to come, if a hand of this process is done with it at once."""
        while ahead.intents:
            event, intent = ahead.intents.popleft()
            policy = intent.work()
            hand = None if policy is None else self._by_queue.get(policy.queue)
            if policy is None or hand is None or policy.waits_for != "hand" or policy.delay or policy.preferred:
                continue
            if isinstance(intent, hand.intent) and hand.inline(intent):
                return Claimed(event.event_id, provisional(event), intent, policy, hand, 1, 1)
        return None

    def _start(self, claimed: Claimed, group: asyncio.TaskGroup) -> None:
        work_id, hand = claimed.work_id, claimed.hand
        task = group.create_task(self._work(claimed), name=f"hand:{claimed.record.topic}:{work_id[-6:]}")
        self._running[work_id] = task
        self._load[id(hand)] += 1

        def done(_: asyncio.Task[None]) -> None:
            del self._running[work_id]
            self._load[id(hand)] -= 1
            self._ending.discard(work_id)
            self._cancelled.pop(work_id, None)
            self._wake.set()

        task.add_done_callback(done)

    async def _work(self, claimed: Claimed) -> None:
        """Perform one claimed item and append what came of it."""
        work_id = claimed.work_id
        with with_correlation(claimed.record.correlation_id):
            try:
                outcome = await self._perform(claimed)
            except asyncio.CancelledError:
                reason = self._cancelled.get(work_id)
                if reason is None or work_id in self._ending:
                    raise
                self._ending.add(work_id)
                event = self._event(claimed, claimed.intent.cancelled(reason))
                await self._end(claimed, None, [event], (WorkEnd(work_id=work_id, fence=claimed.fence),))
                return
            # From here on a request to cancel comes too late: what came of it is on its way.
            self._ending.add(work_id)
            events, work = self._outcome(claimed, outcome, lost=await self._lost(claimed, outcome))
            await self._end(claimed, outcome, events, work)

    async def _perform(self, claimed: Claimed) -> Event | Failure:
        return await perform(claimed, self._context(claimed))

    def _context(self, claimed: Claimed) -> HandContext:
        return HandContext(
            record=claimed.record,
            attempt=claimed.attempt,
            worker=self.worker,
            bus=self.bus,
            touch=lambda: self._touch(claimed),
        )

    async def _lost(self, claimed: Claimed, outcome: Event | Failure) -> int:
        """How many attempts ended because their process died; only asked where it matters."""
        last = claimed.attempt >= claimed.policy.max_attempts
        if isinstance(outcome, Failure) and outcome.retryable and last:
            return await lost_attempts(self.bus, claimed.record)
        return 0

    def _outcome(
        self, claimed: Claimed, outcome: Event | Failure, *, lost: int = 0
    ) -> tuple[list[NewEvent], tuple[WorkChange, ...]]:
        """The events and queue changes of an outcome: a result, another attempt, or the end."""
        work_id, fence = claimed.work_id, claimed.fence
        end: tuple[WorkChange, ...] = (WorkEnd(work_id=work_id, fence=fence),)
        self._tally.note(outcome, self.bus.now())
        if not isinstance(outcome, Failure):
            return [self._event(claimed, outcome)], end
        if outcome.retryable and claimed.attempt - lost < claimed.policy.max_attempts:
            wait = backoff(claimed, outcome, self.bus.ids.jitter())
            event = claimed.intent.attempt_failed(outcome, attempt=claimed.attempt, retry_in=round(wait, 3))
            retry = WorkRetry(work_id=work_id, fence=fence, delay=round(wait * 1_000_000))
            return [self._event(claimed, event)], (retry,)
        return [self._event(claimed, claimed.intent.failed(outcome, attempts=claimed.attempt))], end

    async def _end(
        self,
        claimed: Claimed,
        outcome: Event | Failure | None,
        events: list[NewEvent],
        work: tuple[WorkChange, ...],
    ) -> None:
        """Append an outcome; what is refused because the item is no longer ours is kept as superseded."""
        ahead = self._ahead(claimed, events, work)
        verdict = await self._settle(self._submit(claimed, events, work, ahead))
        if isinstance(verdict, Appended | AlreadyThere):
            return
        _log.warning("hand.superseded", work_id=claimed.work_id, verdict=type(verdict).__name__)
        if isinstance(outcome, Event):
            late = self._event(claimed, claimed.intent.superseded(outcome, attempt=claimed.attempt))
            await surely(self.bus, AppendRequest(epoch=self.bus.writer.epoch, events=(late,)))

    def _ahead(self, claimed: Claimed, events: Sequence[NewEvent], work: Sequence[WorkChange]) -> Ahead[Any] | None:
        """The events with the decisions they lead to, where the brain that asked is at rest here."""
        asker = (claimed.record.decided_by or "").partition("@")[0]
        host = self._hosts.get(asker)
        ahead = None if host is None else host.ahead(claimed.record.correlation_id)
        if host is None or ahead is None:
            return None
        if self._extend(ahead, events, work):
            return ahead
        host.settle_ahead(claimed.record.correlation_id, ahead)
        return None

    def _extend(self, ahead: Ahead[Any], events: Sequence[NewEvent], work: Sequence[WorkChange]) -> bool:
        """Decide on these events too; False: they go alone, and the brain fails on them where that parks their key."""
        try:
            ahead.add(events, work)
        except Exception as problem:  # noqa: BLE001 - a brain's mistake, whatever it is
            _log.warning("brain.not_ahead", correlation_id=events[0].correlation_id, error=str(problem))
            return False
        return True

    def _submit(
        self,
        claimed: Claimed,
        events: Sequence[NewEvent],
        work: tuple[WorkChange, ...],
        ahead: Ahead[Any] | None,
        *,
        chained: Sequence[str] = (),
    ) -> Share:
        """Submit the events, with what they lead to or alone."""
        alone = AppendRequest(epoch=self.bus.writer.epoch, events=tuple(events), work=work)
        together = None if ahead is None else ahead.request(alone.epoch)
        return Share(claimed.record, alone, together, ahead, chained, self.bus.writer.submit(together or alone))

    async def _settle(self, share: Share) -> Verdict:
        """The verdict of the events; if they could not share an append with a decision, they go alone."""
        if share.together is None or share.ahead is None:
            return await surely(self.bus, share.alone, share.future)
        try:
            verdict = await surely(self.bus, share.together, share.future)
        finally:
            self._chained.difference_update(share.chained)
            asker = (share.record.decided_by or "").partition("@")[0]
            self._hosts[asker].settle_ahead(share.record.correlation_id, share.ahead)
        if isinstance(verdict, Appended | AlreadyThere):
            return verdict
        return await surely(self.bus, share.alone)

    def _event(self, claimed: Claimed, event: Event) -> NewEvent:
        """A lifecycle event: into the intent's stream, caused by the intent."""
        now = self.bus.now()
        return encode_event(
            event,
            stream=claimed.record.stream,
            correlation_id=claimed.record.correlation_id,
            causation_id=claimed.record.event_id,
            source=self.worker,
            event_id=self.bus.ids.event_id(now),
            occurred_at=now,
        )

    def _touch(self, claimed: Claimed) -> None:
        touch = WorkTouch(work_id=claimed.work_id, fence=claimed.fence)
        # Nobody waits for it: a touch that is refused belongs to work that somebody else has by now.
        _ = self.bus.writer.submit(AppendRequest(epoch=self.bus.writer.epoch, work=(touch,)))

    async def _cancel_asked(self, lease: ProcessLease) -> None:
        """Stop what somebody asked to end."""
        if not self._running:
            return
        asked = await self.bus.store.work.cancelled(lease.lease_id)
        # A task that has not begun would end without a word: everything that was started has its first step.
        await asyncio.sleep(0)
        for work_id in asked:
            task = self._running.get(work_id)
            if task is not None and work_id not in self._cancelled and work_id not in self._ending:
                self._cancelled[work_id] = "cancelled on request"
                task.cancel()


@dataclass(frozen=True, slots=True)
class Share:
    """Events on their way: alone, or together with what they lead to; ``chained`` are the intents that end with them."""

    record: Record
    alone: AppendRequest
    together: AppendRequest | None
    ahead: Ahead[Any] | None
    chained: Sequence[str]
    future: asyncio.Future[Verdict]


def _claim(claimed: Claimed, lease: ProcessLease) -> WorkClaim:
    return WorkClaim(work_id=claimed.work_id, fence=claimed.fence - 1, lease_id=lease.lease_id)


class _LeaseLost(Exception):
    """This process's lease was closed by another: it must stop everything it holds."""


async def _raise_when_lost(lease: ProcessLease) -> None:
    await lease.lost.wait()
    raise _LeaseLost


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, or the time has passed."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
