"""The ports of floor 2 and the store that holds them.

Every port has one contract suite that each backend passes. A port is a Protocol; the
implementations for one database share a folder, for they share a connection and a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, Self

from hive_core_db.records import (
    AppendRequest,
    Epoch,
    Lease,
    LimitState,
    LogMeta,
    ParkedKey,
    Partition,
    QueueDepth,
    Roster,
    RunWork,
    StoredEvent,
    Stretch,
    Verdict,
    ViewRow,
    WorkItem,
)
from hive_core_db.rows import StoredRow


class EventLog(Protocol):
    """The append-only log.

    Guarantees:
        Positions are gapless and in commit order: a reader that has seen N and asks for
        more never misses anything. A request is atomic, and one request's verdict never
        fails its neighbours. When ``append`` returns, what it appended is durable. A
        cancelled ``append`` has happened whole or not at all.
    """

    @property
    def lanes(self) -> int:
        """How many ``append`` calls may be under way at once, at most what it is at first; of two, either may be the first in the log."""
        ...

    @property
    def reads_elsewhere(self) -> bool:
        """Whether another process does the work of a read, so that one asked for early costs the caller's loop nothing meanwhile."""
        ...

    async def meta(self) -> LogMeta: ...
    async def epochs(self) -> list[Epoch]:
        """The lives of the log, the present one last: numbers may jump where one begins, and nowhere else."""
        ...

    async def begin_epoch(self, reason: str, *, epoch: int, above: int) -> Epoch:
        """Begin a new epoch above position ``above`` and all that was shown; the present one if ``epoch`` is over already.

        Every lease and every process of the epoch before is fenced, this one too.
        """
        ...

    async def append(self, batch: Sequence[AppendRequest]) -> list[Verdict]:
        """Judge the requests in order, as if committed apart, in one transaction (checkpoints, work, views ride along)."""
        ...

    async def head(self) -> int: ...
    async def poll(self) -> int | None:
        """The head if another connection may have written since the last poll, else None; microseconds when idle."""
        ...

    def watch(self, callback: Callable[[int], None]) -> None:
        """Call ``callback`` on the loop with the head that a wake-up names, where the database sends any: a poll comes later."""
        ...

    async def read(
        self, after: int, *, limit: int, topics: Sequence[str] | None = None, until: int | None = None
    ) -> list[StoredEvent]:
        """Events with ``after < position`` (``<= until``), ascending; ``topics`` are full topics, read by their index."""
        ...

    async def rows(
        self, after: int, *, limit: int, topics: Sequence[str] | None = None, until: int | None = None
    ) -> list[StoredRow]:
        """What ``read`` finds, without a name to the columns: for whoever makes another object of it, or needs few of the rows."""
        ...

    async def read_stream(
        self, stream: str, *, after: int = 0, limit: int = 1000, decider: str | None = None
    ) -> list[StoredEvent]:
        """Events of a stream with ``version > after``; with ``decider`` only those that a brain of this name decided."""
        ...

    async def read_correlation(
        self, correlation_id: str, *, after: int = 0, until: int | None = None, limit: int = 1000,
        decider: str | None = None, topics: Sequence[str] | None = None,
    ) -> list[StoredEvent]:  # fmt: skip
        """Events of a correlation with ``after < position`` (``<= until``); ``decider`` as for streams, else with ``topics`` only of these."""
        ...

    async def last_of_correlation(self, correlation_id: str) -> int:
        """The correlation's last position, 0 if it has none."""
        ...

    async def count_correlation(self, correlation_id: str, *, until: int) -> int:
        """How many events a correlation has at or before position ``until``."""
        ...

    async def nth_of_correlation(self, correlation_id: str, number: int) -> int:
        """The position of the correlation's event ``number``, counted from 1; 0 if it has fewer."""
        ...

    async def get(self, event_id: str) -> StoredEvent | None: ...
    async def several(self, event_ids: Sequence[str]) -> list[StoredEvent]:
        """The events of these ids, in log order, in one question; ids that the log does not have are left out."""
        ...

    async def latest(self, topics: Sequence[str], *, limit: int, before: int | None = None) -> list[StoredEvent]:
        """The newest events of these topics, newest first."""
        ...

    async def topics(self) -> list[str]:
        """Every topic that the log has seen."""
        ...

    async def correlations(self, prefix: str, *, limit: int = 10) -> list[str]:
        """Correlation ids that begin with ``prefix``, in order."""
        ...

    async def position_at(self, time: int) -> int:
        """The last position recorded at or before ``time``; 0 if none."""
        ...


