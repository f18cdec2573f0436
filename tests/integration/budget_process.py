"""A process that buys: ``python -m tests.integration.budget_process URL NAME [stuck]``. A ``stuck`` one never ends what it begins."""

from __future__ import annotations

import asyncio
import signal
import sys

from hive_bus import FROM_BEGINNING, Bus, Event, HandContext, HandRunner, open_bus
from hive_bus.clock import Clock
from tests.support.spending import Buyer, BuyerReady, Purchase, PurchaseDone

TTL = 100.0
# A slow machine must not take a process for lost: one that is killed here is known to be dead at once.


async def both_buy(bus: Bus) -> None:
    """Return when two processes have begun a purchase: neither is done before the other came, however slow that one starts."""
    buyers: set[str] = set()
    async with bus.subscribe("purchase.started", start=FROM_BEGINNING) as records:
        while len(buyers) < 2:
            buyers.add((await anext(records)).source)


async def main(url: str, name: str, *, stuck: bool) -> None:
    """Buy until told to end."""
    async with open_bus(url, source=name) as bus:
        bus.lease_seconds = TTL
        joined = asyncio.Event()

        async def perform(intent: Purchase, ctx: HandContext) -> Event:
            if stuck:
                await asyncio.Event().wait()
            if not joined.is_set():
                await both_buy(bus)
                joined.set()
            await asyncio.sleep(0.05)
            return PurchaseDone(cost=intent.costs)

        runner = HandRunner(bus, [Buyer(perform)], worker=name)
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        async with asyncio.TaskGroup() as tasks:
            services = [tasks.create_task(runner.run()), tasks.create_task(Clock(bus, on_ready=runner.wake).run())]
            await bus.publish(BuyerReady())
            await stopping.wait()
            for service in services:
                service.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], stuck="stuck" in sys.argv))
