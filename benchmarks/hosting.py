"""A process that hosts the hive: ``python -m benchmarks.hosting URL WORKSPACE``; it may be killed at any time."""

from __future__ import annotations

import asyncio
import sys

from agents.hive import Hive
from benchmarks.children import serve


async def main(url: str, workspace: str) -> None:
    """Serve until standard input ends."""
    async with Hive(url, workspace=workspace) as hive:

        async def start(runs: int, steps: int) -> None:
            # Only where it is asked for: the process that resumes has no use for it.
            from benchmarks.runs import chain

            for _ in range(runs):
                await hive.start(chain(steps, run="sleep 0.05"))

        await serve({"start": start})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