class WorkQueue(Protocol):
    """What waits to be done. All changes are parts of append requests; this port reads.

    Guarantees:
        An item is claimed by at most one lease at a time and ends exactly once.
    """

    async def claimable(
        self, queues: Sequence[str], *, limit: int, worker: str | None = None, stretch: Stretch | None = None
    ) -> list[WorkItem]:
        """Ready items of these queues, in turn order; items that prefer another worker are left out while they hold out.

        With a ``stretch``: of the first ``limit`` items those that lie on it.
        """
        ...

    async def due(self, *, limit: int) -> list[WorkItem]:
        """Items for the clock: ``reason`` is ``delay`` (time has come), ``waiting``, ``running``, ``silent``, ``total``
        (a timeout struck), ``lease`` (claimed, but its lease is closed or expired) or ``cancel`` (asked to end, unclaimed).
        """
        ...

    async def next_due(self) -> int | None:
        """When the next item falls due, in database time; None if none will by time alone."""
        ...

    async def make_ready(self, work_id: str) -> bool:
        """Turn a delayed retry into a ready item (no event: the attempt's failure already said when)."""
        ...

    async def items(self, correlation_id: str | None = None) -> list[WorkItem]:
        """Open items, all or of one correlation, in insertion order."""
        ...

    async def item(self, work_id: str) -> WorkItem | None: ...
    async def cancelled(self, lease_id: str) -> list[str]:
        """Items claimed by this lease that were asked to end."""
        ...


class Checkpoints(Protocol):
    """Groups, their partitions and what they have handled; moving a checkpoint is part of an append."""

    async def ensure_group(self, group: str, *, partitions: int, start: int) -> int:
        """Make the group if it is new, its checkpoints at ``start``; returns its number of partitions, fixed for ever."""
        ...

    async def partitions(self, group: str) -> list[Partition]: ...
    async def groups(self) -> list[str]: ...
    async def join(self, group: str, lease_id: str) -> None: ...
    async def leave(self, group: str, lease_id: str, *, release: bool = True) -> None:
        """Be a member no more, and free what is held of the group; ``release`` False keeps that until it is released."""
        ...

    async def members(self, group: str) -> list[str]:
        """Lease ids of the members whose leases are open and unexpired, sorted."""
        ...

    async def rosters(self, groups: Sequence[str]) -> dict[str, Roster]:
        """Members and partitions of each of these groups, in one question; a group that is not there has none."""
        ...

    async def take(self, group: str, partition: int, lease_id: str) -> Partition | None:
        """Own a partition that is free, or whose owner's lease has ended (an expired lease is closed first). The fence grows."""
        ...

    async def release(self, group: str, partition: int, lease_id: str, fence: int) -> None: ...
    async def parked(self, group: str | None = None, *, partition: int | None = None) -> list[ParkedKey]: ...


class Leases(Protocol):
    """Signs of life, in database time."""

    async def open(self, owner: str, *, ttl: int, info: str = "{}") -> Lease: ...
    async def renew(self, lease_id: str, *, ttl: int, info: str | None = None) -> bool:
        """False when the lease was closed meanwhile: its owner must stop. ``info`` replaces what it says of itself."""
        ...

    async def close(self, lease_id: str) -> None: ...
    async def expire(self, lease_id: str) -> bool:
        """Close the lease if its time is over, with all that it holds; False when it was renewed or closed meanwhile."""
        ...

    async def live(self) -> list[Lease]: ...
    async def ended(self, since: int) -> list[Lease]:
        """Leases that were closed at or after ``since`` (closed ones are kept for a day), and open ones whose time is over."""
        ...


