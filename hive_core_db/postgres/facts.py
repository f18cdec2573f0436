"""The judge's facts on PostgreSQL: believed at first, fetched when that may have been wrong, verified by the call that writes.

What requests say of the log (expected versions, fences, leases) is believed until the database denies it, so the
usual batch needs no question. Nothing is refused on belief: who is refused is refused by what was read. Knows no verdicts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from hive_core_db.judge.facts import Document, DocumentState, KnownEvent, Slot
from hive_core_db.judge.work_row import COLUMNS, WorkRow
from hive_core_db.postgres.database import Database
from hive_core_db.records import AppendRequest, WorkClaim, WorkInsert

_ITEMS_KEPT: Final = 20_000
_BASES_KEPT: Final = 20_000
# Other processes move the turns of queues too; they are fairness, not truth, so they may be this old (seconds).
_TURNS_AGE: Final = 0.02

HEAD = """
SELECT m.epoch, greatest(coalesce((SELECT max(e.position) FROM events AS e), 0), b.first_position - 1)
FROM log_meta AS m JOIN epochs AS b ON b.epoch = m.epoch"""
# What ids stand for: enough to tell a repetition from a mix-up.
KNOWN = "SELECT event_id, position, append_first, stream, topic, digest FROM events WHERE event_id = ANY ($1::text[])"
VERSIONS = """
SELECT s.stream, coalesce((SELECT max(e.version) FROM events AS e WHERE e.stream = s.stream), 0)
FROM unnest($1::text[]) AS s (stream)"""
LASTS = """
SELECT c.id, coalesce((SELECT max(e.position) FROM events AS e WHERE e.correlation_id = c.id), 0)
FROM unnest($1::text[]) AS c (id)"""
BLOBS = "SELECT digest FROM blobs WHERE digest = ANY ($1::text[])"
# A closed lease holds nothing, whatever the row says.
OWNERS = """
SELECT p.group_name, p.number, p.position, CASE WHEN l.closed_at IS NULL THEN l.lease_id END, p.fence
FROM unnest($1::text[], $2::integer[]) AS s (group_name, number)
JOIN partitions AS p ON p.group_name = s.group_name AND p.number = s.number
LEFT JOIN leases AS l ON l.lease_id = p.lease_id"""
OPEN_LEASES = "SELECT lease_id FROM leases WHERE lease_id = ANY ($1::text[]) AND closed_at IS NULL"
ITEMS = f"SELECT {', '.join(COLUMNS)} FROM work WHERE work_id = ANY ($1::text[])"
DOCUMENTS = """
SELECT d.view, d.version, d.key, r.from_position, r.until_position
FROM unnest($1::text[], $2::integer[], $3::text[]) AS d (view, version, key) CROSS JOIN LATERAL (
    SELECT v.from_position, v.until_position FROM view_rows AS v
    WHERE v.view = d.view AND v.version = d.version AND v.key = d.key ORDER BY v.from_position DESC LIMIT 1
) AS r"""
# The last place of runs in queues, and the present turn of every queue (they are few).
PLACES = """
SELECT s.correlation_id, s.queue, (SELECT max(w.base) FROM work AS w WHERE w.correlation_id = s.correlation_id AND w.queue = s.queue)
FROM unnest($1::text[], $2::text[]) AS s (correlation_id, queue)
UNION ALL SELECT NULL, q.queue, q.current FROM queues AS q"""


class Memory:
    """What this process saw last of work items, places and turns; bounded, and never trusted without a check."""

    def __init__(self) -> None:
        self.items: dict[str, WorkRow] = {}
        self.bases: dict[tuple[str, str], float | None] = {}
        self.turns: dict[str, float] = {}
        self.turns_read = float("-inf")

    def keep(self, row: WorkRow) -> None:
        """Remember an item as it is stored now."""
        self.items.pop(row.work_id, None)
        self.items[row.work_id] = row
        if len(self.items) > _ITEMS_KEPT:
            del self.items[next(iter(self.items))]

    def saw(self, row: WorkRow) -> None:
        """Remember an item as a look at the queue found it, unless a later claim of it is known already."""
        known = self.items.get(row.work_id)
        if known is None or known.fence <= row.fence:
            self.keep(row)

    def keep_base(self, slot: tuple[str, str], base: float | None) -> None:
        """Remember a run's last place in a queue."""
        self.bases.pop(slot, None)
        self.bases[slot] = base
        if len(self.bases) > _BASES_KEPT:
            del self.bases[next(iter(self.bases))]


