"""The judge's facts on SQLite: read one by one, under the write lock of the batch."""

from __future__ import annotations

import sqlite3

from hive_core_db.judge.facts import Document, DocumentState, KnownEvent, Slot
from hive_core_db.judge.work_row import WorkRow
from hive_core_db.sqlite.view_changes import CURRENT
from hive_core_db.sqlite.work_changes import FIND, LAST_BASE, OPEN_LEASE, QUEUE

# The version of a stream is its last one; the unique index (stream, version) answers.
STREAM_VERSION = "SELECT max(version) FROM events WHERE stream = ?"
# The last position of a correlation; the index (correlation_id, position) answers.
LAST_OF_CORRELATION = "SELECT max(position) FROM events WHERE correlation_id = ?"
KNOWN_EVENT = "SELECT position, append_first, stream, topic, digest FROM events WHERE event_id = ?"
STORED_BLOB = "SELECT 1 FROM blobs WHERE digest = ?"
# A partition's row as verdicts need it; a closed lease holds nothing, whatever the row says.
OWNER = """
SELECT p.position, CASE WHEN l.closed_at IS NULL THEN l.lease_id END, p.fence
FROM partitions AS p LEFT JOIN leases AS l ON l.lease_id = p.lease_id
WHERE p.group_name = ? AND p.number = ?"""


class SqliteFacts:
    """The port `Facts` on a connection that holds the write lock."""

    __slots__ = ("_db",)

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def version(self, stream: str) -> int:
        """Return the stream's last version."""
        return self._db.execute(STREAM_VERSION, (stream,)).fetchone()[0] or 0

    def last_of(self, correlation_id: str) -> int:
        """Return the correlation's last position."""
        return self._db.execute(LAST_OF_CORRELATION, (correlation_id,)).fetchone()[0] or 0

    def known(self, event_id: str) -> KnownEvent | None:
        """Return what the id stands for."""
        row = self._db.execute(KNOWN_EVENT, (event_id,)).fetchone()
        return None if row is None else KnownEvent(*row)

    def blob(self, digest: str) -> bool:
        """Say whether the body is stored."""
        return self._db.execute(STORED_BLOB, (digest,)).fetchone() is not None

    def partition(self, slot: Slot) -> tuple[int, str | None, int] | None:
        """Return checkpoint, owner and fence."""
        row: tuple[int, str | None, int] | None = self._db.execute(OWNER, slot).fetchone()
        return row

    def work(self, work_id: str) -> WorkRow | None:
        """Return the open item."""
        values = self._db.execute(FIND, (work_id,)).fetchone()
        return None if values is None else WorkRow(*values)

    def last_base(self, correlation_id: str, queue: str) -> float | None:
        """Return the last place of the run in the queue."""
        base: float | None = self._db.execute(LAST_BASE, (correlation_id, queue)).fetchone()[0]
        return base

    def turn(self, queue: str) -> float:
        """Return the queue's present turn."""
        row = self._db.execute(QUEUE, (queue,)).fetchone()
        return 0.0 if row is None else row[0]

    def lease_is_open(self, lease_id: str) -> bool:
        """Say whether nobody closed the lease."""
        return self._db.execute(OPEN_LEASE, (lease_id,)).fetchone() is not None

    def document(self, document: Document) -> DocumentState:
        """Return where the document's last row stands."""
        row = self._db.execute(CURRENT, document).fetchone()
        if row is None:
            return None, 0
        begun, until = row
        return (begun, begun) if until is None else (None, until)
