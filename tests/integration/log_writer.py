"""A process that appends to a log until it is killed; prints each batch's last position once it is durable."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from itertools import count, islice

from hive_core_db.engine import open_store
from hive_core_db.records import Appended, WorkInsert
from hive_core_db.store import Store
from tests.contract.making import event, request


async def main(url: str, name: str, ahead: str = "1") -> None:
    """Append batches of events, large payloads and work items without end; so many batches wait for their turn."""
    store = await open_store(url)
    numbers = count(1)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(int(ahead)):
            tasks.create_task(write(store, name, numbers))


async def write(store: Store, name: str, numbers: Iterator[int]) -> None:
    """Append one batch after the other."""
    while True:
        batch = []
        own = list(islice(numbers, 20))
        for number in own:
            new = event(name, event_id=f"{name}-{number}", payload="x" * (70_000 if number % 97 == 0 else 100))
            batch.append(request(new, work=(WorkInsert(event_index=0, queue="q", state="ready"),)))
        found = await store.log.append(batch)
        last = found[-1]
        assert isinstance(last, Appended), last
        sys.stdout.write(f"{own[-1]} {last.last}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
