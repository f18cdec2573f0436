"""The statements of the work queue on SQLite; what an item may do is the judge's."""

from __future__ import annotations

from hive_core_db.judge.work_row import COLUMNS as _NAMES
from hive_core_db.judge.work_row import MUTABLE

COLUMNS = ", ".join(_NAMES)

FIND = f"SELECT {COLUMNS} FROM work WHERE work_id = ?"
# The intent's event and its row are written in one transaction: no intent without its item.
INSERT = f"INSERT INTO work ({COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})"
# The row was judged under the write lock, so no condition is needed here.
UPDATE = f"UPDATE work SET {', '.join(f'{name} = ?' for name in MUTABLE)} WHERE work_id = ?"
# An ended item has no row: a second end finds none and is refused.
DELETE = "DELETE FROM work WHERE work_id = ?"
# The last place of a run in a queue, among what is still open; the index (correlation_id, queue, base) answers.
LAST_BASE = "SELECT max(base) FROM work WHERE correlation_id = ? AND queue = ?"
# A queue's present turn never goes back.
QUEUE = "SELECT current FROM queues WHERE queue = ?"
RAISE_QUEUE = """
INSERT INTO queues (queue, current) VALUES (?, ?)
ON CONFLICT (queue) DO UPDATE SET current = max(current, excluded.current)"""
# A closed lease can take nothing.
OPEN_LEASE = "SELECT 1 FROM leases WHERE lease_id = ? AND closed_at IS NULL"
