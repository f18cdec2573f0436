"""``python -m tests.support.state_dump FILE KEY``: a shop order's state, rebuilt from the log, on standard output."""

from __future__ import annotations

import asyncio
import sys

from hive_bus.opening import open_bus
from hive_bus.testing import refold
from tests.support.sample_brain import Shop


async def dump(path: str, key: str) -> bytes:
    """The canonical bytes of the state."""
    async with open_bus(path, source="dump") as bus:
        return await refold(bus, Shop(), key)


if __name__ == "__main__":
    sys.stdout.buffer.write(asyncio.run(dump(sys.argv[1], sys.argv[2])))
