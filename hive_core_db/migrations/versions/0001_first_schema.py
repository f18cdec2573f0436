"""The first schema: log, blobs, leases, groups, work queue, views.

Revision: 0001
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

Number = BigInteger().with_variant(Integer(), "sqlite")
Small = SmallInteger().with_variant(Integer(), "sqlite")
Key = Text().with_variant(Text(collation="C"), "postgresql")

SQLITE_TRIGGERS = (
    """CREATE TRIGGER events_no_update BEFORE UPDATE ON events
WHEN NOT EXISTS (SELECT 1 FROM maintenance)
BEGIN SELECT RAISE(ABORT, 'events are changed in a maintenance session only'); END""",
    """CREATE TRIGGER events_no_delete BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM maintenance)
BEGIN SELECT RAISE(ABORT, 'events are deleted in a maintenance session only'); END""",
)


def upgrade() -> None:
    """Create every table, index and trigger."""
    _create_log()
    _create_owners()
    _create_work()
    _create_views()
    for trigger in SQLITE_TRIGGERS:
        op.execute(trigger)


def _create_log() -> None:
    op.create_table(
        "events",
        Column("position", Number, primary_key=True, autoincrement=False),
        Column("event_id", Key, nullable=False),
        Column("stream", Key, nullable=False),
        Column("version", Number, nullable=False),
        Column("topic", Key, nullable=False),
        Column("correlation_id", Key, nullable=False),
        Column("causation_id", Key),
        Column("cause_position", Number),
        Column("decided_by", Text),
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
    )
    op.create_table(
        "log_meta",
        Column("id", Small, primary_key=True, autoincrement=False),
        Column("name", Text, nullable=False),
        Column("log_id", Text, nullable=False),
        Column("epoch", Number, nullable=False),
        Column("database_id", Text, nullable=False),
        Column("first_position", Number, nullable=False),
        Column("created_at", Number, nullable=False),
        CheckConstraint("id = 1", name="log_meta_one_row"),
    )
    op.create_table(
        "epochs",
        Column("epoch", Number, primary_key=True, autoincrement=False),
        Column("epoch_id", Text, nullable=False),
        Column("first_position", Number, nullable=False),
        Column("began_at", Number, nullable=False),
        Column("reason", Text, nullable=False),
    )
    op.create_table("topics", Column("topic", Key, primary_key=True), sqlite_with_rowid=False)
    op.create_table(
        "maintenance",
        Column("session", Text, primary_key=True),
        Column("reason", Text, nullable=False),
        Column("began_at", Number, nullable=False),
    )
    op.create_table(
        "blobs",
        Column("digest", Key, primary_key=True),
        Column("body", LargeBinary, nullable=False),
        Column("used_at", Number, nullable=False),
    )
    op.create_table(
        "blob_refs",
        Column("digest", Key, primary_key=True),
        Column("position", Number, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )


def _create_owners() -> None:
    op.create_table(
        "leases",
        Column("lease_id", Key, primary_key=True),
        Column("owner", Text, nullable=False),
        Column("opened_at", Number, nullable=False),
        Column("expires_at", Number, nullable=False),
        Column("closed_at", Number),
        Column("info", Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "consumer_groups",
        Column("group_name", Key, primary_key=True),
        Column("partitions", Small, nullable=False),
        Column("made_at", Number, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "partitions",
        Column("group_name", Key, primary_key=True),
        Column("number", Small, primary_key=True, autoincrement=False),
        Column("position", Number, nullable=False),
        Column("lease_id", Key),
        Column("fence", Number, nullable=False),
        Index("partitions_lease", "lease_id", sqlite_where=text("lease_id IS NOT NULL")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "members",
        Column("group_name", Key, primary_key=True),
        Column("lease_id", Key, primary_key=True),
        Column("joined_at", Number, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "parked",
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


def _create_work() -> None:
    op.create_table(
        "work",
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
        Column("preferred", Text),
        Column("hold_until", Number),
        CheckConstraint("state IN ('ready', 'delayed', 'waiting', 'claimed')", name="work_state"),
        Index("work_of_correlation", "correlation_id", "queue", "base"),
        Index("work_wake", "wake_at", sqlite_where=text("wake_at IS NOT NULL")),
        Index("work_of_lease", "lease_id", sqlite_where=text("lease_id IS NOT NULL")),
        # Only rows that may run now: a million delayed or cancelled rows cost a claim nothing.
        Index(
            "work_ready",
            "queue",
            "preferred",
            "turn",
            "position",
            sqlite_where=text("state = 'ready' AND cancel_requested = 0"),
        ),
        Index(
            "work_held_out",
            "queue",
            "hold_until",
            sqlite_where=text("state = 'ready' AND cancel_requested = 0 AND preferred IS NOT NULL"),
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "queues",
        Column("queue", Key, primary_key=True),
        Column("current", Double(), nullable=False),
        sqlite_with_rowid=False,
    )


def _create_views() -> None:
    op.create_table(
        "view_rows",
        Column("view", Key, primary_key=True),
        Column("version", Small, primary_key=True, autoincrement=False),
        Column("key", Key, primary_key=True),
        Column("from_position", Number, primary_key=True, autoincrement=False),
        Column("until_position", Number),
        Column("sort", Key, nullable=False),
        Column("body", Text, nullable=False),
        Index("view_rows_now", "view", "version", "sort", "key", sqlite_where=text("until_position IS NULL")),
        sqlite_with_rowid=False,
    )
