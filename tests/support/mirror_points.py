"""A relay that dies at one suspension after the other; the next one goes on each time, and the mirror must be the log.

``python -m tests.support.mirror_points DATABASE NATS STRIDE`` prints one JSON line. The process that forks has neither loop nor
threads nor an open database; each point begins without a stream.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial

from hive_bus import open_bus
from hive_bus.mirror.connection import connected
from hive_bus.mirror.relay import Relay
from hive_bus.mirror.settings import NatsSettings
from hive_bus.mirror.stream import remove
from tests.support import crash_points
from tests.support.crash import DIED, Suspensions
from tests.support.mirrors import QUICK, equal, publish

EVENTS = 60
WINDOW = 16
STREAM = "HIVE_hive_1"


# Servers that are asked beside a busy machine's other work may take their time.
in_child = partial(crash_points.in_child, patience=90)


async def prepare(url: str) -> None:
    """Something to relay."""
    async with open_bus(url, source="a test") as bus:
        await publish(bus, EVENTS)


async def relay(url: str, nats: NatsSettings) -> None:
    """Relay until all is there."""
    async with open_bus(url, source="a relay") as bus, asyncio.TaskGroup() as tasks:
        working = Relay(bus, nats, window=WINDOW, ack_seconds=1.0, alone=False)
        task = tasks.create_task(working.run())
        head = await bus.head()
        while working.state.mirrored < head:
            await asyncio.sleep(QUICK / 10)
        task.cancel()


async def go_on(url: str, nats: NatsSettings) -> None:
    """Relay what is missing, prove that all is equal, and remove it."""
    await relay(url, nats)
    async with open_bus(url, source="a test") as bus:
        await equal(nats, bus, await bus.head())
    async with connected(nats) as connection:
        await remove(connection, STREAM)


def die(url: str, nats: NatsSettings, last: int) -> None:
    """Relay, and die at a suspension."""
    suspensions = Suspensions(last)
    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(suspensions.task)
        runner.run(relay(url, nats))


def cover(url: str, nats: NatsSettings, stride: int) -> dict[str, object]:
    """Die at every ``stride``-th point, until one survives or something is wrong."""
    wrong: list[str] = []
    last, points, survived = 0, 0, False
    if in_child(lambda: asyncio.run(prepare(url))):
        wrong.append("the log could not be filled")
    while not survived and not wrong:
        last += stride
        status = in_child(partial(die, url, nats, last))
        survived = status == 0
        points += not survived
        if status not in {0, DIED}:
            wrong.append(f"point {last}: it ended with {status}")
        if points % 5 == 0:
            # Whoever goes on dies too.
            in_child(partial(die, url, nats, last // 2))
        if in_child(lambda: asyncio.run(go_on(url, nats))):
            wrong.append(f"point {last}: who went on did not come to equality")
    return {"points": points, "survived": survived, "last": last, "wrong": wrong}


def main(url: str, nats: str, stride: str) -> None:
    """Cover what was asked for, and say how that went."""
    sys.stdout.write(json.dumps(cover(url, NatsSettings(url=nats), int(stride))))


if __name__ == "__main__":
    main(*sys.argv[1:])
