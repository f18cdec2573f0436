"""A process that appends to a log until it is killed; prints each batch's last position once it is durable."""

from __future__ import annotations

import asyncio
import sys

from hive_core_db.engine import open_store
from hive_core_db.records import Appended, WorkInsert
from tests.contract.making import event, request


async def main(url: str, name: str) -> None:
    """Append batches of events, large payloads and work items without end."""
    store = await open_store(url)
    number = 0
    while True:
        batch = []
        for _ in range(20):
            number += 1
            new = event(name, event_id=f"{name}-{number}", payload="x" * (70_000 if number % 97 == 0 else 100))
            batch.append(request(new, work=(WorkInsert(event_index=0, queue="q", state="ready"),)))
        found = await store.log.append(batch)
        last = found[-1]
        assert isinstance(last, Appended), last
        sys.stdout.write(f"{number} {last.last}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
