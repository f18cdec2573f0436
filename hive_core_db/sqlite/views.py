"""Documents of read models, as they are and as they were; written by append requests."""

from __future__ import annotations

import sqlite3

from hive_core_db.records import ViewRow
from hive_core_db.sqlite.connection import immediate
from hive_core_db.sqlite.runner import Runner

_ROWS = (
    "SELECT view, version, key, from_position, until_position, sort, body FROM view_rows WHERE view = ? AND version = ?"
)
# The open row is the present; of the past, the one row whose span holds the position.
_NOW = "until_position IS NULL"
_THEN = "from_position <= ? AND (until_position IS NULL OR until_position > ?)"
DROP = "DELETE FROM view_rows WHERE view = ? AND version = ?"


class SqliteViews:
    """The port `Views` on SQLite."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def get(self, view: str, version: int, key: str, *, at: int | None = None) -> ViewRow | None:
        """Return the document as it is, or as it was at position ``at``."""
        span, values = _span(at)
        statement = f"{_ROWS} AND key = ? AND {span}"
        row = await self._runner.read(lambda db: db.execute(statement, (view, version, key, *values)).fetchone())
        return None if row is None else _row(row)

    async def rows(
        self, view: str, version: int, *, at: int | None = None, limit: int = 100, after: tuple[str, str] | None = None
    ) -> list[ViewRow]:
        """Return documents ascending by (sort, key), behind ``after``."""
        span, values = _span(at)
        behind = "" if after is None else " AND (sort, key) > (?, ?)"
        statement = f"{_ROWS} AND {span}{behind} ORDER BY sort, key LIMIT ?"
        given = (view, version, *values, *(after or ()), limit)
        rows = await self._runner.read(lambda db: db.execute(statement, given).fetchall())
        return [_row(row) for row in rows]

    async def drop(self, view: str, version: int) -> None:
        """Delete one version of a view, with its past."""

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                db.execute(DROP, (view, version))

        await self._runner.write(job)


def _span(at: int | None) -> tuple[str, tuple[int, ...]]:
    return (_NOW, ()) if at is None else (_THEN, (at, at))


def _row(row: tuple[str, int, str, int, int | None, str, str]) -> ViewRow:
    view, version, key, begun, until, sort, body = row
    return ViewRow(view=view, version=version, key=key, from_position=begun, until_position=until, sort=sort, body=body)
