"""The auditor: reads the tables with plain SQL and names every invariant that does not hold.

It shares no code with what writes the tables (nor their SQL): a mistake made there
must not be made here again. It knows topics only through the vocabulary it is given.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping

from hive_core_db.audit import log, owners, snapshot, work
from hive_core_db.audit.finding import Finding, Vocabulary

__all__ = ["Finding", "Vocabulary", "audit"]

_CHECKS = (
    log.positions,
    log.identity,
    log.versions,
    log.ids,
    log.digests,
    log.causes,
    log.topics,
    owners.checkpoints,
    owners.parked,
    owners.leases,
    owners.views,
    work.work_rows,
)


def audit(
    source: str | sqlite3.Connection, *, vocabulary: Vocabulary | Mapping[str, Collection[str]] | None = None
) -> Iterator[Finding]:
    """Check one snapshot of a database; nothing found means: every invariant of floor 2 holds.

    Args:
        source: An address as `open_store` takes it, SQLite's or PostgreSQL's, or a connection to a SQLite file.
        vocabulary: What the topics mean, or only its ``results``; without it, work is checked against itself alone.

    Raises:
        UnsupportedUrl, StoreUnavailable: There is nothing to read.
    """
    words = vocabulary if isinstance(vocabulary, Vocabulary) else Vocabulary(results=vocabulary or {})
    try:
        with snapshot.opened(source) as db:
            for check in _CHECKS:
                yield from check(db)
            yield from work.effects(db, words)
    except snapshot.Damaged as damage:
        yield damage.finding()
