"""Large bodies by their sha256, deduplicated."""

from __future__ import annotations

import sqlite3
from hashlib import sha256

from hive_core_db.sqlite.connection import Now, immediate
from hive_core_db.sqlite.runner import Runner

DAY = 24 * 3600 * 1_000_000

# A body that is there is marked as used now, so that no sweep takes it between here and the append that names it.
PUT_BLOB = "INSERT INTO blobs (digest, body, used_at) VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at"
# Events name the blob from this position on; what is named is never swept.
KEEP_BLOB = "INSERT OR IGNORE INTO blob_refs (digest, position) VALUES (?, ?)"
GET_BLOB = "SELECT body FROM blobs WHERE digest = ?"
# Unused for a day and named by no event.
SWEEP = """
DELETE FROM blobs WHERE used_at < ? AND NOT EXISTS (SELECT 1 FROM blob_refs AS r WHERE r.digest = blobs.digest)"""


class SqliteBlobs:
    """The port `Blobs` on SQLite."""

    def __init__(self, runner: Runner, now: Now) -> None:
        self._runner = runner
        self._now = now

    async def put(self, body: bytes) -> str:
        """Store ``body`` in a transaction of its own and return its digest in hex."""
        digest = sha256(body).hexdigest()
        now = self._now()

        def job(db: sqlite3.Connection) -> None:
            with immediate(db):
                db.execute(PUT_BLOB, (digest, body, now))

        await self._runner.write(job)
        return digest

    async def get(self, digest: str) -> bytes | None:
        """Return the body, None if it is not stored."""
        row = await self._runner.read(lambda db: db.execute(GET_BLOB, (digest,)).fetchone())
        return None if row is None else bytes(row[0])

    async def sweep(self) -> int:
        """Remove what no event names and nobody used for a day; returns how many."""
        before = self._now() - DAY

        def job(db: sqlite3.Connection) -> int:
            with immediate(db):
                return db.execute(SWEEP, (before,)).rowcount

        return await self._runner.write(job)
