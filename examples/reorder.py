"""A brain decides when to order jars; a hand orders them. Only the hand touches the world."""

import asyncio
from dataclasses import dataclass, replace

from hive_bus import Brain, BrainHost, Clock, Event, HandContext, HandRunner, Input, Intent, hand, open_bus


class StockMoved(Event, topic="stock.moved"):
    jars: int


class OrderRequested(Intent, topic="purchase.requested", results=("purchase.made",)):
    jars: int


class OrderMade(Event, topic="purchase.made"):
    receipt: str


@dataclass(frozen=True)
class Shelf:
    jars: int = 0
    ordered: bool = False


class Reorder(Brain[Shelf]):
    name, folds = "reorder", ("stock.moved", "purchase.requested")

    def initial(self) -> Shelf:
        return Shelf()

    def evolve(self, state: Shelf, record: Input) -> Shelf:
        match record.event:
            case StockMoved(jars=jars):
                return Shelf(state.jars + jars, ordered=state.ordered and jars < 0)
            case OrderRequested():
                return replace(state, ordered=True)
        return state

    def decide(self, state: Shelf, record: Input) -> list[Event]:
        return [OrderRequested(jars=10)] if state.jars < 3 and not state.ordered else []


@hand(OrderRequested)
async def order(intent: OrderRequested, ctx: HandContext) -> OrderMade:
    # A real one calls the supplier with `ctx.idempotency_key`, which stays the same when it is tried again.
    return OrderMade(receipt=f"{intent.jars} jars, attempt {ctx.attempt}")


async def main() -> None:
    async with open_bus("sqlite:///stock.db", source="shop") as bus, asyncio.TaskGroup() as tasks:
        services = BrainHost(bus, Reorder()), HandRunner(bus, [order]), Clock(bus)
        serving = [tasks.create_task(service.run()) for service in services]
        async with bus.subscribe("purchase.made") as made:
            for jars in (10, -5, -3):
                await bus.publish(StockMoved(jars=jars), correlation_id="honey")
            await anext(made)
        for record in await bus.history("honey"):
            print(record.position, record.topic, record.source, record.event)
        for service in serving:
            service.cancel()


asyncio.run(main())
