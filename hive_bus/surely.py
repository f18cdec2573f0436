"""What must not fail for a busy lock or a full disk: it is given to the store again.

For decisions and results: they exist only in this process until they are in the log,
and their ids make a repetition harmless. A caller that can be told uses ``Bus.submit``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from hive_bus.tasks import heed_cancellation
from hive_bus.telemetry import get_logger
from hive_core_db.records import AppendRequest, Verdict
from hive_errors import StoreError

if TYPE_CHECKING:
    from hive_bus.writer import Writer

T = TypeVar("T")
_log = get_logger(__name__)
FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0


async def surely(writer: Writer, request: AppendRequest, future: asyncio.Future[Verdict] | None = None) -> Verdict:
    """The request's verdict, however often the store has to be asked; ``future`` is the first submission."""
    wait = FIRST_WAIT
    while True:
        try:
            return await (future or writer.submit(request))
        except StoreError as problem:
            if not problem.retryable:
                raise
            _log.warning("append.again", error=str(problem), seconds=wait)
        await asyncio.sleep(wait)
        wait, future = min(2 * wait, LONGEST_WAIT), None


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """The store's answer, however often it has to be asked: for what a repetition does not change, such as joining a group."""
    wait = FIRST_WAIT
    while True:
        try:
            return await ask()
        except StoreError as problem:
            if not problem.retryable:
                raise
            heed_cancellation()
            _log.warning("store.again", error=str(problem), seconds=wait)
        await asyncio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)
