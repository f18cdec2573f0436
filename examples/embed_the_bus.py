"""Publish an event and read it back."""

import asyncio

from hive_bus import Event, open_bus


class OrderPlaced(Event, topic="order.placed"):
    order_id: str
    total: float


async def main() -> None:
    async with open_bus("sqlite:///shop.db", source="shop") as bus:
        position = await bus.publish(OrderPlaced(order_id="o-1", total=9.5), stream="order/o-1")
        for record in await bus.history("order/o-1"):
            print(position, record.topic, record.source, record.event)


asyncio.run(main())
