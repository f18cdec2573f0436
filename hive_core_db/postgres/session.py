"""A blocking session with the server, for code that is not asynchronous: administration, copies, the auditor.

Owns a thread with an event loop and one connection; knows no tables. What it reads comes in pages through a cursor, what it
writes goes by COPY: memory is bounded by a page.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from hive_core_db.postgres.driver import NO_HURRY, connect, failures, translate
from hive_core_db.url import PostgresUrl

_FIRST_PAGE: Final = 50
_LARGEST_PAGE: Final = 2000
# Bytes of text and bodies that a page should have: pages shrink where rows are large.
_PAGE_BYTES: Final = 1_000_000
# One after the other: a session is closed in an orderly way only while its server answers.
_CLOSE_SECONDS: Final = 5.0

Row = tuple[Any, ...]
T = TypeVar("T")


class Session:
    """One connection, used by one thread at a time; a context manager. Errors are the store's.

    Raises, on entering, what ``hive_core_db.postgres.driver.connect`` raises.
    """

    def __init__(self, url: PostgresUrl) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hive-postgres-session", daemon=True)
        self._connection: Any = None
        self._transaction: Any = None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._connection = self.run(connect(self._url, command_timeout=NO_HURRY))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.run(self._connection.close(timeout=_CLOSE_SECONDS))
        finally:
            self._end()

    @property
    def connection(self) -> Any:
        """The connection, for coroutines that ``run`` gets."""
        return self._connection

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the session's loop and wait for it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException as error:
            future.cancel()
            if isinstance(error, failures()):
                raise translate(error, self._url) from error
            raise

    def begin(self, *, isolation: str = "read_committed", readonly: bool = False) -> None:
        """Begin a transaction; one that is not committed ends with the session."""
        self._transaction = self._connection.transaction(isolation=isolation, readonly=readonly)
        self.run(self._transaction.start())

    def commit(self) -> None:
        """Commit the transaction that was begun."""
        self.run(self._transaction.commit())

    def execute(self, script: str, *values: object) -> str:
        """Run a statement, or without values any number of them; return what the server says of the last."""
        said: str = self.run(self._connection.execute(script, *values))
        return said

    def fetch(self, query: str, *values: object) -> list[Row]:
        """Return all that a statement finds."""
        return [tuple(row) for row in self.run(self._connection.fetch(query, *values))]

    def rows(self, query: str, *values: object) -> Iterator[Row]:
        """Yield what a statement finds, page by page, within the caller's transaction."""
        cursor = self.run(self._cursor(query, values))
        size = _FIRST_PAGE
        while page := self.run(cursor.fetch(size)):
            size = _next_size(size, page)
            for row in page:
                yield tuple(row)

    def copy_in(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """COPY rows into a table, in the binary format; ``rows`` is drawn from while they are sent."""
        self.run(self._connection.copy_records_to_table(table, columns=list(columns), records=rows))

    async def _cursor(self, query: str, values: tuple[object, ...]) -> Any:
        return await self._connection.cursor(query, *values)

    def _end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _drop(self) -> None:
        """Nothing is waited for: what is under way is given up, and the server rolls it back."""
        if self._connection is not None and not self._connection.is_closed():
            self._connection.terminate()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def _next_size(size: int, page: Sequence[Sequence[Any]]) -> int:
    weight = sum(len(value) for row in page for value in row if isinstance(value, str | bytes))
    if weight > 2 * _PAGE_BYTES:
        return max(1, size * _PAGE_BYTES // weight)
    return min(2 * size, _LARGEST_PAGE) if weight < _PAGE_BYTES // 2 else size
