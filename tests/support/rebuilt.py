"""Every state of every brain, folded anew from a log: ``python -m tests.support.rebuilt DATABASE`` prints them as JSON.

A process of its own, so that nothing is remembered and ``PYTHONHASHSEED`` can be chosen.
"""

from __future__ import annotations

import asyncio
import json
import sys

from agents.colony import brains
from hive_bus.bus import Bus
from hive_bus.opening import open_bus
from hive_bus.replay.redrive import keys_of_run
from hive_bus.testing import refold
from tests.support.tables import change, rows

CACHES = ("leases", "members", "partitions", "consumer_groups", "parked", "view_rows", "queues", "snapshots")
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


def strip(url: str) -> dict[str, int]:
    """Empty a database's caches; how many rows of each are gone."""
    gone = {table: int(rows(url, f"SELECT count(*) FROM {table}")[0][0]) for table in CACHES}
    change(url, *(f"DELETE FROM {table}" for table in CACHES))
    return gone


async def main(url: str) -> None:
    """Print them."""
    async with open_bus(url) as bus:
        sys.stdout.write(json.dumps(await states(bus), ensure_ascii=False))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
