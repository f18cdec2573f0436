"""Ctrl-C and SIGTERM: the first one cancels the work, which then leaves its leases in order; the second one exits."""

from __future__ import annotations

import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from dashboard.cli.exits import INTERRUPTED

Result = TypeVar("Result")


class Interrupted(Exception):
    """A signal ended the work; ``signum`` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


async def interruptible(work: Coroutine[Any, Any, Result]) -> Result:
    """Run the work; SIGINT or SIGTERM cancels it, waits for its end and raises :class:`Interrupted`."""
    import asyncio

    from hive_bus.tasks import together

    got: list[int] = []
    loop = asyncio.get_running_loop()
    async with together() as group:
        task = group.create_task(work)

        def stop(signum: int) -> None:
            if got:
                # What is in the log is safe; what holds leases is taken over when they run out.
                os._exit(INTERRUPTED)
            got.append(signum)
            task.cancel()

        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, stop, signum)
        try:
            await asyncio.wait([task])
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(signum)
    if task.cancelled() and got:
        raise Interrupted(got[0])
    return task.result()
