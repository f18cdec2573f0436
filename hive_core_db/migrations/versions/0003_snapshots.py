"""Snapshots: the states of brains somewhere in their past.

Revision: 0003
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

Number = BigInteger().with_variant(Integer(), "sqlite")
Key = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table of the port `Snapshots`."""
    op.create_table(
        "snapshots",
        Column("brain", Key, primary_key=True),
        Column("key", Key, primary_key=True),
        Column("decided", Number, primary_key=True, autoincrement=False),
        Column("code", Text, nullable=False),
        Column("handled", Number, nullable=False),
        Column("folded", Number, nullable=False),
        Column("body", LargeBinary, nullable=False),
    )
