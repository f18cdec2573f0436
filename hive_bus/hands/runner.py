"""The hand runner: claims work for this process's hands, performs it, appends what came of it.

A claim is an append like any other: the item is taken and ``*.started`` is in the log,
or neither. A result is only appended as the completion of its item, under the claim's
fence; what comes too late is kept as ``*.superseded``. A result and the decision it
leads to share one append when nothing else waits for that key; when that decision asks
for what takes no time at all, that is done in the same append too, and so on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hive_bus.brains.ahead import Ahead, provisional
from hive_bus.brains.host import BrainHost
from hive_bus.budget import HiveBudget
from hive_bus.bus import Bus
from hive_bus.events.budget import BudgetSet
from hive_bus.hands.attempt import ASKED, CUT, Claimed, interruptions, perform, raised
from hive_bus.hands.budgets import Budgets
from hive_bus.hands.capacity import Capacity
from hive_bus.hands.delivery import Delivery, Share
from hive_bus.hands.hand import Hand, HandContext
from hive_bus.hands.load import Load
from hive_bus.hands.offers import FARTHEST, Offers
from hive_bus.lease import LeaseLost, ProcessLease
from hive_bus.limit import Limit
from hive_bus.surely import patiently, surely
from hive_bus.tasks import heed_cancellation, set_within
from hive_bus.telemetry import get_logger, with_correlation
from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    Conflict,
    NewEvent,
    StoredEvent,
    Verdict,
    WorkChange,
    WorkClaim,
    WorkEnd,
    WorkTouch,
)
from hive_errors import BusClosed

POLL = 1.0
PULL = 200
CHAIN = 64
"""An append that does one thing after the other ends at so many events: others wait for the loop meanwhile."""

_log = get_logger(__name__)


class HandRunner:
    """Runs hands in this process until cancelled; any number of processes share the queues."""

    def __init__(
        self,
        bus: Bus,
        hands: Sequence[Hand],
        *,
        hosts: Mapping[str, BrainHost[Any]] | None = None,
        worker: str = "",
        limits: Mapping[str, Limit] | None = None,
        budget: HiveBudget | None = None,
    ) -> None:
        self.bus = bus
        self.worker = worker or bus.source
        self.budgets = Budgets(bus, budget, worker=self.worker)
        self.capacity = Capacity(bus.store.limits, limits or {}, wake=self.wake)
        self._hands = list(hands)
        self._running: dict[str, asyncio.Task[None]] = {}
        # Where in the log each was claimed, and for which run.
        self._claims: dict[str, tuple[int, str]] = {}
        self._load = {id(hand): 0 for hand in hands}
        self._cancelled: dict[str, str] = {}
        self._ending: set[str] = set()
        self._returning: set[str] = set()  # of those, whose outcome is being appended
        self._by_queue = {queue: hand for hand in reversed(hands) for queue in hand.queues}
        self._topics = {hand.intent.TOPIC for hand in hands}
        self._offers = Offers(bus, worker=self.worker, by_queue=self._by_queue)
        self._delivery = Delivery(bus, hosts or {}, worker=self.worker)
        self._wake = asyncio.Event()
        self._own_head = 0
        self._beyond = 0
        self._asked_at = float("-inf")
        self._draining = False

    async def run(self) -> None:
        """Claim and perform until cancelled or drained; a lost lease ends everything it holds, and a new one begins."""
        forget = (
            self.bus.writer.on_commit(self._note),
            self.bus.tail.listen(self._cut_off, topics=interruptions(hand.intent for hand in self._hands)),
            self.bus.tail.listen(self.budgets.note, topics=(BudgetSet.TOPIC,)),
        )
        try:
            while not self._draining:
                try:
                    await self._serve(await patiently(self.bus.open_lease))
                except* LeaseLost:
                    _log.error("hands.lease_lost", worker=self.worker)
                    heed_cancellation()
        except asyncio.CancelledError:
            if self.capacity.limits:
                self._let_go()
            raise
        finally:
            for each in forget:
                each()

    async def _serve(self, lease: ProcessLease) -> None:
        """Claim and perform under this lease."""
        self._offers.begin(lease.lease_id)
        self.capacity.begin(lease.lease_id)
        async with asyncio.TaskGroup() as group:
            watching = [
                group.create_task(lease.raise_when_lost(), name="hands:lease"),
                group.create_task(self._follow(), name="hands:follow"),
            ]
            if self.capacity.limits:
                watching.append(group.create_task(self.capacity.run(), name="hands:capacity"))
            while not self._draining or self._running:
                self._wake.clear()
                await self._cancel_asked(lease)
                # What was just started takes its first step: it may be done with that.
                await asyncio.sleep(0)
                if self._draining or len(self._returning) > sum(self._free().values()):
                    # More slots come back with the next commit than are free: one look will do for these and those.
                    await set_within(self._wake, POLL)
                # A database that is away fails before anything is claimed: from there on the appends are patient.
                elif not await patiently(partial(self._pull, lease, group)):
                    await set_within(self._wake, self.capacity.pause(self._offers.pause(POLL)))
            for task in watching:
                task.cancel()
        if self.capacity.limits:
            await self.capacity.end()

    def _let_go(self) -> None:
        """The lease may go on under a bus that does: what is held of limits must not."""
        ending = self.capacity.end()
        try:
            _ = self.bus.spawn(ending, name="hands: limits")
        except (BusClosed, RuntimeError):
            # The bus ends in this moment, and the lease with it.
            ending.close()

    def drain(self) -> None:
        """Claim nothing more; what runs goes on to its end, then ``run`` returns."""
        self._draining = True
        self._wake.set()

    def load(self) -> Load:
        """What runs here now, and what became of the rest."""
        running = {hand: self._load[id(hand)] for hand in self._hands}
        runs = (run for _, run in self._claims.values())
        return self._delivery.tally.load(running, ending={*self._ending, *self._cancelled}, runs=runs)

    def _note(self, rows: Sequence[StoredEvent]) -> None:
        """Remember fresh intents of this process's commits: they need not be read again."""
        for row in rows:
            if row.topic in self._topics:
                if row.event_id not in self._delivery.chained:
                    self._offers.note(row)
                    self._wake.set()
            elif row.topic.endswith((ASKED, ".attempt_failed")) or row.topic == BudgetSet.TOPIC:
                self._ask()
        self._own_head = rows[-1].position

    async def _follow(self) -> None:
        """Wake up when another process appended something."""
        while True:
            if await self.bus.tail.heard() > self._own_head:
                self._wake.set()

    def wake(self) -> None:
        """Look again: time has made something ready."""
        self._wake.set()

    def _cut_off(self, rows: Sequence[StoredEvent]) -> None:
        """Somebody ended an attempt that runs here (a clock, whose timeout struck): it stops, and its slot is free."""
        for row in rows:
            if row.topic.endswith(ASKED):
                self._ask()
            work_id = row.causation_id or ""
            # The tail may be behind the queue: what ended before this claim was somebody else's attempt.
            if row.position <= self._claims.get(work_id, (row.position,))[0] or not row.topic.endswith(CUT):
                continue
            if work_id not in self._ending:
                self._ending.add(work_id)
                self._running[work_id].cancel()

    def _free(self) -> dict[int, int]:
        return {id(hand): max(0, hand.concurrency - self._load[id(hand)]) for hand in self._hands}

    async def _pull(self, lease: ProcessLease, group: asyncio.TaskGroup) -> bool:
        """Claim what there are free slots for, in one read of all queues; whether more may be waiting."""
        self._offers.anew()
        free = self._free()
        queues = [queue for queue, hand in self._by_queue.items() if free[id(hand)] > 0]
        limited = bool(self.capacity.limits)
        shut: list[str] = []
        if limited:
            shut = [queue for queue in queues if self._waits_whole(queue) and self.capacity.shut(queue)]
            queues = [queue for queue in queues if queue not in shut]
        if not queues:
            return False
        items, more = await self._offers.page(queues, limit=min(sum(free.values()), PULL), beyond=self._beyond)
        self.capacity.look(shut)
        wanted: list[Claimed] = []
        late = 0
        for claimed in await self._offers.found([item for item in items if item.work_id not in self._running]):
            inline = claimed.hand.inline(claimed.intent)
            if limited and not inline and self.capacity.late(claimed):
                self._offers.keep(claimed)
                late += 1
            elif free[id(claimed.hand)] <= 0:
                more = True
                self._offers.keep(claimed)
            else:
                wanted.append(claimed)
                # What is done at once takes no slot.
                free[id(claimed.hand)] -= not inline
        allowed = await self._within_limits(wanted) if limited else wanted
        allowed = await self.budgets.affordable(allowed, self._context, put_back=self._put_back)
        if allowed:
            await self._claim(allowed, lease, group)
        waiting = late + len(wanted) - len(allowed)
        deeper = (waiting > 0 or self._beyond > 0) and self._look_deeper(waiting)
        # A page of what only newer processes can read, or of what is known to wait, is no reason to ask again at once.
        return more and (bool(wanted) or deeper)

    def _look_deeper(self, waiting: int) -> bool:
        """Look twice as far from now on as what waits for limits reaches; whether that is farther than before."""
        before, self._beyond = self._beyond, min(2 * waiting, FARTHEST)
        return self._beyond > before

    def _waits_whole(self, queue: str) -> bool:
        """Whether no effect of the queue can be one that takes no time, which no limit counts."""
        return type(self._by_queue[queue]).inline is Hand.inline

    async def _within_limits(self, wanted: Sequence[Claimed]) -> list[Claimed]:
        """Those that the limits allow; what is done at once takes nothing of them."""
        held = [claimed for claimed in wanted if not claimed.hand.inline(claimed.intent)]
        allowed = {claimed.work_id for claimed in await self.capacity.reserve(held)}
        waiting = {claimed.work_id for claimed in held} - allowed
        for claimed in held:
            if claimed.work_id in waiting:
                self._offers.keep(claimed)
        return [claimed for claimed in wanted if claimed.work_id not in waiting]

    def _put_back(self, claimed: Claimed) -> None:
        """No budget allows it now: it holds nothing of the limits meanwhile."""
        self.capacity.refund(claimed)
        self._offers.keep(claimed)

    async def _claim(self, wanted: Sequence[Claimed], lease: ProcessLease, group: asyncio.TaskGroup) -> None:
        """Claim them all in one commit; inline ones are done with it, the others start."""
        claims: list[tuple[Claimed, AppendRequest, asyncio.Future[Verdict]]] = []
        inline: list[Share] = []
        refused = 0
        for claimed in wanted:
            if claimed.hand.inline(claimed.intent):
                inline.append(await self._at_once(claimed, lease))
                # Many of them are no reason to keep the loop from everybody else.
                await asyncio.sleep(0)
                continue
            grant = self.budgets.grant(claimed)
            if grant is None:
                self._look_again(claimed)
                continue
            request = AppendRequest(
                epoch=self.bus.writer.epoch,
                events=(self._delivery.started(claimed), *grant.events),
                expected=grant.expected,
                work=(_claim(claimed, lease),),
            )
            claims.append((claimed, request, self.bus.writer.submit(request)))
            if grant.expected:
                # What is reserved next was reckoned behind this, and is void without it.
                refused += await self._begin(*claims.pop(), lease, group)
        for claim in claims:
            refused += await self._begin(*claim, lease, group)
        for share in inline:
            refused += not isinstance(await self._delivery.settle(share), Appended | AlreadyThere)
        self._offers.told(len(wanted), refused)

    async def _begin(
        self, claimed: Claimed, request: AppendRequest, future: asyncio.Future[Verdict],
        lease: ProcessLease, group: asyncio.TaskGroup,
    ) -> bool:  # fmt: skip
        """Start what was claimed; whether the claim was refused, for somebody else has the item."""
        verdict = await surely(self.bus.writer, request, future)
        if isinstance(verdict, Appended) or (isinstance(verdict, AlreadyThere) and await self._holds(claimed, lease)):
            self.budgets.begun(claimed)
            self._start(claimed, group, verdict.first)
            return False
        self.budgets.refused(claimed)
        if isinstance(verdict, Conflict):
            # A budget that others used meanwhile is no rivalry for the item.
            self._look_again(claimed)
            return False
        self.capacity.refund(claimed)
        return True

    def _look_again(self, claimed: Claimed) -> None:
        """It may be claimed, but not as it was reckoned: it is looked at again at once."""
        self.capacity.refund(claimed)
        self._wake.set()

    async def _holds(self, claimed: Claimed, lease: ProcessLease) -> bool:
        """Whether a claim whose reply was lost still holds: the item may have been taken away since."""
        item = await patiently(lambda: self.bus.store.work.item(claimed.work_id))
        return item is not None and (item.lease_id, item.fence) == (lease.lease_id, claimed.fence)

    async def _at_once(self, claimed: Claimed, lease: ProcessLease) -> Share:
        """Claim, perform and submit what takes no time; and what its result leads to, as far as that takes none either."""
        delivery = self._delivery
        events, work = await self._whole(claimed, lease)
        ahead = delivery.ahead(claimed, events, work)
        if ahead is None:
            return delivery.submit(claimed, events, work, None)
        chained = []
        while len(ahead.events) < CHAIN and (following := self._following(ahead)) is not None:
            if not delivery.extend(ahead, *await self._whole(following, lease)):
                break
            chained.append(following.work_id)
        delivery.chained.update(chained)
        return delivery.submit(claimed, events, work, ahead, chained=chained)

    async def _whole(self, claimed: Claimed, lease: ProcessLease) -> tuple[list[NewEvent], tuple[WorkChange, ...]]:
        """All of an effect that takes no time: its claim, its start and its end."""
        started = self._delivery.started(claimed)
        try:
            outcome = await claimed.hand.perform(claimed.intent, self._context(claimed))
        except Exception as problem:  # noqa: BLE001 - as in `perform`
            outcome = raised(claimed, problem)
        events, work = self._delivery.outcome(claimed, outcome)
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

    def _start(self, claimed: Claimed, group: asyncio.TaskGroup, position: int) -> None:
        work_id, hand = claimed.work_id, claimed.hand
        task = group.create_task(self._work(claimed), name=f"hand:{claimed.record.topic}:{work_id[-6:]}")
        self._running[work_id], self._claims[work_id] = task, (position, claimed.record.correlation_id)
        self._load[id(hand)] += 1

        def done(_: asyncio.Task[None]) -> None:
            del self._running[work_id], self._claims[work_id]
            self._load[id(hand)] -= 1
            self._ending.discard(work_id)
            self._returning.discard(work_id)
            self._cancelled.pop(work_id, None)
            self.capacity.release(claimed, None)
            self.budgets.over(claimed)
            self._wake.set()

        task.add_done_callback(done)

    async def _work(self, claimed: Claimed) -> None:
        """Perform one claimed item and append what came of it."""
        work_id, delivery = claimed.work_id, self._delivery
        with with_correlation(claimed.record.correlation_id):
            try:
                outcome = await perform(claimed, self._context(claimed))
            except asyncio.CancelledError:
                reason = self._cancelled.get(work_id)
                if reason is None or work_id in self._ending:
                    raise
                self._ending.add(work_id)
                ends = [delivery.event(claimed, claimed.intent.cancelled(reason)), *self.budgets.settled(claimed, None)]
                await delivery.finish(claimed, None, ends, (WorkEnd(work_id=work_id, fence=claimed.fence),))
                return
            # From here on a request to cancel comes too late: what came of it is on its way.
            self._ending.add(work_id)
            self._returning.add(work_id)
            # The slot is free when the work is done, not when that is in the log.
            self.capacity.release(claimed, outcome)
            events, work = delivery.outcome(claimed, outcome, lost=await delivery.lost(claimed, outcome))
            await delivery.finish(claimed, outcome, [*events, *self.budgets.settled(claimed, outcome)], work)

    def _context(self, claimed: Claimed) -> HandContext:
        return HandContext(
            record=claimed.record,
            attempt=claimed.attempt,
            worker=self.worker,
            bus=self.bus,
            touch=lambda: self._touch(claimed),
        )

    def _touch(self, claimed: Claimed) -> None:
        touch = WorkTouch(work_id=claimed.work_id, fence=claimed.fence)
        # Nobody waits for it: a touch that is refused belongs to work that somebody else has by now.
        _ = self.bus.writer.submit(AppendRequest(epoch=self.bus.writer.epoch, work=(touch,)))

    def _ask(self) -> None:
        self._asked_at = float("-inf")
        self._wake.set()

    async def _cancel_asked(self, lease: ProcessLease) -> None:
        """Stop what somebody asked to end: the queue knows. It is asked when an event says so, and once in a while."""
        now = asyncio.get_running_loop().time()
        if not self._running or now - self._asked_at < POLL:
            return
        self._asked_at = now
        asked = await patiently(lambda: self.bus.store.work.cancelled(lease.lease_id))
        # A task that has not begun would end without a word: everything that was started has its first step.
        await asyncio.sleep(0)
        for work_id in asked:
            task = self._running.get(work_id)
            if task is not None and work_id not in self._cancelled and work_id not in self._ending:
                self._cancelled[work_id] = "cancelled on request"
                task.cancel()


def _claim(claimed: Claimed, lease: ProcessLease) -> WorkClaim:
    return WorkClaim(work_id=claimed.work_id, fence=claimed.fence - 1, lease_id=lease.lease_id)
