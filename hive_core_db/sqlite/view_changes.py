"""How documents of read models are written on SQLite; which writes may be is the judge's."""

from __future__ import annotations

from hive_core_db.records import ViewWrite

# The row that holds now; the primary key's last column orders the document's rows.
CURRENT = """
SELECT from_position, until_position FROM view_rows WHERE view = ? AND version = ? AND key = ?
ORDER BY from_position DESC LIMIT 1"""
BEGIN = "INSERT INTO view_rows (view, version, key, from_position, until_position, sort, body) VALUES (?, ?, ?, ?, NULL, ?, ?)"
END = "UPDATE view_rows SET until_position = ? WHERE view = ? AND version = ? AND key = ? AND from_position = ?"
# Two writes at one position are one: the row that began there is replaced or never was.
REPLACE = "UPDATE view_rows SET sort = ?, body = ? WHERE view = ? AND version = ? AND key = ? AND from_position = ?"
REMOVE = "DELETE FROM view_rows WHERE view = ? AND version = ? AND key = ? AND from_position = ?"

Statement = tuple[str, tuple[object, ...]]


def view_statements(write: ViewWrite, begun: int | None) -> list[Statement]:
    """Return what a write comes to, ``begun`` being where the row begins that holds until it (None: there is none)."""
    document = write.view, write.version, write.key
    if begun == write.position and write.body is not None:
        return [(REPLACE, (write.sort, write.body, *document, begun))]
    statements: list[Statement] = []
    if begun == write.position:
        statements.append((REMOVE, (*document, begun)))
    elif begun is not None:
        statements.append((END, (write.position, *document, begun)))
    if write.body is not None:
        statements.append((BEGIN, (*document, write.position, write.sort, write.body)))
    return statements
