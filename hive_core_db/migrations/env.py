"""Alembic's entry point: runs the migrations on a connection that `admin.upgrade` gives, or on `-x db=URL`.

For PostgreSQL it only writes the SQL (alembic's offline mode); `hive_core_db.postgres.upgrade` runs it under its lock.
"""

from __future__ import annotations

import os
import sqlite3

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine

from hive_core_db.schema import metadata
from hive_core_db.url import PostgresUrl, parse


def run(connection: Connection) -> None:
    """Run the migrations in one transaction of ``connection``."""
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


def write_postgres() -> None:
    """Write the migrations' SQL for PostgreSQL, without a transaction of its own."""
    context.configure(
        dialect_name="postgresql",
        # Any other style would double each percent sign.
        dialect_opts={"paramstyle": "named"},
        target_metadata=metadata,
        as_sql=True,
        transactional_ddl=False,
        literal_binds=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_at_address() -> None:
    """Run the migrations on the database of the command line: ``-x db=URL``, else HIVE_DB, else the default file."""
    wished: str | None = context.get_x_argument(as_dictionary=True).get("db")
    address = parse(wished or os.environ.get("HIVE_DB") or ".hive/hive.db")
    if isinstance(address, PostgresUrl):
        raise CommandError("for PostgreSQL run `hive db upgrade`")
    with create_engine("sqlite://", creator=lambda: sqlite3.connect(address.path)).connect() as own:
        run(own)


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
elif context.is_offline_mode():
    write_postgres()
else:
    run_at_address()
