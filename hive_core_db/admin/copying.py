"""One database into another: SQLite or PostgreSQL, in either direction.

What is copied is one moment of the source, row by row: events, bodies, topics, epochs, groups with their checkpoints,
parked keys, work, queues, views. The copy keeps the log's id and loses the database's: its first opening begins a new epoch.

Nobody holds anything in a copy. Partitions are free and groups have no members. Work that was claimed stays claimed, by a lease that is
copied closed: the clock finds it as it finds the work of any process that died, and the effect's class says what follows. Made ready
here it would be run again without a question, and its attempt would have no end in the log. Slots and rates of limits belong
to processes that run, and are left out. Ends with a comparison: what is read back must have the digest of what was sent.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from hive_core_db.admin.ends import Source, Target, source_of, target_of
from hive_core_db.admin.report import Copied, Progress
from hive_core_db.engine import system_now
from hive_core_db.schema import metadata
from hive_errors.store import CopyDiffers

Row = tuple[Any, ...]
TABLES: Final = (
    "log_meta", "epochs", "topics", "blobs", "blob_refs", "events", "consumer_groups", "partitions", "parked", "leases",
    "work", "queues", "view_rows",
)  # fmt: skip
"""What is copied, in this order; a test compares it with the schema."""
LEFT_OUT: Final = {
    "maintenance": "a session belongs to one database",
    "members": "a member is a process",
    "limits": "rates and holds of the moment; whoever takes says the limit anew",
    "limit_slots": "what processes hold",
    "snapshots": "brains make them anew from the events",
}
"""What is not copied, and why."""

# Not before it claimed anything, whatever this machine's clock says.
_CLOSED: Final = """(SELECT coalesce(closed_at, max(CASE WHEN w.claimed_at > {now} THEN w.claimed_at ELSE {now} END))
    FROM work AS w WHERE w.lease_id = leases.lease_id)"""
# Instead of the column as it is.
_CHANGED: Final[Mapping[tuple[str, str], str]] = {
    ("log_meta", "database_id"): "''",
    ("partitions", "lease_id"): "NULL",
    ("leases", "closed_at"): _CLOSED,
}
# Only rows that something names.
_CONDITIONS: Final = {"leases": " WHERE lease_id IN (SELECT lease_id FROM work WHERE lease_id IS NOT NULL)"}
_REPORT_EVERY: Final = 5_000


@dataclass(slots=True)
class _Digest:
    """The digest of a table's rows in the order of its key, whatever database they come from."""

    rows: int = 0
    _sha: Any = field(default_factory=sha256)

    def through(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Pass rows on, and remember them."""
        update = self._sha.update
        for row in rows:
            # Format 0 writes a value the same way wherever it lies in memory.
            update(marshal.dumps(row, 0))
            self.rows += 1
            yield row

    def __str__(self) -> str:
        return f"{self.rows} rows, sha256 {self._sha.hexdigest()}"


def copy(source: str, target: str, *, progress: Progress | None = None, now: Callable[[], int] = system_now) -> Copied:
    """Copy; what it promises and raises is said at `hive_core_db.admin.copy`."""
    report = progress if progress is not None else _quietly
    with ExitStack() as ends:
        reader = ends.enter_context(source_of(source))
        writer = ends.enter_context(target_of(target))
        sent = {table: _send(table, reader, writer, report, now()) for table in TABLES}
        for table in TABLES:
            found = _Digest()
            count = sent[table].rows
            for _ in _reported(f"compare {table}", count, found.through(writer.rows(_select(table))), report):
                pass
            if str(found) != str(sent[table]):
                raise CopyDiffers(url=str(writer), table=table, expected=str(sent[table]), actual=str(found))
        head, log_id = next(
            iter(writer.rows("SELECT (SELECT coalesce(max(position), 0) FROM events), log_id FROM log_meta"))
        )
        writer.finish()
    whole = sha256("\n".join(f"{table}: {digest}" for table, digest in sent.items()).encode()).hexdigest()
    rows = {table: digest.rows for table, digest in sent.items()}
    return Copied(source=str(reader), target=str(writer), log_id=log_id, head=head, rows=rows, digest=whole)


def _send(table: str, reader: Source, writer: Target, report: Progress, now: int) -> _Digest:
    digest = _Digest()
    condition = _CONDITIONS.get(table, "")
    (total,) = next(iter(reader.rows(f"SELECT count(*) FROM {table}{condition}")))
    rows = reader.rows(_select(table, now=now, changed=True))
    writer.fill(table, _columns(table), _reported(table, total, digest.through(rows), report))
    return digest


def _select(table: str, *, now: int = 0, changed: bool = False) -> str:
    """All rows in the order of the key; with ``changed`` as the copy is to have them."""
    names = [
        _CHANGED.get((table, name), f'"{name}"').format(now=now) if changed else f'"{name}"' for name in _columns(table)
    ]
    order = ", ".join(f'"{column.name}"' for column in metadata.tables[table].primary_key)
    condition = _CONDITIONS.get(table, "") if changed else ""
    return f"SELECT {', '.join(names)} FROM {table}{condition} ORDER BY {order}"


def _columns(table: str) -> Sequence[str]:
    return metadata.tables[table].columns.keys()


def _reported(table: str, total: int, rows: Iterator[Row], report: Progress) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        yield row
        if number % _REPORT_EVERY == 0 or number == total:
            report(table, number, total)


def _quietly(_table: str, _done: int, _total: int) -> None:
    """Tell nobody."""
