"""Processes of a group: ``python -m tests.integration.group_process publish|share URL ...``.

``publish URL NAME COUNT``: publishes so many numbered events, spread over ten streams of its own.
``share URL NAME TTL``: a member of the group ``echo`` that answers each event with one that says who
handled it, until it is killed or terminated.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from hive_bus.bus import Bus
from hive_bus.event import Event
from hive_bus.groups.handler import Context, HandlerGroup
from hive_bus.opening import open_bus
from hive_bus.record import Record

STREAMS = 10
GROUP = "echo"


class Spoken(Event, topic="echo.spoken"):
    number: int


class Heard(Event, topic="echo.heard"):
    number: int
    stream: str
    position: int
    member: str
    partition: int
    fence: int
    lease_id: str


class Ready(Event, topic="echo.ready"):
    member: str


def listener(name: str, bus: Bus) -> HandlerGroup:
    """A member of the group under a name of its own."""

    async def hear(record: Record, ctx: Context) -> None:
        assert isinstance(record.event, Spoken)
        heard = Heard(
            number=record.event.number,
            stream=record.stream,
            position=record.position,
            member=name,
            partition=ctx.partition,
            fence=ctx.fence,
            lease_id=ctx.lease_id,
        )
        await ctx.publish(heard, stream=f"heard/{record.stream}")

    return HandlerGroup(bus, hear, group=GROUP, patterns=("echo.spoken",))


async def publish(url: str, name: str, count: int) -> None:
    """Publish, as fast as it goes, each stream in order."""

    async def speak(bus: Bus, stream: int) -> None:
        for number in range(stream, count, STREAMS):
            await bus.publish(Spoken(number=number), stream=f"{name}/{stream}")

    async with open_bus(url, source=name) as bus, asyncio.TaskGroup() as tasks:
        for stream in range(STREAMS):
            tasks.create_task(speak(bus, stream))


async def share(url: str, name: str, ttl: float) -> None:
    """Be a member until terminated."""
    async with open_bus(url, source=name) as bus:
        bus.lease_seconds = ttl
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(listener(name, bus).run())
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
            await bus.publish(Ready(member=name), stream=f"ready/{name}")


if __name__ == "__main__":
    what, url, name, number = sys.argv[1:]
    asyncio.run(publish(url, name, int(number)) if what == "publish" else share(url, name, float(number)))
