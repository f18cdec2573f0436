"""One more process of the hive that measures when told: ``python -m benchmarks.worker URL``; see ``children``."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.children import serve
from benchmarks.log import publish_rate
from benchmarks.places import Measured
from benchmarks.postgres import connect
from benchmarks.work import NoopDone, NoopHand
from hive_bus import Bus, HandRunner, open_bus, tune_process
from hive_core_db.records import StoredEvent


class Worker:
    """What a process can be asked to do."""

    def __init__(self, bus: Bus, url: str, name: str) -> None:
        self._bus, self._url, self._name = bus, url, name
        self._arrived: list[float] = []
        self._arrival = asyncio.Event()
        self._connection: Any = None
        self._working: asyncio.Task[None] | None = None
        self._results: list[tuple[int, float]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def publish(self, callers: int) -> dict[str, Any]:
        """Events per second of so many callers, and how long they waited, in seconds."""
        waits: list[float] = []
        speed = await publish_rate(self._bus, callers, waits, self._name)
        return {"rate": speed, "waits": {"median": statistics.median(waits), "worst": max(waits)}}

    async def work(self) -> None:
        """Begin to work the queue off."""
        runner = HandRunner(self._bus, [NoopHand()], worker=self._name)
        self._results = []
        self._working = asyncio.create_task(runner.run())

    async def done(self) -> int:
        """How many effects are done."""
        return sum(count for count, _ in self._results)

    async def rest(self) -> dict[str, Any]:
        """End that: how many effects are done, and when the last was."""
        assert self._working is not None
        self._working.cancel()
        await asyncio.wait([self._working])
        return {
            "done": sum(count for count, _ in self._results),
            "end": max((end for _, end in self._results), default=0),
        }

    def committed(self, rows: Sequence[StoredEvent]) -> None:
        """Count results."""
        results = sum(1 for row in rows if row.topic == NoopDone.TOPIC)
        if results:
            self._results.append((results, time.perf_counter()))

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
        bus.writer.on_commit(worker.committed)
        verbs = ("publish", "work", "done", "rest", "follow", "listen", "arrivals")
        await serve({verb: getattr(worker, verb) for verb in verbs})
        for task in worker.tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
