"""What a batch does to the work queue: verdicts of work items, and the rows that follow.

The state machine of an item and the order in the queue are in `doc.md`. A closed
item has no row: its result is in the log. An item that is inserted and ended in
one batch never gets one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hive_core_db.judge.facts import Facts
from hive_core_db.judge.work_row import WorkRow, clone
from hive_core_db.records import (
    AppendRequest,
    Ended,
    FencedOff,
    NewEvent,
    WorkCancel,
    WorkClaim,
    WorkEnd,
    WorkInsert,
    WorkRetry,
    WorkTouch,
)

# How many turns one step of priority is worth: a background item (9) waits for 80 turns of a critical one (1), not for ever.
PRIORITY_TURNS = 10.0


@dataclass(slots=True)
class Draft:
    """What one request would change; None as a row: it ends."""

    rows: dict[str, WorkRow | None] = field(default_factory=dict)
    bases: dict[tuple[str, str], float] = field(default_factory=dict)
    queues: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class WorkPlan:
    """What to write: ids of rows that go, rows that change, rows that are new, turns of queues; sorted by key.

    ``stored`` are the rows that were there, as the facts had them, of all that go or change.
    """

    stored: list[WorkRow] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    changed: list[WorkRow] = field(default_factory=list)
    new: list[WorkRow] = field(default_factory=list)
    turns: list[tuple[str, float]] = field(default_factory=list)


class WorkChanges:
    """The work items that a batch touches, as they will be after it; ``touched`` are their ids."""

    def __init__(self, facts: Facts, now: int) -> None:
        self._facts = facts
        self._now = now
        self._rows: dict[str, WorkRow | None] = {}
        self._stored: dict[str, WorkRow] = {}
        self.touched: set[str] = set()
        self._bases: dict[tuple[str, str], float] = {}
        self._queues: dict[str, float] = {}
        self._raised: set[str] = set()
        self._leases: dict[str, bool] = {}

    def judge(self, request: AppendRequest, first: int) -> Draft | FencedOff | Ended:
        """Apply the request's changes in their order to a draft; fenced goes before ended."""
        draft = Draft()
        ended: Ended | None = None
        for change in request.work:
            verdict = self._apply(draft, change, request.events, first)
            if isinstance(verdict, FencedOff):
                return verdict
            ended = ended or verdict
        return ended or draft

    def accept(self, draft: Draft) -> None:
        """Let later requests of the batch see the draft."""
        if draft.rows:
            self._rows.update(draft.rows)
            self.touched.update(draft.rows)
        self._bases.update(draft.bases)
        if draft.queues:
            self._queues.update(draft.queues)
            self._raised.update(draft.queues)

    def plan(self) -> WorkPlan:
        """What the accepted drafts come to, by key."""
        plan = WorkPlan()
        for work_id in sorted(self.touched):
            row = self._rows[work_id]
            stored = self._stored.get(work_id)
            if stored is not None:
                plan.stored.append(stored)
            if row is None:
                if stored is not None:
                    plan.gone.append(work_id)
            elif stored is not None:
                plan.changed.append(row)
            else:
                plan.new.append(row)
        plan.turns.extend((queue, self._queues[queue]) for queue in sorted(self._raised))
        return plan

    def _apply(
        self, draft: Draft, change: object, events: tuple[NewEvent, ...], first: int
    ) -> FencedOff | Ended | None:
        match change:
            case WorkInsert():
                self._insert(draft, change, events[change.event_index], first + change.event_index)
            case WorkClaim():
                return self._claim(draft, change)
            case WorkEnd(work_id=work_id, fence=fence):
                return self._end(draft, work_id, fence)
            case WorkRetry(work_id=work_id, fence=fence, delay=delay):
                return self._held(draft, work_id, fence, lambda row: self._give_back(row, delay))
            case WorkTouch(work_id=work_id, fence=fence):
                return self._held(draft, work_id, fence, self._touch)
            case WorkCancel(work_id=work_id):
                self._cancel(draft, work_id)
            case _:
                raise TypeError(f"{change!r} is no change of the work queue")
        return None

    def _find(self, draft: Draft, work_id: str) -> WorkRow | None:
        if work_id in draft.rows:
            return draft.rows[work_id]
        if work_id not in self._rows:
            row = self._rows[work_id] = self._facts.work(work_id)
            if row is not None:
                self._stored[work_id] = row
        return self._rows[work_id]

    def _insert(self, draft: Draft, change: WorkInsert, event: NewEvent, position: int) -> None:
        now = self._now
        slot = event.correlation_id, change.queue
        base = max(self._last_base(draft, slot) + change.cost, self._current(draft, change.queue))
        draft.bases[slot] = base
        delayed = change.state == "delayed"
        ready_at = now + change.delay if delayed else now
        row = WorkRow(
            event.event_id, position, event.topic, event.correlation_id, event.stream, change.queue, change.state,
            change.priority, change.cost, base, base + (change.priority - 1) * PRIORITY_TURNS, 0, 0, None, 0,
            ready_at if delayed else None, None, None if delayed else now, None, None, now, change.waiting_timeout,
            change.running_timeout, change.silent_timeout, change.total_timeout, change.preferred,
            ready_at + change.hold_out if change.preferred is not None else None,
        )  # fmt: skip
        row.wake()
        draft.rows[event.event_id] = row

    def _claim(self, draft: Draft, change: WorkClaim) -> FencedOff | Ended | None:
        row = self._find(draft, change.work_id)
        if row is None:
            return Ended(change.work_id)
        if row.state != "ready" or row.cancel_requested or row.fence != change.fence:
            why = "asked to end" if row.cancel_requested else row.state
            return FencedOff(f"work item {change.work_id}, {why}", change.fence, row.fence)
        if not self._lease_is_open(change.lease_id):
            return FencedOff(f"lease {change.lease_id}, closed", change.fence, row.fence)
        row = clone(row)
        row.state, row.lease_id = "claimed", change.lease_id
        row.fence += 1
        row.attempt += 1
        row.claimed_at = row.touched_at = self._now
        row.wake()
        draft.rows[change.work_id] = row
        # The queue moves on with what it serves, at least by what that costs: or new runs would always come first.
        served = row.base + row.cost
        if served > self._current(draft, row.queue):
            draft.queues[row.queue] = served
        return None

    def _end(self, draft: Draft, work_id: str, fence: int | None) -> FencedOff | Ended | None:
        row = self._find(draft, work_id)
        if row is None:
            return Ended(work_id)
        if fence is not None and row.fence != fence:
            return FencedOff(f"work item {work_id}, {row.state}", fence, row.fence)
        draft.rows[work_id] = None
        return None

    def _held(
        self, draft: Draft, work_id: str, fence: int, change: Callable[[WorkRow], None]
    ) -> FencedOff | Ended | None:
        row = self._find(draft, work_id)
        if row is None:
            return Ended(work_id)
        if row.state != "claimed" or row.fence != fence:
            return FencedOff(f"work item {work_id}, {row.state}", fence, row.fence)
        row = clone(row)
        change(row)
        row.wake()
        draft.rows[work_id] = row
        return None

    def _give_back(self, row: WorkRow, delay: int) -> None:
        # Who gave it back, or lost it, holds the old fence: what they still have in flight ends nothing.
        row.fence += 1
        row.lease_id = row.claimed_at = row.touched_at = None
        if delay > 0:
            row.state, row.due_at = "delayed", self._now + delay
        else:
            row.state, row.ready_at = "ready", self._now

    def _touch(self, row: WorkRow) -> None:
        row.touched_at = self._now

    def _cancel(self, draft: Draft, work_id: str) -> None:
        row = self._find(draft, work_id)
        if row is not None and not row.cancel_requested:
            row = clone(row)
            row.cancel_requested = 1
            row.wake()
            draft.rows[work_id] = row

    def _last_base(self, draft: Draft, slot: tuple[str, str]) -> float:
        base = draft.bases.get(slot, self._bases.get(slot))
        if base is None:
            stored = self._facts.last_base(*slot)
            # A run's first item waits for nothing of its own.
            base = self._bases[slot] = float("-inf") if stored is None else stored
        return base

    def _current(self, draft: Draft, queue: str) -> float:
        current = draft.queues.get(queue, self._queues.get(queue))
        if current is None:
            current = self._queues[queue] = self._facts.turn(queue)
        return current

    def _lease_is_open(self, lease_id: str) -> bool:
        if lease_id not in self._leases:
            self._leases[lease_id] = self._facts.lease_is_open(lease_id)
        return self._leases[lease_id]
