"""What a batch does to the documents of read models.

A document's rows never overlap: a write at position p ends the row that holds
now at p and begins the next one there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from hive_core_db.records import FencedOff, ViewWrite

# The row that holds now; the primary key's last column orders the document's rows.
CURRENT = """
SELECT from_position, until_position FROM view_rows WHERE view = ? AND version = ? AND key = ?
ORDER BY from_position DESC LIMIT 1"""
BEGIN = "INSERT INTO view_rows (view, version, key, from_position, until_position, sort, body) VALUES (?, ?, ?, ?, NULL, ?, ?)"
END = "UPDATE view_rows SET until_position = ? WHERE view = ? AND version = ? AND key = ? AND from_position = ?"
# Two writes at one position are one: the row that began there is replaced or never was.
REPLACE = "UPDATE view_rows SET sort = ?, body = ? WHERE view = ? AND version = ? AND key = ? AND from_position = ?"
REMOVE = "DELETE FROM view_rows WHERE view = ? AND version = ? AND key = ? AND from_position = ?"

Document = tuple[str, int, str]
# Where the last row begins (None: there is no open row), and below which position nothing may be written.
State = tuple[int | None, int]
Changes = tuple[dict[Document, State], list[tuple[str, tuple[object, ...]]]]


class ViewChanges:
    """The documents that a batch touches, as they will be after it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._states: dict[Document, State] = {}
        self._statements: list[tuple[str, tuple[object, ...]]] = []

    def judge(self, writes: Sequence[ViewWrite]) -> Changes | FencedOff:
        """Return the statements that the writes need, or what fences them off: a write into a document's past."""
        states: dict[Document, State] = {}
        statements: list[tuple[str, tuple[object, ...]]] = []
        for write in writes:
            document = write.view, write.version, write.key
            begun, floor = states.get(document) or self._state(document)
            if write.position < floor:
                return FencedOff(f"document {write.key} of view {write.view}", write.position, floor)
            if begun == write.position and write.body is not None:
                statements.append((REPLACE, (write.sort, write.body, *document, begun)))
            else:
                if begun == write.position:
                    statements.append((REMOVE, (*document, begun)))
                elif begun is not None:
                    statements.append((END, (write.position, *document, begun)))
                if write.body is not None:
                    statements.append((BEGIN, (*document, write.position, write.sort, write.body)))
            states[document] = (None if write.body is None else write.position), write.position
        return states, statements

    def accept(self, changes: Changes) -> None:
        """Let later requests of the batch see the writes."""
        self._states.update(changes[0])
        self._statements.extend(changes[1])

    def write(self) -> None:
        """Write the documents, in the order of the requests."""
        for statement, values in self._statements:
            self._db.execute(statement, values)

    def _state(self, document: Document) -> State:
        state = self._states.get(document)
        if state is None:
            row = self._db.execute(CURRENT, document).fetchone()
            if row is None:
                state = None, 0
            else:
                begun, until = row
                state = (begun, begun) if until is None else (None, until)
            self._states[document] = state
        return state
