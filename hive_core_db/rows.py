"""What stored rows are to their readers: leases, parked keys, counts. The same for every database.

Work items are in `work_items`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final, Protocol

from hive_core_db.records import Lease, ParkedKey, QueueDepth, RunWork, StoredEvent


class StoredRow(Protocol):
    """The columns of a :class:`StoredEvent` by number, in whatever the driver hands them out; a slice of it is a tuple."""

    def __getitem__(self, index: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


# In the quickest way there is, for they come by the million: a plain tuple is copied at once, anything else value by value.
plain: Final[Callable[[StoredRow], tuple[Any, ...]]] = itemgetter(slice(None))
_event: Final[Callable[[tuple[Any, ...]], StoredEvent]] = partial(tuple.__new__, StoredEvent)


def events_of(rows: Iterable[StoredRow]) -> list[StoredEvent]:
    """Rows of the log with names for their columns."""
    return list(map(_event, map(plain, rows)))


def lease_of(row: Iterable[Any]) -> Lease:
    """A row of leases: id, owner, opened, expires, closed, info."""
    lease_id, owner, opened_at, expires_at, closed_at, info = row
    return Lease(
        lease_id=lease_id,
        owner=owner,
        opened_at=opened_at,
        expires_at=expires_at,
        closed=closed_at is not None,
        info=info,
        closed_at=closed_at,
    )


def parked_of(row: Iterable[Any]) -> ParkedKey:
    """A row of parked keys: group, key, partition, from, attempt, next try, error."""
    group, key, partition, from_position, attempt, next_try, error = row
    return ParkedKey(
        group=group,
        key=key,
        partition=partition,
        from_position=from_position,
        attempt=attempt,
        next_try=next_try,
        error=error,
    )


def queue_depths(
    ready: Mapping[str, Sequence[Any]], claimed: Mapping[str, Sequence[Any]], resting: Mapping[tuple[str, str], int]
) -> list[QueueDepth]:
    """What is open in each queue, by name: ready and claimed items with the oldest of each, and those that rest by state."""
    return [
        QueueDepth(
            queue=queue,
            ready=ready.get(queue, (0, None))[0],
            delayed=resting.get((queue, "delayed"), 0),
            waiting=resting.get((queue, "waiting"), 0),
            claimed=claimed.get(queue, (0, None))[0],
            oldest_ready_at=ready.get(queue, (0, None))[1],
            oldest_claimed_at=claimed.get(queue, (0, None))[1],
        )
        for queue in sorted({*ready, *claimed, *(queue for queue, _ in resting)})
    ]


def run_work(rows: Sequence[tuple[str, str, int, int]]) -> list[RunWork]:
    """Rows of (correlation, state, count, since) as one figure for each correlation, the most work first."""
    states: dict[str, dict[str, int]] = {}
    since: dict[str, int] = {}
    for correlation_id, state, count, inserted_at in rows:
        states.setdefault(correlation_id, {})[state] = count
        since[correlation_id] = min(since.get(correlation_id, inserted_at), inserted_at)
    found = [
        RunWork(
            correlation_id=correlation_id,
            ready=counted.get("ready", 0),
            delayed=counted.get("delayed", 0),
            waiting=counted.get("waiting", 0),
            claimed=counted.get("claimed", 0),
            since=since[correlation_id],
        )
        for correlation_id, counted in states.items()
    ]
    return sorted(found, key=lambda run: (-run.open, run.since, run.correlation_id))
