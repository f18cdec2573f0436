"""What the judge asks a database: a port of stored values, as they are before the batch.

A backend may read them under its write lock, or believe them and have them verified by
the call that writes. The judge itself never touches a connection.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from hive_core_db.judge.work_row import WorkRow

Slot = tuple[str, int]
"""A group and the number of one of its partitions."""

Document = tuple[str, int, str]
"""View, version and key of a read model's document."""

DocumentState = tuple[int | None, int]
"""Where a document's last row begins (None: there is no open row), and below which position nothing may be written."""


class KnownEvent(NamedTuple):
    """What an event id stands for: enough to tell a repetition from a mix-up."""

    position: int
    append_first: int
    stream: str
    topic: str
    digest: str


class Facts(Protocol):
    """Stored values, one by one; the judge asks for each at most once or twice in a batch."""

    def version(self, stream: str) -> int:
        """The stream's last version, 0 if it has none."""
        ...

    def last_of(self, correlation_id: str) -> int:
        """The correlation's last position, 0 if it has none."""
        ...

    def known(self, event_id: str) -> KnownEvent | None:
        """The event with this id."""
        ...

    def blob(self, digest: str) -> bool:
        """Whether the body is stored."""
        ...

    def partition(self, slot: Slot) -> tuple[int, str | None, int] | None:
        """Checkpoint, owner and fence; a closed lease owns nothing, whatever the row says."""
        ...

    def work(self, work_id: str) -> WorkRow | None:
        """The open item; its row is never changed in place."""
        ...

    def last_base(self, correlation_id: str, queue: str) -> float | None:
        """The last place of a run in a queue, among what is still open."""
        ...

    def turn(self, queue: str) -> float:
        """A queue's present turn."""
        ...

    def lease_is_open(self, lease_id: str) -> bool:
        """Whether the lease was not closed; a closed lease can take nothing."""
        ...

    def document(self, document: Document) -> DocumentState:
        """Where the document's last row stands."""
        ...
