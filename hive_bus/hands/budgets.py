"""Budgets as they concern one process: what is reserved with a claim, and how it is settled.

A reservation is an event in the budget's stream, in the append that claims the work, and that append expects the stream's version:
whoever decided on an older state is refused and decides again. So two processes never give the same money away, and a claim that did not
happen has reserved nothing. Owns the accounts that this process has read; the log is the truth. It knows no queue.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from hive_bus.brains.ahead import provisional
from hive_bus.budget import NOTHING, Amounts, Budget, HiveBudget, Ledger, Refusal
from hive_bus.effects import Failure
from hive_bus.envelope import encode_event
from hive_bus.event import Event
from hive_bus.events.budget import BudgetCleared, BudgetExceeded, BudgetReserved, BudgetSet, BudgetSettled
from hive_bus.hands.attempt import Claimed
from hive_bus.hands.hand import HandContext
from hive_bus.lineage import lineage, read_branch_stream
from hive_bus.record import Record
from hive_bus.surely import patiently, surely
from hive_bus.telemetry import get_logger
from hive_core_db.records import AppendRequest, Conflict, NewEvent, StoredEvent
from hive_core_db.store import EventLog
from hive_errors import BudgetMoved

if TYPE_CHECKING:
    from hive_bus.bus import Bus

REMEMBERED: Final = 10_000
_PAGE: Final = 1000
_TRIES: Final = 20
_INHERITED: Final = frozenset({BudgetSet.TOPIC, BudgetExceeded.TOPIC, BudgetCleared.TOPIC})

_log = get_logger(__name__)


def stream_of(run: str) -> str:
    """The stream of a run's budget."""
    return f"{run}/budget"


def period_stream(budget: HiveBudget, now: int) -> str:
    """The stream of the hive's budget at a time (UTC microseconds): every period has one of its own, and begins with nothing used."""
    form = {"day": "budget/%Y-%m-%d", "month": "budget/%Y-%m", "ever": "budget/ever"}[budget.per]
    return datetime.fromtimestamp(now / 1_000_000, UTC).strftime(form)


@dataclass(slots=True)
class Account:
    """A budget's stream as this process knows it; ``run`` is empty for the hive's.

    ``pending`` counts claims on their way whose reservations it is taken to have: nothing is read until they are in the log, or not.
    """

    stream: str
    run: str = ""
    limits: Budget | None = None
    ledger: Ledger = field(default_factory=Ledger)
    version: int = 0
    pending: int = 0

    @property
    def whose(self) -> str:
        """For people."""
        return "run" if self.run else "hive"

    @property
    def limited(self) -> bool:
        """Whether anything is limited."""
        budget = self.ledger.limits or self.limits
        return budget is not None and bool(budget.limits)

    async def refresh(self, log: EventLog) -> None:
        """Read what was written since."""
        if self.pending:
            return
        while rows := await log.read_stream(self.stream, after=self.version, limit=_PAGE):
            for row in rows:
                self.ledger = self.ledger.after(Record._make(row))
            self.version = rows[-1].version


async def run_account(log: EventLog, run: str) -> Account:
    """The budget of a run or branch: a branch begins with its ancestors' limits, with nothing used, and paused where they were."""
    account = Account(stream_of(run), run)
    *ancestors, _ = await lineage(log, run)
    if ancestors:
        async for rows in read_branch_stream(log, ancestors, "budget"):
            for row in rows:
                if row.topic in _INHERITED:
                    account.ledger = account.ledger.after(Record._make(row))
    await account.refresh(log)
    return account


@dataclass(frozen=True, slots=True)
class Grant:
    """What goes into a claim's append: events, and the versions that their streams must have; ``amounts`` is what it reserves."""

    events: tuple[NewEvent, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)
    amounts: Amounts = NOTHING


@dataclass(frozen=True, slots=True)
class _Held:
    """What a claim reserved, and when the attempt began (the loop's time)."""

    amounts: Amounts
    streams: tuple[str, ...]
    began: float


