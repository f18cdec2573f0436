"""Offers: what the queue has for this process's hands, which of it to try, and the intents behind it.

All processes see the same head of the queue, and each item is claimed once. So whoever meets refusals looks
further and picks by a number of its own (of item and worker), and leaves what is new to its rivals for some
milliseconds; whoever meets none takes the head as it is. It claims nothing itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final
from zlib import crc32

from hive_bus.attempt import Claimed
from hive_bus.bus import Bus
from hive_bus.effects import WorkPolicy
from hive_bus.hand import Hand
from hive_bus.record import Record
from hive_bus.telemetry import get_logger
from hive_core_db.records import StoredEvent, WorkItem
from hive_errors import HiveError

REMEMBERED: Final = 10_000
WIDEST: Final = 16
"""At most so many times what it has slots for does a process look at, and no further than ``FARTHEST`` items."""
SMALLEST: Final = 16
FARTHEST: Final = 1_024
STAGGER: Final = 4_000
"""Microseconds for which one step of rivalry leaves a new item to others, at most."""
CROWDED: Final = 8
"""One refusal in so many claims is rivalry; so many rounds without one are peace."""

_log = get_logger(__name__)


class Offers:
    """Reads the queue for one process.

    ``page`` gives the items to try, ``found`` their intents, ``told`` hears how many claims were refused.
    """

    def __init__(self, bus: Bus, *, worker: str, by_queue: Mapping[str, Hand]) -> None:
        self._bus = bus
        self._worker = worker
        self._salt = 0
        self._by_queue = by_queue
        self._intents: OrderedDict[str, Record] = OrderedDict()
        self._width = 1
        self._calm = 0
        self._ripe_at: float | None = None

    def begin(self, lease_id: str) -> None:
        """Pick by other numbers than every other process does."""
        self._salt = crc32(lease_id.encode())

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
            self._width, self._calm = min(2 * self._width, WIDEST), 0
        elif tried and not refused:
            self._calm += 1
            if self._calm >= CROWDED:
                self._width, self._calm = max(1, self._width // 2), 0

    def pause(self, longest: float) -> float:
        """Seconds until what was left to rivals is anybody's, at most ``longest``."""
        if self._ripe_at is None:
            return longest
        return max(0.0, min(longest, self._ripe_at - asyncio.get_running_loop().time()))

    async def page(self, queues: Sequence[str], *, limit: int, beyond: int) -> tuple[list[WorkItem], bool]:
        """Up to ``limit`` items to try, and ``beyond`` that many which are known to wait for something; whether more may be there."""
        wished = limit * self._width + beyond
        # Few sizes: a database that prepares its statements does so for each.
        window = max(SMALLEST, min(1 << (wished - 1).bit_length(), FARTHEST))
        items = await self._bus.store.work.claimable(queues, limit=window, worker=self._worker)
        more = len(items) == window
        self._ripe_at = None
        if self._width == 1:
            return items[: limit + beyond], more or len(items) > limit + beyond
        ripe = self._ripe(items)
        if len(ripe) > limit + beyond:
            first = sorted(ripe, key=self._number)[: limit + beyond]
            chosen = {item.work_id for item in first}
            ripe, more = [item for item in ripe if item.work_id in chosen], True
        return ripe, more

    def _ripe(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """Without those that are left to rivals for the moment: each process waits another time for each item."""
        now, longest = self._bus.now(), STAGGER * self._width
        ripe, left = [], []
        for item in items:
            wait = 0
            if item.attempt == 0 and item.work_id not in self._intents and now - item.inserted_at < longest:
                wait = item.inserted_at + round(longest * self._number(item) / 2**32) - now
            if wait > 0:
                left.append(wait)
            else:
                ripe.append(item)
        if left:
            self._ripe_at = asyncio.get_running_loop().time() + min(left) / 1_000_000
        return ripe

    def _number(self, item: WorkItem) -> int:
        return crc32(item.work_id.encode(), self._salt)

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
