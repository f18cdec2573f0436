"""The relay, from the log's table to acknowledged messages, against a plain publisher of the same bytes that has them ready.

The server is one of the package, on this machine; both publish into a new stream in each turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.pairs import Sides
from benchmarks.places import PAGE, Place
from hive_bus import open_bus
from hive_bus.mirror.connection import connected
from hive_bus.mirror.embedded import embedded
from hive_bus.mirror.encoding import EXPECTED_SEQUENCE, EXPECTED_STREAM, Message, encode
from hive_bus.mirror.relay import Relay
from hive_bus.mirror.stream import remove
from hive_core_db.store import EventLog

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

EVENTS = 30_000
WINDOW = 1024
RAW: dict[str, Any] = {"name": "RAW", "subjects": ["raw.>"], "storage": "file", "allow_direct": True}
MAX_PAYLOAD = 1 << 20


@asynccontextmanager
async def relay(place: Place) -> AsyncIterator[Sides]:
    """Events per second that a relay brings to JetStream, against nats-py's publish with a window of counted acknowledgements."""
    from nats.aio.client import Client

    await place.raw.load(EVENTS)
    with TemporaryDirectory(prefix="hive-bench-") as directory:
        async with (
            embedded(Path(directory), place.url) as nats,
            connected(nats) as connection,
            open_bus(place.url, source="bench") as bus,
        ):
            head = await bus.head()
            ready = await _messages(bus.store.log, head)
            client = Client()
            await client.connect(nats.url, skip_subject_validation=True)

            async def settle() -> None:
                await remove(connection, "HIVE_hive_1")
                await remove(connection, "RAW")
                await connection.ask("STREAM.CREATE.RAW", RAW)

            async def floor() -> float:
                begin = time.perf_counter()
                await _publish(client, ready)
                return len(ready) / (time.perf_counter() - begin)

            async def candidate() -> float:
                working = Relay(bus, nats, window=WINDOW)
                begin = time.perf_counter()
                task = bus.spawn(working.run(), name="relay")
                while working.state.mirrored < head:
                    await asyncio.sleep(0.002)
                done = time.perf_counter() - begin
                task.cancel()
                await asyncio.wait((task,))
                return head / done

            yield Sides(floor=floor, candidate=candidate, settle=settle)
            await client.close()


async def _messages(log: EventLog, head: int) -> list[Message]:
    ready: list[Message] = []
    while len(ready) < head:
        for row in await log.read(len(ready), limit=PAGE):
            message = encode(row, "raw.", max_payload=MAX_PAYLOAD)
            message.headers[EXPECTED_SEQUENCE] = str(row.position - 1)
            message.headers[EXPECTED_STREAM] = "RAW"
            ready.append(message)
    return ready


async def _publish(client: Client, messages: list[Message]) -> None:
    """Publish, never more than a window ahead of what was acknowledged; answers are only counted."""
    answered, enough = 0, asyncio.Event()
    wanted = 0

    async def count(_: Msg) -> None:
        nonlocal answered
        answered += 1
        if answered >= wanted:
            enough.set()

    async def until(number: int) -> None:
        nonlocal wanted
        wanted = number
        while answered < wanted:
            enough.clear()
            await enough.wait()

    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=count)
    for sent, message in enumerate(messages):
        if sent - answered >= WINDOW:
            await until(sent - WINDOW // 2)
        await client.publish(message.subject, message.body, reply=inbox, headers=message.headers)
    await until(len(messages))
    await subscription.unsubscribe()
