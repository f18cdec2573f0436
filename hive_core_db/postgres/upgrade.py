"""The SQL that brings a PostgreSQL schema to this version's revision: what the migrations say, then this version's functions.

Cold code: it loads SQLAlchemy and alembic. It writes text and runs nothing, for only asyncpg speaks to the server.
"""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from hive_core_db.postgres.connection import functions
from hive_core_db.revision import HEAD

MIGRATIONS = Path(__file__).parent.parent / "migrations"


def script(before: str | None) -> str:
    """Return the statements that lead from revision ``before`` (None: an empty schema) to this version's.

    They are to be run as they are, in one transaction, under the schema's lock.
    """
    if before == HEAD:
        return functions()
    from alembic import command
    from alembic.config import Config

    text = StringIO()
    config = Config(output_buffer=text, stdout=StringIO())
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head" if before is None else f"{before}:head", sql=True)
    return f"{text.getvalue()}\n{functions()}"
