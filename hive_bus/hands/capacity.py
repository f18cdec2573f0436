"""Capacity: what the limits still allow this process to begin, and what ended work gives back.

Owns the slots that this process holds of shared limits. It asks before anything is claimed, so that a hand
claims only what it may perform, and remembers who has to wait for what and how long. What is spent is the
database's word; without limits it asks nothing. It knows neither the queue nor the log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hive_bus.effects import Failure
from hive_bus.event import Event
from hive_bus.hands.attempt import Claimed
from hive_bus.limit import Limit
from hive_bus.telemetry import get_logger
from hive_core_db.store import Limits
from hive_errors import StoreError

ENDLESS: Final = 1_000_000
"""The slots of a key whose concurrency nobody limits: they are counted only."""
BURST_SECONDS: Final = 10.0
"""A bucket holds what its rate gives in so many seconds: at most that much comes at once after a pause."""
FIRST_LOOK: Final = 0.05
LAST_LOOK: Final = 0.25
"""Seconds until a full limit is asked again, twice as long each time: other processes give slots back without a word."""
UNHEARD: Final = 1.0
"""Seconds until a store that was busy is asked for a limit again."""
TOKENS: Final = " tokens"
"""What follows a key in the name of its token bucket; slots and the bucket of requests have the key's own name."""
SLOWS: Final = frozenset({"rate_limit", "rate_limit_error", "overloaded_error"})
"""Kinds of failures after which nobody uses the key until the provider's ``retry_after`` is over."""
_MICROSECONDS: Final = 1_000_000

_log = get_logger(__name__)


@dataclass(slots=True)
class _Grant:
    """What one effect was given: a slot of each of these keys, and so much of each of these buckets."""

    keys: tuple[str, ...]
    slots: tuple[str, ...]
    spent: dict[str, float] = field(default_factory=dict)


