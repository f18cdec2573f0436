"""No-op steps of ``dbos``, as a child that measures when told; it imports nothing of the hive.

``python -m benchmarks.peers.dbos_steps URL``: a SQLite file or a PostgreSQL database, which becomes its system database.
Steps on threads: coroutines were measured too, and are no faster.
"""

from __future__ import annotations

import asyncio
import sys
import time
from importlib.metadata import version

from dbos import DBOS

from benchmarks.children import serve

AT_ONCE = 100
"""More workflows than dbos has threads; enough that none of these ever waits for work."""
LONGEST = 20.0
"""Seconds after which no more are started: its rate is known by then."""


@DBOS.step()
def noop() -> None:
    """Do nothing, durably."""


@DBOS.workflow()
def chain(length: int) -> None:
    """Steps one after the other."""
    for _ in range(length):
        noop()


def _sequence(length: int) -> float:
    begin = time.perf_counter()
    chain(length)
    return length / (time.perf_counter() - begin)


def _together(runs: int, length: int) -> float:
    begin = time.perf_counter()
    done = 0
    while done < runs and time.perf_counter() - begin < LONGEST:
        handles = [DBOS.start_workflow(chain, length) for _ in range(min(AT_ONCE, runs - done))]
        for handle in handles:
            handle.get_result()
        done += len(handles)
    return done * length / (time.perf_counter() - begin)


async def sequence(length: int) -> float:
    """Steps per second of one workflow."""
    return await asyncio.to_thread(_sequence, length)


async def together(runs: int, length: int) -> float:
    """Steps per second of many workflows at once, on the threads that dbos chooses; 20 seconds of them are enough."""
    return await asyncio.to_thread(_together, runs, length)


async def about() -> str:
    """What is measured."""
    return f"dbos {version('dbos')}"


async def main() -> None:
    """Serve until standard input ends."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": sys.argv[1],
            "log_level": "ERROR",
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    await sequence(5)
    await serve({"sequence": sequence, "together": together, "about": about})
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
