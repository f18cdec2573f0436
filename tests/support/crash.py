"""A shop that can be killed: hosts it until every order is closed, or dies at the n-th suspension.

``python -m tests.support.crash DATABASE LEDGER ORDERS`` is one such process. What its hands
do to the world is a line in the ledger, written before they return.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

from hive_bus.brains.host import BrainHost
from hive_bus.bus import Bus
from hive_bus.clock import Clock
from hive_bus.effects import Failure
from hive_bus.event import Event
from hive_bus.hands.hand import Hand, HandContext
from hive_bus.hands.runner import HandRunner
from hive_bus.opening import open_bus
from hive_bus.reading import FROM_BEGINNING
from tests.support.sample_brain import (
    ChargeMade,
    ChargeRequested,
    OrderPlaced,
    PickDone,
    PickRequested,
    ShipRequested,
    ShipSent,
    Shop,
)

DIED = 9


class Ledger:
    """The world as a file that only grows: it outlives every process, whole lines or none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, kind: str, key: str) -> None:
        """One line, durable as far as a killed process goes."""
        with self._path.open("ab", buffering=0) as file:
            file.write(f"{kind} {key}\n".encode())

    def counts(self, kind: str) -> Counter[str]:
        """How often each effect of a kind was done."""
        if not self._path.exists():
            return Counter()
        lines = (line.split() for line in self._path.read_text().splitlines())
        return Counter(key for found, key in lines if found == kind)


class LedgerHand(Hand):
    """Writes what it does into the ledger, then says so."""

    def __init__(self, ledger: Ledger, intent: type[Any], result: Callable[[Any], Event]) -> None:
        self.intent = intent
        self.queues = (intent.family(),)
        self._ledger, self._result = ledger, result

    async def perform(self, intent: Any, ctx: HandContext) -> Event | Failure:
        """Suspend, act, suspend, answer; the first attempt to pick a rug fails."""
        await asyncio.sleep(0)
        if isinstance(intent, PickRequested) and intent.item == "rug" and ctx.attempt == 1:
            return Failure(reason="it is heavy", retryable=True, retry_after=0.01)
        self._ledger.write(self.intent.family(), ctx.idempotency_key)
        await asyncio.sleep(0)
        return self._result(intent)

    async def reconcile(self, intent: Any, ctx: HandContext) -> Event | Failure | None:
        """Look into the ledger."""
        done = ctx.idempotency_key in self._ledger.counts(self.intent.family())
        return self._result(intent) if done else None


def hands(ledger: Ledger) -> list[Hand]:
    """One of each effect class."""
    return [
        LedgerHand(ledger, PickRequested, lambda intent: PickDone(shelf=len(intent.item))),
        LedgerHand(ledger, ChargeRequested, lambda intent: ChargeMade(receipt=f"r{intent.amount}")),
        LedgerHand(ledger, ShipRequested, lambda intent: ShipSent(parcel=f"{intent.parcels}")),
    ]


async def serve(url: str, ledger: Path, orders: int) -> None:
    """Place the orders (again, with the same ids) and host the shop until all are closed."""
    async with open_bus(url, source="shop") as bus:
        host = BrainHost(bus, Shop(), partitions=2)
        runner = HandRunner(bus, hands(Ledger(ledger)), hosts={"shop": host})
        clock = Clock(bus, on_ready=runner.wake)
        async with asyncio.TaskGroup() as tasks:
            services = [tasks.create_task(service) for service in (host.run(), runner.run(), clock.run())]
            for number in range(orders):
                order = OrderPlaced(items=("lamp", "rug"), price=10 + number)
                key = f"order{number}"
                await bus.publish(order, correlation_id=key, stream=f"{key}/order", event_id=f"placed-{number}")
            await all_closed(bus, orders)
            for service in services:
                service.cancel()


async def all_closed(bus: Bus, orders: int) -> None:
    """Return when every order is closed."""
    closed = set()
    async with bus.subscribe("shop.closed", start=FROM_BEGINNING) as records:
        async for record in records:
            closed.add(record.correlation_id)
            if len(closed) == orders:
                return


class Suspensions:
    """Counts how often tasks of a loop suspend, and ends the process at the n-th."""

    def __init__(self, last: int) -> None:
        self.count = 0
        self._last = last

    def step(self) -> None:
        """One more suspension."""
        self.count += 1
        if self.count == self._last:
            os._exit(DIED)

    def task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **options: Any,
    ) -> asyncio.Task[Any]:
        """A task factory that counts the task's suspensions."""
        assert isinstance(coro, Coroutine)
        return asyncio.Task(_Counted(coro, self.step), loop=loop, **options)


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells of every suspension, before whoever it waits for can go on."""

    def __init__(self, inner: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._inner, self._step = inner, step

    def send(self, value: Any) -> Any:
        found = self._inner.send(value)
        self._step()
        return found

    def throw(self, *error: Any) -> Any:
        found = self._inner.throw(*error)
        self._step()
        return found

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def run_counted(url: str, ledger: Path, orders: int, last: int) -> int:
    """Serve in this process, dying at the ``last``-th suspension; how many there were otherwise."""
    suspensions = Suspensions(last)
    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(suspensions.task)
        runner.run(serve(url, ledger, orders))
    return suspensions.count


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