class Budgets:
    """Reserves and settles for the hands of one process. ``hive`` is the budget of all runs together.

    ``affordable`` before a claim; then ``grant`` is part of it, and ``refused`` or ``begun`` and ``settled`` say how it went.
    """

    def __init__(self, bus: Bus, hive: HiveBudget | None, *, worker: str) -> None:
        self._bus, self._hive, self._worker = bus, hive, worker
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._free: OrderedDict[str, None] = OrderedDict()
        self._wanted: dict[str, Amounts] = {}
        # None: reckoned behind a claim that was refused.
        self._grants: dict[str, Grant | None] = {}
        self._held: dict[str, _Held] = {}

    def note(self, rows: Sequence[StoredEvent]) -> None:
        """What the tail has read: a run that had no budget may have got one."""
        for row in rows:
            if row.topic == BudgetSet.TOPIC:
                self._free.pop(row.correlation_id, None)

    async def affordable(
        self,
        wanted: Sequence[Claimed],
        context: Callable[[Claimed], HandContext],
        *,
        put_back: Callable[[Claimed], None],
    ) -> list[Claimed]:
        """Those that may be claimed now, in order, each with its reservation ready; ``put_back`` is told of the others."""
        # What the last look at the queue left unclear is read again.
        for stream in [stream for stream, account in self._accounts.items() if account.pending]:
            del self._accounts[stream]
        self._grants.clear()
        allowed = []
        for claimed in wanted:
            spends = claimed.policy.spends and not claimed.hand.inline(claimed.intent)
            if not spends or await self._reserve(claimed, context(claimed)):
                allowed.append(claimed)
            else:
                put_back(claimed)
        return allowed

    async def _reserve(self, claimed: Claimed, ctx: HandContext) -> bool:
        """Whether the claim may be made; then what it may use is set aside, and its ``grant`` is ready."""
        run = claimed.record.correlation_id
        if run in self._free:
            return True
        accounts = await self._known(run)
        limited = [account for account in accounts if account.limited]
        if not limited:
            self._forget(run)
            return True
        wanted = self._wanted.get(claimed.work_id) or await patiently(lambda: claimed.hand.most(claimed.intent, ctx))
        if wanted is None:
            return True
        if len(self._wanted) > REMEMBERED:
            self._wanted.clear()
        self._wanted[claimed.work_id] = wanted
        for account in limited:
            refusal = account.ledger.refuses(wanted, whose=account.whose, limits=account.limits)
            if refusal is not None:
                if not refusal.waits:
                    await self._say(accounts[0], claimed, refusal, account.whose)
                return False
        self._grants[claimed.work_id] = self._granted(claimed, accounts, wanted)
        return True

    def grant(self, claimed: Claimed) -> Grant | None:
        """What the claim's append has to hold besides; None: it was reckoned behind a claim that was refused, and is void.

        A version alone would not tell: what took the place of that claim may have reserved more.
        """
        return self._grants.get(claimed.work_id, _NO_GRANT)

    def refused(self, claimed: Claimed) -> None:
        """The claim did not happen, nor what was reserved with it: what was reckoned behind it is void, and the log read again."""
        grant = self._grants.pop(claimed.work_id, None)
        if grant is not None:
            self._grants = dict.fromkeys(self._grants)
            for stream in grant.expected:
                self._accounts.pop(stream, None)

    def begun(self, claimed: Claimed) -> None:
        """The claim is in the log."""
        self._wanted.pop(claimed.work_id, None)
        grant = self._grants.pop(claimed.work_id, None)
        if grant is None:
            return
        now = asyncio.get_running_loop().time()
        self._held[claimed.work_id] = _Held(grant.amounts, tuple(grant.expected), now)
        for stream in grant.expected:
            account = self._accounts.get(stream)
            if account is not None:
                account.pending -= 1

    def settled(self, claimed: Claimed, outcome: Event | Failure | None) -> list[NewEvent]:
        """The events that say what an attempt used, which go with its end; None: it was cancelled."""
        held = self._held.get(claimed.work_id)
        if held is None:
            return []
        used = Amounts() if outcome is None else claimed.hand.spent(claimed.intent, outcome)
        if used.usd is None:
            # Nobody knows what it cost: it is taken for what was set aside.
            used = replace(used, usd=held.amounts.usd)
        used = replace(used, seconds=asyncio.get_running_loop().time() - held.began)
        event = BudgetSettled(attempt=claimed.attempt, **used.fields)
        return [self._event(claimed, event, stream) for stream in held.streams]

    def over(self, claimed: Claimed) -> None:
        """The attempt is over, whatever came of it."""
        self._held.pop(claimed.work_id, None)

    # Inside.

    async def _known(self, run: str) -> list[Account]:
        """The accounts that a call of the run is charged to, as they are now; the run's own first."""
        log = self._bus.store.log
        stream = stream_of(run)
        account = self._accounts.get(stream)
        if account is None:
            account = self._accounts[stream] = await patiently(lambda: run_account(log, run))
        else:
            await patiently(lambda: account.refresh(log))
        self._accounts.move_to_end(stream)
        accounts = [account]
        if self._hive is not None:
            stream = period_stream(self._hive, self._bus.now())
            hive = self._accounts.setdefault(stream, Account(stream, limits=self._hive))
            await patiently(lambda: hive.refresh(log))
            accounts.append(hive)
        while len(self._accounts) > REMEMBERED:
            self._accounts.popitem(last=False)
        return accounts

    def _forget(self, run: str) -> None:
        """Nothing is limited for this run: it is asked no more."""
        self._accounts.pop(stream_of(run), None)
        self._free[run] = None
        while len(self._free) > REMEMBERED:
            self._free.popitem(last=False)

    def _granted(self, claimed: Claimed, accounts: Sequence[Account], wanted: Amounts) -> Grant:
        """The events of a reservation; the accounts are taken to have them from now on."""
        streams = tuple(account.stream for account in accounts)
        body = BudgetReserved(attempt=claimed.attempt, streams=streams, **wanted.fields)
        expected = {account.stream: account.version for account in accounts}
        events = [self._event(claimed, body, stream) for stream in streams]
        if accounts[0].ledger.exceeded:
            events.append(self._event(claimed, BudgetCleared(), streams[0]))
        for event in events:
            account = next(one for one in accounts if one.stream == event.stream)
            account.ledger = account.ledger.after(provisional(event))
            account.version += 1
        for account in accounts:
            account.pending += 1
        return Grant(tuple(events), expected, wanted)

    async def _say(self, account: Account, claimed: Claimed, refusal: Refusal, scope: str) -> None:
        """Say once in the run that its budget, or the hive's, does not allow the next call."""
        if account.ledger.exceeded == refusal.reason or account.pending:
            return
        _log.info("budget.exceeded", correlation_id=account.run, reason=refusal.reason)
        body = BudgetExceeded(reason=refusal.reason, kind=refusal.kind, scope=scope)
        event = self._event(claimed, body, account.stream)
        request = AppendRequest(
            epoch=self._bus.writer.epoch, events=(event,), expected={account.stream: account.version}
        )
        await surely(self._bus.writer, request)
        # Refused: somebody else was quicker with something. Both are read before the next look.
        self._accounts.pop(account.stream, None)

    def _event(self, claimed: Claimed, event: Event, stream: str) -> NewEvent:
        return _budget_event(self._bus, claimed.record, event, stream, source=self._worker)


