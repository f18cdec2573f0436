"""The rows that cross floor 2: what is stored, what is asked for, and the verdicts.

Plain named tuples and slotted records, for millions of them pass here: no
validation, no behaviour. Times are UTC microseconds since 1970, durations are
microseconds. This module knows neither topics nor event classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from hive_errors.store import StoreError


class StoredEvent(NamedTuple):
    """One row of the log, in the order of its columns."""

    position: int
    event_id: str
    stream: str
    version: int
    topic: str
    correlation_id: str
    causation_id: str | None
    cause_position: int | None
    decided_by: str | None
    source: str
    schema_version: int
    payload: str
    metadata: str | None
    digest: str
    append_first: int
    occurred_at: int
    recorded_at: int


class NewEvent(NamedTuple):
    """An event on its way into the log; position, version and recorded_at are given under the lock.

    ``payload`` is the exact JSON text, ``digest`` its sha256 in hex. ``occurred_at``
    None means: when it was recorded. A ``cause_position`` of -1 - i is event i of the same
    request. ``fresh`` promises that neither the event id
    nor the stream can be in the log yet (both were just drawn at random), so that
    the log need not look; a broken promise is caught by the unique indexes.
    """

    event_id: str
    stream: str
    topic: str
    correlation_id: str
    causation_id: str | None
    cause_position: int | None
    decided_by: str | None
    source: str
    schema_version: int
    payload: str
    metadata: str | None
    digest: str
    occurred_at: int | None
    fresh: bool = False


class CheckpointMove(NamedTuple):
    """Move a partition's checkpoint forward, as its owner: lease and fence must be the stored ones."""

    group: str
    partition: int
    position: int
    lease_id: str
    fence: int


class WorkInsert(NamedTuple):
    """Put an effect into the work queue, with the intent that asks for it.

    ``event_index`` is the intent's index in the request's events; its event id is the work id.
    ``queue`` names the set of required labels. ``state`` is where it starts: ``ready``
    (a hand may claim it), ``delayed`` (time makes it due after ``delay``) or
    ``waiting`` (a person ends it). Timeouts of None never strike.
    """

    event_index: int
    queue: str
    state: str
    priority: int = 5
    cost: float = 1.0
    delay: int = 0
    waiting_timeout: int | None = None
    running_timeout: int | None = None
    silent_timeout: int | None = None
    total_timeout: int | None = None
    preferred: str | None = None
    hold_out: int = 0


class WorkClaim(NamedTuple):
    """Take a ready item: it must still be ready, uncancelled and at ``fence``; its fence and attempt then grow by one."""

    work_id: str
    fence: int
    lease_id: str


class WorkEnd(NamedTuple):
    """Close an item for good, if its fence is still ``fence``; None ends it whoever holds it (people)."""

    work_id: str
    fence: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRetry:
    """Give a claimed item back: ready again after ``delay``. Its fence grows, so that its last owner ends nothing."""

    work_id: str
    fence: int
    delay: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkCancel:
    """Ask for an item's end: it becomes unclaimable. No verdict depends on it; an ended item is left alone."""

    work_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkTouch:
    """Say that a claimed item is alive (its silent timeout starts again)."""

    work_id: str
    fence: int


WorkChange = WorkInsert | WorkClaim | WorkEnd | WorkRetry | WorkCancel | WorkTouch


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkKey:
    """Set a failing key aside (or move its next try): events of the key wait from ``from_position`` on."""

    group: str
    key: str
    partition: int
    from_position: int
    attempt: int
    retry_in: int | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnparkKey:
    """The key has caught up with its partition's checkpoint: its row goes."""

    group: str
    key: str


ParkChange = ParkKey | UnparkKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewWrite:
    """Set a read model's document as of ``position``; ``body`` None ends it."""

    view: str
    version: int
    key: str
    position: int
    body: str | None
    sort: str = ""


_NONE: Final[Mapping[str, int]] = MappingProxyType({})


class AppendRequest(NamedTuple):
    """One atomic append: everything in it happens, or nothing does.

    ``expected`` maps streams to the version they must have (0: no event yet), also
    streams that the request does not append to. ``quiet`` maps correlation ids to
    the position after which the log must hold nothing else of them. Views,
    parks and checkpoints are applied after the events. ``owner`` is None, or a (group,
    partition, lease id, fence) whose ownership must hold although its checkpoint does not move.
    ``blobs`` are digests of stored bodies that the events name in their payloads: they are
    kept as long as the log (a blob nobody names is swept after a day).
    """

    epoch: int
    events: tuple[NewEvent, ...] = ()
    expected: Mapping[str, int] = _NONE
    quiet: Mapping[str, int] = _NONE
    owner: tuple[str, int, str, int] | None = None
    checkpoints: tuple[CheckpointMove, ...] = ()
    work: tuple[WorkChange, ...] = ()
    parks: tuple[ParkChange, ...] = ()
    views: tuple[ViewWrite, ...] = ()
    blobs: tuple[str, ...] = ()


