"""A relay in a process of its own, to be killed: ``python -m tests.support.mirror_process DATABASE NATS [WINDOW]``."""

from __future__ import annotations

import asyncio
import sys

from hive_bus import open_bus
from hive_bus.mirror.relay import Relay
from hive_bus.mirror.settings import NatsSettings


async def main(url: str, nats: str, window: str = "64") -> None:
    """Relay until killed."""
    async with open_bus(url, source="a relay") as bus:
        await Relay(bus, NatsSettings(url=nats), window=int(window), alone=False).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
