"""The tables as SQLAlchemy metadata: what migrations must lead to.

Cold code only (migrations, tests, administration): the hot path never imports
this module, it speaks SQL to the driver. A test proves that the migrations,
this metadata and the packaged DDL of each database are the same schema.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

# SQLite gives the rowid only to a column declared INTEGER, and knows no sizes.
Number = BigInteger().with_variant(Integer(), "sqlite")
Small = SmallInteger().with_variant(Integer(), "sqlite")
# Keys compare by bytes: prefix reads use the index, and a libc upgrade cannot break uniqueness.
Key = Text().with_variant(Text(collation="C"), "postgresql")
# Rows that are rewritten all the time. Room in each page lets a new version of a row stay beside the old one (no index entry
# changes), and vacuum comes after so many changed rows, whatever the size: dead versions of a hot row are what makes it slow.
HOT_ROWS: dict[str, Any] = {
    "postgresql_with": {"fillfactor": 30, "autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 200}
}
# Rows come and go by the million: vacuum comes when two in a hundred are dead, and does not dawdle.
HOT_TABLE: dict[str, Any] = {
    "postgresql_with": {
        "fillfactor": 80,
        "autovacuum_vacuum_scale_factor": 0.02,
        "autovacuum_vacuum_threshold": 1000,
        "autovacuum_vacuum_cost_delay": 0,
    }
}
# Only ever inserted: vacuum marks pages as all-visible early, so that counts and positions come from the index alone.
GROWS: dict[str, Any] = {
    "postgresql_with": {"autovacuum_vacuum_insert_scale_factor": 0.05, "autovacuum_analyze_scale_factor": 0.02}
}


def _where(condition: str) -> dict[str, Any]:
    # Partial on both: what may not run now, holds nothing or lies in the past is not in the index.
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


events = Table(
    "events",
    metadata,
    Column("position", Number, primary_key=True, autoincrement=False),
    Column("event_id", Key, nullable=False),
    Column("stream", Key, nullable=False),
    Column("version", Number, nullable=False),
    Column("topic", Key, nullable=False),
    Column("correlation_id", Key, nullable=False),
    Column("causation_id", Key),
    Column("cause_position", Number),
    Column("decided_by", Key),
    Column("source", Text, nullable=False),
    Column("schema_version", Small, nullable=False),
    Column("payload", Text),
    Column("metadata", Text),
    Column("digest", Text, nullable=False),
    Column("append_first", Number, nullable=False),
    Column("occurred_at", Number, nullable=False),
    Column("recorded_at", Number, nullable=False),
    UniqueConstraint("event_id", name="events_event_id"),
    UniqueConstraint("stream", "version", name="events_stream_version"),
    Index("events_correlation", "correlation_id", "position"),
    Index("events_topic", "topic", "position"),
    **GROWS,
)

log_meta = Table(
    "log_meta",
    metadata,
    Column("id", Small, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("log_id", Text, nullable=False),
    Column("epoch", Number, nullable=False),
    Column("database_id", Text, nullable=False),
    Column("first_position", Number, nullable=False),
    Column("created_at", Number, nullable=False),
    CheckConstraint("id = 1", name="log_meta_one_row"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("epoch", Number, primary_key=True, autoincrement=False),
    Column("epoch_id", Text, nullable=False),
    Column("first_position", Number, nullable=False),
    Column("began_at", Number, nullable=False),
    Column("reason", Text, nullable=False),
)

topics = Table("topics", metadata, Column("topic", Key, primary_key=True), sqlite_with_rowid=False)

maintenance = Table(
    "maintenance",
    metadata,
    Column("session", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("began_at", Number, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", Key, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("used_at", Number, nullable=False),
)

blob_refs = Table(
    "blob_refs",
    metadata,
    Column("digest", Key, primary_key=True),
    Column("position", Number, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

leases = Table(
    "leases",
    metadata,
    Column("lease_id", Key, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("opened_at", Number, nullable=False),
    Column("expires_at", Number, nullable=False),
    Column("closed_at", Number),
    Column("info", Text, nullable=False),
    sqlite_with_rowid=False,
    **HOT_ROWS,
)

consumer_groups = Table(
    "consumer_groups",
    metadata,
    Column("group_name", Key, primary_key=True),
    Column("partitions", Small, nullable=False),
    Column("made_at", Number, nullable=False),
    sqlite_with_rowid=False,
)

partitions = Table(
    "partitions",
    metadata,
    Column("group_name", Key, primary_key=True),
    Column("number", Small, primary_key=True, autoincrement=False),
    Column("position", Number, nullable=False),
    Column("lease_id", Key),
    Column("fence", Number, nullable=False),
    Index("partitions_lease", "lease_id", **_where("lease_id IS NOT NULL")),
    sqlite_with_rowid=False,
    **HOT_ROWS,
)

members = Table(
    "members",
    metadata,
    Column("group_name", Key, primary_key=True),
    Column("lease_id", Key, primary_key=True),
    Column("joined_at", Number, nullable=False),
    sqlite_with_rowid=False,
)

parked = Table(
    "parked",
    metadata,
    Column("group_name", Key, primary_key=True),
    Column("key", Key, primary_key=True),
    Column("number", Small, nullable=False),
    Column("from_position", Number, nullable=False),
    Column("attempt", Number, nullable=False),
    Column("next_try", Number),
    Column("error", Text, nullable=False),
    Column("parked_at", Number, nullable=False),
    sqlite_with_rowid=False,
)

work = Table(
    "work",
    metadata,
    Column("work_id", Key, primary_key=True),
    Column("position", Number, nullable=False),
    Column("topic", Key, nullable=False),
    Column("correlation_id", Key, nullable=False),
    Column("stream", Key, nullable=False),
    Column("queue", Key, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Small, nullable=False),
    Column("cost", Double(), nullable=False),
    Column("base", Double(), nullable=False),
    Column("turn", Double(), nullable=False),
    Column("attempt", Number, nullable=False),
    Column("fence", Number, nullable=False),
    Column("lease_id", Key),
    Column("cancel_requested", Small, nullable=False),
    Column("due_at", Number),
    Column("wake_at", Number),
    Column("ready_at", Number),
    Column("claimed_at", Number),
    Column("touched_at", Number),
    Column("inserted_at", Number, nullable=False),
    Column("waiting_timeout", Number),
    Column("running_timeout", Number),
    Column("silent_timeout", Number),
    Column("total_timeout", Number),
    Column("preferred", Key),
    Column("hold_until", Number),
    CheckConstraint("state IN ('ready', 'delayed', 'waiting', 'claimed')", name="work_state"),
    Index("work_of_correlation", "correlation_id", "queue", "base"),
    Index("work_wake", "wake_at", **_where("wake_at IS NOT NULL")),
    Index("work_of_lease", "lease_id", **_where("lease_id IS NOT NULL")),
    # Only rows that may run now: a million delayed or cancelled rows cost a claim nothing.
    Index(
        "work_ready",
        "queue",
        "preferred",
        "turn",
        "position",
        **_where("state = 'ready' AND cancel_requested = 0"),
    ),
    Index(
        "work_held_out",
        "queue",
        "hold_until",
        **_where("state = 'ready' AND cancel_requested = 0 AND preferred IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
    **HOT_TABLE,
)

queues = Table(
    "queues",
    metadata,
    Column("queue", Key, primary_key=True),
    Column("current", Double(), nullable=False),
    sqlite_with_rowid=False,
    **HOT_ROWS,
)

limits = Table(
    "limits",
    metadata,
    Column("key", Key, primary_key=True),
    Column("ceiling", Number),
    Column("level", Double()),
    Column("rate", Double()),
    Column("burst", Double()),
    Column("filled_at", Number),
    Column("held_until", Number),
    sqlite_with_rowid=False,
)

limit_slots = Table(
    "limit_slots",
    metadata,
    Column("key", Key, primary_key=True),
    Column("lease_id", Key, primary_key=True),
    Column("taken", Number, nullable=False),
    Column("missing", Number, nullable=False),
    Column("waits_since", Number),
    Column("asked_at", Number, nullable=False),
    sqlite_with_rowid=False,
)

view_rows = Table(
    "view_rows",
    metadata,
    Column("view", Key, primary_key=True),
    Column("version", Small, primary_key=True, autoincrement=False),
    Column("key", Key, primary_key=True),
    Column("from_position", Number, primary_key=True, autoincrement=False),
    Column("until_position", Number),
    Column("sort", Key, nullable=False),
    Column("body", Text, nullable=False),
    Index("view_rows_now", "view", "version", "sort", "key", **_where("until_position IS NULL")),
    sqlite_with_rowid=False,
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("brain", Key, primary_key=True),
    Column("key", Key, primary_key=True),
    Column("decided", Number, primary_key=True, autoincrement=False),
    Column("code", Text, nullable=False),
    Column("handled", Number, nullable=False),
    Column("folded", Number, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# Facts are for ever: only a maintenance session (a row in `maintenance`, in the same transaction) may touch them.
SQLITE_TRIGGERS = (
    """CREATE TRIGGER events_no_update BEFORE UPDATE ON events
WHEN NOT EXISTS (SELECT 1 FROM maintenance)
BEGIN SELECT RAISE(ABORT, 'events are changed in a maintenance session only'); END""",
    """CREATE TRIGGER events_no_delete BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM maintenance)
BEGIN SELECT RAISE(ABORT, 'events are deleted in a maintenance session only'); END""",
)
