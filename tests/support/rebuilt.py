"""Every state of every brain, folded anew from a log: ``python -m tests.support.rebuilt FILE`` prints them as JSON.

A process of its own, so that nothing is remembered and ``PYTHONHASHSEED`` can be chosen.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from agents.colony import brains
from hive_bus.bus import Bus, open_bus
from hive_bus.replay import keys_of_run
from hive_bus.testing import refold

CACHES = ("leases", "members", "partitions", "consumer_groups", "parked", "view_rows", "queues")
"""What may be lost: all of it follows from the log, or is only about who does what now."""

States = dict[str, dict[str, str]]


async def states(bus: Bus) -> States:
    """The canonical state of each key of each brain."""
    found: States = {}
    starts = [record async for record in bus.read("workflow.requested")]
    for brain in brains():
        keys = [key for start in starts for key in await keys_of_run(bus.store.log, brain, start.correlation_id)]
        found[brain.name] = {key: (await refold(bus, brain, key)).decode() for key in keys}
    return found


def strip(source: Path, target: Path) -> dict[str, int]:
    """Copy a database without its caches; how many rows of each are gone."""
    with closing(sqlite3.connect(source)) as db:
        db.execute("VACUUM INTO ?", (str(target),))
    gone = {}
    with closing(sqlite3.connect(target, isolation_level=None)) as db:
        for table in CACHES:
            gone[table] = db.execute(f"DELETE FROM {table}").rowcount
        db.execute("PRAGMA journal_mode=WAL")
    return gone


async def main(path: str) -> None:
    """Print them."""
    async with open_bus(path) as bus:
        sys.stdout.write(json.dumps(await states(bus), ensure_ascii=False))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