class Appended(NamedTuple):
    """The request is in the log; ``events`` are its rows as stored (without events: ``last`` is the head, ``first`` the next)."""

    first: int
    last: int
    events: tuple[StoredEvent, ...]


class AlreadyThere(NamedTuple):
    """Exactly these events were in the log already; nothing was applied again."""

    first: int
    last: int


class Corrupt(NamedTuple):
    """Some of the event ids are known, or known with other content."""

    event_id: str


EPOCH: Final = "epoch"
"""What :class:`FencedOff` names when the request is of another epoch than the log."""


class FencedOff(NamedTuple):
    """Lease, fence or epoch is not the stored one (or a checkpoint lies beyond the head)."""

    what: str
    held: int
    actual: int


class Ended(NamedTuple):
    """The work item is closed."""

    work_id: str


class Conflict(NamedTuple):
    """A stream is not at its expected version."""

    stream: str
    expected: int
    actual: int


class NotQuiet(NamedTuple):
    """The correlation has an event after the position that the request named."""

    correlation_id: str
    position: int


class Refused(NamedTuple):
    """A value of the request cannot be stored (wrong type, too large); ``error`` is for its caller to raise."""

    error: StoreError


Verdict = Appended | AlreadyThere | Corrupt | FencedOff | Ended | Conflict | NotQuiet | Refused


RING: Final = 65_536
"""How many places there are on the ring."""
STEP: Final = 40_503
"""From one position's place to the next one's: by the golden ratio, so that neighbours, and every n-th, lie all over the ring."""


class Stretch(NamedTuple):
    """A part of the ring on which all items lie, by their positions: ``length`` places from ``start`` on."""

    start: int
    length: int

    def distance(self, position: int) -> int:
        """How far behind the start an item with this position lies."""
        return (position % RING * STEP - self.start) % RING


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkItem:
    """A row of the work queue; ``work_id`` is the intent's event id. Instants are database time."""

    work_id: str
    position: int
    topic: str
    correlation_id: str
    stream: str
    queue: str
    state: str
    turn: float
    attempt: int
    fence: int
    lease_id: str | None
    cancel_requested: bool
    due_at: int | None
    claimed_at: int | None
    inserted_at: int
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition of a group: its checkpoint and who holds it (``lease_id`` None: nobody)."""

    group: str
    number: int
    position: int
    lease_id: str | None
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """A group at one moment: the lease ids of its living members, sorted, and its partitions by number."""

    members: tuple[str, ...]
    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedKey:
    """A key set aside; ``next_try`` None means: until somebody retries or discards it."""

    group: str
    key: str
    partition: int
    from_position: int
    attempt: int
    next_try: int | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A process's sign of life: who, from when, until when; ``info`` is JSON text for people."""

    lease_id: str
    owner: str
    opened_at: int
    expires_at: int
    closed: bool
    info: str
    closed_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """What a limit's key looks like now: slots ``taken`` of ``ceiling``, how many are ``missing`` to those who ask for more;

    its bucket's ``level`` of ``burst``, filled at ``rate`` per second (below 0: in debt); and until when it is held.
    """

    key: str
    ceiling: int | None
    taken: int
    missing: int
    level: float | None
    rate: float | None
    burst: float | None
    held_until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """How much is open in a queue, by state, and since when the oldest items wait for a hand, or are in one's care."""

    queue: str
    ready: int
    delayed: int
    waiting: int
    claimed: int
    oldest_ready_at: int | None
    oldest_claimed_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWork:
    """The open work of one correlation, by state; ``since`` is when the oldest of it came into the queue."""

    correlation_id: str
    ready: int
    delayed: int
    waiting: int
    claimed: int
    since: int

    @property
    def open(self) -> int:
        """All of it."""
        return self.ready + self.delayed + self.waiting + self.claimed


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMeta:
    """The log's identity: its name, its random id, the present epoch, the database's identity."""

    name: str
    log_id: str
    epoch: int
    database_id: str
    first_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One unbroken life of the log: its number, its random id, where it begins, since when, and why."""

    number: int
    epoch_id: str
    first_position: int
    began_at: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRow:
    """A read model's document as it was from ``from_position`` until before ``until_position`` (None: still)."""

    view: str
    version: int
    key: str
    from_position: int
    until_position: int | None
    sort: str
    body: str
