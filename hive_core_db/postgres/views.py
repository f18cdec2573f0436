"""Documents of read models, as they are and as they were; written by append requests."""

from __future__ import annotations

from hive_core_db.postgres.database import Database
from hive_core_db.postgres.driver import NO_HURRY, Row
from hive_core_db.records import ViewRow

_ROWS = "SELECT view, version, key, from_position, until_position, sort, body FROM view_rows WHERE view = $1 AND version = $2"
# The open row is the present; of the past, the one row whose span holds the position.
_NOW = "until_position IS NULL"
_THEN = "from_position <= $3::bigint AND (until_position IS NULL OR until_position > $3::bigint)"
GET = f"{_ROWS} AND {_NOW} AND key = $3"
GET_THEN = f"{_ROWS} AND {_THEN} AND key = $4"
PAGE = f"{_ROWS} AND {_NOW} ORDER BY sort, key LIMIT {{limit}}"
PAGE_BEHIND = f"{_ROWS} AND {_NOW} AND (sort, key) > ($3, $4) ORDER BY sort, key LIMIT {{limit}}"
PAGE_THEN = f"{_ROWS} AND {_THEN} ORDER BY sort, key LIMIT {{limit}}"
PAGE_THEN_BEHIND = f"{_ROWS} AND {_THEN} AND (sort, key) > ($4, $5) ORDER BY sort, key LIMIT {{limit}}"
DROP = "DELETE FROM view_rows WHERE view = $1 AND version = $2"


class PostgresViews:
    """The port `Views` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, view: str, version: int, key: str, *, at: int | None = None) -> ViewRow | None:
        """Return the document as it is, or as it was at position ``at``."""
        if at is None:
            row = await self._database.fetchrow(GET, view, version, key)
        else:
            row = await self._database.fetchrow(GET_THEN, view, version, at, key)
        return None if row is None else _row(row)

    async def rows(
        self, view: str, version: int, *, at: int | None = None, limit: int = 100, after: tuple[str, str] | None = None
    ) -> list[ViewRow]:
        """Return documents ascending by (sort, key), behind ``after``."""
        behind = after or ()
        values = behind if at is None else (at, *behind)
        now, then = (PAGE_BEHIND, PAGE_THEN_BEHIND) if after else (PAGE, PAGE_THEN)
        statement = now if at is None else then
        rows = await self._database.fetch(statement.format(limit=int(limit)), view, version, *values)
        return [_row(row) for row in rows]

    async def drop(self, view: str, version: int) -> None:
        """Delete one version of a view, with its past."""
        await self._database.execute(DROP, view, version, timeout=NO_HURRY)


def _row(row: Row) -> ViewRow:
    view, version, key, begun, until, sort, body = row
    return ViewRow(view=view, version=version, key=key, from_position=begun, until_position=until, sort=sort, body=body)
