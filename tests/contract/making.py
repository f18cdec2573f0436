"""Short ways to say events and requests in tests of floor 2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import count
from typing import Any

from hive_core_db.records import (
    AlreadyThere,
    Appended,
    AppendRequest,
    NewEvent,
    StoredEvent,
    Verdict,
    WorkClaim,
    WorkInsert,
)
from hive_core_db.store import Store

SECOND = 1_000_000
START = 1_800_000_000 * SECOND

_numbers = count(1)


class Clock:
    """Database time as the test wants it, UTC microseconds."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> int:
        """Return the present time."""
        return self.time

    def pass_time(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.time += round(seconds * SECOND)


def event(stream: str | None = None, *, payload: str = '{"n":1}', fresh: bool = False, **fields: Any) -> NewEvent:
    """Return an event with an id of its own; without a stream, in a stream of its own."""
    number = next(_numbers)
    event_id = fields.pop("event_id", f"event-{number:06}")
    values = {
        "topic": "thing.happened",
        "correlation_id": f"run-{number}",
        "causation_id": None,
        "cause_position": None,
        "decided_by": None,
        "source": "test",
        "schema_version": 1,
        "metadata": None,
        "digest": sha256(payload.encode("utf-8", "surrogatepass")).hexdigest(),
        "occurred_at": None,
    }
    return NewEvent(
        event_id=event_id, stream=stream or f"stream-{number}", payload=payload, fresh=fresh, **(values | fields)
    )


def request(*events: NewEvent, epoch: int = 1, **fields: Any) -> AppendRequest:
    """Return a request that appends ``events``."""
    return AppendRequest(epoch=epoch, events=events, **fields)


async def verdicts(store: Store, *requests: AppendRequest) -> list[Verdict]:
    """Append the requests as one batch."""
    return await store.log.append(requests)


async def verdict(store: Store, one: AppendRequest) -> Verdict:
    """Append one request and return its verdict."""
    (found,) = await store.log.append([one])
    return found


async def appended(store: Store, *events: NewEvent, **fields: Any) -> Appended:
    """Append one request, which must be accepted."""
    found = await verdict(store, request(*events, **fields))
    assert isinstance(found, Appended), found
    return found


async def fill(store: Store, number: int, *, batch: int = 100, **fields: Any) -> list[StoredEvent]:
    """Append ``number`` events, each in a request of its own."""
    rows: list[StoredEvent] = []
    while len(rows) < number:
        size = min(batch, number - len(rows))
        for found in await verdicts(store, *(request(event(**fields)) for _ in range(size))):
            assert isinstance(found, Appended), found
            rows.extend(found.events)
    return rows


async def insert(
    store: Store, *, queue: str = "q", state: str = "ready", correlation_id: str = "run", **fields: Any
) -> str:
    """Put one item into the queue and return its work id."""
    intent = event("work", topic="thing.requested", correlation_id=correlation_id)
    await appended(store, intent, work=(WorkInsert(event_index=0, queue=queue, state=state, **fields),))
    return intent.event_id


async def claim(store: Store, work_id: str, lease_id: str, *, fence: int = 0) -> Verdict:
    """Take an item."""
    return await verdict(store, request(work=(WorkClaim(work_id=work_id, fence=fence, lease_id=lease_id),)))


def positions(rows: Iterable[StoredEvent]) -> list[int]:
    """Return the positions of rows."""
    return [row.position for row in rows]


def span(found: Verdict) -> Sequence[int]:
    """Return the first and last position of an accepted or known request."""
    assert isinstance(found, Appended | AlreadyThere), found
    return found.first, found.last
