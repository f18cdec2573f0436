"""A process of its own that publishes: ``python -m tests.integration.bus_publisher URL COUNT TOPIC``."""

from __future__ import annotations

import asyncio
import sys

from hive_bus import Event, open_bus


class Ping(Event, topic="ping.sent"):
    number: int


class Rare(Event, topic="rare.sent"):
    number: int


async def main(url: str, count: int, topic: str) -> None:
    """Publish so many events, a few at a time."""
    kind = {"ping.sent": Ping, "rare.sent": Rare}[topic]
    async with open_bus(url, source="other process") as bus:
        for number in range(count):
            await bus.publish(kind(number=number), stream="other")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