class Believed:
    """The port `Facts` for one batch; ``exact`` once they were read for it, with every event id looked up."""

    def __init__(self, memory: Memory, batch: Sequence[AppendRequest], *, head: int) -> None:
        self.exact = False
        self.epoch = batch[0].epoch
        self.versions: dict[str, int] = {}
        # Streams that the judge asked for, with what it was told: the call reads their versions again.
        self.asked: dict[str, int] = {}
        self.owners: dict[Slot, tuple[int, str | None, int]] = {}
        self._memory = memory
        self._batch = batch
        self._lasts: dict[str, int] = {}
        self._known: dict[str, KnownEvent] = {}
        self._blobs: dict[str, bool] = {}
        self._leases: dict[str, bool] = {}
        self._documents: dict[Document, DocumentState] = {}
        self._items: dict[str, WorkRow | None] = {}
        self._slots: list[tuple[str, str]] = []
        # The head is at least what somebody has seen of it.
        self.head = head
        for request in batch:
            self._believe(request)

    def _believe(self, request: AppendRequest) -> None:
        for stream, version in request.expected.items():
            self.versions.setdefault(stream, version)
        for correlation, after in request.quiet.items():
            self._lasts[correlation] = 0
            self.head = max(self.head, after)
        if request.owner is not None:
            group, number, lease, fence = request.owner
            self.owners.setdefault((group, number), (0, lease, fence))
        for move in request.checkpoints:
            self.owners.setdefault((move.group, move.partition), (0, move.lease_id, move.fence))
            self.head = max(self.head, move.position)
        for digest in request.blobs:
            self._blobs[digest] = True
        for write in request.views:
            self._documents[write.view, write.version, write.key] = None, 0
        for change in request.work:
            if isinstance(change, WorkInsert):
                self._slots.append((request.events[change.event_index].correlation_id, change.queue))
            else:
                self._items[change.work_id] = self._memory.items.get(change.work_id)
                if isinstance(change, WorkClaim):
                    self._leases[change.lease_id] = True

    async def complete(self, database: Database) -> None:
        """Fetch what nothing can be believed of: items that are not remembered, places in queues."""
        memory = self._memory
        unknown = [work_id for work_id, row in self._items.items() if row is None]
        if unknown and not self.exact:
            await self._fetch_items(database, unknown)
        if self._slots:
            wanted = {slot for slot in self._slots if slot not in memory.bases}
            old = time.monotonic() - memory.turns_read > _TURNS_AGE
            if wanted or old:
                await self._fetch_places(database, sorted(wanted))

    async def _fetch_items(self, database: Database, work_ids: list[str]) -> None:
        for values in await database.fetch(ITEMS, work_ids):
            row = WorkRow(*values)
            self._items[row.work_id] = row

    async def _fetch_places(self, database: Database, wanted: list[tuple[str, str]]) -> None:
        memory = self._memory
        rows = await database.fetch(PLACES, [slot[0] for slot in wanted], [slot[1] for slot in wanted])
        for correlation, queue, number in rows:
            if correlation is None:
                memory.turns[queue] = max(number, memory.turns.get(queue, 0.0))
            else:
                memory.keep_base((correlation, queue), number)
        memory.turns_read = time.monotonic()

    async def fetch(self, database: Database) -> None:
        """Read every fact of the batch, and look every event id up; from then on refusals are well founded."""
        self.exact = True
        self.asked.clear()
        ids = [event.event_id for request in self._batch for event in request.events]
        self._known = {row[0]: KnownEvent(*row[1:]) for row in await database.fetch(KNOWN, ids)}
        if self.versions:
            self.versions = {row[0]: row[1] for row in await database.fetch(VERSIONS, list(self.versions))}
        if self._lasts:
            self._lasts = {row[0]: row[1] for row in await database.fetch(LASTS, list(self._lasts))}
        if self._blobs:
            found = {row[0] for row in await database.fetch(BLOBS, list(self._blobs))}
            self._blobs = {digest: digest in found for digest in self._blobs}
        if self.owners:
            groups, numbers = zip(*self.owners, strict=True)
            rows = await database.fetch(OWNERS, groups, numbers)
            self.owners = {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows}
        if self._leases:
            found = {row[0] for row in await database.fetch(OPEN_LEASES, list(self._leases))}
            self._leases = {lease: lease in found for lease in self._leases}
        if self._items:
            self._items = dict.fromkeys(self._items)
            await self._fetch_items(database, list(self._items))
        if self._documents:
            await self._fetch_documents(database)
        # The head last: a position beyond it is one of this very batch, and none that was read above.
        row = await database.fetchrow(HEAD)
        assert row is not None
        self.epoch, self.head = row

    async def _fetch_documents(self, database: Database) -> None:
        views, versions, keys = zip(*self._documents, strict=True)
        self._documents = dict.fromkeys(self._documents, (None, 0))
        for view, version, key, begun, until in await database.fetch(DOCUMENTS, views, versions, keys):
            self._documents[view, version, key] = (begun, begun) if until is None else (None, until)

    def version(self, stream: str) -> int:
        """The version that is expected or was read; of other streams the base, 0: their versions count from what the call reads."""
        base = self.asked[stream] = self.versions.get(stream, 0)
        return base

    def last_of(self, correlation_id: str) -> int:
        """The correlation's last position."""
        return self._lasts[correlation_id]

    def known(self, event_id: str) -> KnownEvent | None:
        """What was found of the id."""
        return self._known.get(event_id)

    def blob(self, digest: str) -> bool:
        """Whether the body is stored."""
        return self._blobs[digest]

    def partition(self, slot: Slot) -> tuple[int, str | None, int] | None:
        """Checkpoint, owner and fence."""
        return self.owners.get(slot)

    def work(self, work_id: str) -> WorkRow | None:
        """The open item."""
        return self._items[work_id]

    def last_base(self, correlation_id: str, queue: str) -> float | None:
        """The run's last place in the queue."""
        return self._memory.bases.get((correlation_id, queue))

    def turn(self, queue: str) -> float:
        """The queue's turn, as old as `_TURNS_AGE` at most."""
        return self._memory.turns.get(queue, 0.0)

    def lease_is_open(self, lease_id: str) -> bool:
        """Whether nobody closed the lease."""
        return self._leases[lease_id]

    def document(self, document: Document) -> DocumentState:
        """Where the document's last row stands."""
        return self._documents[document]
