"""Alembic's entry point: runs the migrations on a connection that `admin.upgrade` gives, or on `-x db=URL`."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, create_engine

from hive_core_db.schema import metadata
from hive_core_db.url import SqliteUrl, parse


def run(connection: Connection) -> None:
    """Run the migrations in one transaction of ``connection``."""
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


def address() -> SqliteUrl:
    """The database of the command line: ``-x db=URL``, else HIVE_DB, else the default file."""
    wished: str | None = context.get_x_argument(as_dictionary=True).get("db")
    return parse(wished or os.environ.get("HIVE_DB") or ".hive/hive.db")


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_engine(f"sqlite:///{address().path}").connect() as own:
        run(own)
