"""Large bodies by their sha256, deduplicated."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from hive_core_db.postgres.database import Database
from hive_core_db.postgres.driver import NO_HURRY

DAY: Final = 24 * 3600 * 1_000_000

# A body that is there is marked as used now, so that no sweep takes it between here and the append that names it.
PUT_BLOB = """
INSERT INTO blobs (digest, body, used_at) VALUES ($1, $2, hive_now($3)) ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at"""
# The same without sending the body: most of what is stored again is there.
USE_BLOB = "UPDATE blobs SET used_at = hive_now($2) WHERE digest = $1"
GET_BLOB = "SELECT body FROM blobs WHERE digest = $1"
# Unused for a day and named by no event; a few at a time, for the head lock is held while they go.
SWEEP = "SELECT hive_sweep(hive_now($1) - $2::bigint, $3)"
TOGETHER: Final = 20


class PostgresBlobs:
    """The port `Blobs` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, body: bytes) -> str:
        """Store ``body`` in a transaction of its own and return its digest in hex."""
        digest = sha256(body).hexdigest()
        now = self._database.given_now()
        if await self._database.execute(USE_BLOB, digest, now) == "UPDATE 0":
            await self._database.execute(PUT_BLOB, digest, body, now)
        return digest

    async def get(self, digest: str) -> bytes | None:
        """Return the body, None if it is not stored."""
        body = await self._database.fetchval(GET_BLOB, digest)
        return None if body is None else bytes(body)

    async def sweep(self) -> int:
        """Remove what no event names and nobody used for a day; returns how many."""
        removed = 0
        while True:
            async with self._database.connection() as connection:
                gone: int = await connection.fetchval(
                    SWEEP, self._database.given_now(), DAY, TOGETHER, timeout=NO_HURRY
                )
            removed += gone
            if gone < TOGETHER:
                return removed
