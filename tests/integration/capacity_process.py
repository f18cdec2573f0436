"""A process with a hand for jobs: ``python -m tests.integration.capacity_process URL NAME DIRECTORY CONCURRENCY``.

What runs at a time is seen from outside: while it performs a job there is a file for it in the directory, and beside every
start in the log stands how many of these there were. While the directory has a file `HELD` beside it, no job ends.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from hive_bus import Event, HandContext, HandRunner, open_bus
from hive_bus.clock import Clock
from hive_bus.limit import Limit
from tests.support.capacity import Count, Job, JobDone, JobHand

TTL = 100.0
# A slow machine must not take a process for lost: one that is killed here is known to be dead at once.
HELD = "held"


class JobsSeen(Event, topic="jobs.seen"):
    """How many jobs ran when this one began."""

    number: int


async def main(url: str, name: str, directory: Path, concurrency: int) -> None:
    """Perform jobs until told to end."""
    async with open_bus(url, source=name) as bus:
        bus.lease_seconds = TTL

        async def perform(job: Job, ctx: HandContext) -> JobDone:
            mark = directory / f"{name} {ctx.record.event_id}"
            mark.touch()
            try:
                await bus.publish(JobsSeen(number=len(list(directory.iterdir()))))
                await asyncio.sleep(job.seconds)
                while directory.with_name(HELD).exists():
                    await asyncio.sleep(0.02)
            finally:
                mark.unlink()
            return JobDone(by=name)

        limits = {"job": Limit(concurrency=concurrency)} if concurrency else {}
        runner = HandRunner(bus, [JobHand(Count(), perform)], worker=name, limits=limits)
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        async with asyncio.TaskGroup() as tasks:
            services = [tasks.create_task(runner.run()), tasks.create_task(Clock(bus, on_ready=runner.wake).run())]
            await stopping.wait()
            for service in services:
                service.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
