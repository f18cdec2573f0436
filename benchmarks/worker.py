"""One more process of the hive that measures when told: ``python -m benchmarks.worker URL``; see ``children``."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import Any

from benchmarks.children import serve
from benchmarks.log import publish_rate
from benchmarks.places import Measured
from benchmarks.postgres import connect
from benchmarks.work import NoopDone, NoopHand
from hive_bus import Bus, HandRunner, open_bus, tune_process
from hive_core_db.records import StoredEvent

IDLE = 0.4
"""Seconds without a result after which the queue is taken for empty."""


class Worker:
    """What a process can be asked to do."""

    def __init__(self, bus: Bus, url: str, name: str) -> None:
        self._bus, self._url, self._name = bus, url, name
        self._arrived: list[float] = []
        self._arrival = asyncio.Event()
        self._connection: Any = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def publish(self, callers: int) -> dict[str, Any]:
        """Events per second of so many callers, and how long they waited, in seconds."""
        waits: list[float] = []
        speed = await publish_rate(self._bus, callers, waits, self._name)
        return {"rate": speed, "waits": {"median": statistics.median(waits), "worst": max(waits)}}

    async def work(self) -> dict[str, float]:
        """Work the queue off: how many effects, from when to when."""
        begin = end = time.perf_counter()
        done = 0

        def note(rows: Any) -> None:
            nonlocal done, end
            results = sum(1 for row in rows if row.topic == NoopDone.TOPIC)
            if results:
                done, end = done + results, time.perf_counter()

        forget = self._bus.writer.on_commit(note)
        runner = HandRunner(self._bus, [NoopHand()], worker=self._name)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(runner.run())
            while time.perf_counter() - end < IDLE:
                await asyncio.sleep(0.05)
            task.cancel()
        forget()
        return {"done": done, "begin": begin, "end": end}

    async def follow(self, stream: str) -> None:
        """Note when the hive brings an event of a stream."""
        gate = asyncio.Event()

        async def run() -> None:
            async with self._bus.subscribe(Measured.TOPIC) as records:
                gate.set()
                async for record in records:
                    # Plain rows come this way too: nobody waits for those.
                    if record.stream == stream:
                        self._note()

        self.tasks.add(asyncio.create_task(run()))
        await gate.wait()

    async def listen(self) -> None:
        """Note when a plain LISTEN and the read of the row bring an event."""
        reader = await connect(self._url)
        self._connection = await connect(self._url)
        heard: asyncio.Queue[int] = asyncio.Queue()
        query = f"SELECT {', '.join(StoredEvent._fields)} FROM events WHERE position = $1"

        async def run() -> None:
            while True:
                await reader.fetchrow(query, await heard.get())
                self._note()

        await self._connection.add_listener("bench", lambda *notice: heard.put_nowait(int(notice[-1])))
        self.tasks.add(asyncio.create_task(run()))

    def _note(self) -> None:
        self._arrived.append(time.perf_counter())
        self._arrival.set()

    async def arrivals(self, number: int) -> list[float]:
        """The times of the next ``number`` arrivals, counted from the last time somebody asked."""
        while len(self._arrived) < number:
            self._arrival.clear()
            await self._arrival.wait()
        taken, self._arrived = self._arrived, []
        return taken


async def main(url: str) -> None:
    """Serve until standard input ends."""
    tune_process()
    async with open_bus(url, source="worker") as bus:
        worker = Worker(bus, url, f"worker-{bus.ids.run_id()}")
        verbs = ("publish", "work", "follow", "listen", "arrivals")
        await serve({verb: getattr(worker, verb) for verb in verbs})
        for task in worker.tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