class Capacity:
    """The limits as they concern one process.

    ``reserve`` before a claim, ``refund`` when the claim was refused, ``release`` when the attempt is over. A
    task of the owner's lives in ``run`` and tells the database what was given back; ``wake`` is called after it.
    """

    def __init__(self, port: Limits, limits: Mapping[str, Limit], *, wake: Callable[[], None]) -> None:
        self.limits = dict(limits)
        self._port = port
        self._wake = wake
        self._dirty = asyncio.Event()
        self._telling = asyncio.Lock()
        self.begin("")

    def begin(self, lease_id: str) -> None:
        """Begin under a lease: what was held under another is not ours any more."""
        self._lease_id = lease_id
        self._grants: dict[str, _Grant] = {}
        self._held: Counter[str] = Counter()
        self._back: Counter[str] = Counter()
        self._owed: dict[str, float] = {}
        self._pauses: dict[str, float] = {}
        self._until: dict[str, float] = {}
        self._misses: Counter[str] = Counter()
        self._asked: set[str] = set()
        self._unsure: set[str] = set()
        self._waiting: Counter[str] = Counter()
        self._before: Counter[str] = Counter()

    def waiting(self) -> dict[str, int]:
        """How many effects this process would begin if it were not for a limit, by the limit's key."""
        return dict(self._waiting)

    def pause(self, longest: float) -> float:
        """Seconds until a limit is worth another question, at most ``longest``."""
        now = asyncio.get_running_loop().time()
        # Where the time is over already, something else is waited for: a free slot of a hand wakes by itself.
        return min((longest, *(wait for key in self._waiting if (wait := self._until.get(key, 0.0) - now) > 0)))

    def shut(self, queue: str) -> bool:
        """Whether nothing of this queue can begin now, whatever it is."""
        now = asyncio.get_running_loop().time()
        return any(self._until.get(key, 0.0) > now for key in (queue, *queue.split()))

    def look(self, shut: Iterable[str]) -> None:
        """A new look at the queue begins, except for queues that are ``shut``: who waits is counted anew, for those they wait on."""
        self._before = self._waiting
        unseen = {label for queue in shut for label in (queue, *queue.split())}
        self._waiting = Counter({key: count for key, count in self._waiting.items() if key in unseen})

    def late(self, claimed: Claimed) -> bool:
        """Whether it is known already that the effect has to wait for a limit."""
        now = asyncio.get_running_loop().time()
        late = next((key for key in self._needs(claimed).keys if self._until.get(key, 0.0) > now), None)
        if late is not None:
            self._waiting[late] += 1
        return late is not None

    async def reserve(self, wanted: Sequence[Claimed]) -> list[Claimed]:
        """Those of ``wanted`` that the limits allow now, in order: each has its slots, and its rates are spent."""
        await self.tell()
        needs = [(claimed, self._needs(claimed)) for claimed in wanted]
        granted = await self._take(Counter(key for _, grant in needs for key in grant.slots))
        allowed = []
        for claimed, grant in needs:
            if await self._may(claimed, grant, granted):
                if grant.keys:
                    self._grants[claimed.work_id] = grant
                allowed.append(claimed)
        await self._leave(granted)
        for key in self._waiting.keys() - self._before.keys():
            _log.info("limit.waits", key=key, effects=self._waiting[key], seconds=round(self.pause(UNHEARD), 3))
        return allowed

    def refund(self, claimed: Claimed) -> None:
        """The claim was refused: nothing was used."""
        grant = self._grants.pop(claimed.work_id, None)
        if grant is not None:
            self._give_back(grant, {bucket: -amount for bucket, amount in grant.spent.items()})

    def release(self, claimed: Claimed, outcome: Event | Failure | None) -> None:
        """The attempt is over, or was cut off (None): its slots are free, and what it really used is settled. Twice is fine."""
        grant = self._grants.pop(claimed.work_id, None)
        if grant is None:
            return
        used = None if outcome is None else claimed.hand.used(claimed.intent, outcome)
        owed = {}
        if used is not None:
            owed = {bucket: used - amount for bucket, amount in grant.spent.items() if bucket.endswith(TOKENS)}
        if isinstance(outcome, Failure) and outcome.retry_after and outcome.kind in SLOWS:
            self._pauses[grant.keys[0]] = max(outcome.retry_after, self._pauses.get(grant.keys[0], 0.0))
        self._give_back(grant, owed)

    async def run(self) -> None:
        """Tell the database what was given back, until cancelled."""
        while True:
            await self._dirty.wait()
            await self.tell()
            self._wake()

    async def tell(self) -> None:
        """Tell the database now what was given back and used, and which keys a provider wants a rest from."""
        if not self._dirty.is_set():
            return
        async with self._telling:
            self._dirty.clear()
            pauses, self._pauses = self._pauses, {}
            owed, self._owed = self._owed, {}
            back, self._back = self._back, Counter()
            now = asyncio.get_running_loop().time()
            for key, seconds in pauses.items():
                _log.warning("limit.pause", key=key, seconds=seconds)
                self._until[key] = now + seconds
                for name in (key, key + TOKENS) if self.limits[key].tokens_per_minute else (key,):
                    await self._told(self._port.hold(name, round(seconds * _MICROSECONDS)))
            for bucket, amount in owed.items():
                await self._told(self._port.settle(bucket, amount))
            for key, count in back.items():
                await self._give(key, count)

    async def end(self) -> None:
        """Give everything back: nothing runs here any more, but the lease may go on. It raises nothing: a lease that ends gives all back."""
        self._grants.clear()
        self._back = Counter({key: count for key, count in self._held.items() if count > 0})
        if self._back:
            self._dirty.set()
        try:
            await self.tell()
            await self._withdraw(self._asked)
        except StoreError as problem:
            _log.warning("limit.unheard", error=str(problem))

    # Inside.

    def _needs(self, claimed: Claimed) -> _Grant:
        """The limits that an effect counts for: the most particular first, its queue's labels last."""
        queue = claimed.policy.queue
        names = dict.fromkeys((*claimed.hand.keys(claimed.intent), queue, *queue.split()))
        keys = tuple(key for key in names if key in self.limits)
        return _Grant(keys, tuple(key for key in keys if _has_slots(self.limits[key])))

    async def _take(self, wanted: Counter[str]) -> Counter[str]:
        """Slots of each key, as many as there are; in one order everywhere, for several may want the same two."""
        granted: Counter[str] = Counter()
        for key in sorted(wanted):
            if key in self._unsure and self._held[key] <= 0:
                await self._give(key, 0)
            ceiling = self.limits[key].concurrency or ENDLESS
            try:
                granted[key] = await self._port.take(key, ceiling, self._lease_id, wanted[key])
            except StoreError as problem:
                self._unheard(key, problem)
                continue
            self._held[key] += granted[key]
            if granted[key] < wanted[key]:
                self._asked.add(key)
                self._later(key, min(FIRST_LOOK * 2 ** min(self._misses[key], 8), LAST_LOOK))
                self._misses[key] += 1
            else:
                self._found(key)
        return granted

    async def _may(self, claimed: Claimed, grant: _Grant, granted: Counter[str]) -> bool:
        """Whether there is a slot of every key and enough in every bucket; then they are used up."""
        for key in grant.slots:
            if granted[key] <= 0:
                self._waiting[key] += 1
                return False
        for key in grant.keys:
            limit = self.limits[key]
            for bucket, per_minute, amount in _buckets(key, limit, claimed):
                wait = await self._spend(key, bucket, per_minute / 60, amount)
                if wait:
                    self._later(key, wait)
                    self._waiting[key] += 1
                    self._owe({spent: -refund for spent, refund in grant.spent.items()})
                    return False
                grant.spent[bucket] = amount
        granted.subtract(grant.slots)
        return True

    async def _spend(self, key: str, bucket: str, rate: float, amount: float) -> float:
        """Spend; or the seconds to wait."""
        now = asyncio.get_running_loop().time()
        if (late := self._until.get(key, 0.0)) > now and key not in self._misses:
            return late - now
        try:
            return await self._port.spend(bucket, rate, max(1.0, rate * BURST_SECONDS), amount) / _MICROSECONDS
        except StoreError as problem:
            self._unheard(key, problem)
            return UNHEARD

    async def _leave(self, granted: Counter[str]) -> None:
        """Slots that nobody here can use after all go back at once, and so does the place in the row of those who wait."""
        for key, count in granted.items():
            if count > 0:
                self._back[key] += count
                self._dirty.set()
        await self._withdraw({key for key in self._asked if key not in self._waiting})
        await self.tell()

    async def _withdraw(self, keys: Iterable[str]) -> None:
        for key in tuple(keys):
            self._asked.discard(key)
            await self._told(self._port.take(key, self.limits[key].concurrency or ENDLESS, self._lease_id, 0))

    def _give_back(self, grant: _Grant, owed: Mapping[str, float]) -> None:
        self._back.update(grant.slots)
        self._owe(owed)
        self._dirty.set()

    def _owe(self, amounts: Mapping[str, float]) -> None:
        for bucket, amount in amounts.items():
            self._owed[bucket] = self._owed.get(bucket, 0.0) + amount
            self._dirty.set()

    async def _give(self, key: str, count: int) -> None:
        self._held[key] -= count
        if self._held[key] <= 0 and key in self._unsure:
            # An answer was lost: with nothing of the key in use here, everything is given back, whatever was taken.
            count = ENDLESS
        if await self._told(self._port.give(key, self._lease_id, count)):
            if count == ENDLESS:
                self._unsure.discard(key)
            self._found(key, asked=False)
        else:
            self._unsure.add(key)

    async def _told(self, call: Awaitable[object]) -> bool:
        """Whether the store has heard it; what it did not hear is not said again, for it may have been heard."""
        try:
            await call
        except StoreError as problem:
            if not problem.retryable:
                raise
            _log.warning("limit.unheard", error=str(problem))
            return False
        return True

    def _unheard(self, key: str, problem: StoreError) -> None:
        if not problem.retryable:
            raise problem
        _log.warning("limit.unheard", error=str(problem))
        self._unsure.add(key)
        self._later(key, UNHEARD)

    def _later(self, key: str, seconds: float) -> None:
        self._until[key] = max(asyncio.get_running_loop().time() + seconds, self._until.get(key, 0.0))

    def _found(self, key: str, *, asked: bool = True) -> None:
        """A slot may be had again: a wait for one is over, a wait for a rate is not."""
        if self._misses.pop(key, 0):
            self._until.pop(key, None)
        if asked:
            self._asked.discard(key)


def _has_slots(limit: Limit) -> bool:
    return limit.concurrency is not None or (limit.requests_per_minute is None and limit.tokens_per_minute is None)


def _buckets(key: str, limit: Limit, claimed: Claimed) -> list[tuple[str, float, float]]:
    """The buckets of a key: name, rate per minute, and what the effect takes of it."""
    buckets = []
    if limit.requests_per_minute is not None:
        buckets.append((key, limit.requests_per_minute, 1.0))
    if limit.tokens_per_minute is not None:
        buckets.append((key + TOKENS, limit.tokens_per_minute, claimed.hand.estimate(claimed.intent)))
    return buckets
