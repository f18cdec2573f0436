"""No-op jobs of ``procrastinate``, as a child that measures when told; it imports nothing of the hive.

``python -m benchmarks.peers.procrastinate_jobs URL``. Jobs that depend on nothing, deferred in one batch:
less than a run, whose steps wait for each other. One worker with the concurrency its documentation
describes for asynchronous jobs, which may delete them when they are done.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from importlib.metadata import version

from procrastinate import App, PsycopgConnector

from benchmarks.children import serve

# It wishes its tasks were in another module than the one that is run.
logging.getLogger("procrastinate").setLevel(logging.ERROR)
CONCURRENCY = 20
app = App(connector=PsycopgConnector(conninfo=sys.argv[1], min_size=CONCURRENCY, max_size=CONCURRENCY + 4))


@app.task(queue="noop")
async def noop() -> None:
    """Do nothing."""


async def together(runs: int, length: int, concurrency: int = CONCURRENCY, delete: str = "always") -> float:
    """Jobs per second: deferred, then worked off."""
    begin = time.perf_counter()
    await noop.batch_defer_async(*({} for _ in range(runs * length)))
    await app.run_worker_async(
        queues=["noop"], wait=False, concurrency=concurrency, delete_jobs=delete, install_signal_handlers=False
    )
    return runs * length / (time.perf_counter() - begin)


async def about() -> str:
    """What is measured."""
    return f"procrastinate {version('procrastinate')}"


async def main() -> None:
    """Serve until standard input ends."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await serve({"together": together, "about": about})


if __name__ == "__main__":
    asyncio.run(main())
