"""What task groups raise: one failure as itself, and no cancellation forgotten over a failure. What is done to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from hive_errors import HiveError


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """``asyncio.TaskGroup``; one failure, however deep and however often, is raised as itself, several as a group."""
    with alone():
        async with asyncio.TaskGroup() as tasks:
            yield tasks


@contextmanager
def alone() -> Iterator[None]:
    """Raise the one failure of an exception group as itself; so too a word of the hive's that all its parts say alike."""
    try:
        yield
    except BaseExceptionGroup as group:
        failures = _leaves(group)
        if len({(type(one), str(one)) if isinstance(one, HiveError) else one for one in failures}) == 1:
            raise failures[0] from failures[0].__cause__
        raise


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Have ``work`` done whole: a cancellation meanwhile is raised when it is done; a second one cuts it off."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until the event is set, or so many seconds (None: for ever); whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def heed_cancellation() -> None:
    """Raise ``CancelledError`` if this task was cancelled while it dealt with a failure: for whoever catches one and goes on.

    A task group that is cancelled while it ends because of a failure raises that failure alone.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for failure in group.exceptions:
        found += _leaves(failure) if isinstance(failure, BaseExceptionGroup) else [failure]
    return found