_NO_GRANT: Final = Grant()


async def release(bus: Bus, intent: Record) -> list[NewEvent]:
    """The events that give back what a lost attempt of an intent had reserved; none where it had nothing."""
    account = await run_account(bus.store.log, intent.correlation_id)
    held = account.ledger.open.get(intent.event_id)
    if held is None:
        return []
    event = BudgetSettled(attempt=held.attempt, lost=True)
    return [_budget_event(bus, intent, event, stream, source="clock") for stream in held.streams]


def given_at_start(bus: Bus, run: str, budget: Budget) -> tuple[NewEvent, ...]:
    """What the append that asks for a run has to hold for it to have this budget; nothing where nothing is limited."""
    if not budget.limits:
        return ()
    event_id = bus.ids.event_id(bus.now())
    body = BudgetSet(limits=budget.limits)
    return (encode_event(body, stream=stream_of(run), correlation_id=run, source=bus.source, event_id=event_id),)


async def set_budget(
    bus: Bus, account: Account, *, add: Budget | None = None, change: Budget | None = None,
    without: tuple[str, ...] = (), by: str = "",
) -> Ledger:  # fmt: skip
    """Raise the limits of a budget by ``add``, or set those of ``change`` and take those of ``without`` away.

    Raises :class:`BudgetMoved` when others change it all the time.
    """
    for _ in range(_TRIES):
        await account.refresh(bus.store.log)
        limits = account.ledger.limits or account.limits or Budget()
        if add is not None:
            limits = limits.plus(add)
        if change is not None or without:
            limits = limits.but(change or Budget(), without=without)
        event = encode_event(
            BudgetSet(limits=limits.limits),
            stream=account.stream,
            correlation_id=account.run or account.stream,
            source=bus.source,
            event_id=bus.ids.event_id(bus.now()),
            metadata={"by": by} if by else None,
        )
        request = AppendRequest(epoch=bus.writer.epoch, events=(event,), expected={account.stream: account.version})
        verdict = await bus.writer.append(request)
        if not isinstance(verdict, Conflict):
            await account.refresh(bus.store.log)
            return account.ledger
    raise BudgetMoved(whose=account.run or "the hive")


def _budget_event(bus: Bus, intent: Record, event: Event, stream: str, *, source: str) -> NewEvent:
    now = bus.now()
    return encode_event(
        event,
        stream=stream,
        correlation_id=intent.correlation_id,
        causation_id=intent.event_id,
        source=source,
        event_id=bus.ids.event_id(now),
        occurred_at=now,
    )
