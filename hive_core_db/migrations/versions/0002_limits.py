"""Limits: slots and rates that all processes share.

Revision: 0002
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Integer, Text

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

Number = BigInteger().with_variant(Integer(), "sqlite")
Key = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables of the port `Limits`."""
    op.create_table(
        "limits",
        Column("key", Key, primary_key=True),
        Column("ceiling", Number),
        Column("level", Double()),
        Column("rate", Double()),
        Column("burst", Double()),
        Column("filled_at", Number),
        Column("held_until", Number),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "limit_slots",
        Column("key", Key, primary_key=True),
        Column("lease_id", Key, primary_key=True),
        Column("taken", Number, nullable=False),
        Column("missing", Number, nullable=False),
        Column("waits_since", Number),
        Column("asked_at", Number, nullable=False),
        sqlite_with_rowid=False,
    )
