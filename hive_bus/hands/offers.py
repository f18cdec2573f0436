"""Offers: what the queue has for this process's hands, which of it to try, and the intents behind it.

All processes see the same head of the queue, and each item is claimed once. Whoever meets no refusals takes the
head as it is. Whoever does looks further: items lie on a ring, the living processes share it, and each takes what
lies on its own stretch, in turn; what is new it leaves for some milliseconds to those who are nearer. Stretches move
on without a pause, so none stays with a process that takes nothing; and each ends a little before the next begins,
for what lies there the next process may be claiming in this moment. While a queue is long, the database is asked
for the own stretch only. All this is a matter of speed only: the claim decides. It claims nothing itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from hive_bus.bus import Bus
from hive_bus.effects import WorkPolicy
from hive_bus.hands.attempt import Claimed
from hive_bus.hands.hand import Hand
from hive_bus.record import Record
from hive_bus.telemetry import get_logger
from hive_core_db.records import RING, StoredEvent, Stretch, WorkItem
from hive_errors import HiveError

REMEMBERED: Final = 10_000
SMALLEST: Final = 16
FARTHEST: Final = 1_024
"""How many items are read at least, and at most."""
STAGGER: Final = 4_000
"""Microseconds for which a new item is left to each rival that is nearer to it."""
CROWDED: Final = 8
"""One refusal in so many claims is rivalry."""
PEACE: Final = 50
"""So many rounds without a refusal are peace."""
CENSUS_SECONDS: Final = 0.5
"""How old the number of rivals may be."""
ROTATION: Final = 2_000_000
"""Microseconds in which a stretch moves on by one."""
HANDOVER: Final = 200_000
"""Microseconds for which nobody takes what a stretch has just left: claims of it may be on their way."""

_log = get_logger(__name__)


class Offers:
    """Reads the queue for one process.

    ``page`` gives the items to try, ``found`` their intents, ``told`` hears how many claims were refused.
    """

    def __init__(self, bus: Bus, *, worker: str, by_queue: Mapping[str, Hand]) -> None:
        self._bus = bus
        self._worker = worker
        self._by_queue = by_queue
        self._lease_id = ""
        self._intents: OrderedDict[str, Record] = OrderedDict()
        self._calm = PEACE
        self._living: list[str] = []
        self._stretch = Stretch(0, RING)
        self._is_long = False
        self._counted_at = float("-inf")
        self._ripe_at: float | None = None

    def begin(self, lease_id: str) -> None:
        """Begin under a lease: it is what the process is counted by. Whoever else lives may be a rival, until that is known."""
        self._lease_id = lease_id
        self._calm = 0
        self._is_long = False
        self._counted_at = float("-inf")

    def note(self, row: StoredEvent) -> None:
        """Remember an intent of this process's own commits: it need not be read again."""
        self._remember(Record._make(row))

    def keep(self, claimed: Claimed) -> None:
        """It was not tried after all: its intent need not be read again."""
        self._remember(claimed.record)

    def _remember(self, intent: Record) -> None:
        self._intents[intent.event_id] = intent
        while len(self._intents) > REMEMBERED:
            self._intents.popitem(last=False)

    def told(self, tried: int, refused: int) -> None:
        """How many claims of a round were refused because somebody else was quicker."""
        if refused * CROWDED > tried:
            # Somebody is there who was not counted, or counts otherwise.
            self._calm, self._counted_at = 0, float("-inf")
        elif tried and not refused:
            self._calm += 1

    def pause(self, longest: float) -> float:
        """Seconds until what was left to rivals is anybody's, at most ``longest``."""
        if self._ripe_at is None:
            return longest
        return max(0.0, min(longest, self._ripe_at - asyncio.get_running_loop().time()))

    def anew(self) -> None:
        """Look again: what was left to rivals before is seen again, or waits for something else."""
        self._ripe_at = None

    async def page(self, queues: Sequence[str], *, limit: int, beyond: int) -> tuple[list[WorkItem], bool]:
        """Up to ``limit`` items to try, and ``beyond`` that many which are known to wait for something; whether more may be there."""
        rivals = await self._count() if self._calm < PEACE else 1
        wished = limit * rivals + beyond
        # Few sizes: a database that prepares its statements does so for each.
        window = max(SMALLEST, min(1 << (wished - 1).bit_length(), FARTHEST))
        if rivals > 1 and self._is_long:
            items = await self._look(queues, window, self._stretch)
            if len(items) * CROWDED >= limit:
                return items[: limit + beyond], True
        items = await self._look(queues, window)
        more = self._is_long = len(items) == window
        mine = items[: limit + beyond]
        if rivals > 1:
            # What all of them together would take now, and nothing behind it: an urgent item on another's stretch goes first.
            mine = self._share(self._ripe(items[:wished], rivals), limit, rivals, beyond)
        return mine, more or len(items) > len(mine)

    async def _look(self, queues: Sequence[str], window: int, stretch: Stretch | None = None) -> list[WorkItem]:
        return await self._bus.store.work.claimable(queues, limit=window, worker=self._worker, stretch=stretch)

    def _share(self, items: Sequence[WorkItem], limit: int, rivals: int, beyond: int) -> list[WorkItem]:
        """The first in turn of the own stretch; if there is hardly anything on it, what lies next behind it."""
        own = [item for item in items if self._distance(item) < self._stretch.length]
        if len(own) * CROWDED >= min(limit, len(items)):
            return own[: limit + beyond]
        share = min(limit, max(1, len(items) // rivals)) + beyond
        chosen = {item.work_id for item in sorted(items, key=self._distance)[:share]}
        return [item for item in items if item.work_id in chosen]

    async def _count(self) -> int:
        """How many processes live; and which stretch of the ring is this one's."""
        now = asyncio.get_running_loop().time()
        if now - self._counted_at > CENSUS_SECONDS:
            self._living = [lease.lease_id for lease in await self._bus.store.leases.live()]
            self._counted_at = now
        rivals = max(1, len(self._living))
        index = self._living.index(self._lease_id) if self._lease_id in self._living else 0
        self._stretch = stretch_of(index, rivals, self._bus.now())
        return rivals

    def _distance(self, item: WorkItem) -> int:
        """How far behind the start of the own stretch the item lies; what this process appended itself is nearest."""
        return 0 if item.work_id in self._intents else self._stretch.distance(item.position)

    def _ripe(self, items: Sequence[WorkItem], rivals: int) -> list[WorkItem]:
        """Without those that are left to nearer ones for the moment."""
        now, longest = self._bus.now(), STAGGER * rivals
        ripe, left = [], []
        for item in items:
            wait = 0
            if item.attempt == 0 and now - item.inserted_at < longest:
                wait = item.inserted_at + longest * self._distance(item) // RING - now
            if wait > 0:
                left.append(wait)
            else:
                ripe.append(item)
        if left:
            self._ripe_at = asyncio.get_running_loop().time() + min(left) / 1_000_000
        return ripe

    async def found(self, items: Sequence[WorkItem]) -> list[Claimed]:
        """The items with their intents; what this process cannot decode is left to others."""
        records: dict[str, Record] = {}
        for item in items:
            # What the tail has read need not be read again.
            record = self._intents.pop(item.work_id, None) or self._recent(item)
            if record is not None:
                records[item.work_id] = record
        missing = [item.work_id for item in items if item.work_id not in records]
        if missing:
            records |= {row.event_id: Record._make(row) for row in await self._bus.store.log.several(missing)}
        return [claimed for item in items if (claimed := self._claimed(item, records.get(item.work_id))) is not None]

    def _recent(self, item: WorkItem) -> Record | None:
        rows = self._bus.tail.recent(item.position - 1, limit=1)
        return Record._make(rows[0]) if rows and rows[0].event_id == item.work_id else None

    def _claimed(self, item: WorkItem, record: Record | None) -> Claimed | None:
        hand = self._by_queue[item.queue]
        if record is None:
            return None
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


def stretch_of(index: int, rivals: int, now: int) -> Stretch:
    """The stretch of one of so many processes at a time (microseconds)."""
    start = (index * RING + now % (ROTATION * rivals) * RING // ROTATION) // rivals % RING
    return Stretch(start, max(1, RING * (ROTATION - HANDOVER) // (ROTATION * rivals)))
