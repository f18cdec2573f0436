"""A task group whose single failure is raised as itself: callers catch what they were promised, not a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """``asyncio.TaskGroup``; one failure, however deep, is raised as itself, several as a group."""
    with alone():
        async with asyncio.TaskGroup() as tasks:
            yield tasks


@contextmanager
def alone() -> Iterator[None]:
    """Raise the one failure of an exception group as itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        failures = _leaves(group)
        if len(failures) == 1:
            raise failures[0] from failures[0].__cause__
        raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for failure in group.exceptions:
        found += _leaves(failure) if isinstance(failure, BaseExceptionGroup) else [failure]
    return found
