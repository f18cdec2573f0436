"""What a row of the work queue is to its readers: an item, and why the clock must look at it. The same for every database."""

from __future__ import annotations

from hive_core_db.judge.work_row import WorkRow
from hive_core_db.records import WorkItem


def reason_of(row: WorkRow, now: int) -> str:
    """Why an item whose time has come by ``now`` is due: ``cancel``, ``delay``, or the timeout that struck first."""
    if row.cancel_requested and row.state != "claimed":
        return "cancel"
    deadlines = row.deadlines()
    struck = [reason for reason, time in deadlines.items() if time <= now]
    # The one that struck first says what happened.
    return min(struck, key=lambda reason: deadlines[reason])


def item_of(row: WorkRow, reason: str | None = None) -> WorkItem:
    """The item that a row stands for."""
    return WorkItem(
        work_id=row.work_id,
        position=row.position,
        topic=row.topic,
        correlation_id=row.correlation_id,
        stream=row.stream,
        queue=row.queue,
        state=row.state,
        turn=row.turn,
        attempt=row.attempt,
        fence=row.fence,
        lease_id=row.lease_id,
        cancel_requested=bool(row.cancel_requested),
        due_at=row.due_at,
        claimed_at=row.claimed_at,
        inserted_at=row.inserted_at,
        reason=reason,
    )