class Limits(Protocol):
    """Slots and rates that all processes share, by keys that their users choose. Nothing here is in the log.

    Guarantees:
        Slots taken of a key are never more than the limit that the taker named; those of a lease that is closed or
        expired are free. Whoever has asked in vain for a second, and goes on asking, comes before those who asked
        later. Times are the database's; every call is a short transaction of its own.
    """

    async def take(self, key: str, limit: int, lease_id: str, wanted: int) -> int:
        """Take up to ``wanted`` slots for a live lease and return how many; 0 while the key is held.

        What is missing is remembered as waiting until the next call; ``wanted`` 0 waits no longer.
        """
        ...

    async def give(self, key: str, lease_id: str, count: int) -> None:
        """Give slots back."""
        ...

    async def spend(self, key: str, rate: float, burst: float, amount: float) -> int:
        """Take ``amount`` from a bucket that fills at ``rate`` per second up to ``burst``; 0: it is spent.

        Else nothing is, and the answer is how many microseconds it will take (or the key is held). More than
        ``burst`` at once is granted to a full bucket, which is then in debt.
        """
        ...

    async def settle(self, key: str, amount: float) -> None:
        """Correct what was spent: take ``amount`` more, into debt if need be, or give it back if it is below 0."""
        ...

    async def hold(self, key: str, duration: int) -> None:
        """Nobody takes or spends of this key for ``duration`` microseconds; a longer hold stays."""
        ...

    async def state(self) -> list[LimitState]:
        """Every key as it is now, by key."""
        ...


class Figures(Protocol):
    """What people ask of the whole store.

    Guarantees:
        Each question reads a bounded number of rows by index, however long the log is: what is
        beyond ``limit`` is not counted.
    """

    async def queues(self, *, limit: int) -> list[QueueDepth]:
        """What is open in each queue, by name; at most ``limit`` items of a kind are counted in each."""
        ...

    async def runs(self, *, limit: int) -> list[RunWork]:
        """The open work of each correlation, the most first, from at most ``limit`` items."""
        ...

    async def counts(
        self, topics: Sequence[str], *, after: int, limit: int, until: int | None = None
    ) -> dict[str, int]:
        """How many events of each topic lie above position ``after`` (``<= until``); at most ``limit`` are counted of each."""
        ...


class Blobs(Protocol):
    """Large bodies by their sha256, deduplicated."""

    async def put(self, body: bytes) -> str:
        """Store and return the digest; idempotent, marks the blob as used now."""
        ...

    async def get(self, digest: str) -> bytes | None: ...
    async def sweep(self) -> int:
        """Remove what is unreferenced for a day; returns how many."""
        ...


class Views(Protocol):
    """Documents of read models; written by append requests."""

    async def get(self, view: str, version: int, key: str, *, at: int | None = None) -> ViewRow | None: ...
    async def rows(
        self, view: str, version: int, *, at: int | None = None, limit: int = 100, after: tuple[str, str] | None = None
    ) -> list[ViewRow]:
        """Rows ascending by (sort, key)."""
        ...

    async def drop(self, view: str, version: int) -> None: ...


class Snapshot(NamedTuple):
    """The state of a brain's key behind a decision.

    ``decided`` is the position of the last event of the decision, ``handled`` that of its cause; ``folded`` counts the
    inputs that lie in the state. ``code`` names the code that made it.
    """

    brain: str
    key: str
    decided: int
    code: str
    handled: int
    folded: int
    body: bytes


class Snapshots(Protocol):
    """States of brains somewhere in their past, so that it need not be folded from its beginning.

    Guarantees:
        Nothing but time hangs on them: any may be missing, none is ever changed. What a body is, floor 2 does not know.
    """

    async def put(self, snapshot: Snapshot) -> None:
        """Keep it, in a transaction of its own; one of the same brain, key and decision gives way."""
        ...

    async def nearest(self, brain: str, key: str, code: str, *, upto: int) -> Snapshot | None:
        """The last one that this code made of the key with all its decisions at or before position ``upto``."""
        ...

    async def sweep(self, brain: str, code: str) -> int:
        """Remove what other code made of this brain; returns how many."""
        ...


class Store(Protocol):
    """An open database: its ports, and its end."""

    @property
    def url(self) -> str: ...
    @property
    def log(self) -> EventLog: ...
    @property
    def work(self) -> WorkQueue: ...
    @property
    def checkpoints(self) -> Checkpoints: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def figures(self) -> Figures: ...
    @property
    def blobs(self) -> Blobs: ...
    @property
    def views(self) -> Views: ...
    @property
    def snapshots(self) -> Snapshots: ...
    def now(self) -> int:
        """Database time, UTC microseconds."""
        ...

    async def close(self) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...
